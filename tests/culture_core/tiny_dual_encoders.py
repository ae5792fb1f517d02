"""CLIP, AltCLIP, Chinese CLIP, SigLIP and SigLIP 2 of random weights, with real processors."""

from collections.abc import Iterable
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

FAMILIES = ("clip", "altclip", "chinese_clip", "siglip", "siglip2")
LONGEST = 16
_SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_BERT_PADDING = 1


def save_dual_encoder(family: str, path: Path, texts: Iterable[str]) -> Path:
    """A folder of a model that knows the words of these texts, in lower case as well."""
    words = _tokenizer(family, texts)
    text = {**_SIZES, "vocab_size": len(words), "max_position_embeddings": LONGEST, "projection_size": 32,
            "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0}  # fmt: skip
    vision = {**_SIZES, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    if family in ("clip", "altclip", "chinese_clip"):
        pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
        processor = transformers.CLIPProcessor(pictures, words)
    if family == "clip":
        model = transformers.CLIPModel(transformers.CLIPConfig(text, vision, projection_dim=16))
    elif family == "altclip":
        text |= {"project_dim": 16, "max_position_embeddings": LONGEST + 1 + _BERT_PADDING}
        model = transformers.AltCLIPModel(transformers.AltCLIPConfig(text, vision, projection_dim=16))
        processor = transformers.AltCLIPProcessor(pictures, words)
    elif family == "chinese_clip":
        model = transformers.ChineseCLIPModel(transformers.ChineseCLIPConfig(text, vision, projection_dim=16))
        pictures = transformers.ChineseCLIPImageProcessor(
            size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}
        )
        processor = transformers.ChineseCLIPProcessor(pictures, words)
    elif family == "siglip2":  # the variant that keeps a picture's proportions
        vision = {**_SIZES, "num_patches": 16, "patch_size": 16}
        model = transformers.Siglip2Model(transformers.Siglip2Config(text, vision))
        pictures = transformers.Siglip2ImageProcessor(patch_size=16, max_num_patches=16)
        processor = transformers.Siglip2Processor(pictures, words)
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(text, vision))
        pictures = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
        processor = transformers.SiglipProcessor(pictures, words)
    for name, parameter in model.named_parameters():  # as initialised, all texts are nearly the same
        if "embedding" in name:
            parameter.data.mul_(30)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def _tokenizer(family: str, texts: Iterable[str]) -> transformers.PreTrainedTokenizerFast:
    """Of whole words, in the class that the family's processor wants."""
    words = sorted({word for text in texts for word in [*text.split(), *text.lower().split()]})
    table = {word: index for index, word in enumerate(["<unk>", "<pad>", "<eos>", *words])}
    whole = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 2)])
    names = {"altclip": "XLMRobertaTokenizerFast", "chinese_clip": "BertTokenizerFast"}
    kind, case = getattr(transformers, names.get(family, "PreTrainedTokenizerFast")), {}
    if family == "chinese_clip":
        whole.normalizer, case = normalizers.BertNormalizer(lowercase=False), {"do_lower_case": False}
    return kind(
        tokenizer_object=whole, **case, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>",
        model_max_length=LONGEST, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
