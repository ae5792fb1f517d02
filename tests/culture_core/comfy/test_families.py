"""Every text encoder family that ComfyUI's loaders produce, small and with random weights: what is read is
what the model computes, what is patched changes what it should, and words are found where they are."""

from types import SimpleNamespace

import comfy.model_management
import comfy.sd1_clip
import pytest
import torch
from comfy.sd import CLIP
from torch import Tensor, nn

from culture_core.comfy import (
    ComfyTextEncoder,
    TextEncoderError,
    amplify_clip,
    choose_encoders,
    encoders_of,
    enhance_clip,
    patch_clip,
    scheduled_conditioning,
    taken_layer,
)
from culture_core.comfy.reading import attention_weights
from culture_core.encoders import ATTENTION_OUTPUT, ATTENTION_WEIGHTS, FEATURES, HIDDEN_STATE
from culture_core.enhancer import LayerEnhancer
from culture_core.features import content_features
from culture_core.files import CultureSAE, EnhancerFile, FileError
from culture_core.neurons import CultureNeurons
from culture_core.pairs import PromptPair
from culture_core.probing import probe_layers
from culture_core.sae import TopKSAE
from culture_core.schedule import parse_schedule
from culture_core.selection import TokenSelection

PROMPT = "a Japanese style house, old bridge"
PROMPTS = [PROMPT, "a house", "ein Haus im deutschen Stil mit Garten", "日本風の急須"]
CONTENT = TokenSelection()
FULL = ("clip_l", "clip_g", "clip_h", "t5xxl", "qwen25_7b", "qwen25_3b", "qwen3_4b", "gemma2_2b", "gemma3_4b",
        "mistral3_24b", "llama", "siglip")  # fmt: skip
"""Encoders whose longest prompt has no padding anyway, or that need it."""


def encode(clip: object, key: str, text: str) -> Tensor:
    """What one encoder of a CLIP gives for a prompt, [S, d] or [layers, S, d], before the model puts it
    together with others."""
    tokens = clip.tokenize(text)
    with torch.inference_mode():
        clip.encode_from_tokens(tokens)
        rows = tokens.get(key, tokens.get(key.removeprefix("clip_")))
        return getattr(clip.cond_stage_model, key).encode_token_weights(rows)[0][0].clone()


def content(place: object, text: str) -> Tensor:
    return ComfyTextEncoder(place.clip, place.key).tokenize([text]).content_mask[0]


def changed_tokens(after: Tensor, before: Tensor) -> Tensor:
    """[S] bool: which tokens differ, in any layer that is given out."""
    return (after != before).any(dim=-1).reshape(-1, before.shape[-2]).any(dim=0)


def push(width: int) -> object:
    """Adds one direction to every token; a norm would take out what is the same in all dimensions."""
    direction = torch.randn(width, generator=torch.Generator().manual_seed(5))
    return lambda device: lambda feature, mask: feature + direction.to(device)


# ------------------------------------------------------------------------------------------------- reading


