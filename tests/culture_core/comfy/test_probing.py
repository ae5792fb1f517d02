"""What probing asks of an encoder, in every family that ComfyUI loads."""

import torch

from culture_core.comfy import ComfyTextEncoder
from culture_core.encoders import ATTENTION_OUTPUT, ATTENTION_WEIGHTS

PROMPTS = ["a red house by the sea", "an old bridge"]


def test_resuming_at_a_layer_gives_what_the_whole_encode_gives(place: object) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    tokens = encoder.tokenize(PROMPTS)
    layers = encoder.info.layers
    with torch.inference_mode():
        with encoder.record() as recorded:
            plain = encoder.encode(tokens).hidden
        for layer in range(layers):
            with encoder.patch(layer, ATTENTION_OUTPUT, lambda x: 1.5 * x):
                whole = encoder.encode(tokens).hidden
                with encoder.resume(layer, recorded):
                    resumed = encoder.encode(tokens).hidden
            assert torch.equal(resumed, whole)
            assert torch.equal(resumed, plain) == (layer > place.taken)
        assert torch.equal(encoder.encode(tokens).hidden, plain)
    assert not any("forward" in vars(layer) for layer in encoder.layer_modules())


def test_layers_that_are_left_out_do_not_run(place: object) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    tokens = encoder.tokenize(PROMPTS[:1])
    ran = []
    with torch.inference_mode():
        with encoder.record() as recorded:
            encoder.encode(tokens)
        handles = [
            next(layer.children()).register_forward_hook(lambda *_, at=at: ran.append(at))
            for at, layer in enumerate(encoder.layer_modules())
        ]
        with encoder.resume(2, recorded):
            encoder.encode(tokens)
    for handle in handles:
        handle.remove()
    assert set(ran).isdisjoint({0, 1}) and set(ran) <= {2, 3}


def test_weights_of_some_queries_are_rows_of_all_weights(place: object) -> None:
    encoder = ComfyTextEncoder(place.clip, place.key)
    tokens = encoder.tokenize(PROMPTS)
    queries = torch.tensor([[4, 1], [2, 2]])
    layers, found = range(place.taken + 1), {}
    with torch.inference_mode(), encoder.capture(layers, {ATTENTION_WEIGHTS}) as captured:
        with encoder.watch_attention_of(layers, queries, lambda at, _what, w: found.update({at: w})):
            encoder.encode(tokens)
    for layer in layers:
        whole = captured.attention_weights[layer]
        expected = torch.stack([whole[row][:, wanted] for row, wanted in enumerate(queries.tolist())])
        torch.testing.assert_close(found[layer], expected, atol=1e-6, rtol=0, equal_nan=True)
