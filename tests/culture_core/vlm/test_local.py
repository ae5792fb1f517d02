"""Qwen3-VL through transformers, tiny and of random weights."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from culture_core.vlm import VLM, VLMError
from culture_core.vlm.local import LocalVLM

LABELS = ("Thai", "Dutch", "Du", "unrecognisable")


@pytest.fixture(scope="module")
def vlm(qwen3_vl) -> LocalVLM:
    return LocalVLM(qwen3_vl)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def test_a_free_answer_is_the_models_greedy_one(vlm, qwen3_vl):
    reply = vlm.ask("What is it?", picture(0), max_tokens=5)
    assert isinstance(vlm, VLM) and (reply.model, reply.cached, reply.cost) == ("tiny-qwen3-vl", False, 0.0)
    model = transformers.Qwen3VLForConditionalGeneration.from_pretrained(qwen3_vl).eval()
    processor = transformers.AutoProcessor.from_pretrained(qwen3_vl)
    text = (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is it?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    inputs = processor(text=[text], images=[picture(0)], return_tensors="pt")
    tokens = inputs.pop("input_ids")
    asked = tokens.shape[1]
    with torch.no_grad():
        for _ in range(5):
            whole = {**inputs, "attention_mask": torch.ones_like(tokens)}
            tokens = torch.cat((tokens, model(input_ids=tokens, **whole).logits[:, -1:].argmax(-1)), 1)
    assert reply.text == processor.decode(tokens[0, asked:], skip_special_tokens=True).strip() != ""


def test_the_picture_is_seen(vlm):
    answers = {vlm.ask("What is it?", picture(seed), max_tokens=8).text for seed in range(4)}
    assert len(answers) > 1


def test_of_choices_it_gives_one_also_where_one_begins_another(vlm):
    texts = [vlm.ask(f"Which? {i}", picture(i), choices=LABELS).text for i in range(12)]
    assert set(texts) <= set(LABELS) and len(set(texts)) > 1
    assert vlm.ask("Which?", choices=["Dutch"]).text == "Dutch"


def test_the_choice_is_what_the_model_prefers_token_by_token(vlm):
    # Choices of one token each: then the preferred one is that of the largest logit.
    tokenizer = vlm._processor.tokenizer
    letters = [letter for letter in "ABCDEFGH" if len(tokenizer(letter)["input_ids"]) == 1]
    ids = [tokenizer(letter)["input_ids"][0] for letter in letters]
    message = [{"role": "user", "content": [{"type": "text", "text": "Which?"}]}]
    inputs = vlm._processor.apply_chat_template(
        message, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        logits = vlm._model(**inputs).logits[0, -1]
    assert vlm.ask("Which?", choices=letters).text == letters[int(logits[ids].argmax())]


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(VLMError, match="no Hugging Face folder"):
        LocalVLM(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(VLMError, match="cannot be loaded"):
        LocalVLM(tmp_path)
