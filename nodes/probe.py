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
            search_aliases=["culture", "prompt pairs", "dataset", "jsonl"],
            inputs=[file_input("culture_pairs", "Prompt pairs, a JSONL file with one pair a line.")],
            outputs=[
                CulturePairsType.Output(
                    display_name="CULTURE_PAIRS",
                    tooltip="For Probe Layer, Train Culture SAE and Detect Culture Neurons.",
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
            search_aliases=["culture", "probe", "key layer", "attention", "activation patching"],
            description="Measures in which layer of the text encoder a culture modifier acts on its noun: by "
            "attention, and by patching one layer's output from the cultural into the neutral prompt. "
            "Patches of this pack that are on the CLIP do not count.",
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder to look into."),
                CulturePairsType.Input("culture_pairs", tooltip="From Load Prompt Pairs."),
                io.Int.Input(
                    "max_pairs",
                    default=60,
                    min=2,
                    max=100000,
                    tooltip="At most so many pairs, spread evenly over the file. 60 give a first answer; "
                    "use several hundred for one to rely on.",
                ),
                io.Combo.Input(
                    "direction",
                    options=[_AUTO, *DIRECTIONS],
                    default=_AUTO,
                    tooltip="Whose attention counts. auto: the paper's modifier_to_noun, or visible for "
                    "encoders in which a word sees only those before it (CLIP).",
                ),
                io.Combo.Input(
                    "reference",
                    options=list(REFERENCES),
                    default=REFERENCES[0],
                    tooltip="What stands in for the modifier in the neutral prompt. context: its other "
                    "words. none: zero.",
                ),
                encoder_input("One picture and report each; layer is that of the first."),
                io.Int.Input(
                    "bootstrap",
                    default=1000,
                    min=10,
                    max=100_000,
                    optional=True,
                    tooltip="Resamples behind the 95 % intervals. 1000 is plenty; more cost a little time.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=8,
                    min=1,
                    max=1024,
                    optional=True,
                    tooltip="Pairs at a time. Changes speed and memory, not the result; 32 suits a GPU.",
                ),
                io.Boolean.Input(
                    "per_language",
                    default=False,
                    optional=True,
                    tooltip="Also tell what each language says alone: its curves come out at 'languages', "
                    "its layer stands in the report. Needs ten pairs or more a language.",
                ),
                io.Combo.Input(
                    "criterion",
                    options=list(CRITERIA),
                    default=AUTO,
                    optional=True,
                    tooltip="What chooses the layer. attention: where it stands out most, the paper's. "
                    "causal: what activation patching names. auto: attention where it is clear, else causal.",
                ),
            ],
            outputs=[
                io.Int.Output("layer", display_name="layer", tooltip="The key layer, counted from 0."),
                io.Image.Output(
                    "curve",
                    display_name="curve",
                    tooltip="Both measures over the layers; a picture an encoder.",
                ),
                io.String.Output("report", display_name="report", tooltip="The figures, and why this layer."),
                io.Image.Output(
                    "languages",
                    display_name="languages",
                    tooltip="With per_language: attention by language, activation patching by language, and "
                    "attention by language and layer. Otherwise what is connected here does not run.",
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
