"""SDPA: torch's fused exact attention.

``torch.nn.functional.scaled_dot_product_attention``, computing eq. 1 of Vaswani et al. 2017 (arXiv
1706.03762) by the tiling of Dao et al. 2022 (arXiv 2205.14135). Time ``O(N·M·D)``, memory
``O(N·D)``.

Torch aligns ``is_causal`` top-left and refuses it beside a mask. Here causal is bottom-right, and
where a mask is needed it is made for a few queries at a time, never N×M.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.compiler import is_dynamo_compiling, is_exporting
from torch.nn.attention import sdpa_kernel

from attention.backends.sdpa.causal import (
    as_wide,
    causal_rows,
    causal_tile,
    lse_in_parts,
    with_padding_channel,
)
from attention.backends.sdpa.kernels import (
    COMPILED,
    CPU_KERNELS,
    KERNELS,
    NAMES,
    UNKNOWN,
    Kernel,
    check_fetched,
    check_nested,
    chosen,
    executed_ops,
    lse_kernel,
    lse_reasons,
    ring_kernel,
)
from attention.base import EVERYWHERE
from attention.checks import check_choice
from attention.exact import ExactAttention
from attention.functional import expand_kv_heads, has_values, only_trailing_padding
from attention.kernels.compiled.attention import compiled_reasons
from attention.kernels.compiled.exact import LEAST_QUERIES, exact_attention
from attention.kernels.fused import attention_with_sink, sdpa_rows
from attention.kernels.sinks import WithSink
from attention.problem import Cost, Mode, Problem, Supports
from attention.registry import register

if TYPE_CHECKING:
    from attention.parallel.collectives import Part


@register("sdpa")
class SDPAAttention(WithSink, ExactAttention):
    """Torch's fused exact attention.

    Args:
        num_heads: H.
        head_dim: D.
        kernel: ``flash``, ``efficient``, ``cudnn`` or ``math`` pins that one: a call it cannot
            serve raises, with torch's reason. ``auto`` leaves the choice to torch. The one that
            ran is in `kernel`; ``auto`` where torch cannot be asked: of a compiled or exported
            module, under ``torch.func``, of nested tensors. ``compiled`` is no kernel of torch's
            but of `attention.kernels.compiled`, for a CPU with a C++ compiler; calls of fewer
            than 16 queries, steps of decoding among them, are still torch's.
        scale: factor on QKᵀ; ``None`` means ``1/sqrt(D)``.
        dropout_p: probability of dropping an attention weight in training mode.
        sink: a learnt logit of each head, the parameter `sink` ``[H]``, takes part in the softmax
            and has no value, as in gpt-oss; a tensor gives the logits to begin with. It needs the
            log-sum-exp, and so flash on a CPU, on CUDA efficient and no gradient.
    """

    summary = "torch's fused exact attention"
    paper = "Vaswani et al. 2017, arXiv 1706.03762; Dao et al. 2022, arXiv 2205.14135"
    supports = Supports(
        causal=True, cross=True, key_padding=True, dropout=True, state=True, log_sum_exp=True,
        nested=True, value_dim=True, dtypes=EVERYWHERE,
    )  # fmt: skip
    time_exponent = 2.0
    memory_exponent = 1.0

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        kernel: Kernel = "auto",
        scale: float | None = None,
        dropout_p: float = 0.0,
        sink: bool | Tensor = False,
    ) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, scale=scale, dropout_p=dropout_p)
        self.take_sink(sink, num_heads)
        self.kernel_choice = check_choice("kernel", kernel, ("auto", COMPILED, *KERNELS))
        self.pinned = self.kernel_choice if kernel in KERNELS else None
        self.is_compiled = kernel == COMPILED
        self._scale_of_torch = 1.0 / math.sqrt(head_dim)

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        """Add: a pinned kernel that this device does not have, what has no sink."""
        reasons = super().unsupported_reasons(problem)
        dropout_p = self.active_dropout_p
        if self.is_compiled:
            reasons += compiled_reasons(problem, dropout_p=dropout_p)
        if self.sink is not None:
            reasons += lse_reasons(problem, pinned=self.pinned, dropout_p=dropout_p, what="sink")
        if self.pinned and problem.device == "cpu" and self.pinned not in CPU_KERNELS:
            reasons.append(
                f"kernel: {self.pinned} does not exist on cpu; there: {', '.join(CPU_KERNELS)}"
            )
        return reasons

    def attend_across(self, part: Part) -> Tensor:
        """Pass keys round the ranks by torch's own context parallelism, where that serves.

        It takes equally long parts, no padding mask and no dropout; else keys and values are
        fetched. Which it was is in `kernel`.

        Raises:
            UnsupportedError: if the pinned kernel cannot serve a part.
        """
        problem = Problem.of(
            part.q, part.k, is_causal=part.is_causal,
            key_padding=part.key_padding_mask is not None, length=part.exchange.total_length,
        )  # fmt: skip
        kernel = self.ring_kernel(problem, part.exchange.spans)
        if kernel is None:
            check_fetched(problem, self.pinned)
            return super().attend_across(part)
        from attention.parallel.ring import ring_attention  # imports torch.distributed

        self.kernel = f"ring_of_{kernel}"
        return ring_attention(
            part.q, part.k, part.v, part.exchange, kernel=kernel, is_causal=part.is_causal,
            scale=self.scale,
        )  # fmt: skip

    def ring_kernel(self, problem: Problem, spans: Sequence[tuple[int, int]]) -> str | None:
        """Return which of `attention.parallel.ring.KERNELS` a ring runs; None = keys are fetched.

        Ranks must not differ in it, so it depends on what they agree on alone: on the whole
        call, and on the spans of the ranks.
        """
        otherwise = type(self).attend is not SDPAAttention.attend  # a subclass's
        if otherwise or self.is_compiled or self.sink is not None:
            return None
        return ring_kernel(problem, spans, pinned=self.pinned, dropout_p=self.active_dropout_p)

    def exchange_bytes(self, problem: Problem, spans: Sequence[tuple[int, int]], rank: int) -> int:
        """Return those of a ring where one serves: every part but the rank's own comes by."""
        if self.ring_kernel(problem, spans) is None:
            return super().exchange_bytes(problem, spans, rank)
        return super().exchange_bytes(replace(problem, is_causal=False), spans, rank)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Call torch once, or once for a few queries at a time where causal needs a mask."""
        if self.is_compiled and q.shape[2] >= LEAST_QUERIES:
            self._say(COMPILED)
            return exact_attention(
                q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask,
                scale=self.scale, sink=self.sink,
            )  # fmt: skip
        dropout_p = self.dropout_p and self.active_dropout_p
        plain = key_padding_mask is None and not (self.pinned or dropout_p) and self.sink is None
        if type(q) is not Tensor:
            check_nested(q, is_causal, self.sink)
        elif v.shape[3] != q.shape[3]:
            return self._attend_in_parts(
                *as_wide(q, k, v), is_causal=is_causal, key_padding_mask=key_padding_mask
            )[..., : v.shape[3]]
        elif plain and not is_dynamo_compiling() and q.shape == k.shape:
            # The common call in as few steps as can be: a short one takes microseconds, and behind
            # a long one each step finds the caches cold. A needless argument costs one, too.
            given: dict[str, Any] = {"is_causal": True} if is_causal else {}
            if self.scale != self._scale_of_torch:
                given["scale"] = self.scale
            choice: int | None = None
            try:  # noqa: SIM105 - suppress() takes as long as asking
                choice = torch._fused_sdp_choice(q, k, v, **given)
            except RuntimeError:  # under vmap; what torch cannot serve it refuses below
                pass
            if self.kernel != NAMES.get(choice):
                self._note(choice, q)
            return F.scaled_dot_product_attention(q, k, v, **given)
        return self._attend_in_parts(
            q, k, v, is_causal=is_causal, key_padding_mask=key_padding_mask
        )

    def _attend_in_parts(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Attend with grouped heads, a mask, or other lengths; q and v as wide as one another."""
        with self._pin():
            if not is_causal:
                if key_padding_mask is None:
                    return self._call(q, k, v, is_causal=False)
                return self._masked(q, k, v, ~key_padding_mask[:, None, None, :])
            if q.shape[2] == k.shape[2]:
                if key_padding_mask is None:
                    return self._call(q, k, v, is_causal=True)
                if not has_values(key_padding_mask):
                    with_channel = with_padding_channel(q, k, v, key_padding_mask, self.scale)
                    out = self._call(*with_channel, is_causal=True)
                    no_key = key_padding_mask.cumsum(dim=1) == 0  # before the first token
                    return out[..., : v.shape[3]].masked_fill(no_key[:, None, :, None], 0.0)
                if only_trailing_padding(key_padding_mask):
                    # A real query comes before the padding, so causality already hides it.
                    out = self._call(q, k, v, is_causal=True)
                    return out.masked_fill(~key_padding_mask[:, :1, None, None], 0.0)
            if is_exporting():  # for any lengths, and so with one mask for all queries
                first = k.shape[2] - q.shape[2]
                return causal_tile(self._masked, q, k, v, first, key_padding_mask)
            blind = q.shape[2] - k.shape[2]  # queries before the first key
            if blind > 0 and key_padding_mask is None:
                out = self._call(q[:, :, blind:], k, v, is_causal=True)
                return F.pad(out, (0, 0, blind, 0))
            return causal_rows(self._masked, q, k, v, key_padding_mask)

    def attend_with_lse(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Call one of torch's kernels by its name: F's function hands no log-sum-exp over."""
        self._say(lse_kernel("return_lse", q, k, v))
        k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        out, lse = lse_in_parts(
            *as_wide(q, k, v), is_causal=is_causal, padding=key_padding_mask, scale=self.scale
        )
        return out[..., : v.shape[3]], lse

    def lse_reasons(self, problem: Problem) -> list[str]:
        """Name what torch's kernels do not hand a log-sum-exp over for."""
        if self.is_compiled:
            return ["return_lse: kernel 'compiled' hands none over; expected kernel='auto'"]
        reasons = lse_reasons(problem, pinned=self.pinned, dropout_p=self.active_dropout_p)
        return super().lse_reasons(problem) + reasons

    def _with_sink(
        self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, is_causal: bool
    ) -> Tensor:
        assert self.sink is not None
        self._say(lse_kernel("sink", q, k, v, self.sink))
        return attention_with_sink(
            q, k, v, self.sink, hidden=hidden, is_causal=is_causal, scale=self.scale
        )

    def _pin(self) -> AbstractContextManager[None]:
        return sdpa_kernel(KERNELS[self.pinned]) if self.pinned else nullcontext()

    def _call(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
        if self.sink is not None:
            return self._with_sink(q, k, v, None, is_causal)
        self._record(q, k, v, None, is_causal)
        return F.scaled_dot_product_attention(
            q, k, v, dropout_p=self.active_dropout_p, is_causal=is_causal, scale=self.scale,
            enable_gqa=bool(k.shape[1] != q.shape[1]),  # a trace counts in tensors
        )  # fmt: skip

    def _masked(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
        if self.sink is not None:
            return self._with_sink(q, k, v, hidden, False)
        self._record(q, k, v, ~hidden, False)
        return sdpa_rows(q, k, v, hidden=hidden, scale=self.scale, dropout_p=self.active_dropout_p)

    def _record(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool
    ) -> None:
        """Note which kernel torch will choose; raise if it is not the pinned one."""
        if not has_values(q):
            self.kernel = self.pinned or UNKNOWN
            return
        choice = chosen(
            q, k, v, mask, is_causal,
            pinned=self.pinned, dropout_p=self.active_dropout_p, scale=self.scale,
        )  # fmt: skip
        self._note(choice, q)

    def _note(self, choice: int | None, q: Tensor) -> None:
        """Say which kernel torch takes, by its number."""
        name = NAMES.get(choice) or f"torch backend {choice}"
        if not has_values(q):  # of a meta tensor torch names one, too
            name = UNKNOWN
        self._say(name)

    def _say(self, kernel: str) -> None:
        if self.kernel != kernel:  # a module is slow to write to
            self.kernel = kernel

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count the pairs that are seen; some kernels execute hidden ones too."""
        cost = super().cost(problem, mode)
        return replace(cost, executed_ops=executed_ops(cost, problem, mode, self.kernel_choice))

    @property
    def recomputes(self) -> bool:
        """Whether the backward pass computes the scores anew: not torch's plain one."""
        return self.pinned != "math"
