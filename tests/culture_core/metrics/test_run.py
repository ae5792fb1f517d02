"""A whole run is measured, goes on where it stopped, and says what is missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from culture_core.metrics import METRICS, Instruments, MetricError, measure_run, read_metrics
from culture_core.metrics.clip_score import ClipScore
from culture_core.metrics.distances import BACKBONES, Lpips
from culture_core.metrics.diversity import vendi_score
from culture_core.metrics.image_reward import PYTHON_VARIABLE
from culture_core.metrics.miniature import MiniatureFeatures
from culture_core.metrics.sets import INCEPTION, Inception, frechet
from culture_core.miniature.scenes import draw_scene

from ..tiny_dual_encoders import LONGEST, save_dual_encoder
from .networks import save_alexnet, save_inception

TEXTS = {"house": "บ้าน สีแดง", "chair": "เก้าอี้ " * LONGEST}
ENGLISH = {"house": "a red house", "chair": "one chair"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    words = [*TEXTS.values(), *ENGLISH.values()]
    return save_dual_encoder("siglip2", tmp_path_factory.mktemp("models") / "siglip2", words)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_alexnet(tmp_path_factory.mktemp("weights") / BACKBONES["alex"][1]).parent


def write_run(folder: Path, systems: tuple[str, ...], seeds: int, **fields) -> Path:
    """Drawings of two nouns; the systems differ in what they draw."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, system in enumerate(systems):
        for noun in TEXTS:
            for seed in range(seeds):
                name = f"images/{system}-{noun}-{seed}.png"
                rng = np.random.default_rng([number, seed])
                Image.fromarray(draw_scene(noun, "th", rng)).save(folder / name)
                record = {
                    "file_name": name, "system": system, "item": noun, "prompt": "explicit",
                    "neutral": TEXTS[noun], "english": ENGLISH[noun], "seed": seed, "strength": None,
                }  # fmt: skip
                lines.append(json.dumps(record | fields))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "run", ("base", "pack"), 2)


def test_the_figures_of_pictures_and_systems_are_those_of_the_instruments(run, model, weights, tmp_path):
    real = write_run(tmp_path / "real", ("real",), 2)
    metrics = ["clip", "clip_english", "lpips", "diversity", "diversity_miniature"]
    tools = Instruments(model, weights)
    names = [f"images/base-house-{seed}.png" for seed in range(2)]
    quality = {name: 0.5 for name in names}
    steps = []
    summary = measure_run(
        run, metrics, tmp_path / "out", real, lambda done, total: steps.append((done, total)),
        instruments=tools, quality=quality,
    )  # fmt: skip
    found = read_metrics(tmp_path / "out")
    images = [Image.open(run / name) for name in names]
    clip, lpips, cnn = ClipScore(model), Lpips(weights=weights), MiniatureFeatures()
    for field, texts in (("clip", TEXTS), ("clip_english", ENGLISH)):
        expected = clip.score(images, [texts["house"]] * 2)
        assert [found[name][field] for name in names] == pytest.approx(expected, abs=1e-5)
        own = [found[name][field] for name in found if "base" in name]
        assert summary["systems"]["base"][field]["mean"] == pytest.approx(sum(own) / 4)
    real_images = [Image.open(real / f"images/real-house-{seed}.png") for seed in range(2)]
    expected = sum(lpips.distance([images[0]] * 2, real_images)) / 2
    assert found[names[0]]["lpips"] == pytest.approx(expected, rel=1e-4)
    assert summary["too_long"] == {"clip": 4, "clip_english": 0}

    groups = [
        [Image.open(run / f"images/base-{noun}-{seed}.png") for seed in range(2)]
        for noun in ("house", "chair")
    ]
    for name, embedder, distance in (("diversity", clip, lpips), ("diversity_miniature", cnn, cnn)):
        own = summary["systems"]["base"][name]
        assert own["vendi"] == pytest.approx(
            np.mean([vendi_score(embedder.embed(g)) for g in groups]), rel=1e-4
        )
        spread = np.mean([distance.distance(g[:1], g[1:])[0] for g in groups])
        assert own["spread"] == pytest.approx(spread, rel=1e-3)
        assert own["groups"] == 2 and own["quality_vendi"] is None  # the chairs' quality is not known
    assert steps[-1] == (500, 500) and steps == sorted(steps)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == summary


def test_every_system_is_compared_with_the_reference_by_fid_and_kid(run, tmp_path):
    real = write_run(tmp_path / "real", ("real",), 3)
    save_inception(tmp_path / "weights" / INCEPTION)
    tools = Instruments(weights=tmp_path / "weights")
    summary = measure_run(run, ["fid", "kid"], tmp_path / "out", real, instruments=tools)
    network = Inception(tmp_path / "weights")
    both = [[Image.open(path) for path in sorted(folder.rglob(glob))] for folder, glob in
            ((real, "real-*.png"), (run, "pack-*.png"))]  # fmt: skip
    features = [network.embed(images) for images in both]
    assert summary["systems"]["pack"]["fid"]["value"] == pytest.approx(frechet(*features).value, rel=1e-3)
    assert summary["systems"]["pack"]["kid"]["pictures"] == [6, 4]
    low, high = summary["systems"]["base"]["kid"]["interval"]
    assert low < summary["systems"]["base"]["kid"]["value"] < high
    assert "look at the interval" in summary["systems"]["base"]["kid"]["warning"]


