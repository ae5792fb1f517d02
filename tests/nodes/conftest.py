"""What the tests of the nodes share."""

from pathlib import Path
from typing import Any

import folder_paths
import pytest


@pytest.fixture(scope="session")
def plain_clip(node_classes: dict[str, type]) -> Any:
    return node_classes["CultureLoadTextEncoder"].execute("multilingual-e5-small")[0]


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's output folder, an empty one."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    return tmp_path / "output"
