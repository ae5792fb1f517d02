"""Reports: one self-contained page, Markdown, CSV and LaTeX, whatever the texts in them are."""

import base64
import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cmarkgfm
import numpy as np
import pytest
import torch
from cmarkgfm.cmark import Options
from PIL import Image, PngImagePlugin
from pylatexenc import latexwalker
from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db
from pylatexenc.macrospec import std_macro

from culture_core.documents import Cell, Document, DocumentError, markdown_table

STRANGE = [
    "<script>alert(1)</script>",
    '"><img src=https://evil.example/x.png onerror=alert(1)>',
    "</td></table></details></style></title>",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "see https://evil.example/a and http://evil.example, or www.evil.example/b",
    "[a link](https://evil.example) ![a picture](https://evil.example/x.png)",
    "javascript:alert(1) &lt;b&gt; &#60;b&#62;",
    r"\input{/etc/passwd} 100 % & $x_1^2$ #1 {~} \\[1em] -- --- `code` ``more`` <<>> *",
    "a | b \\| c \\",
    "# heading, *emphasis*, __strong__, ~~gone~~, `code`, :smile:, <!-- comment -->",
    "[x]", "*", "[1em] first in its row", "1. a list", "- a list", "+ a list", "=====", "---", "2) list",
    "เก้าอี้ไม้แบบไทย", "كرسي خشبي", "四川の椅子", "emoji 🪑 and Ünïcödé",
]  # fmt: skip


class Page(HTMLParser):
    """Elements with their attributes, and the text in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._path: list[str] = []
        self.feed(text)
        self.close()
        assert self._path == [], "every element is closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self._path.append(tag)

    def handle_endtag(self, tag):
        assert self._path.pop() == tag

    def handle_data(self, data):
        if "style" not in self._path:
            self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def colour(value: tuple[int, int, int] = (200, 40, 40)) -> Image.Image:
    return Image.new("RGB", (6, 4), value)


def strange(title: str = "A report") -> Document:
    """Every strange text in every place."""
    document = Document(title)
    for text in STRANGE:
        document.section(text)
        document.paragraph(f"first line\n{text}\n{text}")
        document.table([text, "b"], [[Cell(text, text), 1.5]], text)
        document.picture(colour(), text, text)
        with document.details(text):
            document.paragraph(text)
    return document


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_whatever_texts_hold_a_page_shows_them_as_text(tmp_path):
    page = Page(strange(STRANGE[0]).write_html(tmp_path / "r.html").read_text(encoding="utf-8"))
    texts = [squeezed(text) for text in page.texts]
    for text in STRANGE:
        # heading, its entry in the contents, header, cell, mark, both captions, summary, paragraph in details
        assert texts.count(squeezed(text)) >= 9, text
        assert f"first line {squeezed(text)} {squeezed(text)}" in texts
    plain = Page(strange_shape().write_html(tmp_path / "plain.html").read_text(encoding="utf-8"))
    assert [name for name, _ in page.elements] == [name for name, _ in plain.elements]


def strange_shape() -> Document:
    """The document of `strange` with harmless texts, of the same shape."""
    document = Document("title")
    for _ in STRANGE:
        document.section("word")
        document.paragraph("word")
        document.table(["word", "b"], [[Cell("word", "word"), 1.5]], "word")
        document.picture(colour(), "word", "word")
        with document.details("word"):
            document.paragraph("word")
    return document


def test_a_page_refers_to_nothing_outside_itself(tmp_path):
    text = strange().write_html(tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(text)
    assert {name for name, _ in page.elements} <= {
        "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "nav", "ul", "li", "a", "bdi",
        "main", "p", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "span", "figure", "img",
        "figcaption", "details", "summary",
    }  # fmt: skip
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids) == len(STRANGE)
    assert [a["href"] for a in page.of("a")] == [f"#{anchor}" for anchor in ids]
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in page.of("img"))
    assert not any(name.startswith("on") or name == "style" for _, a in page.elements for name in a)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style
    names = {attributes.get("name") for attributes in page.of("meta")}
    assert "viewport" in names, "a phone shows it at its own width"
    assert list(tmp_path.iterdir()) == [tmp_path / "r.html"]


def test_a_picture_comes_back_without_what_its_file_said(tmp_path):
    notes = PngImagePlugin.PngInfo()
    notes.add_text("workflow", "secret key")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png", pnginfo=notes)
    image = Image.open(tmp_path / "in.png")
    image.load()
    assert image.info["workflow"] == "secret key"
    document = Document("pictures")
    document.picture(image, "noise")
    image.paste((0, 0, 0, 255), (0, 0, 7, 5))
    html = document.write_html(tmp_path / "r.html").read_text()
    source = Page(html).of("img")[0]["src"].removeprefix("data:image/png;base64,")
    found = Image.open(io.BytesIO(base64.b64decode(source)))
    assert (np.asarray(found) == pixels).all() and found.info == {}
    document.write_markdown(tmp_path / "r.md")
    (file,) = (tmp_path / "r_pictures").iterdir()
    assert file.read_bytes() == base64.b64decode(source)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "RGBA"])
def test_pictures_of_any_kind_are_taken(mode):
    Document("pictures").picture(colour().convert(mode), "a caption")


def test_marks_are_said_in_words_and_coloured(tmp_path):
    document = Document("targets")
    document.table(
        ["target", "is"],
        [
            ["a", Cell(0.91, "reached", True)],
            ["b", Cell(0.2, "missed", False)],
            ["c", Cell(None, "left out")],
        ],
    )
    text = document.write_html(tmp_path / "r.html").read_text()
    for tone, mark in (("good", "reached"), ("bad", "missed"), ("plain", "left out")):
        assert f'<span class="mark {tone}">{mark}</span>' in text
    assert "| a      | 0.91 (reached) |" in document.write_markdown(tmp_path / "r.md").read_text()
    assert r"b & 0.2 (missed) \\" in document.write_latex(tmp_path)[0].read_text()
    assert document.write_csv(tmp_path)[0].read_text() == (
        "target,is,is (mark)\na,0.91,reached\nb,0.2,missed\nc,,left out\n"
    )


def rendered(markdown: str) -> Page:
    """As GitHub's own renderer shows it, the filter left out that GitHub has besides."""
    extensions = ["table", "autolink", "strikethrough", "tasklist"]
    text = cmarkgfm.markdown_to_html_with_extensions(
        markdown, options=Options.CMARK_OPT_UNSAFE, extensions=extensions
    )
    return Page(re.sub(r"<(br|hr|img[^>]*) />", r"<\1>", text))


