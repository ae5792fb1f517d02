import copy

import pytest
import torch
from transformers import BertModel, XLMRobertaConfig, XLMRobertaModel

from culture_core.encoders import ATTENTION_OUTPUT, ATTENTION_WEIGHTS, HIDDEN_STATE, HFTextEncoder

EVERYTHING = {ATTENTION_WEIGHTS, ATTENTION_OUTPUT, HIDDEN_STATE}
PROMPTS = [
    "ein Stuhl im deutschen Stil",
    "一把中国风格的椅子",
    "日本風の椅子",
    "เก้าอี้สไตล์ไทย",
    "كرسي على الطراز العربي",
    "a chair",
]
SPOT_ON = {  # text, piece of it, what the tokens that stand for it must spell
    "german": ("ein Stuhl im deutschen Stil", "Stuhl", "Stuhl"),
    "chinese": ("一把中国风格的椅子", "椅子", "椅子"),
    "japanese": ("日本風の椅子", "日本風", "日本風"),
    "thai": ("เก้าอี้สไตล์ไทย", "ไทย", "ไทย"),
    "thai first": ("เก้าอี้สไตล์ไทย", "เก้าอี้", "เก้าอี้"),
    "arabic": ("كرسي على الطراز العربي", "العربي", "العربي"),
}