def test_weights_times_values_is_what_the_block_computes(place: object) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    layers = range(encoder.info.layers)
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    handles = [_spy(encoder, layer, seen) for layer in layers]
    try:
        with torch.inference_mode(), encoder.capture(layers, {ATTENTION_WEIGHTS}) as captured:
            tokens = encoder.tokenize([PROMPT])
            encoder.encode(tokens)
    finally:
        for handle in handles:
            handle.remove()
    assert sorted(seen) == list(layers)
    for layer, (values, output) in seen.items():
        weights = captured.attention_weights[layer]
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
        weighted = (weights @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(weighted, output, atol=1e-5, rtol=1e-5)


def _spy(encoder: ComfyTextEncoder, layer: int, seen: dict) -> object:
    """Note (values [B, H, S, d], output [B, S, H · d]) of a layer's attention."""
    module = encoder.model.get_submodule(encoder.places.attention(layer))

    def intercept(_module: nn.Module, arguments: tuple, keywords: dict) -> tuple[tuple, dict]:
        def noted(q: Tensor, k: Tensor, v: Tensor, heads: int, *rest: object, **options: object) -> Tensor:
            output = attend(q, k, v, heads, *rest, **options)
            split = options.get("skip_reshape", False)
            seen[layer] = v if split else v.unflatten(-1, (heads, -1)).transpose(1, 2), output
            return output

        if "optimized_attention" in keywords:
            attend = keywords["optimized_attention"]
            return arguments, keywords | {"optimized_attention": noted}
        attend = arguments[-1]
        return (*arguments[:-1], noted), keywords

    return module.register_forward_pre_hook(intercept, with_kwargs=True)


def test_attention_of_a_few_queries_is_that_part_of_the_whole(place: object) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    tokens = encoder.tokenize(PROMPTS[:2])
    queries = torch.stack([mask.nonzero().flatten()[:2] for mask in tokens.content_mask])
    found: dict[int, Tensor] = {}
    with torch.inference_mode(), encoder.capture(range(4), {ATTENTION_WEIGHTS}) as whole:
        with encoder.watch_attention_of(range(4), queries, lambda at, _, w: found.__setitem__(at, w.clone())):
            encoder.encode(tokens)
    for layer in range(4):
        for row in range(2):
            expected = whole.attention_weights[layer][row][:, queries[row]]
            torch.testing.assert_close(found[layer][row], expected, atol=1e-6, rtol=1e-5)


def test_padding_that_nothing_sees_can_be_left_out(place: object) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    tokens = encoder.tokenize(PROMPTS)
    short = encoder.without_padding(tokens)
    with torch.inference_mode():
        whole, cut = encoder.encode(tokens).hidden, encoder.encode(short).hidden
    seen = short.attention_mask
    torch.testing.assert_close(cut[seen], whole[:, : cut.shape[1]][seen], atol=2e-5, rtol=1e-4)
    assert short.ids.shape[1] < tokens.ids.shape[1] or place.key in FULL


def test_a_causal_encoder_is_known_as_one(place: object) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    with torch.inference_mode(), encoder.capture([0], {ATTENTION_WEIGHTS}) as captured:
        encoder.encode(encoder.tokenize([PROMPT]))
    later = captured.attention_weights[0][0].triu(1)
    assert encoder.info.causal == (not bool(later.any()))


def test_attention_output_is_the_projection_of_what_attention_gathers(place: object) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    layers = range(encoder.info.layers)
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    handles = [_spy(encoder, layer, seen) for layer in layers]
    with torch.inference_mode(), encoder.capture(layers, {ATTENTION_OUTPUT}) as captured:
        encoder.encode(encoder.tokenize([PROMPT]))
    for handle in handles:
        handle.remove()
    for layer, (_, gathered) in seen.items():
        module = encoder.attention_output_module(layer)
        projection = (
            module if hasattr(module, "out_features") else encoder.layer_modules()[layer].self_attn.o_proj
        )
        added = nn.functional.linear(gathered, projection.weight, getattr(projection, "bias", None))
        if module is not projection:  # Gemma norms it
            added = added * torch.rsqrt(added.square().mean(-1, keepdim=True) + 1e-6) * (1 + module.weight)
        torch.testing.assert_close(captured.attention_output[layer], added, atol=1e-5, rtol=1e-5)


def test_encoding_through_the_interface_is_what_clip_text_encode_gives(place: object) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    with torch.inference_mode():
        found = encoder.encode(encoder.tokenize([PROMPT])).hidden[0]
    expected = encode(place.clip, place.key, PROMPT)
    if expected.ndim == 3:
        expected = expected.movedim(0, 1).flatten(1)
    assert torch.equal(found, expected)


def test_a_batch_gives_what_each_prompt_gives_alone(place: object) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    with torch.inference_mode():
        together = encoder.encode(encoder.tokenize(PROMPTS)).hidden
        for row, prompt in enumerate(PROMPTS):
            alone = encoder.encode(encoder.tokenize([prompt])).hidden[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=2e-5, rtol=1e-4)
            assert not together[row, len(alone) :].any()


@pytest.mark.parametrize("feature", FEATURES)
def test_both_features_can_be_collected(place: object, feature: str) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    vectors, prompts = content_features(encoder, PROMPTS, place.taken, feature)
    assert vectors.shape == (len(prompts), encoder.info.width) and bool(vectors.isfinite().all())
    assert prompts.unique().tolist() == list(range(len(PROMPTS)))


def test_probing_gives_curves_for_all_layers(place: object) -> None:
    pair = PromptPair(
        "1", "ja", "en", "a Japanese style house", "a big house", ((2, 16),), ((17, 22),), ((6, 11),)
    )
    other = PromptPair("2", "de", "de", "ein Haus im Stil", "ein Haus", ((9, 16),), ((4, 8),), ((4, 8),))
    probe = probe_layers(ComfyTextEncoder(place.clip, place.key), [pair, other], bootstrap=20)
    assert probe.pairs == 2 and len(probe.delta_ca) == 4
    assert bool(probe.causal.isfinite().all()) and float(probe.causal.abs().max()) > 0
    assert 0 < float(probe.ca_cultural.max()) < 1


# --------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "word"), [(PROMPT, "house"), (PROMPT, "Japanese style"), ("Möbel aus Holz", "Holz")]
)
def test_spans_hit_the_tokens_that_spell_the_word(place: object, text: str, word: str) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    tokens = encoder.tokenize([text])
    start = text.index(word)
    positions = tokens.positions(0, [(start, start + len(word))])
    spelled = b"".join(encoder.tracer.vocabulary.spell(int(tokens.ids[0, p])) for p in positions)
    assert spelled.decode().strip().lower() == word.lower()
    assert bool(tokens.content_mask[0, positions].all())


