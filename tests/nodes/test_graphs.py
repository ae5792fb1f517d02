"""The shipped graphs for models of other people, node by node with small models of random weights.

Everything but the loaders of the image model and of its text encoders runs as shipped. Those loaders tell a
model by its true sizes (SD 1.5's and SDXL's channels, the heads of Flux, Qwen-Image and Z-Image, and all text
encoders), so their small models are built by the classes that the loaders would take.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import comfy.ldm.wan.vae
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import folder_paths
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import nodes
from culture_core.comfy import ComfyTextEncoder
from culture_core.files import CultureSAE, save_culture_sae
from culture_core.neurons import CultureNeurons
from culture_core.sae import TopKSAE
from tools.graphs import GRAPHS
from tools.make_workflows import API

FAMILIES_FILE = Path(__file__).parents[1] / "culture_core" / "comfy" / "conftest.py"
ON_CPU = torch.device("cpu")

_UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
    "channel_mult": (1, 2), "transformer_depth": [0, 1], "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 1, "use_spatial_transformer": True, "legacy": False,
}  # fmt: skip
_SDXL = _UNET | {"use_linear_in_transformer": True, "num_classes": "sequential"}
_SD15 = _UNET | {"context_dim": 768, "use_linear_in_transformer": False, "adm_in_channels": None}
_SIZES = 6 * 256
"""What SDXL adds to the pooled vector: six numbers, each as 256 waves."""


class Small(NamedTuple):
    """A model like the graph's."""

    family: str
    """Of its text encoder, among those of the tests of encoders."""
    kind: type
    config: dict[str, Any]


