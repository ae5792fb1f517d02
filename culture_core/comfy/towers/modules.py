"""The trunks, computed by ComfyUI's own modules, each with a head: the `transformer` of an `SDClipModel`."""

from typing import Any

import comfy.clip_model
import comfy.ops
import comfy.text_encoders.bert
import comfy.text_encoders.t5
import torch
from torch import Tensor, nn

from .heads import Head

Outputs = tuple[Tensor, Tensor | None, Tensor | None]
"""(context of the last layer [B, S, c], of the chosen layer or None, pooled [B, p] or None)."""


class BertTower(nn.Module):
    """ComfyUI's BERT and a head."""

    family = "bert"
    trunk = comfy.text_encoders.bert.BertModel_

    def __init__(
        self, config: dict[str, Any], dtype: torch.dtype | None, device: object, operations: Any
    ) -> None:
        super().__init__()
        self.num_layers = config["num_hidden_layers"]
        self.bert = self.trunk(config, dtype, device, operations)
        self.head = Head(config["head"], config["layer_norm_eps"], dtype, device, operations)

    def get_input_embeddings(self) -> nn.Module:
        return self.bert.embeddings.word_embeddings

    def set_input_embeddings(self, embeddings: nn.Module) -> None:
        self.bert.embeddings.word_embeddings = embeddings

    def forward(self, tokens: Tensor | None, attention_mask: Tensor | None = None, **options: Any) -> Outputs:
        hidden, intermediate = self.bert(tokens, attention_mask, **options)
        return self.head(hidden, intermediate, attention_mask)


class _XlmRoberta(comfy.text_encoders.bert.BertModel_):
    """BERT whose positions count from the padding's id + 1 on, and leave padding out."""

    def __init__(
        self, config: dict[str, Any], dtype: torch.dtype | None, device: object, operations: Any
    ) -> None:
        super().__init__(config, dtype, device, operations)
        self._padding = config["pad_token_id"]

    def forward(
        self,
        tokens: Tensor | None,
        attention_mask: Tensor | None = None,
        embeds: Tensor | None = None,
        intermediate_output: int | None = None,
        dtype: torch.dtype = torch.float32,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None]:
        parts = self.embeddings
        x = parts.word_embeddings(tokens, out_dtype=dtype) if embeds is None else embeds
        if attention_mask is None:
            attention_mask = torch.ones(x.shape[:2], dtype=torch.long, device=x.device)
        positions = attention_mask.cumsum(dim=1) * attention_mask + self._padding
        x = x + parts.position_embeddings(positions, out_dtype=x.dtype)
        x = parts.LayerNorm(x + comfy.ops.cast_to_input(parts.token_type_embeddings.weight[0], x))
        hidden = attention_mask[:, None, None, :].expand(-1, 1, x.shape[1], -1) == 0  # [B, 1, S, S]
        mask = torch.zeros(hidden.shape, dtype=x.dtype, device=x.device)
        return self.encoder(x, mask.masked_fill(hidden, -torch.finfo(x.dtype).max), intermediate_output)


class XlmRobertaTower(BertTower):
    """ComfyUI's BERT with XLM-R's positions, and a head."""

    family = "xlm-roberta"
    trunk = _XlmRoberta


class _Siglip(nn.Module):
    """CLIP's layers without its causal mask."""

    def __init__(
        self, config: dict[str, Any], dtype: torch.dtype | None, device: object, operations: Any
    ) -> None:
        super().__init__()
        width, where = config["hidden_size"], {"dtype": dtype, "device": device, "operations": operations}
        self.embeddings = comfy.clip_model.CLIPEmbeddings(
            width, config["vocab_size"], config["max_position_embeddings"], **where
        )
        self.encoder = comfy.clip_model.CLIPEncoder(
            config["num_hidden_layers"], width, config["num_attention_heads"], config["intermediate_size"],
            config["hidden_act"], **where,
        )  # fmt: skip
        self.final_layer_norm = operations.LayerNorm(width, dtype=dtype, device=device)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = config["layer_norm_eps"]  # CLIP's layers are made with another one

    def forward(
        self, embeds: Tensor, intermediate_output: int | None, norm_intermediate: bool
    ) -> tuple[Tensor, Tensor | None]:
        positions = comfy.ops.cast_to_input(self.embeddings.position_embedding.weight, embeds)
        hidden, intermediate = self.encoder(
            embeds + positions[: embeds.shape[1]], intermediate_output=intermediate_output
        )
        if intermediate is not None and norm_intermediate:
            intermediate = self.final_layer_norm(intermediate)
        return self.final_layer_norm(hidden), intermediate


class SiglipTower(nn.Module):
    """A SigLIP text tower out of ComfyUI's CLIP layers; it attends to padding, as it was trained."""

    family = "siglip"

    def __init__(
        self, config: dict[str, Any], dtype: torch.dtype | None, device: object, operations: Any
    ) -> None:
        super().__init__()
        self.num_layers = config["num_hidden_layers"]
        self.text_model = _Siglip(config, dtype, device, operations)
        self.head = Head(config["head"], config["layer_norm_eps"], dtype, device, operations)

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.embeddings.token_embedding

    def set_input_embeddings(self, embeddings: nn.Module) -> None:
        self.text_model.embeddings.token_embedding = embeddings

    def forward(
        self,
        tokens: Tensor | None,
        attention_mask: Tensor | None = None,
        embeds: Tensor | None = None,
        intermediate_output: int | None = None,
        final_layer_norm_intermediate: bool = True,
        dtype: torch.dtype = torch.float32,
        **_: Any,
    ) -> Outputs:
        if embeds is None:
            embeds = self.get_input_embeddings()(tokens, out_dtype=dtype)
        hidden, intermediate = self.text_model(embeds, intermediate_output, final_layer_norm_intermediate)
        return self.head(hidden, intermediate, None)


class T5Tower(comfy.text_encoders.t5.T5):
    """ComfyUI's T5 and a head."""

    family = "t5"

    def __init__(
        self, config: dict[str, Any], dtype: torch.dtype | None, device: object, operations: Any
    ) -> None:
        super().__init__(config, dtype, device, operations)
        self.head = Head(config["head"], 1e-6, dtype, device, operations)

    def forward(self, tokens: Tensor | None, attention_mask: Tensor | None = None, **options: Any) -> Outputs:
        hidden, intermediate = super().forward(tokens, attention_mask, **options)
        return self.head(hidden, intermediate, attention_mask)
