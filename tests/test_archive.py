"""The registry's archive: it is clean and small, and works where nothing else is, without a network."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from culture_core.embedded_encoder import ENCODER_NAME
from tools.comfy_server import PACK_NAME, ComfyServer

ROOT = Path(__file__).resolve().parent.parent
MEGABYTES = 40
"""Of the archive; 18 are the miniature's image model, without which the example graphs would not run."""
NO_NETWORK = """
import socket

def refuse(address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost", None, ""):
        raise OSError(f"there is no network: {address[0]}")

class Offline(socket.socket):
    def connect(self, address):
        refuse(address)
        return super().connect(address)

    def connect_ex(self, address):
        refuse(address)
        return super().connect_ex(address)

resolve = socket.getaddrinfo

def getaddrinfo(host, *rest, **options):
    refuse((host,))
    return resolve(host, *rest, **options)

socket.socket, socket.getaddrinfo = Offline, getaddrinfo
"""
"""A `sitecustomize.py`: in a process that finds it, this machine is alone in the world."""


def comfy(folder: Path, *arguments: str) -> str:
    """What comfy-cli prints, run in a folder and with settings of its own beside it."""
    home = str(folder.parent / "home")
    environment = {
        **os.environ,
        "HOME": home,
        "USERPROFILE": home,
        "XDG_CONFIG_HOME": home,
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "comfy_cli", "--skip-prompt", "--no-json", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked files, as they are now, in a repository of their own."""
    if not (ROOT / ".git").exists():
        pytest.skip("an archive is made of a git checkout")
    folder = tmp_path_factory.mktemp("registry") / "pack"
    git = ["git", "-c", "core.quotepath=off", "ls-files", "-z"]
    for name in subprocess.run(git, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for command in (["init", "-q"], ["add", "-A", "-f"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    (folder.parent / "home").mkdir()
    return folder


@pytest.fixture(scope="module")
def archive(checkout: Path) -> zipfile.ZipFile:
    comfy(checkout, "node", "pack")
    with zipfile.ZipFile(checkout / "node.zip") as opened:
        yield opened


def test_the_registrys_own_check_finds_nothing(checkout: Path) -> None:
    text = comfy(checkout, "node", "validate")
    assert "All validation checks passed successfully" in text
    assert "arning" not in text and "rror" not in text


def test_the_archive_holds_what_a_user_needs_and_nothing_else(archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    needed = {"__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md", "docs/FORMAT.md"}
    needed |= {"models/culture_sae/miniature.safetensors", "workflows/amplify.json", "web/texts.js"}
    assert needed <= set(names)
    allowed = needed | {"requirements-imagereward.txt"}
    folders = {"culture_core", "nodes", "models", "workflows", "web", "docs", "locales", "evaluation"}
    others = [name for name in names if name not in allowed and name.split("/")[0] not in folders]
    assert not [name for name in others if not name.endswith(".md")], others
    assert not [name for name in names if any(part.startswith(".") for part in name.split("/"))]
    assert not [name for name in names if name.startswith(("models/training_logs", "models/culture_bench"))]


def test_the_archive_is_small(checkout: Path) -> None:
    assert (checkout / "node.zip").stat().st_size < MEGABYTES << 20


def test_nothing_is_installed_with_it(archive: zipfile.ZipFile) -> None:
    lines = archive.read("requirements.txt").decode().splitlines()
    assert not [line for line in lines if line.strip() and not line.startswith("#")]
    assert "dependencies = []" in archive.read("pyproject.toml").decode()
    assert not [
        name for name in archive.namelist() if Path(name).name in ("install.py", "prestartup_script.py")
    ]


def painted(server: ComfyServer) -> list[np.ndarray]:
    """The two pictures of the amplifying graph."""
    graph = json.loads((ROOT / "workflows" / "api" / "amplify.json").read_text(encoding="utf-8"))
    for node in graph.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 2
    client = server.client()
    files = client.images(client.run(graph))
    return [np.asarray(Image.open(io.BytesIO(files[node][0]))) for node in sorted(files)]


def test_the_archive_alone_paints_what_the_checkout_paints_without_a_network(
    archive: zipfile.ZipFile, server: ComfyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = tmp_path / "base" / "custom_nodes" / PACK_NAME
    archive.extractall(pack)
    # What `fetch-encoder` has fetched, and users keep in their own models folder.
    encoders = tmp_path / "base" / "models" / "text_encoders"
    encoders.mkdir(parents=True)
    (encoders / ENCODER_NAME).symlink_to(ROOT / "models" / "text_encoders" / ENCODER_NAME)
    (tmp_path / "offline").mkdir()
    (tmp_path / "offline" / "sitecustomize.py").write_text(NO_NETWORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "offline"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asks = [sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)"]
    assert "there is no network" in subprocess.run(asks, capture_output=True, text=True).stderr
    with ComfyServer(server.comfyui, tmp_path / "base", pack=pack) as alone:
        found = painted(alone)
    expected = painted(server)
    assert len(found) == 2 and not np.array_equal(*found)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
