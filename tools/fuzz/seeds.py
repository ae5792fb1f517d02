"""The good cases that the fuzzer starts from: `python -m tools.fuzz.seeds` writes them into the corpus.

As small as the readers allow, so that a change falls on something that matters.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from culture_core.cultures import CULTURES
from culture_core.enhancer import LayerEnhancer
from culture_core.files import CultureSAE, EnhancerFile, Strengths, save_culture_sae, save_enhancer
from culture_core.neuron_figures import Curve, Selection
from culture_core.neurons import CultureNeurons
from culture_core.pairs import PromptPair, save_pairs
from culture_core.sae import TopKSAE
from culture_core.sae.formats import LIBRARIES, export_sae
from culture_core.sae.sources import StoreWriter
from culture_core.user_study.design import TASKS, design_study
from culture_core.user_study.pictures import Picture

from .cases import CORPUS

WIDTH, LATENTS = 4, 8
ENCODER = {
    "family": "bert",
    "layers": 2,
    "width": WIDTH,
    "heads": 2,
    "vocabulary": 30,
    "weights": [0.5, -1.0],
}


def write_all() -> None:
    """Write the good cases of every target; what else is in the corpus stays."""
    for target, cases in SEEDS.items():
        for name, write in cases.items():
            folder = CORPUS / target / f"accepted-{name}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write(folder)


def png(colour: tuple[int, int, int] = (200, 30, 30), edge: int = 4, **texts: str) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((edge, edge, 3), colour, dtype=np.uint8)).save(data, format="PNG")
    return data.getvalue()


def lines(records: list[dict]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _neurons(*indices: int) -> CultureNeurons:
    ones = torch.ones(len(indices))
    return CultureNeurons(torch.tensor(indices), ones, ones / 2, ones, ones * 0)


def _selection() -> Selection:
    return Selection(
        "elbow", "specificity", "mean", 0.5, 5, 1, 4, 2, (10, 10), (0.5, 0.25), (0.5, 0.25, 0.1),
        Curve((1, 3), (0.5, 0.25), (0.0, 0.0)), {"ja": 1.0},
    )  # fmt: skip


def _sae(folder: Path) -> None:
    sae = CultureSAE(
        TopKSAE(WIDTH, LATENTS, 2), 1, "hidden_state", ENCODER, {"ja": _neurons(1, 3), "th": _neurons(0)},
        "l", {"ja": Strengths(2.0, 3.0)}, {"ja": _selection()}, {"steps": 3}, "CC0-1.0", "Ada", "small",
    )  # fmt: skip
    save_culture_sae(sae, folder / "sae.safetensors")


def _plain_sae(folder: Path) -> None:
    save_culture_sae(
        CultureSAE(TopKSAE(WIDTH, LATENTS, 2), 0, "attention_output", ENCODER), folder / "sae.safetensors"
    )


def _enhancer(folder: Path) -> None:
    save_enhancer(EnhancerFile(LayerEnhancer(WIDTH, 2), 1, ENCODER, "l"), folder / "enhancer.safetensors")


def _foreign(library: str, folder: Path) -> None:
    export_sae(TopKSAE(WIDTH, LATENTS, 2), folder, library)


def _pickle(folder: Path) -> None:
    state = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2), "step": 3}
    torch.save({"state_dict": state}, folder / "model.bin")


def _pickled_parts(folder: Path) -> None:
    torch.save({"a": torch.ones(2)}, folder / "part-1.bin")
    torch.save({"b": torch.ones(2)}, folder / "part-2.bin")
    index = {"weight_map": {"a": "part-1.bin", "b": "part-2.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def _features(folder: Path) -> None:
    writer = StoreWriter(folder, {"of": "fuzzing"}, WIDTH, "float32", 3)
    for text in range(3):
        writer.add(torch.ones(2, WIDTH), torch.full((2,), text), text + 1)
    writer.close(3)


PAIRS = [
    PromptPair("1", "th", "en", "a thai house", "a house", ((2, 6),), ((7, 12),), ((2, 7),), "images/a.png",
               "buildings", "Thailand", "a Thai house", "sae", "house"),
    PromptPair("2", "ja", "ja", "和風の家", "家", ((0, 3),), ((3, 4),), ((0, 1),)),
]  # fmt: skip


def _pairs(folder: Path) -> None:
    pairs = [PromptPair(**{**vars(PAIRS[0]), "split": None}), PAIRS[1]]
    save_pairs(pairs, folder / "pairs.jsonl")
    _picture(folder / "images" / "a.png")


def _picture(path: Path, edge: int = 4, colour: tuple[int, int, int] = (200, 30, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(colour, edge))


def _bench(folder: Path) -> None:
    common = {"sha256": 64 * "0", "phash": 16 * "0", "width": 64, "height": 64, "category": "buildings",
              "region": "Thailand", "licence": "CC0-1.0", "source": "drawn"}  # fmt: skip
    captions = {"language": "en", "cultural": "a thai house", "neutral": "a house", "modifiers": [[2, 6]],
                "nouns_cultural": [[7, 12]], "nouns_neutral": [[2, 7]], "noun": "house"}  # fmt: skip
    decided = {"reviewer": "Ada", "decision": "accepted", "split": "test"}
    records = [
        {"id": "th-1", "image": "images/a.png", "culture": "th", **common, **captions, **decided},
        {"id": "ja-1", "image": "images/b.png", "culture": "ja", **common},
    ]
    (folder / "records.jsonl").write_text(lines(records), encoding="utf-8")
    for name in "ab":
        _picture(folder / "images" / f"{name}.png", 64)


def _ingestion(folder: Path) -> None:
    facts = [
        {"file_name": "a.png", "culture": "th", "category": "food", "licence": "CC0-1.0", "noun": "bowl"}
    ]
    (folder / "in").mkdir()
    (folder / "in" / "metadata.jsonl").write_text(lines(facts))
    (folder / "in" / "metadata.csv").write_text("file_name,culture,category\nb.png,ja,food\n")
    _picture(folder / "in" / "a.png", 64)
    _picture(folder / "in" / "b.png", 64, (0, 0, 255))


def _answer(file: str, culture: str = "th", label: str = "th") -> dict:
    return {"file": file, "sha256": 64 * "0", "culture": culture, "answers": [label, None],
            "shares": {label: 0.5}, "texts": ["Thai", "?"], "models": ["tiny-vl", "tiny-vl"], "cost": 0.0,
            "grades": {"relevance": {"value": 4, "text": "4"}, "presence": {"value": None, "text": "?"}}}  # fmt: skip


def _answers(folder: Path) -> None:
    records = [_answer("images/a.png"), _answer("images/b.png", "ja", "unrecognisable")]
    (folder / "answers.jsonl").write_text(lines(records))
    (folder / "run.json").write_text(json.dumps({"judge": "miniature", "graded": []}))


def _run(folder: Path) -> None:
    records = [
        {"file_name": f"images/{name}.png", "job": name, "system": system, "prompt": "a house",
         "neutral": "a house", "language": "en", "culture": "th", "item": "1", "seed": 0, "strength": strength,
         "english": "a house", "noun": "house", "category": "buildings"}
        for name, system, strength in (("a", "plain", None), ("b", "pack", 1.0), ("c", "pack", 2.0))
    ]  # fmt: skip
    (folder / "metadata.jsonl").write_text(lines(records))
    (folder / "run.json").write_text(json.dumps({"systems": {}, "seeds": [0]}))
    for name in "abc":
        _picture(folder / "images" / f"{name}.png")
    (folder / "judged").mkdir()
    answered = [_answer(f"images/{name}.png") for name in "abc"]
    (folder / "judged" / "answers.jsonl").write_text(lines(answered))
    (folder / "judged" / "run.json").write_text(json.dumps({"model": "tiny-vl", "rotations": 3}))
    (folder / "figures").mkdir()
    figures = [{"file_name": f"images/{name}.png", "clip": 0.3, "noun": True} for name in "abc"]
    (folder / "figures" / "metrics.jsonl").write_text(lines(figures))
    summary = {"settings": {"clip": {"instruments": [{"model": "tiny"}]}}, "too_long": {"clip": 1},
               "systems": {"plain": {"clip": {"mean": 0.3}, "fid": {"value": 3.0, "warning": "few"},
                                     "diversity": {"spread": 1.0, "vendi": 2.0}}}}  # fmt: skip
    (folder / "figures" / "metrics.json").write_text(json.dumps(summary))


def _foreign_pictures(folder: Path) -> None:
    records = [
        {"file_name": "a.png", "culture": "th", "item": "1", "seed": 0, "strength": 1.0},
        {"file_name": "b.png", "culture": "ja", "prompt": "a house", "seed": 1},
    ]
    (folder / "metadata.jsonl").write_text(lines(records))
    for name in "ab":
        _picture(folder / f"{name}.png")


GRAPH = {
    "prompt": {"class_type": "PrimitiveString", "inputs": {"value": "x"}, "_meta": {"title": "Prompt"}},
    "seed": {"class_type": "PrimitiveInt", "inputs": {"value": 0}},
    "encode": {
        "class_type": "CLIPTextEncode",
        "inputs": {"text": ["prompt", 0], "clip": ["amplify", 0], "seed": ["seed", 0]},
    },
    "amplify": {"class_type": "CultureAmplifyNeurons", "inputs": {"strength": 2.0, "culture": "ja"}},
    "plain": {"class_type": "SaveImage", "inputs": {"images": ["encode", 0]}},
}


def _systems(folder: Path) -> None:
    systems = {
        "plain": {"workflow": "graph.json", "slots": {"prompt": "prompt.value", "seed": ["seed.value"]}},
        "pack": {"workflow": "graph.json", "output": "plain", "strengths": [1, 2.5],
                 "slots": {"prompt": "prompt.value", "seed": "seed.value", "strength": "amplify.strength"}},
        "alt": {"diffusers": "owner/name", "dtype": "float16", "steps": 25, "guidance": 7.0,
                "treatment": "explicit", "amplify": "sae.safetensors", "mode": "scale"},
        "folder": {"folder": "made"},
    }  # fmt: skip
    (folder / "systems.yaml").write_text(json.dumps({"systems": systems}))
    (folder / "graph.json").write_text(json.dumps(GRAPH))
    (folder / "sae.safetensors").write_bytes(b"x")
    (folder / "made").mkdir()
    (folder / "made" / "metadata.jsonl").write_text("{}")


def _vlm_config(folder: Path) -> None:
    entries = {
        "gemini": {"url": "https://example.org/v1", "model": "g", "key": "k", "requests_per_minute": 60,
                   "timeout": 30.0, "retries": 1, "longest_edge": 512, "options": {"reasoning_effort": "none"},
                   "prices": {"prompt": 0.3, "completion": 2.5, "currency": "USD"}},
        "qwen": {"kind": "local", "folder": "x", "device": "cpu"},
        "siglip": {"kind": "zero-shot", "folder": "x"},
    }  # fmt: skip
    (folder / "models.json").write_text(json.dumps(entries))
    (folder / "models.json").chmod(0o600)


def _user_study(folder: Path) -> None:
    pictures = [
        Picture(f"images/{system}-{code}.png", system, "a house", "en", code, 0)
        for code in list(CULTURES)[:2]
        for system in ("a", "b")
    ]
    study = design_study(pictures, raters=2, questions=1, ratings=1)
    study.write_key(folder / "key.json")
    (ada, first), (bob, second) = study.raters.items()
    answers = [
        {"number": n, "task": q.task, "picture": q.picture, "asked": q.asked, "answer": TASKS[q.task][0],
         "seconds": 1.5}
        for n, q in enumerate(first.questions, start=1)
    ]  # fmt: skip
    head = {"format": "culture-user-study-answers", "version": 1, "study": study.id}
    (folder / "ada.json").write_text(json.dumps({**head, "rater": ada, "language": "en", "answers": answers}))
    rows = [
        f"{study.id},{bob},th,{n},{q.task},{q.picture},{q.asked or ''},{TASKS[q.task][0]},2"
        for n, q in enumerate(second.questions, start=1)
    ]
    header = "study,rater,language,number,task,picture,asked,answer,seconds"
    (folder / "bob.csv").write_text("\n".join([header, *rows, ""]))


# --------------------------------------------------------------------------------------------- text encoders


def _adapter_tensors(width: int) -> dict[str, torch.Tensor]:
    return {
        "layernorm.weight": torch.ones(width), "layernorm.bias": torch.zeros(width),
        "projector.0.weight": torch.ones(6, width), "projector.2.weight": torch.ones(4, 6),
        "fc.weight": torch.ones(5, 4), "fc.bias": torch.zeros(5),
    }  # fmt: skip


def _adapter(folder: Path) -> None:
    save_file(_adapter_tensors(WIDTH), folder / "adapter.safetensors")


def _scaled_adapter(folder: Path) -> None:
    tensors = _adapter_tensors(WIDTH)
    tensors["fc.weight"] = tensors["fc.weight"].to(torch.float8_e4m3fn)
    tensors |= {"fc.scale_weight": torch.ones(1), "scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    save_file(tensors, folder / "adapter.safetensors")


def _bert(folder: Path) -> None:
    """A BERT with a tokenizer.json, and an adapter beside it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "the", "house", "old"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_attention_heads=2, intermediate_size=8, num_hidden_layers=1,
        max_position_embeddings=80,
    )  # fmt: skip
    _save_model(BertModel(config, add_pooling_layer=False), folder)
    save_file(_adapter_tensors(8), folder / "adapter.safetensors")


