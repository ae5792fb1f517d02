"""Feature stores and the order in which training sees vectors."""

import json

import pytest
import torch

from culture_core.sae import FeatureStore, SAEConfig, train_sae
from culture_core.sae.sources import BLOCK, INDEX, Batches, MatrixVectors, StoreWriter

CPU = torch.device("cpu")


def write_store(folder, matrix, texts=None, shard_vectors=700, dtype="float32") -> FeatureStore:
    """A store of a matrix, written in uneven pieces."""
    texts = torch.arange(len(matrix)) if texts is None else texts
    writer = StoreWriter(folder, {"of": "a test"}, matrix.shape[1], dtype, shard_vectors)
    for start in range(0, len(matrix), 130):
        part = slice(start, start + 130)
        writer.add(matrix[part], texts[part], start + len(matrix[part]))
    writer.close(len(matrix))
    return FeatureStore(folder)


def test_rows_are_taken_from_all_shards_in_the_order_asked_for(tmp_path):
    matrix = torch.randn(2000, 5)
    store = write_store(tmp_path, matrix)
    assert len(store) == 2000 and [shard.vectors for shard in store.shards] == [780, 780, 440]
    rows = torch.tensor([1999, 0, 780, 779, 780, 1500])
    assert torch.equal(store.take(rows), matrix[rows])
    assert torch.equal(store.groups(), torch.arange(2000))


@pytest.mark.parametrize("window", [4096, 1000])
def test_every_epoch_shows_each_vector_at_most_once_and_nearly_all(tmp_path, window):
    matrix = torch.arange(3000.0)[:, None].expand(3000, 2).contiguous()
    store = write_store(tmp_path, matrix)
    rows = torch.arange(3000)[torch.arange(3000) % 10 > 0]
    batches = Batches(store, rows, 64, window, seed=3)
    per_epoch = 2700 // 64
    epochs = []
    for epoch in range(2):
        seen = torch.cat([batches(epoch * per_epoch + i)[:, 0] for i in range(per_epoch)]).long()
        assert len(seen.unique()) == len(seen) == per_epoch * 64
        assert set(seen.tolist()) <= set(rows.tolist())
        epochs.append(seen)
    assert not torch.equal(epochs[0], epochs[1])
    again = Batches(store, rows, 64, window, seed=3)
    assert torch.equal(again(per_epoch + 5)[:, 0].long(), epochs[1][5 * 64 : 6 * 64]), "step by itself"


def test_blocks_of_neighbours_are_spread_over_the_windows(tmp_path):
    matrix = torch.arange(40.0 * BLOCK)[:, None].expand(-1, 2).contiguous()
    store = write_store(tmp_path, matrix, shard_vectors=5 * BLOCK)
    batches = Batches(store, torch.arange(len(matrix)), 64, 8 * BLOCK, seed=1)
    window = torch.cat([batches(i)[:, 0] for i in range(8 * BLOCK // 64)])
    blocks = (window // BLOCK).unique()
    assert len(blocks) == 8 and not torch.equal(blocks, torch.arange(blocks[0], blocks[0] + 8))
    assert ((window[1:] - window[:-1]).abs() > BLOCK).float().mean() > 0.5, "shuffled within the window"


def test_only_one_window_is_ever_taken_at_a_time(tmp_path, monkeypatch):
    store = write_store(tmp_path, torch.randn(3000, 2))
    taken = []
    monkeypatch.setattr(
        FeatureStore, "take", lambda self, rows: taken.append(len(rows)) or torch.zeros(len(rows), 2)
    )
    batches = Batches(store, torch.arange(3000), 64, 1000, seed=0)
    for step in range(46):
        batches(step)
    assert taken == [960, 960, 960, 120]


def test_a_store_within_one_window_trains_the_same_sae_as_its_matrix(tmp_path):
    matrix, texts = torch.randn(600, 8), torch.arange(600) // 7
    store = write_store(tmp_path, matrix, texts, shard_vectors=250)
    config = SAEConfig(n_latents=32, k=4, steps=25, batch_size=32, learning_rate=1e-3)
    from_store, report = train_sae(store, config)
    from_matrix, expected = train_sae(matrix, config, groups=texts)
    for name, tensor in from_matrix.state_dict().items():
        assert torch.equal(tensor, from_store.state_dict()[name]), name
    assert report.losses == expected.losses and report.fvu_heldout == expected.fvu_heldout


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_run_on_a_large_store_resumes_exactly(tmp_path, dtype):
    store = write_store(tmp_path / "store", torch.randn(1500, 8), dtype=dtype)
    config = SAEConfig(n_latents=32, k=4, steps=60, batch_size=32, learning_rate=1e-3, window=500)
    whole, report = train_sae(store, config)

    def stop(done, total, loss):
        if done == 27:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train_sae(store, config, progress=stop, checkpoint=tmp_path / "run")
    resumed, again = train_sae(FeatureStore(store.folder), config, checkpoint=tmp_path / "run")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert report == again


def test_texts_of_a_store_are_held_out_as_a_whole(tmp_path):
    texts = torch.arange(600) // 6
    store = write_store(tmp_path, torch.randn(600, 4), texts)
    config = SAEConfig(n_latents=8, k=2, steps=1, holdout=0.25)
    assert train_sae(store, config)[1].vectors == 450
    with pytest.raises(ValueError, match="knows its groups"):
        train_sae(store, config, groups=texts)


def test_the_hash_tells_stores_apart_and_verify_finds_a_changed_shard(tmp_path):
    matrix = torch.randn(300, 4)
    store = write_store(tmp_path / "a", matrix)
    assert store.digest() == write_store(tmp_path / "b", matrix).digest()
    assert store.digest() != write_store(tmp_path / "c", matrix + 1).digest()
    store.verify()
    path = store.folder / store.shards[0].file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"000000\.safetensors: was changed"):
        store.verify()


def test_values_that_the_dtype_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match="too large for the dtype: use float32"):
        write_store(tmp_path, torch.full((10, 4), 1e6), dtype="float16")
    assert not list(tmp_path.iterdir())


def test_a_broken_store_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="holds no feature store"):
        FeatureStore(tmp_path)
    store = write_store(tmp_path, torch.randn(300, 4))
    index = json.loads((tmp_path / INDEX).read_text())
    for change, complaint in [
        ({"format_version": 99}, "update the pack"),
        ({"complete": False}, "not complete"),
        ({"shards": [{**index["shards"][0], "file": "../x"}]}, "misnamed"),
        ({"shards": [{**index["shards"][0], "vectors": 299}]}, "another shape"),
    ]:
        (tmp_path / INDEX).write_text(json.dumps({**index, **change}))
        with pytest.raises(ValueError, match=complaint):
            FeatureStore(tmp_path).take(torch.tensor([0]))
    (tmp_path / INDEX).write_text(json.dumps(index))
    (tmp_path / store.shards[0].file).unlink()
    with pytest.raises(ValueError, match="missing"):
        FeatureStore(tmp_path)


@pytest.mark.parametrize(
    ("matrix", "complaint"),
    [(torch.full((8, 4), torch.inf), "NaN or infinite"), (torch.zeros(1, 4), "N >= 2")],
)
def test_an_unusable_matrix_is_refused(matrix, complaint):
    with pytest.raises(ValueError, match=complaint):
        MatrixVectors(matrix, None, CPU)
