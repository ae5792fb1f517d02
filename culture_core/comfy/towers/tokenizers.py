"""The tokenizers of text towers, as ComfyUI's `SDTokenizer` calls them."""

from pathlib import Path
from typing import Any, NamedTuple

import folder_paths
import torch
from comfy.text_encoders.spiece_tokenizer import SPieceTokenizer

from ..errors import TextEncoderError
from .detection import Tower
from .files import Published
from .modules import SiglipTower, T5Tower, XlmRobertaTower

_PIECES = ("sentencepiece.bpe.model", "spiece.model")
_XLM_R = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 250_001}
"""Ids that no other vocabulary gives these pieces."""


class Tokenizer(NamedTuple):
    """Text to ids, and what frames them."""

    tokenizer: Any
    """Called with a text; gives `{"input_ids": ids}` with `start` and `end` where they are its own."""
    start: int | None
    end: int
    pad: int
    frames: bool = True
    """Whether the tokenizer puts start and end around a text by itself."""

    @property
    def special(self) -> dict[str, int]:
        """As ComfyUI's encoders want to be told."""
        found = {"start": self.start, "end": self.end, "pad": self.pad}
        return {name: token for name, token in found.items() if token is not None}


def find_tokenizer(published: Published, tower: Tower) -> Tokenizer:
    """The tokenizer of a tower: inside its file (`spiece_model`), in its folder, or, for XLM-R's vocabulary,
    in the folder of another encoder that has the same.

    Raises:
        TextEncoderError: where there is none, or it is another model's.
    """
    found = _find(published, tower)
    if found is None:
        beside = published.folders[0]
        raise TextEncoderError(
            f"{published.path} has no tokenizer: put its tokenizer.json or sentencepiece.bpe.model "
            f"(spiece.model for T5) into {beside}."
        )
    vocabulary = _vocabulary(found, published.path)
    if max(vocabulary.values()) >= tower.vocabulary:
        raise TextEncoderError(
            f"{published.path}: the tokenizer has {max(vocabulary.values()) + 1} tokens, but the weights "
            f"only {tower.vocabulary}: it is another model's."
        )
    return _framed(found, vocabulary, tower, published)


def _find(published: Published, tower: Tower) -> Any:
    inside = published.weights.get("spiece_model")
    if inside is not None:
        return _from_pieces(inside, tower, published.path)
    for folder in published.folders:
        found = _in_folder(folder, tower)
        if found is not None:
            return found
    if tower.transformer is XlmRobertaTower and tower.vocabulary == _XLM_R["<mask>"] + 1:
        return _borrowed(tower)
    return None


def _in_folder(folder: Path, tower: Tower) -> Any:
    if (folder / "tokenizer.json").is_file():
        return _from_json(folder / "tokenizer.json", tower)
    path = next((folder / name for name in _PIECES if (folder / name).is_file()), None)
    if path is None:
        return None
    model = bytearray(path.read_bytes())
    if not model:
        raise TextEncoderError(f"{path} is empty: fetch it again.")
    return _from_pieces(torch.frombuffer(model, dtype=torch.uint8), tower, path)


def _from_json(path: Path, tower: Tower) -> Any:
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers import normalizers
    from transformers import PreTrainedTokenizerFast

    try:
        found = FastTokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more particular
        raise TextEncoderError(f"{path} is no readable tokenizer ({error}): fetch it again.") from error
    if tower.transformer is SiglipTower:
        steps = [step for step in (normalizers.Lowercase(), found.normalizer) if step is not None]
        found.normalizer = normalizers.Sequence(steps)
    unknown = next((name for name in ("<unk>", "[UNK]") if found.token_to_id(name) is not None), None)

    class CheckedTokenizer(PreTrainedTokenizerFast):
        """A file may name pieces that it does not have; the library finds out at some text. It then panics,
        which is no `Exception`, and would end ComfyUI's worker."""

        def _batch_encode_plus(self, *arguments: Any, **options: Any) -> Any:
            try:
                return super()._batch_encode_plus(*arguments, **options)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                raise TextEncoderError(
                    f"{path} cannot take this prompt apart ({error}): fetch it again."
                ) from error

    return CheckedTokenizer(tokenizer_object=found, unk_token=unknown)


