"""ComfyUI servers on the machines of a Ray cluster.

Every machine knows its own servers: the variable `CULTURE_COMFYUI` in the environment of its `ray start`, or
ComfyUI's usual address. The list of jobs stays with the process that started the run.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .base import GeneratorError, Job, JobFailed, JobRefused, Made, WorkerLost
from .comfyui import TIMEOUT, ComfyWorker, server_addresses
from .systems import WORKFLOW, System

logger = logging.getLogger(__name__)

_ANSWER_WITHIN = 120.0
"""Seconds for what is no picture; a machine that has just joined starts a process first."""
_ERRORS = {error.__name__: error for error in (JobFailed, JobRefused, WorkerLost)}


@contextmanager
def ray_workers(address: str | None = None, timeout: float = TIMEOUT) -> Iterator[list["RayWorker"]]:
    """A worker for every ComfyUI server of every machine of a cluster.

    Args:
        address: of the cluster; None: what Ray finds, see `ray.init`.
        timeout: seconds that a picture may take.

    Raises:
        GeneratorError: where Ray is missing, or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise GeneratorError("a cluster needs the package ray: pip install ray") from None
    code = str(Path(__file__).resolve().parents[1])
    began = not ray.is_initialized()
    try:
        if began:
            # Machines of the cluster get this library from here.
            ray.init(
                address=address or "auto", log_to_driver=False, logging_level=logging.ERROR,
                runtime_env={"py_modules": [code]},
            )  # fmt: skip
        yield _workers(ray, timeout)
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise GeneratorError(
            f"the Ray cluster cannot be used: {str(error).splitlines()[0]}; start it with `ray start`"
        ) from None
    finally:
        if began:
            ray.shutdown()


class RayWorker:
    """One ComfyUI server of a machine of the cluster."""

    kinds = frozenset({WORKFLOW})

    def __init__(self, ray: Any, actor: Any, name: str) -> None:
        self.name, self._ray, self._actor = name, ray, actor

    def check(self, system: System) -> list[str]:
        """As `ComfyWorker.check`."""
        return self._ask("check", system)

    def alive(self) -> bool:
        try:
            return self._ask("alive")
        except WorkerLost:
            return False

    def make(self, system: System, job: Job, stopped: Callable[[], bool] = lambda: False) -> Made:
        """As `ComfyWorker.make`."""
        return self._ask("make", system, job, stopped=stopped)

    def _ask(self, method: str, *arguments: Any, stopped: Callable[[], bool] | None = None) -> Any:
        ray = self._ray
        try:
            asked = self._actor.ask.remote(method, *arguments)
            if stopped is None:
                error, answer = ray.get(asked, timeout=_ANSWER_WITHIN)
            else:
                while not ray.wait([asked], timeout=0.5)[0]:
                    if stopped():
                        self._actor.stop.remote()
                        raise WorkerLost("stopped")
                error, answer = ray.get(asked)
        except ray.exceptions.RayError as lost:
            raise WorkerLost(f"{self.name} cannot be reached ({type(lost).__name__})") from None
        if error:
            raise _ERRORS[error](answer)
        return answer


class _Server:
    """What runs on the machine of a server."""

    def __init__(self, number: int, name: str, timeout: float) -> None:
        self._worker = ComfyWorker(server_addresses()[number], name, timeout)
        self._stopped = False

    def ask(self, method: str, *arguments: Any) -> tuple[str, Any]:
        """(name of the error, "" for none; answer or message)."""
        if method == "make":
            arguments += (lambda: self._stopped,)
        try:
            return "", getattr(self._worker, method)(*arguments)
        except (JobFailed, WorkerLost) as error:
            return type(error).__name__, str(error)

    def stop(self) -> None:
        self._stopped = True


def _workers(ray: Any, timeout: float) -> list[RayWorker]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    workers = []
    nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"])
    for index, node in enumerate(nodes, start=1):
        here = {
            "num_cpus": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        }
        count = len(ray.get(ray.remote(server_addresses).options(**here).remote(), timeout=_ANSWER_WITHIN))
        for number in range(count):
            name = f"machine {index}, server {number + 1}"
            actor = ray.remote(_Server).options(max_concurrency=2, **here).remote(number, name, timeout)
            workers.append(RayWorker(ray, actor, name))
    return workers
