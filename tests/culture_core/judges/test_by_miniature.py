"""The miniature's CNN as a judge."""

import numpy as np
import pytest
import torch
from PIL import Image

from culture_core.cultures import CULTURES
from culture_core.judges import UNRECOGNISABLE, open_judge
from culture_core.judges.by_miniature import MiniatureJudge
from culture_core.miniature.judge import load_judge
from culture_core.miniature.logs import MODELS

from .conftest import drawn


@pytest.fixture(scope="module")
def judge() -> MiniatureJudge:
    return open_judge("miniature")


def test_it_names_the_cultures_of_the_miniatures_drawings(judge):
    assert [judge.judge(drawn(code)).label for code in CULTURES] == list(CULTURES)
    assert judge.judge(drawn(None)).label == UNRECOGNISABLE


def test_its_shares_are_those_of_the_network(judge):
    verdict = judge.judge(drawn("th"))
    pixels = torch.tensor(np.asarray(drawn("th")) / 255.0, dtype=torch.float32).permute(2, 0, 1)[None]
    expected = load_judge(MODELS / "judge" / "miniature_judge.safetensors")(pixels)[0].softmax(1)[0]
    assert list(verdict.shares.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert sum(verdict.shares.values()) == pytest.approx(1, abs=1e-5) and verdict.flipped is None


def test_pictures_of_other_sizes_and_modes_are_judged(judge):
    large = drawn("ja").resize((256, 256), Image.Resampling.NEAREST)
    assert judge.judge(large).shares == pytest.approx(judge.judge(drawn("ja")).shares, abs=1e-5)
    assert judge.judge(drawn("ja").convert("RGBA")).label == "ja"
