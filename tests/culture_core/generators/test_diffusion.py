"""Jobs on a diffusers pipeline: the picture is the pipeline's own, amplified and enhanced where asked."""

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from culture_core.enhancer import LayerEnhancer
from culture_core.files import CultureSAE, EnhancerFile, load_culture_sae, save_culture_sae, save_enhancer
from culture_core.generators import Prompt, read_pictures
from culture_core.generators.base import JobRefused
from culture_core.generators.diffusion import PipelineWorker
from culture_core.generators.run import check_systems, plan, run_jobs
from culture_core.generators.systems import read_systems
from culture_core.neurons import CultureNeurons
from culture_core.pipelines import amplified, pipeline_encoders
from culture_core.sae import TopKSAE

from .. import tiny_pipelines

PROMPT = Prompt("ja-1", "ja", "en", "a red chair", "a thai style chair", "a red chair")
FIXED = "diffusers: tiny, steps: 2, width: 16, height: 16, guidance: 3"
YAML = f"""
systems:
  plain: {{{FIXED}}}
  amplified: {{{FIXED}, amplify: sae.safetensors}}
  enhanced: {{{FIXED}, enhance: enhancer.safetensors}}
  both: {{{FIXED}, amplify: sae.safetensors, enhance: enhancer.safetensors, strengths: [7]}}
  unknown: {{diffusers: nobody/nothing}}
"""
NAMES = ["plain", "amplified", "enhanced", "both"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Stable Diffusion, an SAE and an enhancer for it, and their systems."""
    folder = tmp_path_factory.mktemp("systems")
    pipe = tiny_pipelines.make("sd")
    pipe.save_pretrained(folder / "tiny")
    encoder = pipeline_encoders(pipe)["text_encoder"]
    torch.manual_seed(4)
    ones = torch.ones(3)
    neurons = CultureNeurons(torch.tensor([2, 5, 7]), ones, ones, ones, 0 * ones)
    sae = TopKSAE(encoder.info.width, 24, 4)
    save_culture_sae(
        CultureSAE(sae, 1, "hidden_state", encoder.fingerprint(), {"ja": neurons}), folder / "sae.safetensors"
    )
    enhancer = LayerEnhancer(encoder.info.width, 8)
    torch.nn.init.normal_(enhancer.gain, std=0.5)
    save_enhancer(
        EnhancerFile(enhancer.requires_grad_(False), 1, encoder.fingerprint()),
        folder / "enhancer.safetensors",
    )
    (folder / "systems.yaml").write_text(YAML)
    return folder


@pytest.fixture(scope="module")
def drawn(folder, tmp_path_factory):
    """Pixels by (system, strength)."""
    run = tmp_path_factory.mktemp("run")
    systems = read_systems(folder / "systems.yaml", NAMES)
    workers = check_systems(systems, [PipelineWorker()])
    jobs = plan(systems, [PROMPT], [3], [0.0, 7.0], lambda prompt, treatment: prompt.neutral)
    summary = run_jobs(run, systems, jobs, workers)
    assert (summary.made, summary.failed) == (6, [])
    return {(p.system, p.strength): np.asarray(Image.open(p.path)) for p in read_pictures(run)}


def test_the_picture_is_the_one_that_the_pipeline_makes_by_hand(folder, drawn):
    pipe = DiffusionPipeline.from_pretrained(folder / "tiny")
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "width": 16, "height": 16, "guidance_scale": 3.0}

    def by_hand():
        return np.asarray(
            pipe("a red chair", generator=torch.Generator().manual_seed(3), **settings).images[0]
        )

    assert np.array_equal(drawn["plain", None], by_hand())
    with amplified(pipe, load_culture_sae(folder / "sae.safetensors"), "ja", 7.0):
        assert np.array_equal(drawn["amplified", 7.0], by_hand())


def test_strength_zero_is_the_plain_picture_and_everything_else_another(drawn):
    plain = drawn["plain", None]
    assert np.array_equal(drawn["amplified", 0.0], plain) and np.array_equal(drawn["enhanced", 0.0], plain)
    others = [plain, drawn["amplified", 7.0], drawn["enhanced", 7.0], drawn["both", 7.0]]
    assert not any(np.array_equal(a, b) for n, a in enumerate(others) for b in others[:n])


def test_what_does_not_fit_is_refused(folder):
    worker = PipelineWorker()

    def refused(name, prompt=PROMPT):
        (system,) = read_systems(folder / "systems.yaml", [name])
        (job,) = plan([system], [prompt], [0], [2.0], lambda prompt, treatment: prompt.neutral)
        with pytest.raises(JobRefused) as caught:
            worker.make(system, job)
        return str(caught.value)

    assert "no culture 'th'" in refused("amplified", PROMPT._replace(culture="th"))
    # Nothing is downloaded unasked.
    assert "the pipeline nobody/nothing cannot be loaded: say where it is with --path" in refused("unknown")
