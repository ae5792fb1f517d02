"""The processes that take part in a training run."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


class Processes:
    """One process, or those of Accelerate (`accelerate launch`)."""

    def __init__(self, accelerator: "Accelerator | None") -> None:
        self._accelerator = accelerator
        self.count = 1 if accelerator is None else accelerator.num_processes
        self.index = 0 if accelerator is None else accelerator.process_index
        self.main = accelerator is None or accelerator.is_main_process
        self.device = None if accelerator is None else accelerator.device

    def part(self, rows: Tensor) -> Tensor:
        """This process's part of rows."""
        return rows if self.count == 1 else rows.tensor_split(self.count)[self.index]

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor if self._accelerator is None else self._accelerator.reduce(tensor, "sum")

    def from_main(self, tensor: Tensor) -> Tensor:
        """What the main process has; so that no rounding makes the processes' results differ."""
        return self.sum(tensor if self.main else torch.zeros_like(tensor))

    def wait(self) -> None:
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()
