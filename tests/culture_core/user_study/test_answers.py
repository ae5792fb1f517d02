"""Answers from anywhere are checked before they count."""

import csv
import json

import pytest

from culture_core.user_study.answers import COLUMNS, collect_answers, read_answers
from culture_core.user_study.pictures import StudyError


@pytest.fixture
def rater(study) -> str:
    return next(iter(study.raters))


@pytest.fixture
def write(tmp_path, answered):
    """Writes a rater's file, JSON or CSV by its name, after a change."""

    def to(name, rater, change=lambda record: None, rule=None):
        record = answered(rater, rule)
        change(record)
        path = tmp_path / name
        if name.endswith(".json"):
            path.write_text(json.dumps(record), "utf-8")
            return path
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            head = {key: record[key] for key in COLUMNS[:3]}
            writer.writerows({**head, **row, "asked": row["asked"] or ""} for row in record["answers"])
        return path

    return to


def test_json_and_csv_say_the_same(study, rater, write):
    sheet = read_answers(write("a.json", rater), study)
    assert read_answers(write("a.csv", rater), study) == sheet
    assert sheet.rater == rater and sheet.language == "th" and list(sheet.answers) == list(range(1, 22))
    assert {answer.seconds for answer in sheet.answers.values()} == {2.5}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda r: r.update(format="other"), "holds no answers"),
        (lambda r: r.update(version=2), "holds no answers"),
        (lambda r: r.update(study="other"), "belongs to study 'other'"),
        (lambda r: r.update(rater="AAAAA"), "knows no rater 'AAAAA'"),
        (lambda r: r.update(rater=["x"]), "knows no rater"),
        (lambda r: r.update(language="<b>"), "is no language"),
        (lambda r: r.update(answers={}), "must be a list"),
        (lambda r: r.update(answers=[]), "holds no answer"),
        (lambda r: r["answers"].append("text"), "there is no question"),
        (lambda r: r["answers"].append(r["answers"][0]), "question 1 is answered twice"),
        (lambda r: r["answers"][0].update(number=0), "there is no question '0'"),
        (lambda r: r["answers"][0].update(number=True), "there is no question 'True'"),
        (lambda r: r["answers"][0].update(number=99), "there is no question '99'"),
        (lambda r: r["answers"][0].update(picture="other"), "another one than the key's"),
        (lambda r: r["answers"][0].update(task="csr"), "another one than the key's"),
        (lambda r: r["answers"][0].update(asked="th"), "another one than the key's"),
        (lambda r: r["answers"][0].update(answer="martian"), "is no answer to question 1"),
        (lambda r: r["answers"][0].update(answer=["th"]), "is no answer to question 1"),
        (lambda r: r["answers"][-1].update(answer=5), "is no answer to question 21"),
        (lambda r: r["answers"][0].update(seconds=-1), "'seconds' of question 1"),
        (lambda r: r["answers"][0].update(seconds=10**400), "'seconds' of question 1"),
        (lambda r: r["answers"][0].update(seconds=float("nan")), "is no JSON"),
        (lambda r: r["answers"][0].update(seconds="2"), "'seconds' of question 1"),
    ],
)
def test_what_the_questionnaire_cannot_have_written_is_refused(study, rater, write, change, message):
    with pytest.raises(StudyError, match=message):
        read_answers(write("a.json", rater, change), study)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "must have the columns"),
        ("a,b\n1,2\n", "must have the columns"),
        (",".join(COLUMNS) + "\n1,2,3,4,5,6,7,8,9,10\n", "must have the columns"),
        (",".join(COLUMNS) + "\ns,r,th,one,mcc,p,,th,2\n", "'number' is 'one', no number"),
        (",".join(COLUMNS) + "\ns,r,th,1,mcc,p,,th\n", "'seconds' is 'None', no number"),
        (",".join(COLUMNS) + "\ns,r,th,1,mcc,p,,th,2\ns,q,th,2,mcc,p,,th,2\n", "mixes studies, raters"),
        ('"' + "x" * 200_000, "is no CSV"),
    ],
)
def test_a_table_of_another_kind_is_refused(study, tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text, "utf-8")
    with pytest.raises(StudyError, match=message):
        read_answers(tmp_path / "a.csv", study)


def test_a_file_that_is_missing_too_large_or_no_text_is_refused(study, tmp_path):
    (tmp_path / "large.json").write_bytes(b" " * (5 << 20))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name, message in (("none", "no file"), ("large", "at most 4 MiB"), ("binary", "UTF-8")):
        with pytest.raises(StudyError, match=message):
            read_answers(tmp_path / f"{name}.json", study)


def test_files_of_one_rater_are_joined_and_bad_ones_told(study, rater, write, tmp_path):
    early = write("early.json", rater, lambda record: record.update(answers=record["answers"][:5]))
    late = write("late.csv", rater, lambda record: record.update(answers=record["answers"][3:]))
    other = write("other.json", rater, lambda record: record.update(study="x"))
    sheets, refused = collect_answers([early, other, late], study)
    assert len(sheets[rater].answers) == 21 and list(sheets) == [rater]
    assert list(refused) == [str(other)] and "belongs to study" in refused[str(other)]


def test_contradicting_files_of_one_rater_are_all_refused(study, rater, write):
    def shift(record):
        last = record["answers"][-1]
        last["answer"] = "1" if last["answer"] != "1" else "2"

    files = [write("a.json", rater), write("b.json", rater, shift)]
    second = list(study.raters)[1]
    sheets, refused = collect_answers([*files, write("c.json", second)], study)
    assert list(sheets) == [second] and set(refused) == set(map(str, files))
    assert "contradict each other at question 21" in refused[str(files[0])]
