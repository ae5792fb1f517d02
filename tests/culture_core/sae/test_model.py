"""The SAE model: what it computes, with ties and all."""

import torch

from culture_core.sae import TopKSAE


def tied_sae(k: int) -> TopKSAE:
    """An SAE whose encoder rows come three times each, so that activations tie by threes."""
    sae = TopKSAE(6, 24, k).requires_grad_(False)
    sae.W_enc.copy_(sae.W_enc[:8].repeat(3, 1))
    return sae


def test_columns_of_the_code_equal_those_of_the_whole_code():
    x = torch.randn(7, 5, 8)
    sae = TopKSAE(8, 32, 5).requires_grad_(False)
    for indices in (torch.arange(32), torch.tensor([9, 3, 31]), torch.tensor([], dtype=torch.long)):
        assert torch.equal(sae.encode_at(x, indices), sae.encode(x)[..., indices])


def test_columns_of_the_code_keep_to_the_rule_for_ties():
    x = torch.randn(40, 6)
    for k in (1, 2, 4, 7):
        sae = tied_sae(k)
        whole = sae.encode(x)
        assert ((whole > 0).sum(dim=1) == k).any(), "the threshold cuts a tie"
        indices = torch.tensor([17, 0, 8, 9, 1, 16, 23])
        assert torch.equal(sae.encode_at(x, indices), whole[:, indices])
