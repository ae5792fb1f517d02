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

WIDTH = 64
Models = dict[str, Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A small XLM-R with the examples' vocabulary as a single file, and two adapters."""
    base = tmp_path_factory.mktemp("models")
    found = {kind: base / kind for kind in ("text_encoders", "culture_adapters")}
    for folder in found.values():
        folder.mkdir()
    config = transformers.XLMRobertaConfig(
        vocab_size=250002, hidden_size=WIDTH, num_attention_heads=1, intermediate_size=32,
        num_hidden_layers=2, max_position_embeddings=100, type_vocab_size=1,
    )  # fmt: skip
    tower = transformers.XLMRobertaModel(config, add_pooling_layer=False)
    save_file(tower.state_dict(), found["text_encoders"] / "tower.safetensors")
    for name, context in (("sdxl", 2048), ("other", 24)):
        layers = {"layernorm": nn.LayerNorm(WIDTH), "fc": nn.Linear(1280, context)}
        for number, (inside, outside) in {0: (WIDTH, 48), 2: (48, 48), 4: (48, 1280)}.items():
            layers[f"projector.{number}"] = nn.Linear(inside, outside, bias=False)
        weights = {
            f"{layer}.{part}": weight
            for layer, of in layers.items()
            for part, weight in of.state_dict().items()
        }
        save_file(weights, found["culture_adapters"] / f"{name}.safetensors")
    return found


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
    assert {"multilingual-e5-small", "tower.safetensors"} <= set(options_of(loader, "folder"))
    assert options_of(loader, "adapter")[:3] == ["none", "other.safetensors", "sdxl.safetensors"]


def test_one_tower_serves_several_adapters_through_stock_nodes(loader: type) -> None:
    shapes = {}
    for adapter in ("none", "sdxl.safetensors", "other.safetensors"):
        context, pooled = encode(loader.execute("tower.safetensors", adapter)[0], "日本風の家")
        shapes[adapter] = (context.shape[1:], pooled.shape[1:])
    assert shapes == {
        "none": ((77, WIDTH), (WIDTH,)),
        "sdxl.safetensors": ((77, 2048), (1280,)),
        "other.safetensors": ((77, 24), (1280,)),
    }


def test_a_graph_without_an_adapter_still_runs(loader: type) -> None:
    assert encode(loader.execute("multilingual-e5-small")[0], "a house")[0].shape == (1, 32, 384)


def test_a_file_that_is_not_there_says_where_to_put_it(loader: type) -> None:
    with pytest.raises(FileNotFoundError, match="put it into .*text_encoders"):
        loader.execute("nothing.safetensors")
    with pytest.raises(FileNotFoundError, match="put it into .*culture_adapters"):
        loader.execute("tower.safetensors", "nothing.safetensors")