def test_the_content_is_the_prompt_without_template_and_padding(place: object) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    tokens = encoder.tokenize([PROMPT])
    ids = tokens.ids[0, tokens.content_mask[0]].tolist()
    spelled = b"".join(encoder.tracer.vocabulary.spell(token) for token in ids)
    assert "".join(spelled.decode().lower().split()) == "".join(PROMPT.lower().split())


# ------------------------------------------------------------------------------------------------ patching


def test_the_layer_that_the_conditioning_is_taken_from_is_known(place: object) -> None:
    assert taken_layer(encoders_of(place.clip)[place.key]) == place.taken


def test_a_patch_of_the_taken_layer_changes_the_content_tokens_alone(place: object) -> None:
    before = encode(place.clip, place.key, PROMPT)
    width = ComfyTextEncoder(place.clip, place.key).info.width
    patched = patch_clip(place.clip, place.taken, HIDDEN_STATE, push(width), CONTENT, place.key)
    after = encode(patched, place.key, PROMPT)
    assert torch.equal(changed_tokens(after, before), content(place, PROMPT))
    assert torch.equal(encode(place.clip, place.key, PROMPT), before)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_patch_below_changes_content_tokens_and_what_sees_them(place: object, feature: str) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    before = encode(place.clip, place.key, PROMPT)
    patched = patch_clip(place.clip, 0, feature, push(encoder.info.width), CONTENT, place.key)
    changed = changed_tokens(encode(patched, place.key, PROMPT), before)
    marks = content(place, PROMPT)
    assert bool(changed[marks].all())
    first = int(marks.nonzero()[0])
    assert not encoder.info.causal or not bool(changed[:first].any())


def test_a_patch_of_one_token_is_seen_by_those_alone_that_attend_to_it(place: object) -> None:
    before = encode(place.clip, place.key, PROMPT)
    encoder = ComfyTextEncoder(place.clip, place.key)
    words = TokenSelection("words", ("bridge",))
    patched = patch_clip(place.clip, place.taken, HIDDEN_STATE, push(encoder.info.width), words, place.key)
    changed = changed_tokens(encode(patched, place.key, PROMPT), before)
    tokens = encoder.tokenize([PROMPT])
    start = PROMPT.index("bridge")
    assert changed.nonzero().flatten().tolist() == tokens.positions(0, [(start, start + 6)])


def test_a_patch_above_the_taken_layer_is_refused_with_a_reason(place: object) -> None:
    layers = ComfyTextEncoder(place.clip, place.key).info.layers
    if place.taken == layers - 1:
        with pytest.raises(TextEncoderError, match="not there"):
            patch_clip(place.clip, layers, HIDDEN_STATE, push(1), CONTENT, place.key)
    else:
        with pytest.raises(TextEncoderError, match="the conditioning is taken before it"):
            patch_clip(place.clip, layers - 1, HIDDEN_STATE, push(1), CONTENT, place.key)


@pytest.mark.parametrize("feature", FEATURES)
def test_amplifying_and_enhancing_work_and_strength_zero_changes_nothing(place: object, feature: str) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    before = encode(place.clip, place.key, PROMPT)
    width, ones = encoder.info.width, torch.ones(4)
    sae = CultureSAE(
        TopKSAE(width, 32, 4), place.taken, feature, encoder.fingerprint(),
        {"ja": CultureNeurons(torch.arange(4), ones, ones, ones, ones)}, place.key,
    )  # fmt: skip
    enhancer = LayerEnhancer(width, 4)
    enhancer.gain.data.fill_(1.0)
    file = EnhancerFile(enhancer, place.taken, encoder.fingerprint(), place.key)
    for strength in (0.0, 2.0):
        amplified = amplify_clip(place.clip, sae, "ja", strength, "inject", CONTENT)
        enhanced = enhance_clip(place.clip, file, strength)
        for clip in (amplified, enhanced):
            assert torch.equal(encode(clip, place.key, PROMPT), before) == (strength == 0)


