"""Diffusers pipelines of every supported kind, tiny and with random weights."""

from collections.abc import Callable

import torch
from diffusers import (
    AltDiffusionPipeline,
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
    RobertaSeriesConfig,
    RobertaSeriesModelWithTransformation,
)
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from .conftest import WORDS, word_tokenizer

VOCABULARY = 4 + len(WORDS)
SIZE = 16
"""Of the pictures that all of them make, pixels."""


def _varied(model: torch.nn.Module, scale: float = 0.1) -> torch.nn.Module:
    """Initial weights are so small that a prompt hardly matters."""
    for parameter in model.parameters():
        parameter.data.add_(scale * torch.randn_like(parameter))
    return model.eval()


def tokenizer(begin: bool = True) -> PreTrainedTokenizerFast:
    """Whole words, framed and padded as pipelines expect."""
    made = word_tokenizer("<s>", "</s>", "<pad>")
    made._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>" if begin else "$A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    made.model_max_length = 77
    return made


def clip_text(
    kind: type = CLIPTextModel, width: int = 32, vocabulary: int = VOCABULARY, begin: int = 0, end: int = 1
) -> torch.nn.Module:
    config = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_attention_heads=4,
        num_hidden_layers=3, projection_dim=32, bos_token_id=begin, eos_token_id=end, pad_token_id=2,
    )  # fmt: skip
    return _varied(kind(config))


def t5_text(width: int) -> torch.nn.Module:
    config = T5Config(
        vocab_size=VOCABULARY, d_model=width, d_kv=8, d_ff=64, num_layers=3, num_heads=4,
        relative_attention_num_buckets=8, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return _varied(T5EncoderModel(config))


def vae(**more: object) -> AutoencoderKL:
    model = AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, sample_size=SIZE, layers_per_block=1,
        **more,
    )  # fmt: skip
    return _varied(model, 0.02)


def unet(width: int = 32, **more: object) -> UNet2DConditionModel:
    model = UNet2DConditionModel(
        sample_size=SIZE // 2, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=width, **more,
    )  # fmt: skip
    return _varied(model)


def _ddim(**more: object) -> DDIMScheduler:
    return DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1, **more)


def sd(prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae(), clip_text(), tokenizer(), unet(), _ddim(prediction_type=prediction_type), None, None,
        requires_safety_checker=False,
    )  # fmt: skip


def alt() -> AltDiffusionPipeline:
    config = RobertaSeriesConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_attention_heads=4,
        num_hidden_layers=3, max_position_embeddings=90, project_dim=24, bos_token_id=0, eos_token_id=1,
        pad_token_id=2,
    )  # fmt: skip
    text = _varied(RobertaSeriesModelWithTransformation(config))
    return AltDiffusionPipeline(
        vae(), text, tokenizer(), unet(24), _ddim(), None, None, requires_safety_checker=False
    )


def sdxl() -> StableDiffusionXLPipeline:
    text = clip_text(CLIPTextModelWithProjection, width=40)
    model = unet(
        72, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=32 + 6 * 8,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear")
    return StableDiffusionXLPipeline(
        vae(), clip_text(), text, tokenizer(), tokenizer(), model, scheduler, add_watermarker=False
    )


def sd3() -> StableDiffusion3Pipeline:
    model = SD3Transformer2DModel(
        sample_size=SIZE // 2, patch_size=2, in_channels=4, out_channels=4, num_layers=2,
        attention_head_dim=8, num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=80,
        pooled_projection_dim=64, pos_embed_max_size=8,
    )  # fmt: skip
    texts = clip_text(CLIPTextModelWithProjection), clip_text(CLIPTextModelWithProjection, width=40)
    return StableDiffusion3Pipeline(
        _varied(model), FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae(shift_factor=0.06, scaling_factor=1.5),
        texts[0], tokenizer(), texts[1], tokenizer(), t5_text(80), tokenizer(begin=False),
    )  # fmt: skip


def flux() -> FluxPipeline:
    model = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    return FluxPipeline(
        FlowMatchEulerDiscreteScheduler(), vae(shift_factor=0.1), clip_text(), tokenizer(), t5_text(24),
        tokenizer(begin=False), _varied(model),
    )  # fmt: skip


MAKERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd": sd, "alt": alt, "sdxl": sdxl, "sd3": sd3, "flux": flux,
}  # fmt: skip


def make(kind: str) -> DiffusionPipeline:
    """A pipeline of a kind, the same every time, without progress bars."""
    torch.manual_seed(11)
    pipe = MAKERS[kind]()
    pipe.set_progress_bar_config(disable=True)
    return pipe
