"""The global tokens of a batch: all see them, and they see all."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.functional import gather_tokens, real_first
from attention.kernels.fused import differentiable_rows


class GlobalTokens:
    """The global tokens of a batch, gathered to the front: X is the most that a row has.

    Attributes:
        mask: which tokens they are: bool ``[B, N]``.
        positions: of the X slots ``[B, X]``.
        absent: which slots are empty: bool ``[B, X]``.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        count = mask.sum(dim=1)
        most = int(count.max())
        self.positions = real_first(mask)[:, :most]
        self.absent = torch.arange(most, device=mask.device) >= count[:, None]

    @classmethod
    def of(
        cls, global_mask: Tensor | None, key_padding_mask: Tensor | None
    ) -> GlobalTokens | None:
        """Return the global tokens that take part; None if there are none in the batch."""
        if global_mask is None:
            return None
        mask = global_mask if key_padding_mask is None else global_mask & key_padding_mask
        return cls(mask) if bool(mask.any()) else None

    def gather(self, x: Tensor) -> Tensor:
        """Return the global tokens' rows of ``[B, H, N, D]``: ``[B, H, X, D]``."""
        return gather_tokens(x, self.positions)

    def write_rows(self, out: Tensor, rows: Tensor) -> None:
        """Write to ``[B, H, N, D]``, at the global tokens, their rows ``[B, H, X, D]``."""
        batch, slot = torch.nonzero(~self.absent, as_tuple=True)  # [K], of all that there are
        out[batch, :, self.positions[batch, slot]] = rows[batch, :, slot]  # [K, H, D]


def tokens_and_hidden(
    global_mask: Tensor | None, key_padding_mask: Tensor | None
) -> tuple[GlobalTokens | None, Tensor | None]:
    """Return the global tokens, and which keys no window shows: ``[B, N]``, None = all are."""
    tokens = GlobalTokens.of(global_mask, key_padding_mask)
    hidden = None if key_padding_mask is None else ~key_padding_mask
    if tokens is not None:  # seen as extra keys: not a second time in the window
        hidden = tokens.mask if hidden is None else hidden | tokens.mask
    return tokens, hidden


def global_rows(
    q: Tensor, k: Tensor, v: Tensor, tokens: GlobalTokens, *, is_causal: bool,
    key_padding_mask: Tensor | None, scale: float, dropout_p: float, sink: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attend from the global tokens to all keys, causal to their past: ``[B, H, X, D]``.

    q is ``[B, H, N, D]``, k and v are ``[B, H_kv, N, D]``, sink is ``[H]`` or ``None``.
    """
    hidden = None if key_padding_mask is None else ~key_padding_mask[:, None, None, :]
    if is_causal:
        keys = torch.arange(k.shape[2], device=k.device)
        future = keys > tokens.positions[:, None, :, None]  # [B, 1, X, N]
        hidden = future if hidden is None else hidden | future
    return differentiable_rows(
        tokens.gather(q), k, v, hidden=hidden, scale=scale, dropout_p=dropout_p, sink=sink
    )
