"""The client of VLM servers against a real HTTP server, in good and bad order."""

import logging
import sys
import threading

import pytest
from PIL import Image

from culture_core.vlm import VLM, VLMError, VLMRefusal
from culture_core.vlm.server import ServerSettings, ServerVLM
from culture_core.vlm.usage import Prices, Usage

from ...chat_server import MODEL, Answer, ChatServer, chosen, failed, in_turn, said

KEY = "secret-key-0123"
RED = Image.new("RGB", (40, 30), "red")


@pytest.fixture
def ask_from(tmp_path):
    """A VLM that asks a server, without patience unless told."""

    def make(server: ChatServer, **settings) -> ServerVLM:
        settings = {"model": MODEL, "key": KEY, "retries": 0, "timeout": 20.0, **settings}
        return ServerVLM(ServerSettings(server.url, **settings), tmp_path / "cache")

    return make


def test_a_question_about_a_picture_arrives_whole(ask_from):
    with ChatServer(in_turn(said(" A red flag. "))) as server:
        vlm = ask_from(server, options={"seed": 7, "temperature": 0.5})
        reply = vlm.ask("What is it?", RED, max_tokens=12)
    (asked,) = server.asked
    assert isinstance(vlm, VLM) and vlm.name == MODEL
    assert reply == ("A red flag.", MODEL, False, None)
    assert asked.text == "What is it?" and asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.image.size == RED.size and asked.image.getpixel((3, 3)) == (255, 0, 0)
    assert asked.body["max_tokens"] == 12 and asked.body["seed"] == 7 and asked.body["temperature"] == 0.5
    assert "response_format" not in asked.body


def test_a_question_needs_no_picture(ask_from):
    with ChatServer(in_turn(said("4"))) as server:
        assert ask_from(server).ask("2 + 2?").text == "4"
    assert server.asked[0].body["messages"][0]["content"] == "2 + 2?"
    assert server.asked[0].body["temperature"] == 0


def test_large_pictures_are_scaled_and_transparency_becomes_white(ask_from):
    with ChatServer(in_turn(said("x"))) as server:
        vlm = ask_from(server, longest_edge=50)
        vlm.ask("?", Image.new("RGBA", (200, 100), (255, 0, 0, 0)))
        assert server.asked[0].image.size == (50, 25)
        assert server.asked[0].image.getpixel((5, 5)) == (255, 255, 255)


def test_choices_are_asked_for_as_structured_output(ask_from):
    with ChatServer(in_turn(chosen("Thai"))) as server:
        reply = ask_from(server).ask("Which?", RED, choices=["Thai", "Dutch"])
    assert reply.text == "Thai" and server.asked[0].choices == ["Thai", "Dutch"]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_structured_output_is_asked_in_words_from_then_on(status, ask_from):
    def answer(asked):
        return failed(status, "unknown field") if asked.choices else said("Dutch")

    with ChatServer(answer) as server:
        vlm = ask_from(server)
        assert vlm.ask("Which?", RED, choices=["Thai", "Dutch"]).text == "Dutch"
        assert len(server.asked) == 2 and "Thai | Dutch" in server.asked[1].text
        vlm.ask("And now?", RED, choices=["Thai", "Dutch"])
        assert len(server.asked) == 3, "the server is not asked again what it does not know"


def test_a_server_that_ignores_the_schema_is_taken_at_its_word(ask_from):
    with ChatServer(in_turn(said("It may be Thai."), said('{"culture": "Thai"}'), said("[1]"))) as server:
        vlm = ask_from(server)
        texts = [vlm.ask(f"Which? {i}", choices=["Thai"]).text for i in range(3)]
    assert texts == ["It may be Thai.", '{"culture": "Thai"}', "[1]"]


def test_parts_of_a_request_that_a_server_names_are_left_out(ask_from):
    def answer(asked):
        for name in ("max_tokens", "temperature"):
            if name in asked.body:
                return failed(400, f"Unsupported parameter: '{name}' is not supported with this model.")
        return chosen("Thai")

    with ChatServer(answer) as server:
        assert ask_from(server).ask("?", choices=["Thai"], max_tokens=9).text == "Thai"
    last = server.asked[-1].body
    assert len(server.asked) == 3 and last["max_completion_tokens"] == 9 and "response_format" in last


def test_a_request_that_is_wrong_for_good_is_refused_after_one_more_try(ask_from):
    with ChatServer(in_turn(failed(400, "the picture is broken"), failed(400, "the picture is broken"),
                            chosen("Thai"))) as server:  # fmt: skip
        vlm = ask_from(server)
        with pytest.raises(VLMError, match="status 400.*the picture is broken"):
            vlm.ask("?", RED, choices=["Thai"])
        assert len(server.asked) == 2
        vlm.ask("??", RED, choices=["Thai"])
        assert server.asked[2].choices == ["Thai"], "what failed with and without a schema says nothing of it"


