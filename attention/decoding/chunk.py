"""A chunk of new tokens: queries, keys, values, and how many of them are real in each sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attention.functional import gather_tokens, real_first


@dataclass(slots=True)
class Chunk:
    """The tokens of one call, the real ones of each sequence first.

    Attributes:
        q: ``[B, H, C, D]``.
        k: ``[B, H_kv, C, D]``.
        v: ``[B, H_kv, C, D]``.
        size: C.
        mask: bool ``[B, C]``, True = real; ``None`` = all tokens of all sequences are.
        order: where each token was in the call, int64 ``[B, C]``; ``None`` = where it is.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    size: int
    mask: Tensor | None = None
    order: Tensor | None = None

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Chunk:
        """Gather the real tokens of a call to the front.

        Args:
            q: ``[B, H, C, D]``.
            k: ``[B, H_kv, C, D]``.
            v: ``[B, H_kv, C, D]``.
            mask: bool ``[B, C]``, True = real, of which some are not; ``None`` = all are.
        """
        size = q.shape[2]
        if mask is None:
            return cls(q, k, v, size)
        order = real_first(mask)
        q, k, v = (gather_tokens(x, order) for x in (q, k, v))
        return cls(q, k, v, size, mask.gather(1, order), order)

    @property
    def is_even(self) -> bool:
        """Whether all tokens of all sequences are real."""
        return self.mask is None

    @property
    def is_real(self) -> Tensor:
        """Which tokens are real, bool ``[B, C]``; where all are, made anew."""
        if self.mask is not None:
            return self.mask
        return torch.ones(self.q.shape[0], self.size, dtype=torch.bool, device=self.q.device)

    @property
    def counts(self) -> Tensor:
        """Real tokens of each sequence, int64 ``[B]``; made anew."""
        if self.mask is not None:
            return self.mask.sum(dim=1)
        return torch.full((self.q.shape[0],), self.size, device=self.q.device)

    def in_order(self, out: Tensor) -> Tensor:
        """Put an output ``[B, H, C, D]`` back to where its tokens were."""
        if self.order is None:
            return out
        return torch.zeros_like(out).scatter_(2, _index(out, self.order), out)

    def mask_in_order(self, mask: Tensor) -> Tensor:
        """Gather a mask of the call ``[B, C]`` as the tokens were."""
        return mask if self.order is None else mask.gather(1, self.order)


def _index(x: Tensor, order: Tensor) -> Tensor:
    return order[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
