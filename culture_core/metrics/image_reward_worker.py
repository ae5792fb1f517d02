"""Runs ImageReward in an environment of its own; see `image_reward` beside this file.

It stands alone: that environment has other versions of everything and nothing of this pack. A line of JSON
comes in on stdin, a line goes out on stdout:

    {"images": [PNG as base64, …], "texts": [...]} -> {"scores": [...]}
    {"texts": [...]}                               -> {"too_long": [...]}

The first line out is {"ready": true}. What fails goes out as {"error": "…"}.
"""

import argparse
import base64
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

LONGEST = 35
"""Tokens that ImageReward reads."""


def main() -> None:
    sys.path.pop(0)  # this folder, whose modules are not meant
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--random", action="store_true", help="random weights, to try the environment")
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the libraries print; stdout is for answers
    try:
        model = _load(options)
    except Exception as error:
        _write(answers, {"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)
    _write(answers, {"ready": True})
    for line in sys.stdin:
        try:
            answer = _answer(model, json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        _write(answers, answer)


def _write(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _load(options: argparse.Namespace) -> Any:
    weights = options.weights
    if (weights / "bert-base-uncased").is_dir():
        os.chdir(weights)  # the library asks for its tokenizer by this name: a folder goes before the hub
    import ImageReward
    import torch

    torch.manual_seed(0)
    model = ImageReward.ImageReward(device=options.device, med_config=str(weights / "med_config.json"))
    if options.random:  # the library starts with a head that gives the same for everything
        for values in model.mlp.parameters():
            torch.nn.init.normal_(values, std=0.1)
    else:
        state = torch.load(weights / "ImageReward.pt", map_location="cpu", weights_only=True)
        missing = [name for name in model.load_state_dict(state, strict=False).missing_keys]
        missing = [name for name in missing if "position_ids" not in name]
        if missing:
            raise ValueError(f"ImageReward.pt lacks weights: {', '.join(missing[:3])} …")
    return model.to(options.device).eval()


def _answer(model: Any, question: dict[str, Any]) -> dict[str, Any]:
    texts = question["texts"]
    if "images" not in question:
        tokens = model.blip.tokenizer(texts, truncation=False)["input_ids"]
        return {"too_long": [len(own) > LONGEST for own in tokens]}
    import torch
    from PIL import Image

    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in question["images"]]
    with torch.no_grad():
        return {"scores": [model.score(text, image) for text, image in zip(texts, images, strict=True)]}


if __name__ == "__main__":
    main()
