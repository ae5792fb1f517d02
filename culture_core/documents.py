"""Reports: text, tables and pictures collected once, written as HTML, Markdown, CSV and LaTeX.

Every string may come from a stranger (a prompt, a model's answer, a file's metadata): it is text in each of
the formats, never markup, a link or a formula.
"""

import base64
import csv
import hashlib
import html
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import quote

from .atomic import atomic_path

if TYPE_CHECKING:
    from PIL import Image

Value = str | int | float | None
_TEMPLATE = Path(__file__).with_suffix(".html")
_NOTHING = "–"
"""Stands for None."""
_DIGITS = ".4g"
"""How a float is written where no format is given."""
_LONGEST_NAME = 60
_WIDEST = 40
"""Characters that a column of a Markdown table is padded to at most."""


class DocumentError(ValueError):
    """A report that cannot be made or written; the message says why."""


class Cell(NamedTuple):
    """A cell that says more than its value."""

    value: Value
    mark: str = ""
    """What it means, such as `reached` or `missed`: written behind the value."""
    good: bool | None = None
    """The mark's colour: green for True, red for False, grey for None."""


@dataclass(frozen=True)
class _Written:
    """A cell of a table: its value, and the same as text."""

    value: Value
    text: str
    mark: str
    tone: str

    @property
    def marked(self) -> str:
        return f"{self.text} ({self.mark})" if self.mark else self.text


@dataclass(frozen=True)
class _Section:
    heading: str
    anchor: str
    level: int
    kind: ClassVar[str] = "section"


