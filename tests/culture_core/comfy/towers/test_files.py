"""Published folders and files: whole, in parts, or refused with what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from culture_core.comfy import TextEncoderError
from culture_core.comfy.towers import read_published

Publish = Callable[..., Path]


def test_a_folder_in_several_files_is_read_whole(publish: Publish) -> None:
    folder = publish("altclip")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(weights)}
    for file in set(parts.values()):
        save_file({name: weights[name] for name in weights if parts[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    assert read_published(folder).weights.keys() == weights.keys()


def test_several_files_without_a_usual_name_are_refused(publish: Publish) -> None:
    folder = publish("altclip")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    assert read_published(folder).weights
    (folder / "b.safetensors").write_bytes((folder / "a.safetensors").read_bytes())
    with pytest.raises(TextEncoderError, match=r"several files .*\(a\.safetensors, b\.safetensors\)"):
        read_published(folder)


def test_a_pickle_is_not_opened_but_explained(publish: Publish, tmp_path: Path) -> None:
    folder = publish("altclip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(TextEncoderError, match=r"lacks model\.safetensors.*pickle.*weights_only=True"):
        read_published(folder)
    with pytest.raises(TextEncoderError, match="no safetensors file: .*pickle"):
        read_published(folder / "pytorch_model.bin")
