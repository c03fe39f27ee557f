"""Torch's fused attention under a mask, with second derivatives, and with its log-sum-exp.

The log-sum-exp of a query's scores is what merges attention over parts of the keys, and what sinks
are made of. Torch's kernels compute it for their own backward pass and hand no gradient back
through it. With ``P`` the weights, ``g`` the output's gradient and ``l`` that of the log-sum-exp,
the scores' gradient is ``P∘(g·vᵀ - (rowsum(g∘out) - l))``: what torch's backward pass computes if
one more channel holds 1 in g, -l in the output and 0 in v.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attention.derivatives import with_plain_gradients
from attention.functional import dense_softmax_attention, expand_kv_heads
from attention.kernels.sinks import with_sink

aten = torch.ops.aten

CHANNELS = 8
"""Added in the backward pass, of which one is used: head dimensions stay multiples of 8."""


def attention_with_lse(
    q: Tensor, k: Tensor, v: Tensor, *, hidden: Tensor | None, is_causal: bool, scale: float,
    sink: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Attend, and return the log-sum-exp of the scaled scores.

    Args:
        q: ``[B, H, N, D]``, on a CPU or on CUDA.
        k: ``[B, H, M, D]``.
        v: ``[B, H, M, D]``.
        hidden: bool, broadcastable to ``[B, H, N, M]``, True = not seen; ``None`` = all seen.
        is_causal: query i sees keys up to i, as torch has it; not beside `hidden`.
        scale: factor on the scores.
        sink: logits that take part, ``[H, 1]`` or ``[H, N]``; ``None`` = none.

    Returns:
        ``[B, H, N, D]``, zeros where a query sees no key, and ``[B, H, N]``, -inf there; float32,
        of float64 inputs float64. The sink is in both.
    """
    bias = empty = None
    if hidden is not None:
        empty = hidden.all(dim=-1)  # [B or 1, H or 1, N or 1]
        hidden = hidden & ~empty[..., None]
        bias = torch.zeros(hidden.shape, dtype=q.dtype, device=q.device)
        bias = bias.masked_fill(hidden, float("-inf"))
    out, lse = _Fused.apply(q, k, v, sink, bias, is_causal, scale)  # type: ignore[no-untyped-call]
    if empty is None:
        return out, lse
    return out.masked_fill(empty[..., None], 0.0), lse.masked_fill(empty, float("-inf"))


def attention_with_sink(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor, *, hidden: Tensor | None, is_causal: bool,
    scale: float,
) -> Tensor:  # fmt: skip
    """Attend with a sink; grouped heads as rows of one head where that serves.

    Args:
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, M, D]``.
        v: ``[B, H_kv, M, D]``.
        sink: ``[H]``.
        hidden: bool, broadcastable to ``[B, H, N, M]``, True = not seen; ``None`` = all seen.
        is_causal: query i sees keys up to i; not beside `hidden`.
        scale: factor on the scores.

    Returns:
        ``[B, H, N, D]``.
    """
    asked: dict[str, Any] = {"hidden": hidden, "is_causal": is_causal, "scale": scale}
    heads, kv_heads, rows = q.shape[1], k.shape[1], q.shape[2]
    if heads == kv_heads:
        return attention_with_lse(q, k, v, sink=sink[:, None], **asked)[0]
    if is_causal or not (hidden is None or hidden.shape[1] == hidden.shape[2] == 1):
        k, v = expand_kv_heads(k, heads), expand_kv_heads(v, heads)
        return attention_with_lse(q, k, v, sink=sink[:, None], **asked)[0]
    # All queries of a group see the same keys: decoding does not repeat its cache.
    folded = q.unflatten(1, (kv_heads, -1)).flatten(2, 3)  # [B, H_kv, H/H_kv·N, D]
    logits = sink[:, None].expand(-1, rows).reshape(kv_heads, -1)
    out, _ = attention_with_lse(folded, k, v, sink=logits, **asked)
    unfolded: Tensor = out.unflatten(2, (-1, rows)).flatten(1, 2)
    return unfolded


