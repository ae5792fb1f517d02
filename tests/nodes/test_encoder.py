"""The loader of text encoders: folders, single files and adapters, as an artist chooses them."""

from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

import nodes

WIDTH = 16
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