def test_thoughts_are_no_part_of_the_answer(ask_from):
    with ChatServer(in_turn(said('<think>\nThai? </think>\n{"answer": "Thai"}'))) as server:
        assert ask_from(server).ask("?", choices=["Thai"]).text == "Thai"


# ------------------------------------------------------------------------------------------------- failures


def test_429_is_repeated_after_the_time_that_the_server_asks_for(ask_from):
    with ChatServer(in_turn(failed(429, Retry_After="1"), said("now"))) as server:
        assert ask_from(server, retries=1).ask("?").text == "now"
    first, second = (asked.time for asked in server.asked)
    assert second - first >= 0.95, "sooner is what the server forbade"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (429, "takes no more requests.*429, in up to 2 attempts"),
        (500, "failed with status 500"),
        (503, "failed with status 503"),
    ],
)
def test_failures_that_pass_are_repeated_so_often_and_no_oftener(status, message, ask_from):
    with ChatServer(in_turn(failed(status, retry_after_ms="1"))) as server:
        with pytest.raises(VLMError, match=message):
            ask_from(server, retries=1).ask("?")
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "does not accept the key"), (403, "does not accept the key"), (404, "does not know this model")],
)
def test_failures_that_stay_are_not_repeated(status, message, ask_from):
    with ChatServer(in_turn(failed(status))) as server:
        with pytest.raises(VLMError, match=message):
            ask_from(server, retries=3).ask("?")
    assert len(server.asked) == 1


def test_a_server_that_takes_too_long_is_not_waited_for(ask_from):
    with ChatServer(in_turn(said("late")._replace(wait=1.0))) as server:
        with pytest.raises(VLMError, match="no answer within 0.2 s"):
            ask_from(server, timeout=0.2).ask("?")


def test_a_server_that_is_not_there_is_said_to_be(tmp_path):
    with ChatServer(in_turn(said("x"))) as server:
        url = server.url
    vlm = ServerVLM(ServerSettings(url, MODEL, retries=0), tmp_path)
    with pytest.raises(VLMError, match="cannot be reached"):
        vlm.ask("?")


MALFORMED = (
    b"<html>hello</html>", b"", b"{", b"null", b"[]", b"{}", b'{"choices": null}', b'{"choices": []}',
    b'{"choices": [{}]}', b'{"choices": [{"message": null, "finish_reason": "stop"}]}',
    b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}',
    b'{"choices": [{"message": {"content": 3}, "finish_reason": "stop"}]}',
)  # fmt: skip


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_malformed_answers_are_no_answers_and_are_not_kept(kind, ask_from):
    bad = [Answer(200, body, {"Content-Type": kind}) for body in MALFORMED]
    with ChatServer(in_turn(*bad, said("fine"))) as server:
        vlm = ask_from(server)
        for body in MALFORMED:
            with pytest.raises(VLMError, match="malformed|empty"):
                print(body, vlm.ask("?"))
        assert vlm.ask("?").text == "fine"


@pytest.mark.parametrize(
    "answer",
    [
        said(None, refusal="I cannot say."),
        said("Th", finish_reason="content_filter"),
        failed(400, "flagged", "content_policy_violation"),
    ],
)
def test_a_refusal_is_told_from_a_failure(answer, ask_from):
    with ChatServer(in_turn(answer)) as server, pytest.raises(VLMRefusal, match="declined"):
        ask_from(server).ask("?")


def test_an_answer_that_never_came_for_thinking_says_what_to_do(ask_from):
    with ChatServer(in_turn(said("", finish_reason="length"))) as server:
        with pytest.raises(VLMError, match="used up its 8 tokens.*reasoning_effort"):
            ask_from(server).ask("?", max_tokens=8)


# ---------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("answering", [MODEL, f"{MODEL}-2025-08-07", f"{MODEL}:latest", f"models/{MODEL}"])
def test_the_asked_model_under_its_longer_name_is_no_surprise(answering, ask_from, caplog):
    with ChatServer(in_turn(said("x", model=answering))) as server:
        assert ask_from(server).ask("?").model == answering
    assert not caplog.records


def test_another_model_is_named_and_warned_of_once(ask_from, caplog):
    with ChatServer(in_turn(said("x", model=f"{MODEL}-lite"))) as server:
        vlm = ask_from(server)
        replies = [vlm.ask(question) for question in ("?", "??", "?")]
    assert {reply.model for reply in replies} == {f"{MODEL}-lite"}
    assert [r.getMessage() for r in caplog.records] == [
        f"The server was asked for the model {MODEL}, and {MODEL}-lite answered."
    ]


# --------------------------------------------------------------------------------------------- cache, costs


