"""Files that the saving nodes write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import folder_paths
import pytest
import torch

from culture_core.files import load_culture_sae, load_enhancer
from culture_core.previews import decode_preview


@pytest.fixture
def sae(node_classes: dict[str, type]) -> Any:
    return node_classes["CultureLoadSAE"].execute("miniature.safetensors")[0]


@pytest.fixture
def save(node_classes: dict[str, type], sae: Any, output: Path) -> Callable[..., Path]:
    def run(prefix: str = "mine", author: str = "", licence: str = "", description: str = "") -> Path:
        with torch.inference_mode():
            return Path(
                node_classes["CultureSaveSAE"].execute(sae, prefix, author, licence, description).args[0]
            )

    return run


def test_a_saved_sae_reads_back_as_it_was(save: Callable[..., Path], sae: Any, output: Path) -> None:
    path = save()
    assert path == output / "culture_sae" / "mine_00001_.safetensors"
    again = load_culture_sae(path)
    assert (again.author, again.licence, again.description) == (sae.author, sae.licence, sae.description)
    assert set(again.cultures) == set(sae.cultures) and again.training == sae.training
    for name, weight in sae.sae.state_dict().items():
        assert torch.equal(weight, again.sae.state_dict()[name])


def test_a_saved_enhancer_reads_back_as_it_was(node_classes: dict[str, type], output: Path) -> None:
    enhancer = node_classes["CultureLoadEnhancer"].execute("miniature.safetensors")[0]
    result = node_classes["CultureSaveEnhancer"].execute(enhancer, "a/b", "", "CC0", "")
    path = Path(result.args[0])
    assert path == output / "culture_enhancer" / "a" / "b_00001_.safetensors"
    assert result.ui.as_dict() == {"text": (str(path),)}
    again = load_enhancer(path)
    assert again.licence == "CC0" and again.layer == enhancer.layer
    for name, weight in enhancer.enhancer.state_dict().items():
        assert torch.equal(weight, again.enhancer.state_dict()[name])


def test_nothing_is_overwritten(save: Callable[..., Path]) -> None:
    first = save(description="first")
    content = first.read_bytes()
    assert [save().name for _ in range(2)] == ["mine_00002_.safetensors", "mine_00003_.safetensors"]
    assert first.read_bytes() == content
    first.unlink()
    assert save().name == "mine_00004_.safetensors"


def test_signing_changes_the_file_and_not_the_object(save: Callable[..., Path], sae: Any) -> None:
    before = replace(sae)
    signed = load_culture_sae(save("mine", " Ada ", "CC-BY-4.0", "Für 日本\n2 lines"))
    assert (signed.author, signed.licence, signed.description) == ("Ada", "CC-BY-4.0", "Für 日本\n2 lines")
    assert sae == before and sae.author != "Ada"


def test_a_preview_is_kept_in_the_file_and_stays_there(
    node_classes: dict[str, type], sae: Any, output: Path
) -> None:
    save = node_classes["CultureSaveSAE"].execute
    red, green = torch.zeros(2, 24, 32, 3).unbind()
    red[..., 0], green[..., 1] = 1, 1
    first = load_culture_sae(save(sae, "mine", "", "", "", torch.stack([red, green])).args[0])
    sheet = decode_preview(first.preview)
    assert sheet.width > 64 and sheet.height >= 24
    row = [sheet.getpixel((x, sheet.height // 2)) for x in range(sheet.width)]
    colours = {tuple(value > 200 for value in pixel) for pixel in row}
    assert {(True, False, False), (False, True, False)} <= colours
    assert not sae.preview
    again = load_culture_sae(save(replace(sae, preview=first.preview), "again", "", "", "").args[0])
    assert again.preview == first.preview


def test_dates_are_filled_in(save: Callable[..., Path]) -> None:
    assert save("%year%/x").parent.name == str(time.localtime().tm_year)


@pytest.mark.parametrize(
    "prefix",
    [
        "../x",
        "a/../../x",
        "..\\x",
        "/tmp/x",
        "C:\\x",
        "C:x",
        "\\\\server\\x",
        "..",
        "",
        " ",
        "a/",
        ".",
        "a\0b",
    ],
)
def test_a_prefix_that_leads_away_or_is_no_name_writes_nothing(
    prefix: str, save: Callable[..., Path], output: Path
) -> None:
    with pytest.raises(ValueError, match="filename prefix .* stays inside the output folder"):
        save(prefix)
    assert not output.exists()


@pytest.mark.parametrize(
    ("kind", "loader"), [("culture_sae", "CultureLoadSAE"), ("culture_enhancer", "CultureLoadEnhancer")]
)
def test_the_loader_lists_what_was_saved(
    kind: str, loader: str, node_classes: dict[str, type], pack: ModuleType, output: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", dict(folder_paths.folder_names_and_paths))
    asyncio.run(pack.comfy_entrypoint())
    (output / kind / "mine").mkdir(parents=True)
    (output / kind / "mine" / "one_00001_.safetensors").touch()
    _, options = node_classes[loader].INPUT_TYPES()["required"]["file"]
    assert str(Path("mine") / "one_00001_.safetensors") in options["options"]


def test_unfinished_trainings_are_not_listed(output: Path, node_classes: dict[str, type]) -> None:
    (output / "culture_checkpoints").mkdir(parents=True)
    (output / "culture_checkpoints" / "half.safetensors").touch()
    _, options = node_classes["CultureLoadSAE"].INPUT_TYPES()["required"]["file"]
    assert not any("half" in name for name in options["options"])


def test_no_file_is_written_through_a_link_out_of_the_folder(output: Path, tmp_path: Path) -> None:
    from culture_core.comfy import save_to_output
    from culture_core.enhancer import LayerEnhancer
    from culture_core.files import EnhancerFile

    (tmp_path / "elsewhere").mkdir()
    (output / "culture_enhancer").mkdir(parents=True)
    (output / "culture_enhancer" / "link").symlink_to(tmp_path / "elsewhere")
    encoder = {"family": "bert", "layers": 2, "width": 4, "heads": 2, "vocabulary": 9, "weights": [0.5]}
    with pytest.raises(ValueError, match="is a link out of"):
        save_to_output(EnhancerFile(LayerEnhancer(4, 2), 0, encoder), "link/x")
    assert not list((tmp_path / "elsewhere").iterdir())
