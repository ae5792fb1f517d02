"""The example graphs, described: which nodes, what is connected to what, and what stands on the canvas about it.

`tools.make_workflows` writes them for ComfyUI's canvas and for its API.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from culture_core.cultures import CULTURES
from culture_core.miniature.captions import ALL_NOUNS, WORDS
from tools import make_systems

COLUMNS = {
    "note": "",
    "models": "Models",
    "prompt": "Prompt",
    "culture": "Culture",
    "make": "Training",
    "find": "Culture neurons",
    "encode": "Text encoding",
    "sample": "Sampling",
    "decode": "Sampling",
    "collect": "Results",
    "result": "Results",
    "report": "Results",
}
"""Columns of a canvas from left to right, with the group that each is in."""


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
    column: str
    inputs: dict[str, Any] = field(default_factory=dict)


Graph = list[Node]

_HUB = "https://huggingface.co"
_SD35 = f"{_HUB}/Comfy-Org/stable-diffusion-3.5-fp8/resolve/main/text_encoders"
_FLUX = f"{_HUB}/comfyanonymous/flux_text_encoders/resolve/main"
_QWEN = f"{_HUB}/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files"
_Z = f"{_HUB}/Comfy-Org/z_image_turbo/resolve/main/split_files"
PUBLISHED: dict[str, tuple[str, str]] = {
    "v1-5-pruned-emaonly-fp16.safetensors": (
        "checkpoints", f"{_HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main"
    ),
    "sd_xl_base_1.0.safetensors": (
        "checkpoints", f"{_HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main"
    ),
    "sd3.5_large.safetensors": ("checkpoints", f"{_HUB}/stabilityai/stable-diffusion-3.5-large/resolve/main"),
    "clip_g.safetensors": ("text_encoders", _SD35),
    "clip_l.safetensors": ("text_encoders", _FLUX),
    "t5xxl_fp16.safetensors": ("text_encoders", _FLUX),
    "flux1-dev.safetensors": ("diffusion_models", f"{_HUB}/Comfy-Org/flux1-dev/resolve/main"),
    "ae.safetensors": ("vae", f"{_Z}/vae"),
    "qwen_image_fp8_e4m3fn.safetensors": ("diffusion_models", f"{_QWEN}/diffusion_models"),
    "qwen_2.5_vl_7b_fp8_scaled.safetensors": ("text_encoders", f"{_QWEN}/text_encoders"),
    "qwen_image_vae.safetensors": ("vae", f"{_QWEN}/vae"),
    "z_image_turbo_bf16.safetensors": ("diffusion_models", f"{_Z}/diffusion_models"),
    "qwen_3_4b.safetensors": ("text_encoders", f"{_Z}/text_encoders"),
}  # fmt: skip
"""Files of other people's models: folder of ComfyUI's `models`, and where they are published. ComfyUI offers
those that are missing when it opens a graph."""

_ENCODER = (
    "**Needs** multilingual-e5-small (0.5 GB). In the pack's folder, with ComfyUI's Python:\n"
    "`python -m culture_core fetch-encoder`\n\nEverything else comes with the pack."
)
_DIAL = (
    "**strength**: 0 is the picture as it is, bit for bit; 1 to 3 is the useful range; more bends the subject "
    "before it adds culture; −1 switches the neurons off."
)


# ------------------------------------------------------------------------------------------------ parts


def note(heading: str, *paragraphs: str) -> Node:
    return Node("MarkdownNote", "Read me", "note", {"text": "\n\n".join((f"## {heading}", *paragraphs))})


def image_model(name: str) -> tuple[Graph, make_systems.ImageModel]:
    """An image model's loaders and its size; the links in the model are by title."""
    built = make_systems.MODELS[name]()
    titles = {key: node["_meta"]["title"] for key, node in built.nodes.items()}

    def linked(value: Any) -> Any:
        return Link(titles[value[0]], value[1]) if isinstance(value, list) else value

    nodes = [
        Node(
            node["class_type"], titles[key], "prompt" if key == "size" else "models",
            {name: linked(value) for name, value in node["inputs"].items()},
        )
        for key, node in built.nodes.items()
    ]  # fmt: skip
    links = {"clip": linked(built.clip), "model": linked(built.model), "vae": linked(built.vae)}
    return nodes, built._replace(**links)