def test_quality_weights_the_diversity_where_it_is_known_of_all(run, tmp_path):
    names = [json.loads(line)["file_name"] for line in (run / "metadata.jsonl").read_text().splitlines()]
    summary = measure_run(run, ["diversity_miniature"], tmp_path / "out", quality=dict.fromkeys(names, 0.25))
    own = summary["systems"]["pack"]["diversity_miniature"]
    assert own["quality_vendi"] == pytest.approx(own["vendi"] / 4) and 1 < own["vendi"] < 2


def test_a_run_that_was_stopped_goes_on_and_computes_nothing_twice(tmp_path):
    run = write_run(tmp_path / "run", ("base",), 10)  # 90 pairs, several batches
    output = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done > 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_run(run, ["diversity_miniature"], output, progress=stop)
    kept = (output / "cache.jsonl").read_text()
    assert kept.count("\n") > 10 and not (output / "metrics.json").exists()
    summary = measure_run(run, ["diversity_miniature"], output)
    whole = (output / "cache.jsonl").read_text()
    assert whole.startswith(kept) and whole.count("\n") == len(set(whole.splitlines())) == 20 + 90
    assert summary == measure_run(run, ["diversity_miniature"], tmp_path / "fresh")
    assert measure_run(run, ["diversity_miniature"], output) == summary
    assert (output / "cache.jsonl").read_text() == whole


def test_further_metrics_are_added_and_a_changed_run_is_measured_anew(run, model, tmp_path):
    output, tools = tmp_path / "out", Instruments(model)
    measure_run(run, ["clip"], output, instruments=tools)
    both = measure_run(run, ["diversity_miniature"], output, instruments=tools)
    assert set(both["systems"]["base"]) == {"clip", "diversity_miniature"}
    run = run.rename(tmp_path / "moved")
    again = measure_run(run, ["diversity_miniature"], output, instruments=tools)
    assert again == both
    name = "images/base-house-0.png"
    before = read_metrics(output)[name]
    Image.new("RGB", (64, 64), "blue").save(run / name)
    fresh = measure_run(run, ["diversity_miniature"], output, instruments=tools)
    assert set(fresh["systems"]["base"]) == {"diversity_miniature"} and read_metrics(output)[name] == {}
    measure_run(run, ["clip"], output, instruments=tools)
    assert read_metrics(output)[name]["clip"] != before["clip"]


def test_figures_by_another_model_are_not_mixed_with_these(run, model, tmp_path):
    measure_run(run, ["clip"], tmp_path / "out", instruments=Instruments(model))
    other = save_dual_encoder("clip", tmp_path / "clip", ENGLISH.values())
    with pytest.raises(MetricError, match="has figures of clip by other models.*another folder"):
        measure_run(run, ["clip"], tmp_path / "out", instruments=Instruments(other))


def test_what_is_lacking_is_said_before_the_work(run, model, tmp_path, monkeypatch):
    output = tmp_path / "out"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    with pytest.raises(MetricError, match="no metric beauty: there are clip, clip_english"):
        measure_run(run, ["beauty"], output)
    with pytest.raises(MetricError, match="fid needs real pictures"):
        measure_run(run, ["fid"], output)
    with pytest.raises(MetricError, match="FID and KID needs? the file"):
        measure_run(run, ["clip", "fid"], output, run, instruments=Instruments(model))
    with pytest.raises(MetricError, match="environment of its own"):
        measure_run(run, ["image_reward"], output)
    with pytest.raises(ValueError, match="not on this machine: allow its download"):
        measure_run(run, ["clip"], output, instruments=Instruments("nobody/nothing"))
    assert not (output / "metrics.jsonl").exists()
    with pytest.raises(MetricError, match="has no figures"):
        read_metrics(output)


def test_pictures_without_an_english_gloss_or_a_partner_are_refused(tmp_path, model, weights):
    run = write_run(tmp_path / "run", ("base",), 1, english=None)
    for name in ("clip_english", "image_reward"):
        with pytest.raises(MetricError, match=f"{name} needs each picture's English gloss"):
            measure_run(run, [name], tmp_path / "out")
    with pytest.raises(MetricError, match="one picture an item"):
        measure_run(run, ["diversity"], tmp_path / "out")
    other = write_run(tmp_path / "other", ("real",), 1, item="tree")
    with pytest.raises(MetricError, match="no picture of 2 of the run's, of 'house' first"):
        measure_run(run, ["lpips"], tmp_path / "out", other, instruments=Instruments(model, weights))


def test_every_metric_is_explained():
    assert all(METRICS.values()) and len(METRICS) == 8
