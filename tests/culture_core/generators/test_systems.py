"""Systems from YAML: what is meant is read, what cannot be is said, and nothing reaches out of the folder."""

import json

import pytest

from culture_core.generators import GeneratorError
from culture_core.generators.systems import cut_to, read_systems

from ...comfy_protocol import GRAPH

SLOTS = "slots: {prompt: 1.text, seed: 1.seed}"


@pytest.fixture
def read(tmp_path):
    """Reads one system from a line of YAML."""
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "graph.json").write_text(json.dumps(GRAPH))
    (tmp_path / "outside.json").write_text(json.dumps(GRAPH))

    def read(line, **more):
        (folder / "systems.yaml").write_text("systems:\n  one: {" + line + "}\n")
        return read_systems(folder / "systems.yaml", **more)[0]

    return read


def test_a_workflow_with_its_slots(read):
    system = read(
        "workflow: graph.json, output: 2, treatment: explicit, strengths: [1, 2.5], slots: {prompt: 1.text, "
        "seed: [1.seed], strength: 1.strength}"
    )
    assert (system.kind, system.treatment, system.output) == ("workflow", "explicit", "2")
    assert system.slots == {"prompt": ("1.text",), "seed": ("1.seed",), "strength": ("1.strength",)}
    assert system.strengths == (1.0, 2.5) and system.has_dial and system.workflow == GRAPH


def test_settings_tell_systems_apart_and_say_nothing_of_this_machine(read, tmp_path):
    first = read(f"workflow: graph.json, {SLOTS}").settings()
    assert first == read(f"workflow: graph.json, {SLOTS}").settings()
    assert first != read(f"workflow: graph.json, {SLOTS}, output: 2").settings()
    (tmp_path / "shared" / "graph.json").write_text(json.dumps({**GRAPH, "3": GRAPH["2"]}))
    assert first != read(f"workflow: graph.json, {SLOTS}").settings()
    assert str(tmp_path) not in json.dumps(first)
    sae = tmp_path / "sae.safetensors"
    sae.write_bytes(b"1")
    line = "diffusers: x/y, amplify: mine"
    before = read(line, places={"mine": str(sae)}).settings()
    sae.write_bytes(b"2")
    after = read(line, places={"mine": str(sae)}).settings()
    assert before != after and str(tmp_path) not in json.dumps(after)


def test_a_pipeline_may_be_a_name_of_the_hub_or_a_folder_that_is_given(read, tmp_path):
    assert read("diffusers: owner/name").place == "owner/name"
    assert read("diffusers: owner/name", places={"owner/name": str(tmp_path)}).place == str(tmp_path)
    (tmp_path / "shared" / "mine").mkdir()
    assert read("diffusers: mine").place == str(tmp_path / "shared" / "mine")


def test_the_packs_own_files_are_found_by_name(read):
    system = read("diffusers: x/y, amplify: miniature.safetensors, enhance: miniature.safetensors")
    assert system.amplify.parent.name == "culture_sae" and system.enhance.parent.name == "culture_enhancer"


