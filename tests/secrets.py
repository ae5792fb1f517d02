"""A key that is planted, and the search for it in everything that a run leaves behind."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from .chat_server import Answer, Asked, chosen, failed, said


def forms(key: str) -> dict[str, bytes]:
    """How a key may be written."""
    encoded = base64.b64encode(key.encode()).rstrip(b"=")
    return {
        "plain": key.encode(), "base64": encoded[: len(key) * 4 // 3],
        "quoted": urllib.parse.quote(key, safe="").encode(), "JSON": json.dumps(key)[1:-1].encode(),
        "behind 'Bearer ' in base64": base64.b64encode(b"Bearer " + key.encode())[10:-4],
    }  # fmt: skip


def places_of(keys: Iterable[str], texts: dict[str, bytes]) -> list[str]:
    """Where one of the keys is found, in whatever form."""
    return [
        f"{place}: {form}"
        for key in keys
        for form, written in forms(key).items()
        for place, text in texts.items()
        if written in text
    ]


def everything_in(folder: Path, without: Iterable[Path] = ()) -> dict[str, bytes]:
    """All files by their path, pictures also with their texts, which may be compressed in the file."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path not in set(without):
            found[str(path)] = path.read_bytes()
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    found[f"{path}, its texts"] = repr(picture.info).encode()
    return found


def telling(status: str) -> Callable[[Asked], Answer]:
    """A server that repeats the key it was given: in an error, in an answer, as the model's name."""

    def answer(asked: Asked) -> Answer:
        key = asked.headers["authorization"].removeprefix("Bearer ")
        encoded = [base64.b64encode(before + key.encode()).decode() for before in (b"", b"Bearer ", b"ab")]
        told = " ".join([key, urllib.parse.quote(key, safe=""), *encoded])
        if status.isdigit():
            return failed(int(status), f"wrong key {told}", code=re.sub(r"\W", "", key))
        if status == "malformed":
            return Answer(200, f"<html>{told}".encode())
        if status == "refusal":
            return said(None, refusal=f"I do not answer {told}")
        if status == "model":
            return chosen("Thai", model=told)
        return said(f"It is {told}")

    return answer


STATUSES = ("401", "500", "400", "malformed", "refusal", "model", "text")
