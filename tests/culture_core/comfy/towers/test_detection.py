"""What a tower is, its keys say: not its name, and not its config.json."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from culture_core.comfy import TextEncoderError
from culture_core.comfy.towers import Published, Tower, detect_tower, read_published
from culture_core.comfy.towers.modules import BertTower, SiglipTower, T5Tower, XlmRobertaTower

TRUNKS = {
    "altdiffusion_m9": XlmRobertaTower, "altdiffusion_m18": XlmRobertaTower, "altclip": XlmRobertaTower,
    "open_clip": XlmRobertaTower, "m_clip": XlmRobertaTower, "xlm_roberta": XlmRobertaTower,
    "bert": BertTower, "siglip2": SiglipTower, "mt5": T5Tower, "umt5": T5Tower,
}  # fmt: skip
Publish = Callable[..., Path]


def detect(weights: dict[str, torch.Tensor], config: dict | None = None) -> Tower:
    return detect_tower(Published(Path("some file"), weights, config or {}, ()))


@pytest.mark.parametrize("kind", TRUNKS)
def test_the_trunk_is_told_from_the_keys_alone(kind: str, publish: Publish) -> None:
    weights = load_file(publish(kind) / "model.safetensors")
    assert detect(weights).transformer is TRUNKS[kind]


@pytest.mark.parametrize("kind", TRUNKS)
def test_keys_tell_all_that_the_configuration_says(kind: str, publish: Publish) -> None:
    found = read_published(publish(kind))
    without = detect_tower(found._replace(config={}))
    assert found.config or kind in ("open_clip", "m_clip")
    assert detect_tower(found).config == without.config and detect_tower(found).layer == without.layer


@pytest.mark.parametrize(
    ("kind", "shape", "pool", "layer"),
    [
        ("altdiffusion_m9", {"projection.weight": (96, 128), "projection.bias": (96,)}, "first", None),
        ("altdiffusion_m18", {"norm.weight": (128,), "projection.weight": (96, 128)}, "first", -2),
        ("altclip", {"norm.weight": (128,), "projection.weight": (96, 128)}, "first", None),
        ("open_clip", {"pooled.0.weight": (128, 128), "pooled.2.weight": (128, 128)}, "mean", None),
        ("m_clip", {"pooled.0.weight": (64, 128), "pooled.0.bias": (64,)}, "mean", None),
        ("siglip2", {"pooled.0.weight": (72, 128), "pooled.0.bias": (72,)}, "last", None),
        ("xlm_roberta", {}, "mean", None),
        ("mt5", {}, "none", None),
    ],
)  # fmt: skip
def test_the_head_is_told_from_the_keys(
    kind: str, shape: dict, pool: str, layer: int | None, publish: Publish
) -> None:
    tower = detect(load_file(publish(kind) / "model.safetensors"))
    head = tower.config["head"]
    assert shape.items() <= head.shapes.items() and (head.pool, tower.layer) == (pool, layer)
    assert bool(shape) == bool(head.shapes) and tower.zero_padding == (not shape)


def test_diffusers_class_does_without_the_norm_that_a_file_may_have(publish: Publish) -> None:
    weights = load_file(publish("altclip") / "model.safetensors")
    assert "norm.weight" in detect(weights).config["head"].shapes
    named = {"architectures": ["RobertaSeriesModelWithTransformation"]}
    assert "norm.weight" not in detect(weights, named).config["head"].shapes


def test_an_adapter_is_found_whatever_stands_in_front_of_its_keys(publish: Publish) -> None:
    weights = load_file(publish("open_clip", adapter=True) / "model.safetensors")
    head = detect(weights).config["head"]
    assert head.shapes["adapter.fc.weight"] == (112, 80) and "pooled.0.weight" in head.shapes


def test_transformers_dual_encoder_projects_its_pooler(publish: Publish, published: ModuleType) -> None:
    weights = load_file(publish("xlm_roberta") / "model.safetensors")
    dual = {f"text_model.{name}": weight for name, weight in weights.items()}
    dual |= {"text_projection.weight": torch.zeros(7, 128), "vision_model.x": torch.zeros(1)}
    head = detect(dual).config["head"]
    assert (head.pool, head.shapes) == ("first", {"pooled.0.weight": (7, 128)})
    dual |= {"text_model.pooler.dense.weight": torch.zeros(128, 128)}
    head = detect(dual).config["head"]
    assert head.shapes == {"pooled.0.weight": (128, 128), "pooled.2.weight": (7, 128)}
    assert head.activation == "tanh"


def test_unknown_keys_are_named_with_what_was_expected() -> None:
    with pytest.raises(
        TextEncoderError, match=r"some file .*word_embeddings\.weight.*\(SigLIP\).*\(T5\), found unet\.weight"
    ):
        detect({"unet.weight": torch.zeros(1)})


def test_clip_is_sent_to_comfyuis_own_loader() -> None:
    with pytest.raises(TextEncoderError, match=r"expected .*text_model\.head\.weight.*Load CLIP"):
        detect({"text_model.embeddings.token_embedding.weight": torch.zeros(9, 8)})


def test_missing_weights_are_named(publish: Publish) -> None:
    weights = load_file(publish("altclip") / "model.safetensors")
    del weights["roberta.embeddings.position_embeddings.weight"]
    with pytest.raises(TextEncoderError, match=r"position_embeddings\.weight .*found nothing"):
        detect(weights)


def test_positions_must_suffice_for_a_padded_prompt(publish: Publish) -> None:
    weights = load_file(publish("altclip") / "model.safetensors")
    name = "roberta.embeddings.position_embeddings.weight"
    weights[name] = weights[name][:78]  # XLM-R counts from 2 on
    with pytest.raises(
        TextEncoderError, match="some file has 78 positions, too few for the 77 .*expected 79"
    ):
        detect(weights)


def test_a_configuration_of_other_sizes_is_refused(publish: Publish) -> None:
    folder = publish("altclip")
    config = json.loads((folder / "config.json").read_text())
    for wrong, message in (({"hidden_size": 64}, "not of its config"), ({"num_attention_heads": 3}, "3 att")):
        (folder / "config.json").write_text(json.dumps(config | wrong))
        with pytest.raises(TextEncoderError, match=message):
            detect_tower(read_published(folder))