SMALL = {
    "sd15": Small("sd1", comfy.supported_models.SD15, _SD15 | {"context_dim": 64}),
    "sdxl": Small(
        "sdxl", comfy.supported_models.SDXL, _SDXL | {"context_dim": 128, "adm_in_channels": 64 + _SIZES}
    ),
    "sd35": Small(
        "sd3", comfy.supported_models.SD3,
        {
            "input_size": None, "patch_size": 2, "in_channels": 16, "depth": 1, "num_patches": 256,
            "pos_embed_scaling_factor": None, "pos_embed_max_size": 16, "adm_in_channels": 128,
            "context_size": 4096,
            "context_embedder_config": {
                "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 64},
            },
        },
    ),
    "flux": Small(
        "flux", comfy.supported_models.Flux,
        {
            "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 64,
            "context_in_dim": 48, "hidden_size": 64, "mlp_ratio": 4.0, "num_heads": 2, "depth": 1,
            "depth_single_blocks": 1, "axes_dim": [8, 12, 12], "theta": 10000, "patch_size": 2,
            "qkv_bias": True, "guidance_embed": True,
        },
    ),
    "qwen_image": Small(
        "qwen_image", comfy.supported_models.QwenImage,
        {
            "image_model": "qwen_image", "num_layers": 1, "attention_head_dim": 32, "num_attention_heads": 2,
            "joint_attention_dim": 48, "axes_dims_rope": (8, 12, 12), "in_channels": 64,
        },
    ),
    "z_image": Small(
        "z_image", comfy.supported_models.ZImage,
        {
            "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 256, "cap_feat_dim": 48,
            "n_layers": 1, "n_refiner_layers": 1, "qk_norm": True, "n_heads": 8, "n_kv_heads": 8,
            "axes_dims": [8, 12, 12], "axes_lens": [1536, 512, 512], "rope_theta": 256.0,
            "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True, "time_scale": 1000.0,
            "pad_tokens_multiple": 32,
        },
    ),
    "altdiffusion": Small("altdiffusion_m9", comfy.supported_models.SD15, _SD15 | {"context_dim": 96}),
    "pea_diffusion": Small(
        "pea_diffusion", comfy.supported_models.SDXL,
        _SDXL | {"context_dim": 112, "adm_in_channels": 80 + _SIZES},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def families() -> ModuleType:
    """Text encoders of every family, small."""
    spec = importlib.util.spec_from_file_location("culture_small_families", FAMILIES_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def image_model(small: Small) -> comfy.model_patcher.ModelPatcher:
    """ComfyUI's own model of that kind with random weights."""
    config = small.kind(small.config | {"dtype": torch.float32})
    model = config.get_model({}, device="cpu")
    generator = torch.Generator().manual_seed(1)
    parts = model.diffusion_model
    for weight in (*parts.parameters(), *parts.buffers()):  # SD3's positions are a buffer, filled from a file
        noise = torch.randn(weight.shape, generator=generator)
        weight.data = noise * (weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1)
    return comfy.model_patcher.ModelPatcher(model, load_device=ON_CPU, offload_device=ON_CPU)


def write_vae(path: Path, latent_channels: int, video: bool) -> None:
    """A small VAE as its file; the loader knows it by its keys."""
    if video:
        vae: nn.Module = comfy.ldm.wan.vae.WanVAE(
            dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
            temperal_downsample=[False, True, True], dropout=0.0,
        )  # fmt: skip
    else:
        vae = comfy.taesd.taesd.TAESD(latent_channels=latent_channels)
    torch.manual_seed(2)
    for name, weight in vae.named_parameters():
        nn.init.ones_(weight) if name.endswith("gamma") else nn.init.normal_(weight, std=0.05)
    save_file({name: weight.contiguous() for name, weight in vae.state_dict().items()}, path)


def write_sae(path: Path, clip: comfy.sd.CLIP, taken: dict[str, int]) -> None:
    """A culture SAE for the last encoder of the CLIP, which carries most of the prompt (Flux: t5xxl)."""
    key = list(taken)[-1]
    encoder = ComfyTextEncoder(clip, key)
    sae = TopKSAE(encoder.info.width, 32, 4)
    ones = torch.ones(4)
    neurons = {"ja": CultureNeurons(torch.arange(4), ones, ones, ones, ones * 0)}
    save_culture_sae(
        CultureSAE(sae, taken[key], "hidden_state", encoder.fingerprint(), neurons, encoder_key=key), path
    )


def run(
    workflow: dict, title: str, given: dict[str, tuple], node_classes: dict[str, type], done: dict[str, tuple]
) -> Any:
    """The first output of the node of that title, with the nodes that it needs, one by one; `given`: outputs
    of loaders by their class."""

    def output(number: str, slot: int) -> Any:
        node = workflow[number]
        if number not in done:
            kind = node["class_type"]
            inputs = {
                name: output(*value) if isinstance(value, list) else value
                for name, value in node["inputs"].items()
                if kind not in given
            }
            done[number] = given[kind] if kind in given else call(kind, inputs)
        return done[number][slot]

    def call(kind: str, inputs: dict[str, Any]) -> tuple:
        node = node_classes.get(kind) or nodes.NODE_CLASS_MAPPINGS[kind]
        if hasattr(node, "define_schema"):
            return node.execute(**inputs).args
        return getattr(node(), node.FUNCTION)(**inputs)

    (number,) = (number for number, node in workflow.items() if node["_meta"]["title"] == title)
    with torch.inference_mode():
        return output(number, 0)


@pytest.fixture(scope="module", autouse=True)
def extra_nodes() -> None:
    """ComfyUI's nodes that are not in its `nodes` module."""
    from comfy_extras import nodes_flux, nodes_model_advanced, nodes_primitive, nodes_sd3

    for module in (nodes_flux, nodes_model_advanced, nodes_primitive, nodes_sd3):
        nodes.NODE_CLASS_MAPPINGS |= getattr(module, "NODE_CLASS_MAPPINGS", {})
        for name, node in vars(module).items():
            if isinstance(node, type) and hasattr(node, "define_schema"):
                nodes.NODE_CLASS_MAPPINGS.setdefault(node.GET_SCHEMA().node_id or name, node)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Where a file of a kind goes so that ComfyUI finds it."""
    registry = dict(folder_paths.folder_names_and_paths)
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", registry)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})

    def path(kind: str, name: str) -> Path:
        folder = tmp_path / kind
        folder.mkdir(exist_ok=True)
        paths, extensions = registry[kind]
        registry[kind] = ([str(folder), *paths], extensions)
        return folder / name

    return path


def test_every_graph_for_a_model_that_is_not_shipped_is_run_here() -> None:
    assert set(SMALL) == {name.removeprefix("amplify_") for name in GRAPHS if name.startswith("amplify_")}


@pytest.mark.parametrize("name", SMALL)
def test_a_graph_draws_a_picture_that_amplifying_changes_and_strength_zero_does_not(
    name: str, families: ModuleType, node_classes: dict[str, type], place: Callable[[str, str], Path]
) -> None:
    workflow = json.loads((API / f"amplify_{name}.json").read_text(encoding="utf-8"))
    small = SMALL[name]
    family = families.FAMILIES[small.family]
    clip, model = family.build(), image_model(small)
    kinds = {node["class_type"]: node["inputs"] for node in workflow.values()}
    if "VAELoader" in kinds:
        path = place("vae", kinds["VAELoader"]["vae_name"])
        write_vae(path, 4 if name == "altdiffusion" else 16, name == "qwen_image")
    else:
        write_vae(place("vae", "checkpoint.safetensors"), 16 if name == "sd35" else 4, False)
    vae = nodes.VAELoader().load_vae(
        kinds.get("VAELoader", {"vae_name": "checkpoint.safetensors"})["vae_name"]
    )[0]
    write_sae(place("culture_sae", kinds["CultureLoadSAE"]["file"]), clip, family.taken)
    given = {kind: (clip,) for kind in kinds if "CLIPLoader" in kind or kind == "CultureLoadTextEncoder"}
    given |= {"UNETLoader": (model,), "CheckpointLoaderSimple": (model, clip, vae)}
    for node in workflow.values():
        if node["class_type"].startswith("Empty"):
            node["inputs"] |= {"width": 64, "height": 64}
        if node["class_type"] == "KSampler":
            node["inputs"] |= {"steps": 2}
    plain = run(workflow, "Decode as it is", given, node_classes, {})
    amplified = run(workflow, "Decode amplified", given, node_classes, {})
    assert plain.shape[-3:] == (64, 64, 3) and bool(plain.isfinite().all()) and float(plain.std()) > 0
    assert not torch.equal(plain, amplified)
    next(node for node in workflow.values() if node["_meta"]["title"] == "Amplify")["inputs"]["strength"] = (
        0.0
    )
    assert torch.equal(run(workflow, "Decode amplified", given, node_classes, {}), plain)
