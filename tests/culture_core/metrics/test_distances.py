"""LPIPS by torchmetrics, on a network of random weights, against a literal version of its equation."""

import numpy as np
import pytest
import torch
import torchmetrics
import torchvision
from PIL import Image

from culture_core.metrics import MetricError
from culture_core.metrics.distances import BACKBONES, EDGE, Lpips

from .networks import save_alexnet

FILE = BACKBONES["alex"][1]
RNG = np.random.default_rng(2)
PICTURES = [Image.fromarray(RNG.integers(0, 256, (EDGE, EDGE, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with an AlexNet of random weights, as torchvision saves it."""
    return save_alexnet(tmp_path_factory.mktemp("weights") / FILE).parent


def literal_lpips(features: torch.nn.Sequential, heads: list[torch.Tensor], a: Image.Image, b: Image.Image):
    """Equation 1 of Zhang et al.: over layers, the mean over places of w · (unit y - unit y₀)²."""
    x, y = (torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1 for picture in (a, b))
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = (((one - shift[:, None, None]) / scale[:, None, None])[None] for one in (x, y))
    total, heads = 0.0, list(heads)
    for layer in features:
        x, y = layer(x), layer(y)
        if isinstance(layer, torch.nn.ReLU):
            difference = (x / x.norm(dim=1, keepdim=True) - y / y.norm(dim=1, keepdim=True))[0].square()
            total += float((heads.pop(0)[:, None, None] * difference).sum(0).mean())
    assert not heads
    return total


def test_distances_are_those_of_the_equation(weights):
    alexnet = torchvision.models.alexnet(weights=None)
    alexnet.load_state_dict(torch.load(weights / FILE, weights_only=True), strict=False)
    for layer in alexnet.features:
        layer.inplace = False
    folder = next(iter(torchmetrics.__path__)) + "/functional/image/lpips_models/alex.pth"
    stored = torch.load(folder, map_location="cpu", weights_only=True)
    heads = [stored[f"lin{index}.model.1.weight"].flatten() for index in range(5)]
    with torch.no_grad():
        expected = [literal_lpips(alexnet.features, heads, PICTURES[0], other) for other in PICTURES[1:]]
    found = Lpips(weights=weights).distance([PICTURES[0]] * 2, PICTURES[1:])
    assert found == pytest.approx(expected, rel=1e-3) and min(expected) > 0


def test_a_picture_is_no_distance_from_itself_at_any_size(weights):
    small = Image.new("RGBA", (20, 30), (200, 20, 20, 255))
    assert Lpips(weights=weights).distance([small], [small.convert("RGB")]) == [0]


def test_what_is_missing_or_wrong_is_said(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        MetricError, match=f"LPIPS needs the file {FILE}: download it from .*{FILE}.*put it into"
    ):
        Lpips()
    with pytest.raises(MetricError, match="no network 'resnet' for LPIPS: use alex or vgg"):
        Lpips("resnet")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / FILE)
    with pytest.raises(MetricError, match="lacks weights: features.0.bias"):
        Lpips(weights=tmp_path)
    state = torch.load(weights / FILE, weights_only=True)
    torch.save({**state, "features.0.weight": torch.zeros(1)}, tmp_path / FILE)
    with pytest.raises(MetricError, match="is of another network"):
        Lpips(weights=tmp_path)


def test_settings_tell_networks_apart_by_their_weights(weights, tmp_path):
    save_alexnet(tmp_path / FILE, seed=1)
    assert Lpips(weights=weights).settings()["weights"] != Lpips(weights=tmp_path).settings()["weights"]
