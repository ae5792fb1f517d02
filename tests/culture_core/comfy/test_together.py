"""The patches beside what other nodes and packs do to a CLIP, in either order."""

import types
from collections.abc import Callable
from typing import Any

import comfy.hooks
import comfy.model_patcher
import comfy.model_sampling
import comfy.samplers
import comfy.sd
import comfy.utils
import pytest
import torch
from comfy.sd import CLIP
from comfy_extras.nodes_hooks import ConditioningSetProperties, SetClipHooks
from torch import Tensor, nn

import nodes as comfy_nodes
from culture_core.comfy import ComfyTextEncoder, amplify_clip
from culture_core.comfy.applying import scheduled_conditioning
from culture_core.encoders import HIDDEN_STATE
from culture_core.files import CultureSAE
from culture_core.neurons import CultureNeurons
from culture_core.sae import TopKSAE
from culture_core.schedule import Stretch
from culture_core.selection import TokenSelection

LAYER = 2
PATH = f"clip_l.transformer.text_model.encoder.layers.{LAYER}"
PROMPT = "a (teapot:1.4) on a table"

Change = Callable[[CLIP], CLIP]


@pytest.fixture
def clip(clips: Callable[[str], CLIP]) -> CLIP:
    """SD1's, four layers."""
    return clips("sd1")


@pytest.fixture
def sae(clip: CLIP) -> CultureSAE:
    ones = torch.ones(4)
    neurons = CultureNeurons(torch.arange(4), ones, ones, ones, ones * 0)
    fingerprint = ComfyTextEncoder(clip).fingerprint()
    return CultureSAE(TopKSAE(64, 128, 8), LAYER, HIDDEN_STATE, fingerprint, {"ja": neurons})


@pytest.fixture
def amplified(sae: CultureSAE) -> Change:
    return lambda clip: amplify_clip(clip, sae, "ja", 3.0, "inject", TokenSelection())


def scheduled(clip: CLIP) -> list[Any]:
    with torch.inference_mode():
        return clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT), show_pbar=False)


def encode(clip: CLIP) -> Tensor:
    return scheduled(clip)[0][0]


def lora() -> dict[str, Tensor]:
    """A LoRA as trainers write it, on one layer of CLIP-L."""
    generator, name = torch.Generator().manual_seed(0), "lora_te_text_model_encoder_layers_1_mlp_fc1"
    return {
        f"{name}.lora_up.weight": torch.randn(96, 4, generator=generator),
        f"{name}.lora_down.weight": torch.randn(4, 64, generator=generator),
        f"{name}.alpha": torch.tensor(4.0),
    }


# --------------------------------------------------------------------------------- others' ways into a CLIP


def with_lora(clip: CLIP) -> CLIP:
    return comfy.sd.load_lora_for_models(None, clip, lora(), 0.0, 1.0)[1]


def with_clip_skip(clip: CLIP) -> CLIP:
    """To the patched layer itself."""
    return comfy_nodes.CLIPSetLastLayer().set_last_layer(clip, -2)[0]


def with_hooks(clip: CLIP, schedule: bool = False) -> CLIP:
    """*Create Hook LoRA* and *Set CLIP Hooks*; with a schedule the LoRA is off from 0.5 on."""
    hooks = comfy.hooks.create_hook_lora(lora(), 0.0, 1.0)
    if schedule:
        keyframes = comfy.hooks.HookKeyframeGroup()
        keyframes.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=0.0))
        keyframes.add(comfy.hooks.HookKeyframe(strength=0.0, start_percent=0.5))
        hooks.set_keyframes_on_hooks(keyframes)
    return SetClipHooks().apply_hooks(clip, schedule, True, hooks)[0]


def with_own_weighting(clip: CLIP) -> CLIP:
    """As packs for prompt syntax do: another `encode_token_weights`, that encodes row by row."""

    def encode_token_weights(self: Any, rows: list[list[tuple[int, float]]]) -> tuple[Tensor, Tensor | None]:
        hidden, pooled = self.encode([[token for token, _ in row] for row in rows])
        weights = torch.tensor([[weight for _, weight in row] for row in rows])
        return hidden * weights.unsqueeze(-1).to(hidden), pooled

    changed = clip.clone()
    method = types.MethodType(encode_token_weights, clip.cond_stage_model.clip_l)
    changed.patcher.add_object_patch("clip_l.encode_token_weights", method)
    return changed


