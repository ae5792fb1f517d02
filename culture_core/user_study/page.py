"""The questionnaire: one HTML file with everything in it that asks nothing of any server."""

import base64
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from ..atomic import atomic_path
from .answers import ANSWERS_FORMAT, COLUMNS
from .design import TASKS, VERSION, Rater, Study
from .pictures import StudyError, picture_path
from .texts import texts

EDGE = 512
"""Longest side of a picture in the page, pixels."""
MAX_PAGE_BYTES = 256 << 20
_QUALITY = 90


def write_questionnaire(
    study: Study,
    run: str | os.PathLike[str],
    path: str | os.PathLike[str],
    note: str = "",
    edge: int = EDGE,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the page for all raters of a study. It appears whole or not at all.

    The page holds no system's name, no prompt and no file name, and pictures lose their metadata.

    Args:
        run: the folder that the study's pictures are in.
        note: what the first and the last screen say besides, for instance who asks, consent, where to send
            the answers.
        edge: longest side of a picture, pixels; larger ones are scaled down.
        progress: called with pictures done and their number; what it raises ends the work.

    Raises:
        StudyError: for a picture that cannot be read, or a page that no browser would open.
    """
    pictures = {}
    for done, (code, picture) in enumerate(study.pictures.items(), start=1):
        pictures[code] = _embedded(picture_path(run, picture.file_name), edge)
        if progress is not None:
            progress(done, len(study.pictures))
    content = {
        "study": study.id,
        "format": ANSWERS_FORMAT,
        "version": VERSION,
        "columns": COLUMNS,
        "tasks": TASKS,
        "note": note,
        "languages": texts(),
        "raters": {code: _rater(rater) for code, rater in study.raters.items()},
        "pictures": pictures,
    }
    page = _filled(content).encode()
    if len(page) > MAX_PAGE_BYTES:
        raise StudyError(
            f"the page would have {len(page) >> 20} MiB, more than {MAX_PAGE_BYTES >> 20}: take fewer items "
            "or systems, or smaller pictures"
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(page)


def _rater(rater: Rater) -> dict[str, Any]:
    questions = [(one.task, one.picture, one.asked, one.check) for one in rater.questions]
    return {"options": rater.options, "questions": questions}


def _embedded(path: Path, edge: int) -> str:
    """A picture as a data URL without metadata, which may tell the system; JPEG whatever it was, since the
    kind of file may tell it as well."""
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise StudyError(f"{path}: cannot be read as a picture ({error})") from error
    flat = Image.new("RGB", upright.size, "white")
    flat.paste(upright, mask=upright.getchannel("A"))
    flat.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    flat.save(file, format="JPEG", quality=_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _filled(content: dict[str, Any]) -> str:
    """The page's template with style, script and content; its policy allows nothing else to run or load."""
    template, style, script = (
        (Path(__file__).parent / name).read_text(encoding="utf-8")
        for name in ("questionnaire.html", "questionnaire.css", "questionnaire.js")
    )
    # "<" could end the element that the JSON stands in.
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    policy = f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    for name, text in (("POLICY", policy), ("STYLE", style), ("SCRIPT", script), ("CONTENT", data)):
        template = template.replace(f"[[{name}]]", text, 1)
    return template


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
