"""What every node promises to artists and to saved workflows."""

import inspect
import json
import sys
from pathlib import Path

import pytest

from culture_core.comfy.folders import OWN_KINDS
from culture_core.cultures import CULTURES

LOCALES = Path(__file__).resolve().parents[2] / "locales"

DISPLAY_NAMES = {
    "CultureLoadSAE": "Load Culture SAE",
    "CultureAmplifyNeurons": "Amplify Culture Neurons",
    "CultureLoadEnhancer": "Load Layer Enhancer",
    "CultureApplyEnhancer": "Apply Layer Enhancer",
    "CultureLoadPairs": "Load Prompt Pairs",
    "CultureProbeLayer": "Probe Layer",
    "CultureLoadTextEncoder": "Load Multilingual Text Encoder",
    "CultureEncodeSchedule": "Encode with Culture Schedule",
    "CultureTrainSAE": "Train Culture SAE",
    "CultureDetectNeurons": "Detect Culture Neurons",
    "CultureTrainEnhancer": "Train Layer Enhancer",
    "CultureSaveSAE": "Save Culture SAE",
    "CultureSaveEnhancer": "Save Layer Enhancer",
    "CultureStrengthSweep": "Culture Strength Sweep",
    "CulturePromptList": "Culture Prompt List",
    "CultureGrid": "Culture Grid",
    "CultureScore": "Score Culture (CultureVQA)",
    "CultureFromPrompt": "Culture from Prompt Language",
    "CultureModifier": "Culture Modifier",
}
WIDGETS = {
    "CultureLoadSAE": ["file"],
    "CultureAmplifyNeurons": ["culture", "strength", "mode", "tokens", "words", "encoders"],
    "CultureLoadEnhancer": ["file"],
    "CultureApplyEnhancer": ["strength", "encoders"],
    "CultureLoadPairs": ["file"],
    "CultureProbeLayer": [
        "max_pairs", "direction", "reference", "encoder", "bootstrap", "batch_size", "per_language",
        "criterion",
    ],
    "CultureLoadTextEncoder": ["folder", "adapter"],
    "CultureEncodeSchedule": [
        "text", "culture", "schedule", "ramp", "mode", "tokens", "words", "encoders",
    ],
    "CultureTrainSAE": [
        "layer", "feature", "latents", "k", "steps", "batch_size", "learning_rate", "seed", "checkpoint",
        "encoder", "extra_text", "precision",
    ],
    "CultureDetectNeurons": ["contrast", "count", "tau", "by_effect"],
    "CultureTrainEnhancer": [
        "pictures", "layer", "loss", "size", "bottleneck", "steps", "accumulate", "learning_rate", "ema",
        "seed", "checkpoint", "encoder", "precision", "gradient_checkpointing",
    ],
    "CultureSaveSAE": ["filename_prefix", "author", "licence", "description"],
    "CultureSaveEnhancer": ["filename_prefix", "author", "licence", "description"],
    "CultureStrengthSweep": ["start", "stop", "steps", "values", "label"],
    "CulturePromptList": ["prompts"],
    "CultureGrid": ["labels", "columns", "title"],
    "CultureScore": ["culture", "judge"],
    "CultureFromPrompt": ["text", "threshold", "override", "when_unsure"],
    "CultureModifier": ["text", "culture", "language"],
}  # fmt: skip
OUTPUTS = {
    "CultureProbeLayer": ["layer", "curve", "report", "languages"],
    "CultureTrainSAE": ["CULTURE_SAE", "loss", "report"],
    "CultureDetectNeurons": ["CULTURE_SAE", "picture", "report"],
    "CultureTrainEnhancer": ["CULTURE_ENHANCER", "loss", "report"],
    "CultureSaveSAE": ["path"],
    "CultureSaveEnhancer": ["path"],
    "CultureStrengthSweep": ["strength", "labels"],
    "CulturePromptList": ["prompt"],
    "CultureGrid": ["sheet"],
    "CultureScore": ["score", "answers", "picture"],
    "CultureFromPrompt": ["text", "culture", "language", "confidence", "report"],
    "CultureModifier": ["text"],
}
ADDED_LATER = {
    "CultureSaveSAE": ["preview"],
    "CultureSaveEnhancer": ["preview"],
    "CultureAmplifyNeurons": ["encoders"],
    "CultureApplyEnhancer": ["encoders"],
    "CultureProbeLayer": ["bootstrap", "batch_size", "per_language", "criterion"],
    "CultureLoadTextEncoder": ["adapter"],
}
"""Saved workflows hold widget values by position: append, never insert or rename."""
SOCKETS = {"preview", "model", "vae", "clip", "culture_sae", "culture_enhancer", "culture_pairs", "images"}


