"""Many prompts through one headless ComfyUI server, with and without the pack's patches, mixed at random.

    python -m tools.load_test --prompts 2000                    # report in output/load.json
    python -m tools.load_test --prompts 60 -- --cache-none      # after `--`: arguments for ComfyUI

Two clients queue at once; they interrupt what runs, have models unloaded and caches emptied. Every encode is
drawn with one sampling step, and its latent has to equal, bit for bit, the one that the same encode gave when
nothing else was going on. A nonce in every prompt keeps ComfyUI from taking an encode out of its cache. In
the end every reference is drawn once more, and the server's memory over the run is reported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from safetensors.torch import load

from tools.comfy_client import ComfyClient, Workflow
from tools.comfy_server import PACK, ComfyServer

TEXTS = (
    "a Japanese style teapot",
    "急須",
    "ein (Haus:1.3) am Fluss",
    " ".join(["บ้าน", "una casa sul lago", "an old bridge"] * 6),
    "",
)
"""A culture that can be scaled, a neutral word, weights (a row more to encode), several chunks, nothing."""


class Treatment(NamedTuple):
    """What is done to a CLIP before it encodes: nodes in a row."""

    nodes: tuple[tuple[str, dict[str, Any]], ...] = ()
    schedule: str | None = None
    """Encodes with *Encode with Culture Schedule* instead of CLIP Text Encode."""


def _amplify(culture: str, strength: float, mode: str = "inject") -> tuple[str, dict[str, Any]]:
    how = {"culture": culture, "strength": strength, "mode": mode, "tokens": "content", "words": ""}
    return "CultureAmplifyNeurons", {**how, "culture_sae": ["sae", 0]}


def _enhance(strength: float) -> tuple[str, dict[str, Any]]:
    return "CultureApplyEnhancer", {"culture_enhancer": ["enhancer", 0], "strength": strength}


TREATMENTS = {
    "plain": Treatment(),
    "strength 0": Treatment((_amplify("ja", 0.0), _enhance(0.0))),
    "amplified": Treatment((_amplify("ja", 2.0),)),
    "scaled": Treatment((_amplify("ja", 6.0, "scale"),)),
    "switched off": Treatment((_amplify("ja", -1.0),)),
    "two cultures": Treatment((_amplify("ja", 1.0), _amplify("it", 1.5))),
    "enhanced": Treatment((_enhance(1.0),)),
    "amplified, enhanced": Treatment((_amplify("fr", 2.0), _enhance(0.5))),
    "schedule": Treatment(schedule="0: 2, 0.5: 0"),
}
UNPATCHED = ("plain", "strength 0")


class Case(NamedTuple):
    """One encode."""

    treatment: str
    text: str


CASES = [Case(treatment, text) for treatment in TREATMENTS for text in TEXTS]


def graph_of(cases: list[Case], nonce: str) -> Workflow:
    """A graph that encodes every case and saves its latent; the node that saves case i is `save i`.

    Args:
        nonce: makes the graph's encodes others to ComfyUI's cache. No text may contain it.
    """
    graph = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in _LOADERS.items()}
    for index, case in enumerate(cases):
        treatment = TREATMENTS[case.treatment]
        nodes: list[tuple[str, str, dict[str, Any]]] = [
            ("text", "StringReplace", {"string": case.text, "find": nonce, "replace": ""})
        ]
        clip = ["encoder", 0]
        for step, (kind, inputs) in enumerate(treatment.nodes):
            nodes.append((f"clip {step}", kind, {**inputs, "clip": clip}))
            clip = [f"clip {step} {index}", 0]
        text = {"text": [f"text {index}", 0], "clip": clip}
        if treatment.schedule is None:
            nodes.append(("encode", "CLIPTextEncode", text))
        else:
            how = {key: value for key, value in _amplify("ja", 0.0)[1].items() if key != "strength"}
            text |= {**how, "schedule": treatment.schedule, "ramp": 0}
            nodes.append(("encode", "CultureEncodeSchedule", text))
        conditioning = [f"encode {index}", 0]
        nodes += [
            ("sample", "KSampler", {**_SAMPLING, "positive": conditioning, "negative": conditioning}),
            ("save", "SaveLatent", {"samples": [f"sample {index}", 0], "filename_prefix": f"load/{nonce}"}),
        ]
        graph |= {f"{name} {index}": {"class_type": kind, "inputs": inputs} for name, kind, inputs in nodes}
    return graph


_LOADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "encoder": ("CultureLoadTextEncoder", {"folder": "multilingual-e5-small", "adapter": "none"}),
    "sae": ("CultureLoadSAE", {"file": "miniature.safetensors"}),
    "enhancer": ("CultureLoadEnhancer", {"file": "miniature.safetensors"}),
    "unet": ("UNETLoader", {"unet_name": "culture_miniature.safetensors", "weight_dtype": "default"}),
    "model": ("ModelSamplingSD3", {"model": ["unet", 0], "shift": 1.0}),
    "size": ("EmptySD3LatentImage", {"width": 64, "height": 64, "batch_size": 1}),
}
_SAMPLING = {
    "model": ["model", 0], "latent_image": ["size", 0], "seed": 1, "steps": 1, "cfg": 1.0,
    "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0,
}  # fmt: skip
"""At a guidance of 1 the negative prompt is not used."""


@dataclass(frozen=True)
class Plan:
    """What is done to the server."""

    prompts: int
    """Of all clients together."""
    clients: int = 2
    queued: int = 6
    """Prompts that a client keeps waiting in the queue."""
    interrupts: float = 0.04
    """How often a client interrupts what runs, as a share of its prompts."""
    unloads: float = 0.04
    """The same, for unloading all models."""
    resets: float = 0.01
    """The same, for emptying the caches too, so that all is loaded anew."""
    seed: int = 0
    deadline: float | None = None
    """Seconds after which no further prompt is queued."""
    texts: tuple[str, ...] = TEXTS


@dataclass
class Report:
    """What came of it."""

    server_arguments: tuple[str, ...] = ()
    prompts: int = 0
    """Queued by the clients, references not counted."""
    finished: int = 0
    interrupted: int = 0
    interrupts: int = 0
    unloads: int = 0
    resets: int = 0
    equal: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TREATMENTS, 0))
    """Latents that equalled their reference, by treatment."""
    different: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    references: int = 0
    distinct_references: int = 0
    seconds: float = 0.0
    memory: dict[str, float] = field(default_factory=dict)
    """MiB; see `memory_figures`."""

    @property
    def good(self) -> bool:
        """Nothing differed and nothing failed."""
        return not self.different and not self.failures and sum(self.equal.values()) > 0

    def text(self) -> str:
        """A few lines for people."""
        unpatched = sum(self.equal[name] for name in UNPATCHED)
        patched = sum(self.equal.values()) - unpatched
        lines = [
            f"ComfyUI {' '.join(self.server_arguments) or '(no arguments)'}: {self.prompts} prompts in "
            f"{self.seconds:.0f} s, {self.finished} finished, {self.interrupted} interrupted "
            f"({self.interrupts} interrupts, {self.unloads} unloads, {self.resets} emptied caches)",
            f"equal to their reference: {unpatched} unpatched, {patched} patched; "
            f"different: {len(self.different)}; failed: {len(self.failures)}",
            f"references: {self.references}, {self.distinct_references} of them distinct",
            "memory (MiB): " + ", ".join(f"{name} {value:.1f}" for name, value in self.memory.items()),
        ]
        return "\n".join(lines + self.different[:5] + self.failures[:5])


class LoadTest:
    """One run against one server."""

    def __init__(self, server: ComfyServer, plan: Plan) -> None:
        self.server, self.plan = server, plan
        self.cases = [case for case in CASES if case.text in plan.texts]
        self.report = Report(server.arguments)
        self._references: dict[Case, str] = {}
        self._nonces = iter(range(10**9))
        self._lock = threading.Lock()
        self._samples: list[tuple[int, float]] = []
        self._start = 0.0

    def run(self) -> Report:
        """Draw the references, put the load on, draw the references again."""
        self._references = self._draw_all()
        self.report.references = len(self._references)
        self.report.distinct_references = len(set(self._references.values()))
        self._check_references()
        self._start = time.monotonic()
        over = threading.Event()
        watch = threading.Thread(target=self._sample_memory, args=(over,))
        clients = [threading.Thread(target=self._client, args=(n,)) for n in range(self.plan.clients)]
        for thread in (watch, *clients):
            thread.start()
        for thread in clients:
            thread.join()
        over.set()
        watch.join()
        self.report.seconds = time.monotonic() - self._start
        for case, digest in self._draw_all().items():
            self._compare(case, digest, "after everything")
        self.report.memory = memory_figures(self._samples)
        return self.report

    def _check_references(self) -> None:
        """Otherwise a patch that never acts would pass."""
        for name in TREATMENTS:
            changed = [
                text
                for text in self.plan.texts
                if self._references[Case(name, text)] != self._references[Case("plain", text)]
            ]
            if bool(changed) == (name in UNPATCHED):
                self.report.failures.append(f"{name!r} changes the prompts {changed}")

    def _draw_all(self) -> dict[Case, str]:
        client, found = self.server.client(), {}
        for text in self.plan.texts:
            cases = [case for case in self.cases if case.text == text]
            prompt = client.queue(graph_of(cases, self._nonce()))
            history = self._wait(client, prompt)
            for index, digest in self._digests(client, history).items():
                found[cases[index]] = digest
        if missing := set(self.cases) - set(found):
            raise RuntimeError(f"No picture of {sorted(missing)[:3]}. {self.server.log()[-2000:]}")
        return found

    def _client(self, number: int) -> None:
        try:
            self._queue_all(self.server.client(), random.Random(f"{self.plan.seed} {number}"), number)
        except Exception as error:  # a thread's exception would only be printed
            where = getattr(error, "url", "")
            self.report.failures.append(f"client {number}: {type(error).__name__}: {error} {where}")

    def _queue_all(self, client: ComfyClient, chance: random.Random, number: int) -> None:
        waiting: deque[tuple[str, list[Case]]] = deque()
        for _ in range(number, self.plan.prompts, self.plan.clients):
            if self.plan.deadline is not None and time.monotonic() > self._start + self.plan.deadline:
                break
            cases = chance.sample(self.cases, chance.choice((1, 1, 2)))
            waiting.append((client.queue(graph_of(cases, self._nonce())), cases))
            self._count("prompts")
            self._disturb(client, chance)
            if len(waiting) == self.plan.queued:
                self._collect(client, *waiting.popleft())
        while waiting:
            self._collect(client, *waiting.popleft())

    def _disturb(self, client: ComfyClient, chance: random.Random) -> None:
        draw = chance.random()
        for what, share in (
            ("interrupts", self.plan.interrupts), ("unloads", self.plan.unloads), ("resets", self.plan.resets)
        ):  # fmt: skip
            if 0 <= draw < share:
                time.sleep(chance.uniform(0, 0.3))
                client.interrupt() if what == "interrupts" else client.free(empty_caches=what == "resets")
                self._count(what)
            draw -= share

    def _collect(self, client: ComfyClient, prompt: str, cases: list[Case]) -> None:
        """Compare what a prompt gave; an interrupted one may have given some."""
        history = self._wait(client, prompt)
        for index, digest in self._digests(client, history).items():
            self._compare(cases[index], digest, prompt)
        status = history["status"]
        kinds = {kind for kind, _ in status["messages"]}
        if status["status_str"] == "success":
            self._count("finished")
        elif "execution_interrupted" in kinds:
            self._count("interrupted")
        else:
            self.report.failures.append(f"{cases}: {status['messages'][-1]}")

    def _wait(self, client: ComfyClient, prompt: str, timeout: float = 600) -> dict[str, Any]:
        """The history of a finished prompt, which the server may then forget."""
        until = time.monotonic() + timeout
        while not (history := client.history(prompt)):
            client.check_server()
            if time.monotonic() > until:
                raise TimeoutError(f"prompt {prompt} did not finish in {timeout:.0f} s")
            time.sleep(0.05)
        client.forget(prompt)
        return history

    def _digests(self, client: ComfyClient, history: dict[str, Any]) -> dict[int, str]:
        """Latents by the index of their case."""
        found = {}
        for node, output in history["outputs"].items():
            for file in output.get("latents", []):
                latent = load(client.file(file))["latent_tensor"]
                found[int(node.split()[1])] = hashlib.sha256(latent.numpy().tobytes()).hexdigest()
                # ComfyUI numbers the next one by reading the whole folder.
                (self.server.base / "output" / file["subfolder"] / file["filename"]).unlink()
        return found

    def _compare(self, case: Case, digest: str, where: str) -> None:
        with self._lock:
            if digest == self._references[case]:
                self.report.equal[case.treatment] += 1
            else:
                self.report.different.append(f"{case} in {where} differs from its reference")

    def _count(self, what: str) -> None:
        with self._lock:
            setattr(self.report, what, getattr(self.report, what) + 1)

    def _nonce(self) -> str:
        with self._lock:
            return f"nonce{next(self._nonces)}x"

    def _sample_memory(self, over: threading.Event) -> None:
        process = psutil.Process(self.server.process.pid)
        while not over.wait(0.5):
            done = self.report.finished + self.report.interrupted
            self._samples.append((done, process.memory_info().rss / 2**20))


def memory_figures(samples: list[tuple[int, float]]) -> dict[str, float]:
    """Medians of the first and last tenth, peak, and the growth per 1,000 prompts over the second half.

    Args:
        samples: (prompts done, resident MiB).
    """
    if len(samples) < 10:
        return {}
    tenth, rest = len(samples) // 10, samples[len(samples) // 2 :]
    done, resident = zip(*rest, strict=True)
    slope = statistics.linear_regression(done, resident).slope if len(set(done)) > 1 else 0.0
    return {
        "start": statistics.median(value for _, value in samples[:tenth]),
        "end": statistics.median(value for _, value in samples[-tenth:]),
        "peak": max(value for _, value in samples),
        "per 1000 prompts": slope * 1000,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=2000, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--deadline", type=float, help="seconds after which nothing further is queued")
    parser.add_argument("--report", type=Path, default=PACK / "output" / "load.json", help="(%(default)s)")
    parser.add_argument("arguments", nargs="*", metavar="-- ARGUMENT", help="for ComfyUI's main.py")
    options = parser.parse_args()
    comfyui = Path(os.environ.get("COMFYUI_PATH") or PACK / ".comfyui" / "ComfyUI")
    plan = Plan(options.prompts, seed=options.seed, deadline=options.deadline)
    with (
        tempfile.TemporaryDirectory(prefix="load-test-") as base,
        ComfyServer(comfyui, Path(base), arguments=tuple(options.arguments)) as server,
    ):
        report = LoadTest(server, plan).run()
    print(f"seed {options.seed}\n{report.text()}\n{options.report}", flush=True)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    found = {"seed": options.seed, **asdict(report)}
    options.report.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
