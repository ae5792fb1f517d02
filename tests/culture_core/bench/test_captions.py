"""Captions by a model, by people, and what is refused of either."""

import json
import re
from dataclasses import replace

import pytest

from culture_core.bench import ACCEPTED, Bench, BenchError, Captions, caption, give_captions, translate
from culture_core.bench.captions import ATTEMPTS, MAX_FAILURES, marked_captions, read_answer
from culture_core.cultures import CULTURES
from culture_core.vlm import VLMError, VLMRefusal
from culture_core.vlm.server import ServerSettings, ServerVLM

from ...chat_server import MODEL, ChatServer, in_turn, said
from .conftest import NOUNS, TableVLM, captioned

ENGLISH = {"cultural": "a [Thai style] <bowl> of rice", "neutral": "a <bowl> of rice"}


def native(question: str, image) -> dict:
    """The translation of a question, by the language that it asks for."""
    language = re.search(r"into (\w+),", question)[1]
    code = next(code for code, culture in CULTURES.items() if culture.language == language)
    noun, modifier = NOUNS[code]
    return {"cultural": f"<{noun}> [{modifier}]", "neutral": f"<{noun}>"}


def test_a_model_captions_in_english_and_translates(raw):
    writer = TableVLM(
        lambda question, image: ENGLISH if image is not None and image.size == (96, 64) else "no"
    )
    steps = []
    found = caption(raw, writer, progress=lambda done, total: steps.append((done, total)))
    assert (found.done, found.failed, found.cost) == (6, {}, 3.0) and steps[-1] == (6, 6)
    first = next(iter(Bench.open(raw.folder).records.values()))
    assert first.language == "en" and first.noun == "bowl" and first.captioned_by == "table-1"
    assert (first.cultural, first.neutral) == ("a Thai style bowl of rice", "a bowl of rice")
    assert first.cultural[slice(*first.modifiers[0])] == "Thai style" and first.english == first.cultural
    culture = CULTURES[first.culture]
    assert culture.name in writer.questions[0] and first.category in writer.questions[0]

    translator = TableVLM(native, cost=None)
    found = translate(raw, translator)
    assert (found.done, found.cost) == (6, None) and ENGLISH["cultural"] in translator.questions[0]
    for record in Bench.open(raw.folder).records.values():
        noun, modifier = NOUNS[record.culture]
        assert (record.language, record.neutral) == (record.culture, noun)
        assert record.cultural[slice(*record.modifiers[0])] == modifier
        assert record.english == "a Thai style bowl of rice" and record.noun == "bowl"
        assert record.translated_by == "table-1" and record.captioned_by == "table-1"
    assert translate(raw, translator).done == 0 and caption(raw, writer).done == 0


def test_a_wrong_answer_is_asked_about_once_more_and_says_why(raw):
    answers = iter(["The bowl is Thai.", ENGLISH] + ["never"] * 99)
    vlm = TableVLM(lambda question, image: next(answers))
    found = caption(raw, vlm, limit=2)
    assert found.done == 1 and len(found.failed) == 1 and len(vlm.questions) == 2 * ATTEMPTS
    assert "not JSON" in vlm.questions[1] and vlm.questions[1].startswith(vlm.questions[0])
    assert "not JSON" in next(iter(found.failed.values()))
    assert sum(record.captioned for record in Bench.open(raw.folder).records.values()) == 1


def test_a_refusal_does_not_end_the_work(raw):
    answers = iter([VLMRefusal("declined")] * MAX_FAILURES + [ENGLISH] * (len(raw) - MAX_FAILURES))
    found = caption(raw, TableVLM(lambda question, image: next(answers)))
    assert found.done == 1 and list(found.failed.values()) == ["declined"] * MAX_FAILURES


def test_one_failure_does_not_either(raw):
    answers = iter([VLMError("busy"), ENGLISH] * 3)
    found = caption(raw, TableVLM(lambda question, image: next(answers)))
    assert found.done == 3 and list(found.failed.values()) == ["busy"] * 3


def test_a_model_that_is_down_ends_the_work(raw):
    down = TableVLM(lambda question, image: VLMError("down"))
    with pytest.raises(BenchError, match="gives no answers.*down"):
        caption(raw, down)
    assert len(down.questions) == MAX_FAILURES < len(raw)


def test_an_interruption_keeps_what_was_written_and_a_decision_is_not_undone(raw):
    ids = list(raw.records)

    def stop(done, total):
        if done == 2:
            Bench.open(raw.folder).update(
                [replace(captioned(raw.records[ids[0]]), decision=ACCEPTED, reviewer="j")]
            )
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caption(raw, TableVLM(lambda question, image: ENGLISH), progress=stop)
    found = Bench.open(raw.folder).records
    assert found[ids[0]].decision == ACCEPTED and found[ids[0]].cultural != "a Thai style bowl of rice"
    assert found[ids[1]].captioned and not found[ids[2]].captioned