def with_wrapped_weighting(clip: CLIP) -> CLIP:
    """As packs for negative weights do: around the method that is there."""
    changed, path = clip.clone(), "clip_l.encode_token_weights"
    inner = changed.patcher.get_model_object(path)
    changed.patcher.add_object_patch(path, lambda rows: (-inner(rows)[0], *inner(rows)[1:]))
    return changed


def with_forward_patched(clip: CLIP) -> CLIP:
    """An object patch of the `forward` of the very same layer."""
    changed, path = clip.clone(), f"{PATH}.forward"
    inner = changed.patcher.get_model_object(path)
    changed.patcher.add_object_patch(path, lambda *args, **kw: inner(*args, **kw) * 2)
    return changed


class Doubled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: object, **keywords: object) -> Tensor:
        return self.inner(*args, **keywords) * 2


def with_layer_replaced(clip: CLIP) -> CLIP:
    """An object patch of the very same layer."""
    changed = clip.clone()
    changed.patcher.add_object_patch(PATH, Doubled(changed.patcher.get_model_object(PATH)))
    return changed


def with_injected_hook(clip: CLIP) -> CLIP:
    """An injection of another pack that hooks the very same layer."""
    changed, handles = clip.clone(), []

    def inject(patcher: comfy.model_patcher.ModelPatcher) -> None:
        layer = comfy.utils.get_attr(patcher.model, PATH)
        handles.append(layer.register_forward_hook(lambda module, inputs, output: output * 2))

    def eject(_: comfy.model_patcher.ModelPatcher) -> None:
        while handles:
            handles.pop().remove()

    changed.patcher.set_injections("other", [comfy.model_patcher.PatcherInjection(inject, eject)])
    return changed


def with_injected_forward(clip: CLIP) -> CLIP:
    """An injection that replaces the `forward` of the very same layer, as ComfyUI's own bypass LoRA does."""
    changed, kept = clip.clone(), []

    def inject(patcher: comfy.model_patcher.ModelPatcher) -> None:
        layer = comfy.utils.get_attr(patcher.model, PATH)
        inner = layer.forward
        kept.append((layer, inner))
        layer.forward = lambda *args, **keywords: inner(*args, **keywords) * 2

    def eject(_: comfy.model_patcher.ModelPatcher) -> None:
        while kept:
            layer, layer.forward = kept.pop()

    changed.patcher.set_injections("other", [comfy.model_patcher.PatcherInjection(inject, eject)])
    return changed


INDEPENDENT = [
    with_lora, with_clip_skip, with_hooks, with_own_weighting, with_wrapped_weighting, with_forward_patched,
    with_layer_replaced, with_injected_forward,
]  # fmt: skip
"""The order of the nodes does not matter."""


@pytest.mark.parametrize("other", INDEPENDENT)
def test_either_order_gives_one_result_in_which_both_act(
    clip: CLIP, amplified: Change, other: Change
) -> None:
    plain, only_amplified, only_other = encode(clip), encode(amplified(clip)), encode(other(clip))
    before, after = other(amplified(clip)), amplified(other(clip))
    found = encode(before)
    assert torch.equal(found, encode(after))
    assert all(not torch.equal(found, each) for each in (plain, only_amplified, only_other))
    # Interleaved, nobody leaves anything to anybody.
    for each, expected in (
        (clip, plain), (before, found), (other(clip), only_other), (after, found),
        (amplified(clip), only_amplified), (clip, plain),
    ):  # fmt: skip
        assert torch.equal(encode(each), expected)
    comfy.model_management.unload_all_models()
    assert not any(module._forward_hooks for module in clip.cond_stage_model.modules())


