"""The zero-training amplifier: culture neurons of a sparse autoencoder, turned up by a slider."""

from comfy_api.latest import io

from ..culture_core.amplifier import MAX_STRENGTH, MIN_STRENGTH, MODES
from ..culture_core.comfy import amplify_clip, model_path, scheduled_conditioning
from ..culture_core.files import CultureSAE, load_culture_sae
from ..culture_core.schedule import parse_schedule
from ..culture_core.selection import MODES as TOKEN_MODES
from ..culture_core.selection import TokenSelection
from .base import (
    CultureSAEType,
    check_file,
    culture_code,
    culture_input,
    encoders_input,
    file_fingerprint,
    file_input,
    problem_of,
    schema,
)

_CULTURE = "The culture to bring out. The SAE must have neurons for it."


class CultureLoadSAE(io.ComfyNode):
    """A culture SAE from its file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureLoadSAE",
            display_name="Load Culture SAE",
            description="Loads a sparse autoencoder of a text encoder's layer, with the neurons of its "
            "cultures.",
            search_aliases=["culture", "sae", "sparse autoencoder"],
            inputs=[file_input("culture_sae", "Culture SAE. It belongs to one text encoder.")],
            outputs=[
                CultureSAEType.Output(display_name="CULTURE_SAE", tooltip="For Amplify Culture Neurons.")
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return problem_of(cls, lambda: check_file("culture_sae", file))

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None) -> str:
        return file_fingerprint("culture_sae", file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_culture_sae(model_path("culture_sae", file)))


class CultureAmplifyNeurons(io.ComfyNode):
    """A CLIP in which a culture's neurons are turned up or down."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureAmplifyNeurons",
            display_name="Amplify Culture Neurons",
            description="Turns a culture's neurons inside the text encoder up (or down), without any "
            "training. The CLIP that goes in stays as it is. Chain several to blend cultures.",
            search_aliases=["culture", "sae", "steer", "amplify"],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP of the text encoder that the SAE was made for."),
                CultureSAEType.Input("culture_sae", tooltip="From Load Culture SAE."),
                culture_input(_CULTURE),
                io.Float.Input(
                    "strength",
                    default=2.0,
                    min=MIN_STRENGTH,
                    max=MAX_STRENGTH,
                    step=0.1,
                    round=0.01,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="0 changes nothing at all, bit for bit; 1 to 3 is the useful range; higher "
                    "values bend the subject before they add culture; -1 switches the culture's neurons off.",
                ),
                *_how_inputs(),
            ],
            outputs=[io.Clip.Output(display_name="CLIP", tooltip="For CLIP Text Encode.")],
        )

    @classmethod
    def validate_inputs(cls, culture: str | None = None) -> bool | str:
        return problem_of(cls, lambda: culture is None or culture_code(culture))

    @classmethod
    def execute(
        cls,
        clip: object,
        culture_sae: CultureSAE,
        culture: str,
        strength: float,
        mode: str,
        tokens: str,
        words: str,
        encoders: str = "",
    ) -> io.NodeOutput:
        selection = TokenSelection.from_text(tokens, words)
        return io.NodeOutput(
            amplify_clip(clip, culture_sae, culture_code(culture), strength, mode, selection, encoders)
        )


class CultureEncodeSchedule(io.ComfyNode):
    """A prompt whose amplification changes over the sampling run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureEncodeSchedule",
            display_name="Encode with Culture Schedule",
            description="Encodes a prompt with a strength of the culture that changes while the picture is "
            "sampled: early steps lay out the scene, late ones draw its details. Use it in place of Amplify "
            "Culture Neurons and CLIP Text Encode.",
            search_aliases=["culture", "sae", "schedule", "prompt", "timestep"],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP of the text encoder that the SAE was made for."),
                CultureSAEType.Input("culture_sae", tooltip="From Load Culture SAE."),
                io.String.Input(
                    "text", default="", multiline=True, dynamic_prompts=True, tooltip="The prompt."
                ),
                culture_input(_CULTURE),
                io.String.Input(
                    "schedule",
                    default="0: 3, 0.5: 0",
                    tooltip="Share of the run and the strength from there on, such as '0: 3, 0.5: 0': 3 in "
                    "the first half, nothing in the second. Shares go from 0 to 1, strengths from -1 to 12.",
                ),
                io.Int.Input(
                    "ramp",
                    default=0,
                    min=0,
                    max=32,
                    tooltip="0: the strength jumps. More: it moves there evenly, in so many stretches, each "
                    "of which costs one more encode. 4 to 8 are smooth.",
                ),
                *_how_inputs(),
            ],
            outputs=[io.Conditioning.Output(display_name="CONDITIONING", tooltip="For a sampler.")],
        )

    @classmethod
    def validate_inputs(cls, culture: str | None = None, schedule: str | None = None) -> bool | str:
        return problem_of(
            cls,
            lambda: culture is None or culture_code(culture),
            lambda: schedule is None or parse_schedule(schedule),
        )

    @classmethod
    def execute(
        cls,
        clip: object,
        culture_sae: CultureSAE,
        text: str,
        culture: str,
        schedule: str,
        ramp: int,
        mode: str,
        tokens: str,
        words: str,
        encoders: str = "",
    ) -> io.NodeOutput:
        code, stretches = culture_code(culture), parse_schedule(schedule, ramp)
        selection = TokenSelection.from_text(tokens, words)
        return io.NodeOutput(
            scheduled_conditioning(clip, culture_sae, code, text, stretches, mode, selection, encoders)
        )


def _how_inputs() -> list[io.Input]:
    """How neurons are changed, and where."""
    return [
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=MODES[0],
            tooltip="inject: also wakes neurons that the prompt leaves silent, which neutral prompts "
            "need. scale: only multiplies those that are active (equation 8 of the paper); often "
            "without effect.",
        ),
        io.Combo.Input(
            "tokens",
            options=list(TOKEN_MODES),
            default=TOKEN_MODES[0],
            tooltip="content: all words of the prompt. words: only those listed below. "
            "all: begin and end tokens too. Padding and the row for prompt weights are never "
            "touched.",
        ),
        io.String.Input(
            "words",
            default="",
            tooltip="For tokens = words: words or phrases of the prompt, separated by commas, such "
            "as 'house, old bridge'. Ignored otherwise.",
        ),
        encoders_input(),
    ]


NODES = [CultureLoadSAE, CultureAmplifyNeurons, CultureEncodeSchedule]
