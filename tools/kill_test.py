"""Kills commands (SIGKILL) at random moments, starts them again, compares the end with an undisturbed run.

    python -m tools.kill_test                      20 kills of each target
    python -m tools.kill_test sae saving --kills 5 --seed 7

After every kill, every file under its final name is whole, no finished picture or line has changed, and no
checkpoint went back. In the end all files hold what those of an undisturbed run hold, bit for bit. The seed
is printed; a run with the same seed kills after the same times.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

import culture_core.commands
from culture_core.__main__ import main as culture_core_main
from culture_core.checkpoints import read_checkpoint
from culture_core.enhancer import LayerEnhancer
from culture_core.files import (
    CultureSAE,
    EnhancerFile,
    load_culture_sae,
    load_enhancer,
    save_culture_sae,
    save_enhancer,
)
from culture_core.miniature.scenes import draw_scene
from culture_core.sae import TopKSAE

ROOT = Path(__file__).resolve().parents[1]
CLOCKS = ("seconds",)
"""What differs from run to run in a line of a log."""


CHECKPOINT = ".checkpoint.safetensors"


class Broken(AssertionError):
    """A kill did harm. The message says which file."""


class Target(NamedTuple):
    """Something to be killed."""

    prepare: Callable[[Path], None]
    """Makes the inputs, in a folder that all runs of the target share."""
    run: Callable[[Path, Path], None]
    """(inputs, output folder): works until it is done, also where an earlier run was killed."""
    result: str | None = None
    """File that is there once all is done, and that a command does not replace; None: it can always run."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (all)")
    parser.add_argument("--kills", type=int, default=20, help="of each target (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(unknown)}")
    _import_all()
    total = 0
    print(f"seed {options.seed}", flush=True)
    for name in options.targets or TARGETS:
        with tempfile.TemporaryDirectory(prefix="kill-test-") as folder:
            found = torment(
                TARGETS[name], Path(folder), options.kills, random.Random(f"{options.seed} {name}")
            )
        total += found.kills
        print(
            f"{name}: {found.kills} kills, {found.runs} runs brought to their ends, all as undisturbed "
            f"({found.seconds:.1f} s), {found.leftovers} temporary files were left behind",
            flush=True,
        )
    print(f"{total} kills")
    return 0


class Found(NamedTuple):
    """What was done to a target."""

    kills: int
    runs: int
    seconds: float
    """Of an undisturbed run."""
    leftovers: int
    """Temporary files that killed runs left."""


def torment(target: Target, folder: Path, kills: int, rng: random.Random) -> Found:
    """Kill a target so many times, and let it end in between.

    Raises:
        Broken: where a kill did harm.
    """
    inputs, output = folder / "inputs", folder / "output"
    inputs.mkdir()
    _finish(lambda: target.prepare(inputs))
    start = time.monotonic()
    _finish(lambda: target.run(inputs, output))
    seconds = time.monotonic() - start
    wanted = contents(output)
    shutil.rmtree(output)
    killed, runs, leftovers = 0, 0, 0
    while killed < kills or output.exists():
        before = contents(output)
        # Rarely more than a few in a row, so that the last steps, the saving, are hit too.
        if killed < kills and rng.random() < 0.8:
            ended = not _killed(lambda: target.run(inputs, output), rng.uniform(0, seconds))
            killed += not ended
        else:
            _finish(lambda: target.run(inputs, output))
            ended = True
        after = contents(output)
        _compare(before, after)
        if ended or (target.result and target.result in after):
            runs += 1
            names = {name for name in wanted.keys() | after.keys() if not name.endswith(CHECKPOINT)}
            if wrong := sorted(name for name in names if wanted.get(name) != after.get(name)):
                raise Broken(f"after {killed} kills these differ from an undisturbed run: {', '.join(wrong)}")
            leftovers += sum(path.suffix == ".tmp" for path in output.rglob(".*"))
            shutil.rmtree(output)
    return Found(killed, runs, seconds, leftovers)


