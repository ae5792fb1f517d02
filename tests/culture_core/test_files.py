"""Culture SAE and enhancer files: what is written comes back, and nothing bad is read."""

import base64
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from culture_core import checkpoints
from culture_core.enhancer import LayerEnhancer
from culture_core.files import (
    CultureSAE,
    EnhancerFile,
    FileError,
    Strengths,
    check_encoder,
    load_culture_sae,
    load_enhancer,
    save_culture_sae,
    save_enhancer,
)
from culture_core.neuron_figures import Curve, Selection, Trial
from culture_core.neurons import CultureNeurons
from culture_core.previews import encode_preview
from culture_core.sae import TopKSAE

FINGERPRINT = {
    "family": "bert", "layers": 12, "width": 8, "heads": 2, "vocabulary": 100, "weights": [0.1, -0.2, 0.3],
}  # fmt: skip


def culture_sae() -> CultureSAE:
    neurons = CultureNeurons(torch.tensor([5, 1]), *(torch.rand(2) for _ in range(4)))
    return CultureSAE(
        TopKSAE(8, 32, 4, seed=1), 11, "hidden_state", FINGERPRINT, {"th": neurons},
        strengths={"th": Strengths(1.5, 3.0)}, training={"seed": 1},
        licence="MIT", author="us", description="ไทย",
    )  # fmt: skip


SELECTION = Selection(
    "effect", "specificity", "maximum", 0.5, 20, 8, 12, 2, (50, 45), (1.5, 0.25), (1.5, 0.25, 0.125),
    Curve((5, 1, 9), (2.0, 1.0, 0.5), (0.0, 0.125, 0.5)), {"th": 1.0}, "share",
    (Trial("elbow", "maximum", 2, {"share": 0.5}),),
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_culture_sae(culture_sae(), tmp_path / "thai.safetensors")


def rewrite(path: Path, tensors: dict | None = None, metadata: dict | None = None, drop: tuple = ()) -> Path:
    """The file with some tensors or metadata replaced or dropped."""
    with safe_open(path, "pt") as file:
        told = file.metadata()
    content = {k: v for k, v in {**load_file(path), **(tensors or {})}.items() if k not in drop}
    save_file(content, path, {k: v for k, v in {**told, **(metadata or {})}.items() if k not in drop})
    return path


def test_a_culture_sae_comes_back_bit_for_bit(path):
    torch.manual_seed(0)
    again, wanted = load_culture_sae(path), culture_sae()
    for name, tensor in wanted.sae.state_dict().items():
        assert torch.equal(again.sae.state_dict()[name], tensor), name
    assert again.sae.k == 4 and again.layer == 11 and again.feature == "hidden_state"
    assert again.encoder == FINGERPRINT and again.strengths == wanted.strengths
    assert (again.licence, again.author, again.description) == ("MIT", "us", "ไทย")
    assert again.cultures["th"].indices.tolist() == [5, 1] and again.path == path


def test_an_enhancer_comes_back_bit_for_bit(tmp_path):
    enhancer = LayerEnhancer(8, 3)
    torch.nn.init.normal_(enhancer.gain)
    path = save_enhancer(EnhancerFile(enhancer, 4, FINGERPRINT), tmp_path / "e.safetensors")
    again = load_enhancer(path)
    assert again.layer == 4
    for name, tensor in enhancer.state_dict().items():
        assert torch.equal(again.enhancer.state_dict()[name], tensor), name


def test_a_preview_comes_back_bit_for_bit_and_stands_where_other_programs_look(tmp_path):
    preview = encode_preview(Image.linear_gradient("L"))
    sae = save_culture_sae(replace(culture_sae(), preview=preview), tmp_path / "s.safetensors")
    enhancer = EnhancerFile(LayerEnhancer(8, 3), 4, FINGERPRINT, preview=preview)
    saved = save_enhancer(enhancer, tmp_path / "e.safetensors")
    assert load_culture_sae(sae).preview == load_enhancer(saved).preview == preview
    with safe_open(sae, "pt") as file:
        kind, _, data = file.metadata()["modelspec.thumbnail"].partition(",")
    assert kind == "data:image/jpeg;base64" and base64.b64decode(data) == preview


def test_a_preview_that_could_not_be_read_is_not_written(tmp_path):
    with pytest.raises(FileError, match="preview is no JPEG.*nothing was written"):
        save_culture_sae(replace(culture_sae(), preview=b"<script>"), tmp_path / "s.safetensors")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(path):
    before = path.read_bytes()
    with pytest.raises(FileError, match="there already"):
        save_culture_sae(culture_sae(), path)
    assert path.read_bytes() == before
    save_culture_sae(culture_sae(), path, overwrite=True)


def test_a_failing_save_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "replace", full)
    with pytest.raises(FileError, match="No space left"):
        save_culture_sae(culture_sae(), path, overwrite=True)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_an_unknown_culture_is_answered_with_the_known_ones(path):
    with pytest.raises(FileError, match=r"thai\.safetensors.*'xx'.*th"):
        load_culture_sae(path).neurons("xx")


