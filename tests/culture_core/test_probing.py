"""Layer probing against a plain computation, and the rule for the key layer."""

from dataclasses import replace

import pytest
import torch

from culture_core.encoders import ATTENTION_OUTPUT, HIDDEN_STATE
from culture_core.miniature.captions import prompt_pairs
from culture_core.probing import probe_by_language, probe_layers


def plain_ca(encoder, text: str, from_spans, to_spans, direction: str) -> list[float]:
    """Eq. 1 and 2 for one prompt, from transformers' own attention maps, with loops."""
    tokens = encoder.tokenize([text])
    rows, columns = tokens.positions(0, from_spans), tokens.positions(0, to_spans)
    rows = [row for row in rows if row not in columns]
    arguments = {} if encoder.info.causal else {"attention_mask": tokens.attention_mask.long()}
    encoder.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = encoder.model(tokens.ids, output_attentions=True, **arguments).attentions
    curve = []
    for layer in maps:
        weights, values = layer[0].mean(0), []
        for row in rows:
            for column in columns:
                seen = [w for w in (weights[row, column].item(), weights[column, row].item()) if w > 0]
                values.append(weights[row, column].item() if direction == "modifier_to_noun" else
                              weights[column, row].item() if direction == "noun_to_modifier" else
                              sum(seen) / len(seen))  # fmt: skip
        curve.append(sum(values) / len(values) if values else 0.0)
    return curve


@pytest.mark.parametrize("direction", ["modifier_to_noun", "noun_to_modifier", "visible"])
@pytest.mark.parametrize("name", ["e5", "clip"])
def test_delta_ca_equals_a_plain_computation(request, name, direction, pairs):
    encoder = request.getfixturevalue(name)
    chosen = pairs if name == "clip" else prompt_pairs("train")[5:400:61]
    probe = probe_layers(encoder, chosen, direction, batch_size=4, bootstrap=20, patching=False)
    assert not probe.skipped
    differences = []
    for pair in chosen:
        cultural = plain_ca(encoder, pair.cultural, pair.modifiers, pair.nouns_cultural, direction)
        # The stand-in for the modifier: all content of the neutral prompt but the noun.
        context = [(0, pair.nouns_neutral[0][0]), (pair.nouns_neutral[0][1], len(pair.neutral))]
        neutral = plain_ca(encoder, pair.neutral, context, pair.nouns_neutral, direction)
        differences.append([c - n for c, n in zip(cultural, neutral, strict=True)])
    expected = torch.tensor(differences).mean(0)
    torch.testing.assert_close(probe.delta_ca, expected, atol=1e-5, rtol=1e-4)


def test_without_a_reference_the_neutral_side_is_zero(clip, pairs):
    probe = probe_layers(clip, pairs, reference="none", bootstrap=20, patching=False)
    assert not probe.ca_neutral.any()
    assert torch.equal(probe.delta_ca, probe.ca_cultural)


def test_defaults_follow_the_mask(clip, bert, pairs):
    assert probe_layers(clip, pairs[:2], bootstrap=20).direction == "visible"
    assert probe_layers(bert, pairs, bootstrap=20).direction == "modifier_to_noun"


def test_one_pass_sees_all_layers(bert, pairs):
    calls = []
    handle = bert.model.register_forward_hook(lambda *_: calls.append(1))
    probe_layers(bert, pairs, bootstrap=20, batch_size=len(pairs))
    handle.remove()
    # One for the cultural, one for the neutral prompts, and one a layer for the causal curve.
    assert len(calls) == 2 + bert.info.layers


def test_the_causal_curve_is_the_share_of_the_way(bert, pairs):
    probe = probe_layers(bert, pairs, bootstrap=20)
    pair, layer, shares = pairs[0], 1, []
    for pair in pairs:
        cultural, neutral = bert.tokenize([pair.cultural]), bert.tokenize([pair.neutral])
        here, there = neutral.positions(0, pair.nouns_neutral), cultural.positions(0, pair.nouns_cultural)
        with torch.no_grad(), bert.capture([layer], {ATTENTION_OUTPUT}) as captured:
            target = bert.encode(cultural).hidden[0, there]
        taken = captured.attention_output[layer][0, there]

        def put(x, here=here, taken=taken):
            x = x.clone()
            x[0, here] = taken
            return x

        with torch.no_grad():
            start = bert.encode(neutral).hidden[0, here]
            with bert.patch(layer, ATTENTION_OUTPUT, put):
                moved = bert.encode(neutral).hidden[0, here]
        shares.append(1 - ((moved - target).norm() / (start - target).norm()).item())
    assert probe.causal[layer].item() == pytest.approx(sum(shares) / len(shares), abs=1e-5)


