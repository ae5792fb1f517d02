"""Which models this machine may ask: from its environment and a file of its own, never from a workflow.

The environment describes one server: `CULTURE_VLM_URL`, `CULTURE_VLM_MODEL` and, where it wants one,
`CULTURE_VLM_KEY`. Several, and further settings, stand in a JSON file, named by `CULTURE_VLM_CONFIG`, or else
in `~/.config/comfyui-culture/models.json`:

    {"gemini": {"url": "https://…/v1", "model": "gemini-…", "key_env": "GEMINI_API_KEY",
                "requests_per_minute": 60, "prices": {"prompt": 0.3, "completion": 2.5, "currency": "USD"}},
     "qwen": {"kind": "local", "folder": "/models/Qwen3-VL-4B-Instruct", "device": "cuda"},
     "siglip": {"kind": "zero-shot", "folder": "/models/siglip2-base-patch16-256"}}
"""

import dataclasses
import functools
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .base import VLM, VLMError
from .usage import Prices

logger = logging.getLogger(__name__)

CONFIG_VARIABLE = "CULTURE_VLM_CONFIG"
FROM_ENVIRONMENT = "vlm"
"""Name of the server that the environment describes."""
KINDS = ("server", "local", "zero-shot")
VLM_KINDS = KINDS[:2]


def config_path() -> Path:
    given = os.environ.get(CONFIG_VARIABLE)
    return Path(given) if given else Path.home() / ".config" / "comfyui-culture" / "models.json"


def configured() -> dict[str, dict[str, Any]]:
    """The settings of each model by its name, with its `kind`; the environment's first.

    Raises:
        VLMError: for a file that cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    if os.environ.get("CULTURE_VLM_URL"):
        names = {"url": "CULTURE_VLM_URL", "model": "CULTURE_VLM_MODEL", "key": "CULTURE_VLM_KEY"}
        found[FROM_ENVIRONMENT] = {"kind": "server", **{k: os.environ.get(v, "") for k, v in names.items()}}
    path = config_path()
    if path.is_file():
        found.update({name: _entry(name, entry) for name, entry in _read(path).items() if name not in found})
    elif os.environ.get(CONFIG_VARIABLE):
        raise VLMError(f"{CONFIG_VARIABLE} names a file that is not there: {path}")
    return found


def open_vlm(name: str = "") -> VLM:
    """The VLM of that name; without a name, the first that is configured.

    Raises:
        VLMError: where none is, or its settings are wrong; the message says what to do.
    """
    entries = {key: value for key, value in configured().items() if value["kind"] in VLM_KINDS}
    if not entries:
        raise VLMError(
            "no VLM is configured: set CULTURE_VLM_URL, CULTURE_VLM_MODEL and, if the server wants one, "
            f"CULTURE_VLM_KEY, or describe one in {config_path()}"
        )
    name = name or next(iter(entries))
    if name not in entries:
        raise VLMError(f"there is no VLM {name!r}: configured are {', '.join(entries)}")
    return make_vlm(name, entries[name])


def make_vlm(name: str, entry: Mapping[str, Any]) -> VLM:
    """A VLM from an entry of `configured`."""
    fields = {key: value for key, value in entry.items() if key != "kind"}
    if entry["kind"] == "local":
        from .local import LocalVLM

        check_fields(name, fields, {"folder"}, {"device", "dtype", "longest_edge"})
        return LocalVLM(**{**fields, "folder": Path(fields["folder"])})
    from .server import ServerSettings, ServerVLM

    known = {f.name for f in dataclasses.fields(ServerSettings)} | {"key_env"}
    check_fields(name, fields, {"url", "model"}, known)
    if variable := fields.pop("key_env", None):
        fields["key"] = os.environ.get(variable) or _missing_key(name, variable)
    if (prices := fields.get("prices")) is not None:
        fields["prices"] = _prices(name, prices)
    try:
        settings = ServerSettings(**fields)
    # TypeError and AttributeError: something is no number, or no text.
    except (VLMError, TypeError, AttributeError, ValueError) as error:
        raise VLMError(f"the settings of the VLM {name!r} are wrong: {error}") from None
    return ServerVLM(settings)


def check_fields(name: str, fields: Mapping[str, Any], needed: set[str], known: set[str]) -> None:
    """See that an entry has what it needs and nothing else.

    Raises:
        VLMError: where it does not.
    """
    missing, unknown = needed - fields.keys(), fields.keys() - needed - known
    if missing or unknown:
        what = f"lacks {', '.join(sorted(missing))}" if missing else f"has {', '.join(sorted(unknown))}"
        raise VLMError(f"the model {name!r} in the configuration {what}; it may have: "
                       f"{', '.join(sorted(needed | known))}")  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise VLMError(f"{path} cannot be read: {error}") from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise VLMError(f"{path}: it must hold an object of objects, a model each")
    if os.name == "posix" and path.stat().st_mode & 0o077 and any("key" in e for e in entries.values()):
        _warn_of_key(path)
    return entries


@functools.cache
def _warn_of_key(path: Path) -> None:
    """Once: the file is read for every list of judges."""
    logger.warning("%s holds a key and others can read it: chmod 600, or use key_env.", path)


def _entry(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    entry = {"kind": "server", **entry}
    if entry["kind"] not in KINDS:
        raise VLMError(f"the model {name!r} in the configuration is of the unknown kind {entry['kind']!r}: "
                       f"use one of {', '.join(KINDS)}")  # fmt: skip
    return entry


def _missing_key(name: str, variable: str) -> str:
    raise VLMError(f"the VLM {name!r} takes its key from the variable {variable}, which is not set")


def _prices(name: str, prices: Any) -> Prices:
    try:
        return Prices(**prices)
    except TypeError:
        raise VLMError(
            f'the prices of the VLM {name!r} must be {{"prompt": …, "completion": …, "currency": …}}, for a '
            "million tokens"
        ) from None
