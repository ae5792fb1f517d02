"""Writes the graphs of `evaluation/`: one a model, with all that the pack can add to it.

    python -m tools.make_systems

Nodes have names instead of numbers, which `systems.yaml` uses in its slots. A graph holds the picture as it
is, amplified, enhanced, and both at once; a run takes the one that a system names, and what it needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tools.comfy_client import Workflow

FOLDER = Path(__file__).resolve().parent.parent / "evaluation"
Link = list[Any]


def node(kind: str, title: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}


class ImageModel(NamedTuple):
    """An image model as a graph loads it."""

    nodes: Workflow
    """Its loaders, and a node `size`."""
    clip: Link
    model: Link
    vae: Link
    file: str
    """Of the culture SAE and of the enhancer, without `.safetensors`."""
    sampling: dict[str, Any]
    guide: bool = False
    """Whether the prompt goes through Flux's guidance."""


def pictures(build: Callable[[], ImageModel]) -> Workflow:
    """What all graphs have in common, after the model's own nodes."""
    nodes, clip, model, vae, name, sampling, guide = build()
    file = f"{name}.safetensors"
    graph = {
        **nodes,
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


def miniature() -> ImageModel:
    nodes = {
        "clip": node(
            "CultureLoadTextEncoder", "Text encoder", folder="multilingual-e5-small", adapter="none"
        ),
        "unet": node(
            "UNETLoader", "Model", unet_name="culture_miniature.safetensors", weight_dtype="default"
        ),
        "model": node("ModelSamplingSD3", "Model sampling", model=["unet", 0], shift=1.0),
        "vae": node("VAELoader", "VAE", vae_name="culture_miniature_vae.safetensors"),
        "size": size("EmptySD3LatentImage", 64),
    }
    return ImageModel(nodes, ["clip", 0], ["model", 0], ["vae", 0], "miniature", sampling(20, 3.0))


def checkpoint(name: str, title: str, file: str, edge: int, steps: int) -> ImageModel:
    """A model whose one file holds its encoders and its VAE too."""
    nodes = {
        "model": node("CheckpointLoaderSimple", title, ckpt_name=file),
        "size": size("EmptyLatentImage", edge),
    }
    settings = sampling(steps, 7.0, "dpmpp_2m", "karras")
    return ImageModel(nodes, ["model", 1], ["model", 0], ["model", 2], name, settings)


def sd15() -> ImageModel:
    return checkpoint("sd15", "SD 1.5", "v1-5-pruned-emaonly-fp16.safetensors", 512, 25)


def sdxl() -> ImageModel:
    return checkpoint("sdxl", "SDXL", "sd_xl_base_1.0.safetensors", 1024, 30)


def sd35() -> ImageModel:
    encoders = {
        "clip_name1": "clip_g.safetensors",
        "clip_name2": "clip_l.safetensors",
        "clip_name3": "t5xxl_fp16.safetensors",
    }
    nodes = {
        "model": node("CheckpointLoaderSimple", "SD 3.5", ckpt_name="sd3.5_large.safetensors"),
        "clip": node("TripleCLIPLoader", "Text encoders", **encoders),
        "size": size("EmptySD3LatentImage", 1024),
    }
    settings = sampling(30, 4.5, "dpmpp_2m", "sgm_uniform")
    return ImageModel(nodes, ["clip", 0], ["model", 0], ["model", 2], "sd35", settings)


def flux() -> ImageModel:
    encoders = {"clip_name1": "t5xxl_fp16.safetensors", "clip_name2": "clip_l.safetensors", "type": "flux"}
    nodes = {
        "model": node("UNETLoader", "FLUX.1-dev", unet_name="flux1-dev.safetensors", weight_dtype="default"),
        "clip": node("DualCLIPLoader", "Text encoders", **encoders, device="default"),
        "vae": node("VAELoader", "VAE", vae_name="ae.safetensors"),
        "size": size("EmptySD3LatentImage", 1024),
    }
    # FLUX.1-dev is distilled: guidance is a number that it reads, and there is no negative prompt.
    settings = sampling(28, 1.0)
    return ImageModel(nodes, ["clip", 0], ["model", 0], ["vae", 0], "flux", settings, guide=True)


def qwen_image() -> ImageModel:
    encoder = {"clip_name": "qwen_2.5_vl_7b_fp8_scaled.safetensors", "type": "qwen_image"}
    unet = {"unet_name": "qwen_image_fp8_e4m3fn.safetensors", "weight_dtype": "default"}
    nodes = {
        "clip": node("CLIPLoader", "Text encoder", **encoder, device="default"),
        "unet": node("UNETLoader", "Qwen-Image", **unet),
        "model": node("ModelSamplingAuraFlow", "Model sampling", model=["unet", 0], shift=3.1),
        "vae": node("VAELoader", "VAE", vae_name="qwen_image_vae.safetensors"),
        "size": size("EmptySD3LatentImage", 1328),
    }
    return ImageModel(nodes, ["clip", 0], ["model", 0], ["vae", 0], "qwen_image", sampling(20, 2.5))


def z_image() -> ImageModel:
    encoder = {"clip_name": "qwen_3_4b.safetensors", "type": "lumina2"}
    unet = {"unet_name": "z_image_turbo_bf16.safetensors", "weight_dtype": "default"}
    nodes = {
        "clip": node("CLIPLoader", "Text encoder", **encoder, device="default"),
        "unet": node("UNETLoader", "Z-Image-Turbo", **unet),
        "model": node("ModelSamplingAuraFlow", "Model sampling", model=["unet", 0], shift=3.0),
        "vae": node("VAELoader", "VAE", vae_name="ae.safetensors"),
        "size": size("EmptySD3LatentImage", 1024),
    }
    settings = sampling(9, 1.0, "res_multistep")
    return ImageModel(nodes, ["clip", 0], ["model", 0], ["vae", 0], "z_image", settings)


def altdiffusion() -> ImageModel:
    unet = {"unet_name": "altdiffusion_m9_unet.safetensors", "weight_dtype": "default"}
    nodes = {
        "clip": node("CultureLoadTextEncoder", "Text encoder", folder="AltDiffusion-m9", adapter="none"),
        "model": node("UNETLoader", "UNet", **unet),
        "vae": node("VAELoader", "VAE", vae_name="altdiffusion_m9_vae.safetensors"),
        "size": size("EmptyLatentImage", 512),
    }
    settings = sampling(25, 7.0, "dpmpp_2m", "karras")
    return ImageModel(nodes, ["clip", 0], ["model", 0], ["vae", 0], "altdiffusion", settings)


def pea_diffusion() -> ImageModel:
    encoder = {"folder": "CLIP-ViT-H-14-frozen-xlm-roberta-large", "adapter": "pea_sdxl.safetensors"}
    nodes = {
        "clip": node("CultureLoadTextEncoder", "Text encoder", **encoder),
        "model": node("CheckpointLoaderSimple", "SDXL", ckpt_name="sd_xl_base_1.0.safetensors"),
        "size": size("EmptyLatentImage", 1024),
    }
    settings = sampling(25, 7.0, "dpmpp_2m", "karras")
    return ImageModel(nodes, ["clip", 0], ["model", 0], ["model", 2], "pea_diffusion", settings)


MODELS = {
    build.__name__: build
    for build in (miniature, sd15, sdxl, sd35, flux, qwen_image, z_image, altdiffusion, pea_diffusion)
}
EVALUATED = ("miniature", "sdxl", "sd35", "flux", "altdiffusion", "pea_diffusion")
"""Models that `systems.yaml` evaluates; `tools.make_workflows` has a graph for each."""
GRAPHS = {name: partial(pictures, MODELS[name]) for name in EVALUATED}


def text(graph: Workflow) -> str:
    return json.dumps(graph, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    for name, build in GRAPHS.items():
        (FOLDER / f"{name}.json").write_text(text(build()), encoding="utf-8")


if __name__ == "__main__":
    main()
