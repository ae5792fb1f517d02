"""What amplifying culture neurons adds to encoding a prompt.

    python benchmarks/amplified_encode.py [--threads 1] [--rounds 15] [--comfyui]

Models of CLIP-L's size (12 layers, width 768, 77 tokens) and of XLM-R-large's (24 layers, width 1024, 77
tokens) with random weights, and SAEs of 4096 latents; a prompt of 14 content tokens, and one of 40. The
hidden state of the middle layer is patched. Plain and amplified encodes take turns, and the table shows the
median of the ratios of neighbours in processor time, with their quartiles; a second plain encode shows the
noise. At strength 0 nothing is hooked, so there is nothing to measure. With `--comfyui`, the same through
ComfyUI's CLIP-L and `patch_clip`, from the ComfyUI in COMFYUI_PATH or .comfyui.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
from culture_core.amplifier import Amplifier  # noqa: E402  the path is set above
from culture_core.encoders import HIDDEN_STATE, HFTextEncoder, Tokens  # noqa: E402
from culture_core.neurons import CultureNeurons  # noqa: E402
from culture_core.sae import TopKSAE  # noqa: E402

LATENTS, K, NEURONS = 4096, 32, 20
WORDS = 40


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--comfyui", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"{options.threads} threads, median of {options.rounds} ratios to the plain encode (quartiles)\n")
    for name, encoder in (("clip-l", clip_l()), ("xlm-r-large", xlm_r_large())):
        for words in (14, WORDS):
            compare(f"{name}, {words} tokens", hf_variants(encoder, words), options.rounds)
    if options.comfyui:
        compare("clip-l in ComfyUI, 14 tokens", comfyui_variants(14), options.rounds)


def compare(name: str, variants: dict[str, Callable[[], object]], rounds: int) -> None:
    """Print the ratios of the variants' times to that of the first."""
    seconds = times_of(variants, rounds)
    first, *others = variants
    print(f"{name}: plain {1000 * statistics.median(seconds[first]):.0f} ms")
    for variant in others:
        ratios = [a / b for a, b in zip(seconds[variant], seconds[first], strict=True)]
        low, middle, high = (100 * (ratio - 1) for ratio in statistics.quantiles(ratios, n=4))
        print(f"    {variant:22}{middle:+6.1f} %   ({low:+.1f} to {high:+.1f})")
    sys.stdout.flush()


def times_of(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of the processor of each variant, which take turns."""
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    with torch.inference_mode():
        for run in variants.values():
            run()
        for _ in range(rounds):
            for variant, run in variants.items():
                began = time.process_time()
                run()
                seconds[variant].append(time.process_time() - began)
    return seconds


def hf_variants(encoder: HFTextEncoder, words: int) -> dict[str, Callable[[], object]]:
    """Encodes of one prompt through the library."""
    ids = torch.full((1, 77), 1)
    ids[0, : words + 2] = torch.arange(words + 2) % 90 + 4
    attended, content = torch.zeros(2, 1, 77, dtype=torch.bool).unbind()
    attended[0, : words + 2] = content[0, 1 : words + 1] = True
    tokens = Tokens(ids, attended, content, None)
    layer = encoder.info.layers // 2

    def plain() -> object:
        return encoder.encode(tokens)

    def amplified(strength: float, mode: str) -> Callable[[], object]:
        amplifier = Amplifier(*sae_of(encoder.info.width), strength, mode)

        def run() -> object:
            with encoder.patch(layer, HIDDEN_STATE, lambda feature: amplifier(feature, content)):
                return encoder.encode(tokens)

        return run

    return {
        "plain": plain,
        "plain again": plain,
        "inject, strength 4": amplified(4.0, "inject"),
        "scale, strength 4": amplified(4.0, "scale"),
        "mask, strength -1": amplified(-1.0, "inject"),
    }


def sae_of(width: int) -> tuple[TopKSAE, CultureNeurons]:
    """An SAE and the neurons of a culture."""
    indices = torch.randperm(LATENTS)[:NEURONS]
    neurons = CultureNeurons(indices, *(torch.rand(NEURONS) for _ in range(4)))
    return TopKSAE(width, LATENTS, K).requires_grad_(False), neurons


def clip_l() -> HFTextEncoder:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    return HFTextEncoder(CLIPTextModel(config), SpecialTokens())


def xlm_r_large() -> HFTextEncoder:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(
        vocab_size=1000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24,
        num_attention_heads=16, max_position_embeddings=514,
    )  # fmt: skip
    return HFTextEncoder(XLMRobertaModel(config, add_pooling_layer=False), SpecialTokens())


class SpecialTokens:
    """In the place of a tokenizer: the prompts here are ids from the start."""

    special_tokens_map = {"bos_token": "0", "eos_token": "2", "pad_token": "1"}
    convert_tokens_to_ids = staticmethod(int)


def comfyui_variants(words: int) -> dict[str, Callable[[], object]]:
    """Encodes of one prompt with ComfyUI's CLIP-L, as CLIP Text Encode does them."""
    sys.path.insert(0, str(Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI").resolve()))
    import comfy.cli_args

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    import comfy.sd
    import comfy.sd1_clip

    from culture_core.comfy import patch_clip

    class Target:
        params: dict = {}
        clip = comfy.sd1_clip.SD1ClipModel
        tokenizer = comfy.sd1_clip.SD1Tokenizer

    clip = comfy.sd.CLIP(Target, model_options={"dtype": torch.float32})
    for name, weight in clip.cond_stage_model.named_parameters():
        weight.data.normal_(0, 0.02).add_(float("norm" in name and name.endswith("weight")))
    amplifier = Amplifier(*sae_of(768), 4.0)
    patched = patch_clip(clip, 6, HIDDEN_STATE, lambda _device: amplifier)
    text = " ".join(["house"] * words)

    def encode(which: comfy.sd.CLIP) -> Callable[[], object]:
        return lambda: which.encode_from_tokens(which.tokenize(text))

    return {"plain": encode(clip), "plain again": encode(clip.clone()), "inject, strength 4": encode(patched)}


if __name__ == "__main__":
    main()
