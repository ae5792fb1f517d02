"""Published folders and files: whole, in parts, or refused with what to do."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from culture_core.__main__ import main
from culture_core.comfy import TextEncoderError
from culture_core.comfy.towers import read_published, state_of

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


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_not_opened_but_the_command_that_the_error_names_converts_it(
    legacy: bool, publish: Publish
) -> None:
    folder = publish("altclip")
    wanted = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(wanted, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    for chosen, written in ((folder, "model"), (folder / "pytorch_model.bin", "pytorch_model")):
        with pytest.raises(TextEncoderError, match=r"Pickles .* none is read here") as caught:
            read_published(chosen)
        assert chosen.is_file() or "lacks model.safetensors" in str(caught.value)
        command = str(caught.value).partition("python -m culture_core ")[2]
        assert main(shlex.split(command)) == 0
        output = folder / f"{written}.safetensors"
        found = read_published(output).weights
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], weight) for name, weight in wanted.items())
        output.rename(folder / "kept") if written == "model" else None


def test_the_state_follows_weights_configuration_and_tokenizer(publish: Publish) -> None:
    folder = publish("altclip")
    single = folder.with_suffix(".safetensors")
    (folder / "model.safetensors").rename(single)
    assert state_of(single) == state_of(single) != state_of(folder)
    for file in (single, folder / "config.json", next(folder.glob("*.model"))):
        before = state_of(single)
        file.write_bytes(file.read_bytes() + b" ")
        assert state_of(single) != before
