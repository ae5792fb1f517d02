"""In which language is a prompt written, and which culture goes with it?

Prompts are short, and many words belong to several languages: `casa` is Italian, Spanish and Portuguese,
`椅子` Chinese and Japanese. So this refuses where it does not know. Scripts and letters that only some
languages have go first; between those that are left, the optional detector eldc decides, by the lead of its
best score.
"""

import functools
import re
import unicodedata
from collections import Counter
from typing import Any, NamedTuple

from .cultures import CULTURES, culture

THRESHOLD = 0.1
"""Lead of the best language that is enough; measured by `benchmarks/prompt_languages.py`."""
OFF, STOP = "off", "stop"
WHEN_UNSURE = (OFF, STOP)
NAMES = {
    "am": "Amharic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali",
    "ca": "Catalan", "cs": "Czech", "da": "Danish", "el": "Greek", "en": "English", "et": "Estonian",
    "eu": "Basque", "fa": "Persian", "fi": "Finnish", "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi",
    "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "is": "Icelandic", "ka": "Georgian",
    "kn": "Kannada", "ku": "Kurdish", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian", "ml": "Malayalam",
    "mr": "Marathi", "ms": "Malay", "no": "Norwegian", "or": "Odia", "pa": "Punjabi", "ro": "Romanian",
    "sk": "Slovak", "sl": "Slovene", "sq": "Albanian", "sr": "Serbian", "sv": "Swedish", "ta": "Tamil",
    "te": "Telugu", "tl": "Tagalog", "ur": "Urdu", "vi": "Vietnamese", "yo": "Yoruba",
} | {code: culture.language for code, culture in CULTURES.items()}  # fmt: skip
"""English names of the languages that can be told apart, by ISO 639-1 code."""
CULTURE_OF: dict[str, str | None] = {code: code if code in CULTURES else None for code in NAMES}
"""Language → culture, the whole table: a culture of `CULTURES` goes with the language that its code names,
and with no other; English goes with none. A language may be at home in many places: who writes Spanish and
means Mexico must say so himself."""

_BLOCKS = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK", "IDEOGRAPHIC": "CJK"}
_SHARE = 0.6
"""Of a prompt's letters that must be of one script."""
_LETTERS = {
    "ß": "de", "ñ": "es eu tl", "ã": "pt vi", "õ": "pt et vi", "ğı": "tr az", "ş": "tr az ro ku",
    "łńśźż": "pl", "ąę": "pl lt", "ć": "pl hr", "å": "sv no da", "ø": "no da", "æ": "no da is",
    "řěů": "cs", "őű": "hu", "ə": "az", "ă": "ro vi", "đ": "hr vi", "ðþ": "is", "œ": "fr",
    "ґєї": "uk", "і": "uk be", "ў": "be", "ыэё": "ru be", "ъ": "ru bg", "и": "ru uk bg sr",
    "щ": "ru uk bg", "ђјљњћџ": "sr",
    "ةكيىأإؤ": "ar", "پچژگکی": "fa ur ku", "ٹڈڑںہھے": "ur",
}  # fmt: skip
"""Languages that have a letter, for letters that not all languages of their script have."""
_PRIOR = 0.15
"""By which languages that are neither English nor a culture's must be better: most prompts are of the others,
and short words look like Tagalog or Basque by chance."""
_FREQUENT = {"uk": frozenset("іїє"), "be": frozenset("іў"), "sr": frozenset("јљњћђџ")}
"""Letters that hardly a sentence of a language lacks; those languages are all too near to Russian."""
_ABSENCE = 0.003
"""What a letter of a prompt without any of them takes from the score."""
_CONFLICT = 0.05
"""Lead of a language over those that have the prompt's special letters, from which on the letters do not
count: they belong to a name or a loan word."""
_KNOWN_LETTERS = {letter: frozenset(codes.split()) for group, codes in _LETTERS.items() for letter in group}
_TAGS = frozenset(
    (
        "masterpiece, best quality, high quality, highest quality, ultra quality, great quality, high "
        "resolution, highres, absurdres, hd, uhd, hdr, 4k, 8k, raw photo, photorealistic, hyperrealistic, "
        "realistic, detailed, highly detailed, ultra detailed, extremely detailed, intricate details, sharp "
        "focus, bokeh, depth of field, cinematic, cinematic lighting, volumetric lighting, soft lighting, "
        "studio lighting, dramatic lighting, natural light, concept art, digital art, digital painting, oil "
        "painting, watercolor, watercolour, illustration, photograph, photo, 3d render, octane render, "
        "unreal engine, trending on artstation, artstation, award winning, professional, masterwork, "
        "anime, vector art, line art"
    ).split(", ")
)
"""English words of craft that people put behind prompts of any language; they say nothing of it."""
_SYNTAX = re.compile(
    r"<[^<>]*>"  # <lora:name:1>
    r"|\bembedding:\S+"
    r"|:\s*[-+]?\d*\.?\d+(?=\s*[)\]])"  # the weight in (word:1.2)
    r"|\bBREAK\b|\b__[\w/*-]+__\b"
    r"|[()\[\]{}|\\]"
)


