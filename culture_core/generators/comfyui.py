"""Jobs on a ComfyUI server, over HTTP.

Addresses come from the command line or the environment (`CULTURE_COMFYUI`), never from a file that is shared,
and appear in no message and no file: servers are called by number. Whether a job is done is asked for every
so often, which needs no further package and survives a lost connection.
"""

import copy
import http.client
import io
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from ..cultures import CULTURES
from .base import GeneratorError, Job, JobFailed, JobRefused, Made, WorkerLost
from .systems import SLOTS, WORKFLOW, System, describe_node, is_link, split_slot

ADDRESSES = "CULTURE_COMFYUI"
"""Environment variable: addresses of this machine's servers, separated by commas or spaces."""
DEFAULT = "http://127.0.0.1:8188"
TIMEOUT = 1800.0
"""Seconds that one picture may take."""
_REQUEST_TIMEOUT = 60.0
_FASTEST, _SLOWEST = 0.05, 0.5
_LOST_AFTER = 5
"""So many times in a row a server that has a job may not answer; a busy one may be slow."""


def server_addresses(given: Sequence[str] = ()) -> list[str]:
    """Those given, else those of the environment, else ComfyUI's usual one.

    Raises:
        GeneratorError: for what is no address; the message does not repeat it, for it may hold a password.
    """
    listed = list(given) or re.split(r"[,\s]+", os.environ.get(ADDRESSES, "").strip(", \n")) or []
    addresses = []
    for number, text in enumerate(filter(None, listed), start=1):
        address = text if "://" in text else f"http://{text}"
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise GeneratorError(
                f"address {number} of the ComfyUI servers must be like http://127.0.0.1:8188, without a user "
                "or a password"
            )
        addresses.append(address.rstrip("/"))
    return list(dict.fromkeys(addresses)) or [DEFAULT]


