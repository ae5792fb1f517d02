"""Reading and patching text encoders inside real ComfyUI: the embedded e5 and CLIP-L (random weights, fewer
layers)."""

import copy
import gc
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import comfy.model_management
import comfy.sd
import comfy.sd1_clip
import folder_paths
import pytest
import torch
from comfy.sd import CLIP
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizerFast

from culture_core.comfy import (
    INJECTION_KEY,
    ComfyTextEncoder,
    TextEncoderError,
    amplify_clip,
    encoders_of,
    enhance_clip,
    load_text_encoder,
    patch_clip,
    register_model_folders,
    taken_layer,
    text_encoder_folder,
)
from culture_core.comfy.patching import FeatureFunction
from culture_core.comfy.reading import attention_weights
from culture_core.encoders import ATTENTION_OUTPUT, ATTENTION_WEIGHTS, FEATURES, HIDDEN_STATE, HFTextEncoder
from culture_core.enhancer import LayerEnhancer
from culture_core.files import CultureSAE, EnhancerFile, FileError
from culture_core.neurons import CultureNeurons
from culture_core.sae import TopKSAE
from culture_core.selection import SpecialTokens, TokenSelection, attended_positions, content_positions

CLIP_LAYERS = 3
PROMPT = "a Japanese style house, old bridge"
TEXTS = ["a Japanese style house", "ein Haus im deutschen Stil", "บ้านไทย", "CAFÉ  crème 🏠", ""]
"""Without Han: transformers' fast CLIP tokenizer cuts that otherwise than its slow one, which ComfyUI
uses."""
LONG = " ".join(f"word{number}" for number in range(100))


@pytest.fixture(scope="module")
def e5_folder() -> Path:
    register_model_folders()
    return text_encoder_folder("multilingual-e5-small")


@pytest.fixture(scope="module")
def e5_clip(e5_folder: Path) -> CLIP:
    return load_text_encoder(e5_folder)


@pytest.fixture(scope="module")
def clip_l() -> CLIP:
    """CLIP-L through ComfyUI's own classes; its weights are random and it has three layers."""
    target = SimpleNamespace(
        params={}, clip=comfy.sd1_clip.SD1ClipModel, tokenizer=comfy.sd1_clip.SD1Tokenizer
    )
    shape = {"num_hidden_layers": CLIP_LAYERS}
    clip = CLIP(target, model_options={"clip_l_model_config": shape, "dtype": torch.float32})
    generator = torch.Generator().manual_seed(0)
    for name, weight in clip.cond_stage_model.named_parameters():
        # Large enough for attention that is far from uniform.
        noise = torch.randn(weight.shape, generator=generator) * (0.05 if weight.ndim > 1 else 0.02)
        weight.data.copy_(noise + ("norm" in name and name.endswith("weight")))
    return clip


@pytest.fixture(params=["e5_clip", "clip_l"], ids=["e5", "clip_l"])
def clip(request: pytest.FixtureRequest) -> Iterator[CLIP]:
    clip = request.getfixturevalue(request.param)
    yield clip
    comfy.model_management.unload_all_models()
    assert hooks_on(clip) == 0


@pytest.fixture(scope="module")
def clip_l_hf(clip_l: CLIP) -> HFTextEncoder:
    weights = {
        name: weight
        for name, weight in clip_l.cond_stage_model.clip_l.transformer.state_dict().items()
        if name.startswith("text_model.")
    }
    model = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12,
                                         num_hidden_layers=CLIP_LAYERS, vocab_size=49408))  # fmt: skip
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and not [name for name in missing if "position_ids" not in name]
    folder = Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer"
    return HFTextEncoder(model, CLIPTokenizerFast.from_pretrained(folder), max_length=77)


def encode(clip: CLIP, text: str) -> Tensor:
    with torch.inference_mode():
        return clip.encode_from_tokens(clip.tokenize(text)).clone()


