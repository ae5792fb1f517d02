"""Validation sheets."""

import pytest
import torch
from PIL import Image

from culture_core.enhancer import LayerEnhancer
from culture_core.enhancer_training import Validation


def test_a_sheet_shows_every_prompt_without_and_with_the_enhancer(study, tmp_path, monkeypatch):
    one, enhancer, sampled = study("sd3"), LayerEnhancer(32, 8), []
    own = one.model.sample
    monkeypatch.setattr(one.model, "sample", lambda *given: sampled.append(own(*given)) or sampled[-1])
    validation = Validation(*one.all[:2], ["a red chair", "the house"], tmp_path / "sheets", 16, steps=2)
    path = validation.draw(enhancer, 5)
    assert path.name == "step-000005.png" and Image.open(path).width > 240
    # Untrained, it changes nothing.
    assert [p.tobytes() for p in sampled[:2]] == [p.tobytes() for p in sampled[2:]]
    torch.nn.init.normal_(enhancer.gain, std=2.0)
    assert validation.draw(enhancer, 10).read_bytes() != path.read_bytes()
    assert len(sampled) == 6  # those without are drawn once
    assert sampled[4].tobytes() != sampled[0].tobytes()
    assert not any(m._forward_hooks for m in one.model.pipe.text_encoder.modules())


@pytest.mark.parametrize("kind", ["sd", "sdxl", "flux"])
def test_sheets_of_every_pipeline(study, tmp_path, kind):
    one = study(kind)
    path = Validation(*one.all[:2], ["a chair"], tmp_path / "sheets", 16, steps=1).draw(
        LayerEnhancer(32, 8), 1
    )
    assert path.is_file()
