"""Judging a folder: what is kept, what is asked again, what ends it."""

import json
import time

import pytest
from PIL import Image

from culture_core.judges import open_judge
from culture_core.judges.folders import read_folder
from culture_core.judges.run import ANSWERS, PATIENCE, judge_folder, read_run
from culture_core.vlm import VLMError

from ...chat_server import ChatServer, chosen, failed, in_turn
from .conftest import COLOURS, seen_by_colour

RIGHT = lambda asked: chosen("3" if "1 to 5" in asked.text else seen_by_colour(asked))  # noqa: E731


def test_every_picture_is_judged_and_kept(judge_by, plain_pictures, tmp_path):
    told = []
    with ChatServer(RIGHT) as server:
        found = judge_folder(
            judge_by(server), read_folder(plain_pictures), tmp_path / "out", workers=3,
            progress=lambda done, total: told.append((done, total)),
        )  # fmt: skip
    assert len(found.judged) == 6 and all(item.right for item in found.judged) and not found.failed
    assert told == [(done, 6) for done in range(7)]
    assert sorted(read_run(tmp_path / "out"), key=lambda item: item.file) == found.judged


def test_a_stopped_run_goes_on_where_it_was(judge_by, plain_pictures, tmp_path):
    pictures, output = read_folder(plain_pictures), tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with ChatServer(lambda asked: RIGHT(asked)._replace(wait=0.02)) as server:
        with pytest.raises(KeyboardInterrupt) as raised:
            judge_folder(judge_by(server, 1), pictures, output, workers=1, progress=stop)
        kept, before = (output / ANSWERS).read_text(encoding="utf-8"), len(server.asked)
        time.sleep(0.2)
        assert raised and len(server.asked) == before <= 4, (
            "no thread goes on behind the back of who stopped it"
        )
        (output / ANSWERS).write_text(kept + '{"file": "th/1.png", "cul', encoding="utf-8")  # cut off
        assert len(read_run(output)) == 2
        found = judge_folder(judge_by(server, 1), pictures, output)
        assert len(found.judged) == 6 and len(server.asked) == 6
    assert len((output / ANSWERS).read_text(encoding="utf-8").splitlines()) == 6


def test_a_finished_run_loads_and_asks_nothing(judge_by, plain_pictures, tmp_path):
    with ChatServer(RIGHT) as server:
        first = judge_folder(judge_by(server), read_folder(plain_pictures), tmp_path / "out")
        asked = len(server.asked)
    again = judge_folder(judge_by(server), read_folder(plain_pictures), tmp_path / "out")  # nobody listens
    assert again == first and asked == 18


def test_a_picture_that_changed_is_judged_anew(plain_pictures, tmp_path):
    judge, output = open_judge("miniature"), tmp_path / "out"
    judge_folder(judge, read_folder(plain_pictures), output)
    before = {item.file: item.verdict for item in read_run(output)}
    Image.new("RGB", (8, 8), "yellow").save(plain_pictures / "th" / "0.png")
    (plain_pictures / "ja" / "0.png").unlink()
    after = {
        item.file: item.verdict for item in judge_folder(judge, read_folder(plain_pictures), output).judged
    }
    assert [file for file in after if after[file] != before[file]] == ["th/0.png"]
    assert set(before) - set(after) == {"ja/0.png"} and len(read_run(output)) == 5


def test_what_a_picture_should_show_may_be_corrected_later(judge_by, plain_pictures, tmp_path):
    lines = [{"file_name": "th/0.png", "culture": "ja"}, {"file_name": "fr/0.png", "culture": "fr"}]
    metadata = plain_pictures / "metadata.jsonl"
    with ChatServer(lambda a: chosen("5" if "Thai culture" in a.text else "1") if "1 to 5" in a.text
                    else RIGHT(a)) as server:  # fmt: skip
        for right in (False, True):
            lines[0]["culture"] = "th" if right else "ja"
            metadata.write_text("\n".join(map(json.dumps, lines)))
            pictures = read_folder(plain_pictures)
            found = judge_folder(judge_by(server, 1), pictures, tmp_path / "out", graded=["relevance"])
            item = next(item for item in found.judged if item.file == "th/0.png")
            assert item.right is right and item.grades["relevance"] == (5 if right else 1)
        assert len(server.asked) == 5, "what was asked about the picture before is not asked again"


