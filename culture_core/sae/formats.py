"""SAE folders of sparsify, SAELens and dictionary_learning: read and written.

All three keep a Top-K SAE as z = TopK_k(ReLU(W_enc (x − b_dec) + b_enc)), x̃ = W_decᵀ z + b_dec, in the
encoder's own units. What is exported has `mean` and `scale` folded in, what is imported has mean 0 and
scale 1. Other architectures are refused: their latents would not be those that a `TopKSAE` computes.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from ..atomic import atomic_path
from ..checkpoints import write_safetensors
from ..file_checks import Content, FileError, check_file, read_tensors
from ..files import MAX_LATENTS, MAX_WIDTH
from ..pickles import is_plain, load_pickle
from ..strict_json import parse_object
from .model import TopKSAE

SPARSIFY, SAE_LENS, DICTIONARY_LEARNING = "sparsify", "sae-lens", "dictionary-learning"
EQUAL_NORMS = 1e-3
"""Decoder rows whose norms differ by less than this share count as equally long."""

_MAX_CONFIG = 1 << 20


class ImportedSAE(NamedTuple):
    """An SAE of another library."""

    sae: TopKSAE
    library: str
    """`sparsify`, `sae-lens` or `dictionary-learning`."""
    notes: list[str]
    """What differs from an SAE of this library and matters for its use."""


class _Plain(NamedTuple):
    """The SAE in the form of the module's docstring; M latents, width d."""

    W_enc: Tensor
    """[M, d]"""
    b_enc: Tensor
    """[M]"""
    W_dec: Tensor
    """[M, d]"""
    b_dec: Tensor
    """[d]"""
    k: int


def recognise(folder: str | os.PathLike[str]) -> str | None:
    """Which library a folder with an SAE is of; None for a folder of none of them.

    Raises:
        FileError: for a folder with the files of several.
    """
    found = [name for name, library in _LIBRARIES.items() if (Path(folder) / library.weights).is_file()]
    if len(found) > 1:
        raise FileError(f"{folder}: holds SAEs of {' and '.join(found)}; keep each in a folder of its own")
    return found[0] if found else None


def import_sae(folder: str | os.PathLike[str]) -> ImportedSAE:
    """Read a folder of sparsify, SAELens or dictionary_learning; outputs are those of that library.

    Decoder rows of one length are brought to unit norm, with all latents scaled alike. Rows of different
    lengths stay as they are, because scaling latents one by one would change which of them Top-K chooses.

    dictionary_learning's `ae.pt` is a pickle; it is read by torch's loader for weights only, which runs no
    code of the file. No other part of the library reads pickles.

    Raises:
        FileError: for a folder that holds no such SAE, a damaged one, or one of another architecture.
    """
    folder = Path(folder)
    name = recognise(folder) if folder.is_dir() else None
    if name is None:
        known = "; ".join(f"{key}: {lib.config} and {lib.weights}" for key, lib in _LIBRARIES.items())
        raise FileError(f"{folder}: is no folder with an SAE of a library that can be read ({known})")
    library = _LIBRARIES[name]
    config = _Config.read(folder / library.config)
    plain, notes = _unit_rows(library.parse(config, library.load(folder / library.weights)))
    values = {key: getattr(plain, key) for key in ("W_enc", "b_enc", "W_dec", "b_dec")}
    sae = TopKSAE(plain.W_enc.shape[1], len(plain.W_enc), plain.k, seed=None)
    normal = {"mean": torch.zeros(sae.d_in), "scale": torch.ones(())}
    sae.load_state_dict(values | normal, assign=True)
    return ImportedSAE(sae.requires_grad_(False), name, notes)


def export_sae(
    sae: TopKSAE,
    folder: str | os.PathLike[str],
    library: str,
    overwrite: bool = False,
    origin: Mapping[str, str] | None = None,
) -> Path:
    """Write an SAE as a folder of another library, whose outputs are then those of the SAE.

    Its latents are `scale` times those of the SAE, in the encoder's own units, so that decoder rows keep
    their norm.

    Args:
        library: `sparsify`, `sae-lens` or `dictionary-learning`.
        origin: `model`, `layer`, `feature`, where the library's configuration has a place for them.

    Raises:
        FileError: for an unknown library, or a folder that is not empty and may not be written to.
    """
    folder = Path(folder)
    if library not in _LIBRARIES:
        raise FileError(f"unknown library {library!r}: use one of {', '.join(_LIBRARIES)}")
    if folder.exists() and not (folder.is_dir() and (overwrite or not any(folder.iterdir()))):
        raise FileError(f"{folder}: is there already; choose another name, or allow overwriting")
    if (other := recognise(folder)) not in (None, library):
        raise FileError(f"{folder}: holds an SAE of {other}; choose another folder")
    target = _LIBRARIES[library]
    plain = _fold_normalisation(sae)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Without its configuration no library reads a folder, so that half of one is not taken for all of it.
        (folder / target.config).unlink(missing_ok=True)
        target.save(folder / target.weights, target.tensors(plain))
        text = json.dumps(target.configuration(plain, dict(origin or {})), indent=1)
        with atomic_path(folder / target.config) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(f"{folder}: cannot be written ({error}); look at the folder and the disk") from error
    return folder


