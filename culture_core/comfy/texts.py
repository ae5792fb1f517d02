"""Reports as ComfyUI shows them."""


def for_preview(report: str) -> str:
    """A report that keeps its lines and tables in Preview as Text, which takes texts for Markdown.

    Paragraphs with columns are indented, the lines of others end in two spaces; as plain text it reads as
    before.
    """
    return "\n\n".join(_paragraph(part.strip("\n")) for part in report.split("\n\n") if part.strip())


def _paragraph(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines()]
    if any("  " in line.strip() for line in lines):
        return "\n".join(f"    {line}" for line in lines)
    return "  \n".join(lines)
