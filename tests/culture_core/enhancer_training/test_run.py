"""Training on pictures: it learns, it can be taken up again, and it touches nothing else."""

import pytest
import torch
from PIL import Image

from culture_core.enhancer import EnhancerConfig, LayerEnhancer
from culture_core.enhancer_training import ImagePairs, train_on_pictures
from culture_core.enhancer_training.losses import ImageLoss
from culture_core.enhancer_training.run import Place, in_place

CONFIG = EnhancerConfig(learning_rate=3e-3, steps=6, checkpoint_every=2)


def mean_loss(one, enhancer: LayerEnhancer, kind: str) -> float:
    """Over the same noise every time."""
    torch.manual_seed(77)
    loss, total = ImageLoss(one.model, one.pairs, kind), 0.0
    with torch.no_grad(), in_place(enhancer, one.place):
        for batch, _ in zip(one.pairs.batches(4), range(6), strict=False):
            total += float(loss(one.model.condition(batch[0]), batch))
    return total / 6


@pytest.mark.parametrize(
    ("kind", "loss", "share"),
    # The decoder is random too: hardly anything in the latent moves what it makes towards the picture.
    [("sd", "denoise", 0.97), ("sd", "pixel", 0.995), ("sd3", "latent", 0.97)],
)
def test_the_loss_falls(study, kind, loss, share):
    one = study(kind)
    enhancer = LayerEnhancer(32, 16)
    before = mean_loss(one, enhancer, loss)
    config = EnhancerConfig(learning_rate=3e-2, steps=20)
    train_on_pictures(enhancer, *one.all, loss, config, batch_size=4)
    assert mean_loss(one, enhancer, loss) < share * before


def test_models_hooks_and_random_numbers_are_left_as_they_were(study):
    one = study("sd")
    before = [p.clone() for part in one.model.modules() for p in part.parameters()]
    state = torch.get_rng_state()
    train_on_pictures(LayerEnhancer(32, 8), *one.all, "pixel", CONFIG, checkpointing=True)
    assert torch.equal(torch.get_rng_state(), state)
    after = [p for part in one.model.modules() for p in part.parameters()]
    assert all(torch.equal(p, q) and q.requires_grad for p, q in zip(before, after, strict=True))
    modules = one.model.pipe.text_encoder.modules()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9, "accumulate": 2}])
def test_an_interrupted_run_ends_as_the_undisturbed_one_bit_for_bit(study, tmp_path, settings):
    one, path = study("sd3"), tmp_path / "run.safetensors"
    config = EnhancerConfig(learning_rate=3e-3, steps=6, checkpoint_every=2, **settings)
    whole, broken, again = (LayerEnhancer(32, 8) for _ in range(3))
    train_on_pictures(whole, *one.all, "latent", config, batch_size=2)

    def stop(done: int, _total: int, _loss: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_on_pictures(broken, *one.all, "latent", config, batch_size=2, progress=stop, checkpoint=path)
    train_on_pictures(again, *one.all, "latent", config, batch_size=2, checkpoint=path)
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert bool(whole.gain.any())


def test_a_checkpoint_of_other_pictures_another_loss_or_another_place_is_refused(study, tmp_path):
    one, path = study("sd"), tmp_path / "run.safetensors"
    train_on_pictures(LayerEnhancer(32, 8), *one.all, "latent", CONFIG, checkpoint=path)
    model, place, pairs = one.all

    def refused(*changed: object, **more: int) -> None:
        with pytest.raises(ValueError, match="or to other data; delete it"):
            train_on_pictures(LayerEnhancer(32, 8), *changed, CONFIG, checkpoint=path, **more)

    refused(model, place, pairs, "denoise")
    refused(model, Place(place.encoder, 0), pairs, "latent")
    refused(model, place, pairs, "latent", batch_size=2)
    Image.new("RGB", (20, 20)).save(tmp_path / "pictures" / "red-chair.png")
    refused(model, place, ImagePairs(pairs.pairs, tmp_path, model, 16), "latent")


def test_a_layer_that_the_image_model_never_sees_is_said(study):
    one = study("sdxl")
    with pytest.raises(ValueError, match="does not depend on the enhancer"):
        place = Place(one.place.encoder, 2)
        train_on_pictures(LayerEnhancer(32, 8), one.model, place, one.pairs, "latent", CONFIG)


@pytest.mark.parametrize(("precision", "scale"), [(torch.bfloat16, 1.0), (torch.float16, 2.0**14)])
def test_frozen_models_may_have_lower_precision(study, precision, scale):
    one = study("sd")
    for part in (one.model.model, one.model.pipe.text_encoder):
        part.to(precision)
    enhancer = LayerEnhancer(32, 8)
    config = EnhancerConfig(learning_rate=1e-2, steps=3, loss_scale=scale)
    report = train_on_pictures(enhancer, *one.all, "pixel", config)
    assert enhancer.W1.dtype == torch.float32 and bool(enhancer.gain.any())
    assert all(torch.isfinite(torch.tensor(report.losses)))


def test_it_trains_in_inference_mode(study):
    one = study("sd")
    with torch.inference_mode():
        enhancer = LayerEnhancer(32, 8)
        one.pairs.encode()
        train_on_pictures(enhancer, *one.all, "pixel", CONFIG)
    assert bool(enhancer.gain.any())
