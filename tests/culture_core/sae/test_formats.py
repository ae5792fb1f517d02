"""SAE folders of other libraries: each library loads ours, we load theirs, and the outputs are the same."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from culture_core.file_checks import FileError
from culture_core.sae import TopKSAE
from culture_core.sae.formats import LIBRARIES, export_sae, import_sae, recognise

PEERS = Path(__file__).parents[3] / ".venv" / "peers"
needs_peers = pytest.mark.skipif(
    not PEERS.is_dir(), reason="the other libraries are missing: run `python dev.py test`"
)
SCRIPT = Path(__file__).with_name("run_peers.py")
WIDTH, LATENTS, K = 16, 64, 5
FILES = {
    "sparsify": ("cfg.json", "sae.safetensors"),
    "sae-lens": ("cfg.json", "sae_weights.safetensors"),
    "dictionary-learning": ("config.json", "ae.pt"),
}


def features() -> torch.Tensor:
    return torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(3)) * 2 + 1


def our_sae() -> TopKSAE:
    """An SAE none of whose parts is trivial."""
    torch.manual_seed(1)
    sae = TopKSAE(WIDTH, LATENTS, K)
    with torch.no_grad():
        for tensor in (sae.W_enc, sae.b_enc, sae.b_dec, sae.mean):
            tensor.copy_(torch.randn_like(tensor))
        sae.scale.fill_(2.5)
    return sae.requires_grad_(False)


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the libraries have done what `run_peers.py` says."""
    folder = tmp_path_factory.mktemp("peers")
    save_file({"x": features()}, folder / "x.safetensors")
    for library in LIBRARIES:
        export_sae(our_sae(), folder / library / "ours", library, origin={"model": "bert", "layer": "3"})
    environment = {**os.environ, "PYTHONPATH": str(PEERS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@needs_peers
@pytest.mark.parametrize("library", LIBRARIES)
def test_each_library_computes_with_our_files_what_we_do(peers, library):
    found, sae = load_file(peers / library / "ours.safetensors"), our_sae()
    close(found["y"], sae(features()))
    close(found["z"], sae.scale * sae.encode(features()))
    assert not torch.allclose(found["y"], TopKSAE(WIDTH, LATENTS, K)(features()), atol=0.1)


@needs_peers
@pytest.mark.parametrize(
    ("library", "variant", "stretch"),
    [(library, *case) for library in LIBRARIES for case in (("unit", 1.0), ("equal", 2.5), ("any", 1.0))]
    + [("sae-lens", name, 1.0) for name in ("whole_input", "rescaled", "checkpoint")],
)
def test_we_compute_with_files_of_each_library_what_it_does(peers, library, variant, stretch):
    folder = peers / library
    found, wanted = import_sae(folder / variant), load_file(folder / f"{variant}.safetensors")
    assert found.library == library and found.sae.k == K
    close(found.sae(features()), wanted["y"])
    close(found.sae.encode(features()), stretch * wanted["z"])
    norms = found.sae.W_dec.norm(dim=1)
    if variant == "any":
        assert norms.max() > 1.4 and "norms from 0.5" in found.notes[0]
    else:
        close(norms, torch.ones(LATENTS))
        assert not found.notes


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_is_exported_comes_back_with_mean_and_scale_folded_in(tmp_path, library):
    folder = export_sae(our_sae(), tmp_path / "sae", library)
    again = import_sae(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES[library])
    assert recognise(folder) == again.library == library and again.notes == []
    assert float(again.sae.scale) == 1 and not again.sae.mean.any()
    close(again.sae(features()), our_sae()(features()))
    close(again.sae.encode(features()), 2.5 * our_sae().encode(features()))


def test_folding_keeps_to_the_equation_in_double_precision(tmp_path):
    sae = import_sae(export_sae(our_sae(), tmp_path / "sae", "sparsify")).sae
    ours = {name: tensor.double() for name, tensor in our_sae().state_dict().items()}
    x = features().double()
    pre = ((x - ours["mean"]) / ours["scale"] - ours["b_dec"]) @ ours["W_enc"].T + ours["b_enc"]
    theirs = {name: tensor.double() for name, tensor in sae.state_dict().items()}
    folded = (x - theirs["b_dec"]) @ theirs["W_enc"].T + theirs["b_enc"]
    torch.testing.assert_close(folded, ours["scale"] * pre, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_folder_is_not_overwritten_unasked(tmp_path, library):
    folder = export_sae(our_sae(), tmp_path / "sae", library)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileError, match="there already"):
        export_sae(TopKSAE(WIDTH, LATENTS, 2), folder, library)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    export_sae(TopKSAE(WIDTH, LATENTS, 2), folder, library, overwrite=True)
    assert import_sae(folder).sae.k == 2


def test_folders_of_several_libraries_are_told_apart_or_refused(tmp_path):
    export_sae(our_sae(), tmp_path / "sae", "sparsify")
    with pytest.raises(FileError, match="holds an SAE of sparsify"):
        export_sae(our_sae(), tmp_path / "sae", "sae-lens", overwrite=True)
    (tmp_path / "sae" / "ae.pt").touch()
    with pytest.raises(FileError, match="sparsify and dictionary-learning"):
        import_sae(tmp_path / "sae")
    for other in (tmp_path, tmp_path / "nowhere", tmp_path / "sae" / "cfg.json"):
        with pytest.raises(FileError, match="is no folder with an SAE"):
            import_sae(other)
    with pytest.raises(FileError, match="unknown library 'keras'"):
        export_sae(our_sae(), tmp_path / "keras", "keras")


# ------------------------------------------------------------------------------------- what is not converted


def change(folder: Path, library: str, **changes: object) -> Path:
    """The folder with entries of its configuration replaced; None removes one."""
    path = folder / FILES[library][0]
    whole = json.loads(path.read_text())
    section = whole["trainer"] if library == "dictionary-learning" else whole
    section.update(changes)
    for key in [key for key, value in changes.items() if value is None]:
        del section[key]
    path.write_text(json.dumps(whole))
    return folder


@pytest.mark.parametrize(
    ("library", "changes", "words"),
    [
        ("sparsify", {"activation": "groupmax"}, "'activation' is 'groupmax'"),
        ("sparsify", {"transcode": True}, "'transcode' is True"),
        ("sparsify", {"skip_connection": True}, "'skip_connection' is True"),
        ("sparsify", {"batch_topk": True}, "'batch_topk' is True"),
        ("sparsify", {"k": 65}, "k is 65, but there are 64 latents"),
        ("sparsify", {"k": True}, "'k' is True"),
        ("sparsify", {"k": None}, "'k' is None"),
        ("sparsify", {"d_in": 17}, "'d_in' is 17, the tensors have 16"),
        ("sparsify", {"num_latents": 65}, "'num_latents' is 65"),
        ("sae-lens", {"architecture": "jumprelu"}, "'architecture' is 'jumprelu': only 'topk'"),
        ("sae-lens", {"architecture": None}, "only 'topk'"),
        ("sae-lens", {"normalize_activations": "layer_norm"}, "'normalize_activations' is 'layer_norm'"),
        ("sae-lens", {"reshape_activations": "hook_z"}, "'reshape_activations' is 'hook_z'"),
        ("sae-lens", {"apply_b_dec_to_input": "yes"}, "'apply_b_dec_to_input' is 'yes'"),
        ("sae-lens", {"k": 0}, "'k' is 0"),
        ("dictionary-learning", {"dict_class": "BatchTopKSAE"}, "'dict_class' is 'BatchTopKSAE'"),
        ("dictionary-learning", {"dict_class": None}, "does not say which class"),
        ("dictionary-learning", {"k": 4}, "its k is not the 4 of config.json"),
        ("dictionary-learning", {"dict_size": 8}, "'dict_size' is 8"),
    ],
)
def test_variants_and_contradictions_are_refused(tmp_path, library, changes, words):
    folder = change(export_sae(our_sae(), tmp_path / "sae", library), library, **changes)
    with pytest.raises(FileError) as caught:
        import_sae(folder)
    assert words in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("text", ["", "[]", "{", '{"k": NaN}', "[" * 100_000, "{}", "\udcff"])
def test_a_configuration_of_any_content_is_an_error(tmp_path, library, text):
    folder = export_sae(our_sae(), tmp_path / "sae", library)
    (folder / FILES[library][0]).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(FileError, match="sae"):
        import_sae(folder)


def tensors_of(folder: Path, library: str) -> tuple[dict[str, torch.Tensor], Callable]:
    """The tensors of a folder, and what writes others in their place."""
    path = folder / FILES[library][1]
    if library == "dictionary-learning":
        return torch.load(path, weights_only=True), lambda tensors: torch.save(tensors, path)
    return load_file(path), lambda tensors: save_file(tensors, path)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda t: t.update(b_dec=torch.full((16,), torch.nan)), "NaN or infinite"),
        (lambda t: t.update(b_dec=torch.zeros(17)), r"\(17,\)"),
        (lambda t: t.update(b_dec=torch.zeros(16, dtype=torch.long)), "int64"),
        (lambda t: t.update(W_skip=torch.zeros(16, 16)), "W_skip"),
        (lambda t: t.pop("b_dec"), "lacks the tensors"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, library, harm, words):
    folder = export_sae(our_sae(), tmp_path / "sae", library)
    tensors, write = tensors_of(folder, library)
    harm(tensors)
    write(tensors)
    with pytest.raises(FileError, match=words):
        import_sae(folder)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_damaged_file_is_an_error(tmp_path, library):
    folder = export_sae(our_sae(), tmp_path / "sae", library)
    path = folder / FILES[library][1]
    whole = path.read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2], whole[:-4]):
        path.write_bytes(content)
        with pytest.raises(FileError, match=path.name):
            import_sae(folder)


