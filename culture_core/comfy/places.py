"""Where ComfyUI's text encoders keep what this pack reads and changes."""

import inspect
import re
from typing import NamedTuple

import comfy.sd
import comfy.sd1_clip
from torch import nn

from ..encoders import ATTENTION_OUTPUT
from .errors import TextEncoderError

BIDIRECTIONAL = ("bert", "xlm-roberta", "siglip", "t5")
"""Families in which a token sees those after it too."""
ALL = "all"
"""As a choice of encoders: every one that a CLIP holds."""
_OUTPUTS = ("out_proj", "o_proj", "o", "dense", "proj")
_VISION = ("visual.", "vision.", "vision_model.")


class Layer(NamedTuple):
    """One layer of an encoder; paths from the `SDClipModel`."""

    path: str
    attention: str | None
    """The module that is handed its attention function; None where the layer has no attention matrix."""
    output: str | None
    """The module whose output is what attention adds to the residual; None where it cannot be told."""


class Places(NamedTuple):
    """The layers of an encoder, first to last."""

    layers: tuple[Layer, ...]

    def feature(self, layer: int, feature: str) -> str:
        """Path of the module whose output is the feature.

        Raises:
            TextEncoderError: for the attention output of a layer that has none that the pack knows.
        """
        place = self.layers[layer]
        if feature != ATTENTION_OUTPUT:
            return place.path
        if place.output is None:
            raise TextEncoderError(
                f"layer {layer} has no attention output that this pack knows: use the feature hidden_state"
            )
        return place.output

    def attention(self, layer: int) -> str:
        """Path of the module that is handed its attention function.

        Raises:
            TextEncoderError: for a layer without an attention matrix.
        """
        found = self.layers[layer].attention
        if found is None:
            raise TextEncoderError(
                f"layer {layer} of this text encoder has no attention matrix to read (linear attention, or "
                "attention that ComfyUI does not hand out): probing by attention is not possible here. "
                "Everything that works on the feature hidden_state is."
            )
        return found


def encoders_of(clip: comfy.sd.CLIP) -> dict[str, comfy.sd1_clip.SDClipModel]:
    """The text encoders inside a CLIP by their path in it (`clip_l`, `clip_g`, `t5xxl` …).

    Raises:
        TextEncoderError: for what is no CLIP; a checkpoint without a text encoder gives none.
    """
    if not hasattr(clip, "patcher"):
        raise TextEncoderError(f"{clip!r:.60} is no CLIP: connect the CLIP of a loader.")
    modules = clip.patcher.model.named_modules()
    return {path: module for path, module in modules if isinstance(module, comfy.sd1_clip.SDClipModel)}


def choose_encoders(clip: comfy.sd.CLIP, choice: str = "") -> list[str]:
    """The encoders that a user means.

    Args:
        choice: empty for the largest, which carries most of the conditioning; `all`; or names separated by
            commas, such as `clip_l, t5xxl` (`l` means `clip_l`).

    Raises:
        TextEncoderError: for a name that the CLIP does not have; the message lists those it has.
    """
    encoders = encoders_of(clip)
    if not encoders:
        raise TextEncoderError("This CLIP holds no text encoder that the pack can look into.")
    names = [name for name in re.split(r"[,;\s]+", choice) if name]
    if not names:
        return [max(encoders, key=lambda key: sum(p.numel() for p in encoders[key].transformer.parameters()))]
    if names == [ALL]:
        return list(encoders)
    found = [next((k for k in (name, f"clip_{name}") if k in encoders), None) for name in names]
    missing = [name for name, key in zip(names, found, strict=True) if key is None]
    if missing:
        raise TextEncoderError(
            f"This CLIP has no encoder {', '.join(missing)}: it has {', '.join(encoders)}. "
            "Name one or several of them, or write 'all'."
        )
    return list(dict.fromkeys(key for key in found if key is not None))


def find_places(encoder: comfy.sd1_clip.SDClipModel) -> Places:
    """Find the layers of any of ComfyUI's encoders: the first stack of modules that is as long as it says.

    Raises:
        TextEncoderError: for an encoder without such a stack.
    """
    stacks = [
        (path, module)
        for path, module in encoder.transformer.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == encoder.num_layers
        and not path.startswith(_VISION)
    ]
    # A stack whose layers are handed their attention goes before one of the same length that is something
    # else.
    stacks.sort(key=lambda stack: not any(_attention(layer) for layer in stack[1]))
    if not stacks:
        raise TextEncoderError(
            f"{type(encoder.transformer).__name__}: this pack cannot find the layers of this text encoder."
        )
    path, stack = stacks[0]
    return Places(tuple(_place(f"transformer.{path}.{i}", layer) for i, layer in enumerate(stack)))


def _place(path: str, layer: nn.Module) -> Layer:
    attention = _attention(layer)
    output = _output(layer, attention)
    return Layer(path, attention and f"{path}.{attention}", output and f"{path}.{output}")


def _attention(layer: nn.Module) -> str | None:
    """The innermost part that takes an attention function."""
    takers = [name for name, part in layer.named_modules() if name and _takes_attention(part)]
    return next((n for n in takers if not any(other.startswith(f"{n}.") for other in takers)), None)


def _takes_attention(module: nn.Module) -> bool:
    return "optimized_attention" in inspect.signature(module.forward).parameters


def _output(layer: nn.Module, attention: str | None) -> str | None:
    names = {name for name, _ in layer.named_modules()}
    # Gemma norms the projection's output once more before adding it, which swallows a change of its size.
    if {"pre_feedforward_layernorm", "post_attention_layernorm"} <= names:
        return "post_attention_layernorm"
    if attention is None:
        inside = [name for name in names if re.search(r"att|mixer", name) and "." in name]
        return next((n for end in _OUTPUTS[:3] for n in inside if n.endswith(f".{end}")), None)
    beside = f"{attention.rpartition('.')[0]}.output.dense"
    candidates = [beside, *(f"{attention}.{name}" for name in _OUTPUTS)]
    return next((name for name in candidates if name in names), None)


def family_of(encoder: comfy.sd1_clip.SDClipModel, places: Places) -> str:
    """The architecture, by the name that the library's Hugging Face encoders have too."""
    if isinstance(getattr(encoder.transformer, "family", None), str):  # one of this pack's towers
        return encoder.transformer.family
    stack = places.layers[0].path.removeprefix("transformer.").rpartition(".")[0]
    known = {"text_model.encoder.layers": "clip", "bert.encoder.layer": "bert", "encoder.block": "t5"}
    if stack in known:
        return known[stack]
    config = getattr(getattr(encoder.transformer, "model", None), "config", None)
    kind = getattr(config, "transformer_type", None)
    if kind is None:
        return type(encoder.transformer).__name__.lower()
    if kind != "llama":
        return kind
    if getattr(config, "q_norm", None):
        return "qwen3"
    return "qwen2" if getattr(config, "qkv_bias", False) else "llama"


def taken_layer(encoder: comfy.sd1_clip.SDClipModel, clip_skip: int | None = None) -> int:
    """Index of the last layer that the conditioning depends on, under a clip skip as ComfyUI writes it (-1:
    none)."""
    mode, index, _ = encoder.options_default
    if isinstance(mode, list):  # entry i is what goes into layer i
        return min(max(mode), encoder.num_layers) - 1
    if mode == ALL:
        return encoder.num_layers - 1
    if clip_skip is not None:
        mode, index = ("last", None) if abs(clip_skip) > encoder.num_layers else ("hidden", clip_skip)
    return index % encoder.num_layers if mode == "hidden" else encoder.num_layers - 1