def hooks_on(clip: CLIP) -> int:
    """Hooks left anywhere in the module that all clones share."""
    modules = clip.cond_stage_model.modules()
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


def only_encoder(clip: CLIP) -> ComfyTextEncoder:
    return ComfyTextEncoder(clip)


def last_layer(clip: CLIP) -> int:
    return only_encoder(clip).info.layers - 1


def does(function: Callable[[Tensor], Tensor]) -> Callable[[torch.device], FeatureFunction]:
    """A function of the feature as what `patch_clip` takes."""
    return lambda device: lambda feature, mask: function(feature)


def shifted(clip: CLIP, by: float = 1.0, **options: object) -> CLIP:
    return patch_clip(clip, last_layer(clip), HIDDEN_STATE, does(lambda x: x + by), **options)


def content_rows(clip: CLIP, text: str) -> Tensor:
    """Positions [S] bool of the prompt's own tokens in the conditioning."""
    return only_encoder(clip).tokenize([text]).content_mask[0]


# ------------------------------------------------------------------------------------------------- reading


@pytest.fixture(params=[("e5_clip", "e5"), ("clip_l", "clip_l_hf")], ids=["e5", "clip_l"])
def both(request: pytest.FixtureRequest) -> tuple[ComfyTextEncoder, HFTextEncoder]:
    """The same weights in ComfyUI and in transformers."""
    ours, theirs = map(request.getfixturevalue, request.param)
    return only_encoder(ours), theirs


def test_reading_agrees_with_transformers(both: tuple[ComfyTextEncoder, HFTextEncoder]) -> None:
    ours, theirs = both
    assert ours.info == theirs.info
    assert ours.fingerprint() == theirs.fingerprint()
    tokens, expected_tokens = ours.tokenize(TEXTS), theirs.tokenize(TEXTS)
    assert torch.equal(tokens.content_mask, expected_tokens.content_mask)
    attended = tokens.attention_mask
    assert torch.equal(tokens.ids[attended], expected_tokens.ids[attended])
    assert tokens.offsets == expected_tokens.offsets
    layers, what = range(ours.info.layers), {ATTENTION_WEIGHTS, *FEATURES}
    with torch.inference_mode():
        with ours.capture(layers, what) as found:
            conditioning = ours.encode(tokens)
        with theirs.capture(layers, what) as expected:
            expected_conditioning = theirs.encode(tokens)
    torch.testing.assert_close(conditioning.hidden, expected_conditioning.hidden, atol=1e-4, rtol=0)
    torch.testing.assert_close(conditioning.pooled, expected_conditioning.pooled, atol=1e-4, rtol=0)
    for layer in layers:
        seen = attended[:, None, :, None].expand(-1, ours.info.heads, -1, attended.shape[1])
        maps = found.attention_weights[layer], expected.attention_weights[layer]
        torch.testing.assert_close(*(weights[seen] for weights in maps), atol=1e-5, rtol=0)
        for feature in FEATURES:
            values = getattr(found, feature)[layer], getattr(expected, feature)[layer]
            torch.testing.assert_close(*(value[attended] for value in values), atol=1e-4, rtol=1e-5)


def test_attention_weights_equal_output_attentions(both: tuple[ComfyTextEncoder, HFTextEncoder]) -> None:
    ours, model = both[0], both[1].model
    model.set_attn_implementation("eager")
    tokens = ours.tokenize(TEXTS[:2])
    with torch.inference_mode(), ours.capture(range(ours.info.layers), {ATTENTION_WEIGHTS}) as found:
        ours.encode(tokens)
        masks = {} if ours.info.causal else {"attention_mask": tokens.attention_mask.long()}
        expected = model(input_ids=tokens.ids, output_attentions=True, **masks).attentions
    seen = tokens.attention_mask[:, None, :, None].expand_as(expected[0])
    for layer, maps in enumerate(expected):
        torch.testing.assert_close(found.attention_weights[layer][seen], maps[seen], atol=1e-5, rtol=0)


