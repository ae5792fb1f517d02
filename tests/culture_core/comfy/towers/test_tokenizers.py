"""A tower's tokens are those of the tokenizer that it was published with, in the 15 languages."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import folder_paths
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from culture_core.comfy import TextEncoderError, load_text_encoder
from culture_core.comfy.towers import Published, Tower, find_tokenizer
from culture_core.comfy.towers.modules import XlmRobertaTower

E5_FOLDER = Path(__file__).parents[4] / "models" / "text_encoders" / "multilingual-e5-small"
Publish = Callable[..., Path]


def rows(clip: object, text: str) -> list[list[int]]:
    (found,) = clip.tokenize(text, disable_weights=True).values()
    return [[entry[0] for entry in row] for row in found]


def texts_of(sentences: ModuleType) -> list[str]:
    return [text for texts in sentences.by_language().values() for text in texts[::5]]


def large(folder: Path) -> Tower:
    """Stands for any tower with XLM-R's vocabulary."""
    return Tower("xlm_roberta", XlmRobertaTower, {"vocab_size": 250002}, {})


@pytest.mark.filterwarnings("ignore:.*byte fallback")
def test_xlm_rs_sentencepiece_gives_the_reference_tokenizers_ids(
    publish: Publish, sentences: ModuleType
) -> None:
    """As AltDiffusionPipeline calls it: 77 tokens, padded."""
    folder = publish("altdiffusion_m9")
    clip = load_text_encoder(folder)
    slow = transformers.XLMRobertaTokenizer(str(folder / "sentencepiece.bpe.model"))
    fast = transformers.XLMRobertaTokenizerFast(str(folder / "sentencepiece.bpe.model"))
    for text in texts_of(sentences):
        for reference in (slow, fast):
            options = {"padding": "max_length", "max_length": 77, "truncation": True}
            assert rows(clip, text) == [reference(text, **options)["input_ids"]], text
    assert find_vocabulary(folder) == slow.get_vocab()


def find_vocabulary(folder: Path) -> dict[str, int]:
    published = Published(folder, {}, {}, (folder,))
    tower = Tower("xlm_roberta", XlmRobertaTower, {"vocab_size": 1000}, {})
    return find_tokenizer(published, tower).tokenizer.get_vocab()


def test_the_real_vocabulary_gives_the_reference_tokenizers_ids(
    publish: Publish, sentences: ModuleType, tmp_path: Path
) -> None:
    """The examples' encoder has XLM-R's; a tokenizer.json is read by the reference's own library."""
    found = find_tokenizer(Published(E5_FOLDER, {}, {}, (E5_FOLDER,)), large(E5_FOLDER))
    reference = transformers.XLMRobertaTokenizerFast(tokenizer_file=str(E5_FOLDER / "tokenizer.json"))
    for text in [*texts_of(sentences), *sentences.HARD]:
        assert found.tokenizer(text)["input_ids"] == reference(text)["input_ids"], text
    assert (found.start, found.end, found.pad) == (0, 2, 1)


@pytest.mark.parametrize("kind", ["mt5", "siglip2"])
def test_sentencepiece_of_t5_and_siglip_ends_with_its_end_token(
    kind: str, publish: Publish, sentences: ModuleType
) -> None:
    folder = publish(kind)
    clip = load_text_encoder(folder)
    length = 64 if kind == "siglip2" else 77
    reference = transformers.T5Tokenizer(str(folder / "spiece.model"), extra_ids=0, legacy=False)
    for text in texts_of(sentences):
        trained = text.lower() if kind == "siglip2" else text  # as transformers' Siglip2Tokenizer does
        wanted = reference(trained, padding="max_length", max_length=length, truncation=True)["input_ids"]
        assert rows(clip, text) == [wanted], text


def test_a_bert_of_its_own_vocabulary_gives_the_reference_tokenizers_ids(
    publish: Publish, sentences: ModuleType, tmp_path: Path
) -> None:
    folder = publish("bert")
    (folder / "sentencepiece.bpe.model").unlink()
    letters = sorted(set("".join(sentences.all_sentences())) - {" "})[:400]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    reference = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"), do_lower_case=False)
    reference.save_pretrained(folder)
    clip = load_text_encoder(folder)
    assert [*clip.tokenize("a")] == ["bert"]
    for text in texts_of(sentences):
        wanted = reference(text)["input_ids"]
        if len(wanted) <= 32:
            assert rows(clip, text) == [wanted + [0] * (32 - len(wanted))], text


def test_a_broken_vocabulary_is_named(publish: Publish) -> None:
    folder = publish("altclip")
    (folder / "sentencepiece.bpe.model").write_bytes(b"nothing")
    with pytest.raises(TextEncoderError, match=r"bpe\.model holds no SentencePiece model"):
        load_text_encoder(folder)


@pytest.mark.filterwarnings("ignore:.*byte fallback")
def test_siglips_tokenizer_json_is_framed_once(publish: Publish, sentences: ModuleType) -> None:
    """Whether or not it puts an end token itself."""
    folder = publish("siglip2")
    reference = transformers.T5TokenizerFast(str(folder / "spiece.model"), extra_ids=0, legacy=False)
    reference.save_pretrained(folder)
    (folder / "spiece.model").unlink()
    clip = load_text_encoder(folder)
    for text in texts_of(sentences):
        wanted = reference(text.lower(), padding="max_length", max_length=64, truncation=True)["input_ids"]
        assert rows(clip, text) == [wanted] and wanted.count(1) == 1
    (folder / "tokenizer.json").write_bytes(b"{")
    with pytest.raises(TextEncoderError, match="no readable tokenizer"):
        load_text_encoder(folder)


def test_a_single_file_borrows_xlm_rs_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tower.safetensors"
    published = Published(file, {}, {}, (tmp_path / "tower",))
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda _: [str(tmp_path)])
    with pytest.raises(TextEncoderError, match=r"no tokenizer: put its tokenizer\.json .*tower"):
        find_tokenizer(published, large(file))
    (tmp_path / "another").symlink_to(E5_FOLDER)
    assert find_tokenizer(published, large(file)).tokenizer("a house")["input_ids"][0] == 0
    other = Tower("xlm_roberta", XlmRobertaTower, {"vocab_size": 32000}, {})
    with pytest.raises(TextEncoderError, match="no tokenizer"):
        find_tokenizer(published, other)


def test_a_single_file_takes_the_tokenizer_of_the_folder_beside_it(publish: Publish, tmp_path: Path) -> None:
    folder = publish("altclip")
    (folder / "model.safetensors").rename(tmp_path / "altclip.safetensors")
    assert rows(load_text_encoder(tmp_path / "altclip.safetensors"), "a house")[0][0] == 0


def test_another_models_tokenizer_is_refused(publish: Publish) -> None:
    folder = publish("altclip")
    weights = load_file(folder / "model.safetensors")
    words = "roberta.embeddings.word_embeddings.weight"
    save_file(weights | {words: weights[words][:500].clone()}, folder / "model.safetensors")
    (folder / "config.json").unlink()
    with pytest.raises(TextEncoderError, match="but the weights only 500: it is another model's"):
        load_text_encoder(folder)


def test_a_tokenizer_without_a_frame_is_refused(publish: Publish) -> None:
    folder = publish("mt5")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(E5_FOLDER / "tokenizer.json"), unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    large_words = torch.zeros(250002, 128)
    save_file(weights | {"shared.weight": large_words}, folder / "model.safetensors")
    (folder / "config.json").unlink()
    with pytest.raises(TextEncoderError, match=r"gives \[0, 2\] for an empty text .*another model's"):
        load_text_encoder(folder)
