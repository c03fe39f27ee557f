"""The band by FlexAttention, heads of one dilation at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.backends.longformer.band import Band
from attention.backends.longformer.global_tokens import global_rows, tokens_and_hidden
from attention.functional import expand_kv_heads, opaque
from attention.kernels.flex import check_gradient, flex_ops
from attention.kernels.flex_band import ExtraKeys, band_attention, band_tiles


@opaque
def attend_by_flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    band: Band,
    *,
    is_causal: bool,
    key_padding_mask: Tensor | None,
    global_mask: Tensor | None,
    global_qkv: tuple[Tensor, Tensor, Tensor] | None,
    scale: float,
) -> Tensor:
    """Attend over the band with FlexAttention; the global rows run through fused attention.

    Args:
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, N, D]``.
        v: ``[B, H_kv, N, D]``.
        band: the windows.
        is_causal: the past half only.
        key_padding_mask: bool ``[B, N]``, True = takes part; or ``None``.
        global_mask: bool ``[B, N]``, True = global; or ``None``.
        global_qkv: projections of the global tokens' rows; ``None`` = q, k, v.
        scale: factor on the scores.

    Returns:
        ``[B, H, N, D]``.

    Raises:
        UnsupportedError: on a CPU, if a gradient is wanted.
    """
    check_gradient(q, k, v, *(global_qkv or ()))
    num_heads, runs = q.shape[1], band.runs
    tokens, hidden = tokens_and_hidden(global_mask, key_padding_mask)
    keys, values = k, v
    if runs != [(num_heads, 1)]:  # residues become heads: each needs its own keys
        keys, values = (expand_kv_heads(x, num_heads) for x in (k, v))
    outs, head = [], 0
    for count, dilation in runs:
        heads = slice(head, head + count) if len(runs) > 1 else slice(None)
        of_run = [x[:, heads] for x in (q, keys, values)]
        extra = None
        if tokens is not None:
            extra = ExtraKeys(
                tokens.gather(of_run[1]), tokens.gather(of_run[2]), tokens.absent, tokens.positions
            )
        outs.append(
            band_attention(
                *of_run, window=band.window, dilation=dilation, is_causal=is_causal, scale=scale,
                hidden=hidden, extra=extra,
            )
        )  # fmt: skip
        head += count
    out = outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)
    if tokens is None:
        return out
    rows = global_rows(
        *(global_qkv or (q, k, v)), tokens, is_causal=is_causal,
        key_padding_mask=key_padding_mask, scale=scale, dropout_p=0.0,
    )  # fmt: skip
    out = out.clone()  # the compiled call keeps its output for the backward pass
    tokens.write_rows(out, rows)
    return out


def flex_band_ops(band: Band, head_dim: int, seq_len: int, is_causal: bool, training: bool) -> int:
    """Count the operations of FlexAttention's tiles, for one sequence."""
    executed = 0
    for heads, gap in band.runs:
        length = -(-seq_len // gap)
        tiles = band_tiles(length, band.window, is_causal, False, None, torch.device("cpu"))
        executed += heads * gap * flex_ops(tiles.covered_pairs, head_dim, training)
    return executed