def test_other_questions_need_another_folder(judge_by, plain_pictures, tmp_path):
    pictures, output = read_folder(plain_pictures), tmp_path / "out"
    with ChatServer(RIGHT) as server:
        judge_folder(judge_by(server), pictures, output)
        for other in (judge_by(server, 2), judge_by(server, model="other"), open_judge("miniature")):
            with pytest.raises(ValueError, match="another judge, or to other questions"):
                judge_folder(other, pictures, output)
        with pytest.raises(ValueError, match="other questions"):
            judge_folder(judge_by(server), pictures, output, graded=["relevance"])


def test_a_picture_without_an_answer_is_left_for_the_next_run(judge_by, plain_pictures, tmp_path, caplog):
    (plain_pictures / "th" / "0.png").write_bytes(b"no picture")
    broken = [COLOURS["fr"]]

    def answer(asked):
        return failed(500) if asked.image.getpixel((0, 0)) in broken else RIGHT(asked)

    with ChatServer(answer) as server:
        judge, output = judge_by(server, 1), tmp_path / "out"
        found = judge_folder(judge, read_folder(plain_pictures), output)
        assert set(found.failed) == {"th/0.png", "fr/0.png", "fr/1.png"} and len(found.judged) == 3
        assert "500" in found.failed["fr/0.png"] and "fr/0.png" in caplog.text
        broken.clear()
        found = judge_folder(judge, read_folder(plain_pictures), output)
        assert set(found.failed) == {"th/0.png"} and len(found.judged) == 5


def test_a_server_that_is_down_ends_the_run_early(judge_by, plain_pictures, tmp_path):
    for index in range(2, 12):
        Image.new("RGB", (8 + index, 8), COLOURS["th"]).save(plain_pictures / "th" / f"{index}.png")
    with ChatServer(in_turn(failed(401))) as server:
        with pytest.raises(VLMError, match=f"after {PATIENCE} pictures in a row.*does not accept the key"):
            judge_folder(judge_by(server, 1), read_folder(plain_pictures), tmp_path / "out", workers=1)
        assert PATIENCE <= len(server.asked) <= PATIENCE + 2


def test_graded_questions_are_asked_of_models_that_can_answer(judge_by, plain_pictures, tmp_path):
    with ChatServer(RIGHT) as server:
        pictures, asked = read_folder(plain_pictures), ["relevance", "exaggeration"]
        found = judge_folder(judge_by(server, 1), pictures, tmp_path / "out", graded=asked)
    assert all(item.grades == {"relevance": 3, "exaggeration": 3} for item in found.judged)
    with pytest.raises(ValueError, match="miniature answers no graded questions"):
        judge_folder(open_judge("miniature"), [], tmp_path / "other", graded=["relevance"])


def test_answers_are_lines_of_json_with_who_answered(judge_by, plain_pictures, tmp_path):
    with ChatServer(RIGHT) as server:
        judge_folder(judge_by(server), read_folder(plain_pictures), tmp_path / "out")
    record = json.loads((tmp_path / "out" / ANSWERS).read_text(encoding="utf-8").splitlines()[0])
    assert record["models"] == ["tiny-vl"] * 3 and record["texts"][0] == seen(record["culture"])
    with pytest.raises(ValueError, match="no answers"):
        read_run(tmp_path)


def seen(code: str) -> str:
    return {"th": "Thai", "ja": "Japanese", "fr": "French"}[code]


def test_of_two_answers_about_one_picture_the_last_counts(judge_by, plain_pictures, tmp_path):
    """Which a killed run leaves where what a picture should show was corrected."""
    with ChatServer(RIGHT) as server:
        found = judge_folder(judge_by(server), read_folder(plain_pictures), tmp_path / "out").judged
    answers = tmp_path / "out" / ANSWERS
    lines = answers.read_text(encoding="utf-8").splitlines()
    older = json.loads(lines[-1]) | {"culture": "de"}
    answers.write_text("\n".join([json.dumps(older), *lines]), encoding="utf-8")
    assert sorted(read_run(tmp_path / "out"), key=lambda item: item.file) == found
