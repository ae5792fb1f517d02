"""Runs: every job once, whatever fails; against servers that speak ComfyUI's protocol."""

import json
import logging
import re
from dataclasses import replace

import pytest
from PIL import Image

from culture_core.generators import GeneratorError, Prompt, read_pictures
from culture_core.generators.comfyui import ComfyWorker
from culture_core.generators.run import PATIENCE, check_systems, open_run, plan, run_jobs
from culture_core.generators.systems import System

from ...comfy_protocol import FAILED, GRAPH, ComfyProtocolServer, picture

PROMPTS = [
    Prompt("th-1", "th", "th", "เก้าอี้", "เก้าอี้แบบไทย", "chair", "Thai style chair"),
    Prompt("ja-1", "ja", "ja", "椅子", "日本風の椅子", "chair", "Japanese style chair"),
]
SLOTS = {"prompt": ("1.text",), "seed": ("1.seed",), "strength": ("1.strength",)}
DIALLED = System("dialled", "workflow", "graph.json", "", slots=SLOTS, workflow=GRAPH)


def jobs(system=DIALLED, seeds=(1, 2), strengths=(0.0, 2.0)):
    return plan([system], PROMPTS, seeds, strengths, lambda prompt, treatment: prompt.neutral)


def workers(*servers):
    return [ComfyWorker(server.url, f"server {n}") for n, server in enumerate(servers, start=1)]


def run(folder, servers, todo=None, **more):
    todo = jobs() if todo is None else todo
    return run_jobs(folder, [DIALLED], todo, workers(*servers), back_off=0.01, **more)


def drawn(folder):
    return sorted((p.culture, p.seed, p.strength) for p in read_pictures(folder))


EVERYTHING = sorted((c, seed, x) for c in ("th", "ja") for seed in (1, 2) for x in (0.0, 2.0))


def test_every_prompt_is_drawn_with_every_seed_at_every_strength_and_nothing_twice(tmp_path):
    steps = []
    with ComfyProtocolServer() as first, ComfyProtocolServer(wait=0.01) as second:
        summary = run(tmp_path, (first, second), progress=lambda *step: steps.append(step))
        assert (summary.made, summary.failed, summary.left, summary.lost) == (8, [], 0, [])
        assert len(first.graphs) + len(second.graphs) == 8 and first.graphs and second.graphs
        again = run(tmp_path, (first, second))
        assert (again.made, again.before) == (0, 8)
        assert len(first.graphs) + len(second.graphs) == 8
    assert drawn(tmp_path) == EVERYTHING and steps == [(n, 8) for n in range(9)]
    for made in read_pictures(tmp_path):
        with Image.open(made.path) as image:
            graph = json.loads(image.text["prompt"])
            assert graph["1"]["inputs"]["text"] == made.prompt == made.neutral
            assert image.getpixel((0, 0)) == picture(graph).getpixel((0, 0))
            assert str(first.url) not in str(image.text) and "127.0.0.1" not in str(image.text)


def test_ids_depend_on_all_that_a_picture_depends_on():
    plain = {job.id for job in jobs()}
    assert len(plain) == 8 and plain == {job.id for job in jobs()}
    changed = replace(DIALLED, workflow={**GRAPH, "3": GRAPH["2"]})
    assert not plain & {job.id for job in jobs(changed)}
    text = plan([DIALLED], PROMPTS, [1, 2], [0.0, 2.0], lambda prompt, treatment: prompt.explicit)
    assert not plain & {job.id for job in text}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda server, graph: {"status": FAILED}, "node 1 'Painter' .Draw. failed: MemoryError: full"),
        (lambda server, graph: "forget", "has forgotten the job"),
        (lambda server, graph: {"status": {"status_str": "error"}}, "told to interrupt"),
    ],
)
def test_a_job_that_fails_is_tried_again_and_then_reported(tmp_path, fault, reason):
    with ComfyProtocolServer(fault) as server:
        todo = jobs()[:1]
        summary = run(tmp_path, [server], todo, retries=1)
        assert len(server.graphs) == 2
        (line,) = (tmp_path / "failures.jsonl").read_text(encoding="utf-8").splitlines()
        record = json.loads(line)
        assert (record["job"], record["attempts"], record["file_name"]) == (todo[0].id, 2, None)
        assert server.url not in line and "127.0.0.1" not in line and len(summary.failed) == 1
        assert re.search(reason, record["reason"])
        server.fault = None
        assert run(tmp_path, [server], todo).made == 1
    assert (tmp_path / "failures.jsonl").read_text() == ""