def contents(folder: Path) -> dict[str, object]:
    """What the files of a folder hold, by name, read as the commands read them; without clocks.

    Raises:
        Broken: for a file that is not whole.
    """
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("[!.]*")) if folder.is_dir() else ():
        if path.is_file() and not path.name.startswith("."):
            try:
                found[str(path.relative_to(folder))] = _content(path)
            except Exception as error:
                raise Broken(f"{path} is not whole: {error}") from error
    return found


def _content(path: Path) -> object:
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").split("\n")
        # A line that a kill cut off has no end; whoever reads on leaves it out.
        records = [json.loads(line) for line in lines[:-1]]
        return sorted(
            json.dumps({key: record[key] for key in record if key not in CLOCKS}) for record in records
        )
    if path.name.endswith(CHECKPOINT):
        return ("steps", len(read_checkpoint(path)[1]["losses"]))
    if path.suffix == ".safetensors":
        (load_culture_sae if "sae" in path.name else load_enhancer)(path)
        return _tensors(path)
    elif path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tensors(path: Path) -> str:
    """Hash of what a safetensors file holds; the order inside the file is another in every process."""
    with safe_open(path, framework="np") as file:
        names = sorted(file.keys())
        parts = [(name, file.get_tensor(name).tobytes().hex()) for name in names]
        return hashlib.sha256(repr((sorted(file.metadata().items()), parts)).encode()).hexdigest()


def _compare(before: dict[str, object], after: dict[str, object]) -> None:
    """See that all good is there still: finished files as they were, checkpoints not of fewer steps."""
    for name, old in before.items():
        new = after.get(name)
        if name.endswith(CHECKPOINT):
            if new is not None and new < old:
                raise Broken(f"{name} went back from {old} to {new}")
        elif new is None:
            raise Broken(f"{name} was lost")
        elif name.endswith((".png", ".safetensors")) and not name.startswith("saved") and new != old:
            raise Broken(f"{name} was there and has changed")


# ----------------------------------------------------------------------------------------------- processes


def _killed(work: Callable[[], None], seconds: float) -> bool:
    """Kill work after some seconds; whether it had not ended before."""
    pid = _fork(work)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise Broken(f"a run failed with exit code {os.WEXITSTATUS(status)}; its words are above")
    return os.WIFSIGNALED(status)


def _finish(work: Callable[[], None]) -> None:
    _, status = os.waitpid(_fork(work), 0)
    if status:
        raise Broken(f"a run failed with status {status}; its words are above")


def _fork(work: Callable[[], None]) -> int:
    """Start work in a process that has all modules already: a kill shall hit the work, not the imports."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        torch.set_num_threads(1)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            work()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _import_all() -> None:
    """Before forking, without computing anything: threads do not survive a fork."""
    for module in pkgutil.iter_modules(culture_core.commands.__path__):
        importlib.import_module(f"culture_core.commands.{module.name}")
    for name in ("enhancer_training", "generators.run", "generators.comfyui", "judges.run", "pipelines"):
        importlib.import_module(f"culture_core.{name}")
    _tests("culture_core.tiny_pipelines")


def _tests(name: str) -> ModuleType:
    """A module of the tests' helpers. (Some installed package calls itself `tests` as well.)"""
    if getattr(sys.modules.get("tests"), "__path__", None) != [str(ROOT / "tests")]:
        package = ModuleType("tests")
        package.__path__ = [str(ROOT / "tests")]
        sys.modules["tests"] = package
    return importlib.import_module(f"tests.{name}")


def _command(*arguments: object) -> None:
    """Run a command of the pack.

    Raises:
        Broken: where it fails.
    """
    if code := culture_core_main([str(argument) for argument in arguments]):
        raise Broken(f"{arguments[0]} ended with exit code {code}")


# ------------------------------------------------------------------------------------------------- targets


def _prepare_training(inputs: Path) -> None:
    pipe = _tests("culture_core.tiny_pipelines").make("sd")
    pipe.save_pretrained(inputs / "pipeline")
    pipe.text_encoder.save_pretrained(inputs / "encoder")
    pipe.tokenizer.save_pretrained(inputs / "encoder")
    _tests("culture_core.pictures").write_pairs(inputs)