def test_weights_and_empty_prompts_leave_a_patched_encoder_finite(place: object) -> None:
    width = ComfyTextEncoder(place.clip, place.key).info.width
    patched = patch_clip(place.clip, place.taken, HIDDEN_STATE, push(width), CONTENT, place.key)
    for text in ("", "a (house:1.3)"):
        plain, found = encode(place.clip, place.key, text), encode(patched, place.key, text)
        assert torch.equal(found.isfinite(), plain.isfinite())
        assert text or torch.equal(found, plain)


@pytest.mark.parametrize("family", ["lumina2", "lumina2_gemma3"])
def test_gemmas_norm_does_not_swallow_the_change(family: str, clips: object) -> None:
    clip = clips(family)
    key = choose_encoders(clip)[0]
    encoder = ComfyTextEncoder(clip, key)
    with torch.inference_mode():
        tokens = encoder.tokenize([PROMPT])
        plain = encoder.encode(tokens).hidden
        with encoder.patch(1, ATTENTION_OUTPUT, lambda x: 3 * x):
            moved = encoder.encode(tokens).hidden
        projection = encoder.layer_modules()[1].self_attn.o_proj
        handle = projection.register_forward_hook(lambda module, inputs, output: 3 * output)
        swallowed = encoder.encode(tokens).hidden
        handle.remove()
    assert float((moved - plain).norm() / plain.norm()) > 0.01
    assert float((swallowed - plain).norm() / plain.norm()) < 1e-4


# --------------------------------------------------------------------------------- several encoders, and none


def test_the_largest_encoder_is_the_default(clips: object) -> None:
    assert choose_encoders(clips("sd3")) == ["t5xxl"]
    assert choose_encoders(clips("sdxl"), "all") == ["clip_l", "clip_g"]
    assert choose_encoders(clips("sdxl"), "g, clip_l") == ["clip_g", "clip_l"]
    with pytest.raises(TextEncoderError, match="has no encoder t5: it has clip_l, clip_g"):
        choose_encoders(clips("sdxl"), "clip_l, t5")


