"""What ComfyUI is asked to run, seen before anything runs.

While it checks a graph ComfyUI shows a node nothing but that node's own known inputs. Its server does hand
the whole request to prompt handlers, in the task that checks the nodes right after: a context variable
carries the request from there to here.
"""

import re
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

PACK = "culture-amplifier"
"""The pack's name in the registry."""
OPEN = {"file", "folder", "adapter", "judge", "culture"}
"""Combos that list what this machine has, or read more than they list."""
_PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
_request: ContextVar[dict[str, Any]] = ContextVar("culture_request")


def watch_queue() -> None:
    """Have ComfyUI's server, where one runs, show what it is asked to run."""
    server = sys.modules.get("server")  # which ComfyUI has loaded before any pack
    instance = getattr(getattr(server, "PromptServer", None), "instance", None)
    if instance is not None:
        instance.add_on_prompt_handler(_remember)


def _remember(request: dict[str, Any]) -> dict[str, Any]:
    _request.set(request)
    return request


def pack_version() -> str:
    """Version of this pack."""
    found = re.search(r'^version = "(.+)"', _PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


def check_known(kind: str, choices: dict[str, list[str] | None]) -> None:
    """Every node of a kind that waits to run must have inputs, and values in its lists, that the pack knows.

    Args:
        choices: the inputs of the kind, with the values that each offers; None where it is no list.

    Raises:
        ValueError: for what a newer version of the pack has brought; it says to update.
    """
    for number, node in (_current().get("prompt") or {}).items():
        if not isinstance(node, dict) or node.get("class_type") != kind:
            continue
        for name, value in (node.get("inputs") or {}).items():
            if name not in choices:
                raise ValueError(f"Node {number} has an input '{name}' that is not known here. {_newer()}")
            offered = choices[name]
            if offered is not None and name not in OPEN and isinstance(value, str) and value not in offered:
                raise ValueError(f"{name} '{value}' is none of {', '.join(offered)}. {_newer()}")


def source_of(name: str) -> str:
    """Where the workflow says that a file is to be had, as a sentence."""
    for node in _canvas_nodes():
        models = _properties(node).get("models")
        for model in models if isinstance(models, list) else []:
            if isinstance(model, dict) and model.get("name") == name and model.get("url"):
                return f"The workflow says where to get it: {model['url']}"
    return "The workflow does not say where to get it: ask whoever made it."


def _newer() -> str:
    """What to do about something that is not known here."""
    made = sorted({version for version in map(_version, _canvas_nodes()) if version}, key=_numbers)
    known = bool(made) and _numbers(made[-1]) > _numbers(pack_version())
    by = f"was made with Culture Amplifier {made[-1]}," if known else "was probably made with a"
    return (
        f"The workflow {by} newer {'' if known else 'Culture Amplifier '}than this one ({pack_version()}): "
        "update the pack (ComfyUI Manager, or `git pull` in its folder), and restart ComfyUI."
    )


def _version(node: dict[str, Any]) -> str:
    properties = _properties(node)
    return str(properties.get("ver") or "") if properties.get("cnr_id") == PACK else ""


def _properties(node: dict[str, Any]) -> dict[str, Any]:
    properties = node.get("properties")
    return properties if isinstance(properties, dict) else {}


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]{1,9}", version)]


def _current() -> dict[str, Any]:
    return _request.get({})


def _canvas_nodes() -> Iterator[dict[str, Any]]:
    """The nodes of the canvas that the request came from, where it tells; a stranger wrote it."""
    try:
        workflow = _current()["extra_data"]["extra_pnginfo"]["workflow"]
        graphs = [workflow, *((workflow.get("definitions") or {}).get("subgraphs") or [])]
        yield from (node for graph in graphs for node in graph["nodes"] if isinstance(node, dict))
    except (KeyError, TypeError, AttributeError):
        return