@dataclass(frozen=True)
class _Paragraph:
    text: str
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class _Table:
    header: list[str]
    rows: list[list[_Written]]
    caption: str
    name: str
    numeric: list[bool]
    """The columns that hold numbers alone."""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class _Picture:
    png: bytes
    width: int
    height: int
    caption: str
    alt: str
    kind: ClassVar[str] = "picture"

    @property
    def url(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")

    @property
    def name(self) -> str:
        """A file name that no other picture has."""
        return f"{_slug(self.caption or self.alt, 'picture')}-{hashlib.sha256(self.png).hexdigest()[:12]}.png"


@dataclass(frozen=True)
class _Details:
    summary: str
    blocks: list[Any] = field(default_factory=list)
    kind: ClassVar[str] = "details"


class Document:
    """A report: what is added stands in it in that order.

    Files appear whole or not at all, and none is replaced unless that is allowed.
    """

    def __init__(self, title: str) -> None:
        self.title = _line(title)
        self._blocks: list[Any] = []
        self._open = self._blocks
        """Where the next block goes: into the document, or into details."""
        self._anchors: set[str] = set()
        self._tables: list[_Table] = []

    def section(self, heading: str, anchor: str = "", level: int = 1) -> None:
        """Begin a section.

        Args:
            anchor: what a link to it ends in, after `#`; made from the heading where it is empty.
            level: 1, or 2 for a part of the section before.

        Raises:
            DocumentError: for an anchor that is taken or is no word of a-z, 0-9, `-` and `_`, or for another
                level.
        """
        if level not in (1, 2):
            raise DocumentError(f"a section has level 1 or 2, not {level}")
        anchor = self._unique(anchor, _slug(heading, "section"), self._anchors, "anchor")
        self._open.append(_Section(_line(heading), anchor, level))

    def paragraph(self, text: str) -> None:
        """Add text; its line breaks stay."""
        self._open.append(_Paragraph(_clean(text).strip()))

    def table(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[Value | Cell]],
        caption: str = "",
        formats: str | Mapping[str, str] = "",
        name: str = "",
    ) -> None:
        """Add a table.

        Args:
            rows: of as many cells as the header. A scalar of numpy or torch counts as the number it is.
            formats: how numbers are written, such as `.1f`: one format of all floats, or one of all numbers
                of a column, by header. CSV files hold the full numbers.
            name: of the table's files, without ending; made from the caption where it is empty.

        Raises:
            DocumentError: for a row of another length, a cell that is neither text nor number, a format that
                cannot be used, or a name that is taken or is no word of a-z, 0-9, `-` and `_`.
        """
        header = [_line(title) for title in header]
        if not header:
            raise DocumentError("a table needs at least one column")
        if not isinstance(formats, str) and (unknown := sorted(set(formats) - set(header))):
            raise DocumentError(f"formats are given for columns that the table has not: {', '.join(unknown)}")
        lines = [list(row) for row in rows]
        for number, line in enumerate(lines, start=1):
            if len(line) != len(header):
                raise DocumentError(
                    f"row {number} of a table has {len(line)} cells, its header {len(header)}"
                )
        written = [
            [_written(cell, title, formats) for cell, title in zip(line, header, strict=True)]
            for line in lines
        ]
        columns = [[line[index].value for line in written] for index in range(len(header))]
        made = _slug(f"table {len(self._tables) + 1} {_line(caption)}", "table")
        name = self._unique(name, made, {table.name for table in self._tables}, "name")
        table = _Table(header, written, _line(caption), name, [_numeric(column) for column in columns])
        self._tables.append(table)
        self._open.append(table)

    def picture(self, image: "Image.Image", caption: str = "", alt: str = "") -> None:
        """Add a picture as it is now, without its metadata.

        Args:
            caption: stands below it.
            alt: says what it shows to those who do not see it; the caption where it is empty.

        Raises:
            DocumentError: where neither is given.
        """
        caption, alt = _line(caption), _line(alt) or _line(caption)
        if not alt:
            raise DocumentError("a picture needs a caption or an alternative text")
        self._open.append(_Picture(_png(image), *image.size, caption, alt))

    @contextmanager
    def details(self, summary: str) -> Iterator[None]:
        """What is added within the context is folded away behind a summary."""
        outside, inside = self._open, _Details(_line(summary))
        outside.append(inside)
        self._open = inside.blocks
        try:
            yield
        finally:
            self._open = outside

    def write_html(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write one file that needs no other, no network and no script; returns its path.

        Raises:
            DocumentError: where it is there already, or the name does not end in .html.
        """
        import jinja2

        environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
        sections = [block for block in _flat(self._blocks) if block.kind == "section"]
        text = template.render(title=self.title, sections=sections, blocks=self._blocks)
        return _write_all({_new(path, ".html", overwrite): text})[0]

    def write_markdown(
        self, path: str | os.PathLike[str], overwrite: bool = False, embed: bool = False
    ) -> Path:
        """Write GitHub-flavoured Markdown; returns its path.

        Pictures go into a folder beside it: `report_pictures` for `report.md`.

        Args:
            embed: put the pictures into the file instead. (GitHub does not show those.)

        Raises:
            DocumentError: where it is there already, or the name does not end in .md.
        """
        path = _new(path, ".md", overwrite)
        folder = path.with_name(f"{path.stem}_pictures")
        pictures = [block for block in _flat(self._blocks) if block.kind == "picture"]

        def address(picture: _Picture) -> str:
            return picture.url if embed else quote(f"{folder.name}/{picture.name}")

        text = "\n\n".join([f"# {_markdown(self.title)}", *_markdown_blocks(self._blocks, address)]) + "\n"
        # A name says what is in the file, so that one which is there already is the same.
        files = {} if embed else {folder / picture.name: picture.png for picture in pictures}
        return _write_all({**files, path: text})[-1]

    def write_csv(self, folder: str | os.PathLike[str], overwrite: bool = False) -> list[Path]:
        """Write a CSV file a table, with full numbers; returns their paths.

        A column with marks is followed by one that holds them. Text that a spreadsheet would take for a
        formula has an apostrophe before it.

        Raises:
            DocumentError: where one of the files is there already; then none is written.
        """
        return self._write_tables(folder, ".csv", _csv, overwrite)

    def write_latex(self, folder: str | os.PathLike[str], overwrite: bool = False) -> list[Path]:
        r"""Write a LaTeX file a table, for `\input` and the package booktabs; returns their paths.

        Raises:
            DocumentError: where one of the files is there already; then none is written.
        """
        return self._write_tables(folder, ".tex", _latex_table, overwrite)

    def _write_tables(
        self, folder: str | os.PathLike[str], suffix: str, write: Callable[[_Table], str], overwrite: bool
    ) -> list[Path]:
        paths = [_new(Path(folder) / f"{table.name}{suffix}", suffix, overwrite) for table in self._tables]
        return _write_all({path: write(table) for path, table in zip(paths, self._tables, strict=True)})

    @staticmethod
    def _unique(given: str, made: str, taken: set[str], what: str) -> str:
        """What is given, or else what was made, with a number behind it where needed."""
        if given and not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", given):
            raise DocumentError(f"{what} {given!r}: give a word of a-z, 0-9, - and _")
        if given in taken:
            raise DocumentError(f"{what} {given!r} is taken already: choose another")
        number, name = 1, given or made
        while name in taken:
            number += 1
            name = f"{made}-{number}"
        taken.add(name)
        return name


def markdown_table(lines: Sequence[Sequence[str]], right: Sequence[bool] = ()) -> str:
    """A Markdown table with aligned columns.

    Args:
        lines: cells that are Markdown already; the first line is the header.
        right: the columns to align right; none where it is empty.
    """
    right = list(right) or [False] * len(lines[0])
    widths = [min(_WIDEST, max(len(line[column]) for line in lines)) for column in range(len(lines[0]))]
    written = []
    for line in lines:
        cells = zip(line, widths, right, strict=True)
        padded = [cell.rjust(width) if end else cell.ljust(width) for cell, width, end in cells]
        written.append(f"| {' | '.join(padded)} |")
    rules = ["-" * (width + 1) + (":" if end else "-") for width, end in zip(widths, right, strict=True)]
    return "\n".join([written[0], f"|{'|'.join(rules)}|", *written[1:]])


def _clean(text: str) -> str:
    """Text that every format can hold: control characters and halves of surrogate pairs become U+FFFD."""
    if not isinstance(text, str):
        raise DocumentError(f"text is needed here, not {type(text).__name__}: {text!r}")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


def _line(text: str) -> str:
    """Text without line breaks."""
    return " ".join(_clean(text).split())


def _slug(text: str, otherwise: str) -> str:
    """Text as a word for addresses and file names."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:_LONGEST_NAME].strip("-") or otherwise


def _flat(blocks: Iterable[Any]) -> Iterator[Any]:
    """Blocks, also those within details, in order."""
    for block in blocks:
        yield block
        if block.kind == "details":
            yield from _flat(block.blocks)


def _written(cell: Value | Cell, title: str, formats: str | Mapping[str, str]) -> _Written:
    value, mark, good = cell if isinstance(cell, Cell) else (cell, "", None)
    value = _plain(value, title)
    tone = {True: "good", False: "bad", None: "plain"}[good]
    return _Written(value, _text(value, title, formats), _line(mark), tone)


def _plain(value: object, title: str) -> Value:
    """A cell's value as Python's own type."""
    if value is None or isinstance(value, str):
        return value if value is None else _clean(value)
    if hasattr(value, "item"):  # a scalar of numpy or torch
        try:
            value = value.item()
        except (ValueError, RuntimeError, TypeError) as error:
            raise DocumentError(f"column {title!r}: one number a cell, not an array ({error})") from error
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise DocumentError(f"column {title!r}: a cell is text, a number or None, not {type(value).__name__}")


def _text(value: Value, title: str, formats: str | Mapping[str, str]) -> str:
    if value is None:
        return _NOTHING
    if isinstance(value, str):
        return value
    if isinstance(formats, str):
        spec = (formats or _DIGITS) if isinstance(value, float) else ""
    else:
        spec = formats.get(title, _DIGITS if isinstance(value, float) else "")
    try:
        return format(value, spec)
    except ValueError as error:
        raise DocumentError(f"column {title!r}: {value} cannot be written as {spec!r} ({error})") from error


def _numeric(values: Sequence[Value]) -> bool:
    there = [value for value in values if value is not None]
    return bool(there) and not any(isinstance(value, str) for value in there)


def _png(image: "Image.Image") -> bytes:
    plain = image.convert("RGBA" if image.has_transparency_data else "RGB")
    plain.info = {}  # workflows, prompts and places may stand there
    buffer = io.BytesIO()
    plain.save(buffer, format="PNG")
    return buffer.getvalue()


def _new(path: str | os.PathLike[str], suffix: str, overwrite: bool) -> Path:
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise DocumentError(f"{path}: the name must end in {suffix}")
    if path.exists() and not overwrite:
        raise DocumentError(f"{path}: is there already; choose another name, or allow overwriting")
    return path


def _write_all(files: Mapping[Path, str | bytes]) -> list[Path]:
    """Write files, each whole or not at all."""
    for path, content in files.items():
        with atomic_path(path) as temporary:
            temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return list(files)


def _markdown_blocks(blocks: Iterable[Any], address: Callable[[_Picture], str]) -> Iterator[str]:
    for block in blocks:
        if block.kind == "section":
            yield f'<a id="{block.anchor}"></a>\n\n{"#" * (block.level + 1)} {_markdown(block.heading)}'
        elif block.kind == "paragraph":
            yield "\n\n".join(_markdown_paragraph(part) for part in re.split(r"\n\s*\n", block.text))
        elif block.kind == "details":
            yield f"<details><summary>{html.escape(block.summary)}</summary>"
            yield from _markdown_blocks(block.blocks, address)
            yield "</details>"
        else:
            if block.kind == "table":
                lines = [block.header, *([cell.marked for cell in row] for row in block.rows)]
                yield markdown_table([[_markdown(text) for text in line] for line in lines], block.numeric)
            else:
                yield f"![{_markdown(block.alt)}]({address(block)})"
            if block.caption:
                yield f"*{_markdown(block.caption)}*"


def _markdown(text: str) -> str:
    """Text in which Markdown, as GitHub reads it, finds no markup and no address to make a link of."""
    text = re.sub(r"([\\`*_\[\]|~$#]|:(?=\S))", r"\\\1", html.escape(text.strip(), quote=False))
    return re.sub(r"(?<=www)\.", r"\\.", text).replace("\n", "<br>")


def _markdown_paragraph(text: str) -> str:
    """Text whose lines begin no list, and underline no heading."""
    lines = [re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", _markdown(line)) for line in text.split("\n")]
    return "<br>\n".join(lines)


def _csv(table: _Table) -> str:
    """Every column gives one, or two where any of its cells has a mark."""
    widths = [1 + any(row[index].mark for row in table.rows) for index in range(len(table.header))]
    lines: list[list[tuple[Value, str]]] = [[(title, f"{title} (mark)") for title in table.header]]
    lines += [[(cell.value, cell.mark) for cell in row] for row in table.rows]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    for line in lines:
        cells = zip(line, widths, strict=True)
        writer.writerow([_harmless(value) for cell, width in cells for value in cell[:width]])
    return buffer.getvalue()


def _harmless(value: Value) -> Value:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) else value


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': r"\symbol{34}",
    "[": "{[}", "]": "{]}", "*": "{*}",
} | {character: f"\\{character}" for character in "&%$#_{}"}  # fmt: skip
"""Characters that mean something to LaTeX; `[` and `*` do at the start of a row, `"` does in German."""


def _latex(text: str) -> str:
    written = "".join(_LATEX.get(character, character) for character in _line(text))
    return re.sub(r"-(?=-)", "-{}", written)  # two would become one long one


def _latex_cell(cell: _Written) -> str:
    text = _latex(cell.marked)
    return f"$-${text[1:]}" if isinstance(cell.value, int | float) and text[0] == "-" else text


def _latex_table(table: _Table) -> str:
    columns = "".join("r" if numeric else "l" for numeric in table.numeric)
    lines = [" & ".join(map(_latex_cell, row)) + r" \\" for row in table.rows]
    head = " & ".join(map(_latex, table.header)) + r" \\"
    inner = [r"\toprule", head, r"\midrule", *lines, r"\bottomrule"]
    caption = [rf"  \caption{{{_latex(table.caption)}}}"] if table.caption else []
    return "\n".join(
        [
            r"% Needs the package booktabs; other scripts than Latin need XeLaTeX or LuaLaTeX and a font.",
            r"\begin{table}", r"  \centering", *caption, rf"  \label{{tab:{table.name}}}",
            rf"  \begin{{tabular}}{{{columns}}}", *(f"    {line}" for line in inner), r"  \end{tabular}",
            r"\end{table}", "",
        ]
    )  # fmt: skip
