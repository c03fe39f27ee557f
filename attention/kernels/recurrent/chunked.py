"""The recurrence over a whole sequence, block by block, forward and backward.

**Memory** above inputs and output: one block's, and for the backward pass the states between
blocks, ``[G, D, D_v]`` every T tokens: the backward pass computes a block anew and differentiates
it alone. Linear in N, and less than the inputs. Second derivatives keep every block.

Half precision is computed in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attention.derivatives import must_be_plain, plain_gradients
from attention.kernels.onednn import full_rate
from attention.kernels.recurrent.blocks import CHUNK, Rule, Tokens, block, normalized

TILE = 2**17
"""Numbers of a tile's q, half a megabyte in float32: what stays in a core's cache."""

GROUPS = 8
"""Heads of a tile."""

CUDA_TILE = 2**24


def recurrent_attention(
    rule: Rule, tokens: Tokens, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the recurrence.

    Args:
        rule: which.
        tokens: N of them.
        state: S before them ``[G, D, D_v]``, float32 or float64; ``None`` = zeros.

    Returns:
        ``[G, N, D_v]`` of the dtype of q, and S behind them. Differentiable in all tensors.
    """
    q, k, v, decay, beta = tokens
    if state is None:
        wide = torch.promote_types(q.dtype, torch.float32)
        state = q.new_zeros(q.shape[0], q.shape[2], v.shape[2], dtype=wide)
    out, last = _Chunked.apply(q, k, v, decay, beta, state, rule)  # type: ignore[no-untyped-call]
    return out, last


def one_token(rule: Rule, tokens: Tokens, state: Tensor) -> Tensor:
    """Compute one token, N = 1, and change the state in place; not differentiable.

    Returns:
        ``[G, 1, D_v]``.
    """
    q, k, v = (x.to(state.dtype) for x in tokens[:3])
    decay, beta = (None if x is None else x.to(state.dtype) for x in tokens[3:])
    if rule.normalize:
        q, k = normalized(q), normalized(k)
    if decay is not None:
        state.mul_(decay.mT.exp() if decay.dim() == 3 else decay.exp().unsqueeze(2))
    if rule.is_delta:
        v = v - torch.bmm(k, state)
    if beta is not None:
        v = v * beta.unsqueeze(2)
    state.baddbmm_(k.mT, v)
    return torch.bmm(q * rule.scale, state).to(tokens[0].dtype)


def tiles(q: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Yield groups that are computed together, with the blocks of their tokens."""
    groups, length, dim = q.shape
    together = GROUPS if q.device.type == "cpu" else groups
    numbers = TILE if q.device.type == "cpu" else CUDA_TILE
    for first in range(0, groups, together):
        rows = slice(first, min(groups, first + together))
        size = max(1, numbers // ((rows.stop - first) * dim * CHUNK)) * CHUNK
        yield rows, [slice(at, min(length, at + size)) for at in range(0, length, size)]


def _cut(tokens: Tokens, rows: slice, span: slice) -> Tokens:
    q, k, v = (x[rows, span] for x in tokens[:3])
    decay, beta = (None if x is None else x[rows, span] for x in tokens[3:])
    return q, k, v, decay, beta


def _plain(rule: Rule, tokens: Tokens, state: Tensor) -> tuple[Tensor, Tensor]:
    """Compute all in ordinary operations."""
    outs, lasts = [], []
    for rows, spans in tiles(tokens[0]):
        last, parts = state[rows], []
        for span in spans:
            out, last = block(rule, _cut(tokens, rows, span), last)
            parts.append(out.to(tokens[0].dtype))
        outs.append(torch.cat(parts, dim=1))
        lasts.append(last)
    return torch.cat(outs), torch.cat(lasts)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None, beta: Tensor | None,
        state: Tensor, rule: Rule,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        tokens = (q, k, v, decay, beta)
        out, last = torch.empty(v.shape, dtype=q.dtype, device=q.device), torch.empty_like(state)
        keep = any(ctx.needs_input_grad)
        carries = list[Tensor]()
        with full_rate(q):
            for rows, spans in tiles(q):
                carry = state[rows]
                for span in spans:
                    if keep:
                        carries.append(carry)
                    out[rows, span], carry = block(rule, _cut(tokens, rows, span), carry)
                last[rows] = carry
        ctx.save_for_backward(*tokens, state, *carries)
        ctx.rule = rule
        return out, last

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, state = ctx.saved_tensors[:6]
        tokens, rule = tuple(inputs), ctx.rule
        if must_be_plain(grad):

            def plain(*given: Tensor) -> tuple[Tensor, Tensor]:
                return _plain(rule, given[:5], given[5])  # type: ignore[arg-type]

            return *plain_gradients(plain, (*tokens, state), (grad, grad_last)), None
        carries = list(ctx.saved_tensors[6:])
        wanted = [i for i in range(5) if ctx.needs_input_grad[i]]
        grads: list[Tensor | None] = [
            torch.empty_like(x) if i in wanted else None for i, x in enumerate(tokens)
        ]
        grad_state = torch.empty_like(state)
        with full_rate(grad):
            for rows, spans in reversed(list(tiles(tokens[0]))):
                later = grad_last[rows]
                for span in reversed(spans):
                    part = [x if x is None else x.detach() for x in _cut(tokens, rows, span)]
                    with torch.enable_grad():
                        for i in wanted:
                            part[i] = part[i].requires_grad_()  # type: ignore[union-attr]
                        before = carries.pop().detach().requires_grad_()
                        out, after = block(rule, tuple(part), before)  # type: ignore[arg-type]
                    leaves = [*(part[i] for i in wanted), before]
                    found = torch.autograd.grad(
                        (out, after), leaves, (grad[rows, span].to(out.dtype), later),
                        materialize_grads=True,
                    )  # fmt: skip
                    for i, x in zip(wanted, found[:-1], strict=True):
                        grads[i][rows, span] = x  # type: ignore[index]
                    later = found[-1]
                grad_state[rows] = later
        return *grads, grad_state if ctx.needs_input_grad[5] else None, None