class _Fused(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, bias: Tensor | None,
        is_causal: bool, scale: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        if q.device.type == "cuda":
            if bias is not None:  # its rows must begin at multiples of 16 bytes
                bias = F.pad(bias, (0, -bias.shape[3] % 8))[..., : bias.shape[3]]
                bias = bias.expand(*q.shape[:2], q.shape[2], -1)
            out, lse, *_ = aten._scaled_dot_product_efficient_attention(
                q, k, v, bias, True, 0.0, is_causal, scale=scale
            )
            lse = lse[:, :, : q.shape[2]]  # made in blocks of 32 queries
        else:
            out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
                q, k, v, 0.0, is_causal, attn_mask=bias, scale=scale
            )
        return (out, lse) if sink is None else with_sink(out, lse, sink)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        q, k, v, sink, bias, *ctx.asked = inputs
        ctx.save_for_backward(q, k, v, sink, bias, *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, grad_lse: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        q, k, v, sink, bias, out, lse = ctx.saved_tensors
        is_causal, scale = ctx.asked
        if grad is None:
            grad = torch.zeros_like(out)
        may_follow = torch.is_grad_enabled()  # another derivative
        of_sink = None
        if sink is not None or may_follow:
            mean = (grad.to(lse.dtype) * out.to(lse.dtype)).sum(dim=-1)  # [B, H, N]
            mean = mean if grad_lse is None else mean - grad_lse
            if sink is not None:
                share = torch.exp(sink.to(lse.dtype) - lse)  # the sink's weights
                of_sink = -(share * mean).sum(dim=0).sum_to_size(sink.shape).to(sink.dtype)
            if may_follow:
                plain = _plain_gradients(q, k, v, bias, lse, grad, mean, is_causal, scale)
                return *plain, of_sink, None, None, None
        backward = aten._scaled_dot_product_flash_attention_for_cpu_backward
        asked = {"attn_mask": bias, "scale": scale}
        if grad_lse is None:
            grads = backward(grad, q, k, v, out, lse, 0.0, is_causal, **asked)
            return *grads, of_sink, None, None, None
        dim = q.shape[3]
        more = (0, CHANNELS)  # q, k and v: [..., D + CHANNELS], zeros
        ones = F.pad(F.pad(grad, (0, 1), value=1.0), (0, CHANNELS - 1))
        # Then rowsum(ones∘minus) = rowsum(g∘out) - l.
        minus = torch.cat([out, -grad_lse[..., None].to(out.dtype)], dim=3)  # [B, H, N, D + 1]
        grads = backward(
            ones, F.pad(q, more), F.pad(k, more), F.pad(v, more),
            F.pad(minus, (0, CHANNELS - 1)), lse, 0.0, is_causal, **asked,
        )  # fmt: skip
        return *(x[..., :dim] for x in grads), of_sink, None, None, None


def _plain_gradients(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, lse: Tensor, grad: Tensor,
    mean: Tensor, is_causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute the gradients of q, k and v by operations that have derivatives: N×M in memory.

    `mean` is ``rowsum(g∘out) - l``, ``[B, H, N]``.
    """
    wide = lse.dtype
    q1, k1, v1, g = (x.to(wide) for x in (q, k, v, grad))
    scores = q1 @ k1.mT * scale  # [B, H, N, M]
    if bias is not None:
        scores = scores + bias.to(wide)
    if is_causal:
        future = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
    weights = torch.exp(scores - lse[..., None])
    of_scores = weights * (g @ v1.mT - mean[..., None]) * scale
    return (
        (of_scores @ k1).to(q.dtype), (of_scores.mT @ q1).to(k.dtype), (weights.mT @ g).to(v.dtype)
    )  # fmt: skip


def sdpa_rows(
    q: Tensor, k: Tensor, v: Tensor, *, hidden: Tensor | None, scale: float,
    dropout_p: float = 0.0, may_be_empty: bool = True, sink: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Run torch's fused attention for some queries under a mask of what is hidden.

    Args:
        q: ``[B, H, K, D]``.
        k: ``[B, H_kv, M, D]``.
        v: ``[B, H_kv, M, D]``.
        hidden: bool, broadcastable to ``[B, H, K, M]``, True = not seen; ``None`` = all seen.
        scale: factor on the scores.
        dropout_p: on the weights.
        may_be_empty: whether a query may have no key left; it then gives zeros.
        sink: logits ``[H]`` that take part; not beside dropout. ``None`` = none.

    Returns:
        ``[B, H, K, D]``.
    """
    if sink is not None:
        return attention_with_sink(q, k, v, sink, hidden=hidden, is_causal=False, scale=scale)
    gqa = bool(k.shape[1] != q.shape[1])  # a trace counts in tensors
    if hidden is None:
        return F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout_p, scale=scale, enable_gqa=gqa
        )
    visible = ~hidden
    some = None
    if (
        may_be_empty
    ):  # a softmax over nothing is NaN: let such a query see all, and drop the result
        some = visible.any(dim=-1, keepdim=True)  # [B or 1, H or 1, K, 1]
        visible = visible | ~some
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=visible, dropout_p=dropout_p, scale=scale, enable_gqa=gqa
    )
    return out if some is None else out.masked_fill(~some, 0.0)


def differentiable_rows(
    q: Tensor, k: Tensor, v: Tensor, *, hidden: Tensor | None, scale: float,
    dropout_p: float = 0.0, sink: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Do `sdpa_rows`, but for dropout differentiable more than once: torch's kernels are not."""
    out = sdpa_rows(q, k, v, hidden=hidden, scale=scale, dropout_p=dropout_p, sink=sink)
    if sink is not None:
        return out
    if dropout_p:  # which weights torch dropped is not known: it refuses a second derivative
        return out

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        visible = q.new_ones(1, 1, 1, 1, dtype=torch.bool) if hidden is None else ~hidden
        return dense_softmax_attention(q, k, v, visible, scale)

    return with_plain_gradients(out, plain, q, k, v)