def nan_weights(path: Path) -> None:
    rewrite(path, {"W_dec": torch.full((32, 8), float("nan"))})


def enhancer_instead(path: Path) -> None:
    save_enhancer(EnhancerFile(LayerEnhancer(8, 3), 4, FINGERPRINT), path, overwrite=True)


NO_PICTURE = "data:image/jpeg;base64,PHNjcmlwdD4="
TOO_WIDE = {**FINGERPRINT, "width": 1e9}
BAD = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "corrupt header": lambda path: path.write_bytes(path.read_bytes()[:8] + b"\xff" * 4000),
    "random bytes": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "an enhancer": enhancer_instead,
    "no metadata": lambda path: save_file({"x": torch.ones(1)}, path),
    "newer": lambda path: rewrite(path, metadata={"format_version": "99"}),
    "version no number": lambda path: rewrite(path, metadata={"format_version": "new"}),
    "NaN": nan_weights,
    "index beyond": lambda path: rewrite(path, {"culture.th.neurons": torch.tensor([5, 32])}),
    "index below": lambda path: rewrite(path, {"culture.th.neurons": torch.tensor([5, -1])}),
    "index twice": lambda path: rewrite(path, {"culture.th.neurons": torch.tensor([5, 5])}),
    "tensor missing": lambda path: rewrite(path, drop=("b_enc",)),
    "tensor too many": lambda path: rewrite(path, {"virus": torch.ones(1)}),
    "wrong shape": lambda path: rewrite(path, {"b_enc": torch.zeros(31)}),
    "wrong type": lambda path: rewrite(path, {"b_enc": torch.zeros(32, dtype=torch.int32)}),
    "scale zero": lambda path: rewrite(path, {"scale": torch.tensor(0.0)}),
    "k too large": lambda path: rewrite(path, metadata={"k": "33"}),
    "layer beyond": lambda path: rewrite(path, metadata={"layer": "12"}),
    "feature unknown": lambda path: rewrite(path, metadata={"feature": "logits"}),
    "encoder no JSON": lambda path: rewrite(path, metadata={"encoder": "{"}),
    "encoder a list": lambda path: rewrite(path, metadata={"encoder": "[1]"}),
    "encoder too large": lambda path: rewrite(path, metadata={"encoder": json.dumps(TOO_WIDE)}),
    "encoder missing": lambda path: rewrite(path, drop=("encoder",)),
    "preview a link": lambda path: rewrite(path, metadata={"modelspec.thumbnail": "https://example.com/a.jpg"}),
    "preview no picture": lambda path: rewrite(path, metadata={"modelspec.thumbnail": NO_PICTURE}),
    "culture code": lambda path: rewrite(path, metadata={"cultures": json.dumps({"../x": {"name": "x"}})}),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_by_name(path, case):
    BAD[case](path)
    with pytest.raises(FileError, match=r"thai\.safetensors") as raised:
        load_culture_sae(path)
    assert len(str(raised.value)) > len(str(path)) + 20


def test_a_newer_version_says_to_update(path):
    rewrite(path, metadata={"format_version": "2"})
    with pytest.raises(FileError, match="[Uu]pdate"):
        load_culture_sae(path)


def test_the_other_kind_is_called_by_its_name(path):
    with pytest.raises(FileError, match="culture SAE"):
        load_enhancer(path)


def test_another_encoder_is_refused_and_a_fine_tune_is_warned_about(caplog):
    assert check_encoder(FINGERPRINT, FINGERPRINT)
    with pytest.raises(FileError, match="layers 12, not 24"):
        check_encoder(FINGERPRINT, FINGERPRINT | {"layers": 24}, Path("a.safetensors"))
    with caplog.at_level(logging.WARNING):
        assert not check_encoder(
            FINGERPRINT, FINGERPRINT | {"weights": [0.1, -0.2, 0.9]}, Path("a.safetensors")
        )
    assert "a.safetensors" in caplog.text