def _fold_normalisation(sae: TopKSAE) -> _Plain:
    """scale · (W_enc ((x − mean)/scale − b_dec) + b_enc) = W_enc (x − (scale·b_dec + mean)) + scale·b_enc."""
    scale, mean = sae.scale.detach().double(), sae.mean.detach().double()
    b_enc, b_dec = scale * sae.b_enc.detach().double(), scale * sae.b_dec.detach().double() + mean
    parts = (sae.W_enc.detach(), b_enc, sae.W_dec.detach(), b_dec)
    W_enc, b_enc, W_dec, b_dec = (part.to("cpu", torch.float32) for part in parts)
    return _Plain(W_enc, b_enc, W_dec, b_dec, sae.k)


def _unit_rows(plain: _Plain) -> tuple[_Plain, list[str]]:
    """With decoder rows of unit norm where all have one length, and what there is to say otherwise."""
    norms = torch.linalg.vector_norm(plain.W_dec, dim=1, dtype=torch.float64)
    low, high, mean = float(norms.min()), float(norms.max()), float(norms.mean())
    if low <= 0 or high / low > 1 + EQUAL_NORMS:
        return plain, [
            f"decoder rows have norms from {low:.3g} to {high:.3g} and stay as they are: scaling latents "
            "would change which of them Top-K chooses. An activation is then not the size of what the latent "
            "adds, and culture neurons are ranked by activation"
        ]
    if abs(mean - 1) < EQUAL_NORMS:
        return plain, []
    scaled = plain._replace(  # in place: these tensors are copies of the file's
        W_enc=plain.W_enc.mul_(mean), b_enc=plain.b_enc.mul_(mean), W_dec=plain.W_dec.div_(mean)
    )
    return scaled, []


# ------------------------------------------------------------------------------------- configuration files


