"""The cultures that the pack knows: the 15 language-region groups of the paper (section 3)."""

from typing import NamedTuple


class Culture(NamedTuple):
    """One language-region group."""

    code: str
    """ISO 639-1 code of its language; the key everywhere, also in files."""
    name: str
    """English name of the culture, as an adjective ("Thai")."""
    autonym: str
    """The language's name in the language itself."""
    language: str
    """English name of the language."""
    region: str
    scripts: tuple[str, ...]
    """ISO 15924 codes of the scripts that its prompts are written in."""


CULTURES: dict[str, Culture] = {
    culture.code: culture
    for culture in (
        Culture("ar", "Arab", "العربية", "Arabic", "Arab world", ("Arab",)),
        Culture("zh", "Chinese", "中文", "Chinese", "China", ("Hans", "Hant")),
        Culture("ja", "Japanese", "日本語", "Japanese", "Japan", ("Jpan",)),
        Culture("ko", "Korean", "한국어", "Korean", "Korea", ("Kore",)),
        Culture("th", "Thai", "ไทย", "Thai", "Thailand", ("Thai",)),
        Culture("de", "German", "Deutsch", "German", "Germany", ("Latn",)),
        Culture("ru", "Russian", "Русский", "Russian", "Russia", ("Cyrl",)),
        Culture("it", "Italian", "Italiano", "Italian", "Italy", ("Latn",)),
        Culture("nl", "Dutch", "Nederlands", "Dutch", "Netherlands", ("Latn",)),
        Culture("pl", "Polish", "Polski", "Polish", "Poland", ("Latn",)),
        Culture("tr", "Turkish", "Türkçe", "Turkish", "Turkey", ("Latn",)),
        Culture("uk", "Ukrainian", "Українська", "Ukrainian", "Ukraine", ("Cyrl",)),
        Culture("es", "Spanish", "Español", "Spanish", "Spain", ("Latn",)),
        Culture("pt", "Portuguese", "Português", "Portuguese", "Portugal", ("Latn",)),
        Culture("fr", "French", "Français", "French", "France", ("Latn",)),
    )
}


def culture(code: str) -> Culture:
    """The culture of a code.

    Raises:
        ValueError: for a code that the pack does not know; the message lists those it does.
    """
    try:
        return CULTURES[code]
    except KeyError:
        raise ValueError(f"unknown culture {code!r}: use one of {', '.join(CULTURES)}") from None
