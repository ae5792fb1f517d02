"""The layer enhancer: a small trained residual on one layer of the text encoder."""

from comfy_api.latest import io

from ..culture_core.comfy import enhance_clip, model_path
from ..culture_core.files import EnhancerFile, load_enhancer
from .base import (
    CultureEnhancerType,
    check_file,
    encoders_input,
    file_fingerprint,
    file_input,
    problem_of,
    schema,
)


class CultureLoadEnhancer(io.ComfyNode):
    """A layer enhancer from its file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureLoadEnhancer",
            display_name="Load Layer Enhancer",
            description="Loads a layer enhancer: a few trained weights on one layer of a text encoder.",
            inputs=[
                file_input("culture_enhancer", "The file. It belongs to one text encoder and image model.")
            ],
            outputs=[
                CultureEnhancerType.Output(
                    display_name="CULTURE_ENHANCER", tooltip="For Apply Layer Enhancer."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return problem_of(cls, lambda: check_file("culture_enhancer", file))

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None) -> str:
        return file_fingerprint("culture_enhancer", file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_enhancer(model_path("culture_enhancer", file)))


class CultureApplyEnhancer(io.ComfyNode):
    """A CLIP whose key layer goes through the enhancer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureApplyEnhancer",
            display_name="Apply Layer Enhancer",
            description="Adds what the enhancer has learnt to its layer of the text encoder, so that a "
            "prompt shows the culture of its language. The CLIP that goes in stays as it is.",
            search_aliases=["multilingual"],
            inputs=[
                io.Clip.Input("clip", tooltip="With the text encoder that the enhancer was trained on."),
                CultureEnhancerType.Input(
                    "culture_enhancer", tooltip="From Load Layer Enhancer or Train Layer Enhancer."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-1.0,
                    max=4.0,
                    step=0.1,
                    round=0.01,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="1 is what was trained. 0 changes nothing at all. 0.5 to 1.5 is the useful "
                    "range. Below 0 it pushes the other way.",
                ),
                encoders_input(),
            ],
            outputs=[io.Clip.Output(display_name="CLIP", tooltip="For CLIP Text Encode.")],
        )

    @classmethod
    def validate_inputs(cls, encoders: str | None = None) -> bool | str:
        return problem_of(cls)

    @classmethod
    def execute(
        cls, clip: object, culture_enhancer: EnhancerFile, strength: float, encoders: str = ""
    ) -> io.NodeOutput:
        return io.NodeOutput(enhance_clip(clip, culture_enhancer, strength, encoders))


NODES = [CultureLoadEnhancer, CultureApplyEnhancer]
