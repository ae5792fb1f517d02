"""Amplifier and enhancer in diffusers pipelines: what they change, what they leave, and that they go."""

import os
import types
from pathlib import Path

import pytest
import torch
import transformers
from diffusers import DiffusionPipeline

from culture_core.amplifier import Amplifier
from culture_core.encoders import ATTENTION_OUTPUT, FEATURES, HIDDEN_STATE, HFTextEncoder
from culture_core.enhancer import LayerEnhancer
from culture_core.files import CultureSAE, EnhancerFile, FileError
from culture_core.neurons import CultureNeurons
from culture_core.pipelines import amplified, enhanced, matching_encoder, pipeline_encoders
from culture_core.sae import TopKSAE
from culture_core.selection import TokenSelection

from . import tiny_pipelines

ENCODERS = [
    ("sd", "text_encoder"),
    ("alt", "text_encoder"),
    ("sdxl", "text_encoder"),
    ("sdxl", "text_encoder_2"),
    ("sd3", "text_encoder_2"),
    ("sd3", "text_encoder_3"),
    ("flux", "text_encoder"),
    ("flux", "text_encoder_2"),
]
COMFYUI = os.environ.get("COMFYUI_PATH") or Path(__file__).parents[2] / ".comfyui" / "ComfyUI"
CLIP_VOCABULARY = Path(COMFYUI) / "comfy" / "sd1_tokenizer"
PROMPTS = ["a red chair", "the old house in the red"]


def culture_sae(encoder: HFTextEncoder, feature: str = HIDDEN_STATE, layer: int = 1) -> CultureSAE:
    torch.manual_seed(4)
    sae = TopKSAE(encoder.info.width, 24, 4)
    ones = torch.ones(3)
    neurons = CultureNeurons(torch.tensor([2, 5, 7]), ones, ones, ones, 0 * ones)
    return CultureSAE(sae, layer, feature, encoder.fingerprint(), {"ja": neurons})


def enhancer_file(encoder: HFTextEncoder) -> EnhancerFile:
    torch.manual_seed(5)
    enhancer = LayerEnhancer(encoder.info.width, 8)
    torch.nn.init.normal_(enhancer.gain, std=0.5)
    return EnhancerFile(enhancer.requires_grad_(False), 1, encoder.fingerprint())


def embeddings(pipe: DiffusionPipeline, prompt: str | list[str], **more: object) -> list[torch.Tensor]:
    """All that the pipeline makes of a prompt, and of a negative one where it takes that."""
    if type(pipe).__name__ == "StableDiffusion3Pipeline":
        more |= {"prompt_2": None, "prompt_3": None, "device": "cpu"}
    elif type(pipe).__name__ == "FluxPipeline":
        more = {"device": "cpu"}
    else:
        more |= {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": bool(more)}
    with torch.no_grad():
        return [part for part in pipe.encode_prompt(prompt, **more) if part is not None]


def hooks(pipe: DiffusionPipeline) -> int:
    modules = [module for part in pipe.components.values() if isinstance(part, torch.nn.Module)
               for module in part.modules()]  # fmt: skip
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("kind", "name"), ENCODERS)
def test_each_encoder_of_each_pipeline_can_be_amplified_and_enhanced_and_is_given_back(kind, name):
    pipe = tiny_pipelines.make(kind)
    encoder = pipeline_encoders(pipe)[name]
    sae, enhancer = culture_sae(encoder), enhancer_file(encoder)
    plain, before = embeddings(pipe, PROMPTS), hooks(pipe)
    with amplified(pipe, sae, "ja", strength=7) as same:
        assert same is pipe
        louder = embeddings(pipe, PROMPTS)
        with enhanced(pipe, enhancer, strength=0.5):
            both = embeddings(pipe, PROMPTS)
    with enhanced(pipe, enhancer):
        other = embeddings(pipe, PROMPTS)
    results = [plain, louder, both, other]
    assert not any(equal(a, b) for i, a in enumerate(results) for b in results[:i])
    assert hooks(pipe) == before and equal(embeddings(pipe, PROMPTS), plain)