def test_the_neurons_figures_come_back_bit_for_bit(path):
    torch.manual_seed(0)
    wanted = culture_sae().cultures["th"]
    found = load_culture_sae(path).cultures["th"]
    for name in CultureNeurons._fields:
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


ADVICE = {
    "missing": "look at the name",
    "truncated": "get the file again",
    "corrupt header": "get the file again",
    "random bytes": "get the file again",
    "an enhancer": "is a layer enhancer, not a culture SAE; choose a file of the right kind",
    "no metadata": "choose a file of the right kind",
    "newer": "update the pack",
    "NaN": "'W_dec' holds NaN.*get the file again",
    "index beyond": "from 0 to 31; get the file again",
    "index twice": "different numbers.*get the file again",
    "tensor missing": "'b_enc'.*get the file again",
    "wrong shape": "'b_enc' is .31,.*get the file again",
    "wrong type": "int32.*get the file again",
    "encoder missing": "'encoder' is missing.*get the file again",
}


@pytest.mark.parametrize("case", ADVICE)
def test_a_refusal_names_the_fault_and_the_way_out(path, case):
    BAD[case](path)
    with pytest.raises(FileError, match=f"(?s){ADVICE[case]}"):
        load_culture_sae(path)


@pytest.mark.parametrize("figure", ["mean_activation", "frequency", "wfs_cultural", "wfs_neutral"])
def test_a_figure_of_a_neuron_that_is_no_number_is_refused(path, figure):
    rewrite(path, {f"culture.th.{figure}": torch.tensor([0.5, float("nan")])})
    with pytest.raises(FileError, match=figure):
        load_culture_sae(path)


@pytest.mark.parametrize("case", ["truncated", "random bytes", "no metadata"])
def test_a_bad_enhancer_is_refused_by_name(tmp_path, case):
    enhancer = EnhancerFile(LayerEnhancer(8, 3), 4, FINGERPRINT)
    path = save_enhancer(enhancer, tmp_path / "small.safetensors")
    BAD[case](path)
    with pytest.raises(FileError, match=r"small\.safetensors.*(get the file again|right kind)"):
        load_enhancer(path)


@pytest.mark.parametrize("name", ["W1", "b1", "W2", "b2", "gain", "bias"])
def test_an_enhancer_with_a_bad_tensor_is_refused_by_its_name(tmp_path, name):
    enhancer = EnhancerFile(LayerEnhancer(8, 3), 4, FINGERPRINT)
    path = save_enhancer(enhancer, tmp_path / "small.safetensors")
    good = load_file(path)[name]
    for bad in (torch.full_like(good, float("nan")), good[..., :-1].clone(), good.int()):
        save_enhancer(enhancer, path, overwrite=True)
        rewrite(path, {name: bad})
        with pytest.raises(FileError, match=r"small\.safetensors.*get the file again"):
            load_enhancer(path)


def test_content_that_could_not_be_read_back_is_not_written(tmp_path):
    broken = culture_sae()
    broken.sae.W_dec.data.fill_(float("nan"))
    with pytest.raises(FileError, match="nothing was written"):
        save_culture_sae(broken, tmp_path / "new.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_figures_behind_the_neurons_come_back(tmp_path):
    item = culture_sae()
    item.selection = {"th": SELECTION}
    again = load_culture_sae(save_culture_sae(item, tmp_path / "t.safetensors"))
    assert again.selection == {"th": SELECTION}
    with safe_open(again.path, "pt") as file:
        assert file.metadata()["format_version"] == "1"


def test_a_file_without_those_figures_is_as_good(path):
    with safe_open(path, "pt") as file:
        assert "selection" not in file.metadata()
    assert load_culture_sae(path).selection == {}


@pytest.mark.parametrize(
    "selection, message",
    [
        ("{", "'selection' is missing or no JSON"),
        (json.dumps({"ja": SELECTION.to_json()}), "'ja', which has no neurons"),
        (json.dumps({"th": {**SELECTION.to_json(), "scores": [1.0]}}), "'th': 'scores' must be a list of 2"),
        (json.dumps({"th": {**SELECTION.to_json(), "tau": float("nan")}}), "NaN is no number"),
        (json.dumps({"th": {**SELECTION.to_json(), "elbow": 33}}), "'elbow' is 33.*from 0 to 32"),
    ],
)
def test_bad_figures_behind_the_neurons_are_refused(path, selection, message):
    rewrite(path, metadata={"selection": selection})
    with pytest.raises(FileError, match=rf"(?s)thai\.safetensors.*{message}.*get the file again"):
        load_culture_sae(path)