class ComfyWorker:
    """One ComfyUI server."""

    kinds = frozenset({WORKFLOW})

    def __init__(self, address: str, name: str, timeout: float = TIMEOUT) -> None:
        self.name, self._address, self._timeout = name, address, timeout
        self._info: dict[str, Any] | None = None

    def check(self, system: System) -> list[str]:
        """What keeps a system from running here, a sentence each.

        Raises:
            WorkerLost: where the server cannot be reached.
        """
        return check_workflow(system, self._object_info())

    def alive(self) -> bool:
        """Whether the server answers."""
        try:
            self._json("/system_stats", timeout=10)
        except (WorkerLost, JobFailed):
            return False
        return True

    def make(self, system: System, job: Job, stopped: Callable[[], bool] = lambda: False) -> Made:
        """Do a job.

        Raises:
            JobFailed: where the server could not.
            WorkerLost: where the server cannot be reached, or was asked to stop.
        """
        workflow = fill(system, job, self._object_info())
        prompt_id = self._submit(workflow)
        outputs = self._wait(workflow, prompt_id, stopped)
        return Made(self._fetch(_one_image(outputs, system)), {"prompt": json.dumps(workflow)})

    def _object_info(self) -> dict[str, Any]:
        if self._info is None:
            self._info = self._json("/object_info")
        return self._info

    def _submit(self, workflow: dict[str, Any]) -> str:
        body = {"prompt": workflow, "client_id": uuid.uuid4().hex}
        try:
            answer = _object(self._request("/prompt", body))
        except urllib.error.HTTPError as error:
            raise JobRefused(_refusal(workflow, error.read())) from None
        if not isinstance(answer.get("prompt_id"), str):
            raise JobFailed(f"{self.name} answers as no ComfyUI server does")
        if answer.get("node_errors"):  # it would run what is valid, and leave out the rest without a word
            self._cancel(answer["prompt_id"])
            raise JobRefused(_refusal(workflow, json.dumps(answer).encode()))
        return answer["prompt_id"]

    def _wait(self, workflow: dict[str, Any], prompt_id: str, stopped: Callable[[], bool]) -> dict[str, Any]:
        """Outputs by node, once they are there."""
        deadline, pause, misses = time.monotonic() + self._timeout, _FASTEST, 0
        while True:
            if stopped() or time.monotonic() > deadline:
                self._cancel(prompt_id)
                if stopped():
                    raise WorkerLost("stopped")
                raise JobFailed(f"it took longer than {self._timeout:g} s")
            try:
                entry = self._json(f"/history/{prompt_id}").get(prompt_id)
                if entry:
                    return _outputs(workflow, entry)
                if pause == _SLOWEST and prompt_id not in json.dumps(self._json("/queue")):
                    # Between queue and history a job is in neither for a moment.
                    entry = self._json(f"/history/{prompt_id}").get(prompt_id)
                    if not entry:
                        raise JobFailed("the server has forgotten the job; it may have been restarted")
                    return _outputs(workflow, entry)
                misses = 0
            except WorkerLost:
                misses += 1
                if misses == _LOST_AFTER:
                    raise
            time.sleep(pause)
            pause = min(pause * 1.3, _SLOWEST)

    def _cancel(self, prompt_id: str) -> None:
        """Take a job off the queue, or end it; others' jobs go on."""
        try:
            self._request("/queue", {"delete": [prompt_id]})
            running = self._json("/queue").get("queue_running", [])
            if any(prompt_id in entry for entry in running):
                self._request("/interrupt", {"prompt_id": prompt_id})
        except (WorkerLost, JobFailed, urllib.error.HTTPError):
            pass

    def _fetch(self, place: Mapping[str, str]) -> Image.Image:
        query = {name: place.get(name, "") for name in ("filename", "subfolder", "type")}
        try:
            data = self._request("/view?" + urllib.parse.urlencode(query))
            image = Image.open(io.BytesIO(data))
            image.load()
        except (OSError, Image.DecompressionBombError) as error:
            if isinstance(error, urllib.error.HTTPError):
                raise JobFailed(f"the server does not hand out its picture (status {error.code})") from None
            raise JobFailed(f"the server's picture cannot be read ({error})") from None
        return image

    def _json(self, path: str, body: Any = None, timeout: float = _REQUEST_TIMEOUT) -> dict[str, Any]:
        try:
            answer = _object(self._request(path, body, timeout))
        except urllib.error.HTTPError:
            answer = {}
        if not answer and not path.startswith("/history"):
            raise JobFailed(f"{self.name} answers {path} as no ComfyUI server does")
        return answer

    def _request(self, path: str, body: Any = None, timeout: float = _REQUEST_TIMEOUT) -> bytes:
        """An answer; HTTPError for a status of 4xx."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise
            raise JobFailed(f"{self.name} failed with status {error.code}") from None
        except (OSError, http.client.HTTPException):
            raise WorkerLost(f"{self.name} cannot be reached") from None


def _object(data: bytes) -> dict[str, Any]:
    """An answer; empty where it is none that ComfyUI gives."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def check_workflow(system: System, info: Mapping[str, Any]) -> list[str]:
    """What keeps a graph from running on a server that describes its nodes so, a sentence each.

    Args:
        info: answer to `/object_info`.
    """
    workflow, problems = system.workflow, []
    filled = {slot for slots in system.slots.values() for slot in slots}
    for node, content in workflow.items():
        name, described = describe_node(workflow, node), info.get(content["class_type"])
        if described is None:
            problems.append(f"{name}: the server does not know this node; install the pack that has it")
            continue
        specs = _specs(described)
        for entry in described["input"].get("required", {}):
            if entry not in content["inputs"]:
                problems.append(f"{name}: its input {entry!r} is missing")
        for entry, value in content["inputs"].items():
            problem = None
            if is_link(value):
                problem = _link_problem(workflow, value, specs.get(entry), info)
            elif f"{node}.{entry}" not in filled and entry in specs:
                problem = _value_problem(value, specs[entry])
            if problem:
                problems.append(f"{name}: {entry!r} {problem}")
    return problems + _slot_problems(system, info)


def fill(system: System, job: Job, info: Mapping[str, Any]) -> dict[str, Any]:
    """A system's graph with the values of a job."""
    workflow = copy.deepcopy(dict(system.workflow))
    values = {**system.fixed, "prompt": job.prompt, "seed": job.seed, "culture": job.item.culture}
    if job.strength is not None:
        values["strength"] = job.strength
    for name, slots in system.slots.items():
        for node, entry in map(split_slot, slots):
            if node not in workflow or name not in values:
                continue
            value = values[name]
            if name == "culture":
                value = culture_value(value, _specs(info[workflow[node]["class_type"]]).get(entry))
            workflow[node]["inputs"][entry] = value
    return workflow


def culture_value(code: str, spec: Sequence[Any] | None) -> str:
    """How an input calls a culture: its code, or the choice that means it.

    Raises:
        JobRefused: where an input offers choices and none means it.
    """
    choices = _choices(spec)
    if choices is None:
        return code
    name = CULTURES[code].name
    for choice in (code, name, f"{name} ({code})"):
        if choice in choices:
            return choice
    raise JobRefused(f"the slot for the culture offers no {name} ({code}), but {', '.join(choices[:20])}")