class _Touch:
    """Unpickled without care, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_reading_a_pickle_runs_none_of_its_code(tmp_path):
    folder = export_sae(our_sae(), tmp_path / "sae", "dictionary-learning")
    path, trace = folder / "ae.pt", tmp_path / "trace"
    torch.save({"encoder.weight": _Touch(trace)}, path)
    torch.load(path, weights_only=False)
    assert trace.exists()
    trace.unlink()
    for write in (
        lambda file: torch.save({"a": _Touch(trace)}, file),
        lambda f: pickle.dump(_Touch(trace), f),
    ):
        with path.open("wb") as file:
            write(file)
        with pytest.raises(FileError, match="no file of plain tensors"):
            import_sae(folder)
    assert not trace.exists()


def test_a_pickled_tensor_that_claims_more_than_it_holds_is_refused(tmp_path):
    folder = export_sae(our_sae(), tmp_path / "sae", "dictionary-learning")
    tensors = torch.load(folder / "ae.pt", weights_only=True)
    for harmful in (torch.zeros(1).expand(1 << 20, 1 << 15), [1, 2], "text"):
        torch.save(tensors | {"encoder.weight": harmful}, folder / "ae.pt")
        with pytest.raises(FileError, match="no plain tensor"):
            import_sae(folder)
    for harmful in ([1], {1: torch.zeros(2)}, torch.zeros(2)):
        torch.save(harmful, folder / "ae.pt")
        with pytest.raises(FileError, match="no tensors by name"):
            import_sae(folder)
