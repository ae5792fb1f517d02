"""A small client of ComfyUI's HTTP and WebSocket interface.

client = ComfyClient("http://127.0.0.1:8188")
set_inputs(workflow, "Neutral prompt", text="ein Haus")     # by the node's title
result = client.run(workflow, on_progress=ProgressLine())   # raises WorkflowError: node and reason
result.cached, result.outputs                               # node ids; {node id: its ui outputs}
client.images(result)                                       # {node id: [PNG bytes, ...]}
"""

from __future__ import annotations

import copy
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

Workflow = dict[str, dict[str, Any]]


class WorkflowError(RuntimeError):
    """ComfyUI refused the workflow or a node failed. The message names the node and the reason."""


@dataclass(frozen=True)
class Progress:
    """Where a run is."""

    node: str
    """Title of the node that runs."""
    done: int
    """Nodes finished or cached."""
    total: int
    """Nodes of the workflow."""
    step: int = 0
    steps: int = 0
    """Steps of the running node; 0 where it does not report any."""


@dataclass(frozen=True)
class Result:
    """A finished run."""

    prompt_id: str
    outputs: dict[str, dict[str, Any]]
    """Node id -> what the node shows, e.g. `{"images": [...]}`."""
    cached: frozenset[str]
    """Ids of the nodes that ComfyUI took from its cache."""


def find_node(workflow: Workflow, title: str) -> str:
    """Id of the one node with that title (`_meta.title`)."""
    found = [key for key, node in workflow.items() if node.get("_meta", {}).get("title") == title]
    if len(found) != 1:
        titles = ", ".join(sorted(node.get("_meta", {}).get("title", "?") for node in workflow.values()))
        raise WorkflowError(f"{len(found)} nodes are titled {title!r}; one is needed. Titles: {titles}.")
    return found[0]


def set_inputs(workflow: Workflow, title: str, **inputs: Any) -> None:
    """Change inputs of the node with that title. An input that it does not have is an error."""
    node = workflow[find_node(workflow, title)]
    unknown = set(inputs) - set(node["inputs"])
    if unknown:
        names = ", ".join(sorted(unknown))
        raise WorkflowError(f"Node {title!r} has no input {names}; it has {', '.join(node['inputs'])}.")
    node["inputs"].update(inputs)


class ProgressLine:
    """Shows progress as one line of the terminal; where the output is none, as a line every few seconds."""

    def __init__(self, prefix: str = "", stream: TextIO | None = None, interval: float = 5) -> None:
        self.prefix, self.stream, self.interval = prefix, stream or sys.stderr, interval
        self._width, self._last_node, self._last_time = 0, "", -interval

    def __call__(self, progress: Progress) -> None:
        text = f"{self.prefix}[{progress.done}/{progress.total}] {progress.node}"
        if self.stream.isatty():
            steps = f" {progress.step}/{progress.steps}" if progress.steps else ""
            line = text + steps
            self.stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        elif progress.node != self._last_node and time.monotonic() >= self._last_time + self.interval:
            self.stream.write(text + "\n")
            self._last_node, self._last_time = progress.node, time.monotonic()
        self.stream.flush()

    def clear(self) -> None:
        """Take the line away again."""
        if self.stream.isatty():
            self.stream.write("\r" + " " * self._width + "\r")
            self.stream.flush()


