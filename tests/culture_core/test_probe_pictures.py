"""Pictures of probes by language."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from culture_core.probe_pictures import attention_map, causal_curves, language_curves
from culture_core.probing import probe_by_language


@pytest.fixture
def probes(bert, pairs) -> dict:
    mixed = [replace(pair, language=("it", "ja", "th")[row % 3]) for row, pair in enumerate(pairs)]
    return probe_by_language(bert, mixed, bootstrap=50).languages


@pytest.mark.parametrize("draw", [language_curves, causal_curves, attention_map])
def test_pictures_show_every_language_and_follow_the_numbers(probes, draw):
    whole, fewer = draw(probes), draw({code: probes[code] for code in ("it", "ja")})
    assert whole.size > fewer.size, "a language more takes more room"
    changed = probes["th"]._replace(
        delta_ca=probes["th"].delta_ca.flip(0), causal=probes["th"].causal.flip(0),
        ca_cultural=probes["th"].ca_cultural.flip(0),
    )  # fmt: skip
    other = draw({**probes, "th": changed})
    different = (np.asarray(whole) != np.asarray(other)).any(axis=2)
    rows, columns = different.nonzero()
    # Only the last language's part changes: the last column of curves, the last row of the map.
    last = rows.min() / whole.height if draw is attention_map else columns.min() / whole.width
    assert last > 0.6
    assert draw(probes, {"it": "Italian"}).tobytes() != whole.tobytes()


def test_one_scale_for_all(probes):
    higher = {**probes, "th": probes["th"]._replace(delta_ca=probes["th"].delta_ca + 5)}
    before, after = language_curves(probes), language_curves(higher)
    first = (0, 0, before.width // 3, before.height)
    assert before.crop(first).tobytes() != after.crop(first).tobytes()


def test_a_single_pair_without_an_interval_is_drawn(bert, pairs):
    probes = probe_by_language(bert, pairs[:1], bootstrap=5).languages
    assert torch.isinf(probes["en"].interval).all()
    assert language_curves(probes).getcolors(1 << 20)


def test_what_is_not_there_is_not_drawn(bert, pairs, probes):
    for draw in (language_curves, causal_curves, attention_map):
        with pytest.raises(ValueError, match="no language"):
            draw({})
    without = probe_by_language(bert, pairs, bootstrap=5, patching=False).languages
    with pytest.raises(ValueError, match="with patching"):
        causal_curves(without)
