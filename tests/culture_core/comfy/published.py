"""Text towers as their makers publish them, small and with random weights. Used by several tests.

Each class of transformers and diffusers is the real one; a vocabulary is trained on sentences in the 15
languages. 128 wide, because a file without a config.json has heads of 64.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from diffusers.pipelines.deprecated.alt_diffusion import modeling_roberta_series
from safetensors.torch import save_file
from torch import Tensor, nn

WIDTH, LAYERS, CONTEXT = 128, 4, 96
Fill = Callable[[nn.Module, int], None]


class Pea(nn.Module):
    """The adapter of PEA-Diffusion, written out: context and pooled of a tower's tokens [B, S, d]."""

    def __init__(
        self, width: int = WIDTH, hidden: int = 64, pooled: int = 80, context: int | None = 112
    ) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(width)
        self.projector = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, hidden, bias=False), nn.GELU(),
            nn.Linear(hidden, pooled, bias=False),
        )  # fmt: skip
        self.fc = nn.Linear(pooled, context) if context else None

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        y = self.projector(self.layernorm(tokens))
        return (y if self.fc is None else self.fc(nn.functional.gelu(y))), y.mean(dim=1)


class OpenClip(nn.Module):
    """The text part of open_clip's multilingual CLIP, under its key names."""

    def __init__(self, transformer: nn.Module, width: int = WIDTH, joint: int = WIDTH) -> None:
        super().__init__()
        self.text = nn.Module()
        self.text.transformer = transformer
        hidden = (width + joint) // 2
        self.text.proj = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, joint, bias=False)
        )
        self.visual = nn.Linear(3, 3)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.text.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        return tokens, self.text.proj(masked_mean(tokens, mask))


class MClip(nn.Module):
    """M-CLIP, under its key names."""

    def __init__(self, transformer: nn.Module, width: int = WIDTH, joint: int = 64) -> None:
        super().__init__()
        self.transformer = transformer
        self.LinearTransformation = nn.Linear(width, joint)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        return tokens, self.LinearTransformation(masked_mean(tokens, mask))


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    return (tokens * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def xlm_roberta_config(kind: type = transformers.XLMRobertaConfig, **changes: object) -> object:
    sizes = {
        "vocab_size": 1000, "hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 96,
        "num_hidden_layers": LAYERS, "max_position_embeddings": 100, "type_vocab_size": 1, "pad_token_id": 1,
        "layer_norm_eps": 1e-5, "project_dim": CONTEXT,
    }  # fmt: skip
    return kind(**(sizes | changes))


def roberta() -> nn.Module:
    return transformers.XLMRobertaModel(xlm_roberta_config(), add_pooling_layer=False)


def alt_diffusion(has_pre_transformation: bool) -> nn.Module:
    """The text model of diffusers' AltDiffusionPipeline: m9's, or m18's."""
    config = xlm_roberta_config(
        modeling_roberta_series.RobertaSeriesConfig, has_pre_transformation=has_pre_transformation
    )
    return modeling_roberta_series.RobertaSeriesModelWithTransformation(config)


def alt_clip() -> nn.Module:
    return transformers.AltCLIPTextModel(xlm_roberta_config(transformers.AltCLIPTextConfig))


def bert() -> nn.Module:
    config = xlm_roberta_config(transformers.BertConfig, type_vocab_size=2, layer_norm_eps=1e-12)
    return transformers.BertModel(config, add_pooling_layer=False)


def siglip2() -> nn.Module:
    config = transformers.Siglip2TextConfig(
        vocab_size=1000, hidden_size=WIDTH, num_attention_heads=2, intermediate_size=96,
        num_hidden_layers=LAYERS, max_position_embeddings=64, projection_size=72,
    )  # fmt: skip
    return transformers.Siglip2TextModel(config)


def t5(config_kind: type, kind: type) -> nn.Module:
    config = config_kind(
        vocab_size=1000, d_model=WIDTH, d_kv=16, num_heads=3, d_ff=64, num_layers=LAYERS,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return kind(config)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "altdiffusion_m9": lambda: alt_diffusion(False),
    "altdiffusion_m18": lambda: alt_diffusion(True),
    "altclip": alt_clip,
    "open_clip": lambda: OpenClip(roberta()),
    "m_clip": lambda: MClip(roberta()),
    "xlm_roberta": roberta,
    "bert": bert,
    "siglip2": siglip2,
    "mt5": lambda: t5(transformers.MT5Config, transformers.MT5EncoderModel),
    "umt5": lambda: t5(transformers.UMT5Config, transformers.UMT5EncoderModel),
}
PIECES = {"siglip2": "spiece.model", "mt5": "spiece.model", "umt5": "spiece.model"}
"""Name of the vocabulary's file, where it is not XLM-R's."""


def make(kind: str, fill: Fill, seed: int = 0) -> nn.Module:
    """The reference model, with weights large enough for attention that is far from uniform."""
    model = MODELS[kind]().eval()
    fill(model, seed)
    return model


def publish(
    model: nn.Module, folder: Path, pieces: Tensor, name: str = "sentencepiece.bpe.model", **extra: Tensor
) -> Path:
    """Write weights, config and vocabulary as a Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights_of(model) | extra, folder / "model.safetensors", metadata={"format": "pt"})
    config = getattr(model, "config", None)
    if config is not None:
        config.architectures = [type(model).__name__]
        (folder / "config.json").write_text(json.dumps(config.to_dict(), default=str), encoding="utf-8")
    (folder / name).write_bytes(pieces.numpy().tobytes())
    return folder


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of each weight, as several may be one in memory."""
    return {name: weight.detach().clone().contiguous() for name, weight in model.state_dict().items()}
