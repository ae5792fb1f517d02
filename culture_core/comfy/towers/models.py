"""A tower and its tokenizer in the classes that ComfyUI's CLIP is made of."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import comfy.sd1_clip
import torch

from .detection import Tower
from .tokenizers import Tokenizer


class _TowerModel(comfy.sd1_clip.SDClipModel):
    def __init__(
        self,
        tower: Tower,
        special: dict[str, int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        model_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            device=device, dtype=dtype, max_length=tower.length, layer="hidden" if tower.layer else "last",
            layer_idx=tower.layer, textmodel_json_config=dict(tower.config), special_tokens=special,
            model_class=tower.transformer, enable_attention_masks=tower.masked,
            zero_out_masked=tower.zero_padding, model_options=model_options or {},
        )  # fmt: skip


class TowerClip(comfy.sd1_clip.SD1ClipModel):
    """The model of a CLIP whose one encoder is a tower."""

    def __init__(self, tower: Tower, special: dict[str, int], **options: object) -> None:
        super().__init__(name=tower.name, clip_model=partial(_TowerModel, tower, special), **options)


class _TowerTokenizer(comfy.sd1_clip.SDTokenizer):
    def __init__(
        self,
        tower: Tower,
        tokenizer: Tokenizer,
        embedding_directory: list[str] | None = None,
        tokenizer_data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            "", tokenizer_class=SimpleNamespace(from_pretrained=lambda _path: tokenizer.tokenizer),
            max_length=tower.length, pad_with_end=False, pad_token=tokenizer.pad,
            end_token=tokenizer.end, has_start_token=tokenizer.start is not None,
            has_end_token=tokenizer.frames, embedding_directory=embedding_directory,
            embedding_size=tower.width, embedding_key=tower.name, tokenizer_data=tokenizer_data or {},
        )  # fmt: skip


class TowerPromptTokenizer(comfy.sd1_clip.SD1Tokenizer):
    """The tokenizer of a CLIP whose one encoder is a tower."""

    def __init__(
        self,
        tower: Tower,
        tokenizer: Tokenizer,
        embedding_directory: list[str] | None = None,
        tokenizer_data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            embedding_directory=embedding_directory, tokenizer_data=tokenizer_data or {}, name=tower.name,
            tokenizer=partial(_TowerTokenizer, tower, tokenizer),
        )  # fmt: skip
