"""A text tower as it was published, as a ComfyUI CLIP."""

import inspect
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .errors import TextEncoderError
from .towers import (
    Published,
    Tokenizer,
    Tower,
    TowerClip,
    TowerPromptTokenizer,
    adapter_weights,
    build_adapter,
    detect_tower,
    find_tokenizer,
    for_adapter,
    read_published,
    read_weights,
    state_of,
)
from .towers.modules import BertTower
from .towers.scaled import ScaledOperations, is_scaled

__all__ = ["TextEncoderError", "build_clip", "load_text_encoder"]

_E5 = "multilingual_e5"
"""Name in the CLIP of a BERT with an XLM-R vocabulary; files that were made for it carry it."""
_CAN_BE_FIXED = "disable_dynamic" in inspect.signature(comfy.sd.CLIP).parameters
_ATTACHMENT = "culture_tower"
"""Under which a patcher holds the tower that it shares."""


def load_text_encoder(path: Path, adapter: Path | None = None) -> comfy.sd.CLIP:
    """A Hugging Face folder or a safetensors file of a text tower as a ComfyUI CLIP.

    What it is, its keys say (see `towers/detection.py`). Prompts are cut into chunks of 77 tokens, for BERT
    of 32, for SigLIP of as many as it has positions.

    | tower | context | pooled |
    | --- | --- | --- |
    | BERT, XLM-R | last hidden state, padding zero | its mean over the attended tokens |
    | AltDiffusion, AltCLIP | projected hidden state | that of the first token |
    | multilingual CLIP, M-CLIP | last hidden state | its projected mean |
    | SigLIP | last hidden state | the last token's, projected |
    | mT5 | last hidden state, padding zero | none |
    | any, with a PEA adapter | the adapter's | the adapter's |

    All CLIPs of one tower share its weights, whatever their adapters, as ComfyUI's clones of a CLIP do; they
    go with the last of them. An adapter of a file of its own rests beside the tower and is brought to the
    device for the length of a call.

    Args:
        adapter: a PEA adapter's safetensors file, to use instead of one that the tower brings.

    Raises:
        TextEncoderError: for a folder that is incomplete, of another architecture, or whose weights or
            tokenizer do not fit.
    """
    extra = None if adapter is None else adapter_weights(read_weights(adapter), adapter)
    key = (path, state_of(path), _chosen_precision())
    shared = _SHARED.get(key)
    if shared is None:
        shared = _SHARED[key] = _shared_tower(read_published(path))
    clip = shared.clip.clone()
    clip.patcher.set_attachments(_ATTACHMENT, shared)
    if extra is not None:
        _put_adapter(clip, shared, extra, path, adapter or path)
    return clip


def build_clip(published: Published) -> comfy.sd.CLIP:
    """The CLIP of a tower that was read; it shares its weights with no other.

    Raises:
        TextEncoderError: see `load_text_encoder`.
    """
    return _shared_tower(published).clip


class _SharedTower:
    """A loaded tower, held by the clones of its CLIP: while one of them lives, the next is made of it."""

    def __init__(self, clip: comfy.sd.CLIP, tower: Tower, tokenizer: Tokenizer) -> None:
        self.clip, self.tower, self.tokenizer = clip, tower, tokenizer


_SHARED: WeakValueDictionary[tuple[Any, ...], _SharedTower] = WeakValueDictionary()
"""By path, state of the files, and precision."""


def _shared_tower(published: Published, **options: Any) -> _SharedTower:
    """The tower, loaded; `options` go to ComfyUI's CLIP."""
    tower = detect_tower(published)
    tokenizer = find_tokenizer(published, tower)
    if tower.transformer is BertTower and tokenizer.tokenizer.get_vocab().get("<s>") == tokenizer.start:
        tower = tower._replace(name=_E5)
    operations = _operations(tower.weights)
    # Memory that ComfyUI hands out by itself, in versions that do, knows nothing of the scales.
    if operations is ScaledOperations and _CAN_BE_FIXED:
        options["disable_dynamic"] = True
    target = SimpleNamespace(
        params={},
        clip=partial(TowerClip, tower, tokenizer.special),
        tokenizer=partial(TowerPromptTokenizer, tower, tokenizer),
    )
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=sum(weight.numel() for weight in tower.weights.values()),
        model_options={
            "dtype": _precision(tower.weights),
            "custom_operations": operations,
        },
        **options,
    )
    # With it newer versions of ComfyUI make a copy for another device; an adapter is part of the clone.
    clip.patcher.cached_patcher_init = (_patcher_of, (published.path,))
    _fill(clip, tower, published.path)
    return _SharedTower(clip, tower._replace(weights={}), tokenizer)


def _patcher_of(path: Path, **options: Any) -> ModelPatcher:
    """A patcher of the tower that shares its weights with no other; `options` are ComfyUI's."""
    return _shared_tower(read_published(path), **options).clip.patcher


def _put_adapter(
    clip: comfy.sd.CLIP, shared: _SharedTower, weights: dict[str, Tensor], path: Path, source: Path
) -> None:
    """Let the tower end in an adapter while this CLIP is the loaded one."""
    tower = for_adapter(shared.tower, weights, path)
    try:
        adapter = build_adapter(
            weights, _precision(weights), clip.patcher.offload_device, _operations(weights)
        )
    except RuntimeError as error:  # what torch raises for weights that are missing
        raise TextEncoderError(f"{source} is no whole PEA adapter ({error}): fetch it again.") from error
    # Of a method, not of a module: ComfyUI would count the module's weights as the tower's and move them.
    clip.patcher.add_object_patch(f"{tower.name}.transformer.head.chosen", adapter.forward)
    clip.patcher.add_object_patch(f"{tower.name}.zero_out_masked", tower.zero_padding)
    if tower.length != shared.tower.length:
        clip.tokenizer = TowerPromptTokenizer(
            tower, shared.tokenizer, folder_paths.get_folder_paths("embeddings")
        )


def _fill(clip: comfy.sd.CLIP, tower: Tower, path: Path) -> None:
    try:
        missing, unknown = clip.load_sd(tower.weights)
    except RuntimeError as error:  # what torch raises for shapes
        raise TextEncoderError(f"{path}: weights do not fit each other ({error}): fetch it again.") from error
    if missing:
        raise TextEncoderError(
            f"{path}: weights are missing ({', '.join(missing[:3])}): fetch the folder again."
        )
    if unknown:
        raise TextEncoderError(
            f"{path}: {tower.transformer.family} has no weights {', '.join(unknown[:3])}: it is of another "
            "architecture, which this loader does not know."
        )


def _precision(weights: dict[str, Tensor]) -> torch.dtype:
    """The user's choice, or the file's own: ComfyUI would halve it, and the context would no longer agree
    with training."""
    plain = {name: weight for name, weight in weights.items() if not is_scaled(name, weights)}
    return _chosen_precision() or comfy.utils.weight_dtype(plain)


def _operations(weights: dict[str, Tensor]) -> type:
    scaled = any(is_scaled(name, weights) for name in weights)
    return ScaledOperations if scaled else comfy.ops.manual_cast


def _chosen_precision() -> torch.dtype | None:
    """What the user started ComfyUI with (`--fp16-text-enc` …)."""
    choices = ("fp8_e4m3fn", "fp8_e5m2", "fp16", "bf16", "fp32")
    if any(getattr(args, f"{name}_text_enc", False) for name in choices):
        return comfy.model_management.text_encoder_dtype()
    return None
