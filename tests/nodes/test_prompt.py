"""Culture from Prompt Language and Culture Modifier without a server."""

from typing import Any

import pytest
import torch

from culture_core.cultures import CULTURES


@pytest.fixture
def detect(node_classes: dict[str, type]) -> Any:
    def run(text: str, override: str = "auto", when_unsure: str = "off", threshold: float = 0.1) -> tuple:
        return node_classes["CultureFromPrompt"].execute(text, threshold, override, when_unsure).args

    return run


def test_the_culture_is_a_choice_that_the_amplifier_offers(
    detect: Any, node_classes: dict[str, type]
) -> None:
    offered = node_classes["CultureAmplifyNeurons"].INPUT_TYPES()["required"]["culture"][1]["options"]
    for text, culture in (("ein altes Haus", "German (de)"), ("casa", "none")):
        assert detect(text)[:2] == (text, culture) and culture in offered


def test_the_outputs_say_language_confidence_and_why(detect: Any) -> None:
    _, _, language, confidence, report = detect("ein altes Haus")
    assert language == "de" and 0.1 < confidence <= 1 and "The prompt is German." in report
    _, _, language, confidence, report = detect("casa")
    assert language == "unclear" and confidence < 0.1 and "nothing is steered" in report


@pytest.mark.parametrize("choice", ["Portuguese (pt)", "pt"])
def test_the_override_wins(detect: Any, choice: str) -> None:
    assert detect("casa", choice)[1] == "Portuguese (pt)"
    assert detect("ein altes Haus", choice, "stop")[1:3] == ("Portuguese (pt)", "de")


def test_stop_stops_on_unclear_prompts_alone(detect: Any) -> None:
    assert detect("ein altes Haus", when_unsure="stop")[1] == "German (de)"
    with pytest.raises(ValueError, match="unclear"):
        detect("casa", when_unsure="stop")


def test_an_output_and_an_input_of_a_choice_have_one_type(node_classes: dict[str, type]) -> None:
    described = node_classes["CultureFromPrompt"].GET_NODE_INFO_V1()
    taken = node_classes["CultureAmplifyNeurons"].INPUT_TYPES()["required"]["culture"][0]
    assert described["output"][1] == taken == "COMBO"


def test_no_culture_changes_nothing(plain_clip: Any, node_classes: dict[str, type]) -> None:
    sae = node_classes["CultureLoadSAE"].execute("miniature.safetensors")[0]
    rest = ("inject", "content", "", "")
    amplified = node_classes["CultureAmplifyNeurons"].execute(plain_clip, sae, "none", 3.0, *rest)[0]
    before, after = (clip.encode_from_tokens(clip.tokenize("Baum")) for clip in (plain_clip, amplified))
    assert torch.equal(before, after) and amplified is not plain_clip
    encode = node_classes["CultureEncodeSchedule"].execute
    scheduled = encode(plain_clip, sae, "Baum", "none", "0: 3", 0, *rest)[0]
    assert torch.equal(scheduled[0][0], before)


def test_the_modifier_is_put_in_or_left_out(node_classes: dict[str, type]) -> None:
    node = node_classes["CultureModifier"]
    assert (
        node.execute("ponte, acquerello", "Italian (it)", "own")[0] == "ponte in stile italiano, acquerello"
    )
    assert node.execute("bridge", "it", "English")[0] == "bridge in the Italian style"
    assert node.execute("bridge", "none", "own")[0] == "bridge"


@pytest.mark.parametrize("name, field", [("CultureFromPrompt", "override"), ("CultureModifier", "culture")])
def test_an_unknown_culture_is_explained_before_the_graph_runs(
    node_classes: dict[str, type], name: str, field: str
) -> None:
    validate = node_classes[name].validate_inputs
    assert "Unknown culture 'Martian'" in validate(**{field: "Martian"})
    assert all(validate(**{field: known}) is True for known in (*CULTURES, "Thai (th)"))
    assert validate(**{field: "auto" if field == "override" else "none"}) is True