def _xlm_roberta(folder: Path) -> None:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    _pieces(folder / "sentencepiece.bpe.model", (0, 1, -1, 2))
    config = XLMRobertaConfig(
        vocab_size=32, hidden_size=8, num_attention_heads=2, intermediate_size=8, num_hidden_layers=1,
        max_position_embeddings=84, type_vocab_size=1, pad_token_id=1,
    )  # fmt: skip
    _save_model(XLMRobertaModel(config, add_pooling_layer=False), folder)


def _t5(folder: Path) -> None:
    from transformers import MT5Config, MT5EncoderModel

    _pieces(folder / "spiece.model", (2, -1, 0, 1))
    config = MT5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    _save_model(MT5EncoderModel(config), folder)


def _sharded(folder: Path) -> None:
    from safetensors.torch import load_file

    _bert(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "adapter.safetensors").unlink()
    names = sorted(weights)
    parts = {"one.safetensors": names[:9], "two.safetensors": names[9:]}
    for file, inside in parts.items():
        save_file({name: weights[name] for name in inside}, folder / file)
    index = {"weight_map": {name: file for file, inside in parts.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _save_model(model: torch.nn.Module, folder: Path) -> None:
    save_file(
        {name: weight.clone() for name, weight in model.state_dict().items()}, folder / "model.safetensors"
    )
    kept = ("hidden_size", "num_attention_heads", "vocab_size", "layer_norm_eps", "d_model", "model_type")
    config = {key: value for key, value in model.config.to_dict().items() if key in kept}
    (folder / "config.json").write_text(json.dumps(config))


def _pieces(path: Path, special: tuple[int, int, int, int]) -> None:
    """A SentencePiece model without a normalisation, which would be 200 KB; `special`: unk, bos, pad, eos."""
    import sentencepiece

    made = io.BytesIO()
    unk, bos, pad, eos = special
    texts = iter(["a house", "the old house", "an old hat", "so on and on"] * 20)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts, model_writer=made, vocab_size=18, model_type="unigram", minloglevel=9,
        normalization_rule_name="identity", unk_id=unk, bos_id=bos, pad_id=pad, eos_id=eos, num_threads=1,
    )  # fmt: skip
    path.write_bytes(made.getvalue())


# -------------------------------------------------------------------------------------------------- graphs

_TEXT = {"class_type": "CultureLoadTextEncoder", "inputs": {"folder": "tiny", "adapter": "none"}}
_HOW = {"mode": "inject", "tokens": "content", "words": "house", "encoders": ""}
_WRITTEN = {"filename_prefix": "x/y", "author": "Ada", "licence": "CC0-1.0", "description": "small"}


def _shown(*links: tuple[str, int]) -> dict:
    return {
        f"show{number}": {"class_type": "PreviewAny", "inputs": {"source": list(link)}}
        for number, link in enumerate(links)
    }


def _node(kind: str, **inputs: object) -> dict:
    return {
        "class_type": kind,
        "inputs": {k: list(v) if isinstance(v, tuple) else v for k, v in inputs.items()},
    }


_CLIP, _SAE, _PAIRS, _ENHANCER = ("1", 0), ("2", 0), ("3", 0), ("4", 0)
_LOADERS = {
    "1": _TEXT, "2": _node("CultureLoadSAE", file="good.safetensors"),
    "3": _node("CultureLoadPairs", file="good.jsonl"), "4": _node("CultureLoadEnhancer", file="good.safetensors"),
}  # fmt: skip
GRAPHS = {
    "amplify": {
        "5": _node("CultureAmplifyNeurons", clip=_CLIP, culture_sae=_SAE, culture="ja", strength=2.0, **_HOW),
        "6": _node("CLIPTextEncode", clip=("5", 0), text="a house"), **_shown(("6", 0)),
    },
    "schedule": {
        "5": _node("CultureEncodeSchedule", clip=_CLIP, culture_sae=_SAE, text="a house", culture="ja",
                   schedule="0: 3, 0.5: 0", ramp=2, **_HOW), **_shown(("5", 0)),
    },
    "enhance": {
        "5": _node("CultureApplyEnhancer", clip=_CLIP, culture_enhancer=_ENHANCER, strength=1.0, encoders=""),
        "6": _node("CLIPTextEncode", clip=("5", 0), text="a house"), **_shown(("6", 0)),
        "7": _node("CultureSaveEnhancer", culture_enhancer=_ENHANCER, **_WRITTEN),
    },
    "probe": {
        "5": _node("CultureProbeLayer", clip=_CLIP, culture_pairs=_PAIRS, max_pairs=4, direction="auto",
                   reference="context", encoder="", bootstrap=20, batch_size=2, per_language=False,
                   criterion="auto"), **_shown(("5", 0), ("5", 2)),
    },
    "train": {
        "5": _node("CultureTrainSAE", clip=_CLIP, culture_pairs=_PAIRS, extra_text="the old house", layer=0,
                   feature="hidden_state", latents=8, k=2, steps=2, batch_size=2, learning_rate=1e-3, seed=0,
                   checkpoint="half", encoder="", precision="float32"),
        "6": _node("CultureDetectNeurons", clip=_CLIP, culture_sae=("5", 0), culture_pairs=_PAIRS,
                   contrast="none", count=2, tau=0.9, by_effect=False),
        "7": _node("CultureSaveSAE", culture_sae=("5", 0), **_WRITTEN), **_shown(("5", 2), ("6", 2)),
    },
    "compare": {
        "5": _node("CultureStrengthSweep", start=0.0, stop=1.0, steps=2, values="0, 1", label="x"),
        "6": _node("LoadImage", image="good.png"),
        "7": _node("CultureGrid", images=("6", 0), labels="one", columns=2, title="x"),
        "8": _node("CultureScore", images=("7", 0), culture="Japanese (ja)", judge="miniature"),
        "9": _node("SaveImage", images=("8", 2), filename_prefix="x"), **_shown(("8", 1), ("5", 1)),
    },
    "enhancer": {
        "5": _node("UNETLoader", unet_name="culture_miniature.safetensors", weight_dtype="default"),
        "6": _node("VAELoader", vae_name="culture_miniature_vae.safetensors"),
        "7": _node("CultureTrainEnhancer", model=("5", 0), vae=("6", 0), clip=_CLIP, culture_pairs=_PAIRS,
                   pictures="", layer=0, loss="latent", size=64, bottleneck=0, steps=2, accumulate=1,
                   learning_rate=1e-3, ema=0.0, seed=0, checkpoint="half", encoder="",
                   precision="as loaded", gradient_checkpointing=False), **_shown(("7", 2)),
    },
}  # fmt: skip
"""Every node of the pack, with what it needs."""


def _graph(name: str, folder: Path) -> None:
    graph = GRAPHS[name]
    wanted = {
        link[0] for node in graph.values() for link in node["inputs"].values() if isinstance(link, list)
    }
    loaders = {id_: node for id_, node in _LOADERS.items() if id_ in wanted}
    (folder / "graph.json").write_text(json.dumps(loaders | graph, indent=1))


SEEDS = {
    "culture_sae": {"whole": _sae, "plain": _plain_sae},
    "enhancer": {"whole": _enhancer},
    "foreign_sae": {name: lambda folder, name=name: _foreign(name, folder) for name in LIBRARIES},
    "convert": {"file": _pickle, "parts": _pickled_parts},
    "features": {"whole": _features},
    "pairs": {"whole": _pairs},
    "bench": {"whole": _bench},
    "ingestion": {"whole": _ingestion},
    "answers": {"whole": _answers},
    "pictures": {"whole": _run},
    "foreign_pictures": {"whole": _foreign_pictures},
    "systems": {"whole": _systems},
    "vlm_config": {"whole": _vlm_config},
    "user_study": {"whole": _user_study},
    "adapter": {"whole": _adapter, "scaled": _scaled_adapter},
    "graphs": {name: lambda folder, name=name: _graph(name, folder) for name in GRAPHS},
    "text_encoder": {"bert": _bert, "xlm-roberta": _xlm_roberta, "t5": _t5, "sharded": _sharded},
}

if __name__ == "__main__":
    torch.manual_seed(0)
    write_all()
