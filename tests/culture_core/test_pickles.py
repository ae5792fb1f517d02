"""Pickled weights become safetensors, and no code of a pickle runs."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from culture_core.__main__ import main
from culture_core.file_checks import FileError
from culture_core.pickles import convert_pickle, load_pickle


class _Touch:
    """Unpickled without care, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """With two names for one tensor, a view, and a number in half precision."""
    matrix = torch.randn(6, 4)
    return {
        "shared.weight": matrix,
        "encoder.weight": matrix,
        "turned": matrix.T,
        "half": torch.ones(()).half(),
    }


def same(path: Path, wanted: dict[str, torch.Tensor]) -> bool:
    found = load_file(path)
    return found.keys() == wanted.keys() and all(torch.equal(found[n], wanted[n]) for n in wanted)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "module"])
def test_tensors_stay_bit_for_bit(weights: dict, wrapper: str | None, legacy: bool, tmp_path: Path) -> None:
    content = weights if wrapper is None else {wrapper: weights, "epoch": 3}
    torch.save(content, tmp_path / "a.bin", _use_new_zipfile_serialization=not legacy)
    assert convert_pickle(tmp_path / "a.bin", tmp_path / "a.safetensors") == (4, [])
    assert same(tmp_path / "a.safetensors", weights)


def test_the_parts_of_a_folder_become_one_file(weights: dict, tmp_path: Path) -> None:
    parts = {name: f"pytorch_model-{1 + number % 2}.bin" for number, name in enumerate(weights)}
    for file in set(parts.values()):
        torch.save({name: weights[name] for name in weights if parts[name] == file}, tmp_path / file)
    with pytest.raises(FileError, match=r"expected one file .* found pytorch_model-1\.bin, pytorch_model-2"):
        convert_pickle(tmp_path, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": parts}))
    convert_pickle(tmp_path, tmp_path / "model.safetensors")
    assert same(tmp_path / "model.safetensors", weights)


def test_what_is_no_tensor_is_left_out_and_named(weights: dict, tmp_path: Path) -> None:
    much = torch.zeros(1).expand(1 << 20, 1 << 15)  # claims 128 GiB
    torch.save(weights | {"epoch": 3, "much": much}, tmp_path / "a.pt")
    assert convert_pickle(tmp_path / "a.pt", tmp_path / "a.safetensors").left_out == ["epoch", "much"]
    assert same(tmp_path / "a.safetensors", weights)


def test_no_code_of_a_pickle_runs(tmp_path: Path) -> None:
    path, trace = tmp_path / "a.bin", tmp_path / "trace"
    torch.save({"weight": _Touch(trace)}, path)
    torch.load(path, weights_only=False)
    assert trace.exists()
    trace.unlink()
    for write in (lambda: torch.save({"w": _Touch(trace)}, path), lambda: path.write_bytes(plain(trace))):
        write()
        with pytest.raises(FileError, match="no file of plain tensors"):
            convert_pickle(path, tmp_path / "a.safetensors")
    assert not trace.exists() and not (tmp_path / "a.safetensors").exists()


def plain(trace: Path) -> bytes:
    return pickle.dumps(_Touch(trace))


@pytest.mark.parametrize("content", [b"", b"nonsense", [1], {1: torch.zeros(2)}, torch.zeros(2)])
def test_other_files_are_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(FileError, match=r"a\.bin: (is no file of plain|holds no) tensors"):
        load_pickle(path)


def test_the_command_writes_what_a_module_can_load(
    tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    layer = nn.Linear(3, 2)
    torch.save(layer.state_dict(), tmp_path / "proj.bin")
    output = tmp_path / "proj.safetensors"
    command = ["convert", str(tmp_path / "proj.bin"), "--to", "safetensors", "--output", str(output)]
    assert main(command) == 0 and "2 tensors" in capsys.readouterr().out
    nn.Linear(3, 2).load_state_dict(load_file(output))
    assert main(command) == 1 and "--overwrite" in caplog.text
    assert main([*command[:-1], str(tmp_path / "proj.bin")]) == 1 and ".safetensors" in caplog.text
    assert main(["convert", str(tmp_path / "none.bin"), *command[2:], "--overwrite"]) == 1
    assert "none.bin is not there" in caplog.text