def test_hooks_of_two_packs_on_one_layer_act_in_the_order_of_the_nodes(clip: CLIP, amplified: Change) -> None:
    plain, only_amplified = encode(clip), encode(amplified(clip))
    first, last = encode(amplified(with_injected_hook(clip))), encode(with_injected_hook(amplified(clip)))
    assert not torch.equal(first, last)
    for found in (first, last):
        assert not torch.equal(found, only_amplified) and not torch.equal(found, plain)
    assert torch.equal(encode(clip), plain)


@pytest.mark.parametrize("hooks_first", [True, False])
def test_a_scheduled_lora_keeps_its_ranges_and_ends_at_the_amplified_prompt(
    clip: CLIP, amplified: Change, hooks_first: bool
) -> None:
    both = amplified(with_hooks(clip, True)) if hooks_first else with_hooks(amplified(clip), True)
    with_it, without = scheduled(both)
    assert [with_it[1][f"clip_{name}_percent"] for name in ("start", "end")] == [0.0, 0.5]
    assert torch.equal(with_it[0], encode(amplified(with_lora(clip))))
    assert torch.equal(without[0], encode(amplified(clip)))
    assert torch.equal(encode(clip), encode(clip.clone()))


def test_a_culture_schedule_crossed_with_a_lora_schedule_covers_the_run_once(
    clip: CLIP, sae: CultureSAE
) -> None:
    stretches = [Stretch(0.0, 0.3, 3.0), Stretch(0.3, 1.0, 0.0)]
    with torch.inference_mode():
        conditioning = scheduled_conditioning(
            with_hooks(clip, True), sae, "ja", PROMPT, stretches, "inject", TokenSelection()
        )
    entries = [{**options, "hidden": hidden} for hidden, options in conditioning]
    sampling = comfy.model_sampling.ModelSamplingDiscreteFlow()
    comfy.samplers.calculate_start_end_timesteps(types.SimpleNamespace(model_sampling=sampling), entries)
    expected = {
        (True, True): encode(amplify_clip(with_lora(clip), sae, "ja", 3.0, "inject", TokenSelection())),
        (False, True): encode(with_lora(clip)),
        (False, False): encode(clip),
    }
    for percent in (0.1, 0.4, 0.8):
        sigma = sampling.percent_to_sigma(percent)
        (active,) = [entry for entry in entries if entry["timestep_end"] <= sigma <= entry["timestep_start"]]
        assert torch.equal(active["hidden"], expected[percent < 0.3, percent < 0.5])


def test_conditioning_is_combined_averaged_and_joined_like_any_other(clip: CLIP, amplified: Change) -> None:
    plain, changed = scheduled(clip), scheduled(amplified(clip))
    kept = [each[0][0].clone() for each in (plain, changed)]
    (average,) = comfy_nodes.ConditioningAverage().addWeighted(changed, plain, 0.5)
    torch.testing.assert_close(average[0][0], (kept[0] + kept[1]) / 2)
    (joined,) = comfy_nodes.ConditioningConcat().concat(changed, plain)
    assert torch.equal(joined[0][0], torch.cat([kept[1], kept[0]], 1))
    (combined,) = comfy_nodes.ConditioningCombine().combine(changed, plain)
    assert [torch.equal(each[0], old) for each, old in zip(combined, kept[::-1], strict=True)] == [True] * 2
    (limited,) = ConditioningSetProperties().set_properties(changed, 0.5, "default", timesteps=(0.2, 0.6))
    assert torch.equal(limited[0][0], kept[1]) and limited[0][1]["start_percent"] == 0.2
    encode(amplified(clip)), encode(clip)
    assert torch.equal(plain[0][0], kept[0]) and torch.equal(changed[0][0], kept[1])


def test_a_pack_that_goes_round_the_encoder_is_warned_that_nothing_is_amplified(
    clip: CLIP, amplified: Change, caplog: pytest.LogCaptureFixture
) -> None:
    changed = amplified(clip)
    encode(changed)
    assert "goes round" not in caplog.text
    transformer = clip.cond_stage_model.clip_l.transformer
    ids = torch.tensor([[49406, 320] + [49407] * 75])
    with torch.inference_mode():
        found = transformer(ids)[0]
        transformer(ids)
        assert caplog.text.count("goes round") == 1
        encode(clip)
        assert torch.equal(found, transformer(ids)[0])
