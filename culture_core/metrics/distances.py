"""LPIPS: how different two pictures look to a network (Zhang et al. 2018), by torchmetrics.

torchmetrics brings the weights of the last, linear layer; those of the network below come from torchvision's
site, and must be on this machine.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from .base import MetricError, optional, pixels, placed, read_weights, weights_file

BACKBONES = {"alex": ("alexnet", "alexnet-owt-7be5be79.pth"), "vgg": ("vgg16", "vgg16-397923af.pth")}
"""torchvision's name of the network and of its file, by LPIPS' name. The paper's figures are AlexNet's."""
URL = "https://download.pytorch.org/models/"
EDGE = 256


class Lpips:
    """Pictures are scaled to `EDGE` pixels first: the figure depends on the size."""

    name = "lpips"

    def __init__(self, network: str = "alex", weights: Path | None = None, device: str = "cpu") -> None:
        """
        Args:
            weights: folder with the network's weights, searched before torch's own.

        Raises:
            MetricError: where the weights or the library are missing.
        """
        if network not in BACKBONES:
            raise MetricError(f"there is no network {network!r} for LPIPS: use {' or '.join(BACKBONES)}")
        lpips = optional("torchmetrics.functional.image.lpips")
        file = weights_file(weights, BACKBONES[network][1], "LPIPS", URL + BACKBONES[network][1])
        net = lpips._NoTrainLpips(net=network, pnet_rand=True)
        _fill(net.net, read_weights(file), file)
        self._lpips = lpips
        self._net = placed(net, device)
        self._device, self._network = device, network
        self._sha256 = hashlib.sha256(file.read_bytes()).hexdigest()

    @torch.no_grad()
    def distance(self, first: Sequence[Image.Image], second: Sequence[Image.Image]) -> list[float]:
        shown = [
            torch.stack([pixels(image, (EDGE, EDGE), Image.Resampling.BICUBIC) for image in side]) / 255
            for side in (first, second)
        ]
        found = self._lpips._lpips_update(*(side.to(self._device) for side in shown), self._net, True)
        return found.reshape(-1).tolist()

    def settings(self) -> dict[str, Any]:
        return {"metric": self.name, "network": self._network, "weights": self._sha256, "edge": EDGE}


def _fill(net: nn.Module, weights: dict[str, Any], file: Path) -> None:
    """Give LPIPS' slices of a network the network's own weights: a module's name in them is its place."""
    own = {name: f"features.{name.split('.', 1)[1]}" for name in net.state_dict() if name.startswith("slice")}
    missing = [theirs for theirs in own.values() if theirs not in weights]
    if missing:
        raise MetricError(f"{file} lacks weights: {', '.join(missing[:3])} …; download it again")
    try:
        net.load_state_dict({name: weights[theirs] for name, theirs in own.items()})
    except RuntimeError as error:
        raise MetricError(f"{file} is of another network: {error}") from error