def test_patching_the_real_encoder_moves_the_noun_towards_the_cultural_one_most_in_the_last_layer(e5):
    probe = probe_layers(e5, prompt_pairs("train")[5:400:80], bootstrap=20)
    assert probe.causal.min() > 0 and probe.causal.max() < 1
    assert probe.causal.argmax() == e5.info.layers - 1 and probe.causal[-1] > 0.15
    assert probe.reason.startswith(f"layer {probe.layer}:")


def test_prompts_that_are_alike_are_not_moved_at_all(bert, pairs):
    same = [replace(p, neutral=p.cultural, nouns_neutral=p.nouns_cultural) for p in pairs]
    assert not probe_layers(bert, same, bootstrap=20).causal.any()


def test_one_pair_proves_no_peak(bert, pairs):
    probe = probe_layers(bert, pairs[:1], bootstrap=20)
    assert probe.interval.isinf().all() and "patching decides" in probe.reason
    assert probe.layer == probe.causal.argmax()


def test_pairs_without_tokens_of_their_own_are_skipped_by_id(bert, pairs, caplog):
    # Noun and modifier are letters of one token.
    start, end = pairs[0].nouns_cultural[0]
    lost = replace(pairs[0], id="lost", nouns_cultural=((start, start + 2),), modifiers=((start + 2, end),))
    probe = probe_layers(bert, [lost, *pairs], bootstrap=20)
    assert probe.skipped == ("lost",) and probe.pairs == len(pairs) and "1 of 13" in caplog.text
    torch.testing.assert_close(probe.delta_ca, probe_layers(bert, pairs, bootstrap=20).delta_ca)
    with pytest.raises(ValueError, match="no prompt pair could be used"):
        probe_layers(bert, [lost])


def test_hooks_are_gone_afterwards_also_when_cancelled(bert, pairs):
    def cancel(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe_layers(bert, pairs, bootstrap=20, batch_size=2, progress=cancel)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in bert.model.modules())


def test_unusable_requests_are_refused(bert, pairs):
    with pytest.raises(ValueError, match="no prompt pairs"):
        probe_layers(bert, [])
    with pytest.raises(ValueError, match="direction"):
        probe_layers(bert, pairs, "sideways")
    with pytest.raises(ValueError, match="reference"):
        probe_layers(bert, pairs, reference="other")
    with pytest.raises(ValueError, match="criterion"):
        probe_layers(bert, pairs, criterion="best")
    with pytest.raises(ValueError, match="leave patching on"):
        probe_layers(bert, pairs, criterion="causal", patching=False)


@pytest.mark.parametrize("family", ["t5", "umt5", "qwen3", "gemma2", "clip_projection"])
def test_the_causal_curve_equals_whole_encodes_with_the_patch(family_encoder, family, pairs):
    encoder = family_encoder(family)
    probe = probe_layers(encoder, pairs, bootstrap=20, batch_size=5)
    shares = torch.zeros(len(pairs), encoder.info.layers)
    for row, pair in enumerate(pairs):
        cultural, neutral = encoder.tokenize([pair.cultural]), encoder.tokenize([pair.neutral])
        here, there = neutral.positions(0, pair.nouns_neutral), cultural.positions(0, pair.nouns_cultural)
        with torch.no_grad(), encoder.capture(range(encoder.info.layers), {ATTENTION_OUTPUT}) as captured:
            target = encoder.encode(cultural).hidden[0, there]
        for layer in range(encoder.info.layers):
            taken = captured.attention_output[layer][0, there]

            def put(x, here=here, taken=taken):
                return x.index_put((torch.tensor(0), torch.tensor(here)), taken)

            with torch.no_grad():
                start = encoder.encode(neutral).hidden[0, here]
                with encoder.patch(layer, ATTENTION_OUTPUT, put):
                    moved = encoder.encode(neutral).hidden[0, here]
            whole = (start - target).norm()
            # In a causal encoder, a noun before the modifier does not know of it.
            blind = encoder.info.causal and there[0] < cultural.positions(0, pair.modifiers)[0]
            assert blind == (whole < 1e-4)
            shares[row, layer] = 0 if blind else 1 - (moved - target).norm() / whole
    torch.testing.assert_close(probe.causal, shares.mean(0), atol=1e-4, rtol=0)
    assert shares.abs().max() > 0.01


def test_layers_below_the_patch_are_not_run_again(bert, pairs):
    calls = []
    for at, layer in enumerate(bert.layer_modules()):
        layer.intermediate.register_forward_hook(lambda *_, at=at: calls.append(at))
    probe_layers(bert, pairs, bootstrap=20, batch_size=len(pairs))
    assert calls == [0, 1, 0, 1, 0, 1, 1]


