"""What commands share."""

import argparse
from pathlib import Path

import pytest
import torch
import transformers
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
)

from culture_core import encoders
from culture_core.commands import common
from culture_core.commands.common import CommandError, new_file, numbers, read_encoder
from culture_core.files import check_encoder, load_culture_sae

from ..conftest import E5_FOLDER, word_tokenizer

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "models" / "culture_sae" / "miniature.safetensors"
CLIP_TEXT = CLIPTextConfig(
    vocab_size=16, hidden_size=32, num_attention_heads=4, intermediate_size=64, num_hidden_layers=2,
    bos_token_id=0, eos_token_id=1, pad_token_id=2,
)  # fmt: skip


def options(folder: Path, **more: object) -> argparse.Namespace:
    return argparse.Namespace(**{"encoder": folder, "max_length": None, "device": "cpu", **more})


def saved(model: torch.nn.Module, folder: Path, **more: object) -> Path:
    model.save_pretrained(folder, **more)
    word_tokenizer("<s>", "</s>", "<pad>").save_pretrained(folder)
    return folder


def test_the_features_of_help_are_those_of_the_library():
    assert common.FEATURES == encoders.FEATURES


def test_the_shipped_encoder_is_the_one_that_the_shipped_sae_was_made_for(e5):
    encoder = read_encoder(options(E5_FOLDER))
    assert encoder.fingerprint() == e5.fingerprint()
    assert check_encoder(load_culture_sae(SHIPPED).encoder, encoder.fingerprint())
    assert encoder.max_length == e5.max_length == 32
    texts = ["เก้าอี้ไม้", "a red chair"]
    found, wanted = (each.encode(each.tokenize(texts)).hidden for each in (encoder, e5))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_text_encoder_is_read_with_its_own_weights(tmp_path):
    model = CLIPTextModel(CLIP_TEXT)
    encoder = read_encoder(options(saved(model, tmp_path), max_length=10))
    with pytest.raises(CommandError, match="--device abacus cannot be used here"):
        read_encoder(options(tmp_path, device="abacus"))
    with pytest.raises(CommandError, match="--device abacus cannot be used here"):
        read_encoder(options(tmp_path, device="abacus"))
    assert encoder.max_length == 10 and encoder.info.family == "clip"
    assert torch.equal(encoder.embedding_weight(), model.text_model.embeddings.token_embedding.weight)


def test_of_a_whole_clip_the_text_half_is_read(tmp_path):
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32
    )
    model = CLIPModel(CLIPConfig(text_config=CLIP_TEXT.to_dict(), vision_config=vision.to_dict()))
    encoder = read_encoder(options(saved(model, tmp_path)))
    assert torch.equal(encoder.embedding_weight(), model.text_model.embeddings.token_embedding.weight)


SMALL = {"vocab_size": 16, "num_layers": 1, "num_heads": 2, "d_model": 8, "d_kv": 4, "d_ff": 8}
SMALL_CAUSAL = {
    "vocab_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "hidden_size": 8, "intermediate_size": 8, "head_dim": 4, "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("saved_as", "read_as", "config"),
    [
        ("T5ForConditionalGeneration", "T5EncoderModel", transformers.T5Config(**SMALL)),
        ("T5EncoderModel", "T5EncoderModel", transformers.T5Config(**SMALL)),
        ("UMT5Model", "UMT5EncoderModel", transformers.UMT5Config(**SMALL)),
        ("LlamaForCausalLM", "LlamaModel", transformers.LlamaConfig(**SMALL_CAUSAL)),
        ("Qwen3ForCausalLM", "Qwen3Model", transformers.Qwen3Config(**SMALL_CAUSAL)),
        ("Gemma3ForCausalLM", "Gemma3TextModel", transformers.Gemma3TextConfig(**SMALL_CAUSAL)),
        ("Gemma3TextModel", "Gemma3TextModel", transformers.Gemma3TextConfig(**SMALL_CAUSAL)),
        ("CLIPTextModelWithProjection", "CLIPTextModelWithProjection", CLIP_TEXT),
        ("BertForMaskedLM", "BertModel", BertConfig(**SMALL_CAUSAL)),
    ],
)
def test_of_any_model_the_text_encoder_is_read_with_all_its_weights(tmp_path, saved_as, read_as, config):
    model = getattr(transformers, saved_as)(config)
    found, _ = common._load(saved(model, tmp_path))
    assert type(found).__name__ == read_as
    assert torch.equal(found.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_a_folder_that_is_no_text_encoder_is_named(tmp_path):
    with pytest.raises(CommandError, match="nowhere is no Hugging Face folder"):
        read_encoder(options(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("nonsense")
    with pytest.raises(CommandError, match="cannot be loaded"):
        read_encoder(options(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CommandError, match="cannot be loaded"):
        read_encoder(options(tmp_path))


def test_weights_that_are_missing_or_pickled_are_not_made_up(tmp_path):
    config = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 16}
    small = BertModel(BertConfig(num_hidden_layers=1, **config))
    saved(small, tmp_path / "small")
    BertConfig(num_hidden_layers=2, **config).save_pretrained(tmp_path / "small")
    with pytest.raises(CommandError, match=r"lacks weights of its text encoder: encoder\.layer\.1"):
        read_encoder(options(tmp_path / "small"))
    (tmp_path / "small" / "model.safetensors").unlink()
    torch.save(small.state_dict(), tmp_path / "small" / "pytorch_model.bin")
    with pytest.raises(CommandError, match="cannot be loaded"):
        read_encoder(options(tmp_path / "small"))


def test_files_and_folders_are_not_taken_for_granted(tmp_path):
    (tmp_path / "there").touch()
    with pytest.raises(CommandError, match="there is there already.*--overwrite"):
        new_file(tmp_path / "there", overwrite=False)
    assert new_file(tmp_path / "there", overwrite=True) == tmp_path / "there"
    with pytest.raises(CommandError, match="make it first"):
        new_file(tmp_path / "no" / "file", overwrite=True)


def test_what_is_not_finite_becomes_null():
    assert numbers(torch.tensor([[1.0, torch.inf], [torch.nan, -2.5]])) == [[1.0, None], [None, -2.5]]
