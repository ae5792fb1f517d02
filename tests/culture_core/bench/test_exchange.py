"""Hugging Face's datasets read what is exported, and everything comes back."""

import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from culture_core.bench import Bench, BenchError, export, import_folder
from culture_core.bench.exchange import features
from culture_core.bench.ingestion import read_picture
from culture_core.pairs import load_pairs
from culture_core.splits import BENCH_SPLITS, NEURON_DETECTION, TEST, TRAIN

SPLITS = [TRAIN, TRAIN, TRAIN, TRAIN, TEST, NEURON_DETECTION]


@pytest.fixture
def bench(ready) -> Bench:
    ready.update(
        replace(record, split=split) for record, split in zip(ready.records.values(), SPLITS, strict=True)
    )
    return ready


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    datasets.disable_progress_bars()
    return lambda *arguments, **more: datasets.load_dataset(
        *arguments, cache_dir=str(tmp_path / "cache"), **more
    )


def by_id(bench: Bench, split: str) -> dict:
    return {record.id: record for record in bench.accepted(split)}


@pytest.mark.parametrize("format", ["imagefolder", "parquet"])
def test_datasets_loads_an_export_with_all_splits(bench, offline, tmp_path, format):
    out = export(bench, tmp_path / "out", format)
    assert out.counts == {TRAIN: 4, TEST: 1, NEURON_DETECTION: 1}
    loaded = offline(str(tmp_path / "out"))
    assert list(loaded) == list(BENCH_SPLITS)
    for split in BENCH_SPLITS:
        expected = by_id(bench, split)
        assert {row["id"] for row in loaded[split]} == set(expected)
        for row in loaded[split]:
            record = expected[row["id"]]
            assert (row["cultural"], row["noun"], row["split"]) == (record.cultural, record.noun, split)
            assert [tuple(span) for span in row["modifiers"]] == list(record.modifiers)
            assert (
                row["image"].convert("RGB").tobytes()
                == read_picture(bench.image_path(record)).image.tobytes()
            )
    if format == "parquet":
        assert loaded[TRAIN].features == features()


@pytest.mark.parametrize("format", ["imagefolder", "parquet"])
def test_an_export_comes_back_as_it_was(bench, tmp_path, format):
    if format == "parquet":
        pytest.importorskip("datasets")
    export(bench, tmp_path / "out", format)
    again = Bench(tmp_path / "again")
    assert import_folder(tmp_path / "out", again) == 6
    assert again.records == bench.records
    for record in bench.records.values():
        assert again.image_path(record).read_bytes() == bench.image_path(record).read_bytes()
    assert import_folder(tmp_path / "out", again) == 6  # nothing new
    again.update([replace(next(iter(again.records.values())), source="others")])
    with pytest.raises(BenchError, match="another record"):
        import_folder(tmp_path / "out", again)


def test_pairs_lie_beside_their_pictures(bench, tmp_path):
    export(bench, tmp_path / "out", "pairs", [TRAIN, TEST])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "images",
        "test.jsonl",
        "train.jsonl",
    ]
    for split in (TRAIN, TEST):
        pairs = load_pairs(tmp_path / "out" / f"{split}.jsonl")
        assert pairs == bench.pairs(split) and {pair.split for pair in pairs} == {split}
        assert all((tmp_path / "out" / pair.image).is_file() for pair in pairs)


def test_what_cannot_be_exported_is_refused(bench, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(BenchError, match="holds something"):
        export(bench, tmp_path / "out")
    export(bench, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine.txt").is_file()
    for arguments in (("csv",), ("imagefolder", ["dev"])):
        with pytest.raises(BenchError, match="unknown"):
            export(bench, tmp_path / "new", *arguments)
    bench.update(replace(record, split=None) for record in bench.records.values())
    with pytest.raises(BenchError, match="review and split first"):
        export(bench, tmp_path / "new")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"file_name": "../secret.png"}, "inside"),
        ({"file_name": "/etc/passwd"}, "inside"),
        ({"file_name": "https://example.org/a.png"}, "inside"),
        ({"file_name": 3}, "inside"),
        ({"file_name": "images/none.png"}, "cannot be read"),
        ({"sha256": "00"}, "not the one that the record describes"),
        ({"width": 1}, "not the one that the record describes"),
        ({"culture": "xx"}, "unknown culture"),
        ({"modifiers": [[0, 999]]}, "no piece"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_an_imagefolder_of_a_stranger_is_checked(bench, tmp_path, change, complaint):
    export(bench, tmp_path / "out")
    Image.new("RGB", (64, 64)).save(tmp_path / "out" / "secret.png")
    path = tmp_path / "out" / "train" / "metadata.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(BenchError, match=f"(?s)line 2.*{complaint}"):
        import_folder(tmp_path / "out", Bench(tmp_path / "again"))
    assert not (tmp_path / "again").exists()


def test_a_parquet_file_that_points_to_files_or_is_damaged_is_refused(bench, tmp_path):
    datasets = pytest.importorskip("datasets")
    export(bench, tmp_path / "out", "parquet")
    path = tmp_path / "out" / "train.parquet"
    table = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "c")).cast_column(
        "image", datasets.Image(decode=False)
    )
    secret = bench.image_path(next(iter(bench.records.values())))
    table.map(lambda row: {"image": {"bytes": None, "path": str(secret)}}).to_parquet(str(path))
    with pytest.raises(BenchError, match="picture itself"):
        import_folder(tmp_path / "out", Bench(tmp_path / "again"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BenchError, match="parquet"):
        import_folder(tmp_path / "out", Bench(tmp_path / "again"))
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(BenchError, match="neither"):
        import_folder(tmp_path, Bench(tmp_path / "again"))
