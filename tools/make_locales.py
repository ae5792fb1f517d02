"""The nodes' texts in every language: `locales/` for ComfyUI's front end, `web/docs/` for its help.

    python -m tools.make_locales URL         # of a running ComfyUI with this pack: English, from its nodes
    python -m tools.make_locales             # what follows from the files: order of keys, help pages
    python -m tools.make_locales --check de  # what is missing or wrong in a translation; no code: in all

Three files a language, in `locales/<code>/`: `nodeDefs.json` (names and tooltips; this tool writes the
English one), `main.json` (the category, and what node search finds the nodes by), `help.json` (what the help
says beyond that). A help page is put together from them, so that it says what the node says.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from culture_core.cultures import CULTURES
from tools.comfy_client import ComfyClient

ROOT = Path(__file__).resolve().parent.parent
LOCALES, PAGES = ROOT / "locales", ROOT / "web" / "docs"
ENGLISH = "en"
LANGUAGES = [{"pt": "pt-BR"}.get(code, code) for code in CULTURES]
"""Folders of the translations: the front end's code of the language where it has one, else ISO 639-1."""
RIGHT_TO_LEFT = {"ar"}
FILES = ("nodeDefs.json", "main.json", "help.json")
CATEGORY = "culture"
PICTURES = {
    "CultureLoadTextEncoder": "encoder.png",
    "CultureLoadSAE": "load_sae.png",
    "CultureAmplifyNeurons": "strengths.jpg",
    "CultureEncodeSchedule": "schedule.jpg",
    "CultureLoadEnhancer": "load_enhancer.png",
    "CultureApplyEnhancer": "enhance.jpg",
    "CultureLoadPairs": "pairs.png",
    "CultureProbeLayer": "probe.png",
    "CultureTrainSAE": "train_sae.png",
    "CultureDetectNeurons": "detect.png",
    "CultureTrainEnhancer": "train_enhancer.png",
    "CultureSaveSAE": "save_sae.png",
    "CultureSaveEnhancer": "save_enhancer.png",
    "CultureStrengthSweep": "sweep.png",
    "CultureGrid": "strengths.jpg",
    "CultureScore": "score.png",
    "CulturePromptList": "prompt_list.png",
    "CultureFromPrompt": "from_prompt.png",
    "CultureModifier": "modifier.png",
}
"""In `web/docs/img/`: the front end starts from `web/docs/` for the pictures of every page."""

_UNTRANSLATED = re.compile(r"[A-Z][A-Z_]+|[a-z]+_\d+|k|tau|ema")
"""Names that are the same in every language: types such as CLIP, letters of equations."""
_LABELS = (".name", "nodeCategories.culture")
_CODE = re.compile("`[^`]*`?")
_PROTECTED = re.compile(
    r"(?<!\w)'[^']+'(?!\w)"  # something to type
    r"|(?<![\w.])-?\d+(?:\.\d+)?"  # numbers as widgets take them
    r"|\w+_\w+"  # names of files and settings
    r"|(?:^|(?<=[.:] ))(?:as loaded|[a-z]+)(?=: )"  # choices of a combo
)
_REFUSED = re.compile(r"[{}@|\\]")
"""The front end's message format gives these a meaning of their own."""

_LRI, _RLI, _PDI = "\u2066", "\u2067", "\u2069"
"""Unicode's marks of direction."""

Texts = dict[str, Any]


def english_nodes(described: dict[str, Any]) -> Texts:
    """`nodeDefs.json` in English, from the server's description of the pack's nodes."""
    nodes = {}
    for name, node in sorted(described.items()):
        if node["category"] != CATEGORY:
            continue
        inputs = node["input"].get("required", {}) | node["input"].get("optional", {})
        outputs = zip(node["output_name"], node["output_tooltips"], strict=True)
        nodes[name] = {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": {key: {"name": key, "tooltip": spec[1]["tooltip"]} for key, spec in inputs.items()},
            "outputs": {
                str(index): {"name": label, "tooltip": tooltip}
                for index, (label, tooltip) in enumerate(outputs)
            },
        }
    return nodes


def read(code: str, file: str) -> Texts:
    """One file of a language; empty where it is not there yet.

    Raises:
        ValueError: for a file that is no JSON, with the place.
    """
    path = LOCALES / code / file
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {error}") from None