def test_weights_times_values_is_what_the_block_computes(clip: CLIP) -> None:
    encoder = only_encoder(clip)
    attention = encoder.model.get_submodule(encoder.places.attention(1))
    pairs: list[tuple[Tensor, Tensor]] = []

    def spy(module: nn.Module, arguments: tuple, keywords: dict) -> tuple[tuple, dict]:
        *inputs, attend = arguments

        def compared(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
            output = attend(q, k, v, heads, mask)
            values = v.unflatten(-1, (heads, -1)).transpose(1, 2)
            weighted = attention_weights(q, k, heads, mask, split=False) @ values
            pairs.append((weighted.transpose(1, 2).flatten(2), output))
            return output

        return (*inputs, compared), keywords

    handle = attention.register_forward_pre_hook(spy, with_kwargs=True)
    try:
        encode(clip, PROMPT)
    finally:
        handle.remove()
    assert len(pairs) == 1
    torch.testing.assert_close(*pairs[0], atol=1e-5, rtol=1e-5)


def test_encoding_through_the_interface_is_what_clip_text_encode_gives(clip: CLIP) -> None:
    encoder = only_encoder(clip)
    with torch.inference_mode():
        conditioning = encoder.encode(encoder.tokenize([PROMPT]))
        hidden, pooled = clip.encode_from_tokens(clip.tokenize(PROMPT), return_pooled=True)
    assert torch.equal(conditioning.hidden, hidden)
    assert torch.equal(conditioning.pooled, pooled)


def test_prompts_of_several_chunks_are_joined_on_the_token_axis(clip: CLIP) -> None:
    encoder = only_encoder(clip)
    with torch.inference_mode():
        tokens = encoder.tokenize([LONG, "a house"])
        with encoder.capture([0], {ATTENTION_WEIGHTS, HIDDEN_STATE}) as captured:
            hidden = encoder.encode(tokens).hidden
    assert torch.equal(hidden[0], encode(clip, LONG)[0])
    short = encode(clip, "a house")[0]
    torch.testing.assert_close(hidden[1, : len(short)], short, atol=1e-5, rtol=1e-5)
    assert not hidden[1, len(short) :].any()
    chunk = len(short)
    weights = captured.attention_weights[0]
    assert weights.shape[-2:] == (hidden.shape[1],) * 2 and captured.hidden_state[0].shape == hidden.shape
    assert not weights[0, :, :chunk, chunk:].any()
    torch.testing.assert_close(weights[0].sum(-1), torch.ones(weights.shape[1:3]))


def test_reading_ignores_the_packs_own_patches_and_releases_its_hooks(clip: CLIP) -> None:
    plain, patched = only_encoder(clip), only_encoder(shifted(clip))
    with torch.inference_mode():
        tokens = plain.tokenize([PROMPT])
        expected = plain.encode(tokens).hidden
        with pytest.raises(RuntimeError, match="on purpose"), patched.capture([0], set(FEATURES)):
            assert torch.equal(patched.encode(tokens).hidden, expected)
            raise RuntimeError("on purpose")
    assert hooks_on(clip) == 0


def test_a_patch_through_the_interface_changes_what_follows(clip: CLIP) -> None:
    encoder = only_encoder(clip)
    with torch.inference_mode():
        tokens = encoder.tokenize([PROMPT])
        with encoder.patch(last_layer(clip), HIDDEN_STATE, lambda x: x * 0), pytest.raises(AssertionError):
            assert encoder.encode(tokens).hidden.std(dim=1).sum() > 0.1  # all tokens are alike now
    assert torch.equal(encode(clip, PROMPT), encoder.encode(tokens).hidden)


def test_an_unknown_encoder_key_lists_the_ones_there_are(clip: CLIP) -> None:
    with pytest.raises(TextEncoderError, match=next(iter(encoders_of(clip)))):
        ComfyTextEncoder(clip, "t5xxl")


# ------------------------------------------------------------------------------------------------ patching


@pytest.mark.parametrize("feature", FEATURES)
def test_a_patch_changes_the_content_tokens_only(clip: CLIP, feature: str) -> None:
    patched = patch_clip(clip, last_layer(clip), feature, does(lambda x: x + 1))
    changed = (encode(patched, PROMPT) != encode(clip, PROMPT)).any(dim=-1)[0]
    assert torch.equal(changed, content_rows(clip, PROMPT))


def test_the_original_stays_bit_exact_among_three_patched_clones(clip: CLIP) -> None:
    before = encode(clip, PROMPT)
    clones = [shifted(clip, by) for by in (1.0, 2.0, 3.0)]
    alone = [encode(clone, PROMPT) for clone in clones]
    for _ in range(2):
        for clone, expected in zip(clones, alone, strict=True):
            assert torch.equal(encode(clone, PROMPT), expected)
            assert not torch.equal(expected, before)
            assert torch.equal(encode(clip, PROMPT), before)


def test_patches_stack_on_clones_of_clones_in_order(e5_clip: CLIP) -> None:
    layer, before = last_layer(e5_clip), encode(e5_clip, PROMPT)
    first = patch_clip(e5_clip, layer, HIDDEN_STATE, does(lambda x: x + 0.5)).clone()
    second = patch_clip(first, layer, HIDDEN_STATE, does(lambda x: x * 1.5)).clone()
    mask = content_rows(e5_clip, PROMPT)
    torch.testing.assert_close(encode(second, PROMPT)[0, mask], (before[0, mask] + 0.5) * 1.5)
    torch.testing.assert_close(encode(first, PROMPT)[0, mask], before[0, mask] + 0.5)
    assert torch.equal(encode(e5_clip, PROMPT), before)


def test_patches_on_different_layers_add_up(clip: CLIP) -> None:
    one = patch_clip(clip, 0, ATTENTION_OUTPUT, does(lambda x: x * 3))
    both = patch_clip(one, 1, HIDDEN_STATE, does(lambda x: x * 3))
    results = [encode(each, PROMPT) for each in (clip, one, both)]
    assert not torch.equal(results[0], results[1]) and not torch.equal(results[1], results[2])


@pytest.mark.parametrize(
    "error", [RuntimeError("on purpose"), comfy.model_management.InterruptProcessingException()]
)
def test_an_error_or_interrupt_in_a_patch_leaves_nothing_behind(clip: CLIP, error: Exception) -> None:
    before = encode(clip, PROMPT)

    def fail(feature: Tensor) -> Tensor:
        raise error

    broken = patch_clip(clip, 1, HIDDEN_STATE, does(fail))
    with pytest.raises(type(error)):
        encode(broken, PROMPT)
    assert torch.equal(encode(clip, PROMPT), before)
    assert hooks_on(clip) == 0


def test_unloading_all_models_leaves_no_hook(clip: CLIP) -> None:
    patched = shifted(clip)
    encode(patched, PROMPT)
    assert hooks_on(clip) > 0
    comfy.model_management.unload_all_models()
    assert hooks_on(clip) == 0


def test_deleting_the_loaded_patched_clone_leaves_no_hook(clip: CLIP) -> None:
    patched = shifted(clip)
    encode(patched, PROMPT)
    assert hooks_on(clip) > 0
    del patched
    gc.collect()
    assert hooks_on(clip) == 0


def test_deleting_a_clone_that_was_never_loaded_keeps_the_live_hooks(clip: CLIP) -> None:
    patched = shifted(clip)
    expected, hooks = encode(patched, PROMPT), hooks_on(clip)
    unused = patched.clone()
    del unused
    gc.collect()
    assert hooks_on(clip) == hooks
    assert torch.equal(encode(patched, PROMPT), expected)


def test_other_injections_under_the_same_key_stay(clip: CLIP) -> None:
    seen: list[str] = []
    other = clip.clone()
    injection = comfy.model_patcher.PatcherInjection(
        lambda _: seen.append("in"), lambda _: seen.append("out")
    )
    other.patcher.set_injections(INJECTION_KEY, [injection])
    encode(shifted(other), PROMPT)
    assert "in" in seen and other.patcher.get_injections(INJECTION_KEY) == [injection]


def test_weight_patches_work_with_the_patch_in_either_order(clip: CLIP) -> None:
    encoder = only_encoder(clip)
    name = f"{encoder.key}.{encoder.places.feature(0, ATTENTION_OUTPUT)}.weight"
    weight = encoder.attention_output_module(0).weight
    lora = {name: ("diff", (torch.full_like(weight, 0.01),))}
    first, last = clip.clone(), shifted(clip).clone()
    assert first.add_patches(lora) == [name] and last.add_patches(lora) == [name]
    results = [encode(each, PROMPT) for each in (shifted(first), last, shifted(clip), clip)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2]) and not torch.equal(results[2], results[3])


