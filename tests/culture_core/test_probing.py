"""Layer probing against a plain computation, and the rule for the key layer."""

from dataclasses import replace

import pytest
import torch

from culture_core.encoders import ATTENTION_OUTPUT
from culture_core.miniature.captions import prompt_pairs
from culture_core.probing import _bounds, _key_layer, _prominence, _resampled_means, probe_layers


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
    probe = probe_layers(encoder, chosen, direction, batch_size=4, bootstrap=20)
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
    probe = probe_layers(clip, pairs, reference="none", bootstrap=20)
    assert not probe.ca_neutral.any()
    assert torch.equal(probe.delta_ca, probe.ca_cultural)


def test_defaults_follow_the_mask(clip, bert, pairs):
    assert probe_layers(clip, pairs, bootstrap=20).direction == "visible"
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


def test_prominence_is_the_height_above_the_neighbours_one_at_either_end():
    curve = torch.tensor([[3.0, 1.0, 7.0, 2.0]])
    expected = torch.tensor([[3.0 - 1.0, 1.0 - (3.0 + 7.0) / 2, 7.0 - (1.0 + 2.0) / 2, 2.0 - 7.0]])
    torch.testing.assert_close(_prominence(curve), expected)
    assert _prominence(torch.tensor([[4.0]])).item() == 4.0


def test_intervals_are_those_of_the_mean_and_repeat_by_seed():
    values = torch.randn(200, 3, generator=torch.Generator().manual_seed(1)) + torch.tensor([0.0, 2.0, -5.0])
    means = _resampled_means(values, 1000, seed=4)
    interval, error = _bounds(means, 200), 1.96 * values.std(0) / 200**0.5
    expected = torch.stack([values.mean(0) - error, values.mean(0) + error], dim=1)
    torch.testing.assert_close(interval, expected, atol=0.03, rtol=0)
    assert torch.equal(means, _resampled_means(values, 1000, seed=4))
    assert not torch.equal(means, _resampled_means(values, 1000, seed=5))


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


def bounds(*pairs_of_numbers) -> torch.Tensor:
    return torch.tensor(pairs_of_numbers)


def test_the_key_layer_is_the_certain_peak():
    prominence, causal = torch.tensor([0.5, 0.1, 0.3]), torch.tensor([0.0, 0.1, 0.9])
    layer, reason = _key_layer(prominence, bounds((-0.1, 1), (0.05, 0.2), (0.2, 0.4)), causal, 9)
    assert layer == 2 and "agrees" in reason
    layer, reason = _key_layer(prominence, bounds((-0.1, 1), (0.05, 0.2), (0.2, 0.4)), causal.flip(0), 9)
    assert layer == 2 and "names layer 0 instead" in reason


def test_without_a_certain_peak_patching_decides_and_says_so():
    uncertain = bounds((-1, 1), (-1, 1), (-1, 1))
    layer, reason = _key_layer(torch.tensor([0.5, 0.1, 0.3]), uncertain, torch.tensor([0.0, 0.7, 0.2]), 9)
    assert layer == 1 and "patching decides" in reason


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
