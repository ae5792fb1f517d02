"""The prompts of a run, and the treatments: which text of a prompt a system is given."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..bench import Bench, Record
from ..bench.records import RECORDS
from ..cultures import CULTURES
from ..pairs import PromptPair, load_pairs
from ..splits import EVALUATION, TEST, usable
from ..strict_json import parse_object
from ..vlm import VLM, VLMError
from .base import GeneratorError, Prompt

MINIATURE = "miniature"
NEUTRAL, EXPLICIT, TRANSLATED = "neutral", "explicit", "translated"
TRANSLATED_EXPLICIT, REWRITTEN = "translated_explicit", "rewritten"
TREATMENTS = (NEUTRAL, EXPLICIT, TRANSLATED, TRANSLATED_EXPLICIT, REWRITTEN)
"""The prompt as it is; with a culture modifier in its own language; either of them in English; rewritten by a
language model."""
LONGEST = 2000
"""Characters of a text that a language model writes."""

_TRANSLATE = (
    "Translate this prompt for an image generator into English. Answer with the translation alone, on one "
    "line, without quotation marks.\n\n{text}"
)
_REWRITE = (
    "You improve prompts for an image generator. The person who wrote this one belongs to {culture} culture "
    "and wants to see it in the picture. Rewrite the prompt so that the picture clearly shows {culture} "
    "culture: keep the subject, name fitting materials, shapes, ornaments or surroundings, and do not "
    "exaggerate. Answer with the new prompt alone, in English, on one line, at most 40 words.\n\n{text}"
)
_QUESTIONS = {TRANSLATED: _TRANSLATE, TRANSLATED_EXPLICIT: _TRANSLATE, REWRITTEN: _REWRITE}


def read_prompts(source: str | Path) -> list[Prompt]:
    """Prompts to draw; of those that differ in their modifier alone, the first.

    Args:
        source: a CultureBench folder, of which the test split is taken; a JSONL file of prompt pairs; or
            "miniature", the test prompts of the examples.

    Raises:
        GeneratorError: where there is nothing of that name, or no prompt that may be evaluated with.
        ValueError: for a bench or a file that cannot be read.
    """
    path = Path(source)
    if (path / RECORDS).is_file():
        found = [_from_record(record) for record in Bench.open(path).accepted(TEST)]
    elif path.is_file():
        found = [_from_pair(pair) for pair in usable(load_pairs(path), EVALUATION)]
    elif str(source) == MINIATURE:
        found = list(_of_miniature())
    else:
        raise GeneratorError(
            f"{source} holds no prompts: give a CultureBench folder, a JSONL file of prompt pairs, or "
            f"{MINIATURE}"
        )
    if not found:
        raise GeneratorError(f"{source} has no accepted record in its test split: run `bench split` first")
    # Lists are for everybody to read in the same order; the neutral prompt is what systems are compared on.
    return list({(p.culture, p.language, p.neutral): p for p in reversed(found)}.values())[::-1]


def prompts_hash(prompts: Iterable[Prompt]) -> str:
    text = json.dumps([list(prompt) for prompt in prompts], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Texts:
    """What each system is given. What a language model writes is kept, so that a run goes on with it."""

    def __init__(self, path: Path, open_vlm: Callable[[], VLM]) -> None:
        """
        Args:
            path: file that keeps what was written.
            open_vlm: gives the language model; called when one is needed.
        """
        self._path, self._open = path, open_vlm
        self._vlm: VLM | None = None
        self._written = _read_written(path)

    def text(self, prompt: Prompt, treatment: str) -> str:
        """The text of a prompt under a treatment.

        Raises:
            VLMError: where a language model must write it and gives no usable answer.
        """
        given = self.given(prompt, treatment)
        return given if given is not None else self._write(prompt, treatment)

    def given(self, prompt: Prompt, treatment: str) -> str | None:
        """The same; None where it must be written first."""
        if treatment == NEUTRAL:
            return prompt.neutral
        if treatment == EXPLICIT:
            return prompt.explicit
        if treatment in (TRANSLATED, TRANSLATED_EXPLICIT):
            own, gloss = _of_translation(prompt, treatment)
            if prompt.language == "en" or gloss:
                return gloss or own
        return self._written.get(_key(prompt, treatment))

    def _write(self, prompt: Prompt, treatment: str) -> str:
        vlm = self._vlm = self._vlm or self._open()
        own = prompt.neutral if treatment == REWRITTEN else _of_translation(prompt, treatment)[0]
        question = _QUESTIONS[treatment].format(text=own, culture=CULTURES[prompt.culture].name)
        reply = vlm.ask(question)
        text = " ".join(reply.text.split()).strip("\"“”'")
        if not text or len(text) > LONGEST:
            raise VLMError(f"{reply.model} wrote {text[:80]!r} for the prompt {own!r}: that is no prompt")
        self._written[_key(prompt, treatment)] = text
        record = {
            "treatment": treatment, "item": prompt.item, "neutral": prompt.neutral, "text": text,
            "model": reply.model,
        }  # fmt: skip
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        return text


def _key(prompt: Prompt, treatment: str) -> tuple[str, str, str]:
    return treatment, prompt.item, prompt.neutral


def _read_written(path: Path) -> dict[tuple[str, str, str], str]:
    """What was written before; a line that was cut off is written again."""
    found = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else ():
        try:
            record = parse_object(line)
            found[record["treatment"], record["item"], record["neutral"]] = str(record["text"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _of_translation(prompt: Prompt, treatment: str) -> tuple[str, str | None]:
    """(text in its own language, English gloss)."""
    if treatment == TRANSLATED:
        return prompt.neutral, prompt.english
    return prompt.explicit, prompt.english_explicit


def _from_pair(pair: PromptPair, english: str | None = None) -> Prompt:
    english = pair.neutral if pair.language == "en" else english
    return Prompt(
        pair.id, pair.culture, pair.language, pair.neutral, pair.cultural, english, pair.english, pair.noun,
        pair.category,
    )  # fmt: skip


def _from_record(record: Record) -> Prompt:
    return _from_pair(record.pair(), record.english_neutral)


def _of_miniature() -> Sequence[Prompt]:
    from ..miniature.captions import caption, prompt_pairs

    # The category of the miniature's pairs is their noun.
    return [
        _from_pair(pair, caption("en", pair.category or "").text)._replace(noun=pair.category)
        for pair in prompt_pairs(TEST)
    ]
