"""Captions of a bench's pictures: a vision-language model writes and translates them, or they are given.

The paper's instruction to its model is not published. What it says of the result is kept: every caption comes
as a cultural one, "culture-style modifier + noun", and as a neutral one, "noun only", with the same content
in the same language. `CAPTION` and `TRANSLATE` ask for that, with marks that become the spans.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from PIL import Image

from ..cultures import CULTURES
from ..marks import Marked, read_marks, write_marks
from ..vlm import VLM, Reply, VLMError, VLMRefusal
from ..vlm.usage import total
from .records import Bench, BenchError, Record
from .scripts import script_problem

Progress = Callable[[int, int], None]
"""Gets (records done, records in all). What it raises ends the work; what was written is kept."""

CAPTION = """\
The picture belongs to a collection about cultures. It shows: {category}, {culture} culture ({region}).
Write one short caption of it in {language}, twice.
"cultural": names the culture with a modifier such as "{culture} style", directly with the noun of the main \
thing. Put square brackets around the modifier and angle brackets around the noun.
"neutral": the very same caption without the modifier, so that nothing in it names or hints at the culture. \
Put angle brackets around the same noun.
Say only what the picture shows, at most 15 words, no names of people or brands.
Example: {{"cultural": "a [{culture} style] <bowl> on a table", "neutral": "a <bowl> on a table"}}
Answer with such a JSON object and nothing else."""
TRANSLATE = """\
Translate this pair of picture captions from {before} into {after}, as a native speaker would write a prompt.
Keep the marks: square brackets around what names the culture, angle brackets around the noun. The two must \
differ in the bracketed words alone, apart from what grammar asks for; names of the culture must not appear \
in the neutral one.
{pair}
Answer with a JSON object that has "cultural" and "neutral", and nothing else."""
AGAIN = (
    "\n\nYour last answer could not be used: {problem}. Mind the marks; answer with the JSON object alone."
)
LONGEST = 300
"""Code points of a caption."""
MAX_TOKENS = 400
ATTEMPTS = 2
"""Times that a record is asked about before it is left for later."""
MAX_FAILURES = 5
"""Records in a row for which the model cannot be asked, before the work ends; refusals do not count."""
_SAVE_EVERY = 20


@dataclass(frozen=True)
class Captions:
    """A pair of captions with marks, as it is given or answered.

    Raises:
        ValueError: for captions that cannot serve; the message says why.
    """

    cultural: str
    neutral: str
    language: str = "en"
    english: str | None = None
    """Gloss of the cultural one; for English ones it is what they say."""
    english_neutral: str | None = None

    def __post_init__(self) -> None:
        for name in ("cultural", "neutral", "english", "english_neutral"):
            value = getattr(self, name)
            if value is None and name.startswith("english"):
                continue
            if not isinstance(value, str) or not value.strip() or len(value) > LONGEST:
                raise ValueError(f"{name!r} must be a text of 1 to {LONGEST} characters, got {value!r:.80}")
            object.__setattr__(self, name, unicodedata.normalize("NFC", " ".join(value.split())))
        cultural, neutral = self.read()
        if not cultural.modifiers or not cultural.nouns:
            raise ValueError(f"{self.cultural!r} needs a [modifier] and a <noun>")
        if neutral.modifiers or not neutral.nouns:
            raise ValueError(f"{self.neutral!r} needs a <noun> and no [modifier]")
        plain = neutral.text.casefold()
        for start, end in cultural.modifiers:
            if cultural.text[start:end].casefold() in plain:
                raise ValueError(f"the neutral caption has the modifier {cultural.text[start:end]!r} too")
        for text in (cultural.text, neutral.text):
            problem = script_problem(text, self.language)
            if problem:
                raise ValueError(problem)

    def read(self) -> tuple[Marked, Marked]:
        """(cultural, neutral) without marks."""
        return read_marks(self.cultural), read_marks(self.neutral)


class Written(NamedTuple):
    """What a run of a model over records gave."""

    done: int
    failed: dict[str, str]
    """Reason by id, for records that no usable answer came for; the next run asks again."""
    cost: float | None
    """In the currency of the configured prices; None where a part of it is not known."""
    cached: int
    """Answers that came from disk."""


def with_captions(record: Record, captions: Captions, **changes: Any) -> Record:
    """A record with these captions; a decision about other ones falls away.

    Args:
        changes: further fields, such as `captioned_by`.
    """
    cultural, neutral = captions.read()
    english, english_neutral = captions.english, captions.english_neutral
    noun = record.noun
    if captions.language == "en":
        english, english_neutral = english or cultural.text, english_neutral or neutral.text
        noun = noun or " ".join(neutral.text[slice(*span)] for span in neutral.nouns).lower()
    return replace(
        record, language=captions.language, cultural=cultural.text, neutral=neutral.text,
        modifiers=cultural.modifiers, nouns_cultural=cultural.nouns, nouns_neutral=neutral.nouns, noun=noun,
        english=english or record.english, english_neutral=english_neutral or record.english_neutral,
        reviewer=None, decision=None, reason=None, split=None, **changes,
    )  # fmt: skip


def marked_captions(record: Record) -> tuple[str, str]:
    """(cultural, neutral) of a record, with marks."""
    pair = record.pair()
    return (
        write_marks(pair.cultural, pair.modifiers, pair.nouns_cultural),
        write_marks(pair.neutral, (), pair.nouns_neutral),
    )


def caption(
    bench: Bench,
    vlm: VLM,
    language: str = "en",
    limit: int | None = None,
    progress: Progress | None = None,
) -> Written:
    """Have a model write the captions of all records that have none.

    Args:
        language: `en`, to be translated then, or `own`, each culture's own language.
        limit: at most so many records.

    Raises:
        BenchError: for an unknown language, or a model that answers nothing `MAX_FAILURES` times in a row.
    """
    if language not in ("en", "own"):
        raise BenchError(f"unknown language {language!r}: use en or own")
    waiting = [record for record in bench.records.values() if not record.captioned and not record.decision]

    def ask(record: Record) -> tuple[str, str, AbstractContextManager[Any]]:
        culture = CULTURES[record.culture]
        code = "en" if language == "en" else record.culture
        question = CAPTION.format(
            category=record.category, culture=culture.name, region=record.region, language=_language(code)
        )
        return question, code, Image.open(bench.image_path(record))

    return _write(bench, vlm, waiting[:limit], ask, "captioned_by", progress)


def translate(bench: Bench, vlm: VLM, limit: int | None = None, progress: Progress | None = None) -> Written:
    """Have a model translate captions that are not in their culture's language, and were not decided upon.

    Raises:
        BenchError: for a model that answers nothing `MAX_FAILURES` times in a row.
    """
    waiting = [
        record
        for record in bench.records.values()
        if record.captioned and record.language != record.culture and not record.decision
    ]

    def ask(record: Record) -> tuple[str, str, None]:
        cultural, neutral = marked_captions(record)
        pair = json.dumps({"cultural": cultural, "neutral": neutral}, ensure_ascii=False)
        names = _language(record.language or "?"), _language(record.culture)
        return TRANSLATE.format(before=names[0], after=names[1], pair=pair), record.culture, None

    return _write(bench, vlm, waiting[:limit], ask, "translated_by", progress)


def give_captions(bench: Bench, given: Iterable[tuple[str, Mapping[str, object]]]) -> int:
    """Put captions that people wrote into a bench; returns how many.

    Args:
        given: (place in a file, values); the values are an `id` and the fields of `Captions`.

    Raises:
        BenchError: for an unknown id, or captions that cannot serve. Nothing is changed then.
    """
    changed = {}
    for where, values in given:
        fields: dict[str, Any] = dict(values)
        record = bench.records.get(str(fields.pop("id", None)))
        if record is None:
            raise BenchError(f"{where}: 'id' must be that of a record, got {values.get('id')!r}")
        try:
            captions = Captions(**fields)
        except (TypeError, ValueError) as error:
            raise BenchError(f"{where}: {error}") from error
        again = record.captioned
        names = {"translated_by": None} if again else {"captioned_by": None}
        changed[record.id] = with_captions(record, captions, **names)
    bench.update(changed.values())
    return len(changed)


def read_answer(text: str, language: str) -> Captions:
    """The captions of a model's answer.

    Raises:
        ValueError: for anything but a JSON object with usable captions, alone or in a code fence.
    """
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text.strip(), re.DOTALL)
    try:
        values = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(values, dict) or set(values) != {"cultural", "neutral"}:
        raise ValueError('it must be an object with "cultural" and "neutral"')
    return Captions(**values, language=language)


def _write(
    bench: Bench,
    vlm: VLM,
    records: Sequence[Record],
    ask: Callable[[Record], tuple[Any, ...]],
    author: str,
    progress: Progress | None,
) -> Written:
    """Ask about every record, and keep what can be used, now and then and whatever happens."""
    changed: list[Record] = []
    failed: dict[str, str] = {}
    cost: float | None = 0.0
    cached, silent, written = 0, 0, 0
    try:
        for done, record in enumerate(records, start=1):
            try:
                answer, replies = _answer(vlm, ask(record))
            except VLMRefusal as error:
                failed[record.id] = str(error)
            except VLMError as error:
                failed[record.id], silent = str(error), silent + 1
                if silent == MAX_FAILURES:
                    raise BenchError(f"{vlm.name} gives no answers: {error}") from error
            else:
                silent = 0
                cost = total([cost, *(reply.cost for reply in replies)])
                cached += sum(reply.cached for reply in replies)
                if isinstance(answer, Captions):
                    changed.append(with_captions(record, answer, **{author: replies[-1].model}))
                    written += 1
                else:
                    failed[record.id] = answer
            if len(changed) >= _SAVE_EVERY:
                bench.update(_still(bench, changed))
                changed = []
            if progress is not None:
                progress(done, len(records))
    finally:
        if changed:
            bench.update(_still(bench, changed))
    return Written(written, failed, cost, cached)


def _answer(vlm: VLM, question: tuple[Any, ...]) -> tuple[Captions | str, list[Reply]]:
    """(captions or what is wrong with the last answer, replies).

    Raises:
        VLMError: where the model cannot be asked, or declines.
    """
    text, language, picture = question
    replies, asked = [], text
    for _ in range(ATTEMPTS):
        replies.append(vlm.ask(asked, picture, max_tokens=MAX_TOKENS))
        try:
            return read_answer(replies[-1].text, language), replies
        except ValueError as error:
            problem = str(error)
            asked = text + AGAIN.format(problem=problem[:200])
    return problem, replies


def _still(bench: Bench, changed: list[Record]) -> list[Record]:
    """Changed records that nobody has decided upon meanwhile."""
    now = Bench(bench.folder).records
    return [record for record in changed if record.id not in now or now[record.id].decision is None]


def _language(code: str) -> str:
    return CULTURES[code].language if code in CULTURES else {"en": "English"}.get(code, code)