def prompt(text: str, seed: int = 1) -> Graph:
    return [
        Node("PrimitiveString", "Prompt", "prompt", {"value": text}),
        Node("PrimitiveInt", "Seed", "prompt", {"value": seed}),
    ]


def culture_sae(file: str = "miniature") -> Node:
    return Node("CultureLoadSAE", "Culture SAE", "culture", {"file": f"{file}.safetensors"})


def amplifier(
    clip: Link,
    culture: str | Link,
    title: str = "Amplify",
    strength: float | Link = 2.0,
    column: str = "culture",
) -> Node:
    name = culture if isinstance(culture, Link) else f"{CULTURES[culture].name} ({culture})"
    setting = {"culture": name, "strength": strength, "mode": "inject", "tokens": "content", "words": ""}
    source = {"clip": clip, "culture_sae": Link("Culture SAE")}
    return Node("CultureAmplifyNeurons", title, column, source | setting)


def enhancer(clip: Link) -> Graph:
    source = {"clip": clip, "culture_enhancer": Link("Enhancer file")}
    return [
        Node("CultureLoadEnhancer", "Enhancer file", "culture", {"file": "miniature.safetensors"}),
        Node("CultureApplyEnhancer", "Enhance", "culture", source | {"strength": 1.0}),
    ]


def negative(model: make_systems.ImageModel) -> Node:
    return Node("CLIPTextEncode", "Negative prompt", "encode", {"clip": model.clip, "text": ""})


def picture(
    model: make_systems.ImageModel,
    name: str,
    clip: Link,
    text: Link = Link("Prompt"),  # noqa: B008  frozen
    *,
    save: bool = True,
) -> Graph:
    """Encode, sample, decode, save; the saving node is titled `name`."""
    lower = name.lower()
    positive = Link(f"Encode {lower}")
    nodes = [Node("CLIPTextEncode", positive.title, "encode", {"clip": clip, "text": text})]
    if model.guide:
        guided = {"conditioning": positive, "guidance": 3.5}
        positive = Link(f"Guide {lower}")
        nodes.append(Node("FluxGuidance", positive.title, "encode", guided))
    sources = {
        "model": model.model, "positive": positive, "negative": Link("Negative prompt"),
        "latent_image": Link("Size"), "seed": Link("Seed"),
    }  # fmt: skip
    decoding = {"samples": Link(f"Sample {lower}"), "vae": model.vae}
    nodes += [
        Node("KSampler", f"Sample {lower}", "sample", sources | model.sampling | {"denoise": 1.0}),
        Node("VAEDecode", f"Decode {lower}", "decode", decoding),
    ]
    return [*nodes, saved(name, Link(f"Decode {lower}"), lower)] if save else nodes


def saved(title: str, images: Link, prefix: str, column: str = "result") -> Node:
    return Node("SaveImage", title, column, {"images": images, "filename_prefix": f"culture/{prefix}"})


def shown(title: str, source: Link) -> Node:
    return Node("PreviewAny", title, "report", {"source": source})


def text_encoder() -> Node:
    return Node("CultureLoadTextEncoder", "Text encoder", "models", {"folder": "multilingual-e5-small"})


def prompt_pairs(file: str = "miniature") -> Node:
    return Node("CultureLoadPairs", "Prompt pairs", "models", {"file": f"{file}.jsonl"})