def test_a_patch_does_not_change_the_names_of_the_weights(clip: CLIP) -> None:
    before = list(clip.get_sd())
    patched = shifted(clip)
    encode(patched, PROMPT)
    assert list(patched.get_sd()) == before


def test_a_patcher_that_got_another_copy_of_the_encoder_is_patched_there(clip_l: CLIP) -> None:
    moved = clip_l.clone()
    moved.patcher.model = copy.deepcopy(clip_l.cond_stage_model)
    moved.patcher.backup, moved.patcher.object_patches_backup = {}, {}  # as ComfyUI's own nodes do
    before = encode(clip_l, PROMPT)
    assert not torch.equal(encode(shifted(moved), PROMPT), before)
    assert torch.equal(encode(clip_l, PROMPT), before) and hooks_on(clip_l) == 0


@pytest.mark.parametrize("mode", ["content", "all"])
def test_the_empty_row_of_a_weighted_prompt_is_not_patched(e5_clip: CLIP, mode: str) -> None:
    text = "(house:1.3) on a hill"  # weighted where the empty row has its end token
    by = 2.0
    change = encode(shifted(e5_clip, by, tokens=TokenSelection(mode)), text) - encode(e5_clip, text)
    ids, weights = zip(*e5_clip.tokenize(text)["multilingual_e5"][0], strict=True)
    special, weights = SpecialTokens(start=0, end=2, pad=1), torch.tensor(weights)
    choose = content_positions if mode == "content" else attended_positions
    selected = torch.tensor(choose(ids, special))
    # cond = (z - z_empty) * w + z_empty: a patched empty row would make the change the same for all weights.
    expected = torch.where(selected, by * weights, 0.0)
    assert (weights == 1.3).sum() == 1
    torch.testing.assert_close(change[0], expected[:, None].expand_as(change[0]), atol=1e-5, rtol=0)


