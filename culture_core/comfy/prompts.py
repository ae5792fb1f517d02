"""Which tokens a piece of a prompt becomes: through weights, escapes, embeddings, chunks and chat templates.

ComfyUI's own code tokenises; this module watches it do so, on copies of its tokenizer objects, and so gets
the very ids that the encoder will see together with the strings that they were made of. Only the way of a
string back to the prompt is computed here.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import comfy.sd
import comfy.sd1_clip

from ..pairs import Span
from ..selection import Vocabulary, align_pieces, fold
from ..text_encoder import trim
from .errors import TextEncoderError

EMBEDDING = "embedding:"
_SENTINEL = "qzx"
"""A prompt that occurs in no chat template."""


class TracedPrompt(NamedTuple):
    """A prompt as one encoder gets it; per chunk (row) and position."""

    rows: list[list[Any]]
    """Token ids, vectors of embeddings, pictures."""
    content: list[list[bool]]
    """What comes from the prompt: no begin, end, padding or template."""
    offsets: list[list[Span | None]] | None
    """The (start, end) of the prompt, in code points and without surrounding white space, that a token stands
    for; None where it stands for none. None as a whole where the prompt reaches the encoder changed."""


class PromptTracer:
    """Follows prompts into one encoder of a CLIP.

    Raises:
        TextEncoderError: where the CLIP has no tokenizer for the encoder.
    """

    def __init__(self, clip: comfy.sd.CLIP, key: str) -> None:
        self._clip, self._name = clip, _tokenizer_name(clip, key)
        self.tokenizer: comfy.sd1_clip.SDTokenizer = getattr(clip.tokenizer, self._name)
        self.vocabulary = Vocabulary(self.tokenizer.inv_vocab)
        before, found, after = self._watch(_SENTINEL, literal=True).text.partition(_SENTINEL)
        self.template: tuple[str, str] = (before, after) if found else ("", "")
        """Text that the CLIP puts before and after a prompt."""

    def trace(self, text: str, literal: bool = False) -> TracedPrompt:
        """Tokenise a prompt as `CLIP.tokenize` does, and say where every token comes from.

        Args:
            literal: `(word:1.3)` is plain text.

        Raises:
            TextEncoderError: where the model does not give the prompt to this encoder.
        """
        watch = self._watch(text, literal)
        if not watch.rows:
            raise TextEncoderError(
                f"The encoder '{self._name}' gets nothing of the prompt {text!r}: its model gives it quoted "
                "text only."
            )
        before, after = self.template
        if watch.text == before + text + after:
            start = len(before)
        else:
            start = 0 if watch.text == text else watch.text.find(text) if text else -1
        return watch.traced(text, start, self.vocabulary)

    def template_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of the template before and after a prompt, begin, end and padding aside."""
        if self.template == ("", ""):
            return (), ()
        traced = self.trace(_SENTINEL)
        row, content = traced.rows[0], traced.content[0]
        first, last = content.index(True), len(content) - content[::-1].index(True)
        outside = {self.tokenizer.start_token, self.tokenizer.end_token, self.tokenizer.pad_token}
        parts = (row[:first], row[last:])
        before, after = (tuple(token for token in part if token not in outside) for part in parts)
        return before, after

    def _watch(self, text: str, literal: bool) -> "_Watch":
        watch = _Watch(self.tokenizer, literal)
        copied = self._clip.clone()
        copied.tokenizer = copy.copy(self._clip.tokenizer)
        setattr(copied.tokenizer, self._name, watch)
        rows = copied.tokenize(text, return_word_ids=True)
        # A model may use a part of the chunks only.
        watch.rows = next(
            (r for r in rows.values() if r and watch.rows and r[0] is watch.rows[0]), watch.rows
        )
        return watch


def piece_offsets(
    tokenizer: Any, text: str, tokens: Sequence[int], vocabulary: Vocabulary
) -> list[Span | None] | None:
    """What each token of a text spells of it; `tokens` are the text's own, without begin and end.

    None as a whole where it cannot be told.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    pieces = [None if token == unknown else vocabulary.spell(token) for token in tokens]
    exact = None if None in pieces else align_pieces(text, pieces, exact=True)
    return exact or _own_offsets(tokenizer, text, tokens, pieces) or align_pieces(text, pieces)


def _own_offsets(
    tokenizer: Any, text: str, tokens: Sequence[int], pieces: Sequence[bytes | None]
) -> list[Span | None] | None:
    """What the tokenizer itself says, where it can and does not contradict its pieces: some slip behind
    characters that they leave out."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if list(encoded["input_ids"]) != list(tokens):
        return None
    spans: list[Span | None] = []
    for span, piece in zip(encoded["offset_mapping"], pieces, strict=True):
        letters = fold((piece or b"").decode(errors="ignore"))
        if "".join(letters) not in "".join(fold(text[slice(*span)])):
            return None
        # A piece of nothing but a word boundary stands for no text, whatever its offset says.
        spans.append(trim(text, span) if piece is None or piece.strip() else None)
    return spans


