"""xformers: its memory-efficient exact attention.

``memory_efficient_attention`` of xformers, eq. 1 of Vaswani et al. 2017 (arXiv 1706.03762) in the
memory of Rabe and Staats 2021 (arXiv 2112.05682). Time ``O(N·M·D)``, memory ``O(N·D)``. CUDA only.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from attention.base import UnsupportedError
from attention.derivatives import with_plain_gradients
from attention.exact import ExactAttention
from attention.functional import expand_kv_heads, only_trailing_padding
from attention.problem import Problem, Supports
from attention.registry import register

HOMES = ("xformers.ops.fmha", "mslk.attention.fmha")
"""Where the operators live: in xformers, or, in versions that moved them out, in mslk."""


@register("xformers")
class XFormersAttention(ExactAttention):
    """Memory-efficient attention of the xformers library.

    Key padding packs the real keys of the batch into one sequence under
    ``BlockDiagonalMask``; causal is ``LowerTriangularFromBottomRightMask``. Both together run
    where the padding is trailing and N = M, since causality then hides it; else they are refused.

    Args:
        num_heads: H.
        head_dim: D.
        scale: factor on QKᵀ; ``None`` means ``1/sqrt(D)``.
        dropout_p: probability of dropping an attention weight in training mode.
    """

    summary = "xformers' memory-efficient exact attention"
    paper = "Rabe and Staats 2021, arXiv 2112.05682"
    supports = Supports(
        causal=True,
        cross=True,
        key_padding=True,
        dropout=True,
        state=True,
        dtypes={"cuda": (torch.float32, torch.bfloat16, torch.float16)},
    )
    reads_values = True
    time_exponent = 2.0
    memory_exponent = 1.0

    @classmethod
    def unavailable_reasons(cls, device: str) -> list[str]:
        """Add: no CPU kernel, or the library is not installed."""
        if device == "cpu":
            return ["device: xformers' memory_efficient_attention has no CPU kernel"]
        reasons = super().unavailable_reasons(device)
        if importlib.util.find_spec("xformers") is None:
            reasons.append("xformers is not installed: pip install xformers")
        return reasons

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        """Add: causal over N ≠ M beside a mask."""
        reasons = super().unsupported_reasons(problem)
        if problem.is_causal and problem.key_padding and problem.seq_len != problem.key_len:
            reasons.append(
                "key_padding_mask: xformers takes it beside is_causal only where N = M; "
                f"got N={problem.seq_len}, M={problem.key_len}"
            )
        return reasons

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Call the library with its own bias classes; its tensors are ``[B, N, H, D]``."""
        fmha = operators()
        self.kernel = "memory_efficient_attention"
        k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, N, H, D]
        if is_causal:
            out = self._causal(fmha, q, k, v, key_padding_mask)
        elif key_padding_mask is not None:
            out = self._packed(fmha, q, k, v, key_padding_mask)
        else:
            out = self._call(fmha, q, k, v, None)
        return out.transpose(1, 2)

    def _call(self, fmha: ModuleType, q: Tensor, k: Tensor, v: Tensor, bias: Any) -> Tensor:
        out: Tensor = fmha.memory_efficient_attention(
            q, k, v, attn_bias=bias, p=self.active_dropout_p, scale=self.scale
        )
        return with_plain_gradients(out, _refuse, q, k, v)

    def _causal(
        self, fmha: ModuleType, q: Tensor, k: Tensor, v: Tensor, key_padding_mask: Tensor | None
    ) -> Tensor:
        if key_padding_mask is not None and not only_trailing_padding(key_padding_mask):
            raise UnsupportedError(
                "key_padding_mask: xformers takes it beside is_causal only where the padding is "
                "trailing; got holes or leading padding"
            )
        blind = max(0, q.shape[1] - k.shape[1])  # queries before the first key
        bias = fmha.attn_bias.LowerTriangularFromBottomRightMask()
        out = self._call(fmha, q[:, blind:], k, v, bias)
        out = torch.nn.functional.pad(out, (0, 0, 0, 0, blind, 0))
        if key_padding_mask is None:
            return out
        return out.masked_fill(~key_padding_mask[:, :1, None, None], 0.0)

    def _packed(
        self, fmha: ModuleType, q: Tensor, k: Tensor, v: Tensor, key_padding_mask: Tensor
    ) -> Tensor:
        some = key_padding_mask.any(dim=1)
        keep, bias = packed_bias(fmha, key_padding_mask, q.shape[1])
        out = self._call(fmha, q.flatten(0, 1)[None], k[keep][None], v[keep][None], bias)
        return out.view_as(q).masked_fill(~some[:, None, None, None], 0.0)


def _refuse(*_: Tensor) -> Tensor:
    """Raise where a second derivative is asked for: the library would take it for zero."""
    raise UnsupportedError(
        "create_graph: xformers has first derivatives only; accepted is False, or backend sdpa "
        "with kernel='math'"
    )


def operators() -> ModuleType:
    """Return the module that holds ``memory_efficient_attention`` and ``attn_bias``.

    Raises:
        UnsupportedError: if the installed version has it in none of the known places.
    """
    for home in HOMES:
        try:
            with _quiet():
                module = importlib.import_module(home)
        except ModuleNotFoundError:
            continue
        if hasattr(module, "memory_efficient_attention") and hasattr(module, "attn_bias"):
            return module
    raise UnsupportedError(f"xformers: found memory_efficient_attention in none of {HOMES}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from warning, at its import, of kernels that were built for another torch.

    A call that needs one of them fails with a reason, and `attnbench doctor` lists them.
    """
    logger = logging.getLogger("xformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def packed_bias(fmha: ModuleType, key_padding_mask: Tensor, seq_len: int) -> tuple[Tensor, Any]:
    """Make the bias under which the real keys of a batch stand in one packed sequence.

    A batch row without any key keeps its first one, so that no softmax is empty; the caller zeroes
    its output.

    Returns:
        which keys to pack, bool ``[B, M]``, and a ``BlockDiagonalMask``.
    """
    keep = key_padding_mask.clone()
    keep[:, 0] |= ~key_padding_mask.any(dim=1)
    lengths = keep.sum(dim=1).tolist()
    bias = fmha.attn_bias.BlockDiagonalMask.from_seqlens([seq_len] * len(lengths), lengths)
    return keep, bias
