"""CLIP, SigLIP and SigLIP 2 of random weights as judges."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from culture_core.cultures import CULTURES
from culture_core.judges import UNRECOGNISABLE, labels
from culture_core.judges.zero_shot import NOTHING, TEMPLATES, ZeroShotJudge

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LONGEST = 16


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    texts = [t.format(culture=c.name, region=c.region) for c in CULTURES.values() for t in TEMPLATES]
    words = sorted({word for text in [*texts, *NOTHING] for word in text.split()})
    table = {word: index for index, word in enumerate(["<unk>", "<pad>", "<eos>", *words])}
    whole = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=whole, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>",
        model_max_length=LONGEST, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


@pytest.fixture(scope="module", params=["clip", "siglip", "siglip2"])
def folder(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / request.param
    words = tokenizer()
    text = {**SIZES, "vocab_size": len(words), "max_position_embeddings": LONGEST, "projection_size": 32,
            "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0}  # fmt: skip
    vision = {**SIZES, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    if request.param == "clip":
        model = transformers.CLIPModel(transformers.CLIPConfig(text, vision, projection_dim=16))
        pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
        processor = transformers.CLIPProcessor(pictures, words)
    elif request.param == "siglip2":  # the variant that keeps a picture's proportions
        vision = {**SIZES, "num_patches": 16, "patch_size": 16}
        model = transformers.Siglip2Model(transformers.Siglip2Config(text, vision))
        pictures = transformers.Siglip2ImageProcessor(patch_size=16, max_num_patches=16)
        processor = transformers.Siglip2Processor(pictures, words)
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(text, vision))
        pictures = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
        processor = transformers.SiglipProcessor(pictures, words)
    for name, parameter in model.named_parameters():  # as initialised, all texts are nearly the same
        if "embedding" in name:
            parameter.data.mul_(30)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def test_one_description_a_label_gives_the_models_own_probabilities(folder):
    judge = ZeroShotJudge(
        folder, templates=["a scene in {region}"], descriptions={UNRECOGNISABLE: [NOTHING[1]]}
    )
    texts = [f"a scene in {culture.region}" for culture in CULTURES.values()] + [NOTHING[1]]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    inputs = processor(
        text=texts, images=PICTURE, return_tensors="pt", max_length=LONGEST, truncation=True,
        padding=True if folder.name == "clip" else "max_length",
    )  # fmt: skip
    with torch.no_grad():
        # SigLIP's logits have a bias besides, alike for all texts.
        expected = model(**inputs).logits_per_image[0].softmax(0)
    verdict = judge.judge(PICTURE)
    assert tuple(verdict.shares) == labels()
    assert list(verdict.shares.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    assert verdict.label == labels()[int(expected.argmax())] and verdict.models == (folder.name,)


def test_several_descriptions_are_averaged(folder):
    single = [ZeroShotJudge(folder, templates=[template])._texts[0] for template in TEMPLATES]
    mean = torch.stack(single).mean(0)
    assert torch.allclose(ZeroShotJudge(folder)._texts[0], mean / mean.norm(), atol=1e-5)


def test_descriptions_in_other_words_count_and_are_on_record(folder):
    judge = ZeroShotJudge(folder, descriptions={"th": ["Thailand scene"]})
    assert judge.settings()["descriptions"]["th"] == ["Thailand scene"]
    plain = ZeroShotJudge(folder)
    assert not torch.allclose(judge._texts[labels().index("th")], plain._texts[labels().index("th")])
    assert torch.equal(judge._texts[0], plain._texts[0])


def test_what_cannot_be_used_is_said(folder, tmp_path):
    with pytest.raises(ValueError, match="unknown labels: xx"):
        ZeroShotJudge(folder, descriptions={"xx": ["a"]})
    with pytest.raises(ValueError, match="culture.*region.*only"):
        ZeroShotJudge(folder, templates=["{country}"])
    with pytest.raises(ValueError, match="no Hugging Face folder"):
        ZeroShotJudge(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match="cannot be loaded"):
        ZeroShotJudge(tmp_path)
