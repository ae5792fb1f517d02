"""The two kinds of files that the pack shares: culture SAEs and layer enhancers (safetensors).

Nothing of a file is used before all of it has been checked, and every problem is a `FileError` that names the
file.
"""

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checkpoints import write_safetensors
from .cultures import CULTURES
from .encoders import FEATURES, HIDDEN_STATE
from .enhancer import LayerEnhancer
from .file_checks import Content, FileError, Format, read_content
from .fingerprint import same_weights
from .neuron_figures import Selection
from .neurons import CultureNeurons
from .previews import KEY as PREVIEW
from .previews import preview_entry, read_preview_entry
from .sae import TopKSAE

__all__ = [
    "CultureSAE",
    "EnhancerFile",
    "FileError",
    "Strengths",
    "check_encoder",
    "load_culture_sae",
    "load_enhancer",
    "save_culture_sae",
    "save_enhancer",
]

logger = logging.getLogger(__name__)

SAE = Format("culture-sae", "culture SAE", 1)
ENHANCER = Format("culture-enhancer", "layer enhancer", 1)
FORMATS = {kind.key: kind for kind in (SAE, ENHANCER)}
MAX_WIDTH = 1 << 15
MAX_LATENTS = 1 << 20
MAX_LAYERS = 1 << 10

_SAE_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec", "mean", "scale")
_ENHANCER_TENSORS = ("W1", "b1", "W2", "b2", "gain", "bias")
_NEURON_TENSORS = ("neurons", "mean_activation", "frequency", "wfs_cultural", "wfs_neutral")
_CODE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")
_SHAPE = ("family", "layers", "width", "heads", "vocabulary")


class Strengths(NamedTuple):
    """What validation prompts said about a culture's strength."""

    best: float
    """Where the culture shows best."""
    limit: float
    """Beyond it nouns suffer."""


@dataclass
class CultureSAE:
    """An SAE of one feature of one layer of one encoder, with the neurons of its cultures."""

    sae: TopKSAE
    layer: int
    """Index of the layer, from 0."""
    feature: str
    """`attention_output` or `hidden_state`."""
    encoder: dict[str, Any]
    """Fingerprint of the encoder, see `TextEncoder.fingerprint`."""
    cultures: dict[str, CultureNeurons] = field(default_factory=dict)
    """By culture code."""
    encoder_key: str | None = None
    """Which encoder of a model that has several, by ComfyUI's key ("l", "g", "t5xxl", …)."""
    strengths: dict[str, Strengths] = field(default_factory=dict)
    """By culture code, where measured."""
    selection: dict[str, Selection] = field(default_factory=dict)
    """How the neurons of a culture were chosen, by culture code, where known."""
    training: dict[str, Any] = field(default_factory=dict)
    """How it was made: data hash, counts, seeds, FVU, dead share, version."""
    licence: str = ""
    author: str = ""
    description: str = ""
    preview: bytes = b""
    """A JPEG of what it does, see `previews.py`; empty: none."""
    path: Path | None = None
    """Where it was loaded from."""

    def neurons(self, culture: str) -> CultureNeurons:
        """The neurons of a culture.

        Raises:
            FileError: for a culture that the file does not have; the message lists those it has.
        """
        if culture not in self.cultures:
            known = ", ".join(self.cultures) or "none: run Detect Culture Neurons first"
            raise FileError(f"{self.path or 'this culture SAE'}: has no culture {culture!r}; it has {known}")
        return self.cultures[culture]


@dataclass
class EnhancerFile:
    """An enhancer of the hidden state that leaves one layer of one encoder."""

    enhancer: LayerEnhancer
    layer: int
    """Index of the layer, from 0."""
    encoder: dict[str, Any]
    """Fingerprint of the encoder, see `TextEncoder.fingerprint`."""
    encoder_key: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    author: str = ""
    description: str = ""
    preview: bytes = b""
    """A JPEG of what it does, see `previews.py`; empty: none."""
    path: Path | None = None
    """Where it was loaded from."""


