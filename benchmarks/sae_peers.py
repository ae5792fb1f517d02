"""Training steps of other SAE libraries, for `sae_step.py` and `sae_quality.py`.

Their packages are looked for in one folder, so that nothing of them comes into this repository's environment:

    pip install --no-deps --target PEERS eai-sparsify sae-lens dictionary-learning overcomplete \
        natsort simple-parsing docstring-parser schedulefree

Every step is the library's own code; what surrounds it in its training loop (optimiser, projection, clipping,
order) is repeated here. Packages' `__init__` files are passed by, as they import what a step does not
need (language models, plots), and hook points of transformer_lens are stood in for by identities. OpenAI's is
not on PyPI: its dense step is written here from its published algorithm.
"""

import importlib
import logging
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from culture_core.processes import Processes
from culture_core.sae import SAEConfig
from culture_core.sae.codes import encoder_product
from culture_core.sae.sources import MatrixVectors
from culture_core.sae.training import _Trainer


class Sizes(NamedTuple):
    width: int
    latents: int
    k: int
    learning_rate: float


class Peer(NamedTuple):
    """A model in training."""

    step: Callable[[Tensor], object]
    """Takes one training step on normalised vectors [n, d]."""
    rebuild: Callable[[Tensor], tuple[Tensor, Tensor]]
    """(reconstruction [n, d], which latents are active [n, M])."""


def add_packages(folder: Path) -> None:
    """Make the packages in a folder importable, without running the `__init__` of the large ones."""
    sys.path.insert(0, str(folder))
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # it would be chosen wherever it is installed, GPU or not
    for name in (
        "sparsify", "dictionary_learning", "dictionary_learning.trainers", "overcomplete", "overcomplete.sae",
        "sae_lens", "sae_lens.saes", "sae_lens.training", "transformer_lens",
    ):  # fmt: skip
        module = types.ModuleType(name)
        module.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = module
    sys.modules["sae_lens"].__version__ = "unknown"
    sys.modules["sae_lens"].logger = logging.getLogger("sae_lens")
    hooks, models = types.ModuleType("hook_points"), types.ModuleType("HookedTransformer")
    hooks.HookPoint = type("HookPoint", (nn.Identity,), {})
    models.HookedRootModule = type("HookedRootModule", (nn.Module,), {"setup": lambda self: None})
    sys.modules["transformer_lens.hook_points"] = hooks
    sys.modules["transformer_lens.HookedTransformer"] = models


def ours(sizes: Sizes, data: Tensor, **changes: object) -> Peer:
    """This repository's whole training step; the batch is handed to it instead of drawn by it."""
    config = SAEConfig(
        n_latents=sizes.latents, k=sizes.k, learning_rate=sizes.learning_rate, holdout=0.0, steps=10**6,
        **changes,
    )  # fmt: skip
    with torch.no_grad():
        vectors = MatrixVectors(data, None, torch.device("cpu"))
        trainer = _Trainer(vectors, config, torch.device("cpu"), Processes(None))
        trainer.start()
    sae = trainer.sae

    @torch.no_grad()
    def step(x: Tensor) -> None:
        trainer.batches, trainer.batch = lambda _: x, len(x)
        trainer.losses.append(trainer._step())

    @torch.no_grad()
    def rebuild(x: Tensor) -> tuple[Tensor, Tensor]:
        z = sae.encode(x)
        return sae.decode(z), z > 0

    return Peer(step, rebuild)


def sparsify(sizes: Sizes, data: Tensor, optimiser: str = "adam") -> Peer:
    """eai-sparsify's SparseCoder in its trainer's order."""
    coder = importlib.import_module("sparsify.sparse_coder")
    config = importlib.import_module("sparsify.config").SparseCoderConfig(
        num_latents=sizes.latents, k=sizes.k
    )
    model = coder.SparseCoder(sizes.width, config)
    if optimiser == "adam":
        chosen = torch.optim.Adam(model.parameters(), lr=sizes.learning_rate)
    else:
        sign = importlib.import_module("sparsify.sign_sgd").SignSGD
        free = importlib.import_module("schedulefree").ScheduleFreeWrapper
        rate = 5e-3 / (sizes.latents / 2**14) ** 0.5  # the trainer's own choice
        chosen = free(sign(model.parameters(), lr=rate), momentum=0.95)
        chosen.train()

    def step(x: Tensor) -> None:
        model.set_decoder_norm_to_unit_norm()
        model(x).fvu.backward()
        model.remove_gradient_parallel_to_decoder_directions()
        chosen.step()
        chosen.zero_grad()

    @torch.no_grad()
    def rebuild(x: Tensor) -> tuple[Tensor, Tensor]:
        out = model(x)
        active = torch.zeros(len(x), sizes.latents, dtype=torch.bool)
        return out.sae_out, active.scatter_(1, out.latent_indices, out.latent_acts > 0)

    return Peer(step, rebuild)


def dictionary_learning(sizes: Sizes, data: Tensor) -> Peer:
    """dictionary_learning's TopKTrainer, without warm-up."""
    trainers = importlib.import_module("dictionary_learning.trainers.top_k")
    trainer = trainers.TopKTrainer(
        steps=10**6, activation_dim=sizes.width, dict_size=sizes.latents, k=sizes.k, layer=0, lm_name="",
        lr=sizes.learning_rate, warmup_steps=0, device="cpu",
    )  # fmt: skip
    done = iter(range(10**6))

    @torch.no_grad()
    def rebuild(x: Tensor) -> tuple[Tensor, Tensor]:
        rebuilt, code = trainer.ae(x, output_features=True)
        return rebuilt, code > 0

    return Peer(lambda x: trainer.update(next(done), x), rebuild)


