"""What a prompt says of culture: its language, and the explicit modifier."""

from comfy_api.latest import io

from ..culture_core.comfy import for_preview
from ..culture_core.languages import THRESHOLD, WHEN_UNSURE, culture_for, detection_report
from ..culture_core.modifiers import MODIFIER_LANGUAGES, with_modifier
from .base import (
    CULTURE_LABELS,
    culture_code,
    culture_input,
    culture_label,
    culture_or_none,
    problem_of,
    schema,
    texts_ui,
)

_AUTO = "auto"
_UNCLEAR = "unclear"
# A combo's own output is typed by the list of its choices, which no input takes.
_CultureChoice = io.Custom("COMBO")


class CultureFromPrompt(io.ComfyNode):
    """The culture that goes with the language of a prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureFromPrompt",
            display_name="Culture from Prompt Language",
            description="Tells the language of a prompt and the culture that goes with it. Where "
            "the language is unclear ('casa') or has no culture (English), nothing is steered, and the node "
            "says why.",
            search_aliases=["language", "detect"],
            inputs=[
                _prompt_input(),
                io.Float.Input(
                    "threshold",
                    default=THRESHOLD,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=0.001,
                    tooltip="How far the likeliest language must lead. 0.1 is right in 98 of 100 cases. "
                    "Higher acts more rarely, 0 takes the likeliest.",
                ),
                io.Combo.Input(
                    "override",
                    options=[_AUTO, *CULTURE_LABELS],
                    default=_AUTO,
                    tooltip="auto: by the language. A culture: that one, whatever the language.",
                ),
                io.Combo.Input(
                    "when_unsure",
                    options=list(WHEN_UNSURE),
                    default=WHEN_UNSURE[0],
                    tooltip="What to do where the language is unclear. off: steer nothing. stop: end the "
                    "run with a message.",
                ),
            ],
            outputs=[
                io.String.Output("prompt", display_name="text", tooltip="The prompt as it came in."),
                _CultureChoice.Output(
                    "culture",
                    display_name="culture",
                    tooltip="For the culture of Amplify Culture Neurons, Encode with Culture Schedule or "
                    "Culture Modifier.",
                ),
                io.String.Output(
                    "language", display_name="language", tooltip="Its code, such as 'it', or 'unclear'."
                ),
                io.Float.Output(
                    "confidence",
                    display_name="confidence",
                    tooltip="Lead of the likeliest language over the next, 0 to 1.",
                ),
                io.String.Output(
                    "report", display_name="report", tooltip="What was found, and what follows from it."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, override: str | None = None) -> bool | str:
        return problem_of(cls, lambda: override in (None, _AUTO) or culture_code(override))

    @classmethod
    def execute(cls, text: str, threshold: float, override: str, when_unsure: str) -> io.NodeOutput:
        chosen = None if override == _AUTO else culture_code(override)
        found = culture_for(text, threshold, chosen, when_unsure)
        report = detection_report(found, chosen)
        label = culture_label(found.culture)
        outputs = text, label, found.language or _UNCLEAR, found.confidence, for_preview(report)
        return io.NodeOutput(*outputs, ui=texts_ui([report]))


class CultureModifier(io.ComfyNode):
    """A prompt that names its culture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CultureModifier",
            display_name="Culture Modifier",
            description="Names the culture in the prompt: 'ponte' becomes 'ponte in stile italiano'. The "
            "usual way, to compare with culture neurons or to use with them.",
            search_aliases=["explicit", "prompt"],
            inputs=[
                _prompt_input(),
                culture_input("The culture to name. none: the prompt stays as it is.", none=True),
                io.Combo.Input(
                    "language",
                    options=list(MODIFIER_LANGUAGES),
                    default=MODIFIER_LANGUAGES[0],
                    tooltip="own: in the culture's language, for prompts in it. English: 'in the Italian "
                    "style', for English prompts.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "prompt",
                    display_name="text",
                    tooltip="The prompt with the modifier at its subject: the first part between commas that "
                    "is no quality tag.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, culture: str | None = None) -> bool | str:
        return problem_of(cls, lambda: culture is None or culture_or_none(culture))

    @classmethod
    def execute(cls, text: str, culture: str, language: str) -> io.NodeOutput:
        code = culture_or_none(culture)
        return io.NodeOutput(text if code is None else with_modifier(text, code, language))


def _prompt_input() -> io.String.Input:
    return io.String.Input("text", default="", multiline=True, dynamic_prompts=True, tooltip="The prompt.")


NODES = [CultureFromPrompt, CultureModifier]