class ComfyClient:
    """One client of one server."""

    def __init__(self, url: str, check_server: Callable[[], None] = lambda: None) -> None:
        """`check_server` is called while waiting; it raises when the server is gone."""
        self.url, self.client_id, self.check_server = url.rstrip("/"), uuid.uuid4().hex, check_server

    def object_info(self, node: str | None = None) -> dict[str, Any]:
        """Description of all nodes, or of one (an empty dict where the server does not know it)."""
        return self._json("/object_info" + (f"/{urllib.parse.quote(node)}" if node else ""))

    def queue(self, workflow: Workflow) -> str:
        """Submit a workflow; returns its prompt id. Raises `WorkflowError` where validation fails."""
        body = {"prompt": workflow, "client_id": self.client_id}
        try:
            answer = self._json("/prompt", body)
        except urllib.error.HTTPError as error:
            raise WorkflowError(_validation_message(workflow, error.read())) from error
        if answer.get("node_errors"):  # ComfyUI would run the valid outputs and silently leave out the others
            self._request("/queue", {"delete": [answer["prompt_id"]]})
            raise WorkflowError(_validation_message(workflow, json.dumps(answer).encode()))
        return answer["prompt_id"]

    def interrupt(self) -> None:
        """Stop the workflow that runs now."""
        self._request("/interrupt", {})

    def free(self, empty_caches: bool = False) -> None:
        """Unload all models once the running workflow is finished; on request also forget all results."""
        self._request("/free", {"unload_models": True, "free_memory": empty_caches})

    def forget(self, prompt_id: str) -> None:
        """Take a finished run out of the server's history."""
        self._request("/history", {"delete": [prompt_id]})

    def history(self, prompt_id: str) -> dict[str, Any]:
        """What the server recorded of a finished run."""
        return self._json(f"/history/{prompt_id}").get(prompt_id, {})

    def run(
        self,
        workflow: Workflow,
        on_progress: Callable[[Progress], None] | None = None,
        timeout: float = 1800,
    ) -> Result:
        """Submit a workflow and wait until it is finished; `timeout` in seconds."""
        from websocket import create_connection

        workflow = copy.deepcopy(workflow)
        address = self.url.replace("http", "ws", 1) + f"/ws?clientId={self.client_id}"
        socket = create_connection(address, timeout=2)
        try:  # connected before the workflow is queued, so that no message is missed
            prompt_id = self.queue(workflow)
            watcher = _Watcher(workflow, prompt_id, on_progress)
            self._watch(socket, watcher, time.monotonic() + timeout)
        finally:
            socket.close()
        return Result(prompt_id, self.history(prompt_id).get("outputs", {}), frozenset(watcher.cached))

    def _watch(self, socket: Any, watcher: _Watcher, deadline: float) -> None:
        from websocket import WebSocketConnectionClosedException, WebSocketTimeoutException

        while not watcher.finished:
            if time.monotonic() > deadline:
                raise WorkflowError("The workflow took too long. Is the server busy with another one?")
            self.check_server()
            try:
                message = socket.recv()
            except WebSocketTimeoutException:
                continue
            except (WebSocketConnectionClosedException, OSError) as error:
                time.sleep(1)  # a dying process closes its sockets a little before it is gone
                self.check_server()
                raise WorkflowError("The server closed the connection during the run.") from error
            if isinstance(message, str):  # binary messages are preview pictures
                watcher.receive(json.loads(message))

    def images(self, result: Result, kind: str = "images") -> dict[str, list[bytes]]:
        """The pictures of a run as PNG files: node id -> list."""
        return {
            node: [self.file(image) for image in output[kind]]
            for node, output in result.outputs.items()
            if output.get(kind)
        }

    def file(self, file: dict[str, str]) -> bytes:
        """A file that a run saved, as its outputs name it."""
        return self._request("/view?" + urllib.parse.urlencode(file))

    def _json(self, path: str, body: dict | None = None) -> Any:
        return json.loads(self._request(path, body))

    def _request(self, path: str, body: dict | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.read()


class _Watcher:
    """Follows the messages of one run."""

    def __init__(self, workflow: Workflow, prompt_id: str, report: Callable[[Progress], None] | None) -> None:
        self.workflow, self.prompt_id, self.report = workflow, prompt_id, report
        self.finished = False
        self.cached: set[str] = set()
        self.done: set[str] = set()
        self.current: str | None = None

    def receive(self, message: dict[str, Any]) -> None:
        kind, data = message.get("type"), message.get("data", {})
        if data.get("prompt_id") != self.prompt_id:
            return
        if kind == "execution_error":
            raise WorkflowError(_execution_message(self.workflow, data))
        if kind == "execution_interrupted":
            name = _describe(self.workflow, data.get("node_id"))
            raise WorkflowError(f"The run was interrupted in node {name}.")
        if kind == "execution_cached":
            self.cached |= set(data["nodes"])
            self.done |= self.cached
        elif kind == "executing":
            self._step_to(data["node"])
        elif kind == "progress":
            self._show(data["value"], data["max"])

    def _step_to(self, node: str | None) -> None:
        if self.current is not None:
            self.done.add(self.current)
        self.current = node
        self.finished = node is None  # sent once the history is complete
        if node is not None:
            self._show()

    def _show(self, step: int = 0, steps: int = 0) -> None:
        if self.report and self.current is not None:
            title = _title(self.workflow, self.current)
            self.report(Progress(title, len(self.done), len(self.workflow), step, steps))


def _title(workflow: Workflow, node_id: str) -> str:
    node = workflow.get(node_id, {})
    return node.get("_meta", {}).get("title") or node.get("class_type") or node_id


def _describe(workflow: Workflow, node_id: str | None) -> str:
    if node_id is None or node_id not in workflow:
        return str(node_id)
    return f"{node_id} {_title(workflow, node_id)!r} ({workflow[node_id]['class_type']})"


def _execution_message(workflow: Workflow, data: dict[str, Any]) -> str:
    reason = f"{data.get('exception_type', '')}: {data.get('exception_message', '')}".strip()
    return f"Node {_describe(workflow, data.get('node_id'))} failed: {reason}"


def _validation_message(workflow: Workflow, body: bytes) -> str:
    """One line a refused input."""
    try:
        answer = json.loads(body)
    except json.JSONDecodeError:
        return f"ComfyUI refused the workflow: {body[:500].decode(errors='replace')}"
    error = answer.get("error") or {}
    lines = [f"ComfyUI refused the workflow: {error.get('message', '')} {error.get('details', '')}"]
    for node_id, problems in (answer.get("node_errors") or {}).items():
        for problem in problems["errors"]:
            name = _describe(workflow, node_id)
            lines.append(f"node {name}: {problem['message']} ({problem.get('details', '')})")
    return "\n".join(line.strip() for line in lines)
