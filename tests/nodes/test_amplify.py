"""The amplifier's nodes without a server."""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import folder_paths
import pytest
import torch


@pytest.fixture
def amplify(node_classes: dict[str, type]) -> ModuleType:
    return importlib.import_module("comfyui_culture.nodes.amplify")


@pytest.mark.parametrize("choice", ["Japanese (ja)", "Japanese", "ja"])
def test_a_culture_is_known_by_label_name_and_code(amplify: ModuleType, choice: str) -> None:
    assert amplify.culture_or_none(choice) == "ja"
    assert amplify.CultureAmplifyNeurons.validate_inputs(choice) is True


def test_an_unknown_culture_is_explained_before_the_graph_runs(amplify: ModuleType) -> None:
    message = amplify.CultureAmplifyNeurons.validate_inputs("Atlantean")
    assert "Atlantean" in message and "French (fr)" in message


def test_the_fifteen_cultures_are_offered_by_name(amplify: ModuleType) -> None:
    _, options = amplify.CultureAmplifyNeurons.INPUT_TYPES()["required"]["culture"]
    assert len(options["options"]) >= 15 and "Japanese (ja)" in options["options"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    registry = {**folder_paths.folder_names_and_paths, "culture_sae": ([str(tmp_path)], {".safetensors"})}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", registry)
    path = tmp_path / "one.safetensors"
    path.write_bytes(b"1")
    return path


def test_the_combo_lists_the_files_of_the_folder(amplify: ModuleType, file: Path) -> None:
    (file.parent / "notes.txt").write_text("no model")
    _, options = amplify.CultureLoadSAE.INPUT_TYPES()["required"]["file"]
    assert options["options"] == ["one.safetensors"]


def test_the_cache_key_follows_the_files_time_and_size(amplify: ModuleType, file: Path) -> None:
    keys = [amplify.CultureLoadSAE.fingerprint_inputs(file=file.name)]
    os.utime(file, ns=(1, 1))
    keys.append(amplify.CultureLoadSAE.fingerprint_inputs(file=file.name))
    file.write_bytes(b"12")
    os.utime(file, ns=(1, 1))
    keys.append(amplify.CultureLoadSAE.fingerprint_inputs(file=file.name))
    assert len(set(keys)) == 3


def test_a_file_that_is_gone_says_where_to_put_it(amplify: ModuleType, file: Path) -> None:
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"one\.safetensors.*put it into"):
        amplify.CultureLoadSAE.execute(file=file.name)


@pytest.mark.parametrize(
    ("culture", "schedule", "message"),
    [("xx", "0: 1", "Unknown culture 'xx'"), ("ja", "0.5: 1", "must begin"), ("ja", "0: 99", "out of range")],
)
def test_a_schedule_is_checked_before_the_graph_runs(
    amplify: ModuleType, culture: str, schedule: str, message: str
) -> None:
    answer = amplify.CultureEncodeSchedule.validate_inputs(culture=culture, schedule=schedule)
    assert isinstance(answer, str) and message in answer


def test_what_comes_from_another_node_is_checked_when_it_is_there(amplify: ModuleType) -> None:
    assert amplify.CultureAmplifyNeurons.validate_inputs() is True
    assert amplify.CultureEncodeSchedule.validate_inputs() is True


def test_a_schedule_gives_each_part_of_the_run_the_conditioning_of_its_strength(
    amplify: ModuleType, plain_clip: Any
) -> None:
    sae = amplify.CultureLoadSAE.execute("miniature.safetensors").args[0]
    how = ("inject", "content", "")
    with torch.inference_mode():
        conditioning = amplify.CultureEncodeSchedule.execute(
            plain_clip, sae, "eine Teekanne", "Japanese (ja)", "0: 3, 0.5: 0", 0, *how
        ).args[0]
        for (hidden, options), strength, start in zip(conditioning, (3.0, 0.0), (0.0, 0.5), strict=True):
            clip = amplify.CultureAmplifyNeurons.execute(plain_clip, sae, "ja", strength, *how).args[0]
            expected = clip.encode_from_tokens(clip.tokenize("eine Teekanne"))
            assert torch.equal(hidden, expected) and options["start_percent"] == start
        ramped = amplify.CultureEncodeSchedule.execute(
            plain_clip, sae, "eine Teekanne", "ja", "0: 3, 0.5: 0", 3, *how
        ).args[0]
    assert len(ramped) == 4 and not torch.equal(conditioning[0][0], conditioning[1][0])
