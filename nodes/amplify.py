"""The zero-training amplifier: culture neurons of a sparse autoencoder, turned up by a slider."""

from comfy_api.latest import io

from ..culture_core.amplifier import MAX_STRENGTH, MIN_STRENGTH, MODES
from ..culture_core.comfy import amplify_clip, model_path, scheduled_conditioning
from ..culture_core.files import CultureSAE, load_culture_sae
from ..culture_core.schedule import parse_schedule
from ..culture_core.selection import MODES as TOKEN_MODES
from ..culture_core.selection import TokenSelection
from ..culture_core.strength_warnings import strength_warnings
from .base import (
    CultureSAEType,
    check_file,
    culture_input,
    culture_or_none,
    encoders_input,
    file_fingerprint,
    file_input,
    problem_of,
    schema,
    warnings_ui,
)

_CULTURE = (
    "The culture to bring out. The SAE must have neurons for it. none: nothing is changed. Culture from "
    "Prompt Language can be connected here."
)


class CultureLoadSAE(io.ComfyNode):
    """A culture SAE from its file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureLoadSAE",
            display_name="Load Culture SAE",
            description="Loads a sparse autoencoder (SAE) of one layer of a text encoder, with the neurons "
            "of each culture.",
            search_aliases=["sparse autoencoder"],
            inputs=[file_input("culture_sae", "The file. It belongs to one text encoder.")],
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
            description="Turns a culture's neurons in the text encoder up or down, without any training. The "
            "CLIP that goes in stays as it is. Chain several to blend cultures.",
            search_aliases=["sae", "steer", "blend"],
            inputs=[
                *_with_sae_inputs(),
                culture_input(_CULTURE, none=True),
                io.Float.Input(
                    "strength",
                    default=2.0,
                    min=MIN_STRENGTH,
                    max=MAX_STRENGTH,
                    step=0.1,
                    round=0.01,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="0 changes nothing at all. 1 to 3 is the useful range. More bends the subject "
                    "before it adds culture. -1 switches the culture's neurons off.",
                ),
                *_how_inputs(),
            ],
            outputs=[io.Clip.Output(display_name="CLIP", tooltip="For CLIP Text Encode.")],
        )

    @classmethod
    def validate_inputs(cls, culture: str | None = None) -> bool | str:
        return problem_of(cls, lambda: culture is None or culture_or_none(culture))

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
        code, selection = culture_or_none(culture), TokenSelection.from_text(tokens, words)
        amplified = amplify_clip(clip, culture_sae, code, strength, mode, selection, encoders)
        return io.NodeOutput(
            amplified, ui=warnings_ui(strength_warnings(culture_sae, code, [strength], mode))
        )


class CultureEncodeSchedule(io.ComfyNode):
    """A prompt whose amplification changes over the sampling run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureEncodeSchedule",
            display_name="Encode with Culture Schedule",
            description="Encodes a prompt with a culture whose strength changes during sampling: early steps "
            "lay out the scene, late ones draw details. Stands in for Amplify Culture Neurons and CLIP Text "
            "Encode.",
            search_aliases=["sae", "prompt", "timestep"],
            inputs=[
                *_with_sae_inputs(),
                io.String.Input(
                    "text", default="", multiline=True, dynamic_prompts=True, tooltip="The prompt."
                ),
                culture_input(_CULTURE, none=True),
                io.String.Input(
                    "schedule",
                    default="0: 3, 0.5: 0",
                    tooltip="Pairs of a share of the run (0 to 1) and the strength from there on (-1 to 12). "
                    "'0: 3, 0.5: 0' is 3 in the first half and nothing in the second.",
                ),
                io.Int.Input(
                    "ramp",
                    default=0,
                    min=0,
                    max=32,
                    tooltip="0: the strength jumps. More: it moves evenly in so many small steps, each of "
                    "which costs one encode. 4 to 8 are smooth.",
                ),
                *_how_inputs(),
            ],
            outputs=[io.Conditioning.Output(display_name="CONDITIONING", tooltip="For a sampler.")],
        )

    @classmethod
    def validate_inputs(cls, culture: str | None = None, schedule: str | None = None) -> bool | str:
        return problem_of(
            cls,
            lambda: culture is None or culture_or_none(culture),
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
        code, stretches = culture_or_none(culture), parse_schedule(schedule, ramp)
        selection = TokenSelection.from_text(tokens, words)
        conditioning = scheduled_conditioning(
            clip, culture_sae, code, text, stretches, mode, selection, encoders
        )
        strengths = [stretch.strength for stretch in stretches]
        return io.NodeOutput(
            conditioning, ui=warnings_ui(strength_warnings(culture_sae, code, strengths, mode))
        )


def _with_sae_inputs() -> list[io.Input]:
    """An encoder, and what takes it apart."""
    return [
        io.Clip.Input("clip", tooltip="With the text encoder that the SAE was made for."),
        CultureSAEType.Input("culture_sae", tooltip="From Load Culture SAE or Detect Culture Neurons."),
    ]


def _how_inputs() -> list[io.Input]:
    """How neurons are changed, and where."""
    return [
        io.Combo.Input(
            "mode",
            options=list(MODES),
            default=MODES[0],
            tooltip="inject: also wakes neurons that the prompt leaves silent, as neutral prompts need. "
            "scale: only multiplies active ones (equation 8 of the paper), often without effect.",
        ),
        io.Combo.Input(
            "tokens",
            options=list(TOKEN_MODES),
            default=TOKEN_MODES[0],
            tooltip="content: all words of the prompt. words: only those listed below. all: begin and end "
            "tokens too. Padding is never touched.",
        ),
        io.String.Input(
            "words",
            default="",
            tooltip="Words or phrases of the prompt, separated by commas: 'house, old bridge'. Only for "
            "the choice 'words' above.",
        ),
        encoders_input(),
    ]


NODES = [CultureLoadSAE, CultureAmplifyNeurons, CultureEncodeSchedule]
