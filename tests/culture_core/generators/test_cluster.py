"""A Ray cluster of two machines with a ComfyUI server each, one of which is killed in mid-run."""

import json
import logging
from collections import Counter

import pytest

from culture_core.generators import read_pictures
from culture_core.generators.cluster import ray_workers
from culture_core.generators.prompts import read_prompts
from culture_core.generators.run import check_systems, plan, run_jobs
from culture_core.generators.systems import read_systems
from tools.comfy_server import ComfyServer
from tools.make_systems import FOLDER

ray = pytest.importorskip("ray")
SYSTEMS = """
systems:
  plain: {workflow: graph.json, output: plain, steps: 4,
          slots: {prompt: prompt.value, seed: seed.value, steps: sample_plain.steps}}
"""


@pytest.fixture
def victim(server: ComfyServer, tmp_path):
    with ComfyServer(server.comfyui, tmp_path / "second") as second:
        yield second


@pytest.fixture
def cluster(server: ComfyServer, victim: ComfyServer):
    from ray.cluster_utils import Cluster

    made = Cluster()
    memory = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    made.add_node(**memory, env_vars={"CULTURE_COMFYUI": server.url})
    made.add_node(**memory, env_vars={"CULTURE_COMFYUI": victim.url})
    yield made
    ray.shutdown()
    made.shutdown()


def test_no_job_is_lost_or_doubled_when_a_machines_server_is_killed(
    cluster, victim: ComfyServer, tmp_path, caplog: pytest.LogCaptureFixture
) -> None:
    graph = (FOLDER / "miniature.json").read_text(encoding="utf-8")
    (tmp_path / "graph.json").write_text(graph, encoding="utf-8")
    (tmp_path / "systems.yaml").write_text(SYSTEMS, encoding="utf-8")
    systems = read_systems(tmp_path / "systems.yaml")
    prompts = read_prompts("miniature")[:12]
    jobs = plan(systems, prompts, [1], [], lambda prompt, treatment: prompt.neutral)
    landed: list[int] = []

    def progress(done: int, total: int) -> None:
        landed.append(done)
        if done == 5:
            victim.process.kill()

    caplog.set_level(logging.WARNING)
    with ray_workers(cluster.address) as workers:
        assert sorted(worker.name for worker in workers) == ["machine 1, server 1", "machine 2, server 1"]
        workers = check_systems(systems, workers)
        summary = run_jobs(tmp_path / "run", systems, jobs, workers, back_off=0.1, progress=progress)
    assert (summary.made, summary.failed, summary.left) == (12, [], 0)
    assert len(summary.lost) == 1 and set(summary.by_worker) == {w.name for w in workers}
    assert landed == list(range(13))
    lines = (tmp_path / "run" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert Counter(json.loads(line)["item"] for line in lines) == dict.fromkeys((p.item for p in prompts), 1)
    assert len(read_pictures(tmp_path / "run")) == 12
    assert "cannot be reached" in caplog.text and str(victim.port) not in caplog.text
