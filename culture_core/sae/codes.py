"""Top-K codes and the products that a training step takes of them, sparse on the CPU and dense elsewhere.

A code Z [n, M] has at most k entries a row. All products with it cost k/M of a dense one, if made sparse;
that pays on a CPU. A GPU is fast at dense products and slow at gathering.
"""

import warnings

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .model import top_k_mask

_ROWS = 32
_GATHER = 8192
"""Places at a time where rows are gathered."""


class SparseCode:
    """The places of a Top-K code, and its values row by row: both [at most n · k]."""

    def __init__(self, activations: Tensor, k: int) -> None:
        """The k largest positive activations [n, M] of every row, on the CPU; before or after ReLU."""
        count, self.latents = activations.shape
        threshold = _thresholds(activations, k)
        places = (activations >= threshold).view(-1).nonzero().squeeze(1)
        self.rows, self.columns = places // self.latents, places % self.latents
        lengths = self.rows.bincount(minlength=count)
        if bool((lengths > k).any()):
            # Among equals the first are chosen: those whose rank in their row's ties there is room for.
            tied = activations.view(-1)[places] == threshold.squeeze(1)[self.rows]
            above = self.rows[~tied].bincount(minlength=count)
            rank = tied.cumsum(0)
            before = F.pad(rank, (1, 0))[_starts(lengths)[:-1]]
            places = places[~tied | (rank <= (before + k - above)[self.rows])]
            self.rows, self.columns = places // self.latents, places % self.latents
            lengths = self.rows.bincount(minlength=count)
        self.values = activations.view(-1)[places]
        self.starts = _starts(lengths)
        self._by_column = self.columns.sort(stable=True).indices
        self._rows_by_column = self.rows[self._by_column]
        self._column_starts = _starts(self.columns.bincount(minlength=self.latents))

    def decode(self, weight: Tensor) -> Tensor:
        """Z W [n, d] for a weight [M, d]."""
        return _sums(weight, self.columns, self.starts[:-1], self.values)

    def dots(self, a: Tensor, weight: Tensor) -> Tensor:
        """a W^T for a [n, d] and W [M, d] at the places of the code alone, as values."""
        if not torch.backends.mkl.is_available():  # Apple's and other ARM processors
            return self.gathered_dots(a, weight)
        shape = (len(a), self.latents)
        zeros = torch.zeros_like(self.values)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            empty = torch.sparse_csr_tensor(self.starts, self.columns, zeros, shape, check_invariants=False)
        return torch.sparse.sampled_addmm(empty, a, weight.t(), beta=0.0).values()

    def gathered_dots(self, a: Tensor, weight: Tensor) -> Tensor:
        """`dots` where PyTorch has no sparse product; slower."""
        places = zip(self.rows.split(_GATHER), self.columns.split(_GATHER), strict=True)
        parts = [torch.linalg.vecdot(a[rows], weight[columns]) for rows, columns in places]
        return torch.cat(parts) if parts else torch.zeros_like(self.values)

    def transposed_times(self, values: Tensor, a: Tensor) -> Tensor:
        """V^T a [M, d] for values V at the places of the code and a [n, d]."""
        return _sums(a, self._rows_by_column, self._column_starts[:-1], values[self._by_column])

    def column_sums(self, values: Tensor) -> Tensor:
        """Σ_i V[i, m], [M]."""
        return values.new_zeros(self.latents).index_add_(0, self.columns, values)

    def counts(self) -> Tensor:
        """How many rows activate each latent, int64 [M]."""
        return self._column_starts.diff()


class DenseCode:
    """The same as `SparseCode` with values [n, M], by dense products of any precision, on any device."""

    def __init__(self, activations: Tensor, k: int, precision: torch.dtype = torch.float32) -> None:
        self.mask = top_k_mask(activations, k)
        self.values = activations * self.mask
        self.precision = precision

    def decode(self, weight: Tensor) -> Tensor:
        return product(self.values, weight, self.precision)

    def dots(self, a: Tensor, weight: Tensor) -> Tensor:
        return product(a, weight.t(), self.precision) * self.mask

    def transposed_times(self, values: Tensor, a: Tensor) -> Tensor:
        return product(values.t(), a, self.precision)

    def column_sums(self, values: Tensor) -> Tensor:
        return values.sum(dim=0)

    def counts(self) -> Tensor:
        return self.mask.sum(dim=0)


Code = SparseCode | DenseCode


def code_of(activations: Tensor, k: int, precision: torch.dtype | None = None) -> Code:
    """The code of activations [n, M], in the form that suits their device.

    Args:
        precision: of dense products; sparse ones, a small part of a step on the CPU, keep that of the values.
    """
    if activations.device.type == "cpu":
        return SparseCode(activations, k)
    return DenseCode(activations, k, precision or activations.dtype)


def product(a: Tensor, b: Tensor, precision: torch.dtype) -> Tensor:
    """a b, multiplied in a precision, in the type of a."""
    return a @ b if precision == a.dtype else (a.to(precision) @ b.to(precision)).to(a.dtype)


def encoder_product(x: Tensor, weight: Tensor, bias: Tensor, precision: torch.dtype | None = None) -> Tensor:
    """x W^T + b [n, M] for x [n, d] and W [M, d]."""
    precision = precision or x.dtype
    on_cpu = x.device.type == "cpu" and torch.backends.mkldnn.is_available()
    if on_cpu and x.dtype == precision == torch.float32:
        # PyTorch multiplies float32 with MKL, which is half as fast as oneDNN on processors not of Intel's.
        return F.linear(x.to_mkldnn(), weight.to_mkldnn(), bias.to_mkldnn()).to_dense()
    return product(x, weight.t(), precision) + bias


def _thresholds(activations: Tensor, k: int) -> Tensor:
    """The k-th largest of every row, but at least the smallest positive number, [n, 1]."""
    place = activations.shape[1] - k
    # NumPy selects with vector instructions, several times as fast as torch.topk. Few rows at a time stay in
    # the cache.
    found = [np.partition(rows.numpy(), place, axis=1)[:, place] for rows in activations.split(_ROWS)]
    least = float(np.finfo(found[0].dtype).smallest_subnormal)
    return torch.from_numpy(np.concatenate(found))[:, None].clamp(min=least)


def _starts(lengths: Tensor) -> Tensor:
    """Where segments of the given lengths start, and where the last ends."""
    return F.pad(lengths.cumsum(0), (1, 0))


def _sums(table: Tensor, indices: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows of a table, one a segment of the indices; 0 for an empty one."""
    return F.embedding_bag(indices, table, starts, mode="sum", per_sample_weights=weights)
