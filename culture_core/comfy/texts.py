"""Reports as ComfyUI shows them."""

import sys


def show_on_node(text: str, node: str | None) -> None:
    """Write a text on a node of the graph that runs; does nothing outside of a server.

    Args:
        node: id of the node; None: nowhere.
    """
    # Not imported: where ComfyUI has no server, there is no node to write on.
    server = sys.modules.get("server")
    running = getattr(getattr(server, "PromptServer", None), "instance", None)
    if running is not None and node is not None:
        running.send_progress_text(text, node)


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
