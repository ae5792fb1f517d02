"""Writes the graphs of `evaluation/`: one a model, with all that the pack can add to it.

    python -m tools.make_systems

Nodes have names instead of numbers, which `systems.yaml` uses in its slots. A graph holds the picture as it
is, amplified, enhanced, and both at once; a run takes the one that a system names, and what it needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.comfy_client import Workflow

FOLDER = Path(__file__).resolve().parent.parent / "evaluation"
Link = list[Any]


def node(kind: str, title: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}


def pictures(
    clip: Link, model: Link, vae: Link, file: str, sampling: dict[str, Any], guide: bool
) -> Workflow:
    """What all graphs have in common, once there are clip, model, vae and a node `size`.

    Args:
        file: of the culture SAE and of the enhancer.
        guide: whether the prompt goes through Flux's guidance.
    """
    graph = {
        "prompt": node("PrimitiveString", "Prompt", value="a chair"),
        "negative": node("CLIPTextEncode", "Negative prompt", text="", clip=clip),
        "seed": node("PrimitiveInt", "Seed", value=1),
        "sae": node("CultureLoadSAE", "Culture SAE", file=file),
        "amplify": node(
            "CultureAmplifyNeurons", "Amplify", clip=clip, culture_sae=["sae", 0], culture="Japanese (ja)",
            strength=2.0, mode="inject", tokens="content", words="", encoders="",
        ),
        "enhancer": node("CultureLoadEnhancer", "Enhancer file", file=file),
        "enhance": node(
            "CultureApplyEnhancer", "Enhance", clip=clip, culture_enhancer=["enhancer", 0], strength=1.0,
            encoders="",
        ),
        "enhance_too": node(
            "CultureApplyEnhancer", "Enhance too", clip=["amplify", 0], culture_enhancer=["enhancer", 0],
            strength=1.0, encoders="",
        ),
    }  # fmt: skip
    sources = {"plain": clip, "amplified": ["amplify", 0], "enhanced": ["enhance", 0]}
    for name, source in {**sources, "both": ["enhance_too", 0]}.items():
        positive = f"encode_{name}"
        graph[positive] = node("CLIPTextEncode", f"Encode, {name}", text=["prompt", 0], clip=source)
        if guide:
            graph[f"guide_{name}"] = node(
                "FluxGuidance", f"Guide, {name}", conditioning=[positive, 0], guidance=3.5
            )
            positive = f"guide_{name}"
        graph[f"sample_{name}"] = node(
            "KSampler", f"Sample, {name}", model=model, seed=["seed", 0], positive=[positive, 0],
            negative=["negative", 0], latent_image=["size", 0], denoise=1.0, **sampling,
        )  # fmt: skip
        graph[f"decode_{name}"] = node("VAEDecode", f"Decode, {name}", samples=[f"sample_{name}", 0], vae=vae)
        saved = {"images": [f"decode_{name}", 0], "filename_prefix": f"culture/evaluation/{name}"}
        graph[name] = node("SaveImage", f"Save, {name}", **saved)
    return graph


def sampling(steps: int, cfg: float, sampler: str = "euler", scheduler: str = "simple") -> dict[str, Any]:
    return {"steps": steps, "cfg": cfg, "sampler_name": sampler, "scheduler": scheduler}


def size(kind: str, pixels: int) -> dict[str, Any]:
    return node(kind, "Size", width=pixels, height=pixels, batch_size=1)


def miniature() -> Workflow:
    return {
        "clip": node(
            "CultureLoadTextEncoder", "Text encoder", folder="multilingual-e5-small", adapter="none"
        ),
        "unet": node(
            "UNETLoader", "Model", unet_name="culture_miniature.safetensors", weight_dtype="default"
        ),
        "model": node("ModelSamplingSD3", "Model sampling", model=["unet", 0], shift=1.0),
        "vae": node("VAELoader", "VAE", vae_name="culture_miniature_vae.safetensors"),
        "size": size("EmptySD3LatentImage", 64),
        **pictures(
            ["clip", 0], ["model", 0], ["vae", 0], "miniature.safetensors", sampling(20, 3.0), False
        ),
    }  # fmt: skip


def sdxl() -> Workflow:
    return {
        "model": node("CheckpointLoaderSimple", "SDXL", ckpt_name="sd_xl_base_1.0.safetensors"),
        "size": size("EmptyLatentImage", 1024),
        **pictures(
            ["model", 1], ["model", 0], ["model", 2], "sdxl.safetensors",
            sampling(30, 7.0, "dpmpp_2m", "karras"), False,
        ),
    }  # fmt: skip


def sd35() -> Workflow:
    encoders = {
        "clip_name1": "clip_g.safetensors",
        "clip_name2": "clip_l.safetensors",
        "clip_name3": "t5xxl_fp16.safetensors",
    }
    return {
        "model": node("CheckpointLoaderSimple", "SD 3.5", ckpt_name="sd3.5_large.safetensors"),
        "clip": node("TripleCLIPLoader", "Text encoders", **encoders),
        "size": size("EmptySD3LatentImage", 1024),
        **pictures(
            ["clip", 0], ["model", 0], ["model", 2], "sd35.safetensors",
            sampling(30, 4.5, "dpmpp_2m", "sgm_uniform"), False,
        ),
    }  # fmt: skip


def flux() -> Workflow:
    encoders = {"clip_name1": "t5xxl_fp16.safetensors", "clip_name2": "clip_l.safetensors", "type": "flux"}
    return {
        "model": node("UNETLoader", "FLUX.1-dev", unet_name="flux1-dev.safetensors", weight_dtype="default"),
        "clip": node("DualCLIPLoader", "Text encoders", **encoders, device="default"),
        "vae": node("VAELoader", "VAE", vae_name="ae.safetensors"),
        "size": size("EmptySD3LatentImage", 1024),
        # FLUX.1-dev is distilled: guidance is a number that it reads, and there is no negative prompt.
        **pictures(["clip", 0], ["model", 0], ["vae", 0], "flux.safetensors", sampling(28, 1.0), True),
    }


def altdiffusion() -> Workflow:
    unet = {"unet_name": "altdiffusion_m9_unet.safetensors", "weight_dtype": "default"}
    return {
        "clip": node("CultureLoadTextEncoder", "Text encoder", folder="AltDiffusion-m9", adapter="none"),
        "model": node("UNETLoader", "UNet", **unet),
        "vae": node("VAELoader", "VAE", vae_name="altdiffusion_m9_vae.safetensors"),
        "size": size("EmptyLatentImage", 512),
        **pictures(
            ["clip", 0], ["model", 0], ["vae", 0], "altdiffusion.safetensors",
            sampling(25, 7.0, "dpmpp_2m", "karras"), False,
        ),
    }  # fmt: skip


def pea_diffusion() -> Workflow:
    encoder = {"folder": "CLIP-ViT-H-14-frozen-xlm-roberta-large", "adapter": "pea_sdxl.safetensors"}
    return {
        "clip": node("CultureLoadTextEncoder", "Text encoder", **encoder),
        "model": node("CheckpointLoaderSimple", "SDXL", ckpt_name="sd_xl_base_1.0.safetensors"),
        "size": size("EmptyLatentImage", 1024),
        **pictures(
            ["clip", 0], ["model", 0], ["model", 2], "pea_diffusion.safetensors",
            sampling(25, 7.0, "dpmpp_2m", "karras"), False,
        ),
    }  # fmt: skip


GRAPHS = {
    "miniature": miniature,
    "sdxl": sdxl,
    "sd35": sd35,
    "flux": flux,
    "altdiffusion": altdiffusion,
    "pea_diffusion": pea_diffusion,
}


def text(graph: Workflow) -> str:
    return json.dumps(graph, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    for name, build in GRAPHS.items():
        (FOLDER / f"{name}.json").write_text(text(build()), encoding="utf-8")


if __name__ == "__main__":
    main()
