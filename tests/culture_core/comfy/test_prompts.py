"""Pieces of a prompt and the tokens that they become, in every kind of tokenizer that ComfyUI has."""

import functools
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from comfy.sd import CLIP
from safetensors.torch import save_file

from culture_core.comfy import PromptTracer, TextEncoderError, choose_encoders, load_text_encoder, patch_clip
from culture_core.selection import SpecialTokens, TokenSelection, content_positions, select_positions

E5_FOLDER = Path(__file__).parents[3] / "models" / "text_encoders" / "multilingual-e5-small"
KINDS = {
    "CLIP's byte pairs, slow": ("sd1", "clip_l"),
    "T5's SentencePiece, fast": ("flux", "t5xxl"),
    "BERT's WordPiece": ("hunyuan_dit", "hydit_clip"),
    "mT5's SentencePiece": ("hunyuan_dit", "mt5xl"),
    "Gemma's SentencePiece": ("lumina2", "gemma2_2b"),
    "Qwen's byte level, cut template": ("qwen_image", "qwen25_7b"),
    "Qwen's byte level, template kept, weights": ("omnigen2", "qwen25_3b"),
    "Llama's byte level, fast": ("hunyuan_video", "llama"),
    "Tekken": ("flux2", "mistral3_24b"),
    "XLM-R's SentencePiece, fast": ("e5", "multilingual_e5"),
    "XLM-R's SentencePiece, slow": ("altdiffusion_m18", "xlm_roberta"),
    "SigLIP's SentencePiece, without begin": ("siglip2", "siglip"),
}
LITERAL_WEIGHTS = ("qwen_image", "flux2")
"""Whose prompts have no weight syntax."""
LOSSY = ("sd1", "hunyuan_dit", "flux", "e5")
"""Whose tokenizers leave characters out, or have one token for all that they do not know."""


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def tracer(request: pytest.FixtureRequest, clips: Callable[[str], CLIP]) -> "Traced":
    family, key = request.param
    clip = e5_clip() if family == "e5" else clips(family)
    return Traced(family, key, clip, PromptTracer(clip, key))


@functools.cache
def e5_clip() -> CLIP:
    return load_text_encoder(E5_FOLDER)


class Traced(NamedTuple):
    family: str
    key: str
    clip: CLIP
    tracer: PromptTracer

    def rows(self, text: str) -> list[list[tuple]]:
        """What `CLIP.tokenize` itself gives."""
        tokens = self.clip.tokenize(text)
        return tokens.get(self.key, tokens.get(self.key.removeprefix("clip_")))


