"""What a step of enhancer training costs, by loss, precision and gradient checkpointing.

    python benchmarks/enhancer_step.py [--threads 1] [--size 256]

A pipeline of Stable Diffusion 1's layout with random weights: the UNet a quarter as wide, the VAE half as
wide, CLIP-L's text encoder, an enhancer in its middle. The table has what autograd keeps for the backward
pass, and the time of a step, both as ratios to the loss `denoise` in float32 without checkpointing; the first
row has the figures themselves.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
from culture_core.enhancer import EnhancerConfig, LayerEnhancer  # noqa: E402  the path is set above
from culture_core.enhancer_training import ImageModel, ImagePairs, Place, StepCost, measure_step  # noqa: E402
from culture_core.pairs import PromptPair  # noqa: E402
from culture_core.pipelines import named_encoder  # noqa: E402

RUNS = (
    ("denoise", "float32", False),
    ("denoise", "float32", True),
    ("denoise", "bfloat16", False),
    ("denoise", "bfloat16", True),
    ("latent", "float32", False),
    ("pixel", "float32", False),
    ("pixel", "float32", True),
    ("pixel", "bfloat16", True),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    torch.manual_seed(0)
    pipe, first = _pipeline(), None
    print(f"{'loss':8} {'precision':9} {'checkpointing':13} {'kept':>7} {'time':>7}")
    for loss, precision, checkpointing in RUNS:
        for part in (pipe.unet, pipe.text_encoder):
            part.to(getattr(torch, precision))
        cost = _cost(pipe, options.size, loss, checkpointing)
        if first is None:
            first = cost
            print(f"one step: {cost.activations / 2**20:.0f} MiB kept, {cost.seconds:.2f} s")
        kept, took = cost.activations / first.activations, cost.seconds / first.seconds
        print(f"{loss:8} {precision:9} {checkpointing!s:13} {kept:7.2f} {took:7.2f}")


def _cost(pipe: StableDiffusionPipeline, size: int, loss: str, checkpointing: bool) -> StepCost:
    model = ImageModel(pipe)
    place = Place(named_encoder(pipe, "text_encoder"), 6)
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(Path(folder) / "a.png")
        pair = PromptPair("a", "th", "en", "thai chair", "chair", ((0, 4),), ((5, 10),), ((0, 5),), "a.png")
        pairs = ImagePairs([pair], folder, model, size)
        pairs.encode()
        enhancer = LayerEnhancer(768, 192)
        return measure_step(enhancer, model, place, pairs, loss, EnhancerConfig(), 1, checkpointing)


def _pipeline() -> StableDiffusionPipeline:
    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        model_max_length=77,
    )  # fmt: skip
    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(64, 128, 256, 256), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=2,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(80, 160, 320, 320), cross_attention_dim=768, norm_num_groups=16
    )
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
    return StableDiffusionPipeline(
        vae.eval(), CLIPTextModel(text).eval(), tokenizer, unet.eval(), scheduler, None, None,
        requires_safety_checker=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
