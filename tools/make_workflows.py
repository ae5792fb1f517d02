"""Writes `workflows/`: every example graph for ComfyUI's canvas and for its API, from one description.

    python -m tools.make_workflows URL      # URL of a running ComfyUI that has this pack

The server's description of the nodes tells the order of widgets and outputs.
"""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.comfy_client import ComfyClient, Workflow

FOLDER = Path(__file__).resolve().parent.parent / "workflows"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
COLUMN, ROW_GAP, WIDTH = 380, 50, 310
HEIGHTS = {
    "CLIPTextEncode": 120,
    "CultureFromPrompt": 360,  # with room for the report, which is written on the node
    "CultureModifier": 180,
    "CultureTrainSAE": 680,  # with room for the loss, which is drawn on the node
    "MarkdownNote": 180,
    "PreviewAny": 300,
    "SaveImage": 270,
}
"""Of nodes that show more than their lines."""
WIDTHS = {"PreviewAny": 680}  # for the tables of reports
_NAMESPACE = uuid.UUID("7b0f5a0e-6d0f-4a5e-9a53-5d5f3f0c1f3b")


@dataclass(frozen=True)
class Link:
    """Output `slot` of the node with that title."""

    title: str
    slot: int = 0


@dataclass(frozen=True)
class Node:
    """One node of a graph; inputs that are left out take their defaults."""

    kind: str
    title: str
    column: int
    inputs: dict[str, Any] = field(default_factory=dict)


Graph = list[Node]


def loaders() -> Graph:
    return [
        Node("CultureLoadTextEncoder", "Text encoder", 0, {"folder": "multilingual-e5-small"}),
        Node(
            "UNETLoader",
            "Miniature",
            0,
            {"unet_name": "culture_miniature.safetensors", "weight_dtype": "default"},
        ),
        Node("VAELoader", "VAE", 0, {"vae_name": "culture_miniature_vae.safetensors"}),
        Node("ModelSamplingSD3", "Model sampling", 1, {"model": Link("Miniature"), "shift": 1.0}),
        Node("EmptySD3LatentImage", "Size", 0, {"width": 64, "height": 64, "batch_size": 1}),
        Node("CLIPTextEncode", "Empty prompt", 3, {"clip": Link("Text encoder"), "text": ""}),
    ]


def amplifier(culture: str, column: int = 1, strength: float | Link = 2.0) -> Graph:
    source = {"clip": Link("Text encoder"), "culture_sae": Link("Culture SAE")}
    setting = {"culture": culture, "strength": strength, "mode": "inject", "tokens": "content", "words": ""}
    return [
        Node("CultureLoadSAE", "Culture SAE", 0, {"file": "miniature.safetensors"}),
        Node("CultureAmplifyNeurons", "Amplify", column, source | setting),
    ]


def enhancer(column: int = 1) -> Graph:
    source = {"clip": Link("Text encoder"), "culture_enhancer": Link("Enhancer file")}
    return [
        Node("CultureLoadEnhancer", "Enhancer file", 0, {"file": "miniature.safetensors"}),
        Node("CultureApplyEnhancer", "Enhance", column, source | {"strength": 1.0}),
    ]