class MissingDetectorError(ValueError):
    """The language cannot be told without the package eldc."""


class UnclearLanguageError(ValueError):
    """A prompt's language is unclear, and the user wants to know rather than go on."""


class Detection(NamedTuple):
    """What a prompt's language says."""

    language: str | None
    """ISO 639-1 code; None where it is unclear."""
    culture: str | None
    """The culture to steer to; None where the language is unclear or no culture goes with it."""
    confidence: float
    """0 to 1: the lead of the best language over the next, 1 where the letters leave only one."""
    reason: str
    """A sentence for people."""


def detect_culture(text: str, threshold: float = THRESHOLD) -> Detection:
    """The language of a prompt and its culture.

    Args:
        text: as an artist writes it; prompt weights, escapes, embeddings, LoRA tags and English quality tags
            are looked past.
        threshold: confidence below which the language counts as unclear, 0 to 1.

    Raises:
        MissingDetectorError: where the letters do not decide and eldc is not installed.
        ValueError: for a threshold out of range.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be 0 to 1, got {threshold}")
    words = prompt_words(text)
    letters = [letter for letter in words.lower() if letter.isalpha()]
    if not letters:
        return Detection(None, None, 0.0, "The prompt has no words to tell a language by.")
    script = _main_script(letters)
    if script is None:
        return Detection(None, None, 0.0, "The prompt mixes scripts, so its language is unclear.")
    ranked = _by_script(script, letters) or _by_detector(words, letters)
    return _decide(ranked, threshold)


def culture_for(
    text: str, threshold: float = THRESHOLD, override: str | None = None, when_unsure: str = OFF
) -> Detection:
    """`detect_culture` with a user's last word.

    Args:
        override: code of the culture to use whatever the prompt's language; None: that of the language.
        when_unsure: what to do where the language is unclear: `off`, steer nothing, or `stop`.

    Raises:
        UnclearLanguageError: for an unclear language, with `stop` and without `override`.
        MissingDetectorError: where eldc is needed and missing, without `override`.
        ValueError: for arguments out of range.
    """
    if when_unsure not in WHEN_UNSURE:
        raise ValueError(f"when_unsure must be one of {', '.join(WHEN_UNSURE)}, got {when_unsure!r}")
    try:
        found = detect_culture(text, threshold)
    except MissingDetectorError:
        if override is None:
            raise
        found = Detection(None, None, 0.0, "The language was not looked at (eldc is not installed).")
    if override is not None:
        return found._replace(culture=culture(override).code)
    if found.language is None and when_unsure == STOP:
        raise UnclearLanguageError(
            f"{found.reason} Choose the culture at override, write more words, or lower the threshold "
            f"({threshold:g}; the lead is {found.confidence:.2f})."
        )
    return found


def detection_report(found: Detection, override: str | None = None) -> str:
    """What was found and what becomes of it, for people."""
    lines = [found.reason, f"Confidence: {found.confidence:.2f}"]
    if override is not None:
        lines.append(f"Culture: {CULTURES[override].name}, chosen by hand")
    elif found.culture is not None:
        lines.append(f"Culture: {CULTURES[found.culture].name}")
    else:
        lines.append("Culture: none, so nothing is steered. Choose one at override.")
    return "\n".join(lines)


def prompt_words(text: str) -> str:
    """A prompt without ComfyUI's syntax, and without English quality tags unless it has nothing else."""
    parts = [part for part in re.split(r"[,;、，\n]", without_syntax(text)) if part.strip()]
    kept = [part for part in parts if not is_tag(part)]
    return ", ".join(" ".join(part.split()) for part in kept or parts)


def without_syntax(text: str) -> str:
    """A prompt without brackets, weights, escapes, embeddings, LoRA tags and wildcards."""
    return unicodedata.normalize("NFKC", _SYNTAX.sub(" ", text))