def sae_lens(sizes: Sizes, data: Tensor, sparse: bool = False) -> Peer:
    """SAELens' TopKTrainingSAE in its trainer's order."""
    saes = importlib.import_module("sae_lens.saes.topk_sae")
    base = importlib.import_module("sae_lens.saes.sae")
    registry = importlib.import_module("sae_lens.registry")
    if "topk" not in registry.SAE_CLASS_REGISTRY:  # what the package's `__init__` does
        registry.register_sae_class("topk", saes.TopKSAE, saes.TopKSAEConfig)
        registry.register_sae_training_class("topk", saes.TopKTrainingSAE, saes.TopKTrainingSAEConfig)
    config = saes.TopKTrainingSAEConfig(
        d_in=sizes.width, d_sae=sizes.latents, k=sizes.k, use_sparse_activations=sparse,
        rescale_acts_by_decoder_norm=not sparse,  # its backward pass fails on sparse ones
    )  # fmt: skip
    model = saes.TopKTrainingSAE(config)
    optimiser = torch.optim.Adam(model.parameters(), lr=sizes.learning_rate)
    silent = torch.zeros(sizes.latents)
    frequency = torch.zeros(sizes.latents)

    def step(x: Tensor) -> None:
        out = model.training_forward_pass(
            base.TrainStepInput(
                sae_in=x, coefficients={}, dead_neuron_mask=silent > 1000, n_training_steps=0,
                is_logging_step=False,
            )
        )  # fmt: skip
        with torch.no_grad():
            firing = out.feature_acts.bool().float()
            fired = firing.sum(-2).bool()
            fired = fired.to_dense() if fired.is_sparse else fired
            silent.add_(1)
            silent[fired] = 0
            frequency.add_(firing.sum(0))
        out.loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    @torch.no_grad()
    def rebuild(x: Tensor) -> tuple[Tensor, Tensor]:
        code = model.encode(x)
        code = code.to_dense() if code.is_sparse else code
        return model.decode(code), code > 0

    return Peer(step, rebuild)


def overcomplete(sizes: Sizes, data: Tensor) -> Peer:
    """Overcomplete's TopKSAE in the order of its train_sae, with squared error, monitoring off."""
    model = importlib.import_module("overcomplete.sae.topk_sae").TopKSAE(
        sizes.width, sizes.latents, top_k=sizes.k
    )
    tracker = importlib.import_module("overcomplete.sae.trackers").DeadCodeTracker(sizes.latents, "cpu")
    optimiser = torch.optim.Adam(model.parameters(), lr=sizes.learning_rate)

    def step(x: Tensor) -> None:
        model.train()
        optimiser.zero_grad()
        _, code, rebuilt = model(x)
        loss = (x - rebuilt).square().mean()
        tracker.update(code)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    @torch.no_grad()
    def rebuild(x: Tensor) -> tuple[Tensor, Tensor]:
        model.eval()
        _, code, rebuilt = model(x)
        return rebuilt, code > 0

    return Peer(step, rebuild)


def openai(sizes: Sizes, data: Tensor) -> Peer:
    """The dense step of openai/sparse_autoencoder, re-implemented from its published algorithm."""
    decoder = nn.Parameter(nn.functional.normalize(torch.randn(sizes.latents, sizes.width), dim=1))
    encoder = nn.Parameter(decoder.detach().clone())
    bias, centre = nn.Parameter(torch.zeros(sizes.latents)), nn.Parameter(torch.zeros(sizes.width))
    optimiser = torch.optim.Adam((encoder, decoder, bias, centre), lr=sizes.learning_rate, eps=6.25e-10)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = nn.functional.linear(x - centre, encoder, bias).topk(sizes.k, dim=-1, sorted=False)
        code = torch.zeros(len(x), sizes.latents).scatter(-1, indices, values.relu())
        return code @ decoder + centre, code

    with torch.no_grad():  # reconstructions start with the norm of the inputs
        sample = data[:1024]
        centre.copy_(data.mean(dim=0))
        encoder.mul_((sample - centre).norm() / (forward(sample)[0] - centre).norm())

    def step(x: Tensor) -> None:
        rebuilt, _ = forward(x)
        (((rebuilt - x) ** 2).mean() / (x**2).mean()).backward()
        with torch.no_grad():
            decoder.grad -= (decoder.grad * decoder).sum(dim=1, keepdim=True) * decoder
            optimiser.step()
            optimiser.zero_grad()
            decoder.div_(decoder.norm(dim=1, keepdim=True))

    @torch.no_grad()
    def rebuild(x: Tensor) -> tuple[Tensor, Tensor]:
        rebuilt, code = forward(x)
        return rebuilt, code > 0

    return Peer(step, rebuild)


PEERS: dict[str, Callable[[Sizes, Tensor], Peer]] = {
    "sparsify, Adam": sparsify,
    "sparsify, signum": lambda sizes, data: sparsify(sizes, data, "signum"),
    "dictionary_learning": dictionary_learning,
    "SAELens, dense": sae_lens,
    "SAELens, sparse": lambda sizes, data: sae_lens(sizes, data, sparse=True),
    "Overcomplete": overcomplete,
    "OpenAI (re-implemented)": openai,
}


def available(sizes: Sizes, data: Tensor) -> dict[str, Peer]:
    """The peers that can be made here; why another cannot is printed."""
    made = {}
    for name, make in PEERS.items():
        torch.manual_seed(0)
        try:
            made[name] = make(sizes, data)
        except ImportError as error:
            print(f"{name}: left out, {error}")
    return made


def our_product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The encoder product as this repository takes it."""
    with torch.no_grad():
        return encoder_product(x, weight, bias)