def flat(texts: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text with its place, such as `CultureGrid.inputs.title.name`."""
    if isinstance(texts, str):
        yield place, texts
        return
    for key, value in texts.items() if isinstance(texts, dict) else enumerate(texts):
        yield from flat(value, f"{place}.{key}" if place else str(key))


def problems(code: str) -> list[str]:
    """What is missing, obsolete or wrong in a translation, a line each."""
    names = {
        name: read(code, FILES[0]).get(node, {}).get("display_name", name)
        for node, name in _display_names().items()
    }
    found = []
    for file in FILES:
        english, own = dict(flat(read(ENGLISH, file))), dict(flat(read(code, file)))
        found += [f"{file}: {place}: missing: {english[place]}" for place in english if place not in own]
        found += [f"{file}: {place}: obsolete" for place in own if place not in english]
        for place in english.keys() & own.keys():
            check = _problems_of_name if place.endswith(_LABELS) else _problems_of_text
            found += [f"{file}: {place}: {problem}" for problem in check(english[place], own[place], names)]
    return sorted(f"{code}: {line}" for line in found)


def _display_names() -> dict[str, str]:
    return {node: texts["display_name"] for node, texts in read(ENGLISH, FILES[0]).items()}


def _problems_of_name(english: str, own: str, _names: dict[str, str]) -> Iterator[str]:
    """Of a label of a node; it may well be the same word as in English."""
    if not own.strip() or _REFUSED.search(own):
        yield "empty, or with one of { } @ | \\"
    if _UNTRANSLATED.fullmatch(english) and own != english:
        yield f"stays {english}"


def _problems_of_text(english: str, own: str, names: dict[str, str]) -> Iterator[str]:
    if not own.strip() or own == english:
        yield f"not translated: {english}"
    if refused := set(_REFUSED.findall(own)) - set(english):
        yield f"must not have {' '.join(sorted(refused))}"
    if sorted(_CODE.findall(own)) != sorted(_CODE.findall(english)):
        yield f"must have these code spans: {' '.join(_CODE.findall(english)) or 'none'}"
    kept = _PROTECTED.findall(english) + [own for name, own in names.items() if name in english]
    if lost := [token for token in kept if token not in own]:
        yield f"lacks, exactly so: {', '.join(lost)}"


def in_english_order(code: str, file: str) -> Texts:
    """A language's file with the keys of the English one, in its order, without obsolete ones; sentences that
    run from right to left are marked."""

    def ordered(english: Any, own: Any, name: str = "") -> Any:
        if isinstance(english, dict) and isinstance(own, dict):
            return {key: ordered(english[key], own[key], key) for key in english if key in own}
        if isinstance(own, list):
            return [ordered(None, text) for text in own]
        return _marked(own, name in ("description", "tooltip")) if code in RIGHT_TO_LEFT else own

    return ordered(read(ENGLISH, file), read(code, file))


def _marked(text: str, sentence: bool) -> str:
    """A text that runs from right to left, with what is typed as it is typed: -1 is not 1-. The front end
    lays all out from left to right, where a sentence would start with its full stop."""
    plain = re.sub(f"[{_LRI}{_RLI}{_PDI}]", "", text)
    typed = re.sub(r"`[^`]+`|(?<!\w)'[^']+'(?!\w)", lambda match: f"{_LRI}{match[0]}{_PDI}", plain)
    # A mark before the minus is not enough: it stands between that mark and a number, which counts as right.
    numbers = re.sub(r"(?<![\w`'])-\d+(?:\.\d+)?", lambda match: f"{_LRI}{match[0]}{_PDI}", typed)
    return f"{_RLI}{numbers}{_PDI}" if sentence else numbers


def help_page(code: str, node: str) -> str:
    """The help of a node in Markdown."""
    texts, extra = read(code, "nodeDefs.json")[node], read(code, "help.json")
    titles, own = extra["titles"], extra["nodes"][node]
    lines = [f"# {texts['display_name']}", "", texts["description"], ""]
    lines += [f"![{own['picture']}](img/{PICTURES[node]})", ""]
    for part in ("inputs", "outputs"):
        lines += [f"## {titles[part]}", ""]
        lines += [f"- **{item['name']}**: {item['tooltip']}" for item in texts[part].values()]
        lines += [""]
    lines += [f"## {titles['notes']}", "", *(f"- {note}" for note in own["notes"]), ""]
    if code in RIGHT_TO_LEFT:
        lines = ['<div dir="rtl">', "", *lines, "</div>", ""]
    return "\n".join(lines)


def pages(code: str) -> dict[Path, str]:
    """The help pages of a language, where the front end looks for them."""
    return {
        (PAGES / f"{node}.md" if code == ENGLISH else PAGES / node / f"{code}.md"): help_page(code, node)
        for node in read(ENGLISH, "nodeDefs.json")
    }


def write(path: Path, texts: Texts | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = texts if isinstance(texts, str) else json.dumps(texts, ensure_ascii=False, indent=2) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", nargs="?", help="take the English texts from this server")
    parser.add_argument("--check", nargs="?", const="all", metavar="CODE", help="only say what is wrong")
    options = parser.parse_args()
    languages = LANGUAGES if options.check in (None, "all") else [options.check]
    if options.check is None:
        if options.url:
            described = ComfyClient(options.url).object_info()
            write(LOCALES / ENGLISH / "nodeDefs.json", english_nodes(described))
        for code in [ENGLISH, *(code for code in languages if (LOCALES / code).is_dir())]:
            for file in FILES:
                write(LOCALES / code / file, in_english_order(code, file))
            if code == ENGLISH or not problems(code):
                for path, text in pages(code).items():
                    write(path, text)
    found = [line for code in languages for line in problems(code)]
    print("\n".join(found) or "All texts are translated.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
