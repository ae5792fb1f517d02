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
            "vision-language model is asked three times, with the options in another order each time. Judges "
            "are set up on the machine that ComfyUI runs on, never in a workflow.",
            search_aliases=["culture", "vqa", "judge", "score", "vlm", "evaluate"],
            inputs=[
                io.Image.Input("images", tooltip="One picture or a batch; each is judged."),
                culture_input("The culture that the pictures should show."),
                io.Combo.Input(
                    "judge",
                    options=judges,
                    default=judges[0],
                    tooltip="Who is asked. miniature is the small network of the examples: it knows their "
                    "drawings and nothing else. Others are set up with CULTURE_VLM_URL, CULTURE_VLM_MODEL "
                    "and CULTURE_VLM_KEY, or in a file; a server that is not yours sees the pictures.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    "score",
                    display_name="score",
                    tooltip="How much of the judge's answers is the culture, 0 to 1; the mean of a batch.",
                ),
                io.String.Output(
                    "answers",
                    display_name="answers",
                    tooltip="A line a picture. Fits the labels of Culture Grid.",
                ),
                io.Image.Output(
                    "picture",
                    display_name="picture",
                    tooltip="The pictures over their answers, framed green where they show the culture.",
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