def files_of(graph: Graph) -> str:
    """Where the published files of a graph go, as a list of links."""
    names = [v for node in graph for v in node.inputs.values() if isinstance(v, str) and v in PUBLISHED]
    return "\n".join(
        f"- [{name}]({PUBLISHED[name][1]}/{name}) into `models/{PUBLISHED[name][0]}`" for name in names
    )


# ------------------------------------------------------------------------------------- graphs: a picture


def amplify() -> Graph:
    nodes, model = image_model("miniature")
    return [
        note(
            "Amplify a culture",
            "One prompt, twice: as it is, and with the neurons of one culture turned up inside the text "
            "encoder. The image model, the prompt and the seed are the same.",
            f"**Turn** on *Amplify*: **culture**; {_DIAL}",
            "The CLIP that goes in is never changed: connect the loader's wherever you want the plain encoder.",
            _ENCODER,
        ),
        *prompt("家", 2), *nodes, culture_sae(), amplifier(model.clip, "ja"),
        *picture(model, "As it is", model.clip),
        *picture(model, "Amplified", Link("Amplify")),
        negative(model),
    ]  # fmt: skip


def amplify_model(name: str, heading: str, text: str, *remarks: str) -> Graph:
    """The graph `amplify` for a model of other people."""
    nodes, model = image_model(name)
    file = f"{name}.safetensors"
    files = files_of(nodes)
    return [
        note(
            f"Amplify a culture: {heading}",
            "One prompt, twice: as it is, and with the neurons of one culture turned up inside the text "
            "encoder.",
            *([f"**Files**, besides the culture SAE:\n{files}"] if files else []),
            *remarks,
            f"**Culture SAE**: `{file}` in `models/culture_sae`. None is published: make one for your text "
            "encoder with the graph *train* (connect this graph's CLIP to it), or take one that somebody made "
            "for the same encoder.",
            f"**Turn** on *Amplify*: {_DIAL} Those figures are the miniature's: look for your model's with the "
            "graph *sweep*. **encoders**: empty is the one that the SAE was made for.",
        ),
        *prompt(text), *nodes, culture_sae(name), amplifier(model.clip, "ja"),
        *picture(model, "As it is", model.clip),
        *picture(model, "Amplified", Link("Amplify")),
        negative(model),
    ]  # fmt: skip


def blend() -> Graph:
    nodes, model = image_model("miniature")
    return [
        note(
            "Blend two cultures",
            "*Amplify* nodes in a chain add up: the picture at the bottom has the neurons of both cultures "
            "turned up, each with its own dial. Above it, the first one alone, and the prompt as it is.",
            "**Turn** the two strengths against each other: 1 and 2, 2 and 1. Their sum bends the subject "
            "sooner than one alone; stay below about 4 together.",
            "In the same way cultures are blended in several layers or encoders, with an SAE for each.",
            _ENCODER,
        ),
        *prompt("a house", 2), *nodes, culture_sae(),
        amplifier(model.clip, "th", "First culture", 2.5),
        amplifier(Link("First culture"), "ja", "Second culture", 1.5),
        *picture(model, "As it is", model.clip),
        *picture(model, "First", Link("First culture")),
        *picture(model, "Both", Link("Second culture")),
        negative(model),
    ]  # fmt: skip


def sweep() -> Graph:
    nodes, model = image_model("miniature")
    sheet = {"images": Link("Decode picture"), "labels": Link("Strengths", 1), "columns": 3, "title": "家"}
    return [
        note(
            "Which strength?",
            "One strength after the other, and all pictures on one sheet. Everything behind *Culture Strength "
            "Sweep* runs once for each strength.",
            "**Turn** **start**, **stop** and **steps**, or list strengths in **values**: `0, 1, 1.5, 2, 6`. "
            "Take the last one before the subject bends; the SAE's report names it for its own model.",
            "Connect the strengths to *Apply Layer Enhancer* to compare those (it takes −1 to 4).",
            _ENCODER,
        ),
        *prompt("家", 2), *nodes, culture_sae(),
        Node("CultureStrengthSweep", "Strengths", "prompt", {"start": 0.0, "stop": 5.0, "steps": 6}),
        amplifier(model.clip, "ja", strength=Link("Strengths")),
        *picture(model, "Picture", Link("Amplify"), save=False),
        Node("CultureGrid", "Grid", "collect", sheet),
        saved("Sheet", Link("Grid"), "sweep"),
        negative(model),
    ]  # fmt: skip


