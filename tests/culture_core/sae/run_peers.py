"""Other SAE libraries at work, in a process of their own: `python run_peers.py FOLDER`.

FOLDER/x.safetensors holds features `x`. The SAE in FOLDER/<library>/ours is loaded with that library, and
every SAE that `VARIANTS` asks for is made by the library's own class, filled with random numbers and saved
the library's way in FOLDER/<library>/<variant>. What each makes of the features is written beside, to
<name>.safetensors: the reconstruction `y` and the code `z`.

The SAE classes and their loading and saving are the library's own. Packages that it imports but that these do
not use, all of them large, are empty stand-ins where they are missing.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ABSENT = {"datasets", "nltk", "nnsight", "pandas", "wandb", "zstandard"}
WIDTH, LATENTS, K = 16, 64, 5


class _Absent(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _AbsentFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        known = name.partition(".")[0] in ABSENT
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec):
        return _Absent(spec.name)

    def exec_module(self, module):
        pass


def randomise(sae: torch.nn.Module, decoder: torch.Tensor, norms: str) -> None:
    """Random parameters; decoder rows [M, d] (a view of the parameter) of norm 1, of norm 2.5, or of any."""
    torch.manual_seed(7)
    for parameter in sae.parameters():
        torch.nn.init.normal_(parameter)
    decoder /= decoder.norm(dim=1, keepdim=True)
    if norms == "equal":
        decoder *= 2.5
    elif norms == "any":
        decoder *= 0.5 + torch.rand(len(decoder), 1)


def sparsify_load(folder):
    from sparsify import SparseCoder

    return SparseCoder.load_from_disk(folder)


def sparsify_make(folder, norms):
    from sparsify import SparseCoder, SparseCoderConfig

    sae = SparseCoder(WIDTH, SparseCoderConfig(expansion_factor=LATENTS // WIDTH, k=K))
    randomise(sae, sae.W_dec.data, norms)
    sae.save_to_disk(folder)
    return sae


def sparsify_run(sae, x):
    found = sae(x)
    code = torch.zeros(len(x), sae.num_latents)
    return found.sae_out, code.scatter(1, found.latent_indices, found.latent_acts)


def sae_lens_load(folder):
    from sae_lens import SAE

    return SAE.load_from_disk(folder)


def sae_lens_make(folder, norms, training=False, **options):
    from sae_lens import TopKSAE, TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig

    kind, config = (TopKTrainingSAE, TopKTrainingSAEConfig) if training else (TopKSAE, TopKSAEConfig)
    sae = kind(config(d_in=WIDTH, d_sae=LATENTS, k=K, **options))
    randomise(sae, sae.W_dec.data, norms)
    sae.save_model(folder)
    return sae


def sae_lens_run(sae, x):
    return sae(x), sae.encode(x)


def dictionary_load(folder):
    from dictionary_learning.utils import load_dictionary

    return load_dictionary(str(folder), "cpu")[0]


def dictionary_make(folder, norms):
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(2000, WIDTH, LATENTS, K, layer=3, lm_name="none", device="cpu")
    randomise(trainer.ae, trainer.ae.decoder.weight.data.T, norms)
    trainer.ae.threshold.fill_(0.3)
    folder.mkdir()
    # The two statements by which the library's `trainSAE` saves.
    torch.save(trainer.ae.state_dict(), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": trainer.config}))
    return trainer.ae


def dictionary_run(sae, x):
    return sae(x), sae.encode(x)


PLAIN = {name: {"norms": name} for name in ("unit", "equal", "any")}
LIBRARIES = {
    "sparsify": (sparsify_load, sparsify_make, sparsify_run),
    "sae-lens": (sae_lens_load, sae_lens_make, sae_lens_run),
    "dictionary-learning": (dictionary_load, dictionary_make, dictionary_run),
}
VARIANTS = {
    "sparsify": PLAIN,
    "sae-lens": {
        **PLAIN,
        "whole_input": {"norms": "unit", "apply_b_dec_to_input": False},
        "rescaled": {"norms": "any", "rescale_acts_by_decoder_norm": True},
        "checkpoint": {"norms": "any", "training": True, "apply_b_dec_to_input": False},
    },
    "dictionary-learning": PLAIN,
}


@torch.no_grad()
def main(folder: Path) -> None:
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    sys.meta_path.append(_AbsentFinder())
    x = load_file(folder / "x.safetensors")["x"]
    for library, (load, make, run) in LIBRARIES.items():
        place = folder / library
        saes = {"ours": load(place / "ours")}
        saes |= {name: make(place / name, **options) for name, options in VARIANTS[library].items()}
        for name, sae in saes.items():
            y, z = run(sae, x)
            save_file({"y": y.contiguous(), "z": z.contiguous()}, place / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