def test_whatever_texts_hold_markdown_shows_them_as_text(tmp_path):
    page = rendered(strange().write_markdown(tmp_path / "r.md").read_text(encoding="utf-8"))
    plain = rendered(strange_shape().write_markdown(tmp_path / "plain.md").read_text(encoding="utf-8"))
    kinds = [[name for name, _ in each.elements if name != "br"] for each in (page, plain)]
    assert kinds[0] == kinds[1]
    assert not any("href" in a for a in page.of("a")), "nothing became a link"
    shown = squeezed("".join(page.texts))
    for text in STRANGE:
        assert shown.count(squeezed(text)) >= 7 and f"{squeezed(text)} ({squeezed(text)})" in shown, text
    alts = [image["alt"] for image in page.of("img")]
    assert alts == [squeezed(text) for text in STRANGE]


def test_markdown_links_pictures_that_lie_beside_it_or_holds_them(tmp_path):
    document = Document("pictures")
    for value in ((1, 2, 3), (4, 5, 6), (1, 2, 3)):
        document.picture(colour(value), "The same caption / ../..")
    page = rendered(document.write_markdown(tmp_path / "my report.md").read_text())
    sources = [image["src"] for image in page.of("img")]
    files = sorted((tmp_path / "my report_pictures").iterdir())
    assert len(files) == 2 and sources[0] == sources[2]
    assert {tmp_path / source.replace("%20", " ") for source in sources} == set(files)
    embedded = rendered(document.write_markdown(tmp_path / "one.md", embed=True).read_text())
    assert all(image["src"].startswith("data:image/png;base64,") for image in embedded.of("img"))
    assert not (tmp_path / "one_pictures").exists()


