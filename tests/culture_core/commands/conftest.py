"""What the commands are run on."""

import json
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture
def few_pairs(tmp_path: Path) -> Path:
    """Four prompt pairs of each of two cultures."""
    lines = (MODELS / "culture_pairs" / "miniature.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = [[line for line in lines if json.loads(line)["culture"] == code][:4] for code in ("fr", "ja")]
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(line for own in chosen for line in own), encoding="utf-8")
    return path