def _from_pieces(model: torch.Tensor, tower: Tower, path: Path) -> Any:
    try:
        found = SPieceTokenizer(model, add_eos=tower.transformer is T5Tower)
    except RuntimeError as error:  # what SentencePiece raises
        raise TextEncoderError(f"{path} holds no SentencePiece model ({error}): fetch it again.") from error
    return found if tower.transformer in (SiglipTower, T5Tower) else _XlmRobertaPieces(found)


def _borrowed(tower: Tower) -> Any:
    """XLM-R's vocabulary from another encoder's folder: there is one for all of them."""
    for root in map(Path, folder_paths.get_folder_paths("text_encoders")):
        for path in sorted(root.glob("*/tokenizer.json")) + sorted(root.glob("*/sentencepiece.bpe.model")):
            try:
                found = _in_folder(path.parent, tower)
                vocabulary = _vocabulary(found, path)
            except TextEncoderError:  # of an encoder that nobody asked for
                continue
            if len(vocabulary) == tower.vocabulary and _XLM_R.items() <= vocabulary.items():
                return found
    return None


def _vocabulary(tokenizer: Any, path: Path) -> dict[str, int]:
    try:
        vocabulary: dict[str, int] = tokenizer.get_vocab()
    except UnicodeDecodeError as error:
        raise TextEncoderError(
            f"{path}: its tokenizer has pieces that are no text ({error}): fetch it again."
        ) from error
    return vocabulary


def _framed(tokenizer: Any, vocabulary: dict[str, int], tower: Tower, published: Published) -> Tokenizer:
    pad = next((vocabulary[name] for name in ("<pad>", "[PAD]") if name in vocabulary), None)
    if tower.transformer is SiglipTower:
        end = next((vocabulary[name] for name in ("<eos>", "</s>") if name in vocabulary), None)
        if pad is not None and end is not None:
            return Tokenizer(_SiglipText(tokenizer), None, end, pad, frames=False)
    try:
        frame = list(tokenizer("")["input_ids"])
    except (RuntimeError, ValueError) as error:  # what SentencePiece raises
        raise TextEncoderError(
            f"{published.path}: its tokenizer cannot frame a text ({error}): fetch it again."
        ) from error
    if pad is None or len(frame) != (1 if tower.transformer is T5Tower else 2):
        raise TextEncoderError(
            f"{published.path}: the tokenizer gives {frame} for an empty text and has {pad} for padding; "
            "expected an end token, for BERT and XLM-R a begin token before it (<s> </s> or [CLS] [SEP]), "
            "and <pad> or [PAD]. It is another model's."
        )
    return Tokenizer(tokenizer, frame[0] if len(frame) == 2 else None, frame[-1], pad)


class _SiglipText:
    """SigLIP's tokenizer: of text in lower case, as it was trained, and without the begin and end that a
    file may or may not put around it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, text: str, **options: Any) -> Any:
        if isinstance(self._tokenizer, SPieceTokenizer):
            return self._tokenizer(text.lower())
        return self._tokenizer(text, **{"add_special_tokens": False, **options})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class _XlmRobertaPieces:
    """XLM-R's ids from its SentencePiece model, whose own ids are those of another frame."""

    FRAME = ("<s>", "<pad>", "</s>", "<unk>")
    unk_token_id = 3
    is_fast = False

    def __init__(self, pieces: SPieceTokenizer) -> None:
        self._pieces = pieces.tokenizer

    def __call__(self, text: str) -> dict[str, list[int]]:
        # 0, 1, 2 are its <unk>, <s>, </s>; all other pieces move up by one, behind the frame of four.
        ids = [token + 1 if token else self.unk_token_id for token in self._pieces.encode(text)]
        return {"input_ids": [0, *ids, 2]}

    def get_vocab(self) -> dict[str, int]:
        count = self._pieces.get_piece_size()
        vocabulary = {piece: number for number, piece in enumerate(self.FRAME)}
        vocabulary |= {self._pieces.id_to_piece(number): number + 1 for number in range(3, count)}
        return vocabulary | {"<mask>": count + 1}