def test_weights_of_one_give_the_plain_patched_prompt(clip: CLIP) -> None:
    patched = shifted(clip)
    torch.testing.assert_close(encode(patched, "a (house:1.0)"), encode(patched, "a (house:1.0)"))
    assert not torch.equal(encode(patched, "a (house:1.3)"), encode(clip, "a (house:1.3)"))


def test_every_chunk_of_a_long_prompt_is_patched(clip: CLIP) -> None:
    changed = (encode(shifted(clip), LONG) != encode(clip, LONG)).any(dim=-1)[0]
    mask = content_rows(clip, LONG)
    assert len(mask) > len(content_rows(clip, "a house"))
    assert torch.equal(changed, mask)


def test_an_empty_prompt_is_never_patched(clip: CLIP) -> None:
    for mode in ("content", "all"):
        patched = shifted(clip, tokens=TokenSelection(mode))
        assert torch.equal(encode(patched, ""), encode(clip, ""))


def test_words_select_their_tokens_in_any_language(e5_clip: CLIP) -> None:
    words = TokenSelection.from_text("words", "house, OLD bridge, 椅子")
    for text, expected in ((PROMPT, "house old bridge"), ("和風の椅子", "椅子"), ("a housewife", "")):
        changed = (encode(shifted(e5_clip, tokens=words), text) != encode(e5_clip, text)).any(dim=-1)[0]
        tokens = only_encoder(e5_clip).tokenize([text])
        spans = [tokens.offsets[0][position] for position in changed.nonzero().flatten().tolist()]
        assert " ".join(text[slice(*span)] for span in spans) == expected


