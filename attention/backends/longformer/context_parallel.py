"""A band over a sequence that is cut over ranks: a window to each side, and the global tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import dropout, pad

from attention.functional import expand_kv_heads, gather_tokens, real_first
from attention.problem import Problem

if TYPE_CHECKING:
    from attention.parallel.collectives import Part


def attend_across(
    part: Part, attend: Callable[..., Tensor], *, reach: int, scale: float, dropout_p: float,
    sink: Tensor | None,
) -> Tensor:  # fmt: skip
    """Fetch the keys of one window to each side, and those of the global tokens elsewhere.

    The part then lies between what was fetched: the band runs over all of it, and the rows of
    the others are dropped. The rows of the global tokens are softmax over all ranks' keys.

    `attend` is `LongformerAttention.attend`, `reach` the tokens to each side within which a window
    lies, `sink` a logit of each head, or ``None``.
    """
    exchange, size = part.exchange, part.q.shape[2]

    def wanted(rank: int) -> tuple[int, int]:
        start, stop = exchange.spans[rank]
        after = 0 if part.is_causal else reach
        return max(0, start - reach), min(exchange.total_length, stop + after)

    first, last = wanted(exchange.rank)
    k, v, seen = part.fetch_keys(wanted)  # [B, H_kv, last - first, D] twice
    before = exchange.start - first
    q = pad(part.q, (0, 0, before, last - exchange.stop))  # nobody asks for these rows
    global_mask = part.call_inputs.get("global_mask")
    tokens = None if global_mask is None else GlobalsAcross.of(part, global_mask)
    if tokens is None:
        out = attend(q, k, v, is_causal=part.is_causal, key_padding_mask=seen)
        return out[:, :, before : before + size]
    k_g, v_g, there = tokens.outside(first, last, is_causal=part.is_causal)
    if seen is None:
        seen = torch.ones(k.shape[0], k.shape[2], dtype=torch.bool, device=k.device)
    is_global = exchange.fetch_mask(tokens.mask, wanted)
    assert is_global is not None
    out = attend(
        pad(q, (0, 0, there.shape[1], 0)),
        torch.cat([k_g, k], dim=2),
        torch.cat([v_g, v], dim=2),
        is_causal=part.is_causal,
        key_padding_mask=torch.cat([there, seen], dim=1),
        global_mask=torch.cat([there, is_global], dim=1),
    )
    before += there.shape[1]
    out = out[:, :, before : before + size].clone()
    batch, at, rows = tokens.rows(scale, dropout_p, sink)
    out[batch, :, at] = rows.to(out.dtype)
    return out


def bytes_beside(problem: Problem, spans: Sequence[tuple[int, int]], rank: int, reach: int) -> int:
    """Return the bytes of the keys and values within `reach` of the rank's span."""
    start, stop = spans[rank]
    after = 0 if problem.is_causal else min(problem.key_len - stop, reach)
    token = 2 * problem.batch * problem.num_kv_heads * problem.head_dim
    return (min(start, reach) + after) * token * problem.dtype.itemsize


class GlobalsAcross:
    """The global tokens of a sequence that is cut over ranks: X slots of each of P ranks.

    Args:
        part: of this rank.
        mask: which of its tokens are global and take part: bool ``[B, n]``.
        slots: X, the most that a rank has in a row of the batch.
    """

    def __init__(self, part: Part, mask: Tensor, slots: int) -> None:
        self.part, self.mask, self.slots = part, mask, slots
        exchange = part.exchange
        at = real_first(mask)[:, :slots]
        at = pad(at, (0, slots - at.shape[1]))  # [B, X]
        there = torch.arange(slots, device=mask.device) < mask.sum(dim=1)[:, None]
        self.own_positions = torch.where(there, at + exchange.start, -1)  # -1: an empty slot
        self.positions = exchange.gather(self.own_positions).transpose(0, 1).flatten(1)  # [B, P·X]
        self.k: Tensor
        self.v: Tensor
        q, self.k, self.v = part.call_inputs.get("global_qkv") or (part.q, part.k, part.v)
        given = [gather_tokens(x, at) for x in (part.k, part.v, q)]
        every = exchange.gather(torch.cat(given, dim=1))  # [P, B, 2·H_kv + H, X, D]
        every = every.permute(1, 2, 0, 3, 4).flatten(2, 3)  # [B, 2·H_kv + H, P·X, D]
        self.seen_k, self.seen_v, self.q = every.split([x.shape[1] for x in given], dim=1)

    @classmethod
    def of(cls, part: Part, global_mask: Tensor) -> GlobalsAcross | None:
        """Return the global tokens of all ranks; None if there are none."""
        mask = global_mask & part.own_keys
        slots = int(part.exchange.largest(mask.sum(dim=1).max()))
        return cls(part, mask, slots) if slots else None

    def outside(self, first: int, last: int, *, is_causal: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys and values ``[B, H_kv, P·X, D]`` of all slots, and which are outside.

        Args:
            first: of the tokens that the rank has fetched.
            last: behind them.
            is_causal: those behind are in nobody's past.
        """
        there = (self.positions >= 0) & (self.positions < first)
        if not is_causal:
            there |= self.positions >= last
        return self.seen_k, self.seen_v, there

    def rows(
        self, scale: float, dropout_p: float, sink: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend from all global tokens to all keys of all ranks.

        Returns:
            batch row, position and output ``[K, H, D]`` of every global token of this rank.
        """
        part, exchange = self.part, self.part.exchange
        wide = torch.promote_types(self.q.dtype, torch.float32)
        k, v = (expand_kv_heads(x, self.q.shape[1]).to(wide) for x in (self.k, self.v))
        scores = (self.q.to(wide) * scale) @ k.mT  # [B, H, P·X, n]
        hidden = ~part.own_keys[:, None, None, :]
        if part.is_causal:
            keys = torch.arange(exchange.start, exchange.stop, device=k.device)
            hidden = hidden | (keys > self.positions[:, None, :, None])
        scores = scores.masked_fill(hidden, torch.finfo(wide).min)
        # A softmax over all ranks: one maximum, then numerators and denominators are added up.
        top = exchange.largest(scores.amax(dim=-1, keepdim=True))
        weights = (scores - top).exp().masked_fill(hidden, 0.0)
        total = weights.sum(dim=-1, keepdim=True)
        if dropout_p:
            weights = dropout(weights, dropout_p)
        summed = exchange.total(torch.cat([weights @ v, total], dim=-1))  # [B, H, P·X, D + 1]
        number, total = summed[..., :-1], summed[..., -1:]
        if sink is not None:
            total = total + (sink.to(wide)[:, None, None] - top).exp()
        out = number / torch.where(total > 0, total, 1.0)
        mine = out[:, :, exchange.rank * self.slots : (exchange.rank + 1) * self.slots]
        batch, slot = torch.nonzero(self.own_positions >= 0, as_tuple=True)
        return batch, self.own_positions[batch, slot] - exchange.start, mine[batch, :, slot]