def hook_count(model: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def eager_copy(model: torch.nn.Module) -> torch.nn.Module:
    config = copy.deepcopy(model.config)
    config._attn_implementation = "eager"
    arguments = {"add_pooling_layer": False} if isinstance(model, BertModel | XLMRobertaModel) else {}
    twin = type(model)(config, **arguments)
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def spell(text: str, offsets: list, positions: list[int]) -> str:
    return "".join(text[slice(*offsets[position])] for position in positions)


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_captured_attention_equals_eager_output_attentions_on_the_shipped_encoder(e5, implementation):
    assert e5.model.config._attn_implementation == "eager"
    encoder = e5
    if implementation == "sdpa":
        model = BertModel.from_pretrained(
            e5.model.name_or_path, add_pooling_layer=False, attn_implementation="sdpa"
        )
        encoder = HFTextEncoder(model, e5.tokenizer, max_length=32)
    tokens = encoder.tokenize(PROMPTS)
    with encoder.capture(range(12), EVERYTHING) as captured:
        encoder.encode(tokens)
    expected = e5.model(
        tokens.ids, tokens.attention_mask.long(), output_attentions=True, output_hidden_states=True
    )
    for layer in range(12):
        torch.testing.assert_close(
            captured.attention_weights[layer], expected.attentions[layer], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            captured.hidden_state[layer], expected.hidden_states[layer + 1], atol=1e-5, rtol=0
        )
    assert captured.attention_weights[0].shape == (len(PROMPTS), 12, 32, 32)


@torch.no_grad()
def test_captured_attention_equals_eager_output_attentions_on_clip(clip):
    tokens = clip.tokenize(["a thai style chair", "the old house"])
    with clip.capture(range(3), EVERYTHING) as captured:
        conditioning = clip.encode(tokens)
    expected = eager_copy(clip.model)(tokens.ids, output_attentions=True, output_hidden_states=True)
    for layer in range(3):
        torch.testing.assert_close(
            captured.attention_weights[layer], expected.attentions[layer], atol=1e-5, rtol=0
        )
    assert captured.attention_weights[2].std() > 1e-3, "the test model must not attend evenly"
    torch.testing.assert_close(conditioning.hidden, expected.last_hidden_state, atol=1e-4, rtol=0)
    torch.testing.assert_close(conditioning.pooled, expected.pooler_output, atol=1e-4, rtol=0)


@torch.no_grad()
def test_captured_attention_output_is_what_the_block_adds_to_the_residual(clip):
    tokens = clip.tokenize(["a thai style chair"])
    inputs = {}
    layer = clip.layer_modules()[1]
    handle = layer.register_forward_pre_hook(
        lambda _m, args, kwargs: inputs.update(x=(args or (kwargs["hidden_states"],))[0]), with_kwargs=True
    )
    with clip.capture([1], EVERYTHING) as captured:
        clip.encode(tokens)
    handle.remove()
    middle = inputs["x"] + captured.attention_output[1]
    rebuilt = middle + layer.mlp(layer.layer_norm2(middle))
    torch.testing.assert_close(rebuilt, captured.hidden_state[1])


@torch.no_grad()
def test_capturing_and_patching_leave_model_and_result_as_they_were(e5):
    tokens = e5.tokenize(PROMPTS[:2])
    before = e5.encode(tokens)
    implementation, hooks = e5.model.config._attn_implementation, hook_count(e5.model)
    with e5.capture(range(12), EVERYTHING):
        during = e5.encode(tokens)
    with e5.patch(3, HIDDEN_STATE, lambda hidden: hidden + 1):
        e5.encode(tokens)
    after = e5.encode(tokens)
    assert torch.equal(before.hidden, during.hidden) and torch.equal(before.hidden, after.hidden)
    assert torch.equal(before.pooled, after.pooled)
    assert e5.model.config._attn_implementation == implementation
    assert hook_count(e5.model) == hooks


def test_no_hook_stays_after_an_error(bert):
    tokens = bert.tokenize(["a chair"])

    def fail(_feature):
        raise RuntimeError("from the patch")

    with pytest.raises(RuntimeError, match="from the patch"):
        with bert.capture([0, 1], EVERYTHING), bert.patch(0, ATTENTION_OUTPUT, fail):
            bert.encode(tokens)
    with pytest.raises(KeyError), bert.capture([0, 1], EVERYTHING):
        raise KeyError("from the caller")
    with pytest.raises(ValueError, match="layer 2 is not there"), bert.capture([0, 1, 2], EVERYTHING):
        pass
    assert hook_count(bert.model) == 0


@torch.no_grad()
def test_captured_tensors_do_not_change_afterwards(bert):
    with bert.capture([1], EVERYTHING) as captured:
        bert.encode(bert.tokenize(["a chair"]))
        kept = captured.hidden_state[1]
        copy_ = kept.clone()
        bert.encode(bert.tokenize(["the old house"]))
    assert torch.equal(kept, copy_)
    assert not torch.equal(captured.hidden_state[1], copy_), "the capture holds the latest encode"


@torch.no_grad()
def test_a_patch_changes_exactly_what_it_says(bert):
    tokens = bert.tokenize(["a thai chair", "the old house"])

    def shift_one_token(hidden):
        hidden = hidden.clone()
        hidden[1, 2] += 0.5
        return hidden

    plain = bert.encode(tokens).hidden
    with bert.patch(1, HIDDEN_STATE, shift_one_token):
        changed = bert.encode(tokens).hidden
    difference = (changed - plain).abs().amax(dim=-1) > 0
    assert difference.nonzero().tolist() == [[1, 2]]
    torch.testing.assert_close(changed[1, 2], plain[1, 2] + 0.5)


@torch.no_grad()
def test_a_patch_of_the_attention_output_reaches_the_layers_above_only(bert):
    tokens = bert.tokenize(["a thai chair"])
    with bert.capture([0, 1], {HIDDEN_STATE}) as plain:
        bert.encode(tokens)
    with bert.patch(1, ATTENTION_OUTPUT, torch.zeros_like), bert.capture([0, 1], EVERYTHING) as patched:
        bert.encode(tokens)
    assert torch.equal(plain.hidden_state[0], patched.hidden_state[0])
    assert not torch.equal(plain.hidden_state[1], patched.hidden_state[1])
    assert patched.attention_output[1].abs().max() == 0


@torch.no_grad()
def test_patches_of_one_place_run_in_the_order_of_entering(bert):
    tokens = bert.tokenize(["a chair"])
    plain = bert.encode(tokens).hidden
    with bert.patch(1, HIDDEN_STATE, lambda h: h + 0.5), bert.patch(1, HIDDEN_STATE, lambda h: h * 2):
        both = bert.encode(tokens).hidden
    content = tokens.content_mask
    torch.testing.assert_close(both[content], (plain[content] + 0.5) * 2)


@torch.no_grad()
def test_a_patch_that_returns_its_argument_changes_nothing(bert):
    tokens = bert.tokenize(["a chair"])
    plain = bert.encode(tokens)
    with bert.patch(0, HIDDEN_STATE, lambda hidden: hidden):
        assert torch.equal(bert.encode(tokens).hidden, plain.hidden)


def test_a_patch_must_keep_the_shape(bert):
    with pytest.raises(ValueError, match="keep the shape"), bert.patch(0, HIDDEN_STATE, lambda h: h[:, :1]):
        bert.encode(bert.tokenize(["a chair"]))


@pytest.mark.parametrize("name", SPOT_ON)
def test_positions_find_the_tokens_of_a_piece_of_text_in_every_script(e5, name):
    text, piece, spelling = SPOT_ON[name]
    tokens = e5.tokenize(["a chair", text])
    start = text.index(piece)
    positions = tokens.positions(1, [(start, start + len(piece))])
    assert spell(text, tokens.offsets[1], positions) == spelling
    assert tokens.content_mask[1, positions].all()


@pytest.mark.parametrize("text", PROMPTS)
def test_every_letter_belongs_to_a_token_and_no_token_to_a_space(e5, text):
    tokens = e5.tokenize([text])
    for index, letter in enumerate(text):
        found = tokens.positions(0, [(index, index + 1)])
        assert bool(found) != letter.isspace(), f"{letter!r} at {index}"


def test_word_boundary_pieces_stand_for_no_text(e5):
    tokens = e5.tokenize(["เก้าอี้"])
    pieces = e5.tokenizer.convert_ids_to_tokens(tokens.ids[0].tolist())
    assert pieces[1] == "▁" and tokens.offsets[0][1] is None


@torch.no_grad()
def test_conditioning_of_bert_is_padded_with_zeros_and_pooled_over_attended_tokens(e5):
    tokens = e5.tokenize(PROMPTS)
    conditioning = e5.encode(tokens)
    raw = e5.model(tokens.ids, tokens.attention_mask.long()).last_hidden_state
    assert conditioning.hidden.shape == (len(PROMPTS), 32, 384)
    assert (conditioning.hidden[~tokens.attention_mask] == 0).all()
    torch.testing.assert_close(conditioning.hidden[tokens.attention_mask], raw[tokens.attention_mask])
    mask = tokens.attention_mask[..., None]
    torch.testing.assert_close(conditioning.pooled, (raw * mask).sum(1) / mask.sum(1))


def test_tokens_are_framed_and_padded(e5):
    tokens = e5.tokenize(["a chair", ""])
    reference = e5.tokenizer("a chair")["input_ids"]
    assert tokens.ids[0, : len(reference)].tolist() == reference
    assert (tokens.ids[0, len(reference) :] == 1).all()
    assert tokens.attention_mask[0].sum() == len(reference)
    assert tokens.content_mask[0].sum() == len(reference) - 2
    assert tokens.ids[1, :3].tolist() == [0, 2, 1] and not tokens.content_mask[1].any()


@torch.no_grad()
@pytest.mark.parametrize("family", ["bert", "clip"])
def test_long_prompts_become_chunks_that_are_encoded_apart(family, request):
    encoder = request.getfixturevalue(family)
    room = encoder.max_length - 2
    words = ["thai", "chair", "old", "house"] * encoder.max_length
    first, second = words[:room], words[room : room + 5]
    tokens = encoder.tokenize([" ".join(first + second), "a chair"])
    whole = encoder.encode(tokens)
    alone = encoder.encode(encoder.tokenize([" ".join(first), " ".join(second)]))
    torch.testing.assert_close(whole.hidden[0], alone.hidden.flatten(0, 1), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(whole.pooled[0], alone.pooled[0], atol=2e-5, rtol=1e-5)
    assert (whole.hidden[1, encoder.max_length :] == 0).all()
    assert tokens.content_mask[0].sum() == room + 5


@torch.no_grad()
def test_features_of_several_chunks_have_one_row_a_prompt(bert):
    prompts = ["thai chair " * 12, "a chair"]
    tokens = bert.tokenize(prompts)
    with bert.capture([0, 1], EVERYTHING) as captured:
        whole = bert.encode(tokens)
    assert captured.hidden_state[1].shape == (2, 32, 32)
    assert captured.attention_weights[1].shape == (2, 4, 32, 32)
    assert (captured.attention_weights[1][0, :, :16, 16:] == 0).all()
    torch.testing.assert_close(captured.attention_weights[1].sum(-1), torch.ones(2, 4, 32))
    mask = tokens.attention_mask
    torch.testing.assert_close(captured.hidden_state[1][mask], whole.hidden[mask])

    def mark(hidden):
        hidden = hidden.clone()
        hidden[0, 20] = 7.0
        return hidden

    with bert.patch(1, HIDDEN_STATE, mark):
        assert (bert.encode(tokens).hidden[0, 20] == 7).all()


@torch.no_grad()
def test_xlm_roberta_is_supported(bert):
    config = XLMRobertaConfig(
        vocab_size=14, hidden_size=32, num_attention_heads=4, intermediate_size=64, num_hidden_layers=2,
        max_position_embeddings=20, pad_token_id=2, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = XLMRobertaModel(config, add_pooling_layer=False)
    encoder = HFTextEncoder(model, bert.tokenizer, max_length=16)
    tokens = encoder.tokenize(["a thai chair"])
    with encoder.capture([1], {ATTENTION_WEIGHTS}) as captured:
        encoder.encode(tokens)
    expected = eager_copy(model)(tokens.ids, tokens.attention_mask.long(), output_attentions=True)
    torch.testing.assert_close(captured.attention_weights[1], expected.attentions[1], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="3 to 17 tokens"):
        HFTextEncoder(model, bert.tokenizer, max_length=18)


def test_gradients_reach_a_patch_below_other_layers(bert):
    tokens = bert.tokenize(["a chair"])
    shift = torch.zeros(32, requires_grad=True)
    with bert.patch(0, HIDDEN_STATE, lambda hidden: hidden + shift):
        bert.encode(tokens).hidden.square().sum().backward()
    assert shift.grad is not None and shift.grad.abs().max() > 0


def test_an_unknown_model_is_refused(bert):
    model = bert.model
    model.config.model_type = "gpt2"
    try:
        with pytest.raises(ValueError, match="use BertModel, XLMRobertaModel, CLIPTextModel"):
            HFTextEncoder(model, bert.tokenizer)
    finally:
        model.config.model_type = "bert"
