"""What a reader may not do with a case, watched while it runs."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 2.0
"""Of processor time that a case may take: other programs on the machine do not count."""
ALLOWANCE = 48 << 20
"""Bytes above twice the case that a reader may take. A file of a few hundred bytes still costs what does not
depend on its size: buffers of the allocator, a text encoder's modules and ComfyUI's book-keeping around them.
The largest that valid files of the corpus were seen to take is 20 MiB; what is looked for are small files
that claim gigabytes."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
}  # fmt: skip
_PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"}
_NETWORK = {"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}


@dataclass
class Watch:
    """Collects what a case does; made once a process, because audit hooks stay for good."""

    readable: Sequence[Path]
    """Folders of the programs themselves: Python, its packages, the pack, ComfyUI."""
    outside: Path
    """Folder beside the case that only a case that leaves its own would touch."""
    folder: str = ""
    """Of the case; empty while none runs."""
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._own = tuple(f"{os.path.realpath(path)}{os.sep}" for path in (*self.readable, *_python()))
        self._touched = _Inotify(self.outside)
        sys.addaudithook(self._hear)

    def start(self, folder: Path) -> None:
        self.seen.clear()
        self._touched.read()
        self.folder = f"{os.path.realpath(folder)}{os.sep}"

    def stop(self) -> list[str]:
        """What the case did that it may not."""
        self.folder = ""
        # Readers in Rust and C++ raise no audit event; the kernel tells of them all the same.
        return [*self.seen, *(f"touched {name} outside of its folder" for name in self._touched.read())]

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        if event == "open":
            self._opened(*arguments)
        elif event in _CHANGES:
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                self._check(path, event, writing=True)
        elif event in _PROGRAMS or event in _NETWORK:
            self.seen.append(f"{event} {arguments[-1]!r:.200}")

    def _opened(self, path: object, mode: str | None, flags: int) -> None:
        writing = bool(flags & _WRITING) if mode is None else bool(set(mode) & set("wax+"))
        self._check(path, "open", writing or bool(flags & _WRITING))

    def _check(self, path: object, event: str, writing: bool) -> None:
        if not isinstance(path, str | bytes | os.PathLike):  # a descriptor that is open already
            return
        real = os.path.realpath(os.fsdecode(path)) + os.sep
        system = real.startswith(
            ("/proc/self/", "/proc/meminfo/", "/proc/cpuinfo/", "/etc/mime.types/", "/sys/", "/dev/")
        )
        if not (real.startswith(self.folder) or (not writing and (system or real.startswith(self._own)))):
            self.seen.append(f"{event} {'for writing' if writing else 'for reading'}: {os.fsdecode(path)}")


def _python() -> list[str]:
    paths = sysconfig.get_paths()
    return [*{paths["stdlib"], paths["platlib"], paths["purelib"]}, sys.prefix, sys.base_prefix]


class _Inotify:
    """Names of files that anyone opened or changed in a folder, from Linux's kernel; elsewhere none."""

    _MASK = 0x20 | 0x2 | 0x100 | 0x200 | 0x40 | 0x80  # open, modify, create, delete, moved from, moved to

    def __init__(self, folder: Path) -> None:
        self._handle = -1
        if sys.platform != "linux":
            return
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if libc.inotify_add_watch(self._handle, os.fsencode(folder), self._MASK) < 0:
            raise OSError(ctypes.get_errno(), "inotify cannot watch", str(folder))

    def read(self) -> list[str]:
        if self._handle < 0:
            return []
        try:
            data = os.read(self._handle, 1 << 16)
        except BlockingIOError:
            return []
        names, start = [], 0
        while start < len(data):
            length = struct.unpack_from("I", data, start + 12)[0]
            names.append(os.fsdecode(data[start + 16 : start + 16 + length].rstrip(b"\0")) or "the folder")
            start += 16 + length
        return names


@dataclass
class Cost:
    """What a call took."""

    seconds: float = 0.0
    """Of processor time."""
    bytes: int = 0
    """Largest growth of the memory in use; 0 where the system does not tell."""


def measured(call: Callable[[], object], cost: Cost) -> object:
    """The result of a call, with what it took put into `cost`, also if it fails."""
    before, start = _reset_peak(), time.process_time()
    try:
        return call()
    finally:
        cost.seconds = time.process_time() - start
        cost.bytes = max(0, _peak() - before)


def _reset_peak() -> int:
    """Memory in use, from where the peak is counted anew. Linux only."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return 0
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(key))
    except (OSError, StopIteration):
        return 0