def test_a_noun_that_is_cut_otherwise_gets_the_mean_of_its_values(bert, pairs):
    # Two words are the noun in the cultural prompt, one is in the neutral one.
    pair = replace(pairs[0], nouns_cultural=((11, 20),), modifiers=((0, 10),))
    assert len(bert.tokenize([pair.cultural]).positions(0, pair.nouns_cultural)) == 2
    cultural, neutral = bert.tokenize([pair.cultural]), bert.tokenize([pair.neutral])
    here, there = neutral.positions(0, pair.nouns_neutral), cultural.positions(0, pair.nouns_cultural)
    with torch.no_grad(), bert.capture([0], {ATTENTION_OUTPUT}) as captured:
        target = bert.encode(cultural).hidden[0, there].mean(0)
    taken = captured.attention_output[0][0, there].mean(0)
    with torch.no_grad():
        start = bert.encode(neutral).hidden[0, here[0]]
        with bert.patch(
            0, ATTENTION_OUTPUT, lambda x: x.index_put((torch.tensor(0), torch.tensor(here)), taken)
        ):
            moved = bert.encode(neutral).hidden[0, here[0]]
    expected = 1 - ((moved - target).norm() / (start - target).norm()).item()
    assert probe_layers(bert, [pair], bootstrap=20).causal[0].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["bert", "clip"])
def test_the_batch_size_changes_nothing(request, name, pairs):
    encoder = request.getfixturevalue(name)
    whole, cut = (probe_layers(encoder, pairs, bootstrap=20, batch_size=size) for size in (12, 5))
    for field in ("ca_cultural", "ca_neutral", "interval", "causal"):
        torch.testing.assert_close(getattr(whole, field), getattr(cut, field), atol=1e-5, rtol=1e-4)


def test_each_language_has_the_probe_of_its_own_pairs(bert, pairs):
    mixed = [replace(pair, language="it" if row % 3 else "ja") for row, pair in enumerate(pairs)]
    start, end = mixed[0].nouns_cultural[0]
    lost = replace(mixed[0], id="lost", nouns_cultural=((start, start + 2),), modifiers=((start + 2, end),))
    probes = probe_by_language(bert, [lost, *mixed], bootstrap=20, batch_size=4)
    assert list(probes.languages) == ["it", "ja"]
    assert probes.overall.skipped == probes.languages["ja"].skipped == ("lost",)
    assert probes.languages["it"].skipped == ()
    for language, found in probes.languages.items():
        expected = probe_layers(bert, [p for p in mixed if p.language == language], bootstrap=20)
        assert found.pairs == expected.pairs
        torch.testing.assert_close(found.interval, expected.interval, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.causal, expected.causal, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        probes.overall.delta_ca, probe_layers(bert, mixed, bootstrap=20).delta_ca, atol=1e-6, rtol=1e-5
    )


def test_attention_alone_needs_two_encodes(bert, pairs):
    calls = []
    handle = bert.model.register_forward_hook(lambda *_: calls.append(1))
    probe = probe_layers(bert, pairs, bootstrap=20, patching=False)
    handle.remove()
    assert len(calls) == 2
    assert probe.causal.isnan().all() and probe.layer_causal is None
    whole = probe_layers(bert, pairs, bootstrap=20)
    assert torch.equal(probe.delta_ca, whole.delta_ca) and whole.layer_causal == whole.causal.argmax()


def test_the_criterion_chooses_the_layer(e5):
    chosen = prompt_pairs("train")[5:400:40]
    by_patching = probe_layers(e5, chosen, bootstrap=200, criterion="causal")
    by_attention = probe_layers(e5, chosen, bootstrap=200, criterion="attention")
    assert by_patching.layer == by_patching.layer_causal == 11
    assert by_attention.layer == by_attention.layer_attention != 11
    assert by_attention.criterion == "attention" and "names layer 11 instead" in by_attention.reason


def test_work_can_be_stopped_within_a_batch(bert, pairs):
    seen = []
    probe_layers(bert, pairs, bootstrap=20, batch_size=8, progress=lambda *numbers: seen.append(numbers))
    # Two encodes and one a layer for each of the two batches, and its end.
    assert len(seen) == 2 * (2 + bert.info.layers + 1)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (12, 12) and {total for _, total in seen} == {12}


def test_what_an_encoder_computes_at_padding_does_not_matter(bert, pairs):
    """Some of ComfyUI's encoders pad on the left and give NaN there."""
    mixed = [pairs[0], replace(pairs[1], nouns_cultural=((0, 9),), modifiers=((13, 23),)), *pairs[2:]]
    expected = probe_layers(bert, mixed, bootstrap=20)

    def spoil(x):
        return x.index_fill(1, torch.tensor(0), torch.nan) if spoiling else x

    spoiling = False
    with bert.patch(1, HIDDEN_STATE, spoil):
        assert torch.equal(probe_layers(bert, mixed, bootstrap=20).causal, expected.causal)
        spoiling = True
        probe = probe_layers(bert, mixed, bootstrap=20)
    assert torch.equal(probe.causal, expected.causal) and torch.equal(probe.delta_ca, expected.delta_ca)
