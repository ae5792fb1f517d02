"""Pictures for training: their preparation, their latents, and paths that are refused."""

import dataclasses

import pytest
import torch
from PIL import Image, ImageOps

from culture_core.enhancer_training import ImageModel, ImagePairs, load_image_pairs
from culture_core.pairs import PairError, load_pairs, save_pairs

from .. import tiny_pipelines
from ..pictures import write_pairs

SIZE = tiny_pipelines.SIZE


@pytest.fixture(scope="module")
def model() -> ImageModel:
    return ImageModel(tiny_pipelines.make("sd"))


@pytest.fixture
def pairs(tmp_path, model) -> ImagePairs:
    return ImagePairs(load_image_pairs(write_pairs(tmp_path)).training, tmp_path, model, SIZE)


def test_pictures_are_scaled_and_cut_in_the_middle(pairs, tmp_path):
    with Image.open(tmp_path / "pictures" / "red-chair.png") as picture:
        # 24 x 40 pixels: the middle 24 of the long side.
        middle = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=(8, 0, 32, 24))
    levels = [[middle.getpixel((x, y)) for x in range(SIZE)] for y in range(SIZE)]
    expected = torch.tensor(levels).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(pairs.pixels([0])[0], expected)


def test_a_picture_lying_on_its_side_is_put_upright(pairs, tmp_path):
    path = tmp_path / "pictures" / "red-chair.png"
    before = pairs.pixels([0])
    with Image.open(path) as picture:
        turned, exif = picture.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    turned.save(path, exif=exif)
    with Image.open(path) as picture:
        assert ImageOps.exif_transpose(picture).size == (40, 24)
    assert torch.equal(pairs.pixels([0]), before)


def test_latents_are_computed_once_and_kept_on_disk_where_asked(tmp_path, model, monkeypatch):
    training = load_image_pairs(write_pairs(tmp_path)).training
    stored = ImagePairs(training, tmp_path, model, SIZE, tmp_path / "latents")
    in_memory, seen = ImagePairs(training, tmp_path, model, SIZE), []
    for pairs in (stored, in_memory):
        pairs.encode(lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)] * 2
    assert len(list((tmp_path / "latents").iterdir())) == 4
    monkeypatch.setattr(model, "encode", lambda pixels: pytest.fail("computed again"))
    again = ImagePairs(training, tmp_path, model, SIZE, tmp_path / "latents")
    for pairs in (stored, in_memory, again):
        assert torch.equal(pairs.latents([2, 0]), stored.latents([2, 0]))


def test_a_damaged_latent_and_another_vae_are_noticed(tmp_path, model):
    training = load_image_pairs(write_pairs(tmp_path)).training
    ImagePairs(training, tmp_path, model, SIZE, tmp_path / "latents").encode()
    torch.manual_seed(99)
    other = ImageModel(tiny_pipelines.sd())
    ImagePairs(training, tmp_path, other, SIZE, tmp_path / "latents").encode()
    files = list((tmp_path / "latents").iterdir())
    assert len(files) == 8
    for file in files:
        file.write_bytes(b"damaged")
    with pytest.raises(PairError, match="is no readable latent.*delete it"):
        ImagePairs(training, tmp_path, model, SIZE, tmp_path / "latents").encode()


def test_batches_go_through_all_pairs_in_an_order_of_the_seed(pairs):
    first, again, other = (pairs.batches(3, seed) for seed in (1, 1, 2))
    taken = [next(first) for _ in range(8)]
    rows = [row for _, _, rows in taken for row in rows]
    assert all(sorted(rows[start : start + 4]) == [0, 1, 2, 3] for start in range(0, 24, 4))
    assert [prompt for prompts, *_ in taken for prompt in prompts] == [
        pairs.pairs[row].neutral for row in rows
    ]
    assert [next(again)[2] for _ in range(8)] == [batch[2] for batch in taken]
    assert [next(other)[2] for _ in range(8)] != [batch[2] for batch in taken]


def test_the_digest_tells_other_pictures_prompts_and_sizes_apart(tmp_path, model, pairs):
    training = pairs.pairs
    assert ImagePairs(training, tmp_path, model, SIZE).digest() == pairs.digest()
    found = {pairs.digest(), ImagePairs(training, tmp_path, model, 2 * SIZE).digest()}
    cut = dataclasses.replace(training[0], neutral="red chair.")
    found.add(ImagePairs([cut, *training[1:]], tmp_path, model, SIZE).digest())
    Image.new("RGB", (20, 20)).save(tmp_path / "pictures" / "red-chair.png")
    found.add(ImagePairs(training, tmp_path, model, SIZE).digest())
    assert len(found) == 4


def test_validation_pairs_are_kept_from_training(tmp_path):
    training, held, left_out = load_image_pairs(write_pairs(tmp_path))
    assert (len(training), len(held)) == (4, 2) and {pair.split for pair in held} == {"validation"}
    assert left_out == ""


@pytest.mark.parametrize("split", ["test", "unseen", "neuron_detection"])
def test_pairs_that_measure_are_never_trained_on(tmp_path, model, split):
    path = write_pairs(tmp_path)
    pairs = [
        dataclasses.replace(pair, split=split) if pair.split == "train" and "red" in pair.id else pair
        for pair in load_pairs(path)
    ]
    save_pairs(pairs, path)
    loaded = load_image_pairs(path)
    assert {pair.id for pair in loaded.training} == {"old-chair", "old-house"} and len(loaded.validation) == 2
    assert loaded.left_out.startswith(f"2 prompt pairs of the split {split}")
    with pytest.raises(PairError, match=split):
        ImagePairs(pairs, tmp_path, model, SIZE)
    save_pairs([pair for pair in pairs if pair.split == split], path)
    with pytest.raises(PairError, match=f"pairs.jsonl.*{split}"):
        load_image_pairs(path)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("https://example.org/a.png", "relative to the file"),
        ("/etc/passwd", "relative to the file"),
        ("../outside.png", "relative to the file"),
        ("link.png", "relative to the file"),
        ("nowhere.png", "is not there"),
        (None, "none of the pairs has a picture"),
    ],
)
def test_pictures_come_from_the_folder_alone(tmp_path, model, image, words):
    folder = tmp_path / "pairs"
    pair = load_image_pairs(write_pairs(folder)).training[0]
    Image.new("RGB", (20, 20)).save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(PairError, match=words):
        ImagePairs([dataclasses.replace(pair, image=image)], folder, model, SIZE)


def test_a_damaged_picture_and_a_size_that_does_not_fit_are_said(tmp_path, model, pairs):
    (tmp_path / "pictures" / "old-house.png").write_bytes(b"no picture")
    broken = ImagePairs(pairs.pairs, tmp_path, model, SIZE)
    with pytest.raises(PairError, match="'old-house'.*no readable picture"):
        broken.encode()
    with pytest.raises(PairError, match="15 pixels do not fit this model: use a multiple of 2"):
        ImagePairs(pairs.pairs, tmp_path, model, 15)