def languages() -> Graph:
    nodes, model = image_model("miniature")
    teapot = ALL_NOUNS.index("teapot")
    words = {"prompts": "\n".join(WORDS[language][teapot] for language in CULTURES)}
    plain, enhanced = (
        {"images": Link(f"Decode {name}"), "labels": Link("Languages"), "columns": 5, "title": title}
        for name, title in (("as it is", "As it is"), ("enhanced", "Enhanced"))
    )
    return [
        note(
            "The same noun in 15 languages",
            "*Teapot*, fifteen times. As it is, most languages come out neutral: that is the gap. The "
            "layer enhancer is not told a culture; it follows the language of the prompt.",
            "**Turn** the list to another noun, and the enhancer's **strength** between 0 and 2. Everything "
            "behind *Culture Prompt List* runs once for each line.",
            "Letters that no font of the system can draw are left out below the pictures.",
            _ENCODER,
        ),
        Node("CulturePromptList", "Languages", "prompt", words),
        Node("PrimitiveInt", "Seed", "prompt", {"value": 1}),
        *nodes,
        *enhancer(model.clip),
        *picture(model, "As it is", model.clip, Link("Languages"), save=False),
        *picture(model, "Enhanced", Link("Enhance"), Link("Languages"), save=False),
        Node("CultureGrid", "Grid as it is", "collect", plain),
        Node("CultureGrid", "Grid enhanced", "collect", enhanced),
        saved("Sheet as it is", Link("Grid as it is"), "languages"),
        saved("Sheet enhanced", Link("Grid enhanced"), "languages_enhanced"),
        negative(model),
    ]  # fmt: skip


def english() -> Graph:
    nodes, model = image_model("miniature")
    chosen = {"ja": 3.0, "th": 3.0, "it": 3.0}
    named = {code: CULTURES[code].name for code in chosen}
    return [
        note(
            "One English prompt, several cultures",
            "The prompt is English and names no culture. Beside the picture as it is, three cultures' neurons, "
            "each on the plain CLIP: the neurons, not the language, bring the culture out.",
            "**Turn** **culture** and **strength** on each. English needs more than the culture's own language: "
            "in the miniature a third of such pictures show the culture, against four fifths.",
            _ENCODER,
        ),
        *prompt("a house", 2), *nodes, culture_sae(),
        *(amplifier(model.clip, code, f"Amplify {named[code]}", value) for code, value in chosen.items()),
        *picture(model, "As it is", model.clip),
        *(node for code in chosen for node in picture(model, named[code], Link(f"Amplify {named[code]}"))),
        negative(model),
    ]  # fmt: skip


def from_prompt() -> Graph:
    nodes, model = image_model("miniature")
    text, culture = Link("Culture"), Link("Culture", 1)
    return [
        note(
            "The prompt's language chooses the culture",
            "*Culture from Prompt Language* tells the language and gives its culture to *Amplify* and to "
            "*Culture Modifier*, which names it in the prompt: the usual way, to compare with. Where the "
            "language is unclear, nothing is steered and the report says why.",
            "**Turn** **override** to choose the culture yourself; **when_unsure** to have the run stop instead.",
            "Most languages need `pip install eldc` in ComfyUI's Python.",
            _ENCODER,
        ),
        Node("PrimitiveInt", "Seed", "prompt", {"value": 1}), *nodes,
        Node("CultureFromPrompt", "Culture", "prompt", {"text": "Zeichnung: Baum"}),
        culture_sae(), amplifier(model.clip, culture),
        Node("CultureModifier", "Named", "culture", {"text": text, "culture": culture, "language": "own"}),
        *picture(model, "As it is", model.clip, text),
        *picture(model, "Amplified", Link("Amplify"), text),
        *picture(model, "Named in the prompt", model.clip, Link("Named")),
        negative(model),
        shown("Report", Link("Culture", 4)),
    ]  # fmt: skip


