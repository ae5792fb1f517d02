"""Systems under test, a YAML line each.

    systems:
      SDXL:           {workflow: sdxl.json, slots: {prompt: 6.text, seed: 3.seed}}
      SDXL amplified: {workflow: sdxl_amplified.json, strengths: [1, 2],
                       slots: {prompt: 6.text, seed: 3.seed, strength: 8.strength, culture: 8.culture}}
      AltDiffusion:   {diffusers: BAAI/AltDiffusion-m9, dtype: float16, steps: 25}
      SDXL explicit:  {workflow: sdxl.json, slots: {prompt: 6.text, seed: 3.seed}, treatment: explicit}
      Imagen:         {folder: imagen}

A slot is `node id.input`, or several of them. Such files are shared, so they name things and reach nowhere:
files and folders lie beside the file or inside its folder, and whoever runs it says where other things are
(`places`); there is no address of a server in them, and nothing is downloaded unasked.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

from ..amplifier import MAX_STRENGTH, MIN_STRENGTH, MODES
from ..paths import path_inside
from ..strict_json import parse_object
from .base import GeneratorError
from .prompts import NEUTRAL, TREATMENTS

WORKFLOW, DIFFUSERS, FOLDER = "workflow", "diffusers", "folder"
KINDS = (WORKFLOW, DIFFUSERS, FOLDER)
SLOTS = {
    "prompt": ("STRING",), "negative": ("STRING",), "seed": ("INT",), "strength": ("FLOAT", "INT"),
    "culture": ("COMBO", "STRING"), "width": ("INT",), "height": ("INT",), "steps": ("INT",),
    "guidance": ("FLOAT",),
}  # fmt: skip
"""What a run fills in, and the types of inputs that take it."""
FIXED = {"negative": str, "width": int, "height": int, "steps": int, "guidance": float}
"""What a system may set for all its pictures."""
DTYPES = ("float32", "float16", "bfloat16")
MAX_BYTES = 4 << 20
"""Of a graph."""
MAX_YAML = 128 << 10
"""Bytes of a file of systems: reading YAML takes a second for so many."""
MAX_VALUES = 20_000
MAX_DEPTH = 100
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_PACK_MODELS = Path(__file__).resolve().parents[2] / "models"
_OF_KIND = {
    WORKFLOW: {"slots", "output"},
    DIFFUSERS: {"amplify", "enhance", "mode", "dtype"},
    FOLDER: set(),
}
_OF_ALL = {"treatment", "strengths", *FIXED}


@dataclass(frozen=True)
class System:
    """One system under test."""

    name: str
    kind: str
    source: str
    """Name of its workflow, pipeline or folder, as the file has it."""
    place: str
    """Where that is on this machine, or a pipeline's name in the hub; in no hash and no file of a run."""
    treatment: str = NEUTRAL
    strengths: tuple[float, ...] = ()
    """Of the dial; none: those of the run."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Values of `FIXED`."""
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    output: str | None = None
    """Id of the node that gives the picture; the graph is cut to what it needs."""
    workflow: Mapping[str, Any] = field(default_factory=dict)
    amplify: Path | None = None
    enhance: Path | None = None
    mode: str = "inject"
    dtype: str = "float32"

    @property
    def has_dial(self) -> bool:
        return "strength" in self.slots or bool(self.amplify or self.enhance)

    def settings(self) -> dict[str, Any]:
        """All that its pictures depend on, for JSON."""
        settings = {"kind": self.kind, "source": self.source, "treatment": self.treatment, **self.fixed}
        if self.kind == WORKFLOW:
            text = json.dumps(self.workflow, sort_keys=True)
            settings |= {
                "workflow_sha256": hashlib.sha256(text.encode()).hexdigest(), "output": self.output,
                "slots": {name: list(slot) for name, slot in self.slots.items()},
            }  # fmt: skip
        elif self.kind == DIFFUSERS:
            settings |= {"dtype": self.dtype, "mode": self.mode}
            for name in ("amplify", "enhance"):
                if file := getattr(self, name):
                    settings[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        return settings


def read_systems(
    path: str | Path, names: Sequence[str] = (), places: Mapping[str, str] | None = None
) -> list[System]:
    """The systems of a file.

    Args:
        names: those to take; none: all.
        places: where something is that the file names: by that name, a path or the name of a pipeline.

    Raises:
        GeneratorError: for a file that cannot be read, an unknown name, or a system that makes no sense.
    """
    path = Path(path)
    entries = _read(path)
    if unknown := [name for name in names if name not in entries]:
        raise GeneratorError(f"{path} has no system {unknown[0]!r}; it has {', '.join(entries)}")
    chosen = [name for name in entries if not names or name in names]
    return [_System(path, name, entries[name], places or {}).made() for name in chosen]


def split_slot(slot: str) -> tuple[str, str]:
    """(node id, input)."""
    node, _, name = slot.rpartition(".")
    return node, name


def describe_node(workflow: Mapping[str, Any], node: str) -> str:
    """A node as people know it."""
    title = workflow[node].get("_meta", {}).get("title", "")
    return f"node {node}{f' {title!r}' if title else ''} ({workflow[node]['class_type']})"


def cut_to(workflow: Mapping[str, Any], output: str) -> dict[str, Any]:
    """The nodes that one of them needs, and itself."""
    needed, waiting = {}, [output]
    while waiting:
        node = waiting.pop()
        if node in needed:
            continue
        needed[node] = workflow[node]
        waiting += [value[0] for value in workflow[node]["inputs"].values() if is_link(value)]
    return {node: needed[node] for node in workflow if node in needed}


def is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _read(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise GeneratorError("reading systems needs the package PyYAML: pip install pyyaml") from None
    try:
        text = _text(path, MAX_YAML)
        if _depth(text) > MAX_DEPTH:  # the reader takes seconds to find out
            raise GeneratorError(f"{path}: is nested more than {MAX_DEPTH} deep")
        content = yaml.safe_load(text)
        _check_count(content, path)
    # ValueError: a date or a number that is none.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, GeneratorError):
            raise
        raise GeneratorError(f"{path}: is no YAML ({error})") from error
    entries = content.get("systems") if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise GeneratorError(f"{path}: must have `systems:`, and under it a name and settings for each")
    for name, entry in entries.items():
        if not isinstance(name, str) or not name.strip() or not isinstance(entry, dict):
            raise GeneratorError(f"{path}: the system {name!r} must have a name and settings {{key: value}}")
    return entries


def _depth(text: str) -> int:
    """How many brackets are open at once, at most."""
    steps = (1 if character in "[{" else -1 for character in text if character in "[]{}")
    return max(accumulate(steps), default=0)


def _check_count(content: Any, path: Path) -> None:
    """A few lines of references may stand for more than memory holds, or for themselves."""
    waiting, count = [content], 0
    while waiting:
        value, count = waiting.pop(), count + 1
        if count > MAX_VALUES:
            raise GeneratorError(f"{path}: stands for more than {MAX_VALUES:,} values, references counted")
        if isinstance(value, dict | list):
            waiting += [*value, *value.values()] if isinstance(value, dict) else value


def _text(path: Path, most: int = MAX_BYTES) -> str:
    try:
        if path.stat().st_size > most:
            raise GeneratorError(f"{path}: is larger than {most >> 10} KiB")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise GeneratorError(f"{path}: cannot be read as UTF-8 text ({error})") from error


class _System:
    """One entry of a file on its way to a `System`."""

    def __init__(self, file: Path, name: str, entry: Mapping[str, Any], places: Mapping[str, str]) -> None:
        self.file, self.name, self.entry, self.places = file, name, entry, places

    def made(self) -> System:
        kinds = [kind for kind in KINDS if kind in self.entry]
        if len(kinds) != 1:
            self.fail(f"must have one of {', '.join(KINDS)}")
        kind = kinds[0]
        if unknown := set(self.entry) - {kind} - _OF_KIND[kind] - _OF_ALL:
            known = sorted(_OF_KIND[kind] | _OF_ALL)
            self.fail(f"has {sorted(map(str, unknown))[0]!r}, which a {kind} does not know: use {known}")
        fixed = {name: self.value(name, FIXED[name]) for name in FIXED if name in self.entry}
        common = {
            "name": self.name, "kind": kind, "source": self.value(kind, str),
            "treatment": self.one_of("treatment", TREATMENTS, NEUTRAL), "strengths": self.strengths(),
            "fixed": fixed,
        }  # fmt: skip
        system = System(**common, **getattr(self, f"of_{kind}")(common["source"], fixed))
        if system.strengths and not system.has_dial:
            self.fail("has strengths and nothing that takes one: give it a slot 'strength', or amplify")
        return system

    def of_workflow(self, source: str, fixed: Mapping[str, Any]) -> dict[str, Any]:
        place = self.inside(source)
        workflow = _api_workflow(place)
        slots = self.slots(workflow)
        for name in ("prompt", "seed"):
            if name not in slots:
                self.fail(f"has no slot for the {name}: add `slots: {{{name}: node id.input}}`")
        if without := set(fixed) - set(slots):
            self.fail(f"sets {sorted(without)[0]!r} and has no slot for it")
        output = self.entry.get("output")
        output = None if output is None else str(output)
        if output is not None:
            if output not in workflow:
                self.fail(f"its output, node {output!r}, is not in {source}; nodes are {_listed(workflow)}")
            workflow = cut_to(workflow, output)
            self.check_reached(slots, workflow, output)
        return {"place": str(place), "slots": slots, "output": output, "workflow": workflow}

    def of_diffusers(self, source: str, fixed: Mapping[str, Any]) -> dict[str, Any]:
        beside = path_inside(self.file.parent, source)
        place = self.places.get(source) or (str(beside) if beside and beside.is_dir() else source)
        if place == source and not _HUB_NAME.fullmatch(source) and source not in self.places:
            self.fail(
                f"{source!r} is neither a folder beside {self.file.name} nor a name of the hub (owner/name); "
                f"say where it is with --path {source}=FOLDER"
            )
        files = {name: self.model_file(name) for name in ("amplify", "enhance") if name in self.entry}
        mode, dtype = self.one_of("mode", MODES, "inject"), self.one_of("dtype", DTYPES, "float32")
        return {"place": place, "mode": mode, "dtype": dtype, **files}

    def of_folder(self, source: str, fixed: Mapping[str, Any]) -> dict[str, Any]:
        if fixed:
            self.fail(f"is a folder of pictures and sets {sorted(fixed)[0]!r}")
        place = self.inside(source)
        return {"place": str(place)}

    def inside(self, source: str) -> Path:
        """The place of something that the file names."""
        if source in self.places:
            return Path(self.places[source])
        place = path_inside(self.file.parent, source)
        if place is None:
            self.fail(
                f"{source!r} is outside the folder of {self.file.name}, which may not reach there; give it a "
                f"name, and --path NAME=PLACE"
            )
        return place

    def model_file(self, name: str) -> Path:
        """A culture SAE or an enhancer: given, beside the file, or among the pack's models."""
        source = self.value(name, str)
        place = self.inside(source)
        shipped = _PACK_MODELS / {"amplify": "culture_sae", "enhance": "culture_enhancer"}[name] / place.name
        for file in (place, shipped if source == place.name else place):
            if file.is_file():
                return file
        self.fail(f"the file {source!r} is not there; say where it is with --path {source}=FILE")

    def slots(self, workflow: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
        given = self.entry.get("slots")
        if not isinstance(given, dict):
            self.fail("needs `slots: {prompt: node id.input, seed: node id.input}`")
        slots = {}
        for name, value in given.items():
            if name not in SLOTS:
                self.fail(f"has the unknown slot {name!r}: use {', '.join(SLOTS)}")
            slots[name] = tuple(map(str, value if isinstance(value, list) else [value]))
            for slot in slots[name]:
                self.check_slot(name, slot, workflow)
        return slots

    def check_slot(self, name: str, slot: str, workflow: Mapping[str, Any]) -> None:
        node, entry = split_slot(slot)
        if node not in workflow:
            self.fail(f"slot {name}: {slot!r}: there is no node {node!r}; nodes are {_listed(workflow)}")
        inputs = workflow[node]["inputs"]
        if entry not in inputs:
            self.fail(
                f"slot {name}: {describe_node(workflow, node)} has no input {entry!r}; it has {list(inputs)}"
            )
        if is_link(inputs[entry]):
            self.fail(
                f"slot {name}: {entry!r} of {describe_node(workflow, node)} comes from "
                f"{describe_node(workflow, inputs[entry][0])}: name an input of that one"
            )

    def check_reached(
        self, slots: Mapping[str, tuple[Any, ...]], workflow: Mapping[str, Any], output: str
    ) -> None:
        for name, places in slots.items():
            if not any(split_slot(slot)[0] in workflow for slot in places):
                self.fail(f"slot {name}: {', '.join(places)} has no effect on the output, node {output}")

    def strengths(self) -> tuple[float, ...]:
        given = self.entry.get("strengths", [])
        values = given if isinstance(given, list) else [given]
        for value in values:
            if type(value) not in (int, float) or not MIN_STRENGTH <= value <= MAX_STRENGTH:
                self.fail(f"strength {value!r} must be a number, {MIN_STRENGTH:g} to {MAX_STRENGTH:g}")
        return tuple(map(float, values))

    def value(self, name: str, kind: type[Any]) -> Any:
        value = self.entry[name]
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or (kind is not str and value <= 0) or (name in KINDS and not value):
            what = {str: "a text", int: "a whole number above 0", float: "a number above 0"}[kind]
            self.fail(f"{name!r} must be {what}, got {value!r}")
        return value

    def one_of(self, name: str, choices: Sequence[str], default: str) -> str:
        value = self.entry.get(name, default)
        if value not in choices:
            self.fail(f"{name!r} is {value!r}: use one of {', '.join(choices)}")
        return value

    def fail(self, text: str) -> NoReturn:
        raise GeneratorError(f"{self.file}: system {self.name!r}: {text}")


def _api_workflow(path: Path) -> dict[str, Any]:
    """A graph in the format that ComfyUI's API takes."""
    try:
        workflow = parse_object(_text(path))
    except GeneratorError:
        raise
    except ValueError as error:
        raise GeneratorError(f"{path}: is {error}") from error
    if "nodes" in workflow and "links" in workflow:
        raise GeneratorError(
            f"{path}: is a graph for the canvas; export it for the API (Workflow > Export (API))"
        )
    for node, content in workflow.items():
        fits = isinstance(content, dict) and isinstance(content.get("inputs"), dict)
        fits = fits and isinstance(content.get("_meta", {}), dict)
        if not fits or not isinstance(content.get("class_type"), str):
            raise GeneratorError(
                f"{path}: node {node!r} needs class_type and inputs, as API graphs have them"
            )
        for name, value in content["inputs"].items():
            if is_link(value) and value[0] not in workflow:
                raise GeneratorError(f"{path}: {name!r} of node {node} comes from node {value[0]}, not there")
    if not workflow:
        raise GeneratorError(f"{path}: has no nodes")
    return workflow


def _listed(workflow: Mapping[str, Any]) -> str:
    return ", ".join(describe_node(workflow, node).removeprefix("node ") for node in workflow)
