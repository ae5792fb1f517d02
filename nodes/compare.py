"""Comparing settings: a graph run at several strengths or prompts, and the pictures side by side."""

from comfy_api.latest import io
from torch import Tensor

from ..culture_core.amplifier import MAX_STRENGTH, MIN_STRENGTH
from ..culture_core.comfy import image_grid
from ..culture_core.sweep import MAX_VALUES, prompt_list, strength_sweep, sweep_labels
from .base import problem_of, schema


class CultureStrengthSweep(io.ComfyNode):
    """A list of strengths; what is connected behind it runs once for each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureStrengthSweep",
            display_name="Culture Strength Sweep",
            description="Gives a list of strengths. Connect it to a strength: everything behind runs once "
            "for each. Collect the pictures with Culture Grid.",
            search_aliases=["xy plot", "compare"],
            inputs=[
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=MIN_STRENGTH,
                    max=MAX_STRENGTH,
                    step=0.1,
                    round=0.001,
                    tooltip="First strength. 0 is the picture as it is.",
                ),
                io.Float.Input(
                    "stop",
                    default=4.0,
                    min=MIN_STRENGTH,
                    max=MAX_STRENGTH,
                    step=0.1,
                    round=0.001,
                    tooltip="Last strength. Subjects bend beyond about 3. Apply Layer Enhancer takes at most "
                    "4.",
                ),
                io.Int.Input(
                    "steps",
                    default=5,
                    min=1,
                    max=MAX_VALUES,
                    tooltip="How many strengths, first and last included. 3 to 9 fit a sheet well.",
                ),
                io.String.Input(
                    "values",
                    default="",
                    tooltip="A list to use instead, such as '0, 1, 2.5'. Empty: the range above.",
                ),
                io.String.Input(
                    "label",
                    default="strength",
                    tooltip="Stands before the number in each label. May be empty.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    "strengths",
                    display_name="strength",
                    tooltip="For the strength of another node.",
                    is_output_list=True,
                ),
                io.String.Output(
                    "texts", display_name="labels", tooltip="For Culture Grid.", is_output_list=True
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, values: str | None = None) -> bool | str:
        return problem_of(cls, lambda: strength_sweep(0, 0, 1, values or ""))

    @classmethod
    def execute(cls, start: float, stop: float, steps: int, values: str, label: str) -> io.NodeOutput:
        strengths = strength_sweep(start, stop, steps, values)
        return io.NodeOutput(strengths, sweep_labels(strengths, label))


class CulturePromptList(io.ComfyNode):
    """A list of prompts; what is connected behind it runs once for each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CulturePromptList",
            display_name="Culture Prompt List",
            description="Gives a list of prompts, such as one noun in many languages. Connect it to the text "
            "of CLIP Text Encode: everything behind runs once for each. Collect the pictures with Culture "
            "Grid.",
            search_aliases=["prompts", "languages", "list", "compare"],
            inputs=[
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="One prompt a line, at most 100. Empty lines are left out.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "texts",
                    display_name="prompt",
                    tooltip="For CLIP Text Encode, and as labels for Culture Grid.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompts: str | None = None) -> bool | str:
        return problem_of(cls, lambda: prompts is None or prompt_list(prompts))

    @classmethod
    def execute(cls, prompts: str) -> io.NodeOutput:
        return io.NodeOutput(prompt_list(prompts))


class CultureGrid(io.ComfyNode):
    """All pictures on one labelled sheet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureGrid",
            display_name="Culture Grid",
            description="Puts all pictures of a list or a batch on one sheet, each over its label.",
            search_aliases=["contact sheet", "xy plot", "compare"],
            is_input_list=True,
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="Pictures of any size. The largest keeps its pixels, others are scaled to it.",
                ),
                io.String.Input(
                    "labels",
                    default="",
                    multiline=True,
                    tooltip="One for each picture, one a line, in any script. Or from Culture Strength "
                    "Sweep. Empty: none.",
                ),
                io.Int.Input(
                    "columns",
                    default=0,
                    min=0,
                    max=100,
                    tooltip="Pictures in a row. 0: up to six in one row, more in about a square.",
                ),
                io.String.Input("title", default="", tooltip="Stands above the sheet. Empty: none."),
            ],
            outputs=[io.Image.Output("sheet", display_name="sheet", tooltip="One picture, to save or show.")],
        )

    @classmethod
    def validate_inputs(cls, title: list[str] | None = None) -> bool | str:
        return problem_of(cls)

    @classmethod
    def execute(
        cls, images: list[Tensor], labels: list[str], columns: list[int], title: list[str]
    ) -> io.NodeOutput:
        return io.NodeOutput(image_grid(images, labels, columns[0], title[0]))


NODES = [CultureStrengthSweep, CulturePromptList, CultureGrid]
