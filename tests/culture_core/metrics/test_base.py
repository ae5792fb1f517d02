"""What metrics share."""

import pytest
import torch
from PIL import Image

from culture_core.metrics import MetricError
from culture_core.metrics.base import optional, pixels, placed, weights_file


def test_a_library_that_is_missing_is_said_with_what_installs_it():
    with pytest.raises(MetricError, match='needs no-such-thing .*pip install "torchmetrics'):
        optional("no_such_thing.image")
    assert optional("torchmetrics.image.kid").KernelInceptionDistance


def test_the_folder_that_is_named_goes_before_torchs_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    own = tmp_path / "torch" / "hub" / "checkpoints" / "a.pth"
    own.parent.mkdir(parents=True)
    own.touch()
    assert weights_file(tmp_path / "weights", "a.pth", "It", "https://a") == own
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.pth").touch()
    assert weights_file(tmp_path / "weights", "a.pth", "It", "https://a") == tmp_path / "weights" / "a.pth"


def test_a_device_that_is_not_there_is_said():
    with pytest.raises(MetricError, match="the device nowhere cannot be used here"):
        placed(torch.nn.Linear(1, 1), "nowhere")


def test_transparency_is_white_and_the_size_as_wanted():
    picture = Image.new("RGBA", (4, 2), (10, 20, 30, 0))
    found = pixels(picture, (8, 6), Image.Resampling.BICUBIC)
    assert found.shape == (3, 6, 8) and bool((found == 255).all()) and found.dtype == torch.uint8