def _tokenizer_name(clip: comfy.sd.CLIP, key: str) -> str:
    name = key.rpartition(".")[2]
    for candidate in (name, f"clip_{name}", name.removeprefix("clip_"), name.partition("_")[0]):
        if isinstance(getattr(clip.tokenizer, candidate, None), comfy.sd1_clip.SDTokenizer):
            return candidate
    raise TextEncoderError(f"{type(clip.tokenizer).__name__} has no tokenizer for the encoder '{key}'.")


class _Event(NamedTuple):
    """A group of tokens as ComfyUI makes them: a string that it tokenised, or an embedding that it found."""

    text: str
    ids: list[int] | None
    """None for an embedding."""
    leftover: bool = False
    """What is left of a word after an embedding's name."""


class _Watch:
    """Stands in for an `SDTokenizer` during one call, and notes what goes through."""

    def __init__(self, tokenizer: comfy.sd1_clip.SDTokenizer, literal: bool) -> None:
        self.text = ""
        self.rows: list[list[tuple[Any, ...]]] = []
        self.events: list[_Event] = []
        self.weighted = not literal
        self._leftover = ""
        self._tokenizer = tokenizer.tokenizer
        self._inner = copy.copy(tokenizer)
        self._inner.tokenizer = _WatchedCalls(tokenizer.tokenizer, self._note_text)
        find_embedding = tokenizer._try_get_embedding

        def note_embedding(name: str) -> tuple[Any, ...]:
            found = find_embedding(name)  # (vectors, what is left); newer versions say the name in between
            if found[0] is not None:
                self.events.append(_Event(EMBEDDING + name, None))
            self._leftover = found[-1]
            return found

        self._inner._try_get_embedding = note_embedding
        self._starts = tokenizer.tokens_start
        self._ends = tokenizer.tokenizer_adds_end_token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> list[Any]:
        """As `SDTokenizer.tokenize_with_weights`."""
        if not self.weighted:
            options["disable_weights"] = True
        self.text, self.events = text, []
        self.weighted = not options.get("disable_weights", False)
        self.rows = self._inner.tokenize_with_weights(text, return_word_ids=True, **options)
        return self.rows

    def traced(self, prompt: str, start: int, vocabulary: Vocabulary) -> TracedPrompt:
        """Tokens with their place in the prompt, which begins at `start` in the text; −1: it is not in it."""
        rows = [[entry[0] for entry in row] for row in self.rows]
        grouped = [[entry[2] > 0 for entry in row] for row in self.rows]
        spans = self._spans(vocabulary)
        if start < 0 or spans is None:
            return TracedPrompt(rows, grouped, None)
        offsets = [[_inside(span, start, prompt) for span in row] for row in spans]
        # Pieces of white space stand for no text; between the first and the last that do, they are the
        # prompt's.
        flat = [span is not None for row in offsets for span in row]
        if start or self.text != prompt:
            first = flat.index(True) if any(flat) else len(flat)
            last = len(flat) - flat[::-1].index(True) if any(flat) else 0
        else:
            first, last = 0, len(flat)
        counter = iter(range(len(flat)))
        content = [[first <= next(counter) < last and mark for mark in row] for row in grouped]
        return TracedPrompt(rows, content, offsets)

    def _note_text(self, text: str, ids: list[int]) -> None:
        end = -1 if self._ends else None
        self.events.append(_Event(text, list(ids)[self._starts : end], bool(self._leftover)))
        self._leftover = ""

    def _spans(self, vocabulary: Vocabulary) -> list[list[Span | None]] | None:
        """What every token stands for in the text that was tokenised."""
        groups = self._groups(vocabulary)
        if groups is None:
            return None
        used = [0] * len(groups)
        spans: list[list[Span | None]] = []
        for row in self.rows:
            spans.append([None] * len(row))
            for position, (token, _, number, *_) in enumerate(row):
                if number == 0:  # begin, end, padding
                    continue
                event, found = self.events[number - 1], groups[number - 1]
                index = 0 if event.ids is None else used[number - 1]
                if event.ids is not None and event.ids[index] != token:
                    return None
                spans[-1][position] = found[index]
                used[number - 1] += 1
        return spans

    def _groups(self, vocabulary: Vocabulary) -> list[list[Span | None]] | None:
        """Spans of the tokens of every event; one for all vectors of an embedding."""
        words = list(_words(self.text, self.weighted))
        groups: list[list[Span | None]] = []
        place = 0
        for event in self.events:
            place, sources = _sources(words, place, event)
            if sources is None:
                return None
            if event.ids is None:
                groups.append([(sources[0], sources[-1] + 1)])
                continue
            inside = piece_offsets(self._tokenizer, event.text, event.ids, vocabulary)
            if inside is None:
                return None
            groups.append([span and (sources[span[0]], sources[span[1] - 1] + 1) for span in inside])
        return groups


