"""Requests seen before anything runs; `tests/test_server.py` sends real ones."""

import contextvars

import pytest

from culture_core.comfy import queued

CHOICES = {"mode": ["inject", "scale"], "file": ["a.safetensors"], "strength": None}


def with_request(request: object, check: object) -> object:
    """Call the check as ComfyUI does after a request; others do not see the request."""

    def run() -> object:
        queued._remember(request)
        return check()

    return contextvars.copy_context().run(run)


def graph(kind: str = "CultureX", **inputs: object) -> dict:
    return {"prompt": {"7": {"class_type": kind, "inputs": inputs}}}


def test_without_a_request_nothing_is_refused() -> None:
    queued.check_known("CultureX", CHOICES)
    assert "does not say where" in queued.source_of("a.safetensors")


@pytest.mark.parametrize(
    "inputs", [{"mode": "scale"}, {"mode": ["3", 0]}, {"file": "elsewhere.safetensors"}, {"strength": 99}, {}]
)
def test_what_is_known_connected_or_a_name_of_a_file_passes(inputs: dict) -> None:
    with_request(graph(**inputs), lambda: queued.check_known("CultureX", CHOICES))


def test_other_nodes_are_left_to_themselves() -> None:
    with_request(graph("CultureY", new=1), lambda: queued.check_known("CultureX", CHOICES))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [({"new": 1}, "Node 7 has an input 'new'"), ({"mode": "boost"}, "none of inject, scale")],
)
def test_what_is_not_known_says_to_update(inputs: dict, said: str) -> None:
    with pytest.raises(ValueError, match=f"{said}.*newer Culture Amplifier.*update the pack"):
        with_request(graph(**inputs), lambda: queued.check_known("CultureX", CHOICES))


@pytest.mark.parametrize("request_", [{}, {"prompt": None}, {"prompt": {"1": 3}}, {"prompt": {"1": {}}}])
def test_a_request_of_a_strange_shape_is_left_to_comfyui(request_: dict) -> None:
    with_request(request_, lambda: queued.check_known("CultureX", CHOICES))


def test_an_address_in_a_subgraph_is_found() -> None:
    model = {"name": "a.safetensors", "url": "https://example.org/a"}
    inner = {"nodes": [{"properties": {"models": [model]}}]}
    canvas = {"nodes": [], "definitions": {"subgraphs": [inner]}}
    request = {"extra_data": {"extra_pnginfo": {"workflow": canvas}}}
    assert "https://example.org/a" in with_request(request, lambda: queued.source_of("a.safetensors"))