def test_a_question_is_asked_once_and_every_part_of_it_counts(ask_from):
    with ChatServer(lambda asked: chosen("Thai")) as server:
        vlm = ask_from(server, prices=Prices(1.0, 2.0))
        first = vlm.ask("?", RED, choices=["Thai", "Dutch"])
        again = ask_from(server).ask("?", RED.copy(), choices=["Thai", "Dutch"])
        assert len(server.asked) == 1 and first.text == again.text
        assert (first.cached, again.cached, again.cost) == (False, True, 0.0)
        other = Image.new("RGB", (30, 40), "red")
        vlm.ask("?", other, choices=["Thai", "Dutch"])
        vlm.ask("??", RED, choices=["Thai", "Dutch"])
        vlm.ask("?", RED, choices=["Dutch", "Thai"])
        vlm.ask("?", None, choices=["Thai", "Dutch"])
        ask_from(server, model="other").ask("?", RED, choices=["Thai", "Dutch"])
        assert len(server.asked) == 6


def test_a_damaged_cache_is_asked_anew(ask_from, tmp_path):
    with ChatServer(in_turn(said("x"))) as server:
        vlm = ask_from(server)
        vlm.ask("?")
        (file,) = (tmp_path / "cache").rglob("*.json")
        file.write_text('{"text": ')
        assert not vlm.ask("?").cached and vlm.ask("?").cached


def test_costs_come_from_the_servers_count_and_the_configured_prices(ask_from):
    prices = Prices(prompt=2.0, completion=10.0, currency="EUR")
    with ChatServer(in_turn(said("x", usage=(1000, 50)))) as server:
        vlm = ask_from(server, prices=prices)
        assert vlm.ask("?").cost == pytest.approx((1000 * 2 + 50 * 10) / 1e6)
        vlm.ask("?")
        vlm.ask("??")
    assert vlm.usage == Usage(2, 2000, 100)
    assert vlm.usage.describe(prices).endswith("0.0050 EUR")
    assert (
        vlm.usage.describe(None)
        == "2 answers, 2,000 prompt tokens and 100 answer tokens, no price configured"
    )


def test_an_estimate_asks_one_question_and_does_not_lose_its_answer(ask_from):
    with ChatServer(in_turn(chosen("Thai", usage=(300, 4)))) as server:
        vlm = ask_from(server)
        for _ in range(2):
            assert vlm.estimate(700, "?", RED, choices=["Thai"]) == Usage(700, 210_000, 2800)
        assert vlm.ask("?", RED, choices=["Thai"]).cached and len(server.asked) == 1


def test_a_server_that_does_not_count_has_no_cost(ask_from):
    with ChatServer(in_turn(said("x", usage=None))) as server:
        vlm = ask_from(server, prices=Prices(1, 1))
        assert vlm.ask("?").cost is None
    assert "not counted" in vlm.usage.describe(Prices(1, 1))


# ------------------------------------------------------------------------------------------ rate and secrets


def test_requests_keep_their_distance_across_threads_and_retries(ask_from):
    with ChatServer(in_turn(failed(500, retry_after_ms="1"), said("x"))) as server:
        vlm = ask_from(server, requests_per_minute=1200, retries=1)  # 50 ms apart
        threads = [threading.Thread(target=vlm.ask, args=(str(i),)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    times = sorted(asked.time for asked in server.asked)
    assert len(times) == 5 and times[-1] - times[0] >= 4 * 0.05 - 0.02


def test_neither_key_nor_address_appears_anywhere(ask_from, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    echo = f"Incorrect API key provided: {KEY}"
    with ChatServer(in_turn(failed(500, echo), said("x"))) as server:
        vlm = ask_from(server)
        with pytest.raises(VLMError) as raised:
            vlm.ask("?")
        vlm.ask("?")
        said_of_it = [str(raised.value), repr(vlm.settings), repr(raised.value.__cause__)]
        kept = [file.read_text() for file in (tmp_path / "cache").rglob("*.json")]
        port = server.url.rpartition(":")[2]
    assert "Incorrect API key provided: ***" in said_of_it[0]
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith("openai")]
    assert not [text for text in said_of_it + kept + logged if KEY in text or port in text]
    assert not [r for r in caplog.records if KEY in r.getMessage()]


def test_openais_own_variables_are_not_sent_to_other_servers(ask_from, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, f"private-{name}")
    with ChatServer(in_turn(said("x"))) as server:
        ask_from(server, key="").ask("?")
    assert not [value for value in server.asked[0].headers.values() if "private" in value]


def test_a_missing_client_library_is_named(ask_from, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)  # how Python marks what cannot be imported
    with ChatServer(in_turn(said("x"))) as server, pytest.raises(VLMError, match="pip install openai"):
        ask_from(server)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "ftp://host/v1"}, "http"),
        ({"url": "host:8000"}, "http"),
        ({"model": " "}, "name of a model"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"timeout": -1}, "timeout"),
        ({"retries": -1}, "retries"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, message):
    with pytest.raises(VLMError, match=message):
        ServerSettings(**{"url": "http://localhost/v1", "model": "m", **fields})
