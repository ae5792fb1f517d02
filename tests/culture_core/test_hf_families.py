"""Every family against transformers itself, at reduced size and with random weights."""

import pytest
import torch
from transformers import Gemma2Model, LlamaForCausalLM, T5Model

from culture_core.encoders import ATTENTION_OUTPUT, ATTENTION_WEIGHTS, FEATURES, HIDDEN_STATE, HFTextEncoder

FAMILIES = (
    "clip_projection", "t5", "mt5", "umt5", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"
)  # fmt: skip
CAUSAL = ("clip_projection", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3")
NAMES = {"clip_projection": "clip", "mt5": "t5", "umt5": "t5", "mistral": "llama"}
PROMPTS = ["a red house in the style of a thai chair", "old chair", "the thai house"]
LAYERS = 3

every_family = pytest.mark.parametrize("family", FAMILIES)


def raw(encoder: HFTextEncoder, tokens, **options):
    """The model itself, called as its documentation says."""
    masks = {} if encoder.info.family == "clip" else {"attention_mask": tokens.attention_mask.long()}
    return encoder.model(input_ids=tokens.ids, **masks, **options)


@torch.no_grad()
@every_family
def test_captured_attention_equals_output_attentions(family_encoder, family):
    encoder = family_encoder(family)
    tokens = encoder.tokenize(PROMPTS)
    with encoder.capture(range(LAYERS), {ATTENTION_WEIGHTS}) as captured:
        encoder.encode(tokens)
    maps = raw(encoder, tokens, output_attentions=True).attentions
    seen = tokens.attention_mask[:, None, :, None].expand_as(maps[0])
    for layer in range(LAYERS):
        found, expected = captured.attention_weights[layer], maps[layer]
        torch.testing.assert_close(found[seen], expected[seen], atol=1e-5, rtol=0)
        assert expected[seen].std() > 0.02, "the test model must not attend evenly"


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "implementation"),
    # Transformers has but one attention for T5.
    [(f, i) for f in FAMILIES for i in ("eager", "sdpa") if i == "eager" or not f.endswith("t5")],
)
def test_weights_times_values_is_what_the_block_computes(family_encoder, family, implementation):
    if family == "gemma2" and implementation == "sdpa" and not Gemma2Model._supports_sdpa:
        pytest.skip("this version of transformers refuses it, since torch's attention has no cap")
    encoder = family_encoder(family, implementation)
    tokens = encoder.tokenize(PROMPTS)
    attention = encoder.layer_modules()[0].get_submodule(encoder._family.attention)
    names = ("v", "o") if family.endswith("t5") else ("v_proj", "out_proj" if "clip" in family else "o_proj")
    value, output = (attention.get_submodule(name) for name in names)
    seen = {}
    handles = [
        value.register_forward_hook(lambda _m, _i, out: seen.update(v=out)),
        output.register_forward_pre_hook(lambda _m, inputs: seen.update(o=inputs[0])),
    ]
    with encoder.capture([0], {ATTENTION_WEIGHTS}) as captured:
        encoder.encode(tokens)
    for handle in handles:
        handle.remove()
    weights = captured.attention_weights[0]
    size = seen["o"].shape[-1] // encoder.info.heads
    values = seen["v"].unflatten(-1, (-1, size)).transpose(1, 2)
    values = values.repeat_interleave(encoder.info.heads // values.shape[1], dim=1)
    found = (weights @ values).transpose(1, 2).flatten(2)
    mask = tokens.attention_mask
    torch.testing.assert_close(found[mask], seen["o"][mask], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@every_family
def test_weights_of_some_queries_are_rows_of_all_weights(family_encoder, family):
    encoder = family_encoder(family)
    tokens = encoder.tokenize(PROMPTS)
    queries = torch.tensor([[4, 1], [0, 2], [3, 3]])
    rows = {}
    with encoder.capture(range(LAYERS), {ATTENTION_WEIGHTS}) as captured:
        with encoder.watch_attention_of(range(LAYERS), queries, lambda at, _what, w: rows.update({at: w})):
            encoder.encode(tokens)
    for layer in range(LAYERS):
        whole = captured.attention_weights[layer]
        expected = torch.stack([whole[row][:, wanted] for row, wanted in enumerate(queries.tolist())])
        torch.testing.assert_close(rows[layer], expected, atol=1e-6, rtol=0)


@torch.no_grad()
@every_family
def test_conditioning_is_the_last_hidden_state_without_padding(family_encoder, family):
    encoder = family_encoder(family)
    tokens = encoder.tokenize(PROMPTS)
    found, expected = encoder.encode(tokens), raw(encoder, tokens)
    mask = tokens.attention_mask
    torch.testing.assert_close(found.hidden[mask], expected.last_hidden_state[mask], atol=1e-5, rtol=1e-5)
    if family == "clip_projection":
        assert found.pooled.shape == (3, 20)
        torch.testing.assert_close(found.pooled, expected.text_embeds, atol=1e-5, rtol=1e-5)
    else:
        assert found.pooled is None and not found.hidden[~mask].any()


@torch.no_grad()
@every_family
def test_a_prompt_is_encoded_alike_in_any_company(family_encoder, family):
    encoder = family_encoder(family)
    together = encoder.encode(encoder.tokenize(PROMPTS)).hidden
    for row, prompt in enumerate(PROMPTS):
        tokens = encoder.without_padding(encoder.tokenize([prompt]))
        assert tokens.attention_mask.all()
        alone = encoder.encode(tokens).hidden[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@every_family
def test_the_hidden_state_and_the_attention_output_are_those_of_the_residual_stream(family_encoder, family):
    encoder = family_encoder(family)
    tokens = encoder.tokenize(PROMPTS)
    before = {}
    handle = encoder.layer_modules()[1].register_forward_pre_hook(
        lambda _m, args, kwargs: before.update(x=(*args, kwargs.get("hidden_states"))[0].clone()),
        with_kwargs=True,
    )
    with encoder.capture(range(LAYERS), set(FEATURES)) as captured:
        encoder.encode(tokens)
    handle.remove()
    torch.testing.assert_close(captured.hidden_state[0], before["x"])
    # Without the feed-forward part, a layer adds its attention output and nothing else.
    layer = encoder.layer_modules()[1]
    last = layer.layer[-1].DenseReluDense.wo if family.endswith("t5") else None
    last = last or (layer.mlp.fc2 if "clip" in family else layer.mlp.down_proj)
    for parameter in last.parameters():
        parameter.data.zero_()
    with encoder.capture([1], set(FEATURES)) as captured:
        encoder.encode(tokens)
    added = captured.hidden_state[1] - before["x"]
    torch.testing.assert_close(added, captured.attention_output[1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@every_family
@pytest.mark.parametrize("feature", FEATURES)
def test_a_patch_changes_exactly_what_depends_on_it(family_encoder, family, feature):
    encoder = family_encoder(family)
    tokens = encoder.tokenize(PROMPTS)

    def push(value):
        value = value.clone()
        value[1, 1] += torch.linspace(-2, 2, value.shape[-1])  # a norm would take an even push out again
        return value

    with encoder.capture(range(LAYERS), {HIDDEN_STATE}) as plain:
        before = encoder.encode(tokens).hidden
    with encoder.patch(1, feature, push), encoder.capture(range(LAYERS), {HIDDEN_STATE}) as patched:
        after = encoder.encode(tokens).hidden
    changed = [
        (plain.hidden_state[layer] != patched.hidden_state[layer]).any(dim=-1) for layer in range(LAYERS)
    ]
    assert not changed[0].any()
    assert changed[1].nonzero().tolist() == [[1, 1]]
    # Above the patch, it reaches the prompt's own tokens that may look at it, and no other prompt.
    reached = torch.zeros_like(tokens.attention_mask)
    reached[1, 1 if family in CAUSAL else 0 :] = True
    reached &= tokens.attention_mask
    mask = tokens.attention_mask
    assert torch.equal(changed[2] & mask, reached)
    assert torch.equal((before != after).any(dim=-1) & mask, reached)


@torch.no_grad()
@every_family
def test_resuming_at_a_layer_gives_what_the_whole_encode_gives(family_encoder, family):
    encoder = family_encoder(family)
    tokens = encoder.tokenize(PROMPTS)
    with encoder.record() as recorded:
        plain = encoder.encode(tokens)
    calls = []
    handles = [
        module.mlp.register_forward_hook(lambda *_, at=at: calls.append(at))
        for at, module in enumerate(encoder.layer_modules())
        if hasattr(module, "mlp")
    ]
    for layer in range(LAYERS):
        with encoder.patch(layer, ATTENTION_OUTPUT, lambda x: 1.5 * x):
            whole = encoder.encode(tokens).hidden
            calls.clear()
            with encoder.resume(layer, recorded):
                resumed = encoder.encode(tokens).hidden
        assert torch.equal(resumed, whole) and not torch.equal(resumed, plain.hidden)
        assert calls == [at for at in range(layer, LAYERS) if handles]
    for handle in handles:
        handle.remove()
    assert torch.equal(encoder.encode(tokens).hidden, plain.hidden)
    assert not any("forward" in vars(module) for module in encoder.model.modules())


@every_family
def test_prompts_are_framed_as_the_family_does(family_encoder, family):
    encoder = family_encoder(family)
    tokens = encoder.tokenize(["old chair", "a red house"])
    words = encoder.tokenizer("old chair")["input_ids"]
    begins = family in ("clip_projection", "llama", "mistral", "gemma2", "gemma3")
    ends = family == "clip_projection" or family.endswith("t5")
    framed = [*([0] if begins else []), *words, *([1] if ends else [])]
    row = tokens.ids[0, tokens.attention_mask[0]].tolist()
    assert row == framed
    assert tokens.ids[0, tokens.content_mask[0]].tolist() == words
    assert tokens.ids.shape[1] == (77 if family == "clip_projection" else len(framed) + 1)
    assert tokens.positions(0, [(4, 9)]) == [framed.index(words[1])]


@every_family
def test_an_empty_prompt_is_no_error(family_encoder, family):
    encoder = family_encoder(family)
    tokens = encoder.tokenize(["", "old chair"])
    hidden = encoder.encode(tokens).hidden
    assert not tokens.content_mask[0].any() and hidden.isfinite().all()
    assert encoder.encode(encoder.tokenize([""])).hidden.isfinite().all()


@every_family
def test_a_fingerprint_tells_other_weights_apart(family_encoder, family):
    encoder = family_encoder(family)
    fingerprint = encoder.fingerprint()
    assert fingerprint == family_encoder(family).fingerprint()
    assert fingerprint["family"] == NAMES.get(family, family) and fingerprint["layers"] == 3
    encoder.attention_output_module(1).weight.data.mul_(1.01)
    assert encoder.fingerprint()["weights"] != fingerprint["weights"]


def test_a_prompt_that_is_too_long_is_refused(family_encoder):
    encoder = family_encoder("t5")
    assert encoder.max_length is None, "T5 has no limit of its own"
    encoder = HFTextEncoder(encoder.model, encoder.tokenizer, max_length=8)
    encoder.tokenize(["a red house in the style of"])
    with pytest.raises(ValueError, match="9 tokens is too long: this model takes 8"):
        encoder.tokenize(["a red house in the style of a"])


def test_models_with_a_head_or_a_decoder_are_refused(family_encoder):
    for kind, family in ((LlamaForCausalLM, "llama"), (T5Model, "t5")):
        encoder = family_encoder(family)
        with pytest.raises(ValueError, match=f"{kind.__name__} is not supported"):
            HFTextEncoder(kind(encoder.model.config), encoder.tokenizer)


def test_features_are_refused_by_name(family_encoder):
    with pytest.raises(ValueError, match="unknown feature"):
        with family_encoder("llama").patch(0, "mlp", lambda x: x):
            pass