def enhance() -> Graph:
    nodes, model = image_model("miniature")
    return [
        note(
            "The layer enhancer",
            "A few trained weights on one layer of the text encoder. It is not told a culture: it follows the "
            "language of the prompt.",
            "**Turn** **strength** on *Enhance*: 1 is what was trained, 0 the picture as it is, bit for bit; up "
            "to 2 is useful.",
            _ENCODER,
        ),
        *prompt("Zeichnung: Baum"), *nodes, *enhancer(model.clip),
        *picture(model, "As it is", model.clip),
        *picture(model, "Enhanced", Link("Enhance")),
        negative(model),
    ]  # fmt: skip


def score() -> Graph:
    nodes, model = image_model("miniature")
    # Named: the first judge of another machine may be a server that costs money.
    asked = {"images": Link("Both"), "culture": "Japanese (ja)", "judge": "miniature"}
    both = {"image1": Link("Decode as it is"), "image2": Link("Decode amplified")}
    return [
        note(
            "Is this picture Japanese?",
            "CultureVQA: a judge is asked which of 15 cultures a picture shows. Here it sees the plain and the "
            "amplified picture; a green frame is the culture asked for.",
            "**Turn** **culture** on *Amplify* and *Score* together, and the prompt.",
            "The judge *miniature* is the examples' own small network, which knows their drawings and nothing "
            "else. For other pictures choose a vision-language model, once one is set up on the machine that "
            "ComfyUI runs on (see the README).",
            _ENCODER,
        ),
        *prompt("teapot"), *nodes, culture_sae(), amplifier(model.clip, "ja"),
        *picture(model, "As it is", model.clip, save=False),
        *picture(model, "Amplified", Link("Amplify"), save=False),
        Node("ImageBatch", "Both", "collect", both),
        Node("CultureScore", "Score", "collect", asked),
        saved("Verdict", Link("Score", 2), "verdict"),
        shown("Answers", Link("Score", 1)),
        negative(model),
    ]  # fmt: skip


