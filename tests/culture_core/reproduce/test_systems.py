"""The two systems and what they are built on."""

from pathlib import Path

import pytest
import torch

from culture_core.encoders import HFTextEncoder
from culture_core.miniature.captions import STUDY_TRAINING_WRAPPERS
from culture_core.reproduce.generator import begin_as, load_base, new_base, pooled_over, save_base
from culture_core.reproduce.method import outside, prompts, tuning_prompts
from culture_core.reproduce.systems import LENGTH, Captions, System


def test_a_conditioning_is_pooled_over_what_is_no_padding() -> None:
    hidden, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [1, 1, 1]])
    found = pooled_over(hidden, mask)
    assert torch.equal(found.hidden[0, 2], torch.zeros(4))
    assert torch.allclose(found.pooled[0], hidden[0, :2].mean(0))
    assert torch.allclose(found.pooled[1], hidden[1].mean(0))


def test_a_base_survives_its_file_and_refuses_unknown_words(tmp_path: Path) -> None:
    base = new_base()
    save_base(base, tmp_path / "base.safetensors")
    again = load_base(tmp_path / "base.safetensors")
    given = base.teacher.tokens(["Thai style house", "picture: fish"])
    base.teacher.eval()
    assert torch.equal(base.teacher(*given).hidden, again.teacher(*given).hidden)
    with pytest.raises(ValueError, match="does not know 'zebra'"):
        base.teacher.tokens(["Thai style zebra"])


def test_a_model_begins_with_the_weights_that_fit(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    before = model[1].weight.clone()
    save_file(
        {"0.weight": torch.ones(3, 2), "1.weight": torch.ones(9, 9), "x": torch.ones(1)},
        tmp_path / "w.safetensors",
    )
    begin_as(model, tmp_path / "w.safetensors")
    assert torch.equal(model[0].weight, torch.ones(3, 2)) and torch.equal(model[1].weight, before)


@pytest.mark.parametrize("kind", ["alt", "pea"])
def test_a_system_survives_its_file(kind: str, e5: HFTextEncoder, tmp_path: Path) -> None:
    system = System(kind, e5, new_base()).eval()
    system.save(tmp_path / "system.safetensors")
    again = System(kind, e5).load(tmp_path / "system.safetensors")
    texts = ["บ้าน", "Thai style house"]
    assert torch.equal(system.condition(texts).hidden, again.condition(texts).hidden)
    assert system.condition(texts).hidden.shape == (2, LENGTH, 128)


def test_unknown_systems_and_long_prompts_are_refused(e5: HFTextEncoder) -> None:
    with pytest.raises(ValueError, match="alt or pea"):
        System("sdxl", e5)
    with pytest.raises(ValueError, match="more than 20 tokens"):
        System("alt", e5).tokenize(["house " * 30])


def test_training_never_loses_the_nouns_tokens(e5: HFTextEncoder) -> None:
    captions = Captions(e5, (0,))
    rows = list(range(0, len(captions.captions), 37))
    for _ in range(5):
        _, mask = captions.noisy(rows)
        assert bool((mask | ~captions.kept[rows]).all())
        assert not torch.equal(mask, captions.mask[rows])


def test_no_measured_prompt_is_trained_on() -> None:
    from culture_core.miniature.captions import training_captions

    trained = {caption.text for caption in training_captions(STUDY_TRAINING_WRAPPERS)}
    sets = [prompts("test", cultural, english) for cultural in (False, True) for english in (False, True)]
    sets += [outside("test", False), outside("test", True)]
    for given in sets:
        assert len(given) == 60 and not trained & {prompt.text for prompt in given}
    tested = {(prompt.culture, prompt.noun) for prompt in sets[0]}
    assert not tested & {(prompt.culture, prompt.noun) for prompt in tuning_prompts()}
