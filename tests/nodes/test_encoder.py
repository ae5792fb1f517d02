"""The loader of text encoders: folders, single files and adapters, as an artist chooses them."""

import json
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import folder_paths
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

import nodes

WIDTH = 16
WORKFLOWS = Path(__file__).parents[2] / "workflows"
Models = dict[str, Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A small XLM-R with the examples' vocabulary, plain as a single file, and as AltDiffusion's and as
    PEA-Diffusion's folder, and two adapters."""
    base = tmp_path_factory.mktemp("models")
    found = {kind: base / kind for kind in ("text_encoders", "culture_adapters")}
    torch.manual_seed(0)
    config = transformers.XLMRobertaConfig(
        vocab_size=250002, hidden_size=WIDTH, num_attention_heads=1, intermediate_size=32,
        num_hidden_layers=2, max_position_embeddings=100, type_vocab_size=1,
    )  # fmt: skip
    trunk = transformers.XLMRobertaModel(config, add_pooling_layer=False).state_dict()
    towers = {
        "tower.safetensors": trunk,
        "AltDiffusion-m9/text_encoder/model.safetensors": {
            **{f"roberta.{name}": weight for name, weight in trunk.items()},
            **named("transformation", nn.Linear(WIDTH, 768)),
        },
        "CLIP-ViT-H-14-frozen-xlm-roberta-large/open_clip_model.safetensors": {
            **{f"text.transformer.{name}": weight for name, weight in trunk.items()},
            **named("text.proj.0", nn.Linear(WIDTH, 24, bias=False)),
            **named("text.proj.2", nn.Linear(24, 32, bias=False)),
        },
    }
    for name, weights in towers.items():
        write(found["text_encoders"] / name, weights)
    for name, context in (("pea_sdxl", 2048), ("other", 24)):
        weights = named("layernorm", nn.LayerNorm(WIDTH)) | named("fc", nn.Linear(1280, context))
        for number, (inside, outside) in {0: (WIDTH, 48), 2: (48, 48), 4: (48, 1280)}.items():
            weights |= named(f"projector.{number}", nn.Linear(inside, outside, bias=False))
        write(found["culture_adapters"] / f"{name}.safetensors", weights)
    return found


def named(name: str, layer: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{name}.{part}": weight for part, weight in layer.state_dict().items()}


def write(path: Path, weights: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)


@pytest.fixture
def loader(node_classes: dict[str, type], models: Models, monkeypatch: pytest.MonkeyPatch) -> type:
    """The node, with those models in ComfyUI's folders too."""
    registry = dict(folder_paths.folder_names_and_paths)
    for kind, folder in models.items():
        paths, extensions = registry[kind]
        registry[kind] = ([str(folder), *paths], extensions)
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", registry)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return node_classes["CultureLoadTextEncoder"]


def encode(clip: Any, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        ((context, options),) = nodes.CLIPTextEncode().encode(clip, text)[0]
    return context, options["pooled_output"]


def options_of(loader: type, name: str) -> list[str]:
    return next(item for item in loader.GET_SCHEMA().inputs if item.id == name).options


def test_folders_files_and_adapters_are_listed(loader: type) -> None:
    found = options_of(loader, "folder")
    assert {"multilingual-e5-small", "tower.safetensors", "AltDiffusion-m9"} <= set(found)
    assert options_of(loader, "adapter")[:3] == ["none", "other.safetensors", "pea_sdxl.safetensors"]


def test_one_tower_serves_several_adapters_through_stock_nodes(loader: type) -> None:
    shapes = {}
    for adapter in ("none", "pea_sdxl.safetensors", "other.safetensors"):
        context, pooled = encode(loader.execute("tower.safetensors", adapter)[0], "日本風の家")
        shapes[adapter] = (context.shape[1:], pooled.shape[1:])
    assert shapes == {
        "none": ((77, WIDTH), (WIDTH,)),
        "pea_sdxl.safetensors": ((77, 2048), (1280,)),
        "other.safetensors": ((77, 24), (1280,)),
    }


def test_adapters_in_one_graph_share_the_tower(loader: type) -> None:
    clips = [loader.execute("tower.safetensors", f"{name}.safetensors")[0] for name in ("pea_sdxl", "other")]
    assert clips[0].cond_stage_model is clips[1].cond_stage_model


def test_a_changed_tower_runs_the_node_anew(loader: type, models: Models) -> None:
    file = models["text_encoders"] / "tower.safetensors"
    before = loader.fingerprint_inputs("tower.safetensors", "none")
    assert loader.fingerprint_inputs("tower.safetensors", "pea_sdxl.safetensors") != before
    file.touch()
    assert loader.fingerprint_inputs("tower.safetensors", "none") != before


def test_a_graph_without_an_adapter_still_runs(loader: type) -> None:
    assert encode(loader.execute("multilingual-e5-small")[0], "a house")[0].shape == (1, 32, 384)


def test_a_file_that_is_not_there_says_where_to_put_it(loader: type) -> None:
    with pytest.raises(FileNotFoundError, match="put it into .*text_encoders"):
        loader.execute("nothing.safetensors")
    with pytest.raises(FileNotFoundError, match="put it into .*culture_adapters"):
        loader.execute("tower.safetensors", "nothing.safetensors")


# --------------------------------------------------------------------------------------- the shipped graphs

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
    "channel_mult": (1, 2), "transformer_depth": [0, 1], "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 1, "use_spatial_transformer": True, "legacy": False, "dtype": torch.float32,
}  # fmt: skip
KINDS = {
    "altdiffusion": (
        comfy.supported_models.SD15,
        {"context_dim": 768, "use_linear_in_transformer": False, "adm_in_channels": None},
    ),
    "pea_diffusion": (
        comfy.supported_models.SDXL,
        {
            "context_dim": 2048, "use_linear_in_transformer": True, "adm_in_channels": 2816,
            "num_classes": "sequential",
        },
    ),
}  # fmt: skip


def stable_diffusion(kind: str) -> comfy.model_patcher.ModelPatcher:
    """ComfyUI's Stable Diffusion with a small UNet of random weights."""
    family, widths = KINDS[kind]
    model = family(UNET | widths).get_model({}, device="cpu")
    generator = torch.Generator().manual_seed(1)
    for weight in model.diffusion_model.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.data = noise * (weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def small_vae() -> comfy.sd.VAE:
    vae = comfy.taesd.taesd.TAESD()
    for weight in vae.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    return comfy.sd.VAE(sd=vae.state_dict())


def run(workflow: dict, title: str, given: dict[str, tuple], node_classes: dict[str, type]) -> Any:
    """The first output of the node of that title, with the nodes that it needs, one by one; `given`: outputs
    of loaders by their class."""
    done: dict[str, tuple] = {}

    def output(number: str, slot: int) -> Any:
        node = workflow[number]
        if number not in done:
            kind = node["class_type"]
            inputs = {
                name: output(*value) if isinstance(value, list) else value
                for name, value in node["inputs"].items()
                if kind not in given
            }
            if kind in given:
                done[number] = given[kind]
            elif kind in node_classes:
                done[number] = node_classes[kind].execute(**inputs).args
            else:
                stock = nodes.NODE_CLASS_MAPPINGS[kind]
                done[number] = getattr(stock(), stock.FUNCTION)(**inputs)
        return done[number][slot]

    (number,) = (number for number, node in workflow.items() if node["_meta"]["title"] == title)
    with torch.inference_mode():
        return output(number, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shipped_graph_makes_pictures_that_follow_the_prompt(
    kind: str, loader: type, node_classes: dict[str, type]
) -> None:
    """Node by node, with stock nodes; models are those of the graph's names, small."""
    workflow = json.loads((WORKFLOWS / f"{kind}_api.json").read_text(encoding="utf-8"))
    model, vae = stable_diffusion(kind), small_vae()
    given = {"UNETLoader": (model,), "VAELoader": (vae,), "CheckpointLoaderSimple": (model, None, vae)}
    for node in workflow.values():
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"] |= {"width": 64, "height": 64}
        if node["class_type"] == "KSampler":
            node["inputs"] |= {"steps": 2}
    pictures = []
    for text in ("ein Haus", "古い橋"):
        prompt = next(node for node in workflow.values() if node["_meta"]["title"] == "Prompt")
        prompt["inputs"]["text"] = text
        pictures.append(run(workflow, "Decode", given, node_classes))
    assert pictures[0].shape == (1, 64, 64, 3) and all(picture.isfinite().all() for picture in pictures)
    assert not torch.equal(*pictures)
