"""A text tower as it was published, as a ComfyUI CLIP."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy.cli_args import args
from torch import Tensor

from .errors import TextEncoderError
from .towers import (
    Published,
    Tower,
    TowerClip,
    TowerPromptTokenizer,
    adapter_weights,
    detect_tower,
    find_tokenizer,
    read_published,
    read_weights,
)
from .towers.modules import BertTower

__all__ = ["TextEncoderError", "build_clip", "load_text_encoder"]

_E5 = "multilingual_e5"
"""Name in the CLIP of a BERT with an XLM-R vocabulary; files that were made for it carry it."""


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

    Args:
        adapter: a PEA adapter's safetensors file, to use instead of one that the tower brings.

    Raises:
        TextEncoderError: for a folder that is incomplete, of another architecture, or whose weights or
            tokenizer do not fit.
    """
    extra = None if adapter is None else adapter_weights(read_weights(adapter), adapter)
    return build_clip(read_published(path), extra)


def build_clip(published: Published, adapter: dict[str, Tensor] | None = None) -> comfy.sd.CLIP:
    """The CLIP of a tower that was read, with an adapter's weights as `adapter_weights` names them.

    Raises:
        TextEncoderError: see `load_text_encoder`.
    """
    tower = detect_tower(published, adapter)
    tokenizer = find_tokenizer(published, tower)
    if tower.transformer is BertTower and tokenizer.tokenizer.get_vocab().get("<s>") == tokenizer.start:
        tower = tower._replace(name=_E5)
    target = SimpleNamespace(
        params={},
        clip=partial(TowerClip, tower, tokenizer.special),
        tokenizer=partial(TowerPromptTokenizer, tower, tokenizer),
    )
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=sum(weight.numel() for weight in tower.weights.values()),
        model_options={"dtype": _precision(tower.weights)},
    )
    _fill(clip, tower, published.path)
    return clip


def _fill(clip: comfy.sd.CLIP, tower: Tower, path: Path) -> None:
    try:
        missing, _ = clip.load_sd(tower.weights)
    except RuntimeError as error:  # what torch raises for shapes
        raise TextEncoderError(f"{path}: weights do not fit each other ({error}): fetch it again.") from error
    if missing:
        raise TextEncoderError(
            f"{path}: weights are missing ({', '.join(missing[:3])}): fetch the folder again."
        )


def _precision(weights: dict[str, Tensor]) -> torch.dtype:
    """The user's choice (`--fp16-text-enc` …), or the file's own: ComfyUI would halve it, and the context
    would no longer agree with training."""
    chosen = ("fp8_e4m3fn", "fp8_e5m2", "fp16", "bf16", "fp32")
    if any(getattr(args, f"{name}_text_enc", False) for name in chosen):
        return comfy.model_management.text_encoder_dtype()
    return comfy.utils.weight_dtype(weights)
