import json

import pytest
import torch

from culture_core.fingerprint import fingerprint_values, same_weights

CASTS = {
    "fp32": [],
    "fp16": [torch.float16],
    "bf16": [torch.bfloat16],
    "fp16 then bf16": [torch.float16, torch.bfloat16],
    "bf16 then fp16": [torch.bfloat16, torch.float16],
    "fp8": [torch.float8_e4m3fn],
}


def weights(scale: float = 0.05) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    # Sizes from 1e-9 to 1 times the scale: subnormal in fp16 at the small end.
    return [
        torch.randn(40, 30, generator=generator)
        * scale
        * 10 ** -(9 * torch.rand(40, 30, generator=generator))
        for _ in range(4)
    ]


def cast(tensors: list[torch.Tensor], name: str) -> list[torch.Tensor]:
    for dtype in CASTS[name]:
        tensors = [tensor.to(dtype) for tensor in tensors]
    return [tensor.to(torch.float32) for tensor in tensors]


@pytest.mark.parametrize("first", CASTS)
@pytest.mark.parametrize("second", CASTS)
def test_casts_of_the_same_weights_are_the_same(first, second):
    for seed in range(20):
        torch.manual_seed(seed)
        tensors = [torch.randn(64, 48) * 0.04 for _ in range(4)]
        a, b = (fingerprint_values(cast(tensors, name)) for name in (first, second))
        assert same_weights(a, b), f"seed {seed}"


@pytest.mark.parametrize("first", CASTS)
def test_tiny_weights_do_not_matter_more_than_their_rounding(first):
    a, b = fingerprint_values(weights()), fingerprint_values(cast(weights(), first))
    assert same_weights(a, b) and same_weights(b, a)


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16"])
def test_fine_tuned_weights_are_other_weights(name):
    tensors = weights()
    tuned = [tensor * (1 + 0.03 * torch.randn_like(tensor)) for tensor in tensors]
    assert not same_weights(fingerprint_values(tensors), fingerprint_values(cast(tuned, name)))


def test_in_full_precision_a_change_of_a_ten_thousandth_shows():
    tensors = weights()
    tuned = [tensor * 1.0001 for tensor in tensors]
    assert not same_weights(fingerprint_values(tensors), fingerprint_values(tuned))


def test_values_survive_json_exactly():
    values = fingerprint_values(weights())
    assert json.loads(json.dumps(values)) == values
    assert len(values) == 4 * 16


def test_values_do_not_depend_on_the_dtype_that_carries_them():
    halves = [tensor.half() for tensor in weights()]
    assert fingerprint_values(halves) == fingerprint_values([tensor.float() for tensor in halves])


def test_fingerprints_of_different_length_or_nothing_differ():
    values = fingerprint_values(weights())
    assert not same_weights(values, values[:-1])
    assert not same_weights([], [])


def test_an_encoder_keeps_its_fingerprint_in_half_precision(clip):
    before = clip.fingerprint()
    clip.model.to(torch.bfloat16)
    after = clip.fingerprint()
    assert {**before, "weights": 0} == {**after, "weights": 0}
    assert before["family"] == "clip" and before["layers"] == 3 and before["width"] == 768
    assert before["weights"] != after["weights"] and same_weights(before["weights"], after["weights"])


def test_another_encoder_has_another_fingerprint(clip, bert):
    assert not same_weights(clip.fingerprint()["weights"], bert.fingerprint()["weights"])
