"""CLIP, SigLIP and SigLIP 2 of random weights as judges."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from culture_core.cultures import CULTURES
from culture_core.judges import UNRECOGNISABLE, labels
from culture_core.judges.zero_shot import NOTHING, TEMPLATES, ZeroShotJudge

from ..tiny_dual_encoders import LONGEST, save_dual_encoder

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=["clip", "siglip", "siglip2"])
def folder(request, tmp_path_factory) -> Path:
    texts = [t.format(culture=c.name, region=c.region) for c in CULTURES.values() for t in TEMPLATES]
    path = tmp_path_factory.mktemp("models") / request.param
    return save_dual_encoder(request.param, path, [*texts, *NOTHING, "Thailand"])


def test_one_description_a_label_gives_the_models_own_probabilities(folder):
    judge = ZeroShotJudge(
        folder, templates=["a scene in {region}"], descriptions={UNRECOGNISABLE: [NOTHING[1]]}
    )
    texts = [f"a scene in {culture.region}" for culture in CULTURES.values()] + [NOTHING[1]]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    if folder.name != "clip":  # which both generations of SigLIP were trained on
        texts = [text.lower() for text in texts]
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
