"""The recurrence of all heads of a batch: folded to groups, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.functional import expand_kv_heads, opaque
from attention.kernels.recurrent.blocks import CHUNK, Rule, Tokens
from attention.kernels.recurrent.chunked import one_token, recurrent_attention


@opaque
def attend_heads(rule: Rule, tokens: Tokens) -> Tensor:
    """Compute the recurrence from an empty state.

    Args:
        rule: which.
        tokens: q ``[B, H, N, D]``, k ``[B, H_kv, N, D]``, v ``[B, H_kv, N, D_v]``, log-decay
            ``[B, H, N]`` or ``[B, H, N, D]`` or ``None``, beta ``[B, H, N]`` or ``None``.

    Returns:
        ``[B, H, N, D_v]``, differentiable.
    """
    out, _ = recurrent_attention(rule, _folded(tokens))
    return out.view(*tokens[0].shape[:3], out.shape[-1])


@opaque
def continue_heads(rule: Rule, tokens: Tokens, state: Tensor) -> Tensor:
    """Compute the recurrence behind a state, which is changed in place; not differentiable.

    Args:
        rule: which.
        tokens: as in `attend_heads`.
        state: ``[B, H, D, D_v]``, float32 or float64.
    """
    folded, flat = _folded(tokens), state.flatten(0, 1)
    if tokens[0].shape[2] == 1:
        return one_token(rule, folded, flat).view(*state.shape[:2], 1, -1)
    out, last = recurrent_attention(rule, folded, flat)
    flat.copy_(last)
    return out.view(*tokens[0].shape[:3], out.shape[-1])


def fixed_decay(of_each: list[float], q: Tensor, mask: Tensor | None) -> Tensor:
    """Return a log-decay that is the same for all tokens of a head, and 0 at padding.

    Args:
        of_each: of each head: H.
        q: ``[B, H, N, D]``.
        mask: bool ``[B, N]``, True = a token; or ``None``.

    Returns:
        float64 ``[B, H, N]``.
    """
    decay = torch.tensor(of_each, dtype=torch.float64, device=q.device)
    decay = decay[None, :, None].expand(q.shape[:3])
    return decay if mask is None else torch.where(mask[:, None], decay, 0.0)


def executed_ops(n: int, d: int, d_v: int, *, is_delta: bool, training: bool) -> int:
    """Count the operations of one head's matrix products: at most so many are executed.

    Decay by channel takes fewer than by token. A backward pass computes each block anew, and has
    two products for each; of the inverse two too.
    """
    tokens = -(-n // CHUNK) * CHUNK
    forward = 2 * CHUNK * (d + d_v) + 4 * d * d_v
    again = forward
    if is_delta:
        forward += 2 * CHUNK * (2 * d + d_v) + 2 * d * d_v
        again, forward = forward, forward + CHUNK * CHUNK
    return tokens * (forward + (forward + 2 * again + 4 * CHUNK * CHUNK if training else 0))


def _folded(tokens: Tokens) -> Tokens:
    q, k, v, decay, beta = tokens
    heads = q.shape[1]
    k, v = expand_kv_heads(k, heads).flatten(0, 1), expand_kv_heads(v, heads).flatten(0, 1)
    gates = [None if x is None else x.flatten(0, 1) for x in (decay, beta)]
    return q.flatten(0, 1), k, v, gates[0], gates[1]