def is_tag(part: str) -> bool:
    """Whether a part of a prompt is an English quality tag."""
    return " ".join(part.lower().split()) in _TAGS


def language_name(code: str) -> str:
    """English name of a language; the code itself where it is not known."""
    return NAMES.get(code, code)


def _main_script(letters: list[str]) -> str | None:
    """First word of the letters' Unicode names (CJK: Han and kana); None where no script leads clearly."""
    scripts = Counter(_script(letter) for letter in letters)
    script, count = scripts.most_common(1)[0]
    return script if count >= _SHARE * len(letters) else None


def _script(letter: str) -> str:
    block = unicodedata.name(letter, "?").partition(" ")[0]
    return _BLOCKS.get(block, block)


def _by_script(script: str, letters: list[str]) -> dict[str, float]:
    """Scores where the script alone decides, or alone can tell that it does not."""
    if script == "THAI":
        return {"th": 1.0}
    if script == "HANGUL":
        return {"ko": 1.0}
    return _of_han(letters) if script == "CJK" else {}


def _of_han(letters: list[str]) -> dict[str, float]:
    """Kana is Japanese. The detector takes nearly all else for Chinese, so the characters decide: those that
    only China's standards have, or only Japan's. Most are in both."""
    names = [unicodedata.name(letter, "") for letter in letters]
    if any(name.startswith(("HIRAGANA", "KATAKANA")) for name in names):
        return {"ja": 1.0}
    han = [letter for letter, name in zip(letters, names, strict=True) if name.startswith("CJK")]
    chinese = [letter for letter in han if not _has("iso2022_jp", letter)]
    japanese = [letter for letter in han if not _has("gb2312", letter) and not _has("big5", letter)]
    if bool(chinese) == bool(japanese):
        return {"zh": 0.5, "ja": 0.5}
    return {"zh": 1.0} if chinese else {"ja": 1.0}


def _has(encoding: str, letter: str) -> bool:
    """Whether a national standard has a character."""
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _by_detector(words: str, letters: list[str]) -> dict[str, float]:
    """The detector's scores, of the languages that have all of the letters where it agrees with those."""
    found = _detector().detect_details(words.lower()).scores
    scores = {code: max(0.0, score - _handicap(code, letters)) for code, score in found.items()}
    left = frozenset(NAMES).intersection(*(_KNOWN_LETTERS[c] for c in letters if c in _KNOWN_LETTERS))
    fitting = {code: score for code, score in scores.items() if code in left}
    if max(scores.values(), default=0.0) >= max(fitting.values(), default=0.0) + _CONFLICT:
        return scores
    return dict.fromkeys(left, 1.0) if len(left) == 1 else fitting


def _handicap(language: str, letters: list[str]) -> float:
    expected = language == "en" or CULTURE_OF.get(language) is not None
    frequent = _FREQUENT.get(language)
    missed = frequent is not None and frequent.isdisjoint(letters)
    return (0 if expected else _PRIOR) + (_ABSENCE * len(letters) if missed else 0)


@functools.cache
def _detector() -> Any:
    """An eldc of our own: its settings are otherwise those of the whole process."""
    try:
        import eldc
    except ImportError as error:
        raise MissingDetectorError(
            "This prompt's language cannot be told by its letters alone. Install eldc (`pip install eldc`, "
            "with ComfyUI's Python) and start ComfyUI again, or choose the culture at override."
        ) from error
    eldc.init()
    detector = eldc.instance()
    detector.set_languages([])
    detector.set_scores(eldc.MAX_SCORES)
    return detector


def _decide(scores: dict[str, float], threshold: float) -> Detection:
    ranked = sorted(scores, key=scores.__getitem__, reverse=True)
    if not ranked:
        return Detection(None, None, 0.0, "No language is known that has such words.")
    best = ranked[0]
    confidence = scores[best] - (scores[ranked[1]] if len(ranked) > 1 else 0.0)
    if confidence < threshold or confidence == 0:
        near = [language_name(code) for code in ranked if scores[best] - scores[code] <= threshold]
        return Detection(None, None, confidence, f"The language is unclear: {' or '.join(near[:3])}.")
    code, name = CULTURE_OF.get(best), language_name(best)
    reason = f"The prompt is {name}." if code else f"The prompt is {name}, and no culture goes with {name}."
    return Detection(best, code, confidence, reason)
