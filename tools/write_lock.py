"""Write requirements-dev.lock: the versions in this environment of all that the requirements lead to.

    python -m tools.write_lock      after the whole test suite passed with them

An environment of these versions: `pip install -r requirements-dev.txt -c requirements-dev.lock`.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI")
LOCK = ROOT / "requirements-dev.lock"
SOURCES = (ROOT / "requirements-dev.txt", COMFYUI / "requirements.txt")


def read(path: Path) -> list[Requirement]:
    """The requirements in a file."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def locked(wanted: list[Requirement]) -> dict[str, str]:
    """Versions by name of what is installed for some requirements; what is not installed is left out."""
    found: dict[str, str] = {}
    waiting = [(canonicalize_name(one.name), frozenset(one.extras)) for one in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = package.version.partition("+")[0]
        for text in package.requires or ():
            one = Requirement(text)
            places = [{**default_environment(), "extra": extra} for extra in ("", *extras)]
            if one.marker is None or any(one.marker.evaluate(place) for place in places):
                waiting.append((canonicalize_name(one.name), frozenset(one.extras)))
    return found


def main() -> None:
    pins = locked([one for path in SOURCES for one in read(path)])
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    lines = [f"# What the tests ran with ({system}); written by `python -m tools.write_lock`."]
    lines += [f"{name}=={version}" for name, version in sorted(pins.items())]
    LOCK.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(pins)} versions in {LOCK.name}")


if __name__ == "__main__":
    sys.exit(main())
