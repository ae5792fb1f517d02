"""Probing: in which layer of the text encoder does a culture modifier act on its noun?"""

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..culture_core.comfy import model_path, probe_clip
from ..culture_core.key_layer import AUTO, CRITERIA
from ..culture_core.pairs import PromptPair, load_pairs
from ..culture_core.probing import DIRECTIONS, REFERENCES
from .base import (
    CulturePairsType,
    check_file,
    encoder_input,
    file_fingerprint,
    file_input,
    problem_of,
    schema,
)

_AUTO = "auto"


class CultureLoadPairs(io.ComfyNode):
    """Prompt pairs from their file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureLoadPairs",
            display_name="Load Prompt Pairs",
            description="Loads prompts that come twice: with a culture modifier and without.",
            search_aliases=["dataset", "jsonl"],
            inputs=[file_input("culture_pairs", "A JSONL file with one pair a line.")],
            outputs=[
                CulturePairsType.Output(
                    display_name="CULTURE_PAIRS",
                    tooltip="For Probe Layer, Detect Culture Neurons and the training nodes.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return problem_of(cls, lambda: check_file("culture_pairs", file))

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None) -> str:
        return file_fingerprint("culture_pairs", file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_pairs(model_path("culture_pairs", file)))


class CultureProbeLayer(io.ComfyNode):
    """The key layer of a text encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureProbeLayer",
            display_name="Probe Layer",
            description="Measures in which layer of the text encoder a culture modifier acts on its noun: by "
            "attention, and by carrying one layer's output from the cultural over into the neutral prompt.",
            search_aliases=["key layer", "attention", "activation patching"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder to look into, without patches of this pack."),
                CulturePairsType.Input("culture_pairs", tooltip="From Load Prompt Pairs."),
                io.Int.Input(
                    "max_pairs",
                    default=60,
                    min=2,
                    max=100000,
                    tooltip="At most so many pairs, spread evenly over the file. 60 give a first answer, "
                    "several hundred one to rely on.",
                ),
                io.Combo.Input(
                    "direction",
                    options=[_AUTO, *DIRECTIONS],
                    default=_AUTO,
                    tooltip="Whose attention counts. auto: modifier_to_noun as in the paper, or visible "
                    "where words see only what stands before them (CLIP).",
                ),
                io.Combo.Input(
                    "reference",
                    options=list(REFERENCES),
                    default=REFERENCES[0],
                    tooltip="What takes the modifier's place in the neutral prompt. context: its other "
                    "words. none: zero.",
                ),
                encoder_input("Each gets a picture and a report; the layer is that of the first."),
                io.Int.Input(
                    "bootstrap",
                    default=1000,
                    min=10,
                    max=100_000,
                    optional=True,
                    tooltip="Resamples behind the 95 % intervals. 1000 is plenty.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=8,
                    min=1,
                    max=1024,
                    optional=True,
                    tooltip="Pairs at a time. Changes speed and memory, not the result. 32 suits a GPU.",
                ),
                io.Boolean.Input(
                    "per_language",
                    default=False,
                    optional=True,
                    tooltip="Also measure each language alone. Needs ten pairs or more in each.",
                ),
                io.Combo.Input(
                    "criterion",
                    options=list(CRITERIA),
                    default=AUTO,
                    optional=True,
                    tooltip="What chooses the layer. attention: where it stands out most, as in the paper. "
                    "causal: activation patching. auto: attention where it is clear, else causal.",
                ),
            ],
            outputs=[
                io.Int.Output("layer", display_name="layer", tooltip="The key layer, counted from 0."),
                io.Image.Output(
                    "curve",
                    display_name="curve",
                    tooltip="Both measures over the layers, a picture for each encoder.",
                ),
                io.String.Output("report", display_name="report", tooltip="The figures, and why this layer."),
                io.Image.Output(
                    "languages",
                    display_name="languages",
                    tooltip="The same for each language, if asked for. Otherwise what is connected here does "
                    "not run.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, encoder: str | None = None) -> bool | str:
        return problem_of(cls)

    @classmethod
    def execute(
        cls,
        clip: object,
        culture_pairs: list[PromptPair],
        max_pairs: int,
        direction: str,
        reference: str,
        encoder: str,
        bootstrap: int = 1000,
        batch_size: int = 8,
        per_language: bool = False,
        criterion: str = AUTO,
    ) -> io.NodeOutput:
        chosen = None if direction == _AUTO else direction
        layer, curves, report, languages = probe_clip(
            clip, culture_pairs, chosen, reference, max_pairs, encoder, bootstrap, batch_size, per_language,
            criterion,
        )  # fmt: skip
        return io.NodeOutput(layer, curves, report, languages or ExecutionBlocker(None))


NODES = [CultureLoadPairs, CultureProbeLayer]
