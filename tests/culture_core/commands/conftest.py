"""What the commands are run on."""

import json
from pathlib import Path

import pytest

from culture_core.embedded_encoder import ensure_encoder

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(scope="session")
def e5_folder() -> Path:
    return ensure_encoder(MODELS / "text_encoders" / "multilingual-e5-small")


@pytest.fixture
def few_pairs(tmp_path: Path) -> Path:
    """Four prompt pairs of each of two cultures."""
    lines = (MODELS / "culture_pairs" / "miniature.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = [[line for line in lines if json.loads(line)["culture"] == code][:4] for code in ("fr", "ja")]
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(line for own in chosen for line in own), encoding="utf-8")
    return path
