"""Reading a study's report back."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """Tables and headings of an HTML page; tags must be closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self.pictures = 0
        self.open: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self._parts: list[str] = []
        self.feed(self.text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.pictures += tag == "img"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th", "h2", "h3"):
            self._parts = []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        text = " ".join("".join(self._parts).split())
        if tag in ("td", "th"):
            self.tables[-1][-1].append(text)
        elif tag in ("h2", "h3"):
            self.headings.append(text)

    def handle_data(self, data):
        self._parts.append(data)

    def table(self, *titles: str) -> list[dict[str, str]]:
        """Rows of the first table that has these columns."""
        found = next(table for table in self.tables if set(titles) <= set(table[0]))
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def latex_rows(path: Path) -> list[list[str]]:
    """Cells of a LaTeX table, the header first."""
    inner = path.read_text(encoding="utf-8").split(r"\toprule")[1].split(r"\bottomrule")[0]
    lines = [line.strip() for line in inner.replace(r"\midrule", "").splitlines() if line.strip()]
    return [[_plain(cell) for cell in line.removesuffix(r"\\").split(" & ")] for line in lines]


def _plain(cell: str) -> str:
    cell = cell.replace(r"\textless{}", "<").replace("$-$", "-")
    return re.sub(r"\\([%_&#])", r"\1", cell).strip()


def same_tables(folder: Path) -> int:
    """See that every CSV table says what the LaTeX one says; returns how many cells were compared."""
    compared = 0
    for path in folder.glob("*.csv"):
        rows = csv_rows(path)
        header, *lines = latex_rows(path.with_suffix(".tex"))
        marked = [title for title in rows[0] if title.endswith(" (mark)")] if rows else []
        assert [title for title in rows[0] if title not in marked] == header
        assert len(lines) == len(rows)
        for row, line in zip(rows, lines, strict=True):
            for title, cell in zip(header, line, strict=True):
                value, mark = row[title].lstrip("'"), row.get(f"{title} (mark)")
                compared += 1
                if cell == "–":
                    assert value == ""
                elif re.fullmatch(r"-?\d+(\.\d+)?", cell):
                    decimals = len(cell.partition(".")[2])
                    assert abs(float(value) - float(cell)) <= 0.5001 * 10**-decimals
                else:
                    assert cell == (f"{value} ({mark})" if mark else value)
    return compared