@dataclass(frozen=True)
class _Config:
    """A configuration file that may hold anything."""

    path: Path
    values: dict[str, Any]

    @staticmethod
    def read(path: Path) -> "_Config":
        check_file(path, "configuration file")
        if path.stat().st_size > _MAX_CONFIG:
            raise FileError(f"{path}: is too long for a configuration file")
        try:
            return _Config(path, parse_object(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise FileError(f"{path}: is {error}; get the folder again from where it came from") from error

    def fail(self, text: str) -> NoReturn:
        raise FileError(f"{self.path}: {text}")

    def whole(self, key: str, low: int, high: int) -> int:
        value = self.values.get(key)
        if type(value) is not int or not low <= value <= high:
            self.fail(f"{key!r} is {_short(value)}, it must be a number from {low} to {high}")
        return value

    def only(self, key: str, *allowed: object) -> None:
        """Refuse a variant: the entry, if it is there, must have one of these values."""
        value = self.values.get(key, allowed[0])
        if not any(value is one or (isinstance(one, str) and value == one) for one in allowed):
            self.fail(
                f"{key!r} is {_short(value)}: only Top-K SAEs with {key!r} = {allowed[0]!r} can be converted"
            )

    def flag(self, key: str, default: bool) -> bool:
        self.only(key, default, not default)
        return self.values.get(key, default)

    def section(self, key: str) -> "_Config":
        value = self.values.get(key)
        if not isinstance(value, dict):
            self.fail(f"has no section {key!r}")
        return _Config(self.path, value)

    def agree(self, key: str, found: int) -> None:
        """A size that the configuration may give must be that of the tensors."""
        if key in self.values and self.values[key] != found:
            self.fail(f"{key!r} is {_short(self.values[key])}, the tensors have {found}")


def _short(value: object) -> str:
    return ascii(value)[:60]


def _checked(content: Content, names: Mapping[str, str], flipped: tuple[str, ...], k: int) -> _Plain:
    """The tensors by our names, in our layout.

    Args:
        names: our name → the library's.
        flipped: our names of the matrices that the library keeps as [d, M].
    """
    rows, columns = (MAX_WIDTH, MAX_LATENTS) if "W_enc" in flipped else (MAX_LATENTS, MAX_WIDTH)
    shape = content.matrix_shape(names["W_enc"], rows, columns)
    latents, width = shape[::-1] if "W_enc" in flipped else shape
    shapes = {"W_enc": (latents, width), "b_enc": (latents,), "W_dec": (latents, width), "b_dec": (width,)}
    values = {
        ours: content.floats(theirs, shapes[ours][::-1] if ours in flipped else shapes[ours])
        for ours, theirs in names.items()
    }
    if k > latents:
        content.fail(f"k is {k}, but there are {latents} latents")
    return _Plain(**{ours: v.T.contiguous() if ours in flipped else v for ours, v in values.items()}, k=k)


# -------------------------------------------------------------------------------------------------- sparsify

_SPARSIFY = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}


def _parse_sparsify(config: _Config, content: Content) -> _Plain:
    config.only("activation", "topk")
    # `signed`, `batch_topk` and so on are variants of older versions and of forks.
    for key in (
        "transcode", "skip_connection", "signed", "jumprelu", "batch_topk", "sample_topk", "input_unit_norm",
    ):  # fmt: skip
        config.only(key, False)
    content.check_names(set(_SPARSIFY.values()))
    plain = _checked(content, _SPARSIFY, (), config.whole("k", 1, MAX_LATENTS))
    config.agree("d_in", plain.W_enc.shape[1])
    if config.values.get("num_latents"):  # 0: a multiple of the width
        config.agree("num_latents", len(plain.W_enc))
    return plain


def _sparsify_tensors(plain: _Plain) -> dict[str, Tensor]:
    return {theirs: getattr(plain, ours) for ours, theirs in _SPARSIFY.items()}


def _sparsify_configuration(plain: _Plain, _origin: dict[str, str]) -> dict[str, Any]:
    latents, width = plain.W_enc.shape
    return {
        "activation": "topk", "expansion_factor": max(1, latents // width), "normalize_decoder": True,
        "num_latents": latents, "k": plain.k, "multi_topk": False, "skip_connection": False,
        "transcode": False, "d_in": width,
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------- SAELens

_SAE_LENS = {"W_enc": "W_enc", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
_SAE_LENS_VERSION = "6.0.0"
"""The first whose configuration looks like this; the library rewrites what claims to be older."""


def _parse_sae_lens(config: _Config, content: Content) -> _Plain:
    if config.values.get("architecture") != "topk":
        config.fail(
            f"'architecture' is {_short(config.values.get('architecture'))}: only 'topk' can be converted "
            "(folders of SAELens before 6: load and save them with SAELens 6)"
        )
    config.only("normalize_activations", "none")
    config.only("reshape_activations", "none")
    config.only("finetuning_scaling_factor", False, None)
    content.check_names(set(_SAE_LENS.values()))
    plain = _checked(content, _SAE_LENS, ("W_enc",), config.whole("k", 1, MAX_LATENTS))
    config.agree("d_in", plain.W_enc.shape[1])
    config.agree("d_sae", len(plain.W_enc))
    if not config.flag("apply_b_dec_to_input", True):
        # W x + b_enc = W (x − b_dec) + (b_enc + W b_dec)
        b_enc = plain.b_enc.double() + plain.W_enc.double() @ plain.b_dec.double()
        plain = plain._replace(b_enc=b_enc.float())
    if config.flag("rescale_acts_by_decoder_norm", False):
        plain = _fold_row_norms(config, plain)
    return plain


def _fold_row_norms(config: _Config, plain: _Plain) -> _Plain:
    """Top-K is of ‖W_dec[m]‖ · activation, and the decoder's rows are divided by their norms."""
    norms = plain.W_dec.double().norm(dim=1)
    if float(norms.min()) <= 0:
        config.fail("a decoder row is zero, so that rescaling by its norm is undefined")
    return plain._replace(
        W_enc=(plain.W_enc.double() * norms[:, None]).float(),
        b_enc=(plain.b_enc.double() * norms).float(),
        W_dec=(plain.W_dec.double() / norms[:, None]).float(),
    )


def _sae_lens_tensors(plain: _Plain) -> dict[str, Tensor]:
    return {**{theirs: getattr(plain, ours) for ours, theirs in _SAE_LENS.items()}, "W_enc": plain.W_enc.T}


def _sae_lens_configuration(plain: _Plain, origin: dict[str, str]) -> dict[str, Any]:
    latents, width = plain.W_enc.shape
    hook = {"model_name": origin.get("model"), "hook_name": _place(origin)}
    return {
        "architecture": "topk", "d_in": width, "d_sae": latents, "k": plain.k, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": True, "normalize_activations": "none",
        "reshape_activations": "none", "rescale_acts_by_decoder_norm": False,
        "metadata": {**hook, "sae_lens_version": _SAE_LENS_VERSION},
    }  # fmt: skip


def _place(origin: dict[str, str]) -> str | None:
    return f"layers.{origin['layer']}.{origin['feature']}" if {"layer", "feature"} <= origin.keys() else None


# --------------------------------------------------------------------------------------- dictionary_learning

_DICTIONARY = _SPARSIFY | {"W_dec": "decoder.weight"}


def _parse_dictionary(config: _Config, content: Content) -> _Plain:
    trainer = config.section("trainer")
    trainer.only("dict_class", "AutoEncoderTopK")
    if "dict_class" not in trainer.values:
        trainer.fail("does not say which class the SAE is of ('dict_class')")
    k = trainer.whole("k", 1, MAX_LATENTS)
    # `threshold` serves another way of encoding, which the library takes on request only.
    content.check_names({*_DICTIONARY.values(), *(content.tensors.keys() & {"k", "threshold"})})
    kept = content.tensors.get("k")
    if kept is not None and (kept.dim() != 0 or kept.is_floating_point() or int(kept) != k):
        content.fail(f"its k is not the {k} of {config.path.name}")
    plain = _checked(content, _DICTIONARY, ("W_dec",), k)
    trainer.agree("activation_dim", plain.W_enc.shape[1])
    trainer.agree("dict_size", len(plain.W_enc))
    return plain


def _dictionary_tensors(plain: _Plain) -> dict[str, Tensor]:
    tensors = {theirs: getattr(plain, ours) for ours, theirs in _DICTIONARY.items()}
    tensors["decoder.weight"] = plain.W_dec.T
    # A negative threshold: none was measured.
    return tensors | {"k": torch.tensor(plain.k, dtype=torch.int), "threshold": torch.tensor(-1.0)}


def _dictionary_configuration(plain: _Plain, origin: dict[str, str]) -> dict[str, Any]:
    latents, width = plain.W_enc.shape
    trainer = {
        "trainer_class": "TopKTrainer", "dict_class": "AutoEncoderTopK", "activation_dim": width,
        "dict_size": latents, "k": plain.k, "device": "cpu", "layer": origin.get("layer"),
        "lm_name": origin.get("model"), "submodule_name": _place(origin),
    }  # fmt: skip
    return {"trainer": trainer}


def _load_pickle(path: Path) -> Content:
    """Tensors of a file of `torch.save`; no code of the file is run."""
    check_file(path, "file of torch.save")
    content = Content(path, {}, load_pickle(path))
    for key, value in content.tensors.items():
        if not is_plain(value):
            content.fail(f"{_short(key)} is no plain tensor")
    return content


def _save_pickle(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        torch.save(plain, temporary)


# ------------------------------------------------------------------------------------------------- libraries


@dataclass(frozen=True)
class _Library:
    """How a library keeps an SAE."""

    config: str
    weights: str
    parse: Callable[[_Config, Content], _Plain]
    tensors: Callable[[_Plain], dict[str, Tensor]]
    configuration: Callable[[_Plain, dict[str, str]], dict[str, Any]]
    load: Callable[[Path], Content] = lambda path: read_tensors(path, "SAE")
    save: Callable[[Path, Mapping[str, Tensor]], None] = lambda path, tensors: write_safetensors(
        path, tensors, {"format": "pt"}
    )


_LIBRARIES = {
    SPARSIFY: _Library(
        "cfg.json", "sae.safetensors", _parse_sparsify, _sparsify_tensors, _sparsify_configuration
    ),
    SAE_LENS: _Library(
        "cfg.json", "sae_weights.safetensors", _parse_sae_lens, _sae_lens_tensors, _sae_lens_configuration
    ),
    DICTIONARY_LEARNING: _Library(
        "config.json", "ae.pt", _parse_dictionary, _dictionary_tensors, _dictionary_configuration,
        _load_pickle, _save_pickle,
    ),
}  # fmt: skip
LIBRARIES = tuple(_LIBRARIES)
