"""Warnings about strengths come from what the file says was measured, and from nothing else."""

import logging
from pathlib import Path

import pytest

from culture_core.files import CultureSAE, Strengths
from culture_core.sae import TopKSAE
from culture_core.strength_warnings import strength_warnings

MEASURED = {"ja": Strengths(1.5, 2.3), "xx": Strengths(1.0, 1.0)}


def file(**changes: object) -> CultureSAE:
    return CultureSAE(TopKSAE(8, 16, 2), 0, "hidden_state", {}, strengths=MEASURED, **changes)


@pytest.mark.parametrize("strength", [-1.0, 0.0, 1.5, 2.3])
def test_up_to_the_limit_nothing_is_said(strength, caplog):
    assert strength_warnings(file(), "ja", [strength], "inject") == [] and not caplog.records


def test_beyond_the_limit_the_figures_are_told_and_logged(caplog):
    with caplog.at_level(logging.WARNING):
        (text,) = strength_warnings(file(path=Path("packs/mine.safetensors")), "ja", [6.0], "inject")
    assert text.startswith("Strength 6 is beyond 2.3, the limit measured for Japanese in mine.safetensors")
    assert text.endswith("best at 1.5.") and caplog.messages == [text]


def test_of_a_schedule_the_highest_strength_counts():
    (text,) = strength_warnings(file(), "ja", [0.0, 4.0, 3.0], "inject")
    assert text.startswith("Strength 4 is beyond 2.3, the limit measured for Japanese: ")


def test_a_culture_that_the_pack_does_not_know_goes_by_its_code():
    assert "measured for xx:" in strength_warnings(file(), "xx", [2.0], "inject")[0]


def test_without_figures_for_the_culture_or_the_mode_nothing_is_said():
    assert strength_warnings(file(), "de", [12.0], "inject") == []
    assert strength_warnings(file(), "ja", [12.0], "scale") == []