@pytest.mark.parametrize(("kind", "name"), ENCODERS)
def test_strength_zero_puts_nothing_in_place(kind, name):
    pipe = tiny_pipelines.make(kind)
    encoder = pipeline_encoders(pipe)[name]
    before = hooks(pipe)
    with amplified(pipe, culture_sae(encoder), "ja", 0), enhanced(pipe, enhancer_file(encoder), 0):
        assert hooks(pipe) == before


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("mode", ["inject", "scale"])
def test_the_prompt_is_what_the_librarys_own_encoder_and_amplifier_make_of_it(feature, mode):
    pipe = tiny_pipelines.make("sd")
    encoder = HFTextEncoder(pipe.text_encoder, pipe.tokenizer)
    file = culture_sae(encoder, feature)
    tokens = encoder.tokenize(PROMPTS)
    amplifier = Amplifier(file.sae, file.neurons("ja"), 7, mode)
    with torch.no_grad(), encoder.patch(1, feature, lambda x: amplifier(x, tokens.content_mask)):
        expected = encoder.encode(tokens).hidden
    with amplified(pipe, file, "ja", 7, mode):
        found = embeddings(pipe, PROMPTS)[0]
    assert found.shape == (2, 77, 32) and amplifier.touched.tokens > 0
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_in_t5_padding_and_the_end_token_are_no_content():
    pipe = tiny_pipelines.make("flux")
    encoder = pipeline_encoders(pipe)["text_encoder_2"]
    file = culture_sae(encoder, layer=2)
    plain = embeddings(pipe, ["a red chair"])[0]
    with amplified(pipe, file, "ja", 7):
        louder = embeddings(pipe, ["a red chair"])[0]
    # After the last layer follows but a norm, token by token: what was not edited keeps every bit.
    changed = (plain != louder).any(dim=-1)[0]
    assert changed.nonzero().flatten().tolist() == [0, 1, 2]
    with enhanced(pipe, EnhancerFile(enhancer_file(encoder).enhancer, 2, encoder.fingerprint())):
        other = embeddings(pipe, ["a red chair"])[0]
    assert (plain != other).any(dim=-1)[0].nonzero().flatten().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["sd", "alt", "sdxl", "sd3"])
def test_an_empty_negative_prompt_stays_as_it_is_and_a_named_one_too(kind):
    pipe = tiny_pipelines.make(kind)
    file = culture_sae(pipeline_encoders(pipe)["text_encoder"])
    for negative in ("", "the red house"):
        plain = embeddings(pipe, "a chair", negative_prompt=negative)
        with amplified(pipe, file, "ja", 7):
            unnamed = embeddings(pipe, "a chair", negative_prompt=negative)
        with amplified(pipe, file, "ja", 7, negative="the red house"):
            named = embeddings(pipe, "a chair", negative_prompt=negative)
        assert not torch.equal(plain[0], named[0])
        assert torch.equal(plain[1], named[1])
        assert torch.equal(plain[1], unnamed[1]) == (negative == "")


def test_a_negative_prompt_that_the_pipeline_cuts_is_known_again():
    pipe = tiny_pipelines.make("sd")
    file = culture_sae(pipeline_encoders(pipe)["text_encoder"])
    long = "red house " * 60
    plain = embeddings(pipe, "a chair", negative_prompt=long)
    with amplified(pipe, file, "ja", 7, negative=[long]):
        assert torch.equal(embeddings(pipe, "a chair", negative_prompt=long)[1], plain[1])


def test_a_row_of_a_batch_is_edited_as_it_would_be_alone():
    pipe = tiny_pipelines.make("sd")
    file = culture_sae(pipeline_encoders(pipe)["text_encoder"])
    with amplified(pipe, file, "ja", 7):
        together = embeddings(pipe, [*PROMPTS, ""])[0]
        for row, prompt in enumerate([*PROMPTS, ""]):
            alone = embeddings(pipe, prompt)[0][0]
            torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-5)


def test_only_the_words_asked_for_are_edited_and_missing_ones_are_said(caplog):
    pipe = tiny_pipelines.make("flux")
    file = culture_sae(pipeline_encoders(pipe)["text_encoder_2"], layer=2)
    # The small vocabulary marks no word's end, so the word stands alone.
    plain = embeddings(pipe, ["chair", "house"])[0]
    with amplified(pipe, file, "ja", 7, tokens=TokenSelection("words", ("chair",))):
        changed = (embeddings(pipe, ["chair", "house"])[0] != plain).any(dim=-1)
        assert changed.nonzero().tolist() == [[0, 0]] and not caplog.text
        embeddings(pipe, "house")
    assert "none of the words chair" in caplog.text


@pytest.mark.parametrize("kind", ["sd", "alt", "sdxl", "sd3", "flux"])
def test_the_picture_changes_and_afterwards_is_the_same_bit_for_bit(kind):
    pipe = tiny_pipelines.make(kind)
    name = list(pipeline_encoders(pipe))[-1]
    file = culture_sae(pipeline_encoders(pipe)[name])
    settings = {"num_inference_steps": 1, "height": 16, "width": 16, "output_type": "np"}

    def picture():
        return torch.from_numpy(
            pipe("a chair", generator=torch.Generator().manual_seed(1), **settings).images[0]
        )

    plain = picture()
    with amplified(pipe, file, "ja", 12):
        louder = picture()
    assert torch.equal(picture(), plain) and not torch.equal(louder, plain)