def demo() -> Graph:
    nodes, model = image_model("miniature")
    return [
        *nodes, culture_sae(), amplifier(model.clip, "ja"), *enhancer(model.clip),
        Node("PrimitiveString", "Neutral prompt", "prompt", {"value": "急須"}),
        Node("PrimitiveString", "Explicit prompt", "prompt", {"value": "日本風の急須"}),
        Node("PrimitiveInt", "Seed", "prompt", {"value": 1}),
        *picture(model, "Neutral", model.clip, Link("Neutral prompt")),
        *picture(model, "Amplified", Link("Amplify"), Link("Neutral prompt")),
        *picture(model, "Enhanced", Link("Enhance"), Link("Neutral prompt")),
        *picture(model, "Explicit", model.clip, Link("Explicit prompt")),
        negative(model),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------- graphs: making files


def probe() -> Graph:
    source = {"clip": Link("Text encoder"), "culture_pairs": Link("Prompt pairs")}
    return [
        note(
            "In which layer?",
            "Measures in which layer of the text encoder a culture modifier acts on its noun, by attention and "
            "by patching. That layer is where a culture SAE or an enhancer belongs.",
            "**Turn** **max_pairs** up for figures to rely on (several hundred), **criterion** to choose which "
            "of the two measures decides. Connect any CLIP: nothing here is special to this encoder.",
            _ENCODER,
        ),
        text_encoder(), prompt_pairs(),
        Node("CultureProbeLayer", "Probe", "make", source),
        saved("Curves", Link("Probe", 1), "probe"),
        shown("Report", Link("Probe", 2)),
    ]  # fmt: skip


def train() -> Graph:
    sources = {"clip": Link("Text encoder"), "culture_pairs": Link("Prompt pairs")}
    training = {"layer": 11, "latents": 512, "steps": 375, "checkpoint": "my-culture"}
    detecting = {"culture_sae": Link("Train"), "count": 20}
    return [
        note(
            "Your own culture SAE",
            "From prompt pairs (the same content with and without a culture) to a file that can be shared. No "
            "pictures are needed. Some minutes for this example on a CPU; put your own pairs into "
            "`models/culture_pairs`.",
            "The loss is drawn on the node while it trains. Cancel when you like: queue again with the same "
            "settings, and the training goes on where it stopped.",
            "**Turn** **layer** (see *probe*), **latents** and **steps**; the reports say what to change. The "
            "file is in `output/culture_sae`; *Load Culture SAE* lists it after a press of R.",
            _ENCODER,
        ),
        text_encoder(), prompt_pairs(),
        Node("CultureTrainSAE", "Train", "make", sources | training),
        Node("CultureDetectNeurons", "Detect", "find", sources | detecting),
        Node(
            "CultureSaveSAE", "Save", "find",
            {"culture_sae": Link("Detect"), "filename_prefix": "my-culture"},
        ),
        saved("Loss", Link("Train", 1), "loss"),
        saved("Neurons", Link("Detect", 1), "neurons"),
        shown("Training report", Link("Train", 2)),
        shown("Detection report", Link("Detect", 2)),
    ]  # fmt: skip


def detect() -> Graph:
    sources = {"clip": Link("Text encoder"), "culture_pairs": Link("Prompt pairs")}
    return [
        note(
            "Find a culture's neurons",
            "Takes an SAE that exists and finds, for each culture of the prompt pairs, the latents that are "
            "active with the culture and not without it. Cultures that the SAE has and the pairs lack are kept: "
            "so a culture is added to somebody else's SAE.",
            "**Turn** **count** (0: as many as stand out), **contrast** and **tau**; or **by_effect**, which "
            "tries several and keeps what moves prompts most, in minutes.",
            "The picture shows how active the neurons are (WFS), the report their overlap.",
            _ENCODER,
        ),
        text_encoder(), prompt_pairs(), culture_sae(),
        Node("CultureDetectNeurons", "Detect", "find", sources | {"culture_sae": Link("Culture SAE")}),
        Node(
            "CultureSaveSAE", "Save", "find",
            {"culture_sae": Link("Detect"), "filename_prefix": "more-cultures"},
        ),
        saved("Neurons", Link("Detect", 1), "neurons"),
        shown("Report", Link("Detect", 2)),
    ]  # fmt: skip


def train_enhancer() -> Graph:
    nodes, model = image_model("miniature")
    loaders = [node for node in nodes if node.title != "Size"]
    sources = {
        "model": model.model, "vae": model.vae, "clip": model.clip, "culture_pairs": Link("Prompt pairs"),
        "pictures": "culture_miniature",
    }  # fmt: skip
    training = {
        "layer": 9, "size": 64, "bottleneck": 96, "steps": 100, "accumulate": 2, "learning_rate": 0.001,
        "checkpoint": "my-enhancer",
    }  # fmt: skip
    return [
        note(
            "Your own layer enhancer",
            "Learns from pictures: the neutral prompt goes in, the culture's picture is what the image model "
            "shall see. Only the enhancer is trained. Some minutes for this example on a CPU.",
            "**Needs** the pictures of the pairs inside ComfyUI's input folder. For this example copy the "
            "pack's `models/culture_bench/miniature/images` to `input/culture_miniature/images`.",
            "**Turn** **loss** (latent; pixel is the paper's and takes more memory), **steps**, and **size** to "
            "what the model was made for (512 or 1024). Out of memory: **gradient_checkpointing**. Mix in "
            "pairs with plain pictures, or everything takes on the culture.",
            "The file is in `output/culture_enhancer`; *Load Layer Enhancer* lists it after a press of R.",
            _ENCODER,
        ),
        *loaders, prompt_pairs("miniature_pictures"),
        Node("CultureTrainEnhancer", "Train", "make", sources | training),
        Node(
            "CultureSaveEnhancer", "Save", "result",
            {"culture_enhancer": Link("Train"), "filename_prefix": "my-enhancer"},
        ),
        saved("Loss", Link("Train", 1), "loss"),
        shown("Report", Link("Train", 2)),
    ]  # fmt: skip


_OWN_ENCODER = (
    "**Text encoder**: its folder from [{page}](https://huggingface.co/{page}), with the tokenizer, into "
    "`models/text_encoders/{folder}`; a published `.bin` becomes safetensors with "
    "`python -m culture_core convert`. "
)

GRAPHS: dict[str, Callable[[], Graph]] = {
    "amplify": amplify,
    "blend": blend,
    "sweep": sweep,
    "languages": languages,
    "english": english,
    "from_prompt": from_prompt,
    "enhance": enhance,
    "probe": probe,
    "train": train,
    "detect": detect,
    "train_enhancer": train_enhancer,
    "score": score,
    "amplify_sd15": partial(amplify_model, "sd15", "SD 1.5", "a teapot on a table"),
    "amplify_sdxl": partial(
        amplify_model, "sdxl", "SDXL", "a teapot on a wooden table",
        "SDXL reads two encoders, clip_l and clip_g; an SAE belongs to one of them. Chain two *Amplify* nodes "
        "with an SAE each to turn up both.",
    ),
    "amplify_sd35": partial(
        amplify_model, "sd35", "Stable Diffusion 3.5", "a teapot on a wooden table",
        "The hub asks you to accept the licence before it lets you download SD 3.5. An SAE belongs to one of "
        "the three encoders: clip_l, clip_g or t5xxl, which carries most of the prompt.",
    ),
    "amplify_flux": partial(
        amplify_model, "flux", "FLUX.1-dev", "a teapot on a wooden table",
        "FLUX.1-dev is distilled: cfg stays at 1, the guidance is a number of its own, and the negative prompt "
        "is not read. Of its encoders t5xxl carries the prompt.",
    ),
    "amplify_qwen_image": partial(amplify_model, "qwen_image", "Qwen-Image", "木桌上的茶壶"),
    "amplify_z_image": partial(
        amplify_model, "z_image", "Z-Image-Turbo", "木桌上的茶壶",
        "A turbo model: cfg stays at 1, and the negative prompt is not read.",
    ),
    "amplify_altdiffusion": partial(
        amplify_model, "altdiffusion", "AltDiffusion-m9", "水墨画,湖边的老桥",
        _OWN_ENCODER.format(page="BAAI/AltDiffusion-m9", folder="AltDiffusion-m9")
        + "The folder's `unet/diffusion_pytorch_model.safetensors`, renamed to "
        "`altdiffusion_m9_unet.safetensors`, into `models/diffusion_models`, and the `vae` one, renamed to "
        "`altdiffusion_m9_vae.safetensors`, into `models/vae`.",
    ),
    "amplify_pea_diffusion": partial(
        amplify_model, "pea_diffusion", "PEA-Diffusion", "ein altes Haus am See, Aquarell",
        _OWN_ENCODER.format(
            page="laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k",
            folder="CLIP-ViT-H-14-frozen-xlm-roberta-large",
        )
        + "The adapter, as `pea_sdxl.safetensors`, into `models/culture_adapters`. SDXL reads the multilingual "
        "CLIP through it; its own text encoders are not used.",
    ),
}  # fmt: skip
"""Graphs for the canvas and the API, by name."""
API_ONLY: dict[str, Callable[[], Graph]] = {"demo": demo}
