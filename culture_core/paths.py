"""Names of files that stand in files from anyone."""

from pathlib import Path


def path_inside(folder: Path, name: str) -> Path | None:
    """Where a name leads, all links followed; None where that is outside of the folder, or the name is none
    that a file can have."""
    root = folder.resolve()
    try:
        path = (root / name).resolve()
        path.exists()  # raises for a name that is too long
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links in a circle
        return None
    return path if path.is_relative_to(root) else None
