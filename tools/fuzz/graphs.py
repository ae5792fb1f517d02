"""Workflows of strangers: validated and run by ComfyUI's own executor, on a text encoder of a few kilobytes.

What lies in the models' folders is good, the graph is not. Three things differ from a server: numbers that
say how much work a user asks for are cut to what takes a moment (any graph may ask for a large picture), the
nodes that need an image model are validated only, and ComfyUI's own node for pictures opens a good one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import sys
import traceback
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file

from .cases import CORPUS
from .targets import ROOT, Reader

GRAPH = "graph.json"
_PACK = "comfyui_culture"
_HEAVY = {"CultureTrainEnhancer", "KSampler", "VAELoader", "UNETLoader"}
"""Nodes that are not run."""
_WORK = {"steps": 3, "latents": 64, "batch_size": 64, "max_pairs": 8, "bootstrap": 50, "ramp": 3, "width": 64,
         "height": 64, "size": 64}  # fmt: skip
_KINDS = ("culture_sae", "culture_enhancer", "culture_pairs", "culture_adapters", "text_encoders")


class Refused(ValueError):
    """A graph that ComfyUI or a node refuses, with the reason."""


class GraphRunner:
    """ComfyUI in this process, with folders of its own."""

    def __init__(self) -> None:
        import comfy.options  # noqa: F401  before nodes, which reads the arguments
        import execution

        import nodes

        self._execution, self._nodes = execution, nodes
        self._pack = _load_pack()
        self._folders: Path | None = None
        self._classes_loaded = False
        self._good: dict[str, bytes] = {}

    @staticmethod
    def reader() -> Reader:
        runner = GraphRunner()
        # ComfyUI names the node; the message of a node names what is wrong with it.
        return Reader(runner.read, (Refused,), ("",))

    def read(self, folder: Path) -> object:
        """Validate the graph of a case, and run it where it is valid.

        Raises:
            Refused: where ComfyUI or a node refuses it.
            Exception: what the pack raised and is not declared to.
        """
        self._lay_out(folder)
        try:
            graph = json.loads((folder / GRAPH).read_text(encoding="utf-8"))
        except (ValueError, RecursionError, OSError) as error:  # the server answers 400
            raise Refused(f"{GRAPH} is no JSON ({error})") from error
        valid, outputs = self._validated(graph)
        if any(node["class_type"] in _HEAVY for node in valid.values()):
            return None
        return self._run(_lighter(valid), outputs)

    def _validated(self, graph: Any) -> tuple[dict[str, Any], list[str]]:
        try:
            result = asyncio.run(self._execution.validate_prompt("fuzz", graph, None))
        except Exception as error:
            raise self._judged(error) from error
        valid, problem, outputs, node_errors = result
        for node in node_errors.values():
            for one in node["errors"]:
                if one["type"] == "exception_during_validation":
                    self._check_traceback(one["extra_info"].get("traceback", []), one["details"])
        if not valid:
            raise Refused(f"{problem['message']} {problem['details']} {json.dumps(node_errors)[:2000]}")
        # ComfyUI leaves a broken node alone that no output needs.
        whole = {
            key: node
            for key, node in graph.items()
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        }
        return whole, outputs

    def _run(self, graph: dict[str, Any], outputs: list[str]) -> object:
        server = SimpleNamespace(
            client_id=None, last_node_id=None, sockets_metadata={}, send_sync=lambda *_: None,
            send_progress_text=lambda *_: None,
        )  # fmt: skip
        executor = self._execution.PromptExecutor(server, cache_args={"ram": 0, "lru": 0})
        failed: list[Exception] = []
        executor.handle_execution_error = lambda *arguments: failed.append(arguments[-1])
        executor.execute(graph, "fuzz", {}, outputs)
        if failed:
            raise self._judged(failed[0]) from failed[0]
        return None

    def _judged(self, error: Exception) -> Exception:
        """A refusal; the error itself where the pack is to blame."""
        declared = self._declared()
        text = str(error).strip()
        frames = traceback.extract_tb(error.__traceback__)
        ours = any(_is_ours(frame.filename) for frame in frames)
        if not ours or (type(error) in declared and text):
            return Refused(text or repr(error))
        return error

    def _declared(self) -> tuple[type[Exception], ...]:
        core = f"{_PACK}.culture_core"
        modules = {
            "FileError": f"{core}.file_checks", "PairError": f"{core}.pairs",
            "TextEncoderError": f"{core}.comfy.errors", "VLMError": f"{core}.vlm.base",
        }  # fmt: skip
        return (ValueError, FileNotFoundError, *(getattr(sys.modules[m], n) for n, m in modules.items()))

    def _check_traceback(self, lines: list[str], details: str) -> None:
        if any(_is_ours(line) for line in lines):
            raise RuntimeError(f"the pack failed in validation: {details}\n" + "".join(lines))

    def _lay_out(self, folder: Path) -> None:
        """Good models and inputs beside the graph."""
        import folder_paths

        if self._folders is None:
            self._point_at(folder)
        for kind in _KINDS:
            (folder / "models" / kind).mkdir(parents=True)
        for name in ("input", "output", "temp"):
            (folder / name).mkdir()
        shutil.copytree(CORPUS / "text_encoder" / "accepted-bert", folder / "models/text_encoders/tiny")
        shutil.copy(CORPUS / "pairs/accepted-whole/pairs.jsonl", folder / "models/culture_pairs/good.jsonl")
        shutil.copy(CORPUS / "bench/accepted-whole/images/a.png", folder / "input/good.png")
        for name, data in (self._good or self._made(folder)).items():
            (folder / "models" / name).write_bytes(data)
        folder_paths.filename_list_cache.clear()

    def _made(self, folder: Path) -> dict[str, bytes]:
        """A culture SAE, an enhancer and an adapter that fit the text encoder."""
        from culture_core.enhancer import LayerEnhancer
        from culture_core.files import CultureSAE, EnhancerFile, save_culture_sae, save_enhancer
        from culture_core.neurons import CultureNeurons
        from culture_core.sae import TopKSAE

        ones = torch.ones(2)
        encoder = {"family": "bert", "layers": 1, "width": 8, "heads": 2, "vocabulary": 8, "weights": [0.5]}
        neurons = CultureNeurons(torch.tensor([0, 3]), ones, ones, ones, ones * 0)
        models = folder / "models"
        save_culture_sae(
            CultureSAE(TopKSAE(8, 16, 2), 0, "hidden_state", encoder, {"ja": neurons}),
            models / "culture_sae/good.safetensors",
        )
        save_enhancer(
            EnhancerFile(LayerEnhancer(8, 2), 0, encoder), models / "culture_enhancer/good.safetensors"
        )
        shutil.copy(
            models / "text_encoders/tiny/adapter.safetensors", models / "culture_adapters/good.safetensors"
        )
        load_file(models / "culture_adapters/good.safetensors")
        self._good = {
            f"{kind}/good.safetensors": (models / kind / "good.safetensors").read_bytes()
            for kind in ("culture_sae", "culture_enhancer", "culture_adapters")
        }
        return self._good

    def _point_at(self, folder: Path) -> None:
        """ComfyUI's folders inside of the case's, whose path is always the same."""
        import folder_paths

        folder_paths.models_dir = str(folder / "models")
        folder_paths.folder_names_and_paths["text_encoders"] = (
            [str(folder / "models" / "text_encoders")], {".safetensors"}
        )  # fmt: skip
        for name in ("input", "output", "temp"):
            getattr(folder_paths, f"set_{name}_directory")(str(folder / name))
        asyncio.run(self._register())
        self._folders = folder

    async def _register(self) -> None:
        """As ComfyUI does with custom nodes."""
        for node in await (await self._pack.comfy_entrypoint()).get_node_list():
            self._nodes.NODE_CLASS_MAPPINGS[node.GET_SCHEMA().node_id] = node
        from comfy_extras import nodes_preview_any

        self._nodes.NODE_CLASS_MAPPINGS.update(nodes_preview_any.NODE_CLASS_MAPPINGS)


def _load_pack() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        _PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[_PACK] = module
    spec.loader.exec_module(module)
    return module


def _is_ours(place: str) -> bool:
    return any(f"{ROOT}/{part}" in place for part in ("nodes/", "culture_core/", "__init__.py"))


def _lighter(graph: dict[str, Any]) -> dict[str, Any]:
    for node in graph.values():
        if (
            node["class_type"] == "LoadImage"
        ):  # ComfyUI's own node follows `..`, which is not the pack's to stop
            node["inputs"]["image"] = "good.png"
        for name, most in _WORK.items():
            value = node["inputs"].get(name)
            if isinstance(value, int | float) and value > most:
                node["inputs"][name] = most
    return graph
