"""A small run of three systems, as pictures on disk."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from culture_core.user_study import Study, design_study, read_run
from culture_core.user_study.answers import ANSWERS_FORMAT
from culture_core.user_study.design import Question

SYSTEMS = ("plain-secret", "amplified-secret", "modifier-secret")
CULTURES = ("th", "ar", "ja", "de")
PROMPTS = ("bowl-secret", "chair-secret", "hat-secret")


def write_run(folder: Path, systems: Sequence[str] = SYSTEMS, cultures: Sequence[str] = CULTURES) -> Path:
    """A run's folder: every picture has a colour of its own and metadata that name its system."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for s, system in enumerate(systems):
        for c, culture in enumerate(cultures):
            for p, prompt in enumerate(PROMPTS):
                about = PngImagePlugin.PngInfo()
                about.add_text("workflow", system)
                name = f"images/{system}-{culture}-{prompt}.png"
                colour = (60 + 60 * s, 60 + 40 * c, 60 + 60 * p)
                Image.new("RGB", (48, 32), colour).save(folder / name, pnginfo=about)
                lines.append(
                    {"file_name": name, "system": system, "prompt": prompt, "language": culture,
                     "culture": culture, "seed": 7, "steps": 20}
                )  # fmt: skip
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="session")
def study(run_folder: Path) -> Study:
    """Eighteen raters, six questions a task besides one check."""
    return design_study(read_run(run_folder), raters=18, questions=6, ratings=3, foils=1 / 3, seed=1)


@pytest.fixture
def answered(study: Study) -> Callable[..., dict]:
    """What a rater's JSON file holds, answered by a rule (the right answer where none is given)."""

    def answer(rater: str, rule: Callable[[Question], str] | None = None) -> dict:
        questions = study.raters[rater].questions
        answers = [
            {"number": number, "task": q.task, "picture": q.picture, "asked": q.asked, "seconds": 2.5,
             "answer": q.check or (rule or right(study))(q)}
            for number, q in enumerate(questions, start=1)
        ]  # fmt: skip
        return {
            "format": ANSWERS_FORMAT, "version": 1, "study": study.id, "rater": rater, "language": "th",
            "complete": True, "answers": answers,
        }  # fmt: skip

    return answer


def right(study: Study) -> Callable[[Question], str]:
    """The answer of a rater who sees what every picture was made for."""

    def rule(question: Question) -> str:
        culture = study.pictures[question.picture].culture
        if question.task == "mcc":
            return culture
        return {"scc": "yes" if question.asked == culture else "no", "csr": "5"}[question.task]

    return rule


def ordinary(study: Study, task: str) -> Iterator[tuple[str, Question]]:
    """Raters with each of their questions of a task, without checks."""
    for code, rater in study.raters.items():
        yield from ((code, q) for q in rater.questions if q.task == task and q.check is None)
