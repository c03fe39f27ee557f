"""The band by FlexAttention, heads of one dilation at a time."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from attention.backends.longformer.band import Band, by_residue, from_residues, hidden_by_residue
from attention.backends.longformer.flex_tiles import TILE, band_mask, band_tiles
from attention.backends.longformer.global_tokens import (
    GlobalTokens,
    global_rows,
    tokens_and_hidden,
)
from attention.functional import expand_kv_heads, opaque
from attention.kernels.flex import attend, check_gradient, flex_ops
from attention.kernels.flex_tiles import ExtraColumns


@opaque
def attend_by_flex(
    q: Tensor, k: Tensor, v: Tensor, band: Band, *, is_causal: bool,
    key_padding_mask: Tensor | None, global_mask: Tensor | None,
    global_qkv: tuple[Tensor, Tensor, Tensor] | None, scale: float,
) -> Tensor:  # fmt: skip
    """Attend over the band with FlexAttention; the global rows run through fused attention.

    Arguments as in `LongformerAttention.attend`.

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
        outs.append(
            band_attention(
                *(x[:, heads] for x in (q, keys, values)), window=band.window, dilation=dilation,
                is_causal=is_causal, scale=scale, hidden=hidden, tokens=tokens,
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


def band_attention(
    q: Tensor, k: Tensor, v: Tensor, *, window: int, dilation: int, is_causal: bool, scale: float,
    hidden: Tensor | None, tokens: GlobalTokens | None,
) -> Tensor:  # fmt: skip
    """Attend over a band of one dilation and to the global tokens, compiled.

    Tensors are ``[B, h, N, D]``, without dilation k and v also of fewer heads; `hidden` is bool
    ``[B, N]``, True = not seen in the band. The output is zero where a query sees no key.
    """
    batch, heads, seq_len, _ = q.shape
    extra = () if tokens is None else (tokens.gather(k), tokens.gather(v))  # [B, h, X, D]
    q, k, v = (by_residue(x, dilation) for x in (q, k, v))  # [B, h·d, n, D]
    hidden = hidden_by_residue(hidden, batch, seq_len, dilation, q.device)
    seen = None if hidden is None else ~hidden.contiguous()
    length = q.shape[2]
    columns, at = None, None
    if tokens is not None:
        columns = ExtraColumns(TILE, -(-length // TILE), tokens.positions.shape[1])
        repeated = (x.repeat_interleave(dilation, dim=1) for x in extra)
        k, v = (columns.join(x, more) for x, more in zip((k, v), repeated, strict=True))
        # k, v: [B, h·d, columns.key_len, D]
        if seen is None:
            seen = torch.ones(batch, dilation, length, dtype=torch.bool, device=q.device)
        seen = columns.join_mask(seen, ~tokens.absent)  # [B, d, columns.key_len]
        at = pad(tokens.positions, (0, columns.width - columns.count))
        columns = replace(columns, count=columns.width)  # one list, one code for 1 to TILE tokens
    tiles = band_tiles(length, window, is_causal, seen is not None, columns, q.device)
    mask_mod = band_mask(window, is_causal, dilation, seen, at, columns)
    kind = ("band", window, is_causal, dilation, seen is not None, columns)
    out = attend(q, k, v, tiles, mask_mod, scale=scale, kind=kind)
    return from_residues(out, dilation, heads, seq_len)


def flex_band_ops(band: Band, head_dim: int, seq_len: int, is_causal: bool, training: bool) -> int:
    """Count the operations of FlexAttention's tiles, for one sequence."""
    executed = 0
    for heads, gap in band.runs:
        length = -(-seq_len // gap)
        tiles = band_tiles(length, band.window, is_causal, False, None, torch.device("cpu"))
        executed += heads * gap * flex_ops(tiles.covered_pairs, head_dim, training)
    return executed
