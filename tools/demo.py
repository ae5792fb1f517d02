"""`python dev.py demo`: neutral, amplified, enhanced and explicit prompts in a real, headless ComfyUI server.

Draws the shipped `workflows/api/demo.json` for one held-out prompt a culture, has the miniature's judge
name what the pictures show, and writes `contact_sheet.png`, `scores.json` and `scores.md` to `output/`.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from culture_core.cultures import CULTURES
from culture_core.documents import markdown_table
from culture_core.files import FileError, load_culture_sae
from culture_core.miniature.captions import prompt_pairs
from culture_core.miniature.judge import Judge, load_judge
from culture_core.pairs import PromptPair
from culture_core.sheets import RowLabel, contact_sheet
from tools.comfy_client import ComfyClient, ProgressLine, Workflow, WorkflowError, find_node, set_inputs
from tools.comfy_server import ComfyServer, ServerError

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = ROOT / "workflows" / "api" / "demo.json"
CULTURE_SAE = ROOT / "models" / "culture_sae" / "miniature.safetensors"
JUDGE = ROOT / "models" / "judge" / "miniature_judge.safetensors"

TREATMENTS = {
    "Neutral": "neutral prompt",
    "Amplified": "amplified",
    "Enhanced": "enhanced",
    "Explicit": "explicit modifier",
}
"""Title of the workflow's saving node -> column of the sheet."""


class Row(NamedTuple):
    """One prompt of one culture, drawn in every treatment."""

    pair: PromptPair
    strength: float
    pictures: dict[str, list[Image.Image]]
    """Treatment -> pictures."""
    cultures: dict[str, list[str]]
    """Treatment -> the culture that the judge sees in each picture."""
    nouns: dict[str, list[str]]


def main() -> int:
    options = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        judge = load_judge(JUDGE)
        strengths = {code: found.best for code, found in load_culture_sae(CULTURE_SAE).strengths.items()}
        print("[demo] starting ComfyUI ...", flush=True)
        with ComfyServer(options.comfyui, ROOT / ".comfyui" / "base") as server:
            rows = draw_all(server.client(), judge, strengths, options.cultures, options.pictures)
    except (ServerError, WorkflowError, FileError, OSError) as error:
        print(f"\nThe demo failed. {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\n[demo] interrupted; the server is stopped", file=sys.stderr)
        return 130
    write_results(rows, ROOT / "output")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python dev.py demo", description=__doc__)
    comfyui = os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI"
    parser.add_argument("--comfyui", type=Path, default=comfyui, help="ComfyUI's folder (%(default)s)")
    parser.add_argument("--pictures", type=int, default=3, help="of each prompt and treatment (%(default)s)")
    parser.add_argument("--cultures", nargs="+", choices=CULTURES, default=list(CULTURES), metavar="CODE")
    return parser.parse_args()


# ---------------------------------------------------------------------------------------------- pictures


def draw_all(
    client: ComfyClient, judge: Judge, strengths: dict[str, float], cultures: Sequence[str], count: int
) -> list[Row]:
    """One row a culture: its first held-out combination of culture and noun."""
    template = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    pairs = {pair.culture: pair for pair in reversed(prompt_pairs("test"))}
    rows = []
    for number, code in enumerate(cultures, start=1):
        pair = pairs[code]
        strength = strengths.get(code, template[find_node(template, "Amplify")]["inputs"]["strength"])
        workflow = fill(template, pair, strength, seed=number, count=count)
        progress = ProgressLine(f"{number:2}/{len(cultures)} {CULTURES[code].name}: {pair.category} ")
        pictures = fetch(client, workflow, progress)
        progress.clear()
        rows.append(judged(judge, pair, strength, pictures))
    return rows


def fill(template: Workflow, pair: PromptPair, strength: float, seed: int, count: int) -> Workflow:
    """The template with one prompt pair's texts and culture."""
    workflow = copy.deepcopy(template)
    set_inputs(workflow, "Neutral prompt", value=pair.neutral)
    set_inputs(workflow, "Explicit prompt", value=pair.cultural)
    set_inputs(workflow, "Amplify", culture=pair.culture, strength=strength)
    set_inputs(workflow, "Seed", value=seed)
    set_inputs(workflow, "Size", batch_size=count)
    return workflow