def test_words_select_their_tokens_in_clip_l(clip_l: CLIP) -> None:
    changed = encode(shifted(clip_l, tokens=TokenSelection.from_text("words", "Bridge")), PROMPT) != encode(
        clip_l, PROMPT
    )
    tokens = only_encoder(clip_l).tokenize([PROMPT])
    (position,) = changed.any(dim=-1)[0].nonzero().flatten().tolist()
    assert PROMPT[slice(*tokens.offsets[0][position])] == "bridge"


def test_missing_words_change_nothing_and_are_logged(e5_clip: CLIP, caplog: pytest.LogCaptureFixture) -> None:
    patched = shifted(e5_clip, tokens=TokenSelection.from_text("words", "castle"))
    assert torch.equal(encode(patched, PROMPT), encode(e5_clip, PROMPT))
    assert "castle" in caplog.text


# ---------------------------------------------------------------------------------------- clip skip, bad
# places


def test_a_layer_after_the_clip_skip_is_refused_with_the_reason(clip: CLIP) -> None:
    skipped = clip.clone()
    skipped.clip_layer(-2)
    layer = last_layer(clip)
    with pytest.raises(TextEncoderError, match="clip skip"):
        patch_clip(skipped, layer, HIDDEN_STATE, does(lambda x: x + 1))
    patched = patch_clip(skipped, layer - 1, HIDDEN_STATE, does(lambda x: x + 1))
    changed = (encode(patched, PROMPT) != encode(skipped, PROMPT)).any(dim=-1)[0]
    assert torch.equal(changed, content_rows(clip, PROMPT))


def test_a_clip_skip_after_the_patch_is_warned_about(e5_clip: CLIP, caplog: pytest.LogCaptureFixture) -> None:
    patched, skipped = shifted(e5_clip).clone(), e5_clip.clone()
    for each in (patched, skipped):
        each.clip_layer(-2)
    assert torch.equal(encode(patched, PROMPT), encode(skipped, PROMPT))
    assert "no effect" in caplog.text


def test_the_taken_layer_follows_comfyuis_rules(e5_clip: CLIP) -> None:
    model = only_encoder(e5_clip).model
    assert [taken_layer(model, skip) for skip in (None, -1, -2, -12, -13)] == [11, 11, 10, 0, 11]


@pytest.mark.parametrize(("layer", "feature"), [(12, HIDDEN_STATE), (-1, HIDDEN_STATE), (0, "mlp")])
def test_a_place_that_is_not_there_is_refused(e5_clip: CLIP, layer: int, feature: str) -> None:
    with pytest.raises(ValueError, match=f"{feature}|{layer}"):
        patch_clip(e5_clip, layer, feature, does(lambda x: x))


# -------------------------------------------------------------------------------- amplifier and enhancer on a
# CLIP


@pytest.fixture
def culture_sae(clip: CLIP) -> CultureSAE:
    encoder = only_encoder(clip)
    ones = torch.ones(4)
    neurons = CultureNeurons(torch.arange(4), ones, ones, ones, ones * 0)
    sae = TopKSAE(encoder.info.width, 64, 8)
    return CultureSAE(sae, last_layer(clip), HIDDEN_STATE, encoder.fingerprint(), {"ja": neurons})


