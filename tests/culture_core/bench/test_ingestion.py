"""Taking pictures in: what is read, what is refused, and no picture twice."""

import hashlib
import json
import zlib

import pytest
from PIL import Image

from culture_core.bench import Bench, BenchError, Defaults, ingest
from culture_core.bench.ingestion import read_picture

from .conftest import DEFAULTS, draw


def test_the_place_of_a_picture_says_what_it_shows(raw, photos):
    records = list(raw.records.values())
    assert sorted((r.culture, r.category, r.region) for r in records) == [
        ("de", "art", "Germany"), ("de", "food", "Germany"), ("ja", "art", "Japan"),
        ("th", "art", "Thailand"), ("th", "food", "Thailand"), ("th", "food", "Thailand"),
    ]  # fmt: skip
    assert {(r.licence, r.source, r.width, r.height) for r in records} == {(*DEFAULTS[3:], 96, 64)}
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in photos.rglob("*.*")}
    assert {r.sha256 for r in records} == digests
    for record in records:
        data = raw.image_path(record).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record.sha256


def test_pictures_come_in_once_and_a_second_call_goes_on(raw, photos, tmp_path):
    first = sorted(photos.rglob("*.png"))[0]
    (photos / "th" / "food" / "copy.png").write_bytes(first.read_bytes())
    Image.open(first).resize((192, 128), Image.Resampling.BICUBIC).save(photos / "th" / "food" / "large.jpg")
    draw(photos / "th" / "food" / "new.png", 99)
    steps = []
    found = ingest(photos, raw, DEFAULTS, progress=lambda done, total: steps.append((done, total)))
    assert (len(found.added), found.known, len(raw)) == (1, 7, 7)
    assert [one.file for one in found.skipped] == ["th/food/large.jpg"] and "looks like" in found.skipped[
        0
    ].reason
    assert steps == [(done, 9) for done in range(1, 10)]
    fresh = Bench(tmp_path / "fresh")
    again = ingest(photos, fresh, DEFAULTS)
    assert {one.file: one.reason.split(" de-")[0] for one in again.skipped} == {
        "th/food/copy.png": "is the same file as that of", "th/food/large.jpg": "looks like the picture of",
    }  # fmt: skip
    assert len(ingest(photos, Bench(tmp_path / "all"), DEFAULTS, near=-1).added) == 8


def test_an_interruption_keeps_what_was_read(photos, tmp_path):
    bench = Bench(tmp_path / "b")

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(photos, bench, DEFAULTS, progress=stop)
    assert len(Bench.open(tmp_path / "b")) == 3
    found = ingest(photos, Bench.open(tmp_path / "b"), DEFAULTS)
    assert (len(found.added), found.known) == (3, 3)


def bomb(path):
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = (60_000).to_bytes(4, "big") * 2
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
        + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )  # fmt: skip


def test_what_is_no_still_picture_of_a_sensible_size_is_not_taken(photos, tmp_path, monkeypatch):
    folder = photos / "th" / "food"
    (folder / "text.png").write_text("<svg onload=alert(1)>")
    (folder / "cut.jpg").write_bytes((folder / "b.jpg").read_bytes()[:-400])
    bomb(folder / "bomb.png")
    draw(folder / "small.png", 7, (31, 64))
    Image.new("RGB", (64, 64)).save(folder / "bmp.png", "BMP")
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:])
    (folder / "link.png").symlink_to(folder / "a.png")
    found = ingest(photos, Bench(tmp_path / "b"), DEFAULTS)
    reasons = {one.file.rpartition("/")[2]: one.reason for one in found.skipped}
    assert set(reasons) == {"text.png", "cut.jpg", "bomb.png", "small.png", "bmp.png", "moving.webp"}
    assert (
        "pixels" in reasons["bomb.png"]
        and "edge" in reasons["small.png"]
        and "moves" in reasons["moving.webp"]
    )
    assert "readable" in reasons["bmp.png"] and "readable" in reasons["cut.jpg"] and len(found.added) == 6
    monkeypatch.setattr("culture_core.bench.ingestion.MAX_BYTES", 100)
    with pytest.raises(BenchError, match="MiB"):
        read_picture(folder / "a.png")


def test_a_picture_lying_on_its_side_is_put_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = draw(tmp_path / "a.jpg", 1)
    Image.open(path).save(path, exif=exif)
    assert read_picture(path).image.size == (64, 96)


METADATA = [
    {
        "file_name": "x.png", "culture": "th", "category": "food", "region": "Isan", "licence": "CC0-1.0",
        "noun": "soup",
    },
    {
        "file_name": "y.png", "culture": "ja", "language": "ja", "cultural": "[日本風の]<椅子>",
        "neutral": "<椅子>", "english": "Japanese style chair",
    },
]  # fmt: skip


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_metadata_come_before_place_and_defaults(tmp_path, kind):
    folder = tmp_path / "p"
    draw(folder / "x.png", 1)
    draw(folder / "y.png", 2)
    if kind == "jsonl":
        text = "\n".join(json.dumps(row) for row in METADATA)
    else:
        names = list(dict.fromkeys(name for row in METADATA for name in row))
        rows = [",".join(row.get(name, "") for name in names) for row in METADATA]
        text = "\n".join([",".join(names), *rows])
    (folder / f"metadata.{kind}").write_text(text, encoding="utf-8")
    bench = Bench(tmp_path / "b")
    ingest(folder, bench, Defaults(category="furniture", licence="CC-BY-4.0", source="us"))
    soup, chair = sorted(bench.records.values(), key=lambda record: record.culture, reverse=True)
    assert (soup.category, soup.region, soup.licence, soup.noun, soup.captioned) == (
        "food",
        "Isan",
        "CC0-1.0",
        "soup",
        False,
    )
    assert (chair.category, chair.licence, chair.source, chair.region) == (
        "furniture",
        "CC-BY-4.0",
        "us",
        "Japan",
    )
    assert (
        chair.pair().cultural == "日本風の椅子"
        and chair.modifiers == ((0, 4),)
        and chair.english == METADATA[1]["english"]
    )


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"file_name": "x.png", "culture": "thai", "category": "food"}, "unknown culture"),
        ({"file_name": "x.png", "culture": "th"}, "category"),
        ({"file_name": "z.png", "culture": "th", "category": "food"}, "not there"),
        ({"file_name": "x.png", "colour": "red"}, "colour"),
        ({"culture": "th"}, "file_name"),
        ({"file_name": "x.png", "culture": "th", "category": 3}, "texts"),
        (
            {
                "file_name": "x.png",
                "culture": "th",
                "category": "food",
                "cultural": "a <bowl>",
                "neutral": "<b>",
            },
            "modifier",
        ),
    ],
)
def test_metadata_that_make_no_sense_are_refused(tmp_path, row, complaint):
    folder = tmp_path / "p"
    draw(folder / "x.png", 1)
    (folder / "metadata.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(BenchError, match=complaint):
        ingest(folder, Bench(tmp_path / "b"), Defaults())
    assert not (tmp_path / "b").exists()


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(BenchError, match="no picture"):
        ingest(tmp_path, Bench(tmp_path / "b"))
