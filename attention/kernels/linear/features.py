"""The feature map of linear attention, and what both of its kernels need to know about it.

Softmax features are exponentials, kept in range by factors that cancel in the quotient: key
feature r is divided by ``exp(m_r)``, m_r the largest logit among the keys, and the queries
multiply it back before their row maximum is removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """A feature map.

    Attributes:
        projection: ω ``[R, D]``, not differentiated.
        scale: factor on x before anything else.
        kind: ``softmax`` or ``relu``.
        epsilon: added to ReLU features.
    """

    projection: Tensor
    scale: float
    kind: str
    epsilon: float

    @property
    def is_exponential(self) -> bool:
        """Whether features are exponentials, which need a stabiliser."""
        return self.kind == "softmax"

    def lowest(self, dtype: torch.dtype) -> float:
        """Return the logit of a feature that is zero: the stabiliser before any key.

        Args:
            dtype: of the inputs.
        """
        return torch.finfo(working_dtype(dtype)).min if self.is_exponential else 0.0


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that features and sums have: float32 for half precision."""
    return torch.promote_types(dtype, torch.float32)


def least_total(dtype: torch.dtype) -> float:
    """Return the denominator below which it has lost its meaning to underflow.

    It lies a factor of 1e25 (float32) below the largest term, and its inverse could overflow.
    """
    tiny: float = torch.finfo(dtype).tiny ** (2 / 3)
    return tiny


def inverse_of(total: Tensor) -> Tensor:
    """Return 1/total, and 0 where there was no key."""
    return torch.where(total > least_total(total.dtype), total.reciprocal(), 0.0)


def align(q: Tensor, k: Tensor) -> tuple[int, int, int]:
    """Return the length of the causal square, and where it starts in queries and keys.

    N and M may differ: keys before the square are seen by all queries, queries before it see none.
    """
    length = min(q.shape[1], k.shape[1])
    return length, q.shape[1] - length, k.shape[1] - length