@pytest.fixture
def enhancer(clip: CLIP) -> EnhancerFile:
    encoder = only_encoder(clip)
    module = LayerEnhancer(encoder.info.width, 16)
    nn.init.ones_(module.gain)
    return EnhancerFile(module, last_layer(clip), encoder.fingerprint())


def amplified(clip: CLIP, file: CultureSAE, strength: float, mode: str = "inject") -> CLIP:
    return amplify_clip(clip, file, "ja", strength, mode, TokenSelection())


def test_strength_zero_is_a_clone_without_hooks(
    clip: CLIP, culture_sae: CultureSAE, enhancer: EnhancerFile
) -> None:
    before = encode(clip, PROMPT)
    for neutral in (amplified(clip, culture_sae, 0.0), enhance_clip(clip, enhancer, 0.0)):
        assert neutral is not clip
        assert not neutral.patcher.get_injections(INJECTION_KEY)
        assert torch.equal(encode(neutral, PROMPT), before)
        assert hooks_on(clip) == 0


def test_the_amplifier_changes_the_content_tokens(clip: CLIP, culture_sae: CultureSAE) -> None:
    before, mask = encode(clip, PROMPT), content_rows(clip, PROMPT)
    patched = amplified(clip, culture_sae, 4.0)
    assert torch.equal((encode(patched, PROMPT) != before).any(dim=-1)[0], mask)


def test_the_enhancer_changes_all_tokens_but_padding(clip: CLIP, enhancer: EnhancerFile) -> None:
    before, mask = encode(clip, PROMPT), content_rows(clip, PROMPT)
    content = mask.nonzero().squeeze(1)
    mask[content[0] - 1] = mask[content[-1] + 1] = True  # begin and end
    patched = enhance_clip(clip, enhancer, 1.0)
    assert torch.equal((encode(patched, PROMPT) != before).any(dim=-1)[0], mask)


def test_injection_adds_the_neurons_directions(e5_clip: CLIP) -> None:
    encoder = only_encoder(e5_clip)
    ones = torch.ones(4)
    neurons = CultureNeurons(torch.arange(4), ones * 2, ones / 2, ones, ones * 0)
    sae = TopKSAE(encoder.info.width, 64, 8)
    file = CultureSAE(sae, last_layer(e5_clip), HIDDEN_STATE, encoder.fingerprint(), {"ja": neurons})
    before, after = encode(e5_clip, PROMPT), encode(amplified(e5_clip, file, 3.0), PROMPT)
    mask = content_rows(e5_clip, PROMPT)
    with torch.no_grad():
        z = sae.encode(before[0, mask])[:, :4]
        expected = before[0, mask] + sae.scale * torch.where(z > 0, 3.0 * z, 3.0 * 2 / 2) @ sae.W_dec[:4]
    torch.testing.assert_close(after[0, mask], expected, atol=1e-5, rtol=1e-5)


def test_a_file_for_another_encoder_names_itself(e5_clip: CLIP, clip_l: CLIP) -> None:
    fingerprint = only_encoder(clip_l).fingerprint()
    path = Path("somewhere/clip.safetensors")
    file = EnhancerFile(LayerEnhancer(768, 4), 0, fingerprint, path=path)
    with pytest.raises(FileError, match="clip.safetensors.*another text encoder"):
        enhance_clip(e5_clip, file, 1.0)


def test_a_fine_tuned_encoder_is_only_warned_about(
    clip: CLIP, culture_sae: CultureSAE, caplog: pytest.LogCaptureFixture
) -> None:
    culture_sae.encoder = {**culture_sae.encoder, "weights": [w + 1 for w in culture_sae.encoder["weights"]]}
    amplified(clip, culture_sae, 2.0)
    assert "other weights" in caplog.text