def test_what_a_server_refuses_is_not_tried_again(tmp_path):
    with ComfyProtocolServer() as server:
        errors = {"1": {"errors": [{"message": "Value not in list", "details": "size: 'huge'"}]}}
        body = {"error": {"message": "Prompt outputs failed validation"}, "node_errors": errors}
        server.refuse = 400, json.dumps(body).encode()
        summary = run(tmp_path, [server], jobs()[:1])
        assert len(server.graphs) == 1
    reason = summary.failed[0].reason
    assert "node 1 'Painter' (Draw): Value not in list (size: 'huge')" in reason


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda server, graph: server.done("x", graph, count=2), "2 pictures at a time"),
        (lambda server, graph: {"status": {"status_str": "success"}, "outputs": {}}, "gives no picture"),
    ],
)
def test_a_graph_must_give_one_picture(tmp_path, fault, reason):
    with ComfyProtocolServer(fault) as server:
        assert reason in run(tmp_path, [server], jobs()[:1]).failed[0].reason


def test_a_picture_that_is_damaged_is_fetched_again(tmp_path):
    def damage(server, graph):
        entry = server.done("x", graph)
        server.pictures["x"] = server.pictures["x"][: 30 if len(server.graphs) == 1 else None]
        return entry

    with ComfyProtocolServer(damage) as server:
        assert run(tmp_path, [server], jobs()[:1]).made == 1 and len(server.graphs) == 2


def test_a_server_that_dies_in_the_middle_loses_no_job_and_doubles_none(tmp_path, caplog):
    with ComfyProtocolServer(wait=0.02) as survivor:
        victim = ComfyProtocolServer(wait=0.02).__enter__()
        done = 0

        def progress(now, total):
            nonlocal done
            if now == 3:
                victim.die()
            done = now

        summary = run(tmp_path, (victim, survivor), progress=progress)
    assert (summary.made, summary.left, summary.lost, done) == (8, 0, ["server 1"], 8)
    assert drawn(tmp_path) == EVERYTHING
    assert "server 1 cannot be reached" in caplog.text and "127.0.0.1" not in caplog.text


def test_without_any_server_left_the_rest_waits_for_the_next_run(tmp_path):
    victim = ComfyProtocolServer().__enter__()
    summary = run(tmp_path, [victim], progress=lambda now, total: victim.die() if now == 2 else None)
    assert summary.lost == ["server 1"] and summary.made + summary.left + len(summary.failed) == 8
    assert 2 <= summary.made < 8
    with ComfyProtocolServer() as server:
        assert run(tmp_path, [server]).made == 8 - summary.made
    assert drawn(tmp_path) == EVERYTHING


def test_a_system_that_fails_again_and_again_is_ended_and_others_go_on(tmp_path, caplog):
    def fail_zero(server, graph):
        return {"status": FAILED} if graph["1"]["inputs"]["seed"] < 50 else None

    other = replace(DIALLED, name="other")
    todo = jobs(seeds=range(5)) + jobs(other, seeds=[60, 61])
    with ComfyProtocolServer(fail_zero) as server:
        summary = run_jobs(
            tmp_path, [DIALLED, other], todo, workers(server), back_off=0.001, retries=0
        )  # fmt: skip
    assert (len(summary.failed), summary.left, summary.made) == (PATIENCE, 15, 8)
    assert "dialled: ended after 5 failures in a row" in caplog.text


def test_what_progress_raises_ends_a_run_that_goes_on_later(tmp_path):
    def stop(now, total):
        if now == 3:
            raise KeyboardInterrupt

    with ComfyProtocolServer() as server:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, [server], progress=stop)
        kept = {p.job: p.path.stat().st_mtime_ns for p in read_pictures(tmp_path)}
        assert len(kept) == 3
        run(tmp_path, [server])
    assert drawn(tmp_path) == EVERYTHING
    assert all(p.path.stat().st_mtime_ns == kept[p.job] for p in read_pictures(tmp_path) if p.job in kept)


def test_what_a_run_is_told_to_stop_is_taken_off_the_server(tmp_path):
    with ComfyProtocolServer(lambda server, graph: "forget") as server:
        worker = workers(server)[0]
        asked = iter([False, True, True, True])
        with pytest.raises(Exception, match="stopped"):
            worker.make(DIALLED, jobs()[0], lambda: next(asked))
        assert ("/queue", {"delete": ["job-1"]}) in server.cancelled


