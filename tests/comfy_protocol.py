"""A real HTTP server that speaks as much of ComfyUI's protocol as a run needs, and fails as real ones do."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

INFO = {
    "Draw": {
        "input": {
            "required": {
                "text": ["STRING", {}],
                "seed": ["INT", {"min": 0, "max": 100}],
                "size": [["small", "large"], {}],
            },
            "optional": {
                "strength": ["FLOAT", {"min": -1, "max": 4}],
                "culture": ["COMBO", {"options": ["Thai (th)", "Japanese"]}],
            },
        },
        "output": ["IMAGE"],
        "output_node": False,
    },
    "Save": {"input": {"required": {"images": ["IMAGE", {}]}}, "output": [], "output_node": True},
}
"""Nodes that it has."""
GRAPH = {
    "1": {"class_type": "Draw", "inputs": {"text": "", "seed": 0, "size": "small", "strength": 1.0},
          "_meta": {"title": "Painter"}},
    "2": {"class_type": "Save", "inputs": {"images": ["1", 0]}},
}  # fmt: skip
FAILED = {
    "status_str": "error",
    "messages": [
        ["execution_error", {"node_id": "1", "exception_type": "MemoryError", "exception_message": "full"}]
    ],
}
Fault = Callable[["ComfyProtocolServer", dict], Any]
"""Gets the server and a submitted graph; gives an entry of the history, or None for the usual one."""


def picture(graph: Mapping[str, Any]) -> Image.Image:
    """What the server draws: another picture for every text, seed and strength."""
    inputs = graph["1"]["inputs"]
    mark = sum(map(ord, inputs["text"])) % 200, inputs["seed"], int(10 * inputs["strength"])
    return Image.new("RGB", (4, 4), mark)


class ComfyProtocolServer:
    """Context manager around a server of this process."""

    def __init__(
        self, fault: Fault | None = None, info: Any = INFO, wait: float = 0.0, port: int = 0
    ) -> None:
        self.fault, self.info, self.wait, self._port = fault, info, wait, port
        self.graphs: list[dict[str, Any]] = []
        """All that was submitted."""
        self.history: dict[str, Any] = {}
        self.pictures: dict[str, bytes] = {}
        self.cancelled: list[Any] = []
        self.refuse: tuple[int, bytes] | None = None
        """Status and body for every graph."""

    def __enter__(self) -> ComfyProtocolServer:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.get(self)

            def do_POST(self) -> None:
                owner.post(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def die(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        if parts.path == "/view":
            return _send(handler, 200, self.pictures[parse_qs(parts.query)["filename"][0]])
        if parts.path == "/object_info":
            return _send(handler, 200, self.info)
        if parts.path == "/queue":
            return _send(handler, 200, {"queue_running": [], "queue_pending": []})
        if parts.path.startswith("/history/"):
            id = parts.path.rpartition("/")[2]
            return _send(handler, 200, {id: self.history[id]} if id in self.history else {})
        _send(handler, 200, {"system": {}})

    def post(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if handler.path != "/prompt":
            self.cancelled.append((handler.path, body))
            return _send(handler, 200, {})
        graph = body["prompt"]
        self.graphs.append(graph)
        if self.refuse:
            return _send(handler, *self.refuse)
        id = f"job-{len(self.graphs)}"
        time.sleep(self.wait)
        entry = self.fault and self.fault(self, graph)
        if entry != "forget":
            self.history[id] = entry or self.done(id, graph)
        _send(handler, 200, {"prompt_id": id, "number": 1, "node_errors": {}})

    def done(self, id: str, graph: dict[str, Any], count: int = 1) -> dict[str, Any]:
        """The history of a graph that went well."""
        data = io.BytesIO()
        picture(graph).save(data, format="PNG")
        self.pictures[id] = data.getvalue()
        images = [{"filename": id, "subfolder": "", "type": "output"}] * count
        return {"status": {"status_str": "success"}, "outputs": {"2": {"images": images}}}


def _send(handler: BaseHTTPRequestHandler, status: int, body: Any) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
