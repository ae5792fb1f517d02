"""Scoring: which culture does a picture show?"""

from comfy_api.latest import io
from torch import Tensor

from ..culture_core.comfy import judge_choices, judge_state, score_images
from .base import culture_code, culture_input, problem_of, schema


class CultureScore(io.ComfyNode):
    """CultureVQA of pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        judges = judge_choices()
        return schema(
            node_id="CultureScore",
            display_name="Score Culture (CultureVQA)",
            description="Asks a judge which culture a picture shows: one of the 15, or none. A "
            "vision-language model is asked three times, with the options in another order each time.",
            search_aliases=["judge", "vlm", "evaluate"],
            inputs=[
                io.Image.Input("images", tooltip="One picture or a batch. Each is judged."),
                culture_input("The culture that the pictures should show."),
                io.Combo.Input(
                    "judge",
                    options=judges,
                    default=judges[0],
                    tooltip="Who is asked. miniature knows the drawings of the examples and nothing else. "
                    "Others are set up on ComfyUI's machine, see the help. A server that is not yours sees "
                    "the pictures.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    "score",
                    display_name="score",
                    tooltip="Share of the judge's answers that name the culture, 0 to 1. The mean of a "
                    "batch.",
                ),
                io.String.Output(
                    "answers",
                    display_name="answers",
                    tooltip="One line for each picture, also as labels for Culture Grid.",
                ),
                io.Image.Output(
                    "picture",
                    display_name="picture",
                    tooltip="The pictures over their answers, in a green frame where they show the culture.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, culture: str | None = None) -> bool | str:
        return problem_of(cls, lambda: culture is None or culture_code(culture))

    @classmethod
    def fingerprint_inputs(cls, judge: str | None = None, **_: object) -> str:
        return judge_state(judge) if judge else ""

    @classmethod
    def execute(cls, images: Tensor, culture: str, judge: str) -> io.NodeOutput:
        return io.NodeOutput(*score_images(images, culture_code(culture), judge))


NODES = [CultureScore]