def test_numbers_come_back_from_csv_as_they_went_in(tmp_path):
    values = [0.1 + 0.2, 1e-17, -3, 10**20, None, float("nan"), "a, \"b\"\nc; 'd'", "= 1", "-1 % of all", ""]
    document = Document("numbers")
    document.table(["i", "value", "half"], [[i, v, i / 2] for i, v in enumerate(values)], "All", ".1f")
    (path,) = document.write_csv(tmp_path / "new" / "folder")
    assert path.name == "table-1-all.csv"
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["i", "value", "half"] and [float(row[2]) for row in rows] == [i / 2 for i in range(10)]
    numbers = [float(row[1]) for row in rows[:4]]
    assert numbers == values[:4]
    # A spreadsheet would compute the texts that begin as formulas do.
    assert [row[1] for row in rows[4:]] == ["", "nan", values[6], "'= 1", "'-1 % of all", ""]


def test_formats_are_of_all_floats_or_of_a_column(tmp_path):
    document = Document("formats")
    rows = [[1, 2 / 3, np.float32(0.5)], [2, None, torch.tensor(2)]]
    document.table(["n", "a", "b"], rows, formats=".2f", name="one")
    document.table(["n", "a", "b"], rows, formats={"n": "03d", "b": ".1%"}, name="two")
    document.table(["n", "a", "b"], [[True, "text", np.int64(7)]], name="three")
    text = document.write_markdown(tmp_path / "r.md").read_text()
    cells = [re.findall(r"[^|\s]+", line) for line in text.splitlines() if line.startswith("| ")]
    assert cells[1:3] == [["1", "0.67", "0.50"], ["2", "–", "2"]]
    assert cells[4:6] == [["001", "0.6667", "50.0%"], ["002", "–", "200.0%"]]
    assert cells[7] == ["yes", "text", "7"]


def latex_cells(path: Path) -> list[list[str]]:
    """The rows of a table as an independent reader of LaTeX understands them."""
    lines = re.findall(r"^    (.*) \\\\$", path.read_text(encoding="utf-8"), re.MULTILINE)
    context = get_default_latex_context_db()
    signs = {
        "textless": "<",
        "textgreater": ">",
        "textbar": "|",
        "textasciicircum": "^",
        "textasciigrave": "`",
    }
    macros = [MacroTextSpec(name, sign) for name, sign in signs.items()]
    macros += [MacroTextSpec("symbol", lambda node: chr(int(node.nodeargs[0].latex_verbatim()[1:-1])))]
    context.add_context_category("more", prepend=True, macros=macros)
    parsing = latexwalker.get_default_latex_context_db()
    parsing.add_context_category("more", macros=[std_macro("symbol", False, 1)])
    reader = LatexNodes2Text(context)
    return [
        [squeezed(reader.latex_to_text(cell, latex_context=parsing)) for cell in re.split(r"(?<!\\)&", line)]
        for line in lines
    ]


def test_latex_reads_strange_texts_as_what_they_are(tmp_path):
    document = Document("strange")
    document.table(["text", "b"], [[text, -1.5] for text in STRANGE], STRANGE[7], name="strange")
    (path,) = document.write_latex(tmp_path)
    assert latex_cells(path) == [["text", "b"], *([squeezed(text), "-1.5"] for text in STRANGE)]
    text = path.read_text(encoding="utf-8")
    assert r"\begin{tabular}{lr}" in text and r"\label{tab:strange}" in text
    assert not re.search(r"\\\\\s*[\[*]", text), "a bracket or star behind the end of a row belongs to that"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX")
def test_latex_compiles(tmp_path):
    document = Document("strange")
    rows = [[text, 1] for text in STRANGE if text.isascii()]
    document.table(["text", "b"], rows, STRANGE[7], name="strange")
    document.write_latex(tmp_path)
    (tmp_path / "main.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{strange}\end{document}"
    )
    subprocess.run(["pdflatex", "-halt-on-error", "main.tex"], cwd=tmp_path, check=True, timeout=60)


def small() -> Document:
    document = Document("small")
    document.picture(colour(), "red")
    for name in ("a", "b"):
        document.table(["n"], [[1]], name=name)
    return document


