"""Linear attention behind keys of which only the sums are known: what decoding is made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attention.functional import opaque
from attention.kernels.linear.causal_walk import walk
from attention.kernels.linear.features import Features, inverse_of
from attention.kernels.linear.tile_work import TileSums, Work
from attention.kernels.onednn import full_rate


@opaque
def continue_causal(
    q: Tensor, k: Tensor, v: Tensor, features: Features, sums: tuple[Tensor, Tensor, Tensor],
    hidden: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attend causally behind keys of which only the sums are known; not differentiable.

    Args:
        q: ``[G, N, D]``.
        k: ``[G, N, D]``.
        v: ``[G, N, D]``.
        features: the map φ.
        sums: S ``[G, R, D]``, z and stabiliser ``[G, R]``; the new keys are added to them.
        hidden: bool ``[G, N]``, True = this key takes no part; or ``None``.

    Returns:
        ``[G, N, D]``.
    """
    if q.shape[1] == 1:
        return _continue_by_one(q, k, v, features, sums, hidden)
    with full_rate(q):
        before = TileSums(work := Work(q, features), sums)
        out, _, _, _ = walk(work, before, q, k, v, hidden)
        sums[2].copy_(before.top)
    return out


def _continue_by_one(
    q: Tensor, k: Tensor, v: Tensor, features: Features, sums: tuple[Tensor, Tensor, Tensor],
    hidden: Tensor | None,
) -> Tensor:  # fmt: skip
    """Do `continue_causal` for one token, whose key is the last that its query sees.

    There is no product large enough for tiles: what it costs is S, read and written, and the calls
    that torch takes. Both sides of all groups get their features in one product.
    """
    s, z, top = sums
    unit = math.log2(math.e) if features.is_exponential else 1.0
    x = torch.cat([q, k]).view(-1, q.shape[2]).to(s.dtype)  # [2·G, D]
    x.mul_(features.scale * unit)
    phi = torch.mm(x, features.projection.to(s.dtype).T)  # for softmax, logits in base 2
    phi_q, phi_k = phi.chunk(2)  # [G, R]
    if features.is_exponential:
        norm = torch.linalg.vector_norm(x.chunk(2)[1], dim=1, keepdim=True)
        phi_k.sub_(norm.square_(), alpha=0.5 / unit)
        if hidden is not None:
            phi_k.masked_fill_(hidden, torch.finfo(s.dtype).min)
        risen = torch.maximum(top, phi_k)
        # On a CPU it costs less to ask than to read and write S once more.
        if s.device.type != "cpu" or not torch.equal(risen, top):
            factor = (top - risen).exp2_()
            s.mul_(factor.unsqueeze(2))
            z.mul_(factor)
            top.copy_(risen)
        phi_q.add_(top)
        phi_q.sub_(phi_q.amax(dim=1, keepdim=True))
        phi_k.sub_(top)
        phi.exp2_()  # both sides at once: they are halves of one tensor
    else:
        phi.relu_().add_(features.epsilon)
    if hidden is not None:
        phi_k.masked_fill_(hidden, 0.0)
    s.addcmul_(phi_k.unsqueeze(2), v)  # [G, R, 1] times [G, 1, D]
    z.add_(phi_k)
    row = phi_q.unsqueeze(1)  # [G, 1, R]
    number, total = torch.bmm(row, s), torch.bmm(row, z.unsqueeze(2))  # [G, 1, D], [G, 1, 1]
    if features.is_exponential and hidden is None:
        return number.div_(total).to(q.dtype)  # a token sees itself: its total is no less than 1
    return number.mul_(inverse_of(total)).to(q.dtype)
