"""A real HTTP server that speaks the chat-completions protocol, and fails in the ways that real ones do."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from PIL import Image

MODEL = "tiny-vl"
PATH = "/v1/chat/completions"


class Asked(NamedTuple):
    """One request."""

    body: dict[str, Any]
    headers: dict[str, str]
    time: float

    @property
    def text(self) -> str:
        content = self.body["messages"][0]["content"]
        return content if isinstance(content, str) else content[0]["text"]

    @property
    def image(self) -> Image.Image:
        url = self.body["messages"][0]["content"][1]["image_url"]["url"]
        return Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2])))

    @property
    def choices(self) -> list[str] | None:
        """Of the structured output that is wanted."""
        form = self.body.get("response_format")
        return form and form["json_schema"]["schema"]["properties"]["answer"]["enum"]


class Answer(NamedTuple):
    """What the server sends."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = {}
    wait: float = 0.0


def said(text: str | None, model: str = MODEL, usage: tuple[int, int] | None = (100, 5), **fields) -> Answer:
    """A well-formed answer; `fields` replace parts of its message or its `finish_reason`."""
    finish = fields.pop("finish_reason", "stop")
    message = {"role": "assistant", "content": text, **fields}
    body: dict[str, Any] = {
        "id": "1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }  # fmt: skip
    if usage:
        prompt, completion = usage
        body["usage"] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": sum(usage)}
    return Answer(body=body)


def chosen(label: str, **fields) -> Answer:
    """The structured output of a choice."""
    return said(json.dumps({"answer": label}), **fields)


def failed(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"error": {"message": message, "type": "t", "code": code}}, named)


class ChatServer:
    """Context manager around a server; `answer` says what it replies to a request."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self.answer, self.asked = answer, []
        self._lock = threading.Lock()

    def __enter__(self) -> ChatServer:
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802  the name that http.server looks for
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked = Asked(body, {k.lower(): v for k, v in self.headers.items()}, time.monotonic())
                with chat._lock:
                    chat.asked.append(asked)
                answer = chat.answer(asked) if self.path == PATH else failed(404, "no such path")
                time.sleep(answer.wait)
                raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                try:
                    self.send_response(answer.status)
                    headers = {"Content-Type": "application/json", **answer.headers}
                    for name, value in {**headers, "Content-Length": str(len(raw))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(raw)
                except OSError:  # who asked has gone
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"


def in_turn(*answers: Answer) -> Callable[[Asked], Answer]:
    """One answer after the other; the last is repeated."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]
