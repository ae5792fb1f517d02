"""A small load on the shared server; `python -m tools.load_test` puts on a large one."""

import pytest

from tools.comfy_server import ComfyServer
from tools.load_test import TEXTS, UNPATCHED, LoadTest, Plan, memory_figures


def test_a_busy_server_gives_every_encode_its_own_result(server: ComfyServer) -> None:
    plan = Plan(20, interrupts=0.2, unloads=0.15, resets=0.05, seed=57, texts=TEXTS[:1])
    report = LoadTest(server, plan).run()
    assert report.good, report.text()
    assert report.prompts == report.finished + report.interrupted == 20
    assert report.interrupts and report.unloads and report.resets
    unpatched = sum(report.equal[name] for name in UNPATCHED)
    assert unpatched and sum(report.equal.values()) > unpatched


def test_memory_that_grows_is_seen() -> None:
    flat = memory_figures([(done, 500.0 + done % 2) for done in range(100)])
    growing = memory_figures([(done, 500.0 + 0.1 * done) for done in range(100)])
    assert flat["end"] == flat["start"] == pytest.approx(500.5) and abs(flat["per 1000 prompts"]) < 2
    assert growing["per 1000 prompts"] == pytest.approx(100) and growing["end"] > growing["start"] + 8
