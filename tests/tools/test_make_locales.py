"""Names, tooltips and help of the nodes: complete in every language, and where ComfyUI looks for them."""

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from culture_core.cultures import CULTURES
from tools import make_locales
from tools.comfy_server import ComfyServer
from tools.make_locales import (
    ENGLISH,
    FILES,
    LANGUAGES,
    PAGES,
    PICTURES,
    english_nodes,
    pages,
    problems,
    read,
)


def test_there_is_a_language_for_every_culture() -> None:
    assert len(LANGUAGES) == len(CULTURES) == 15
    assert {code.partition("-")[0] for code in LANGUAGES} == set(CULTURES)


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_language_is_complete(code: str) -> None:
    assert problems(code) == []


@pytest.mark.parametrize("code", [ENGLISH, *LANGUAGES])
def test_the_help_says_what_the_nodes_say(code: str) -> None:
    for path, text in pages(code).items():
        assert path.read_text(encoding="utf-8") == text, "run `python -m tools.make_locales`"


def test_english_is_what_the_nodes_say(server: ComfyServer) -> None:
    said = english_nodes(server.client().object_info())
    assert read(ENGLISH, "nodeDefs.json") == said, "run `python -m tools.make_locales URL`"


def test_every_page_and_picture_belongs_to_a_node() -> None:
    nodes = read(ENGLISH, "nodeDefs.json")
    assert PICTURES.keys() == nodes.keys() == read(ENGLISH, "help.json")["nodes"].keys()
    expected = {path for code in [ENGLISH, *LANGUAGES] for path in pages(code)}
    assert {path for path in PAGES.rglob("*.md")} == expected
    assert {path.name for path in (PAGES / "img").iterdir()} == set(PICTURES.values())


def test_the_help_is_small() -> None:
    assert sum(path.stat().st_size for path in PAGES.rglob("*") if path.is_file()) < 2_000_000
    assert all(path.stat().st_size < 60_000 for path in (PAGES / "img").iterdir())


def fetch(server: ComfyServer, path: str) -> Any:
    with urllib.request.urlopen(server.url + path, timeout=30) as answer:
        return answer.read()


def test_comfyui_serves_all_languages(server: ComfyServer) -> None:
    served = json.loads(fetch(server, "/i18n"))
    for code in [ENGLISH, *LANGUAGES]:
        for node, texts in read(code, "nodeDefs.json").items():
            assert served[code]["nodeDefs"][node] == texts
        assert served[code]["nodeCategories"]["culture"]


@pytest.mark.parametrize("name", ["CultureGrid.md", "CultureGrid/ar.md", "CultureGrid/pt-BR.md"])
def test_comfyui_serves_the_help(name: str, server: ComfyServer) -> None:
    folder = "/extensions/comfyui-culture/docs/"
    text = fetch(server, folder + name).decode()
    assert text == (PAGES / name).read_text(encoding="utf-8")
    picture = re.search(r"!\[.+\]\((img/.+)\)", text)[1]
    assert fetch(server, folder + picture) == (PAGES / picture).read_bytes()


# ------------------------------------------------------------------------------ what the check finds

GOOD = {
    "nodeDefs.json": {
        "A": {
            "display_name": "Blatt",
            "description": "Legt Bilder auf ein Blatt.",
            "inputs": {"k": {"name": "k", "tooltip": "0: eins. auto: wie in 'my-culture'."}},
        }
    },
    "main.json": {"nodeCategories": {"culture": "Kultur"}, "cultureSearch": "kultur, stil, land"},
    "help.json": {"nodes": {"A": {"picture": "Blatt im Bild", "notes": ["Mit `seed` 0.5 besser."]}}},
}


@pytest.fixture
def translation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A good one into `de`, to be spoilt; English is `en`."""
    monkeypatch.setattr(make_locales, "LOCALES", tmp_path)
    texts = {
        "nodeDefs.json": {
            "A": {
                "display_name": "Sheet",
                "description": "Puts pictures on a sheet.",
                "inputs": {"k": {"name": "k", "tooltip": "0: one. auto: as in 'my-culture'."}},
            }
        },
        "main.json": {"nodeCategories": {"culture": "culture"}, "cultureSearch": "culture, style, country"},
        "help.json": {
            "nodes": {"A": {"picture": "Sheet in the picture", "notes": ["Better with `seed` 0.5."]}}
        },
    }
    for file, content in texts.items():
        make_locales.write(tmp_path / ENGLISH / file, content)
    return json.loads(json.dumps(GOOD))


def problems_of(translation: dict[str, Any]) -> list[str]:
    for file in FILES:
        make_locales.write(make_locales.LOCALES / "de" / file, translation[file])
    return problems("de")


def test_a_good_translation_has_no_problems(translation: dict[str, Any]) -> None:
    assert problems_of(translation) == []


SPOILT = {
    "missing": lambda files, node: node.pop("description"),
    "obsolete": lambda files, node: node.update(more="mehr"),
    "not translated": lambda files, node: node.update(description="Puts pictures on a sheet."),
    "must not have |": lambda files, node: node.update(description="Legt Bilder | ab."),
    "lacks, exactly so: 0, 'my-culture'": lambda files, node: node["inputs"]["k"].update(tooltip="auto: n"),
    "lacks, exactly so: auto": lambda files, node: node["inputs"]["k"].update(tooltip="0 'my-culture'"),
    "stays k": lambda files, node: node["inputs"]["k"].update(name="kleines k"),
    "must have these code spans: `seed`": lambda files, _: files["help.json"]["nodes"]["A"].update(
        notes=["Mit Startwert (`seed`, `Saat`) 0.5."]
    ),
    "lacks, exactly so: Blatt": lambda files, _: files["help.json"]["nodes"]["A"].update(picture="Im Bild"),
    "notes.1: obsolete": lambda files, _: files["help.json"]["nodes"]["A"]["notes"].append("Noch etwas."),
}  # fmt: skip


@pytest.mark.parametrize("said", SPOILT)
def test_a_spoilt_text_is_named(said: str, translation: dict[str, Any]) -> None:
    SPOILT[said](translation, translation["nodeDefs.json"]["A"])
    found = problems_of(translation)
    assert len(found) == 1 and said in found[0], found


def test_keys_take_the_english_order(translation: dict[str, Any]) -> None:
    node = translation["nodeDefs.json"]["A"]
    translation["nodeDefs.json"]["A"] = dict(reversed(node.items())) | {"old": "alt"}
    problems_of(translation)
    assert list(make_locales.in_english_order("de", "nodeDefs.json")["A"]) == list(node)


def test_what_is_typed_keeps_its_direction_in_arabic(translation: dict[str, Any]) -> None:
    texts = {"A": {"display_name": "ورقة", "description": "من -1 إلى `0: 3` أو '0, 1'."}}
    for _ in range(2):  # a second run changes nothing
        make_locales.write(make_locales.LOCALES / "ar" / "nodeDefs.json", texts)
        texts = make_locales.in_english_order("ar", "nodeDefs.json")
    assert texts["A"] == {
        "display_name": "ورقة",
        "description": "\u2067من \u2066-1\u2069 إلى \u2066`0: 3`\u2069 أو \u2066'0, 1'\u2069.\u2069",
    }