def test_an_unknown_culture_lists_those_of_the_file(clip: CLIP, culture_sae: CultureSAE) -> None:
    with pytest.raises(FileError, match="'de'.*ja"):
        amplify_clip(clip, culture_sae, "de", 2.0, "inject", TokenSelection())


def test_a_strength_out_of_range_is_refused_before_any_encode(clip: CLIP, culture_sae: CultureSAE) -> None:
    with pytest.raises(ValueError, match="strength is 13"):
        amplified(clip, culture_sae, 13.0)


# ---------------------------------------------------------------------------------------------- folders,
# loading


def test_registering_keeps_the_users_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = {**folder_paths.folder_names_and_paths, "culture_sae": ([str(tmp_path)], set())}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", registry)
    register_model_folders()
    register_model_folders()
    paths, extensions = folder_paths.folder_names_and_paths["culture_sae"]
    assert paths[0] == str(tmp_path) and len(paths) == len(set(paths)) >= 2
    assert extensions == {".safetensors"}


def test_registering_adds_the_packs_models_to_the_stock_kinds() -> None:
    register_model_folders()
    pack_models = Path(__file__).resolve().parents[3] / "models"
    assert str(pack_models / "text_encoders") in folder_paths.get_folder_paths("text_encoders")
    assert folder_paths.folder_names_and_paths["text_encoders"][1] == folder_paths.supported_pt_extensions


def broken_folder(source: Path, target: Path, **files: bytes | None) -> Path:
    """A copy of the encoder's folder by links, in which some files are replaced or left out."""
    target.mkdir()
    for file in source.iterdir():
        name = file.name.split(".")[0]
        if name not in files:
            (target / file.name).symlink_to(file)
        elif files[name] is not None:
            (target / file.name).write_bytes(files[name])
    return target


def test_a_broken_encoder_folder_is_named_with_the_reason(e5_folder: Path, tmp_path: Path) -> None:
    weights = (e5_folder / "model.safetensors").read_bytes()[:100_000]
    config = (e5_folder / "config.json").read_bytes()
    cases = {
        "lacks model.safetensors": {"model": None},
        "truncated or no safetensors": {"model": weights},
        "not readable JSON": {"config": b"{"},
        "not of its config.json": {"config": config.replace(b"384", b"256")},
    }
    for number, (message, files) in enumerate(cases.items()):
        folder = broken_folder(e5_folder, tmp_path / str(number), **files)
        with pytest.raises(TextEncoderError, match=f"{folder}.*{message}"):
            load_text_encoder(folder)


def test_a_file_of_another_model_says_what_was_expected_and_found(e5_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save

    folder = broken_folder(e5_folder, tmp_path / "other", model=save({"unet.weight": torch.zeros(1)}))
    with pytest.raises(TextEncoderError, match=r"word_embeddings.*found unet\.weight"):
        load_text_encoder(folder)


def test_keys_with_the_prefix_bert_load_as_well(e5_folder: Path, tmp_path: Path, e5_clip: CLIP) -> None:
    from safetensors.torch import load_file, save_file

    folder = broken_folder(e5_folder, tmp_path / "prefixed", model=None)
    weights = load_file(e5_folder / "model.safetensors")
    save_file({f"bert.{name}": weight for name, weight in weights.items()}, folder / "model.safetensors")
    assert torch.equal(encode(load_text_encoder(folder), PROMPT), encode(e5_clip, PROMPT))
    shutil.rmtree(folder)


def test_an_unknown_folder_says_where_it_was_looked_for() -> None:
    register_model_folders()
    with pytest.raises(FileNotFoundError, match="'no-such-encoder'.*text_encoders"):
        text_encoder_folder("no-such-encoder")
    with pytest.raises(FileNotFoundError):
        text_encoder_folder("../text_encoders/multilingual-e5-small")


def test_a_missing_encoder_is_not_downloaded_but_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda _: [str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="fetch-encoder"):
        text_encoder_folder("multilingual-e5-small")
    assert not list(tmp_path.iterdir())