def folded(text: str) -> str:
    """Letters alone, without case, accents, compatibility forms, and the sign that escapes brackets."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    plain = plain.replace("\\", "")
    return "".join(c for c in plain if not c.isspace() and unicodedata.category(c) not in ("Mn", "Cf", "Cc"))


def random_prompts(sentences: object, count: int) -> list[str]:
    """Pieces of sentences in all languages and of awkward text, with everything that has a meaning to
    ComfyUI."""
    generator = random.Random(7)
    languages = list(sentences.by_language().values())
    prompts = []
    for number in range(count):
        pieces = [generator.choice(generator.choice(languages)), generator.choice(languages[number % 15])]
        pieces += [generator.choice(sentences.HARD), *sentences.random_texts(1, number)]
        generator.shuffle(pieces)
        for place in range(len(pieces)):
            form = generator.choice(["{}", "{}", "({}:1.3)", "(({}))", "\\({}\\)", "({}", "{})", "{}\n"])
            pieces[place] = form.format(pieces[place])
        prompts.append(generator.choice([" ", "", ", "]).join(pieces))
    return prompts


# ---------------------------------------------------------------------------------------------- properties


def test_ids_are_those_of_clip_tokenize(tracer: Traced, sentences: object) -> None:
    for text in random_prompts(sentences, 90):
        assert tracer.tracer.trace(text).rows == [[t for t, *_ in row] for row in tracer.rows(text)], text


def test_every_token_spells_what_it_is_said_to_stand_for(tracer: Traced, sentences: object) -> None:
    checked = 0
    for text in random_prompts(sentences, 90):
        traced = tracer.tracer.trace(text)
        assert traced.offsets is not None, text
        for row, offsets in zip(traced.rows, traced.offsets, strict=True):
            for token, span in zip(row, offsets, strict=True):
                if span is None:
                    continue
                piece = text[slice(*span)]
                assert 0 <= span[0] < span[1] <= len(text) and piece.strip() == piece
                # Without the bytes of characters that are cut apart.
                spelled = folded(tracer.tracer.vocabulary.spell(token).decode(errors="ignore"))
                if spelled and "unk" not in spelled:
                    assert spelled in folded(piece), (text, span, spelled)
                    checked += 1
    assert checked > 2000


def test_tokens_come_in_the_order_of_the_text_and_leave_nothing_out(
    tracer: Traced, sentences: object
) -> None:
    for language, texts in sentences.by_language().items():
        for text in texts[::7]:
            traced = tracer.tracer.trace(text)
            spans = [span for row in traced.offsets for span in row if span is not None]
            assert spans == sorted(spans), text
            covered = {index for start, end in spans for index in range(start, end)}
            missing = [c for index, c in enumerate(text) if index not in covered and folded(c)]
            assert not missing or tracer.family in LOSSY, (language, text, missing)
            assert len(missing) <= len(text) / 3, (language, text, missing)


def test_weighted_pieces_are_found_where_their_weight_is(tracer: Traced, sentences: object) -> None:
    if tracer.family in LITERAL_WEIGHTS:
        pytest.skip("this model takes brackets literally")
    generator = random.Random(3)
    languages = list(sentences.by_language().values())
    for number in range(60):
        texts = [generator.choice(languages[(number + shift) % 15]) for shift in range(3)]
        texts = [text.replace(":", "").replace("(", "").replace(")", "") for text in texts]
        weights = [1.0, 1.3, 0.7]
        prompt = f"{texts[0]} ({texts[1]}:1.3) \\(({texts[2]}:0.7)\\)"
        starts = [0, len(texts[0]) + 2, len(prompt) - len(texts[2]) - 7]
        traced, rows = tracer.tracer.trace(prompt), tracer.rows(prompt)
        for text, weight, start in zip(texts, weights, starts, strict=True):
            assert prompt[start : start + len(text)] == text
            found = [
                entry[1]
                for row, offsets in zip(rows, traced.offsets, strict=True)
                for entry, span in zip(row, offsets, strict=True)
                if span is not None and start <= span[0] and span[1] <= start + len(text)
            ]
            assert found and set(found) == {weight}, (prompt, text, found)


def test_content_told_from_the_ids_alone_is_the_same(tracer: Traced, sentences: object) -> None:
    """What a patch does while the encoder runs, where it sees ids only."""
    encoder = next(m for n, m in tracer.clip.cond_stage_model.named_modules() if n == tracer.key)
    known = encoder.special_tokens
    special = SpecialTokens(
        known.get("start"), known.get("end"), known.get("pad"), *tracer.tracer.template_ids()
    )
    for texts in sentences.by_language().values():
        for text in texts[::11]:
            traced = tracer.tracer.trace(text)
            found = [content_positions(row, special) for row in traced.rows]
            assert found == traced.content, text


def test_an_empty_prompt_has_no_content(tracer: Traced) -> None:
    traced = tracer.tracer.trace("")
    assert not any(any(row) for row in traced.content)


def test_literal_prompts_keep_their_brackets(tracer: Traced) -> None:
    text = "a (red:1.3) house"
    offsets = tracer.tracer.trace(text, literal=True).offsets
    covered = {index for row in offsets for span in row if span for index in range(*span)}
    assert covered == {index for index, char in enumerate(text) if char != " "}


# ------------------------------------------------------------------------------------------- special cases


@pytest.fixture
def with_embedding(tmp_path: Path, clips: Callable[[str], CLIP]) -> PromptTracer:
    """CLIP-L with the textual inversion `style` of two vectors."""
    save_file({"emb_params": torch.randn(2, 768)}, tmp_path / "style.safetensors")
    clip = clips("sd1").clone()
    tracer = PromptTracer(clip, "clip_l")
    tracer.tokenizer.embedding_directory = [str(tmp_path)]
    return tracer


def test_an_embeddings_vectors_stand_for_its_name(with_embedding: PromptTracer) -> None:
    text = "a house embedding:style, at sea embedding:absent old embedding:style"
    traced = with_embedding.trace(text)
    row, offsets = traced.rows[0], traced.offsets[0]
    vectors = [offsets[i] for i, token in enumerate(row) if torch.is_tensor(token)]
    named = [text.index("embedding:style"), text.rindex("embedding:style")]
    assert [span[0] for span in vectors] == [named[0], named[0], named[1], named[1]]
    words = {text[slice(*span)] for i, span in enumerate(offsets) if span and not torch.is_tensor(row[i])}
    assert {"a", "house", "sea", "old"} <= words
    assert all(traced.content[0][i] for i, token in enumerate(row) if torch.is_tensor(token))


def test_a_long_prompt_goes_on_in_the_next_chunk(clips: Callable[[str], CLIP]) -> None:
    text = " ".join(f"word{number}" for number in range(60)) + " (temple:1.2)"
    traced = PromptTracer(clips("sd1"), "clip_l").trace(text)
    assert len(traced.rows) > 1
    start = text.index("temple")
    assert (start, start + 6) in traced.offsets[-1]


def test_a_template_that_is_cut_off_later_is_no_content(clips: Callable[[str], CLIP]) -> None:
    for family in ("qwen_image", "z_image", "hunyuan_video", "flux2"):
        clip = clips(family)
        tracer = PromptTracer(clip, choose_encoders(clip)[0])
        before, after = tracer.template
        assert before and after
        # The template has the words user and the; the prompt's own are meant.
        text = "the user of the house"
        traced = tracer.trace(text)
        spans = [span for span in traced.offsets[0] if span]
        assert "".join(text[slice(*span)] for span in spans) == text.replace(" ", "")
        assert sum(traced.content[0]) == len(spans)


def test_a_line_break_that_melts_into_the_template_is_content(clips: Callable[[str], CLIP]) -> None:
    clip = clips("z_image")
    tracer = PromptTracer(clip, "qwen3_4b")
    known = clip.cond_stage_model.qwen3_4b.special_tokens
    special = SpecialTokens(None, None, known["pad"], *tracer.template_ids())
    row = tracer.trace("\n\nhouse").rows[0]
    marks = content_positions(row, special)
    spelled = b"".join(tracer.vocabulary.spell(t) for t, mark in zip(row, marks, strict=True) if mark)
    assert spelled.decode().strip() == "house"


def test_an_encoder_that_gets_quoted_text_only_says_so(clips: Callable[[str], CLIP]) -> None:
    clip = clips("hunyuan_image")
    tracer = PromptTracer(clip, "byt5_small")
    with pytest.raises(TextEncoderError, match="quoted text only"):
        tracer.trace("a shop")
    assert tracer.trace('a shop with the sign "Bäckerei"').rows
    amplified = patch_clip(
        clip, 1, "hidden_state", lambda device: lambda x, mask: 2 * x, encoder_key="byt5_small"
    )
    with torch.inference_mode():
        for text in ("a shop", 'a shop with the sign "Bäckerei"'):
            plain, changed = (
                each.encode_from_tokens(each.tokenize(text), return_dict=True).get("conditioning_byt5small")
                for each in (clip, amplified)
            )
            assert plain is None or not torch.equal(plain, changed)


def test_a_system_prompt_in_front_of_its_marker_is_left_alone(clips: Callable[[str], CLIP]) -> None:
    """CLIP Text Encode for Lumina2 writes both into one prompt."""
    clip = clips("lumina2")
    tracer = PromptTracer(clip, "gemma2_2b")
    known = clip.cond_stage_model.gemma2_2b.special_tokens
    special = SpecialTokens(known["start"], None, known["pad"])
    row = tracer.trace("You draw superior images. <Prompt Start> a house").rows[0]
    for selection in (TokenSelection(), TokenSelection("words", ("a house", "images"))):
        marks = select_positions(row, special, selection, tracer.vocabulary)
        spelled = b"".join(tracer.vocabulary.spell(t) for t, mark in zip(row, marks, strict=True) if mark)
        assert spelled.decode().strip() == "a house"
