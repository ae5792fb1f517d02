"""Jobs on a diffusers pipeline, in this process."""

import inspect
import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from .base import GeneratorError, Job, JobFailed, JobRefused, Made
from .systems import DIFFUSERS, System

logger = logging.getLogger(__name__)

_ARGUMENTS = {
    "negative": "negative_prompt", "width": "width", "height": "height", "steps": "num_inference_steps",
    "guidance": "guidance_scale",
}  # fmt: skip


class PipelineWorker:
    """Loads one pipeline at a time, and keeps it as long as jobs are for it."""

    kinds = frozenset({DIFFUSERS})
    name = "diffusers"

    def __init__(self, device: str = "cpu", download: bool = False) -> None:
        """
        Args:
            device: where to compute: cpu, cuda, cuda:1 …
            download: whether a pipeline that is named by its name in the hub may be fetched from there.
        """
        self._device, self._download = device, download
        self._loaded: tuple[str, str] | None = None
        self._pipe: Any = None

    def check(self, system: System) -> list[str]:
        """What keeps a system from running here."""
        try:
            import diffusers  # noqa: F401
        except ImportError:
            return ["needs the package diffusers: pip install diffusers accelerate"]
        return []

    def alive(self) -> bool:
        return True

    def make(self, system: System, job: Job, stopped: Callable[[], bool] = lambda: False) -> Made:
        """Do a job.

        Raises:
            JobRefused: where the pipeline, a file or their settings do not fit.
            JobFailed: where the device failed.
        """
        import torch

        try:
            pipe = self._load(system)
            with ExitStack() as stack:
                self._edit(stack, pipe, system, job)
                # On the CPU, so that all devices begin with the same noise.
                generator = torch.Generator("cpu").manual_seed(job.seed)
                image = pipe(job.prompt, generator=generator, **_arguments(pipe, system)).images[0]
        except (ValueError, OSError) as error:  # what diffusers and the pack raise for what a user can mend
            raise JobRefused(str(error)) from error
        except RuntimeError as error:  # memory for instance
            raise JobFailed(str(error)) from error
        return Made(image, {})

    def _load(self, system: System) -> Any:
        wanted = system.place, system.dtype
        if self._loaded == wanted:
            return self._pipe
        import torch
        from diffusers import DiffusionPipeline

        self._loaded = self._pipe = None  # before the next one is loaded: two need not fit
        try:
            self._pipe = DiffusionPipeline.from_pretrained(
                system.place, torch_dtype=getattr(torch, system.dtype), use_safetensors=True,
                local_files_only=not self._download,
            )  # fmt: skip
        except OSError as error:
            raise GeneratorError(
                f"the pipeline {system.source} cannot be loaded: say where it is with --path "
                f"{system.source}=FOLDER, or add --download ({str(error).splitlines()[0]})"
            ) from error
        self._pipe.to(self._device)
        self._pipe.set_progress_bar_config(disable=True)
        self._loaded = wanted
        return self._pipe

    @staticmethod
    def _edit(stack: ExitStack, pipe: Any, system: System, job: Job) -> None:
        """Put in place what the system adds; the dial is the amplifier's, or that of a lone enhancer."""
        from ..files import load_culture_sae, load_enhancer
        from ..pipelines import amplified, enhanced

        negative, strength = system.fixed.get("negative", ""), job.strength or 0.0
        if system.amplify:
            sae = load_culture_sae(system.amplify)
            stack.enter_context(
                amplified(pipe, sae, job.item.culture, strength, system.mode, negative=negative)
            )
        if system.enhance:
            alone = 1.0 if system.amplify else strength
            stack.enter_context(enhanced(pipe, load_enhancer(system.enhance), alone, negative))


def _arguments(pipe: Any, system: System) -> dict[str, Any]:
    known = inspect.signature(pipe.__call__).parameters
    arguments = {_ARGUMENTS[name]: value for name, value in system.fixed.items()}
    if unknown := [name for name in system.fixed if _ARGUMENTS[name] not in known]:
        raise GeneratorError(f"{type(pipe).__name__} knows no {unknown[0]}: take it out of {system.name!r}")
    return arguments
