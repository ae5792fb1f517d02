"""The review page: over real HTTP, and in a real browser where there is one."""

import http.client
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from culture_core.bench import ACCEPTED, REJECTED, Bench, BenchError, ReviewServer
from culture_core.bench.captions import marked_captions
from culture_core.bench.review import MAX_BODY

from .conftest import captioned


@pytest.fixture
def waiting(raw) -> Bench:
    """A bench whose first three records have captions; none is decided upon."""
    raw.update(captioned(record, number) for number, record in enumerate(list(raw.records.values())[:3]))
    return raw


@pytest.fixture
def review(waiting) -> Iterator[ReviewServer]:
    with ReviewServer(waiting.folder, "jane") as server:
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        yield server
        server.stop()
        thread.join()


def call(review: ReviewServer, method: str, path: str, body: object = None, **headers: str) -> tuple:
    """(status, headers, body) of a request below the page's address."""
    connection = http.client.HTTPConnection("127.0.0.1", review.port, timeout=10)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} if data is not None else {}
    try:
        connection.request(method, f"/{review.key}/{path}", data, given | headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def shown(review: ReviewServer, id: str) -> dict:
    return json.loads(call(review, "GET", f"record/{id}")[2])


def decision(record: dict, decision: str, **more: str) -> dict:
    return {"decision": decision, "version": record["version"], "reason": "", **more}


def test_a_person_accepts_mends_rejects_and_takes_back(review, waiting):
    first, second, third, *_ = waiting.records
    queue = json.loads(call(review, "GET", "queue")[2])
    assert queue["waiting"] == list(waiting.records) and queue["decided"] == {"waiting": 6}
    one = shown(review, first)
    assert (one["cultural"], one["neutral"]) == marked_captions(waiting.records[first]) and "Jane Doe" in one[
        "source"
    ]
    texts = {"cultural": one["cultural"], "neutral": one["neutral"]}
    status, _, body = call(review, "POST", f"record/{first}", decision(one, ACCEPTED, **texts))
    assert status == 200 and json.loads(body) == {"waiting": 5, "accepted": 1}
    # It is on disk before the answer comes.
    assert Bench.open(waiting.folder).records[first].decision == ACCEPTED

    two = shown(review, second)
    mended = {"cultural": "<Topf> [aus Tirol]", "neutral": "<Topf>"}
    assert call(review, "POST", f"record/{second}", decision(two, ACCEPTED, **mended))[0] == 200
    found = Bench.open(waiting.folder).records[second]
    assert (found.cultural, found.noun, found.reviewer) == ("Topf aus Tirol", "bowl 1", "jane")
    assert found.cultural[slice(*found.modifiers[0])] == "aus Tirol"

    three = shown(review, third)
    assert call(review, "POST", f"record/{third}", decision(three, REJECTED, reason="poor picture"))[0] == 200
    rejected = Bench.open(waiting.folder).records[third]
    assert (rejected.decision, rejected.reason) == (REJECTED, "poor picture")
    assert call(review, "POST", f"record/{third}", decision(shown(review, third), "waiting"))[0] == 200
    back = Bench.open(waiting.folder).records[third]
    assert (back.decision, back.reviewer) == (None, None)


def test_what_makes_no_sense_changes_nothing(review, waiting):
    first, *_, last = waiting.records
    one, other = shown(review, first), shown(review, last)
    texts = {"cultural": one["cultural"], "neutral": one["neutral"]}
    for id, body, status, words in (
        (first, decision(one, REJECTED), 400, "without a reason"),
        (first, decision(one, ACCEPTED, **texts | {"neutral": "x"}), 400, "noun"),
        (last, decision(other, ACCEPTED, cultural="", neutral=""), 400, "must be a text"),
        (first, decision(one, "maybe"), 400, "decision"),
        (first, decision(one, ACCEPTED, culture="de"), 400, "texts alone"),
        (first, {"decision": 1}, 400, "texts alone"),
        (first, [1], 400, "JSON object"),
        (first, b"{", 400, ""),
        (first, decision(one, ACCEPTED, **texts) | {"version": "0"}, 409, "changed meanwhile"),
        ("nobody", decision(one, ACCEPTED, **texts), 400, "no record"),
        (first, b"x" * (MAX_BODY + 1), 413, "too long"),
    ):  # fmt: skip
        answer = call(review, "POST", f"record/{id}", body)
        assert (answer[0], words in json.loads(answer[2])["error"]) == (status, True), (body, answer)
    assert Bench.open(waiting.folder).records == waiting.records


def test_nobody_else_gets_in(review, waiting):
    first = next(iter(waiting.records))
    assert call(review, "GET", "queue", Host="evil.example")[0] == 403
    assert call(review, "GET", "queue", Host=f"evil.example:{review.port}")[0] == 403
    assert call(review, "GET", "queue", Host=f"localhost:{review.port}")[0] == 200
    body = decision(shown(review, first), REJECTED, reason="x")
    # What a form on another page can send without being asked.
    assert call(review, "POST", f"record/{first}", body, **{"Content-Type": "text/plain"})[0] == 400
    for wrong in ("", "x", review.key[:-1]):
        connection = http.client.HTTPConnection("127.0.0.1", review.port, timeout=10)
        connection.request("GET", f"/{wrong}/queue")
        assert connection.getresponse().status == 403
        connection.close()
    assert review._server.server_address[0] == "127.0.0.1"
    for path in (
        "picture/../records.jsonl",
        "picture/..%2Frecords.jsonl",
        "nothing",
        "record/a/b",
        "picture/nobody",
    ):
        assert call(review, "GET", path)[0] == 404, path


def test_pictures_and_page_come_with_headers_that_hold_them(review, waiting):
    for record in waiting.records.values():
        status, headers, body = call(review, "GET", f"picture/{record.id}")
        assert status == 200 and body == waiting.image_path(record).read_bytes()
        assert headers["Content-Type"].startswith("image/") and headers["X-Content-Type-Options"] == "nosniff"
    status, headers, body = call(review, "GET", "")
    policy = headers["Content-Security-Policy"]
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert status == 200 and f'<script nonce="{nonce}">'.encode() in body and b"NONCE" not in body
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert call(review, "GET", "")[1]["Content-Security-Policy"] != policy


def test_a_review_needs_a_reviewer_and_a_bench(waiting, tmp_path):
    with pytest.raises(BenchError, match="who reviews"):
        ReviewServer(waiting.folder, " ")
    with pytest.raises(BenchError, match="is no bench"):
        ReviewServer(tmp_path / "nothing", "jane")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """A headless Chromium, driven over its own protocol."""

    def __init__(self, folder, url: str) -> None:
        import websocket

        self.process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "about:blank",
             f"--user-data-dir={folder}", "--remote-debugging-port=0", "--remote-allow-origins=*"],
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        port = folder / "DevToolsActivePort"
        self.wait(lambda: port.is_file() and port.read_text().count("\n") >= 1)
        number = int(port.read_text().split()[0])
        connection = http.client.HTTPConnection("127.0.0.1", number, timeout=60)
        connection.request("PUT", f"/json/new?{url}")
        page = json.loads(connection.getresponse().read())
        self.socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=120)
        self.sent = 0

    def wait(self, ready) -> None:
        while not ready():
            assert self.process.poll() is None, "the browser has ended"
            time.sleep(0.05)

    def run(self, code: str) -> object:
        """The value of an expression on the page."""
        self.sent += 1
        parameters = {"expression": code, "awaitPromise": True, "returnByValue": True}
        self.socket.send(json.dumps({"id": self.sent, "method": "Runtime.evaluate", "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.sent:
                return answer["result"]["result"].get("value")

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_works_in_a_browser(review, waiting, tmp_path):
    pytest.importorskip("websocket")
    first, second, third, *_ = waiting.records
    browser = Browser(tmp_path / "profile", review.url)
    try:
        on = "current && part('picture').complete && current.id"
        browser.wait(lambda: browser.run(on) == first)
        assert browser.run("part('picture').naturalWidth") == 96
        assert browser.run("part('counts').textContent") == "6 waiting · 0 accepted · 0 rejected"
        assert browser.run("part('cultural').value") == marked_captions(waiting.records[first])[0]
        browser.run("part('accept').click()")
        browser.wait(lambda: browser.run(on) == second)
        assert Bench.open(waiting.folder).records[first].decision == ACCEPTED
        browser.run("part('reject').click()")
        browser.wait(lambda: "without a reason" in browser.run("part('message').textContent"))
        browser.run("part('reason').value = '<img src=x onerror=alert(1)>'; part('reject').click()")
        browser.wait(lambda: browser.run(on) == third)
        assert Bench.open(waiting.folder).records[second].decision == REJECTED
        browser.run("part('back').click()")
        browser.wait(lambda: browser.run(on) == second)
        assert Bench.open(waiting.folder).records[second].decision is None
        assert browser.run("part('counts').textContent") == "5 waiting · 1 accepted · 0 rejected"
    finally:
        browser.close()
