"""Prompt lists, and which text of a prompt a treatment takes."""

import json
from pathlib import Path

import pytest

from culture_core.bench import Bench
from culture_core.generators import GeneratorError
from culture_core.generators.prompts import TREATMENTS, Texts, prompts_hash, read_prompts
from culture_core.miniature.captions import prompt_pairs
from culture_core.pairs import PairError, save_pairs
from culture_core.vlm import VLMError
from culture_core.vlm.server import ServerSettings, ServerVLM

from ...chat_server import MODEL, ChatServer, said

MODELS = Path(__file__).resolve().parents[3] / "models"
BENCH = MODELS / "culture_bench" / "miniature"


def test_of_a_bench_the_accepted_test_records_are_drawn_once_a_neutral_prompt():
    found = read_prompts(BENCH)
    records = {record.id: record for record in Bench.open(BENCH).accepted("test")}
    assert len(found) == len({(r.culture, r.language, r.neutral) for r in records.values()}) > 15
    for prompt in found:
        record = records[prompt.item]
        assert (prompt.neutral, prompt.explicit) == (record.neutral, record.cultural)
        assert (prompt.english, prompt.english_explicit) == (record.english_neutral, record.english)


def test_of_pairs_those_that_nothing_was_trained_on_are_drawn(tmp_path):
    pairs = [*prompt_pairs("train"), *prompt_pairs("test")]
    save_pairs(pairs, tmp_path / "pairs.jsonl")
    found = read_prompts(tmp_path / "pairs.jsonl")
    assert {p.item for p in found} <= {pair.id for pair in prompt_pairs("test")}
    assert [p.item for p in found] == [p.item for p in read_prompts("miniature")]
    with pytest.raises(PairError, match="no prompt pairs for evaluating systems"):
        read_prompts(MODELS / "culture_pairs" / "miniature.jsonl")


def test_the_miniatures_test_prompts_have_english_glosses():
    found = read_prompts("miniature")
    assert len(found) == 30 and len({prompt.culture for prompt in found}) == 15
    german = next(prompt for prompt in found if prompt.culture == "de")
    assert german.english and german.english_explicit and german.noun in german.english
    assert prompts_hash(found) != prompts_hash(found[1:])


def test_a_list_that_is_not_there_is_refused():
    with pytest.raises(GeneratorError, match="nowhere holds no prompts: give a CultureBench folder"):
        read_prompts("nowhere")


def texts(tmp_path, server):
    settings = ServerSettings(server.url, MODEL, retries=0)
    return Texts(tmp_path / "run" / "texts.jsonl", lambda: ServerVLM(settings, tmp_path / "cache"))


def test_every_treatment_takes_its_text(tmp_path):
    prompt = read_prompts("miniature")[0]
    with ChatServer(lambda asked: said(' "A carved teapot\nwith ornaments" ')) as server:
        given = {treatment: texts(tmp_path, server).text(prompt, treatment) for treatment in TREATMENTS}
        assert given == {
            "neutral": prompt.neutral, "explicit": prompt.explicit, "translated": prompt.english,
            "translated_explicit": prompt.english_explicit, "rewritten": "A carved teapot with ornaments",
        }  # fmt: skip
        assert len(server.asked) == 1 and "Arab culture" in server.asked[0].text
        assert prompt.neutral in server.asked[0].text


def test_what_was_written_is_kept_with_the_run_and_not_asked_for_again(tmp_path):
    prompt = read_prompts("miniature")[0]._replace(english=None)
    with ChatServer(lambda asked: said("a drawing")) as server:
        assert texts(tmp_path, server).given(prompt, "translated") is None
        assert texts(tmp_path, server).text(prompt, "translated") == "a drawing"
    path = tmp_path / "run" / "texts.jsonl"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["model"] == MODEL and server.url not in json.dumps(record)
    path.write_text(path.read_text(encoding="utf-8") + '{"treat', encoding="utf-8")
    again = Texts(path, lambda: pytest.fail("asked again"))
    assert again.text(prompt, "translated") == "a drawing"


def test_english_prompts_need_no_translation(tmp_path):
    prompt = read_prompts("miniature")[0]._replace(language="en", english=None, english_explicit=None)
    own = Texts(tmp_path / "none", lambda: pytest.fail("asked"))
    assert own.text(prompt, "translated") == prompt.neutral
    assert own.text(prompt, "translated_explicit") == prompt.explicit


def test_an_answer_that_is_no_prompt_is_refused(tmp_path):
    with ChatServer(lambda asked: said("x" * 3000)) as server:
        with pytest.raises(VLMError, match="that is no prompt"):
            texts(tmp_path, server).text(read_prompts("miniature")[0], "rewritten")
