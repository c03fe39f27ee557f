"""Sinks: a learnt logit of each head that takes part in the softmax and has no value.

``o = Σ_j e^{s_ij} v_j / (e^{a_h} + Σ_j e^{s_ij})``, after gpt-oss (OpenAI 2025, arXiv 2508.10925):
a query may attend to nothing. With ``l`` the log-sum-exp of the scores and ``l' = log(e^l + e^a)``
the output is that without a sink times ``e^{l - l'}``, and its gradients are those of the kernel
without, given the new output and l'. No kernel of its own is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STD = 0.02
"""Of the logits at the beginning, as gpt-oss draws them."""


class WithSink(nn.Module):
    """A backend with the option `sink`.

    Attributes:
        sink: the logits ``[H]``, a parameter; ``None`` = no sink.
    """

    sink: nn.Parameter | None

    def take_sink(self, sink: bool | Tensor, num_heads: int) -> None:
        """Make the parameter, or none.

        Args:
            sink: True = drawn; a tensor ``[H]`` = these logits, copied; False = no sink.
            num_heads: H.

        Raises:
            TypeError: if it is neither.
            ValueError: if the tensor has another shape.
        """
        if isinstance(sink, Tensor):
            if not sink.is_floating_point():
                raise TypeError(f"sink: expected floating-point logits, got {sink.dtype}")
            if tuple(sink.shape) != (num_heads,):
                raise ValueError(
                    f"sink: expected a logit a head, shape ({num_heads},), got {tuple(sink.shape)}"
                )
            self.sink = nn.Parameter(sink.detach().clone())
            return
        if not isinstance(sink, bool):
            raise TypeError(
                f"sink: expected true, false or a tensor of {num_heads} logits, got {sink!r}"
            )
        if not sink:
            self.sink = None  # no parameter that is None: to read one takes a call
            return
        self.sink = nn.Parameter(torch.empty(num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the logits anew."""
        if self.sink is not None:
            nn.init.normal_(self.sink, std=STD)


def with_sink(out: Tensor, lse: Tensor, sink: Tensor) -> tuple[Tensor, Tensor]:
    """Let a sink take part in a softmax that was computed without.

    Args:
        out: ``[B, H, N, D]``.
        lse: of the scores, ``[B, H, N]``, float32 or wider.
        sink: logits, broadcastable to ``[H, N]``.

    Returns:
        output and log-sum-exp with the sink among the scores.
    """
    total = torch.logaddexp(lse, sink.to(lse.dtype))
    return (out * (lse - total).exp()[..., None]).to(out.dtype), total


def keys_beside(key_len: int) -> int:
    """Return how many keys `as_key` adds: products of multiples of 8 take less time."""
    return 1 + -(key_len + 1) % 8


def as_key(q: Tensor, k: Tensor, v: Tensor, sink: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put the sink behind the keys as one more, whose value is zero.

    A channel of its own is 1 in the queries, 0 in the other keys, and the logit in that one. Keys
    that fill up have a number there that leaves them no weight; it is finite, for in the backward
    pass it is multiplied by 0.

    Args:
        q: ``[B, H, N, D]``, scaled; float32 or wider.
        k: ``[B, H, M, D]``.
        v: ``[B, H, M, D_v]``.
        sink: ``[H]``.

    Returns:
        ``[B, H, N, D + 1]``, ``[B, H, M', D + 1]``, ``[B, H, M', D_v]``.
    """
    pad, more = nn.functional.pad, keys_beside(k.shape[2])
    column = pad(sink.to(k.dtype)[:, None], (0, more - 1), value=-1e30)  # [H, more]
    last = pad(column[..., None], (k.shape[3], 0)).expand(k.shape[0], -1, -1, -1)
    keys = torch.cat([pad(k, (0, 1)), last], dim=2)
    return pad(q, (0, 1), value=1.0), keys, pad(v, (0, 0, 0, more))
