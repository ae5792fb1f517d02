"""What the questionnaire says, in every language that raters may choose."""

import functools
import json
from pathlib import Path

from ..cultures import CULTURES

_AUTONYMS = {"en": "English"} | {code: one.autonym for code, one in CULTURES.items()}


@functools.cache
def texts() -> dict[str, dict[str, str | dict[str, str]]]:
    """Texts by language code and name, with the language's `autonym` and writing direction `dir`; `cultures`
    are the names of cultures by code, adjectives in the form that goes with "culture" in the questions."""
    read = json.loads((Path(__file__).parent / "texts.json").read_text(encoding="utf-8"))
    return {
        code: {
            **read[code],
            "cultures": dict(zip(CULTURES, read[code]["cultures"], strict=True)),
            "autonym": autonym,
            "dir": "rtl" if code == "ar" else "ltr",
        }
        for code, autonym in sorted(_AUTONYMS.items(), key=lambda pair: pair[1])
    }