def test_servers_are_asked_about_every_system_before_the_work(caplog):
    broken = replace(
        DIALLED, name="broken", strengths=(5.0,),
        slots={**SLOTS, "culture": ("1.seed",), "steps": ("1.pace",)},
        workflow={
            "1": {"class_type": "Draw", "inputs": {"text": "", "seed": 0, "size": "huge", "strength": 9.0}},
            "2": {"class_type": "Save", "inputs": {"images": ["1", 1]}},
            "3": {"class_type": "Magic", "inputs": {}},
            "4": {"class_type": "Draw", "inputs": {"text": ["1", 0], "seed": 0}},
        },
    )  # fmt: skip
    with ComfyProtocolServer() as server, ComfyProtocolServer() as other:
        assert len(check_systems([DIALLED], workers(server, other))) == 2
        with pytest.raises(GeneratorError) as caught:
            check_systems([broken], workers(server, other))
    lines = str(caught.value)
    for part in (
        "broken: node 1 (Draw): 'size' is 'huge', which the server does not have; it offers small, large "
        "[server 1, server 2]",
        "node 2 (Save): 'images' comes from output 1 of node 1 (Draw), which has 1",
        "node 3 (Magic): the server does not know this node",
        "node 4 (Draw): its input 'size' is missing",
        "node 4 (Draw): 'text' takes STRING, and node 1 (Draw) gives IMAGE",
        "slot culture: node 1 (Draw): 'seed' takes INT, a culture is COMBO or STRING",
        "slot steps: node 1 (Draw) has no input 'pace'; it has text, seed, size, strength, culture",
        "slot strength: node 1 (Draw): 'strength' is 5.0, it must be -1 to 4",
    ):
        assert part in lines


def test_a_server_that_is_away_is_left_out_and_without_one_it_is_said(caplog):
    gone = ComfyProtocolServer().__enter__()
    gone.die()
    with ComfyProtocolServer() as server, ComfyProtocolServer(info=b"<html>") as stranger:
        caplog.set_level(logging.WARNING)
        reached = check_systems([DIALLED], workers(gone, server, stranger))
        assert [worker.name for worker in reached] == ["server 2"]
        assert "server 1 cannot be reached" in caplog.text
        assert "server 3 answers /object_info as no ComfyUI server does" in caplog.text
    with pytest.raises(GeneratorError, match="nobody is there to do dialled: start ComfyUI"):
        check_systems([DIALLED], workers(gone))


def test_the_culture_goes_into_its_slot_as_the_node_calls_it(tmp_path):
    slots = {**SLOTS, "culture": ("1.culture",)}
    graph = {**GRAPH, "1": {**GRAPH["1"], "inputs": {**GRAPH["1"]["inputs"], "culture": "Japanese"}}}
    system = replace(DIALLED, slots=slots, workflow=graph)
    korean = PROMPTS[0]._replace(culture="ko", item="ko-1")
    with ComfyProtocolServer() as server:
        todo = plan([system], [*PROMPTS, korean], [1], [0.0], lambda prompt, treatment: prompt.neutral)
        summary = run_jobs(tmp_path, [system], todo, workers(server))
        given = {graph["1"]["inputs"]["culture"] for graph in server.graphs}
    assert given == {"Thai (th)", "Japanese"}
    assert "offers no Korean (ko), but Thai (th), Japanese" in summary.failed[0].reason


def test_a_folder_takes_more_seeds_and_systems_and_refuses_changed_ones(tmp_path):
    open_run(tmp_path, [DIALLED], PROMPTS, "list.jsonl", [1], [2.0])
    other = replace(DIALLED, name="other")
    open_run(tmp_path, [other], PROMPTS, "list.jsonl", [1, 2], [2.0])
    settings = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert list(settings["systems"]) == ["dialled", "other"] and settings["seeds"] == [1, 2]
    changed = replace(DIALLED, treatment="explicit")
    with pytest.raises(GeneratorError, match="other settings of dialled: choose another folder"):
        open_run(tmp_path, [changed], PROMPTS, "list.jsonl", [1], [2.0])
    with pytest.raises(GeneratorError, match="another prompt list"):
        open_run(tmp_path, [DIALLED], PROMPTS[:1], "list.jsonl", [1], [2.0])
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "metadata.jsonl").write_text("{}")
    with pytest.raises(GeneratorError, match="pictures of something else"):
        open_run(tmp_path / "x", [DIALLED], PROMPTS, "list.jsonl", [1], [2.0])


def test_a_dial_needs_a_strength_and_seeds_are_different():
    with pytest.raises(GeneratorError, match="'dialled' has a dial: give it strengths"):
        jobs(strengths=())
    for seeds in ((), (1, 1), (-1,)):
        with pytest.raises(GeneratorError, match="seeds must be different"):
            jobs(seeds=seeds)
