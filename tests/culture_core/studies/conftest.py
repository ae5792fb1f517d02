"""Runs of real pictures, judged by the miniature's own network.

The pictures are the miniature's bench. A pretended system draws an item by choosing a picture: of the culture
that was asked for as often as its share says, else of another one.
"""

import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from culture_core.judges.by_miniature import MiniatureJudge
from culture_core.judges.folders import read_folder
from culture_core.judges.run import judge_folder
from culture_core.miniature.judge import load_judge
from culture_core.miniature.logs import MODELS
from culture_core.reproduce.measures import perceptual_distance

BENCH = MODELS / "culture_bench" / "miniature"
CULTURES = ("th", "ja", "de", "fr")
NOUNS = ("boat", "bottle", "bowl", "dress", "fish")
SYSTEMS = {"neutral": 0.2, "explicit": 0.95, "amplified": 0.8}


def bench() -> dict[tuple[str, str], list[dict]]:
    """Records by culture and noun; two pictures of each."""
    found: dict[tuple[str, str], list[dict]] = {}
    for line in (BENCH / "records.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        found.setdefault((record["culture"], record["noun"]), []).append(record)
    return found


def write_run(
    folder: Path,
    systems: Mapping[str, float | Mapping[float, float]],
    cultures: Sequence[str] = CULTURES,
    nouns: Sequence[str] = NOUNS,
    seeds: Sequence[int] = (0, 1),
) -> Path:
    """A run's folder.

    Args:
        systems: share of pictures that show the culture, of each system, or by its strengths.
    """
    records, lines = bench(), []
    (folder / "images").mkdir(parents=True)
    settings = [
        (system, strength, share)
        for system, given in systems.items()
        for strength, share in (given.items() if isinstance(given, Mapping) else [(None, given)])
    ]
    for system, strength, share in settings:
        for culture in cultures:
            for noun in [noun for noun in nouns if (culture, noun) in records]:
                for seed in seeds:
                    rng = random.Random(f"{system} {strength} {culture} {noun} {seed}")
                    others = [code for code in cultures if code != culture and (code, noun) in records]
                    shown = culture if rng.random() < share else rng.choice(others)
                    own, source = records[culture, noun][0], records[shown, noun][seed % 2]
                    name = f"images/{len(lines):05d}.png"
                    shutil.copy(BENCH / source["image"], folder / name)
                    lines.append(
                        {"file_name": name, "job": f"{len(lines):05d}", "system": system,
                         "prompt": own["cultural"] if system == "explicit" else own["neutral"],
                         "neutral": own["neutral"], "english": own["english_neutral"], "language": culture,
                         "culture": culture, "noun": noun, "category": own["category"],
                         "item": f"{culture}-{noun}", "seed": seed, "strength": strength}
                    )  # fmt: skip
    write_lines(folder / "metadata.jsonl", lines)
    return folder


def write_lines(path: Path, lines: Sequence[Mapping]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def judged(run: Path, output: Path) -> Path:
    judge_folder(MiniatureJudge(), read_folder(run), output)
    return output


def measured(run: Path, output: Path) -> Path:
    """Noun accuracy and the distance to the first system's picture of the item, by the miniature."""
    network = load_judge(MODELS / "judge" / "miniature_judge.safetensors")
    lines = read_lines(run / "metadata.jsonl")
    opened = [np.array(Image.open(run / line["file_name"]).convert("RGB")) for line in lines]
    pixels = torch.from_numpy(np.stack(opened)).permute(0, 3, 1, 2).float() / 255
    nouns = network.judge(pixels).nouns
    first = {(line["item"], line["seed"]): n for n, line in reversed(list(enumerate(lines)))}
    other = pixels[[first[line["item"], line["seed"]] for line in lines]]
    distances = perceptual_distance(network, pixels, other).tolist()
    write_lines(
        output / "metrics.jsonl",
        [
            {"file_name": line["file_name"], "noun": noun == line["noun"], "distance_to_neutral": distance}
            for line, noun, distance in zip(lines, nouns, distances, strict=True)
        ],
    )
    tool = {"instruments": [{"metric": "miniature"}]}
    settings = {"settings": {"noun": tool, "distance_to_neutral": tool}, "systems": {}}
    (output / "metrics.json").write_text(json.dumps(settings), encoding="utf-8")
    return output


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three systems, judged and measured; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    run = write_run(folder / "run", SYSTEMS)
    return {
        "run": run, "judged": judged(run, folder / "judged"), "metrics": measured(run, folder / "metrics")
    }  # fmt: skip


@pytest.fixture
def own_run(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Makes a judged run that a test may change."""

    def make(systems: Mapping, **given) -> dict[str, Path]:
        run = write_run(tmp_path / "run", systems, **given)
        return {"run": run, "judged": judged(run, tmp_path / "judged")}

    return make
