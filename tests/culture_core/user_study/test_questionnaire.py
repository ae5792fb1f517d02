"""The questionnaire in a real browser: everything answered, nothing lost on the way."""

import csv
import json
import time
from pathlib import Path

import pytest

from culture_core.__main__ import main
from culture_core.user_study.design import read_key
from tools.browser import MISSING
from tools.browser import browser as open_browser

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def study(run_folder, folder):
    """Nine questions and three checks a rater, written by the command."""
    arguments = ["--raters", "3", "--questions", "3", "--ratings", "1", "--note", "Ask <us>", "--seed", "2"]
    assert main(["user-study", "build", str(run_folder), "--output", str(folder), *arguments]) == 0
    return read_key(folder / "key.private.json")


def keeping(downloads: Path, **settings):
    """A browser that saves what it downloads there."""
    content = "profile.default_content_setting_values"
    return open_browser((1200, 900), {"download.default_directory": str(downloads), content: settings})


@pytest.fixture(scope="module")
def browser(folder):
    with keeping(folder / "downloads") as driver:
        yield driver


@pytest.fixture
def page(browser, study, folder):
    """The page as one who has never been there finds it."""
    browser.get((folder / "questionnaire.html").as_uri())
    browser.execute_script("localStorage.clear()")
    browser.get("about:blank")
    return Page(browser, (folder / "questionnaire.html").as_uri())


class Page:
    """What people do on the page."""

    def __init__(self, browser, address: str) -> None:
        self.browser, self.address = browser, address

    def get(self, selector: str):
        return self.browser.find_element("css selector", selector)

    def reload(self) -> None:
        """Load the page again, after the moment that Chromium takes to hand the stored answers on."""
        time.sleep(0.5)
        self.browser.refresh()

    def all(self, selector: str) -> list:
        return self.browser.find_elements("css selector", selector)

    def open(self, code: str, language: str = "en") -> None:
        time.sleep(0.5)  # see `reload`
        self.browser.get(f"{self.address}#{code}")
        self.get(f"#language option[value={language}]").click()
        self.get("#start button").click()

    def press(self, keys: str) -> None:
        self.browser.switch_to.active_element.send_keys(keys)

    def answer(self, value: str) -> None:
        self.get(f"#options input[value='{value}']").click()
        self.get("#question button:not([type])").click()

    @property
    def chosen(self) -> list[str]:
        return [box.get_attribute("value") for box in self.all("#options input:checked")]

    @property
    def stored(self) -> dict:
        return self.browser.execute_script("return {...localStorage}")


def right(study, question) -> str:
    return (
        question.check
        or {
            "mcc": study.pictures[question.picture].culture,
            "scc": "yes" if question.asked == study.pictures[question.picture].culture else "no",
            "csr": "4",
        }[question.task]
    )


def downloaded(path: Path) -> Path:
    until = time.monotonic() + 30
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return path