class LinearAttention(nn.Module):
    """What ComfyUI's newer encoders have in some layers: no attention matrix at all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.o_proj(self.q_proj(x).cumsum(dim=1))


class LinearLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_attn = LinearAttention(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear_attn(x)


class LinearTransformer(nn.Module):
    def __init__(self, config: dict, dtype: torch.dtype, device: object, operations: object) -> None:
        super().__init__()
        self.num_layers = 3
        self.embeddings = operations.Embedding(49408, 16, dtype=dtype, device=device)
        self.layers = nn.ModuleList([LinearLayer(16) for _ in range(3)])

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(self, tokens: Tensor, mask: Tensor, embeds: Tensor, **options: object) -> tuple:
        for layer in self.layers:
            embeds = layer(embeds)
        return embeds, None


class LinearEncoder(comfy.sd1_clip.SDClipModel):
    def __init__(self, device: object, dtype: torch.dtype, model_options: dict) -> None:
        super().__init__(
            device=device, dtype=dtype, model_class=LinearTransformer, textmodel_json_config={},
            layer_norm_hidden_state=False, model_options=model_options,
        )  # fmt: skip


@pytest.fixture(scope="module")
def linear_clip() -> CLIP:
    target = SimpleNamespace(
        params={"clip_model": LinearEncoder},
        clip=comfy.sd1_clip.SD1ClipModel,
        tokenizer=comfy.sd1_clip.SD1Tokenizer,
    )
    clip = CLIP(target, model_options={"dtype": torch.float32})
    generator = torch.Generator().manual_seed(0)
    for weight in clip.cond_stage_model.parameters():
        weight.data.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return clip


def test_without_an_attention_matrix_the_hidden_state_parts_work(linear_clip: CLIP) -> None:
    encoder = ComfyTextEncoder(linear_clip)
    for feature in FEATURES:
        vectors, _ = content_features(encoder, PROMPTS, 1, feature)
        assert vectors.shape[1] == 16 and bool(vectors.isfinite().all())
    before = encode(linear_clip, "clip_l", PROMPT)
    patched = patch_clip(linear_clip, 2, HIDDEN_STATE, push(16))
    changed = changed_tokens(encode(patched, "clip_l", PROMPT), before)
    assert torch.equal(changed, encoder.tokenize([PROMPT]).content_mask[0])
    sae = _sae_for(linear_clip, "clip_l", 1)
    amplified = amplify_clip(linear_clip, sae, "ja", 2.0, "inject", CONTENT)
    assert not torch.equal(encode(amplified, "clip_l", PROMPT), before)


def test_without_an_attention_matrix_probing_says_so(linear_clip: CLIP) -> None:
    encoder = ComfyTextEncoder(linear_clip)
    pair = PromptPair("1", "de", "de", "ein Haus im Stil", "ein Haus", ((9, 16),), ((4, 8),), ((4, 8),))
    with pytest.raises(TextEncoderError, match="no attention matrix to read"):
        probe_layers(encoder, [pair], bootstrap=5)
    modules = linear_clip.cond_stage_model.modules()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_attention_weights_of_shared_key_heads_and_boolean_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 4, 5, 8, generator=generator)
    k = torch.randn(1, 2, 5, 8, generator=generator)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    weights = attention_weights(q, k, 4, mask, split=True)
    for head in range(4):
        scores = (q[0, head].double() @ k[0, head // 2].double().T / 8**0.5).masked_fill(~mask, -torch.inf)
        torch.testing.assert_close(weights[0, head].double(), scores.softmax(-1), atol=1e-6, rtol=0)


def _sae_for(clip: object, key: str, layer: int) -> CultureSAE:
    encoder = ComfyTextEncoder(clip, key)
    ones = torch.ones(4)
    neurons = CultureNeurons(torch.arange(4), ones, ones, ones, ones)
    sae = TopKSAE(encoder.info.width, 32, 4)
    return CultureSAE(sae, layer, HIDDEN_STATE, encoder.fingerprint(), {"ja": neurons}, key)


def test_one_several_or_all_encoders_can_be_amplified(clips: object) -> None:
    """Both of these small encoders have one shape, so that a file fits both."""
    clip = clips("sdxl")
    sae = _sae_for(clip, "clip_g", 1)
    plain = {key: encode(clip, key, PROMPT) for key in encoders_of(clip)}
    for choice, expected in [("", {"clip_g"}), ("l", {"clip_l"}), ("all", {"clip_l", "clip_g"})]:
        amplified = amplify_clip(clip, sae, "ja", 2.0, "inject", CONTENT, choice)
        found = {key for key in plain if not torch.equal(encode(amplified, key, PROMPT), plain[key])}
        assert found == expected, choice


def test_a_file_for_another_shape_of_encoder_is_refused(clips: object) -> None:
    sae = _sae_for(clips("pixart"), "t5xxl", 1)
    with pytest.raises(FileError, match="made for another text encoder"):
        amplify_clip(clips("flux"), sae, "ja", 2.0, "inject", CONTENT, "clip_l")


def test_two_encoders_can_carry_a_culture_through_files_of_their_own(clips: object) -> None:
    clip = clips("flux")
    both = amplify_clip(clip, _sae_for(clip, "clip_l", 1), "ja", 2.0, "inject", CONTENT)
    both = amplify_clip(both, _sae_for(clip, "t5xxl", 2), "ja", 2.0, "inject", CONTENT)
    for key in encoders_of(clip):
        assert not torch.equal(encode(both, key, PROMPT), encode(clip, key, PROMPT))


def test_a_schedule_gives_each_stretch_its_strength_and_range(clips: object) -> None:
    clip = clips("sdxl")
    sae = _sae_for(clip, "clip_g", 1)
    stretches = parse_schedule("0: 3, 0.25: 1, 0.5: 0, 0.75: 3")
    with torch.inference_mode():
        found = scheduled_conditioning(clip, sae, "ja", PROMPT, stretches, "inject", CONTENT)
        ranges = [(options["start_percent"], options["end_percent"]) for _, options in found]
        assert ranges == [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]
        for (hidden, options), stretch in zip(found, stretches, strict=True):
            single = amplify_clip(clip, sae, "ja", stretch.strength, "inject", CONTENT)
            expected, pooled = single.encode_from_tokens(single.tokenize(PROMPT), return_pooled=True)
            assert torch.equal(hidden, expected) and torch.equal(options["pooled_output"], pooled)
    assert torch.equal(found[0][0], found[3][0]) and not torch.equal(found[0][0], found[2][0])