class _WatchedCalls:
    """Stands in for a Hugging Face or SentencePiece tokenizer, and notes its calls."""

    def __init__(self, tokenizer: Any, note: Any) -> None:
        self._tokenizer, self._note = tokenizer, note

    def __call__(self, text: str, *arguments: Any, **keywords: Any) -> Any:
        result = self._tokenizer(text, *arguments, **keywords)
        self._note(text, result["input_ids"])
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class _Word(NamedTuple):
    """A string between weights and embeddings, and where each of its characters is in the text."""

    text: str
    sources: list[int]

    def spellings(self) -> tuple[str, ...]:
        """As versions of ComfyUI have it: with the white space before a following embedding, or without."""
        return (self.text, self.text[:-1]) if self.text[-1:].isspace() else (self.text,)


def _words(text: str, weighted: bool) -> Iterator[_Word]:
    """The strings that ComfyUI tokenises one by one (`SDTokenizer.tokenize_with_weights`), with their
    sources."""
    escaped = _escape(text)
    for segment in _segments(escaped) if weighted else [escaped]:
        plain = _unescape(segment)
        spelled = "".join(char for char, _ in plain)
        start = 0
        for match in re.finditer(f"(?<=[ \n]){EMBEDDING}", spelled):
            yield _word(plain[start : match.start()])
            start = match.start()
        yield _word(plain[start:])


def _word(characters: "Characters") -> _Word:
    return _Word("".join(char for char, _ in characters), [source for _, source in characters])


def _sources(words: list[_Word], place: int, event: _Event) -> tuple[int, list[int] | None]:
    """Where each character of an event's string is, and from which word on to look for the next event's."""
    for number in range(place, len(words)):
        word = words[number]
        if event.leftover:
            if word.text.startswith(EMBEDDING):
                return number + 1, _leftover(word, event.text)
        elif event.ids is None:
            if event.text in (text.strip("\n") for text in word.spellings()):
                return number, word.sources[: len(event.text)]
        elif event.text in word.spellings():
            return number + 1, word.sources[: len(event.text)]
    return place, None


def _leftover(word: _Word, text: str) -> list[int] | None:
    """Sources of what is left of a word after an embedding's name; ComfyUI joins it anew with single
    spaces."""
    letters = [source for char, source in zip(word.text, word.sources, strict=True) if not char.isspace()]
    wanted = [index for index, char in enumerate(text) if not char.isspace()]
    if not wanted or len(wanted) > len(letters):
        return None
    tail = dict(zip(wanted, letters[len(letters) - len(wanted) :], strict=True))
    return [tail.get(index, tail[wanted[0]]) for index in range(len(text))]


Characters = list[tuple[str, int]]
"""Characters with their place in the text."""


def _escape(text: str) -> Characters:
    characters, index = [], 0
    while index < len(text):
        pair = text[index : index + 2]
        if pair in (r"\(", r"\)"):
            characters.append(("\0" + pair[1], index + 1))
            index += 2
        else:
            characters.append((text[index], index))
            index += 1
    return characters


def _unescape(characters: Characters) -> Characters:
    return [(char[-1], source) for char, source in characters]


def _segments(characters: Characters) -> Iterator[Characters]:
    """The parts of different weight, without brackets and numbers (`comfy.sd1_clip.token_weights`)."""
    for part in _parentheses(characters):
        if len(part) < 2 or part[0][0] != "(" or part[-1][0] != ")":
            yield part
            continue
        inner = part[1:-1]
        colon = next((i for i in range(len(inner) - 1, -1, -1) if inner[i][0] == ":"), -1)
        if colon > 0 and _is_number("".join(char for char, _ in inner[colon + 1 :])):
            inner = inner[:colon]
        yield from _segments(inner)


def _parentheses(characters: Characters) -> Iterator[Characters]:
    """Top-level brackets and what is between them (`comfy.sd1_clip.parse_parentheses`)."""
    current: Characters = []
    depth = 0
    for entry in characters:
        if entry[0] == "(":
            if depth == 0 and current:
                yield current
                current = []
            current.append(entry)
            depth += 1
        elif entry[0] == ")":
            depth -= 1
            current.append(entry)
            if depth == 0:
                yield current
                current = []
        else:
            current.append(entry)
    if current:
        yield current


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _inside(span: Span | None, start: int, prompt: str) -> Span | None:
    """The part of a span of the text that lies in the prompt."""
    if span is None:
        return None
    low, high = max(span[0] - start, 0), min(span[1] - start, len(prompt))
    return trim(prompt, (low, high)) if low < high else None
