"""A headless ComfyUI server with this pack installed, for the demo and for the tests.

    from tools.comfy_server import ComfyServer

    with ComfyServer(comfyui, base) as server:      # .comfyui/ComfyUI, .comfyui/base
        result = server.client().run(workflow)      # API-format dict; see tools/comfy_client.py
        pngs = server.client().images(result)       # {node id: [PNG bytes, ...]}
        server.log()                                # what ComfyUI wrote so far

ComfyUI's own folder is left alone: `base` holds custom_nodes, models, input, output, temp and user, and this
repository is linked into its `custom_nodes`. The process is stopped when the block is left, however it is
left (exception, Ctrl-C, SIGTERM).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import FrameType

from tools.comfy_client import ComfyClient

PACK = Path(__file__).resolve().parent.parent
PACK_NAME = "comfyui-culture"


class ServerError(RuntimeError):
    """The server did not start or died. The message ends with the tail of its log."""


def has_gpu() -> bool:
    """True if PyTorch sees an accelerator; ComfyUI must be told when there is none."""
    import torch

    xpu = getattr(torch, "xpu", None)
    return torch.cuda.is_available() or torch.backends.mps.is_available() or bool(xpu and xpu.is_available())


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def link_pack(base: Path, pack: Path = PACK) -> Path:
    """Make `base/custom_nodes/comfyui-culture` point at the pack; returns the link."""
    link = base / "custom_nodes" / PACK_NAME
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and link.resolve() == pack.resolve():
        return link
    if link.is_symlink() or link.exists():
        _unlink(link)
    if os.name == "nt":
        import _winapi  # a junction needs no special rights, a symbolic link does

        _winapi.CreateJunction(str(pack), str(link))
    else:
        link.symlink_to(pack, target_is_directory=True)
    return link


def _unlink(link: Path) -> None:
    """Remove a stale link, and never what it points at."""
    try:
        link.unlink()
    except OSError:
        link.rmdir()  # a junction; fails on a real folder with files in it, which is then somebody's


class ComfyServer:
    """Context manager around one `main.py` process."""

    def __init__(
        self,
        comfyui: Path,
        base: Path,
        *,
        cpu: bool | None = None,
        arguments: tuple[str, ...] = (),
        start_timeout: float = 600,
        python: str = sys.executable,
        pack: Path = PACK,
    ) -> None:
        """`cpu=None` uses an accelerator where there is one; `arguments` go to `main.py`; seconds; `pack` is
        what is linked into its custom_nodes, if it does not lie there already."""
        self.comfyui, self.base = Path(comfyui).resolve(), Path(base).resolve()
        self.cpu, self.arguments, self.start_timeout, self.python = cpu, arguments, start_timeout, python
        self.pack, self.port = pack, 0
        self.process: subprocess.Popen | None = None
        self.log_path = self.base / "server.log"
        self._previous_sigterm: object = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> ComfyClient:
        """A client whose waiting ends with a `ServerError` when this server dies."""
        return ComfyClient(self.url, check_server=self.check)

    def __enter__(self) -> ComfyServer:
        if not (self.comfyui / "main.py").is_file():
            raise ServerError(f"{self.comfyui} is no ComfyUI: it has no main.py. Check COMFYUI_PATH.")
        link_pack(self.base, self.pack)
        self._catch_sigterm()
        try:
            self._start()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def _start(self) -> None:
        self.port = free_port()
        command = [self.python, "-u", "main.py", "--port", str(self.port), "--base-directory", str(self.base)]
        # The database's default place is inside of ComfyUI's folder.
        command += ["--disable-auto-launch", "--database-url", "sqlite:///:memory:"]
        if self.cpu if self.cpu is not None else not has_gpu():
            command.append("--cpu")
        # A process group of its own: Ctrl-C reaches this process only, which then stops the server.
        flags = subprocess.CREATE_NEW_PROCESS_GROUP if os.name == "nt" else 0
        environment = {**os.environ, "PYTHONUTF8": "1"}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *self.arguments],
                cwd=self.comfyui,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                creationflags=flags,
                start_new_session=os.name != "nt",
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        while True:
            self.check()
            try:
                with urllib.request.urlopen(f"{self.url}/system_stats", timeout=10):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
            if time.monotonic() > deadline:
                raise ServerError(f"ComfyUI is not ready after {self.start_timeout:.0f} s.{self._log_tail()}")

    def check(self) -> None:
        """Raise `ServerError` if the server has died."""
        code = None if self.process is None else self.process.poll()
        if self.process is None or code is not None:
            raise ServerError(f"ComfyUI ended with exit code {code}.{self._log_tail()}")

    def log(self) -> str:
        """Everything the server wrote so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def _log_tail(self, lines: int = 30) -> str:
        tail = "\n".join(self.log().splitlines()[-lines:])
        return f" The end of {self.log_path}:\n{tail}"

    def stop(self) -> None:
        """End the server process and wait until it is gone. Harmless when called twice."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.process.terminate()
                self.process.wait(timeout=15)
        except BaseException as reason:  # it hangs, or a second Ctrl-C while waiting
            self.process.kill()
            self.process.wait()
            if not isinstance(reason, subprocess.TimeoutExpired):
                raise
        finally:
            self._release_sigterm()

    def _catch_sigterm(self) -> None:
        """Turn SIGTERM into `SystemExit`, so that the block is left in order."""
        if threading.current_thread() is threading.main_thread():
            self._previous_sigterm = signal.signal(signal.SIGTERM, _exit_on_signal)

    def _release_sigterm(self) -> None:
        if self._previous_sigterm is not None:
            signal.signal(signal.SIGTERM, self._previous_sigterm)  # type: ignore[arg-type]
            self._previous_sigterm = None


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