def test_everything_is_answered_reloaded_downloaded_and_analysed(page, study, folder, capsys):
    code, rater = list(study.raters.items())[0]
    answers = [right(study, question) for question in rater.questions]
    page.open(code)
    page.press("\n")
    assert (
        page.get("#problem").text == "Please choose an answer."
        and page.get("#progress").get_attribute("value") == "0"
    )
    signs = "123456789ABCDEFG"
    for answer in answers[:3]:  # by keyboard alone
        page.press(signs[rater.options.index(answer)].lower())
        page.press("\n")
    page.get(f"#options input[value='{answers[3]}']").click()  # chosen, but not gone on

    page.reload()
    assert page.get("#place").text == "Part 1 of 3 · Question 4 of 12" and page.chosen == [answers[3]]
    page.get("#back").click()
    assert page.chosen == [answers[2]], "earlier answers are there as well"
    page.get("#question button:not([type])").click()
    for answer in answers[3:]:
        page.answer(answer)

    page.reload()
    assert page.get("#end").is_displayed(), "also the end survives a reload"
    page.get("#json").click()
    page.get("#csv").click()
    files = [downloaded(folder / "downloads" / f"answers-{code}.{kind}") for kind in ("json", "csv")]
    record = json.loads(files[0].read_text("utf-8"))
    assert record["complete"] and [row["answer"] for row in record["answers"]] == answers
    with open(files[1], encoding="utf-8", newline="") as file:
        assert [row["answer"] for row in csv.DictReader(file)] == answers

    key, output = folder / "key.private.json", folder / "results"
    arguments = [*map(str, files), "--key", str(key), "--output", str(output), "--json"]
    assert main(["user-study", "analyse", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["refused"] == {} and result["raters"][code]["failed"] == 0
    means = {(one["measure"], one["mean"]) for one in result["scores"]}
    assert means == {("mcc", 100.0), ("scc", 100.0), ("scc_foil", 0.0), ("csr", 4.0)}

    assert page.browser.get_log("browser") == [], "no error, and nothing that the policy had to stop"
    loaded = page.browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.startswith(("data:", "blob:"))] == []


def test_two_people_on_one_machine_do_not_disturb_each_other(page, study):
    first, second = list(study.raters)[:2]
    page.open(first)
    page.answer("th")
    page.browser.get("about:blank")
    page.open(second)
    assert page.get("#place").text.endswith("Question 1 of 12") and not page.chosen
    page.answer("ar")
    page.browser.get("about:blank")
    page.browser.get(f"{page.address}#{first}")
    page.get("#start button").click()
    assert page.get("#place").text.endswith("Question 2 of 12")
    answers = [json.loads(text)["answers"] for name, text in page.stored.items() if name.count(":") == 2]
    assert sorted(one["1"]["answer"] for one in answers) == ["ar", "th"]


def test_arabic_runs_from_right_to_left_and_an_unknown_code_is_said(page, study):
    page.open("WRONG", "ar")
    assert page.get("html").get_attribute("dir") == "rtl" and page.get("html").get_attribute("lang") == "ar"
    assert "غير معروف" in page.get("#code-problem").text and page.get("#start").is_displayed()
    page.get("#code").clear()
    page.get("#code").send_keys(next(iter(study.raters)).lower())
    page.get("#start button").click()
    radio, sign = page.get("#options input").rect, page.get("#options kbd").rect
    assert radio["x"] > sign["x"] and page.get("#picture").rect["x"] > radio["x"]
    page.get("#language option[value=th]").click()
    assert page.get("html").get_attribute("dir") == "ltr" and "ภาพนี้" in page.get("#asked").text


def test_keys_work_on_keyboards_of_other_scripts_and_the_new_question_has_the_focus(page, study):
    rater = next(iter(study.raters.values()))
    page.open(next(iter(study.raters)))
    assert page.browser.switch_to.active_element.get_attribute("id") == "asked"
    arabic = (
        "arguments[0].dispatchEvent(new KeyboardEvent('keydown', {key: 'ش', code: 'KeyA', bubbles: true}))"
    )
    page.browser.execute_script(arabic, page.get("#asked"))
    assert page.chosen == [rater.options[9]]


def test_every_control_has_a_name_and_the_picture_tells_nothing(page, study):
    page.open(next(iter(study.raters)), "de")
    names = [box.accessible_name for box in page.all("#options input")]
    assert "Chinesische" in names and len(set(names)) == 16
    assert (
        page.get("fieldset").accessible_name == page.get("legend").text == "Welche Kultur zeigt dieses Bild?"
    )
    assert page.get("#picture").accessible_name == "Bild zu Frage 1"
    for control in page.all("button, select"):
        assert not control.is_displayed() or control.accessible_name


def test_a_phone_scrolls_down_only_and_keeps_the_way_on_in_sight(page, study):
    page.browser.set_window_size(500, 800)
    try:
        page.open(next(iter(study.raters)), "de")
        wide = "return document.documentElement.scrollWidth <= innerWidth"
        assert page.browser.execute_script(wide)
        box = page.get("#question button:not([type])").rect
        below = page.browser.execute_script("return innerHeight + scrollY")
        assert box["y"] + box["height"] <= below
    finally:
        page.browser.set_window_size(1200, 900)


def test_answers_so_far_can_be_downloaded_and_are_accepted(page, study, folder, capsys):
    code = list(study.raters)[2]
    page.open(code)
    page.answer("ja")
    page.get("#so-far").click()
    path = downloaded(folder / "downloads" / f"answers-{code}.json")
    assert json.loads(path.read_text("utf-8"))["complete"] is False
    arguments = [str(path), "--key", str(folder / "key.private.json"), "--output", str(folder / "part")]
    assert main(["user-study", "analyse", *arguments]) == 0
    assert "1 raters answered (1 of them not all), 2 did not" in capsys.readouterr().out


def test_a_browser_that_may_not_store_says_so_and_still_hands_over(study, folder):
    code, rater = list(study.raters.items())[1]
    # Which is how people block storage.
    with keeping(folder / "unsaved", cookies=2) as driver:
        page = Page(driver, (folder / "questionnaire.html").as_uri())
        page.open(code)
        assert "cannot save your answers" in page.get("#saved").text
        for question in rater.questions:
            page.answer(right(study, question))
        page.get("#json").click()
        record = json.loads(downloaded(folder / "unsaved" / f"answers-{code}.json").read_text("utf-8"))
        assert record["complete"] and len(record["answers"]) == len(rater.questions)