def _train_sae(inputs: Path, output: Path) -> None:
    output.mkdir(exist_ok=True)
    if not (output / "sae.safetensors").exists():
        _command(
            "train-sae", "--encoder", inputs / "encoder", "--pairs", inputs / "pairs.jsonl", "--layer", 1,
            "--feature", "hidden_state", "--output", output / "sae.safetensors", "--latents", 64, "--k", 4,
            "--steps", 1200, "--batch-size", 8, "--picture", output / "loss.png",
        )  # fmt: skip


def _train_enhancer(inputs: Path, output: Path) -> None:
    output.mkdir(exist_ok=True)
    if not (output / "enhancer.safetensors").exists():
        _command(
            "train-enhancer", "--pipeline", inputs / "pipeline", "--pairs", inputs / "pairs.jsonl", "--layer",
            1, "--output", output / "enhancer.safetensors", "--loss", "latent", "--steps", 25,
            "--bottleneck", 8, "--ema", 0.9, "--checkpoint-every", 5, "--picture", output / "loss.png",
        )  # fmt: skip


SYSTEMS = """
systems:
  plain: {workflow: graph.json, slots: {prompt: 1.text, seed: 1.seed}}
  louder: {workflow: graph.json, strengths: [0, 2],
           slots: {prompt: 1.text, seed: 1.seed, strength: 1.strength}}
"""


def _prepare_generate(inputs: Path) -> None:
    (inputs / "graph.json").write_text(json.dumps(_tests("comfy_protocol").GRAPH))
    (inputs / "systems.yaml").write_text(SYSTEMS)


def _generate(inputs: Path, output: Path) -> None:
    with _tests("comfy_protocol").ComfyProtocolServer() as server:
        _command(
            "generate", "miniature", "--systems", inputs / "systems.yaml", "--output", output, "--limit", 1,
            "--server", server.url,
        )  # fmt: skip


def _prepare_saving(inputs: Path) -> None:
    info = {"family": "bert", "layers": 4, "width": 64, "heads": 4, "vocabulary": 9, "weights": [0.5]}
    for seed in range(2):
        sae = TopKSAE(64, 2048, 8, seed)
        save_culture_sae(CultureSAE(sae, 1, "hidden_state", info), inputs / f"sae-{seed}.safetensors")
        enhancer = EnhancerFile(LayerEnhancer(64, 512, seed), 1, info)
        save_enhancer(enhancer, inputs / f"enhancer-{seed}.safetensors")


def _saving(inputs: Path, output: Path) -> None:
    """Replace two files by turns."""
    output.mkdir(exist_ok=True)
    for kind, load, save in (
        ("sae", load_culture_sae, save_culture_sae), ("enhancer", load_enhancer, save_enhancer)
    ):  # fmt: skip
        given = [inputs / f"{kind}-{seed}.safetensors" for seed in range(2)]
        path = output / f"saved-{kind}.safetensors"
        if path.exists() and _tensors(path) not in map(_tensors, given):
            raise Broken(f"{path} is neither the old one nor the new one")
        for turn in range(20):
            save(load(given[turn % 2]), path, overwrite=True)


def _prepare_judge(inputs: Path) -> None:
    for index, culture in enumerate(["th", "ja", "de", "fr"] * 12):
        scene = draw_scene("house", culture, np.random.default_rng(index))
        (inputs / culture).mkdir(exist_ok=True)
        Image.fromarray(scene).save(inputs / culture / f"{index}.png")


def _judge(inputs: Path, output: Path) -> None:
    _command("judge", inputs, "--output", output)


TARGETS = {
    "sae": Target(_prepare_training, _train_sae, "sae.safetensors"),
    "enhancer": Target(_prepare_training, _train_enhancer, "enhancer.safetensors"),
    "generate": Target(_prepare_generate, _generate),
    "judge": Target(_prepare_judge, _judge),
    "saving": Target(_prepare_saving, _saving),
}

if __name__ == "__main__":
    sys.exit(main())