def save_culture_sae(culture_sae: CultureSAE, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a culture SAE; returns the path.

    Raises:
        FileError: where the content would not pass `load_culture_sae`, or the file exists and may not be
            replaced.
    """
    sae = culture_sae.sae
    tensors = {name: tensor.detach() for name, tensor in sae.state_dict().items()}
    for code, neurons in culture_sae.cultures.items():
        parts = zip(_NEURON_TENSORS, neurons, strict=True)
        tensors |= {f"culture.{code}.{name}": tensor for name, tensor in parts}
    metadata = _common_metadata(SAE, culture_sae) | {
        "k": str(sae.k),
        "feature": culture_sae.feature,
        "cultures": _json({code: _culture_entry(culture_sae, code) for code in culture_sae.cultures}),
    }
    if culture_sae.selection:
        metadata["selection"] = _json({code: one.to_json() for code, one in culture_sae.selection.items()})
    content = Content(Path(path), metadata, tensors, reading=False)
    _parse_sae(content)
    return _write(content, overwrite)


def load_culture_sae(path: str | os.PathLike[str]) -> CultureSAE:
    """Read a culture SAE.

    Raises:
        FileError: for a file that is no culture SAE or a damaged one; the message says what to do.
    """
    return _parse_sae(read_content(Path(path), SAE, FORMATS))


def save_enhancer(enhancer: EnhancerFile, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a layer enhancer; returns the path.

    Raises:
        FileError: where the content would not pass `load_enhancer`, or the file exists and may not be
            replaced.
    """
    tensors = {name: tensor.detach() for name, tensor in enhancer.enhancer.state_dict().items()}
    metadata = _common_metadata(ENHANCER, enhancer) | {"feature": HIDDEN_STATE}
    content = Content(Path(path), metadata, tensors, reading=False)
    _parse_enhancer(content)
    return _write(content, overwrite)


def load_enhancer(path: str | os.PathLike[str]) -> EnhancerFile:
    """Read a layer enhancer.

    Raises:
        FileError: for a file that is no layer enhancer or a damaged one; the message says what to do.
    """
    return _parse_enhancer(read_content(Path(path), ENHANCER, FORMATS))


def check_encoder(expected: Mapping[str, Any], found: Mapping[str, Any], path: Path | None = None) -> bool:
    """Compare the fingerprint in a file with that of an encoder.

    Returns:
        Whether the weights are the same; a difference, that of a fine-tuned encoder, is logged as a warning.

    Raises:
        FileError: where the shapes differ, so that the file cannot fit.
    """
    name = path or "this file"
    different = [key for key in _SHAPE if expected.get(key) != found.get(key)]
    if different:
        wrong = "; ".join(f"{key} {expected.get(key)!r}, not {found.get(key)!r}" for key in different)
        raise FileError(
            f"{name}: was made for another text encoder ({wrong}): "
            "load the encoder that it belongs to, or take a file made for yours and put it beside this one"
        )
    same = same_weights(expected.get("weights", ()), found.get("weights", ()))
    if not same:
        logger.warning(
            "%s: the text encoder has other weights than the one that the file was made for "
            "(a fine-tune?); expect weaker or odd effects",
            name,
        )
    return same


def _common_metadata(kind: Format, item: CultureSAE | EnhancerFile) -> dict[str, str]:
    metadata = {
        "format": kind.key,
        "format_version": str(kind.version),
        "encoder": _json(item.encoder),
        "layer": str(item.layer),
        "training": _json(item.training),
        "licence": item.licence,
        "author": item.author,
        "description": item.description,
    }
    if item.encoder_key:
        metadata["encoder_key"] = item.encoder_key
    if item.preview:
        metadata[PREVIEW] = preview_entry(item.preview)
    return metadata


def _culture_entry(culture_sae: CultureSAE, code: str) -> dict[str, Any]:
    known = CULTURES.get(code)
    strengths = culture_sae.strengths.get(code)
    entry: dict[str, Any] = {"name": known.name if known else code}
    return entry | ({"strength": strengths.best, "limit": strengths.limit} if strengths else {})


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _write(content: Content, overwrite: bool) -> Path:
    path = content.path
    if path.suffix.lower() != ".safetensors":
        raise FileError(f"{path}: the name must end in .safetensors")
    if path.exists() and not overwrite:
        raise FileError(f"{path}: is there already; choose another name, or allow overwriting")
    try:
        write_safetensors(path, content.tensors, content.metadata)
    except OSError as error:
        raise FileError(
            f"{path}: cannot be written ({error.__cause__ or error}); look at the folder and the disk"
        ) from error
    return path


def _parse_sae(content: Content) -> CultureSAE:
    common = _parse_common(content)
    cultures = content.json_object("cultures")
    _check_cultures(content, cultures)
    names = {f"culture.{code}.{name}" for code in cultures for name in _NEURON_TENSORS}
    content.check_names({*_SAE_TENSORS, *names})
    latents, width = content.matrix_shape("W_enc", MAX_LATENTS, MAX_WIDTH)
    shapes = {"W_enc": (latents, width), "b_enc": (latents,), "W_dec": (latents, width), "b_dec": (width,)}
    shapes |= {"mean": (width,), "scale": ()}
    values = _values(content, shapes)
    if float(values["scale"]) <= 0:
        content.fail(f"'scale' is {float(values['scale'])}, it must be positive")
    _check_width(content, common["encoder"], width)
    feature = content.metadata.get("feature")
    if feature not in FEATURES:
        content.fail(f"'feature' is {feature!r}, it must be one of {', '.join(FEATURES)}")
    sae = TopKSAE(width, latents, content.whole("k", 1, latents), seed=None)
    sae.load_state_dict(values, assign=True)
    neurons = {code: _parse_neurons(content, code, latents) for code in cultures}
    return CultureSAE(
        sae=sae.requires_grad_(False),
        feature=feature,
        cultures=neurons,
        strengths=_parse_strengths(content, cultures),
        selection=_parse_selection(content, neurons, latents),
        **common,
    )


def _parse_enhancer(content: Content) -> EnhancerFile:
    common = _parse_common(content)
    content.check_names(set(_ENHANCER_TENSORS))
    rows, width = content.matrix_shape("W1", MAX_WIDTH, MAX_WIDTH)
    shapes = {"W1": (rows, width), "b1": (rows,), "W2": (width, rows)}
    shapes |= {name: (width,) for name in ("b2", "gain", "bias")}
    values = _values(content, shapes)
    _check_width(content, common["encoder"], width)
    if content.metadata.get("feature") != HIDDEN_STATE:
        content.fail(f"'feature' is {content.metadata.get('feature')!r}, it must be {HIDDEN_STATE}")
    enhancer = LayerEnhancer(width, rows, seed=None)
    enhancer.load_state_dict(values, assign=True)
    return EnhancerFile(enhancer=enhancer.requires_grad_(False), **common)


def _values(content: Content, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    # What is made in the inference mode of ComfyUI's nodes can never be trained.
    with torch.inference_mode(False):
        return {name: content.floats(name, shape) for name, shape in shapes.items()}


def _parse_common(content: Content) -> dict[str, Any]:
    content.check_metadata()
    encoder = content.json_object("encoder")
    _check_fingerprint(content, encoder)
    metadata = content.metadata
    return {
        "layer": content.whole("layer", 0, encoder["layers"] - 1),
        "encoder": encoder,
        "encoder_key": metadata.get("encoder_key"),
        "training": content.json_object("training"),
        "licence": metadata.get("licence", ""),
        "author": metadata.get("author", ""),
        "description": metadata.get("description", ""),
        "preview": _parse_preview(content),
        "path": content.path,
    }


def _parse_preview(content: Content) -> bytes:
    """The preview; files without one are as good."""
    try:
        return read_preview_entry(content.metadata[PREVIEW]) if PREVIEW in content.metadata else b""
    except ValueError as error:
        content.fail(str(error))


def _check_fingerprint(content: Content, encoder: Mapping[str, Any]) -> None:
    limits = {"layers": MAX_LAYERS, "width": MAX_WIDTH, "heads": MAX_WIDTH, "vocabulary": 1 << 24}
    wrong = [key for key, limit in limits.items() if not _is_whole(encoder.get(key), limit)]
    if not isinstance(encoder.get("family"), str):
        wrong.append("family")
    weights = encoder.get("weights")
    if not isinstance(weights, list) or not all(_is_number(weight, 1e38) for weight in weights):
        wrong.append("weights")
    if wrong:
        content.fail(f"the encoder's fingerprint has no sensible {', '.join(wrong)}")


def _is_whole(value: object, limit: int) -> bool:
    return type(value) is int and 1 <= value <= limit


def _is_number(value: object, limit: float) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= limit


def _check_width(content: Content, encoder: Mapping[str, Any], width: int) -> None:
    if encoder["width"] != width:
        content.fail(f"its tensors are {width} wide, the encoder it names {encoder['width']}")


def _check_cultures(content: Content, cultures: Mapping[str, Any]) -> None:
    for code, entry in cultures.items():
        if not _CODE.fullmatch(code) or not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            content.fail(f"the culture {code[:40]!r} has no proper code or no name")


def _parse_strengths(content: Content, cultures: Mapping[str, Any]) -> dict[str, Strengths]:
    found = {}
    for code, entry in cultures.items():
        if "strength" in entry:
            best, limit = entry["strength"], entry.get("limit")
            if not (_is_number(best, 1000) and _is_number(limit, 1000)):
                content.fail(f"the strengths of culture {code!r} are no sensible numbers")
            found[code] = Strengths(float(best), float(limit))
    return found


def _parse_selection(
    content: Content, neurons: Mapping[str, CultureNeurons], latents: int
) -> dict[str, Selection]:
    """How neurons were chosen; files that do not say are as good."""
    if "selection" not in content.metadata:
        return {}
    found = {}
    for code, record in content.json_object("selection").items():
        if code not in neurons:
            content.fail(f"'selection' has the culture {code[:40]!r}, which has no neurons")
        try:
            found[code] = Selection.from_json(record, len(neurons[code].indices), latents)
        except ValueError as error:
            content.fail(f"the figures behind the neurons of culture {code!r}: {error}")
    return found


def _parse_neurons(content: Content, code: str, latents: int) -> CultureNeurons:
    indices = content.indices(f"culture.{code}.neurons", latents)
    figures = {name: content.floats(f"culture.{code}.{name}", indices.shape) for name in _NEURON_TENSORS[1:]}
    for name, figure in figures.items():
        if float(figure.min()) < 0 or (name == "frequency" and float(figure.max()) > 1):
            content.fail(f"{name!r} of culture {code!r} is out of range")
    return CultureNeurons(indices, **figures)