WRITERS = {
    "html": lambda document, folder, **more: document.write_html(folder / "r.html", **more),
    "markdown": lambda document, folder, **more: document.write_markdown(folder / "r.md", **more),
    "csv": lambda document, folder, **more: document.write_csv(folder, **more),
    "latex": lambda document, folder, **more: document.write_latex(folder, **more),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_is_replaced_unless_that_is_allowed(tmp_path, kind):
    write = WRITERS[kind]
    write(small(), tmp_path)
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    victim = max(path for path in whole if path.suffix != ".png")
    for path in whole:
        path.unlink()
    victim.write_text("mine")
    with pytest.raises(DocumentError, match=f"{victim.name}: is there already"):
        write(small(), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [victim]
    assert victim.read_text() == "mine"
    write(small(), tmp_path, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == whole


def test_a_file_that_cannot_be_written_leaves_no_part_of_it(tmp_path):
    (tmp_path / "r.html").mkdir()
    (tmp_path / "r.html" / "kept").touch()
    with pytest.raises(OSError):
        small().write_html(tmp_path / "r.html", overwrite=True)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "r.html", tmp_path / "r.html" / "kept"]


def test_halves_of_letters_and_control_characters_can_be_written(tmp_path):
    document = Document("half \ud83d of a letter")
    document.paragraph("a\x00b\x1b[31m\r\nnext")
    document.table(["a\x85"], [["\udfff"]])
    for write in WRITERS.values():
        write(document, tmp_path)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "a\ufffdb\ufffd[31m\nnext" in text and "half \ufffd of a letter" in text


def test_anchors_are_words_and_differ(tmp_path):
    document = Document("anchors")
    for heading in ("Über uns", "Über uns", "日本", "日本"):
        document.section(heading)
    document.section("Named", "over-there", level=2)
    with document.details("more"):
        document.section("Within")
    document.section("Behind")
    page = Page(document.write_html(tmp_path / "r.html").read_text(encoding="utf-8"))
    anchors = ["uber-uns", "uber-uns-2", "section", "section-2", "over-there", "within", "behind"]
    assert [a["href"] for a in page.of("a")] == [f"#{anchor}" for anchor in anchors]
    assert [h["id"] for h in page.of("h2")] == [anchor for anchor in anchors if anchor != "over-there"]
    assert [
        a["id"] for a in rendered(document.write_markdown(tmp_path / "r.md").read_text()).of("a")
    ] == anchors


def test_what_cannot_be_shown_is_refused_at_once():
    document = small()
    document.section("there", "there")
    for message, call in {
        "row 2 of a table has 1 cells, its header 2": lambda: document.table(["a", "b"], [[1, 2], [3]]),
        "column 'a': a cell is text, a number or None, not dict": lambda: document.table(["a"], [[{}]]),
        "column 'a': one number a cell, not an array": lambda: document.table(["a"], [[np.ones(2)]]),
        "column 'a': 1.5 cannot be written as 'd'": lambda: document.table(["a"], [[1.5]], formats="d"),
        "columns that the table has not: c": lambda: document.table(["a"], [[1]], formats={"c": ".1f"}),
        "name 'a' is taken already": lambda: document.table(["a"], [[1]], name="a"),
        "name '../a': give a word": lambda: document.table(["a"], [[1]], name="../a"),
        "anchor 'there' is taken already": lambda: document.section("x", "there"),
        "a section has level 1 or 2, not 3": lambda: document.section("x", level=3),
        "a picture needs a caption": lambda: document.picture(colour()),
        "a table needs at least one column": lambda: document.table([], []),
        "text is needed here, not int": lambda: document.paragraph(3),
        "the name must end in .html": lambda: document.write_html("report.txt"),
    }.items():
        with pytest.raises(DocumentError, match=re.escape(message)):
            call()


def test_what_an_error_leaves_open_does_not_swallow_the_rest(tmp_path):
    document = Document("details")
    with pytest.raises(RuntimeError), document.details("more"):
        raise RuntimeError
    document.paragraph("after")
    assert "</details>\n<p" in document.write_html(tmp_path / "r.html").read_text()


def test_a_markdown_table_is_aligned_also_for_those_who_read_its_source():
    assert markdown_table([["a", "bb"], ["ccc", "d"]]) == "| a   | bb |\n|-----|----|\n| ccc | d  |"
    assert markdown_table([["a", "n"], ["b", "10"]], [False, True]) == "| a |  n |\n|---|---:|\n| b | 10 |"