def test_hooks_go_when_the_work_fails():
    pipe = tiny_pipelines.make("sd")
    encoder = pipeline_encoders(pipe)["text_encoder"]
    before = hooks(pipe)
    with pytest.raises(ZeroDivisionError), amplified(pipe, culture_sae(encoder), "ja", 7):
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="without token ids"), enhanced(pipe, enhancer_file(encoder)):
        pipe.text_encoder()
    assert hooks(pipe) == before


def test_of_encoders_of_one_shape_the_one_with_the_files_weights_is_taken():
    pipe = tiny_pipelines.make("sdxl")
    torch.manual_seed(12)
    pipe.text_encoder_2 = tiny_pipelines.clip_text()
    encoders = pipeline_encoders(pipe)
    for name, encoder in encoders.items():
        found = matching_encoder(pipe, culture_sae(encoder))
        assert found.model is getattr(pipe, name)
    assert matching_encoder(pipe, culture_sae(encoders["text_encoder"]), "text_encoder_2").model is (
        pipe.text_encoder_2
    )


def test_the_layer_that_a_pipeline_does_not_read_is_warned_about(caplog):
    pipe = tiny_pipelines.make("sdxl")
    file = culture_sae(pipeline_encoders(pipe)["text_encoder"], layer=2)
    plain = embeddings(pipe, "a chair")
    with amplified(pipe, file, "ja", 7):
        assert equal(embeddings(pipe, "a chair"), plain)
    assert "reads the last layer but one" in caplog.text


def test_any_object_with_an_encoder_and_its_tokenizer_will_do():
    """PEA-Diffusion's multilingual tower for instance, which no class of diffusers knows."""
    alt = tiny_pipelines.make("alt")
    pea = types.SimpleNamespace(text_encoder=alt.text_encoder.roberta, tokenizer=alt.tokenizer)
    ids = alt.tokenizer(["a red chair"], return_tensors="pt").input_ids
    with torch.no_grad():
        plain = pea.text_encoder(ids).last_hidden_state
        with amplified(pea, culture_sae(pipeline_encoders(pea)["text_encoder"]), "ja", 7):
            assert not torch.equal(pea.text_encoder(ids).last_hidden_state, plain)


def test_half_precision_keeps_its_type():
    pipe = tiny_pipelines.make("sd").to(torch.bfloat16)
    file = culture_sae(pipeline_encoders(pipe)["text_encoder"], ATTENTION_OUTPUT)
    with amplified(pipe, file, "ja", 7):
        assert embeddings(pipe, "a chair")[0].dtype == torch.bfloat16


def test_what_does_not_fit_is_said_in_words():
    pipe = tiny_pipelines.make("sdxl")
    other = culture_sae(pipeline_encoders(tiny_pipelines.make("flux"))["text_encoder_2"])
    with pytest.raises(FileError, match=r"t5, 3 layers of 24\); the pipeline has text_encoder \(clip"):
        with amplified(pipe, other, "ja", 7):
            pass
    mine = culture_sae(pipeline_encoders(pipe)["text_encoder"])
    with pytest.raises(ValueError, match="no text encoder 'text_encoder_3': use text_encoder, text_enc"):
        with amplified(pipe, mine, "ja", 7, encoder="text_encoder_3"):
            pass
    with pytest.raises(FileError, match="no culture 'fr'"), amplified(pipe, mine, "fr", 7):
        pass
    with pytest.raises(ValueError, match="strength is 13"), amplified(pipe, mine, "ja", 13):
        pass
    with pytest.raises(ValueError, match="has no text_encoder with a tokenizer"):
        pipeline_encoders(types.SimpleNamespace())


@pytest.mark.skipif(not CLIP_VOCABULARY.is_dir(), reason="CLIP's vocabulary comes with ComfyUI")
@pytest.mark.parametrize("kind", [transformers.CLIPTokenizer, transformers.CLIPTokenizerFast])
def test_words_are_found_among_clips_own_tokens(kind):
    pipe = tiny_pipelines.make("sd")
    pipe.tokenizer = kind.from_pretrained(CLIP_VOCABULARY, model_max_length=77)
    pipe.text_encoder = tiny_pipelines.clip_text(vocabulary=49408, begin=49406, end=49407)
    file = culture_sae(pipeline_encoders(pipe)["text_encoder"], layer=2)
    prompt = "An unbelievable armchair, a Chair!"
    plain = embeddings(pipe, prompt)[0]
    for words, expected in ((("chair",), ["chair</w>"]), (("unbelievable",), ["unbelievable</w>"])):
        with amplified(pipe, file, "ja", 7, tokens=TokenSelection("words", words)):
            changed = (embeddings(pipe, prompt)[0] != plain).any(dim=-1)[0]
        ids = pipe.tokenizer(prompt, padding="max_length", max_length=77).input_ids
        found = [ids[place] for place in changed.nonzero().flatten().tolist()]
        assert pipe.tokenizer.convert_ids_to_tokens(found) == expected