def test_a_graph_is_cut_to_what_its_output_needs():
    graph = {
        **GRAPH,
        "3": {"class_type": "Draw", "inputs": {}},
        "4": {"class_type": "Save", "inputs": {"images": ["3", 0]}},
    }
    assert cut_to(graph, "2") == GRAPH and list(cut_to(graph, "4")) == ["3", "4"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("treatment: neutral", "must have one of workflow, diffusers, folder"),
        (f"workflow: ../outside.json, {SLOTS}", "is outside the folder of systems.yaml"),
        (f"workflow: /etc/passwd, {SLOTS}", "is outside the folder"),
        ("folder: ../..", "is outside the folder"),
        ("diffusers: x/y, amplify: ../../sae.safetensors", "is outside the folder"),
        ("diffusers: x/y, amplify: none.safetensors", "is not there; say where it is with --path"),
        (f"workflow: none.json, {SLOTS}", "cannot be read"),
        ("workflow: graph.json", "needs `slots:"),
        ("workflow: graph.json, slots: {prompt: 1.text}", "no slot for the seed"),
        ("workflow: graph.json, slots: {prompt: 9.text, seed: 1.seed}", "there is no node '9'; nodes are 1"),
        ("workflow: graph.json, slots: {prompt: 1.words, seed: 1.seed}", "node 1 'Painter' .* has no input"),
        ("workflow: graph.json, slots: {prompt: 2.images, seed: 1.seed}", "comes from node 1 'Painter'"),
        ("workflow: graph.json, slots: {prompt: 1.text, sead: 1.seed}", "unknown slot 'sead'"),
        (f"workflow: graph.json, {SLOTS}, output: 7", "its output, node '7', is not in graph.json"),
        (f"workflow: graph.json, {SLOTS}, strengths: [2]", "nothing that takes one"),
        (f"workflow: graph.json, {SLOTS}, steps: 3", "sets 'steps' and has no slot"),
        (f"workflow: graph.json, {SLOTS}, server: http://evil", "has 'server', which a workflow"),
        (f"workflow: graph.json, {SLOTS}, treatment: magic", "'treatment' is 'magic': use one of neutral"),
        ("diffusers: x/y, steps: 0", "'steps' must be a whole number above 0"),
        ("diffusers: x/y, dtype: int8", "'dtype' is 'int8'"),
        ("diffusers: x/y, amplify: miniature.safetensors, strengths: [99]", "strength 99 must be a number"),
        ("diffusers: ''", "'diffusers' must be a text"),
        ("diffusers: ../pipe", "neither a folder beside systems.yaml nor a name of the hub"),
        ("diffusers: /pipe/line", "neither a folder beside systems.yaml nor a name of the hub"),
        ("diffusers: ..", "neither a folder beside systems.yaml nor a name of the hub"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said_with_the_systems_name(read, line, message):
    with pytest.raises(GeneratorError, match=f"system 'one': .*{message}|{message}"):
        read(line)


def test_a_link_does_not_lead_out_either(read, tmp_path):
    (tmp_path / "shared" / "link.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(GeneratorError, match="outside the folder"):
        read(f"workflow: link.json, {SLOTS}")
    assert read(f"workflow: far, {SLOTS}", places={"far": str(tmp_path / "outside.json")}).source == "far"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("systems: [1]", "must have `systems:`"),
        ("systems: {a: 1}", "the system 'a' must have a name and settings"),
        ("a: [", "is no YAML"),
        ("systems: !!python/object/apply:os.getcwd []", "is no YAML"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "systems.yaml").write_text(text)
    with pytest.raises(GeneratorError, match=message):
        read_systems(tmp_path / "systems.yaml")


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"nodes": [], "links": []}, "export it for the API"),
        ({"1": {"class_type": "Draw"}}, "needs class_type and inputs"),
        ({"1": {"class_type": "Draw", "inputs": {"x": ["5", 0]}}}, "comes from node 5, not there"),
        ({}, "has no nodes"),
    ],
)
def test_a_graph_that_is_none_for_the_api_is_refused(read, tmp_path, graph, message):
    (tmp_path / "shared" / "graph.json").write_text(json.dumps(graph))
    with pytest.raises(GeneratorError, match=message):
        read(f"workflow: graph.json, {SLOTS}")


def test_an_unknown_name_is_answered_with_those_there_are(read):
    with pytest.raises(GeneratorError, match="has no system 'two'; it has one"):
        read("diffusers: x/y", names=["two"])


def test_references_that_expand_without_end_are_refused(tmp_path):
    lines = ["a: &a [" + ", ".join("x" * 9) + "]"]
    for one, before in zip("bcdefgh", "abcdefg", strict=True):
        lines.append(f"{one}: &{one} [" + ", ".join([f"*{before}"] * 9) + "]")
    path = tmp_path / "systems.yaml"
    for end in ("systems: {x: {workflow: *h, slots: *h}}", "systems: &s {x: {folder: y, again: *s}}"):
        path.write_text("\n".join([*lines, end]))
        with pytest.raises(GeneratorError, match=r"systems\.yaml: stands for more than"):
            read_systems(path)


def test_a_file_that_would_take_long_to_read_is_refused(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text("systems: {x: {folder: " + "y" * 200_000 + "}}")
    with pytest.raises(GeneratorError, match="larger than 128 KiB"):
        read_systems(path)


def test_deep_nesting_is_refused_at_once(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text("systems: " + 3000 * "[")
    with pytest.raises(GeneratorError, match=r"systems\.yaml: is nested"):
        read_systems(path)
