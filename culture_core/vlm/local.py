"""A vision-language model on this machine: Qwen3-VL, or any other that transformers can chat with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .base import Reply, VLMError
from .images import prepared


class LocalVLM:
    """A Hugging Face folder, answering greedily. Nothing is downloaded, no code of the folder is run."""

    def __init__(
        self, folder: Path, device: str = "cpu", dtype: str = "auto", longest_edge: int = 1024
    ) -> None:
        """
        Args:
            dtype: `auto` for that of the files, or `float32`, `bfloat16`, `float16`.
            longest_edge: larger pictures are scaled down to this many pixels.

        Raises:
            VLMError: for a folder that is missing or holds no such model.
        """
        import transformers

        if not (folder / "config.json").is_file():
            raise VLMError(f"{folder} is no Hugging Face folder: it has no config.json")
        try:
            self._processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
            model = transformers.AutoModelForImageTextToText.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=dtype
            )
            self._model = model.to(device).eval().requires_grad_(False)
        except Exception as error:  # transformers raises a dozen kinds for a damaged folder
            raise VLMError(f"{folder} cannot be loaded as a vision-language model: {error}") from error
        self.name = folder.name
        self._longest_edge = longest_edge

    @torch.no_grad()
    def ask(
        self,
        question: str,
        image: Image.Image | None = None,
        *,
        choices: Sequence[str] | None = None,
        max_tokens: int = 256,
    ) -> Reply:
        """See `base.VLM.ask`. Of choices it always gives one: no other token is open to it."""
        content: list[dict[str, Any]] = [{"type": "text", "text": question}]
        if image is not None:
            content.insert(0, {"type": "image", "image": prepared(image, self._longest_edge)})
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt",
        ).to(self._model.device)  # fmt: skip
        asked = inputs["input_ids"].shape[1]
        held = self._held_to(choices, asked) if choices else None
        longest = max(map(len, held.answers)) if held else max_tokens
        written = self._model.generate(
            **inputs, max_new_tokens=longest, do_sample=False, prefix_allowed_tokens_fn=held
        )
        text = self._processor.batch_decode(written[:, asked:], skip_special_tokens=True)[0].strip()
        if not text:
            raise VLMError(f"{self.name}: the answer is empty")
        return Reply(text, self.name, cached=False, cost=0.0)

    def _held_to(self, choices: Sequence[str], asked: int) -> "_HeldTo":
        ends = self._model.generation_config.eos_token_id
        ends = ends[0] if isinstance(ends, list) else ends
        if ends is None:
            raise VLMError(
                f"{self.name} says not how an answer ends: its generation_config has no eos_token_id"
            )
        tokenizer = self._processor.tokenizer
        answers = [tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in choices]
        return _HeldTo([[*answer, ends] for answer in answers], asked)


class _HeldTo:
    """For `generate`: which tokens may come next so that the whole becomes one of the answers."""

    __slots__ = ("answers", "asked")

    def __init__(self, answers: list[list[int]], asked: int) -> None:
        self.answers, self.asked = answers, asked

    def __call__(self, batch: int, tokens: Tensor) -> list[int]:
        written = tokens[self.asked :].tolist()
        count = len(written)
        going = [answer for answer in self.answers if answer[:count] == written and len(answer) > count]
        # After the end, transformers pads; what is allowed there does not matter, but may not be nothing.
        return sorted({answer[count] for answer in going}) or [self.answers[0][-1]]