def _slot_problems(system: System, info: Mapping[str, Any]) -> list[str]:
    problems = []
    for name, slots in system.slots.items():
        for node, entry in map(split_slot, slots):
            described = info.get(system.workflow.get(node, {}).get("class_type"))
            if described is None:
                continue
            where = f"slot {name}: {describe_node(system.workflow, node)}"
            spec = _specs(described).get(entry)
            if spec is None:
                problems.append(f"{where} has no input {entry!r}; it has {', '.join(_specs(described))}")
            elif _kind(spec) not in SLOTS[name]:
                wanted = " or ".join(SLOTS[name])
                problems.append(f"{where}: {entry!r} takes {_kind(spec)}, a {name} is {wanted}")
            elif name in system.fixed and (problem := _value_problem(system.fixed[name], spec)):
                problems.append(f"{where}: {entry!r} {problem}")
            elif name == "strength":
                problems += [
                    f"{where}: {entry!r} {problem}"
                    for value in system.strengths
                    if (problem := _value_problem(value, spec))
                ]
    return problems


def _link_problem(
    workflow: Mapping[str, Any], link: list[Any], spec: Sequence[Any] | None, info: Mapping[str, Any]
) -> str | None:
    source = info.get(workflow[link[0]]["class_type"])
    if source is None or spec is None:
        return None
    outputs = source["output"]
    if type(link[1]) is not int or not 0 <= link[1] < len(outputs):
        return f"comes from output {link[1]} of {describe_node(workflow, link[0])}, which has {len(outputs)}"
    given, taken = outputs[link[1]], _kind(spec)
    # Types may be alternatives ("INT,FLOAT") or anything ("*", and what custom nodes make up).
    if isinstance(given, str) and "*" not in (given, taken) and taken != "COMBO":
        if not set(given.split(",")) & set(taken.split(",")):
            return f"takes {taken}, and {describe_node(workflow, link[0])} gives {given}"
    return None


def _value_problem(value: object, spec: Sequence[Any]) -> str | None:
    kind, options = _kind(spec), spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    choices = _choices(spec)
    if choices is not None:
        if value in choices or any(key.endswith("_upload") for key in options):
            return None
        offered = ", ".join(map(str, choices[:10])) or "nothing"
        return f"is {value!r}, which the server does not have; it offers {offered}"
    if kind in ("INT", "FLOAT") and type(value) in (int, float):
        low, high = options.get("min", value), options.get("max", value)
        return None if low <= value <= high else f"is {value}, it must be {low} to {high}"
    if kind in ("INT", "FLOAT"):
        return f"is {value!r}, it must be a number"
    return None


def _specs(described: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    return {**described["input"].get("required", {}), **described["input"].get("optional", {})}


def _kind(spec: Sequence[Any]) -> str:
    return "COMBO" if isinstance(spec[0], list) else str(spec[0])


def _choices(spec: Sequence[Any] | None) -> list[Any] | None:
    """What an input offers; None where it takes any value."""
    if not spec or _kind(spec) != "COMBO":
        return None
    if isinstance(spec[0], list):
        return spec[0]
    return spec[1].get("options") if len(spec) > 1 else None


def _outputs(workflow: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs by node of a finished job.

    Raises:
        JobFailed: for one that failed.
    """
    status = entry.get("status") or {}
    if status.get("status_str", "success") == "success":
        return entry.get("outputs", {})
    for kind, data in status.get("messages", ()):
        if kind == "execution_error":
            node = data.get("node_id")
            name = describe_node(workflow, node) if node in workflow else f"node {node}"
            raise JobFailed(f"{name} failed: {data.get('exception_type')}: {data.get('exception_message')}")
    raise JobFailed("the server was told to interrupt the job")


def _one_image(outputs: Mapping[str, Any], system: System) -> Mapping[str, str]:
    images = {
        node: output["images"]
        for node, output in outputs.items()
        if output.get("images") and system.output in (None, node)
    }
    if len(images) != 1:
        said = f"nodes {', '.join(images)} give pictures: name one as `output`" if images else (
            "its graph gives no picture: it needs a node such as Save Image"
        )  # fmt: skip
        raise JobRefused(said)
    (found,) = images.values()
    if len(found) != 1:
        raise JobRefused(f"its graph makes {len(found)} pictures at a time: set its batch size to 1")
    return found[0]


def _refusal(workflow: Mapping[str, Any], body: bytes) -> str:
    """Why a server takes no graph, in one line."""
    try:
        answer = json.loads(body)
        error, nodes = answer.get("error") or {}, answer.get("node_errors") or {}
        reasons = [f"{error.get('message', '')} {error.get('details', '')}".strip()] if error else []
        for node, problems in nodes.items():
            name = describe_node(workflow, node) if node in workflow else f"node {node}"
            reasons += [f"{name}: {p.get('message')} ({p.get('details', '')})" for p in problems["errors"]]
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        reasons = [body[:300].decode(errors="replace")]
    return "the server refuses the graph: " + "; ".join(filter(None, reasons))
