"""Models that put pictures and texts into one space: CLIP, SigLIP, SigLIP 2, AltCLIP, Chinese CLIP."""

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .vlm.images import prepared

LONGEST_EDGE = 1024
"""Larger pictures are scaled down first; no such model sees as much."""


class DualEncoder:
    """A picture's and a text's direction, through transformers. No code of the model's folder is run.

    Two habits of the families matter for the figures: SigLIP was trained on lower-case texts that are padded
    to their full length, and pools the last place, so that both is done here as well; the others mask what is
    padded.
    """

    def __init__(self, model: Path | str, device: str = "cpu", download: bool = False) -> None:
        """
        Args:
            model: a Hugging Face folder, or a name on its hub that has been downloaded before.
            download: fetch a model that is not there from the hub.

        Raises:
            ValueError: for one that is missing, holds no such model, or is not in safetensors.
        """
        import transformers

        folder = model if isinstance(model, Path) else _snapshot(model, download)
        if not (folder / "config.json").is_file():
            raise ValueError(f"{model} is no Hugging Face folder: it has no config.json")
        try:
            options = {"local_files_only": True, "trust_remote_code": False}
            self._processor = transformers.AutoProcessor.from_pretrained(folder, **options)
            loaded, found = transformers.AutoModel.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **options
            )
            self._model = loaded.to(device).eval().requires_grad_(False)
            self.scale = float(loaded.logit_scale.exp())
            self.longest = self._longest()
        except Exception as error:  # transformers raises a dozen kinds for a damaged folder
            raise ValueError(f"{model} cannot be loaded as a CLIP or SigLIP: {error}") from error
        # Without a warning, transformers makes up what is missing. No model here uses a pooler of BERT's.
        if missing := sorted(key for key in found["missing_keys"] if ".pooler." not in key):
            raise ValueError(f"{model} lacks weights: {', '.join(missing[:3])} …")
        # Checks of length are made here, on purpose, and reported once.
        logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)
        self.name = model.name if isinstance(model, Path) else model
        self._folder = folder

    @cached_property
    def sha256(self) -> str:
        """Of the weights: two models of one name may differ."""
        found = hashlib.sha256()
        for path in sorted(self._folder.glob("*.safetensors")):
            with open(path, "rb") as file:
                while block := file.read(1 << 24):
                    found.update(block)
        return found.hexdigest()

    @property
    def _siglip(self) -> bool:
        return self._model.config.model_type.startswith("siglip")

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Directions of N pictures, [N, d] of length 1."""
        shown = [prepared(image, LONGEST_EDGE) for image in images]
        inputs = self._processor(images=shown, return_tensors="pt").to(self._model.device)
        return _unit(_features(self._model.get_image_features(**inputs)))

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Directions of N texts, [N, d] of length 1. What is longer than the model reads is cut off."""
        inputs = self._processor(
            text=self._written(texts), padding="max_length" if self._siglip else True, truncation=True,
            max_length=self.longest, return_tensors="pt",
        ).to(self._model.device)  # fmt: skip
        if self._model.config.model_type == "chinese_clip":
            # Its get_text_features asks for a pooler that the model lacks (transformers 4.57).
            hidden = self._model.text_model(**inputs)[0]  # [N, tokens, d]
            return _unit(self._model.text_projection(hidden[:, 0]).float().cpu())
        return _unit(_features(self._model.get_text_features(**inputs)))

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Which texts have more tokens than the model reads."""
        tokens = self._processor.tokenizer(self._written(texts), truncation=False)["input_ids"]
        return [len(own) > self.longest for own in tokens]

    def _written(self, texts: Sequence[str]) -> list[str]:
        return [text.lower() if self._siglip else text for text in texts]

    def _longest(self) -> int:
        """Tokens of the longest text that the model and its tokenizer take."""
        text = self._model.config.text_config
        # AltCLIP's text model is an XLM-RoBERTa: its places are counted from behind the padding's number.
        first = text.pad_token_id + 1 if self._model.config.model_type == "altclip" else 0
        return min(text.max_position_embeddings - first, self._processor.tokenizer.model_max_length)


def _snapshot(name: str, download: bool) -> Path:
    """The folder of a model of the hub. Here and not in transformers, which asks the hub in any case."""
    from huggingface_hub import snapshot_download

    files = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        return Path(snapshot_download(name, allow_patterns=files, local_files_only=not download))
    except Exception as error:  # of the hub's client: of the network, of the name, of the disk
        if download:
            raise ValueError(f"{name} could not be downloaded: {error}") from error
        raise ValueError(
            f"the model {name} is not on this machine: allow its download, or give the folder of a model"
        ) from error


def _features(found: Any) -> Tensor:
    """[n, d]; later versions of transformers return them inside an output object."""
    return (found if isinstance(found, Tensor) else found.pooler_output).float().cpu()


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)