def picture(name: str, clip: str, text: str | Link, seed: int | Link, prompt_title: str) -> Graph:
    """Encode, sample, decode, save; the saving node is titled `name`."""
    sampling = {"steps": 20, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    sources = {
        "model": Link("Model sampling"),
        "positive": Link(prompt_title),
        "negative": Link("Empty prompt"),
        "latent_image": Link("Size"),
    }
    lower = name.lower()
    decoding = {"samples": Link(f"Sample {lower}"), "vae": Link("VAE")}
    saving = {"images": Link(f"Decode {lower}"), "filename_prefix": f"culture/{lower}"}
    return [
        Node("CLIPTextEncode", prompt_title, 2, {"clip": Link(clip), "text": text}),
        Node("KSampler", f"Sample {lower}", 4, sources | {"seed": seed} | sampling),
        Node("VAEDecode", f"Decode {lower}", 5, decoding),
        Node("SaveImage", name, 6, saving),
    ]


def amplify_graph() -> Graph:
    return [
        *loaders(), *amplifier("Japanese (ja)"),
        *picture("As it is", "Text encoder", "teapot", 1, "Prompt"),
        *picture("Amplified", "Amplify", "teapot", 1, "Prompt, amplified"),
        note("The same prompt twice. Strength is the dial: 0 is the picture as it is, bit for bit; 1 to 3 is "
             "the useful range. The original CLIP is never changed: connect it where you want the plain "
             "encoder."),
    ]  # fmt: skip


def enhance_graph() -> Graph:
    return [
        *loaders(), *enhancer(),
        *picture("As it is", "Text encoder", "Zeichnung: Baum", 1, "Prompt"),
        *picture("Enhanced", "Enhance", "Zeichnung: Baum", 1, "Prompt, enhanced"),
        note("The enhancer is not told a culture: it follows the language of the prompt. Strength 1 is what "
             "was trained; 0 is the picture as it is."),
    ]  # fmt: skip


def probe_graph() -> Graph:
    source = {"clip": Link("Text encoder"), "culture_pairs": Link("Prompt pairs")}
    return [
        Node("CultureLoadTextEncoder", "Text encoder", 0, {"folder": "multilingual-e5-small"}),
        Node("CultureLoadPairs", "Prompt pairs", 0, {"file": "miniature.jsonl"}),
        Node("CultureProbeLayer", "Probe", 1, source),
        Node("SaveImage", "Curves", 2, {"images": Link("Probe", 1), "filename_prefix": "culture/probe"}),
        Node("PreviewAny", "Report", 2, {"source": Link("Probe", 2)}),
        note("In which layer does a culture modifier act on its noun? The report says how the layer was "
             "chosen; the key layer is where a culture SAE or an enhancer belongs."),
    ]  # fmt: skip


def demo_graph() -> Graph:
    neutral, seed = Link("Neutral prompt"), Link("Seed")
    return [
        *loaders(), *amplifier("Japanese (ja)"), *enhancer(),
        Node("PrimitiveString", "Neutral prompt", 0, {"value": "急須"}),
        Node("PrimitiveString", "Explicit prompt", 0, {"value": "日本風の急須"}),
        Node("PrimitiveInt", "Seed", 0, {"value": 1}),
        *picture("Neutral", "Text encoder", neutral, seed, "Encode neutral"),
        *picture("Amplified", "Amplify", neutral, seed, "Encode amplified"),
        *picture("Enhanced", "Enhance", neutral, seed, "Encode enhanced"),
        *picture("Explicit", "Text encoder", Link("Explicit prompt"), seed, "Encode explicit"),
    ]  # fmt: skip


def train_graph() -> Graph:
    pairs = {"culture_pairs": Link("Prompt pairs")}
    clip = {"clip": Link("Text encoder")}
    training = {"layer": 11, "latents": 512, "steps": 375, "checkpoint": "my-culture"}
    detected = Link("Detect")
    return [
        Node("CultureLoadTextEncoder", "Text encoder", 0, {"folder": "multilingual-e5-small"}),
        Node("CultureLoadPairs", "Prompt pairs", 0, {"file": "miniature.jsonl"}),
        Node("CultureTrainSAE", "Train", 1, clip | pairs | training),
        Node("CultureDetectNeurons", "Detect", 2, clip | pairs | {"culture_sae": Link("Train"), "count": 20}),
        Node("CultureSaveSAE", "Save", 3, {"culture_sae": detected, "filename_prefix": "my-culture"}),
        Node("SaveImage", "Loss", 2, {"images": Link("Train", 1), "filename_prefix": "culture/loss"}),
        Node("PreviewAny", "Training report", 4, {"source": Link("Train", 2)}),
        Node("SaveImage", "Neurons", 3, {"images": Link("Detect", 1), "filename_prefix": "culture/neurons"}),
        Node("PreviewAny", "Detection report", 4, {"source": Link("Detect", 2)}),
        note("From prompt pairs to a file that can be shared. The loss is drawn on the node while it trains. "
             "Cancel when you like: queue again with the same settings, and the training goes on where it "
             "stopped. Then load the file with Load Culture SAE (press R first).", column=0),
    ]  # fmt: skip


def sweep_graph() -> Graph:
    pictures = picture("Picture", "Amplify", "teapot", 1, "Prompt")[:-1]
    sheet = {"images": Link("Decode picture"), "labels": Link("Strengths", 1), "title": "teapot"}
    return [
        *loaders(), *amplifier("Japanese (ja)", strength=Link("Strengths")), *pictures,
        Node("CultureStrengthSweep", "Strengths", 0, {"start": 0.0, "stop": 4.0, "steps": 5}),
        Node("CultureGrid", "Grid", 6, sheet),
        Node("SaveImage", "Sheet", 7, {"images": Link("Grid"), "filename_prefix": "culture/sweep"}),
        note("One strength after the other, and all pictures on one sheet. Everything behind Culture "
             "Strength Sweep runs once for each strength."),
    ]  # fmt: skip


def score_graph() -> Graph:
    drawn = [
        *picture("As it is", "Text encoder", "teapot", 1, "Prompt")[:-1],
        *picture("Amplified", "Amplify", "teapot", 1, "Prompt, amplified")[:-1],
    ]
    # Named: the first judge of another machine may be a server that costs money.
    asked = {"images": Link("Both"), "culture": "Japanese (ja)", "judge": "miniature"}
    both = {"image1": Link("Decode as it is"), "image2": Link("Decode amplified")}
    return [
        *loaders(), *amplifier("Japanese (ja)"), *drawn,
        Node("ImageBatch", "Both", 6, both),
        Node("CultureScore", "Score", 7, asked),
        Node("SaveImage", "Verdict", 8, {"images": Link("Score", 2), "filename_prefix": "culture/verdict"}),
        Node("PreviewAny", "Answers", 8, {"source": Link("Score", 1)}),
        note("Is this picture Japanese? The judge of this graph is the examples' own small network, which "
             "knows their drawings and nothing else. For other pictures choose a vision-language model, once "
             "one is set up on the machine that ComfyUI runs on (see the README)."),
    ]  # fmt: skip


def from_prompt_graph() -> Graph:
    """One prompt; its language says the culture to amplify, and to name."""
    text, culture = Link("Culture"), Link("Culture", 1)
    named = Node("CultureModifier", "Named", 1, {"text": text, "culture": culture, "language": "own"})
    return [
        *loaders(),
        Node("CultureFromPrompt", "Culture", 0, {"text": "Zeichnung: Baum"}),
        *amplifier(culture), named,
        Node("PreviewAny", "Report", 1, {"source": Link("Culture", 4)}),
        *picture("As it is", "Text encoder", text, 1, "Prompt"),
        *picture("Amplified", "Amplify", text, 1, "Prompt, amplified"),
        *picture("Named in the prompt", "Text encoder", Link("Named"), 1, "Prompt, named"),
        note("The prompt's language chooses the culture. Where it is unclear, nothing is steered and the "
             "report says why: write more words, or choose at override. Below, the usual way: the culture "
             "named in the prompt."),
    ]  # fmt: skip


def alt_diffusion_graph() -> Graph:
    return [
        Node("CultureLoadTextEncoder", "Text encoder", 0, {"folder": "AltDiffusion-m9"}),
        Node("UNETLoader", "UNet", 0, {"unet_name": "altdiffusion_m9_unet.safetensors"}),
        Node("VAELoader", "VAE", 0, {"vae_name": "altdiffusion_m9_vae.safetensors"}),
        *stable_diffusion(Link("UNet"), Link("VAE"), 512, "水墨画,湖边的老桥"),
        note("AltDiffusion-m9: its folder, with text_encoder and tokenizer in it, goes into "
             "models/text_encoders; unet/diffusion_pytorch_model.safetensors, renamed, into "
             "models/diffusion_models, and the vae's into models/vae."),
    ]  # fmt: skip


def pea_diffusion_graph() -> Graph:
    files = {"folder": "CLIP-ViT-H-14-frozen-xlm-roberta-large", "adapter": "pea_sdxl.safetensors"}
    checkpoint = {"ckpt_name": "sd_xl_base_1.0.safetensors"}
    return [
        Node("CultureLoadTextEncoder", "Text encoder", 0, files),
        Node("CheckpointLoaderSimple", "SDXL", 0, checkpoint),
        *stable_diffusion(Link("SDXL"), Link("SDXL", 2), 1024, "ein altes Haus am See, Aquarell"),
        note("PEA-Diffusion: SDXL reads a multilingual CLIP through an adapter, so its own text encoders are "
             "not used. The CLIP's folder goes into models/text_encoders, the adapter into "
             "models/culture_adapters, both as safetensors."),
    ]  # fmt: skip


def stable_diffusion(model: Link, vae: Link, size: int, prompt: str) -> Graph:
    """A picture with the text encoder titled `Text encoder` and Stable Diffusion."""
    clip = {"clip": Link("Text encoder")}
    sampling = {"seed": 1, "steps": 25, "cfg": 7.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
    sources = {
        "model": model,
        "positive": Link("Prompt"),
        "negative": Link("Negative prompt"),
        "latent_image": Link("Size"),
    }
    return [
        Node("EmptyLatentImage", "Size", 0, {"width": size, "height": size, "batch_size": 1}),
        Node("CLIPTextEncode", "Prompt", 1, clip | {"text": prompt}),
        Node("CLIPTextEncode", "Negative prompt", 1, clip | {"text": ""}),
        Node("KSampler", "Sample", 2, sources | sampling),
        Node("VAEDecode", "Decode", 3, {"samples": Link("Sample"), "vae": vae}),
        Node("SaveImage", "Picture", 4, {"images": Link("Decode"), "filename_prefix": "culture/picture"}),
    ]


def note(text: str, column: int = 1) -> Node:
    return Node("MarkdownNote", "Note", column, {"text": text})


GRAPHS = {
    "amplify": amplify_graph,
    "enhance": enhance_graph,
    "probe": probe_graph,
    "train": train_graph,
    "sweep": sweep_graph,
    "score": score_graph,
    "from_prompt": from_prompt_graph,
    "altdiffusion": alt_diffusion_graph,
    "pea_diffusion": pea_diffusion_graph,
    "demo": demo_graph,
}


def api_format(graph: Graph, info: dict[str, Any]) -> Workflow:
    """What `/prompt` takes; every widget is written out."""
    ids = _ids(graph)
    workflow: Workflow = {}
    for node in graph:
        if node.kind == "MarkdownNote":
            continue
        inputs = {}
        for name, spec in _inputs(info[node.kind]).items():
            value = node.inputs.get(name, _default(spec) if _is_widget(spec) else None)
            if value is not None:
                inputs[name] = [str(ids[value.title]), value.slot] if isinstance(value, Link) else value
        workflow[str(ids[node.title])] = {
            "class_type": node.kind,
            "inputs": inputs,
            "_meta": {"title": node.title},
        }
    return workflow


def canvas_format(name: str, graph: Graph, info: dict[str, Any]) -> dict[str, Any]:
    """What the front end opens."""
    ids = _ids(graph)
    links: list[list[Any]] = []
    nodes = {node.title: _canvas_node(node, ids[node.title], info) for node in graph}
    for node in graph:
        for slot, entry in enumerate(nodes[node.title]["inputs"]):
            value = node.inputs[entry["name"]]
            output = nodes[value.title]["outputs"][value.slot]
            entry["link"] = len(links) + 1
            output["links"].append(entry["link"])
            links.append([entry["link"], ids[value.title], value.slot, ids[node.title], slot, entry["type"]])
    _place(graph, nodes)
    counts = {"last_node_id": len(graph), "last_link_id": len(links)}
    content = {"nodes": list(nodes.values()), "links": links, "groups": [], "config": {}, "extra": {}}
    return {"id": str(uuid.uuid5(_NAMESPACE, name)), "revision": 0, **counts, **content, "version": 0.4}


def _canvas_node(node: Node, node_id: int, info: dict[str, Any]) -> dict[str, Any]:
    common = {
        "id": node_id,
        "type": node.kind,
        "title": node.title,
        "flags": {},
        "order": node_id - 1,
        "mode": 0,
    }
    if node.kind == "MarkdownNote":
        text = [node.inputs["text"]]
        return common | {
            "inputs": [],
            "outputs": [],
            "properties": {},
            "widgets_values": text,
            "color": "#432",
            "bgcolor": "#653",
        }
    described = info[node.kind]
    inputs, widgets = [], []
    for name, spec in _inputs(described).items():
        value = node.inputs.get(name)
        if _is_widget(spec):
            widgets.append(_default(spec) if value is None or isinstance(value, Link) else value)
            if spec[1:] and spec[1].get("control_after_generate"):
                widgets.append("fixed")
        if isinstance(value, Link):
            socket = {"name": name, "type": _type(spec), "link": None}
            inputs.append(socket | ({"widget": {"name": name}} if _is_widget(spec) else {}))
    sockets = zip(described["output_name"], described["output"], strict=True)
    outputs = [{"name": label, "type": kind, "links": []} for label, kind in sockets]
    named = {"Node name for S&R": node.kind}
    return common | {"inputs": inputs, "outputs": outputs, "properties": named, "widgets_values": widgets}


def _place(graph: Graph, nodes: dict[str, dict[str, Any]]) -> None:
    """One below the other in its column."""
    below: dict[int, int] = {}
    for node in graph:
        entry = nodes[node.title]
        lines = max(len(entry["inputs"]), len(entry["outputs"])) + len(entry["widgets_values"])
        height = HEIGHTS.get(node.kind, 40 + 26 * lines)
        entry["pos"] = [COLUMN * node.column, below.get(node.column, 0)]
        entry["size"] = [WIDTHS.get(node.kind, WIDTH), height]
        below[node.column] = entry["pos"][1] + height + ROW_GAP


def _ids(graph: Graph) -> dict[str, int]:
    return {node.title: number for number, node in enumerate(graph, start=1)}


def _inputs(described: dict[str, Any]) -> dict[str, list]:
    return {**described["input"].get("required", {}), **described["input"].get("optional", {})}


def _type(spec: list) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def _is_widget(spec: list) -> bool:
    return _type(spec) in WIDGETS and not (len(spec) > 1 and spec[1].get("forceInput"))


def _default(spec: list) -> Any:
    options = spec[1] if len(spec) > 1 else {}
    if _type(spec) != "COMBO":
        return options.get("default", {"STRING": "", "BOOLEAN": False}.get(spec[0], 0))
    choices = spec[0] if isinstance(spec[0], list) else options["options"]
    return options.get("default", choices[0] if choices else "")


def main(url: str) -> None:
    info = ComfyClient(url).object_info()
    FOLDER.mkdir(exist_ok=True)
    for name, build in GRAPHS.items():
        graph = build()
        files = {f"{name}_api.json": api_format(graph, info)}
        if name != "demo":
            files[f"{name}.json"] = canvas_format(name, graph, info)
        for file, content in files.items():
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (FOLDER / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
