"""A Qwen3-VL of random weights in a folder, with a tokenizer and a processor of its own."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
           "<|image_pad|>", "<|video_pad|>"]  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _tokenizer() -> transformers.PreTrainedTokenizerBase:
    whole = Tokenizer(models.BPE())
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    whole.train_from_iterator(
        ["Thai Dutch German unrecognisable"] * 3,
        BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=letters),
    )
    return transformers.Qwen2TokenizerFast(
        tokenizer_object=whole, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE,
        additional_special_tokens=SPECIAL,
    )  # fmt: skip


def save_qwen3_vl(folder: Path) -> Path:
    tokenizer = _tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    config = transformers.Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
            "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
            "deepstack_visual_indexes": [0], "num_position_embeddings": 64,
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Qwen3VLForConditionalGeneration(config).eval()
    # As initialised, every token is as likely as any other; larger weights give it preferences.
    for parameter in model.parameters():
        parameter.data.mul_(6)
    model.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    model.save_pretrained(folder)
    patches = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessorFast(
            size={"shortest_edge": 32**2, "longest_edge": 64**2}, **patches
        ),
        tokenizer,
        transformers.Qwen3VLVideoProcessor(**patches),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder
