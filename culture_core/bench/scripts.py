"""Whether a text can be of its language, by the letters that it is written in."""

import unicodedata

from ..cultures import CULTURES

_NAMES = {
    "Arab": ("ARABIC",),
    "Hans": ("CJK",),
    "Hant": ("CJK",),
    "Jpan": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"),
    "Kore": ("HANGUL",),
    "Thai": ("THAI",),
    "Cyrl": ("CYRILLIC",),
    "Latn": ("LATIN",),
}
"""First words of the letters' Unicode names, by ISO 15924 code."""
_FOREIGN = {
    "zh": "ぁ-ヿ", "ko": "ぁ-ヿ", "uk": "ыэъё", "ru": "іїєґ", "en": "ğışąćęłńśźżñßãõ",
    "de": "ğışąćęłńśźżñãõ", "nl": "ğışąćęłńśźżßãõ", "pl": "ğışßñãõ", "tr": "ąćęłńśźżßñãõ",
    "it": "ğışąćęłńśźżßñãõ", "es": "ğışąćęłńśźżßãõ", "fr": "ğışąćęłńśźżßãõ", "pt": "ğışąćęłńśźżßñ",
}  # fmt: skip
"""Letters that are another language's alone; "a-b" stands for a range."""
SHARE = 0.6
"""Of a text's letters that must be of its language's scripts; brands and loan words may be of others."""


def script_problem(text: str, language: str) -> str:
    """What speaks against a text being of a language, by its letters; empty where nothing does.

    Of a language that is neither English nor a culture's, nothing is known.
    """
    scripts = ("Latn",) if language == "en" else getattr(CULTURES.get(language), "scripts", None)
    letters = [character for character in text if character.isalpha()]
    if scripts is None or not letters:
        return "" if letters else f"{text!r} has no letters"
    names = {name for script in scripts for name in _NAMES[script]}
    own = sum(unicodedata.name(letter, "").partition(" ")[0] in names for letter in letters)
    if own < SHARE * len(letters):
        return f"{text!r} is not written in the script of its language {language!r}"
    return ""


def foreign_letters(text: str, language: str) -> str:
    """Letters of a text that its language lacks and another one is known by; names may well have some."""
    return "".join(sorted({letter for letter in text.lower() if _among(letter, _FOREIGN.get(language, ""))}))


def _among(letter: str, letters: str) -> bool:
    if len(letters) == 3 and letters[1] == "-":
        return letters[0] <= letter <= letters[2]
    return letter in letters