def test_captions_in_the_own_language_are_asked_for_and_checked(raw):
    thai = {"cultural": "<ชาม> [สไตล์ไทย]", "neutral": "<ชาม>"}
    vlm = TableVLM(lambda question, image: thai if "in Thai" in question else ENGLISH)
    found = caption(raw, vlm, "own")
    # English letters pass for German.
    assert found.done == 5 and "script" in next(iter(found.failed.values()))
    assert {record.language for record in raw.records.values() if record.captioned} == {"th", "de"}
    with pytest.raises(BenchError, match="en or own"):
        caption(raw, vlm, "fr")


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("a bowl", "not JSON"),
        ("[" * 9999, "not JSON"),
        ({"cultural": "a [Thai] <bowl>"}, "must be an object"),
        ({**ENGLISH, "more": "x"}, "must be an object"),
        ({**ENGLISH, "cultural": "a Thai <bowl>"}, "modifier"),
        ({**ENGLISH, "cultural": "a [Thai] bowl"}, "noun"),
        ({**ENGLISH, "neutral": "a bowl"}, "needs a <noun>"),
        ({**ENGLISH, "neutral": "a [nice] <bowl>"}, "no \\[modifier"),
        ({**ENGLISH, "neutral": "a thai style <bowl>"}, "has the modifier"),
        ({**ENGLISH, "neutral": "<ชาม>"}, "script"),
        ({**ENGLISH, "neutral": 3}, "must be a text"),
        ({**ENGLISH, "neutral": f"<bowl> {'x' * 300}"}, "1 to 300"),
        ({**ENGLISH, "neutral": "a <bowl"}, "partner"),
    ],
)
def test_an_answer_is_read_strictly(answer, complaint):
    text = answer if isinstance(answer, str) else json.dumps(answer)
    with pytest.raises(ValueError, match=complaint):
        read_answer(text, "en")


def test_an_answer_may_stand_in_a_code_fence_and_is_composed():
    read = read_answer(f"```json\n{json.dumps(ENGLISH)}\n```", "en")
    assert read == read_answer(json.dumps(ENGLISH), "en") == Captions(**ENGLISH)
    loose = read_answer(
        json.dumps({"cultural": "ein  <Ha\u0308uschen>\n[aus Tirol]", "neutral": "ein <Ha\u0308uschen>"}),
        "de",
    )
    assert loose.cultural == "ein <Häuschen> [aus Tirol]"
    assert loose.read()[0].nouns == ((4, 12),)


def test_people_give_captions_all_or_none(raw):
    ids = list(raw.records)
    rows = [
        ("line 1", {"id": ids[0], **ENGLISH}),
        ("line 2", {"id": ids[1], "language": "de", "cultural": "<Haus> [aus Tirol]", "neutral": "<Haus>"}),
    ]
    with pytest.raises(BenchError, match="line 3.*'id'"):
        give_captions(raw, [*rows, ("line 3", {"id": "nobody", **ENGLISH})])
    with pytest.raises(BenchError, match="line 3.*colour"):
        give_captions(raw, [*rows, ("line 3", {"id": ids[2], "colour": "red", **ENGLISH})])
    assert not any(record.captioned for record in Bench.open(raw.folder).records.values())
    assert give_captions(raw, rows) == 2
    found = Bench.open(raw.folder).records
    assert marked_captions(found[ids[0]]) == (ENGLISH["cultural"], ENGLISH["neutral"])
    assert found[ids[1]].language == "de" and found[ids[0]].captioned_by is None


def test_a_real_server_is_asked_with_the_picture_and_once_for_each(raw, tmp_path):
    with ChatServer(in_turn(said(json.dumps(ENGLISH)))) as server:
        vlm = ServerVLM(ServerSettings(server.url, model=MODEL, key="k", retries=0), tmp_path / "cache")
        assert caption(raw, vlm, limit=2).done == 2
        assert [asked.image.size for asked in server.asked] == [(96, 64)] * 2
        assert {r.captioned_by for r in raw.records.values()} == {MODEL, None}
        # Lost captions are not paid for again.
        raw.path.unlink()
        raw.update(replace(r, **dict.fromkeys(("language", "cultural", "neutral")), modifiers=(),
                           nouns_cultural=(), nouns_neutral=()) for r in raw.records.values())  # fmt: skip
        again = caption(raw, vlm, limit=2)
        assert (again.done, again.cached, len(server.asked)) == (2, 2, 2)