def fetch(client: ComfyClient, workflow: Workflow, progress: ProgressLine) -> dict[str, list[Image.Image]]:
    """Run the workflow; treatment -> pictures."""
    files = client.images(client.run(workflow, progress))
    return {
        title: [Image.open(io.BytesIO(png)).convert("RGB") for png in files[find_node(workflow, title)]]
        for title in TREATMENTS
    }


def judged(judge: Judge, pair: PromptPair, strength: float, pictures: dict[str, list[Image.Image]]) -> Row:
    """A row with what the judge sees."""
    verdicts = {title: judge.judge(to_tensor(images)) for title, images in pictures.items()}
    cultures = {title: verdict.cultures for title, verdict in verdicts.items()}
    nouns = {title: verdict.nouns for title, verdict in verdicts.items()}
    return Row(pair, strength, pictures, cultures, nouns)


def to_tensor(images: Sequence[Image.Image]) -> torch.Tensor:
    """Pictures -> [N, 3, H, W] in 0 to 1."""
    stacked = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


# ----------------------------------------------------------------------------------------------- results


def write_results(rows: list[Row], folder: Path) -> None:
    """Write the sheet and the scores, and show the table."""
    folder.mkdir(parents=True, exist_ok=True)
    sheet(rows).save(folder / "contact_sheet.png")
    scores = score(rows)
    (folder / "scores.json").write_text(json.dumps(scores, indent=2, ensure_ascii=False) + "\n", "utf-8")
    table = markdown(scores["treatments"])
    (folder / "scores.md").write_text(table, "utf-8")
    print(f"\n{table}\nThe pictures are in {folder / 'contact_sheet.png'}")


def sheet(rows: list[Row]) -> Image.Image:
    """The first picture of every prompt and treatment, with the judge's words below."""
    labels = [
        RowLabel(row.pair.neutral, f"{CULTURES[row.pair.culture].name}: {row.pair.category}") for row in rows
    ]
    pictures = [[row.pictures[title][0] for title in TREATMENTS] for row in rows]
    captions = [[_seen(row.cultures[title][0], row.nouns[title][0]) for title in TREATMENTS] for row in rows]
    return contact_sheet(labels, list(TREATMENTS.values()), pictures, captions)


def _seen(culture: str, noun: str) -> str:
    """The judge's words for one picture, short enough to stand below it."""
    return f"{'–' if culture == 'unrecognisable' else culture} {noun}"


def score(rows: list[Row]) -> dict:
    """Counts of right answers: all together by treatment, and every prompt's by itself."""
    treatments = {}
    for title, name in TREATMENTS.items():
        cultures = [seen == row.pair.culture for row in rows for seen in row.cultures[title]]
        nouns = [seen == row.pair.category for row in rows for seen in row.nouns[title]]
        treatments[name] = {"pictures": len(cultures), "culture": sum(cultures), "noun": sum(nouns)}
    prompts = [
        {
            "culture": row.pair.culture,
            "noun": row.pair.category,
            "neutral": row.pair.neutral,
            "explicit": row.pair.cultural,
            "strength": row.strength,
            "seen": {
                name: [list(seen) for seen in zip(row.cultures[title], row.nouns[title], strict=True)]
                for title, name in TREATMENTS.items()
            },
        }
        for row in rows
    ]
    return {"treatments": treatments, "prompts": prompts}


def markdown(treatments: dict[str, dict[str, int]]) -> str:
    """The scores as a table."""
    lines = [["prompt", "culture (CultureVQA)", "noun", "pictures"]]
    for name, counts in treatments.items():
        shares = (f"{100 * counts[key] / counts['pictures']:.0f} %" for key in ("culture", "noun"))
        lines.append([name, *shares, str(counts["pictures"])])
    return markdown_table(lines, [False, True, True, True]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