def test_the_pack_offers_exactly_these_nodes(node_classes: dict[str, type]) -> None:
    names = {name: node.GET_SCHEMA().display_name for name, node in node_classes.items()}
    assert names == DISPLAY_NAMES


@pytest.mark.parametrize("name", DISPLAY_NAMES)
def test_a_node_explains_itself(name: str, node_classes: dict[str, type]) -> None:
    schema = node_classes[name].GET_SCHEMA()
    assert schema.category == "culture" and schema.description
    assert all(item.tooltip and item.tooltip.endswith(".") for item in schema.inputs)
    assert all(output.display_name and output.tooltip for output in schema.outputs)


@pytest.mark.parametrize("name", WIDGETS)
def test_widgets_keep_their_order(name: str, node_classes: dict[str, type]) -> None:
    inputs = [item.id for item in node_classes[name].GET_SCHEMA().inputs]
    assert [item for item in inputs if item not in SOCKETS] == WIDGETS[name]


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_keep_their_order(name: str, node_classes: dict[str, type]) -> None:
    assert [output.display_name for output in node_classes[name].GET_SCHEMA().outputs] == OUTPUTS[name]


@pytest.mark.parametrize("name", ADDED_LATER)
def test_graphs_saved_before_an_input_was_added_still_run(name: str, node_classes: dict[str, type]) -> None:
    inputs = {item.id: item for item in node_classes[name].GET_SCHEMA().inputs}
    assert all(inputs[added].optional for added in ADDED_LATER[name])


def test_a_training_seed_has_no_control_that_changes_it(node_classes: dict[str, type]) -> None:
    # A new seed after every run would make a cancelled training start anew.
    _, options = node_classes["CultureTrainSAE"].INPUT_TYPES()["required"]["seed"]
    assert options["control_after_generate"] is False


def test_the_amplifiers_strength_is_a_slider_from_mask_to_twelve(node_classes: dict[str, type]) -> None:
    _, options = node_classes["CultureAmplifyNeurons"].INPUT_TYPES()["required"]["strength"]
    assert (options["min"], options["max"], options["step"]) == (-1.0, 12.0, 0.1)
    assert options["display"] == "slider" and options["round"] <= 0.1


def test_the_enhancers_strength_is_a_slider_that_starts_at_one(node_classes: dict[str, type]) -> None:
    _, options = node_classes["CultureApplyEnhancer"].INPUT_TYPES()["required"]["strength"]
    assert options["display"] == "slider" and options["default"] == 1.0


def test_loading_the_pack_registers_its_folders(node_classes: dict[str, type]) -> None:
    import folder_paths

    assert set(OWN_KINDS) <= set(folder_paths.folder_names_and_paths)


@pytest.fixture
def aliases(node_classes: dict[str, type], monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What node search finds each node by, also where this version of ComfyUI has no such field."""
    base = inspect.getmodule(next(iter(node_classes.values()))).__package__ + ".base"
    io = sys.modules[base].io

    class Schema(io.Schema):
        def __init__(self, search_aliases: list[str], **fields: object) -> None:
            super().__init__(**fields)
            self.search_aliases = search_aliases

    monkeypatch.setattr(sys.modules[base], "_KNOWN", sys.modules[base]._KNOWN | {"search_aliases"})
    monkeypatch.setattr(io, "Schema", Schema)
    return {name: node.define_schema().search_aliases for name, node in node_classes.items()}


def test_search_finds_every_node_by_every_culture(aliases: dict[str, list[str]]) -> None:
    names = {
        name for culture in CULTURES.values() for name in (culture.name, culture.autonym, culture.region)
    }
    assert all(names <= set(found) for found in aliases.values())


def test_search_finds_every_node_by_culture_style_and_country_in_all_languages(
    aliases: dict[str, list[str]],
) -> None:
    files = list(LOCALES.glob("*/main.json"))
    words = {json.loads(file.read_text(encoding="utf-8"))["cultureSearch"] for file in files}
    assert len(files) == 16 and "culture, cultural, style, country" in words
    assert all(set(", ".join(words).split(", ")) <= set(found) for found in aliases.values())


def test_a_node_has_aliases_of_its_own(aliases: dict[str, list[str]]) -> None:
    assert aliases["CultureAmplifyNeurons"][:2] == ["sae", "steer"]
    assert all(len(found) == len(set(found)) for found in aliases.values())
