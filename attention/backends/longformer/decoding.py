"""Decoding with a window: from the newest token, and by chunks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attention.backends.longformer.band import Band
from attention.backends.longformer.global_tokens import GlobalTokens
from attention.decoding.caches import SlidingWindow
from attention.decoding.chunk import Chunk
from attention.functional import expand_kv_heads, gather_tokens
from attention.kernels.fused import sdpa_rows

Attend = Callable[..., Tensor]
"""`LongformerAttention.attend`."""


def prefill_first(
    chunk: Chunk,
    state: SlidingWindow,
    attend: Attend,
    global_mask: Tensor | None,
    global_qkv: tuple[Tensor, Tensor, Tensor] | None,
) -> Tensor:
    """Attend within the first chunk, and keep its global tokens."""
    mask = None if chunk.is_even else chunk.is_real
    if global_mask is not None:
        global_mask = chunk.mask_in_order(global_mask)
    if global_qkv is not None and chunk.order is not None:
        q_g, k_g, v_g = (gather_tokens(x, chunk.order) for x in global_qkv)
        global_qkv = (q_g, k_g, v_g)
    out = attend(
        chunk.q, chunk.k, chunk.v, is_causal=True, key_padding_mask=mask,
        global_mask=global_mask, global_qkv=global_qkv,
    )  # fmt: skip
    tokens = GlobalTokens.of(global_mask, mask)
    if tokens is not None:
        state.globals = (tokens.gather(chunk.k), tokens.gather(chunk.v), ~tokens.absent)
    state.append(chunk, None if tokens is None else tokens.mask)
    return out


def prefill(chunk: Chunk, state: SlidingWindow, attend: Attend) -> Tensor:
    """Attend over the band; the tokens of the window that came before stand in front."""
    past = slice(max(0, state.end - state.reach), state.end)
    parts = [(state.k[:, :, past], state.v[:, :, past], state.seen[:, past])]
    if state.globals is not None:
        parts.insert(0, state.globals)
    # [B, H_kv, X + past + C, D] twice, [B, X + past + C]
    k = torch.cat([*(part[0] for part in parts), chunk.k], dim=2)
    v = torch.cat([*(part[1] for part in parts), chunk.v], dim=2)
    seen = torch.cat([*(part[2] for part in parts), chunk.is_real], dim=1)
    before = seen.shape[1] - chunk.size
    q = torch.nn.functional.pad(chunk.q, (0, 0, before, 0))  # nobody asks for these rows
    is_global = None
    if state.globals is not None:
        is_global = torch.zeros_like(seen)
        is_global[:, : state.globals[2].shape[1]] = state.globals[2]
    out = attend(q, k, v, is_causal=True, key_padding_mask=seen, global_mask=is_global)
    state.append(chunk)
    return out[:, :, before:]


def decode_step(
    q: Tensor, state: SlidingWindow, band: Band, scale: float, sink: Tensor | None
) -> Tensor:
    """Attend from the last token of each sequence to its window and the global tokens.

    Args:
        q: ``[B, H, 1, D]``, of the token that the state holds last.
        state: the window.
        band: the windows of the heads.
        scale: factor on the scores.
        sink: logits ``[H]`` that take part; or ``None``.
    """
    if state.is_full and band.window == state.reach:  # no dilation: the window is one slice
        first = state.end - 1 - band.window
        k, v = (x.narrow(2, first, band.window + 1) for x in (state.k, state.v))
        return sdpa_rows(q, k, v, hidden=None, scale=scale, sink=sink)
    runs = band.runs
    keys, values = state.k, state.v
    if len(runs) > 1:
        keys, values = (expand_kv_heads(x, q.shape[1]) for x in (keys, values))
    outs, head = [], 0
    for count, dilation in runs:
        # The farthest token of the window that there is: the window is a slice with a step.
        first = state.end - 1 - min(band.window, (state.end - 1) // dilation) * dilation
        at = slice(first, state.end, dilation)
        heads = slice(head, head + count) if len(runs) > 1 else slice(None)
        k, v = keys[:, heads, at], values[:, heads, at]  # [B, h, W + 1 or fewer, D]
        hidden = None if state.is_full else ~state.seen[:, at]
        if state.globals is not None:
            extra_k, extra_v, there = state.globals
            if len(runs) > 1:
                extra_k, extra_v = (
                    expand_kv_heads(x, q.shape[1])[:, heads] for x in (extra_k, extra_v)
                )
            k, v = torch.cat([extra_k, k], dim=2), torch.cat([extra_v, v], dim=2)
            hidden = torch.cat([~there, ~state.seen[:, at]], dim=1)
        mask = None if hidden is None else hidden[:, None, None, :]
        of_heads = None if sink is None else sink[heads]
        outs.append(sdpa_rows(q[:, heads], k, v, hidden=mask, scale=scale, sink=of_heads))
        head += count
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)
