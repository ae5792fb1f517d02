"""The explicit culture modifier, the rival of culture neurons: "bowl" becomes "bowl in the Thai style"."""

import re

from .cultures import CULTURES, culture
from .languages import is_tag, without_syntax
from .marks import read_marks

MODIFIERS: dict[str, tuple[str, str]] = {
    "ar": ("{} [على الطراز العربي]", "{} [من البلاد العربية]"),
    "zh": ("[中国风格的]{}", "[来自中国的]{}"),
    "ja": ("[日本風の]{}", "[日本の]{}"),
    "ko": ("[한국식] {}", "[한국의] {}"),
    "th": ("{}[สไตล์ไทย]", "{}[จากประเทศไทย]"),
    "de": ("{} [im deutschen Stil]", "{} [aus Deutschland]"),
    "ru": ("{} [в русском стиле]", "{} [из России]"),
    "it": ("{} [in stile italiano]", "{} [dall'Italia]"),
    "nl": ("{} [in Nederlandse stijl]", "{} [uit Nederland]"),
    "pl": ("{} [w polskim stylu]", "{} [z Polski]"),
    "tr": ("[Türk tarzı] {}", "[Türkiye'den] {}"),
    "uk": ("{} [в українському стилі]", "{} [з України]"),
    "es": ("{} [de estilo español]", "{} [de España]"),
    "pt": ("{} [de estilo português]", "{} [de Portugal]"),
    "fr": ("{} [de style français]", "{} [de France]"),
}
"""Two phrases a language for its own culture; brackets mark the modifier."""

ENGLISH_MODIFIERS = ("[{culture} style] {{}}", "{{}} [in the {culture} style]")
"""The same in English, for any culture."""
OWN, ENGLISH = "own", "English"
MODIFIER_LANGUAGES = (OWN, ENGLISH)

_HEADING = re.compile(r".*(?::\s|：)\s*", re.DOTALL)
_ENDS = ",，、،;；。\n"


def with_modifier(prompt: str, code: str, language: str = OWN) -> str:
    """A prompt with its culture's modifier at its subject: the first part between commas that is more than
    syntax and quality tags, behind a heading such as "drawing: ". One that has the modifier stays as it is.

    Args:
        code: of the culture.
        language: `own`, that of the culture ("in stile italiano"), or `English` ("in the Italian style").

    Raises:
        ValueError: for an unknown culture or language, or one without a modifier of its own.
    """
    pattern = _pattern(code, language)
    if " ".join(pattern.replace("{}", "").split()).casefold() in prompt.casefold():
        return prompt
    start, end = _subject(prompt)
    if start == end:
        return prompt
    return prompt[:start] + pattern.replace("{}", prompt[start:end]) + prompt[end:]


def _pattern(code: str, language: str) -> str:
    """The modifier with `{}` for what it modifies."""
    name = culture(code).name
    if language == ENGLISH:
        return read_marks(ENGLISH_MODIFIERS[1].format(culture=name)).text
    if language != OWN:
        raise ValueError(f"language must be one of {', '.join(MODIFIER_LANGUAGES)}, got {language!r}")
    if code not in MODIFIERS:
        raise ValueError(f"no modifier is known in {CULTURES[code].language}: use {ENGLISH}")
    return read_marks(MODIFIERS[code][0]).text


def _subject(prompt: str) -> tuple[int, int]:
    """Where the subject is; an empty span where the prompt has none."""
    parts = [part for part in _parts(prompt) if without_syntax(prompt[slice(*part)]).strip(" .")]
    start, end = next((part for part in parts if not is_tag(without_syntax(prompt[slice(*part)]))), (0, 0))
    if (heading := _HEADING.match(prompt, start, end)) and heading.end() < end:
        start = heading.end()
    return start, end


def _parts(prompt: str) -> list[tuple[int, int]]:
    """Spans between commas and ends of sentences outside of brackets, without the spaces around them."""
    spans, start, depth, escaped = [], 0, 0, False
    for index, letter in enumerate([*prompt, ","]):
        ends = letter in _ENDS or (letter in ".!?" and prompt[index + 1 : index + 2] in ("", " ", "\n"))
        if not escaped and letter in "([{<":
            depth += 1
        elif not escaped and letter in ")]}>":
            depth = max(depth - 1, 0)
        elif (ends and not depth) or index == len(prompt):
            part = prompt[start:index]
            left = start + len(part) - len(part.lstrip())
            spans.append((left, max(left, start + len(part.rstrip()))))
            start = index + 1
        escaped = letter == "\\" and not escaped
    return spans
