"""Longformer: softmax attention over a sliding window and a few global tokens.

Beltagy, Peters and Cohan 2020, arXiv 2004.05150, section 3.1: query i sees the keys j with
``|i - j| <= W·d`` and ``(i - j) mod d = 0`` (window W on each side, 2·W + 1 keys, dilation d), all
see the global tokens, and the global tokens see all, through projections of their own. Time
``O(N·W·D)``, memory ``O(N·D)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attention.backends.longformer.band import Band, check_dilation
from attention.backends.longformer.context_parallel import attend_across, bytes_beside
from attention.backends.longformer.decoding import decode_step, prefill, prefill_first
from attention.backends.longformer.flex import attend_by_flex, flex_band_ops
from attention.backends.longformer.global_tokens import global_rows, tokens_and_hidden
from attention.backends.longformer.tiles import attend_in_tiles, tile_rows, tiled_band_ops
from attention.base import Attention, UnsupportedError
from attention.checks import check_choice, check_int
from attention.decoding.caches import SlidingWindow
from attention.decoding.chunk import Chunk
from attention.decoding.state import StateShape
from attention.functional import (
    dense_softmax_attention,
    expand_kv_heads,
    query_positions,
    visible_keys,
)
from attention.kernels.compiled.attention import compiled_reasons
from attention.kernels.flex import KERNELS, Kernel, flex_reasons
from attention.kernels.onednn import mark
from attention.kernels.sinks import WithSink
from attention.problem import CallInput, Cost, Mode, Problem, Supports, softmax_ops
from attention.registry import register

if TYPE_CHECKING:
    from attention.parallel.collectives import Part


@register("longformer")
class LongformerAttention(WithSink, Attention):
    """Sliding-window attention with dilation and global tokens.

    Args:
        num_heads: H.
        head_dim: D.
        window: W, keys seen on each side of the query: 2·W + 1 keys with its own, 513 of 256; with
            ``is_causal`` the W before it and its own, 257. Hugging Face's Longformer counts both
            sides (``attention_window=512``), Mistral all keys of the causal window
            (``sliding_window=257``).
        dilation: gap between the keys of a window: one number, or one per head.
        kernel: ``tiled`` runs anywhere; ``flex`` is FlexAttention, compiled, without dropout and,
            on a CPU, without a backward pass; ``auto`` is flex on CUDA, else tiled, decided by
            the device alone. ``compiled`` is for a CPU with a C++ compiler, without dropout.
        scale: factor on QKᵀ; ``None`` means ``1/sqrt(D)``.
        dropout_p: probability of dropping an attention weight in training mode.
        sink: a learnt logit of each head, the parameter `sink` ``[H]``, takes part in the softmax
            and has no value, as in gpt-oss; a tensor gives the logits to begin with. Not by flex.

    Call inputs:
        global_mask: bool ``[B, N]``, True = this token is global: it sees all (its past, when
            causal), and all see it.
        global_qkv: ``(q_g, k_g, v_g)``, shaped as q, k, v: the paper's separate projections, used
            for the rows of the global tokens. Without it those rows use q, k, v.
    """

    summary = "sliding window (dilated) and global tokens"
    paper = "Beltagy et al. 2020, arXiv 2004.05150"
    family = "sparse"
    exact = True
    approximates = "pattern"
    reads_values = True
    supports = Supports(causal=True, cross=False, key_padding=True, dropout=True, state=True)
    refusals = {"cross": "a window is a distance between positions of one sequence"}
    time_exponent = memory_exponent = 1.0
    decode_time_exponent = decode_memory_exponent = 0.0
    cuda_kernel = "flex"
    whole_in_transforms = True
    call_inputs = {
        "global_mask": CallInput("token_mask", "bool [B, N], True = global token"),
        "global_qkv": CallInput(
            "projected_qkv", "projections of the global tokens' rows", needed_by="global_mask"
        ),
    }

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        window: int = 256,
        dilation: int | Sequence[int] = 1,
        kernel: Kernel = "auto",
        scale: float | None = None,
        dropout_p: float = 0.0,
        sink: bool | Tensor = False,
    ) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, scale=scale, dropout_p=dropout_p)
        self.take_sink(sink, num_heads)
        self.kernel_choice = check_choice("kernel", kernel, KERNELS)
        self.window = check_int("window", window, minimum=0)
        self.dilation = check_dilation(dilation, num_heads)
        self.band = Band(self.window, self.dilation)

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        """Add: what FlexAttention cannot serve, where it was chosen."""
        reasons = super().unsupported_reasons(problem)
        kernel = self.kernel_on(problem.device)
        if kernel == "compiled":
            reasons += compiled_reasons(problem, dropout_p=self.active_dropout_p)
        if kernel == "flex":
            reasons += flex_reasons(problem, dropout_p=self.active_dropout_p)
            if self.sink is not None:
                reasons.append("sink: flex has none here; expected kernel='tiled'")
        elif self.sink is not None and self.active_dropout_p:
            reasons.append("dropout_p: no weight is dropped beside sink; full does")
        return reasons

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool,
        key_padding_mask: Tensor | None, global_mask: Tensor | None = None,
        global_qkv: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Attend tile by tile over the band; the global rows run through fused attention."""
        kernel = self.kernel_on(q.device.type)
        if kernel == "flex":
            self.kernel = "flex_band"
            return attend_by_flex(
                q, k, v, self.band, is_causal=is_causal, key_padding_mask=key_padding_mask,
                global_mask=global_mask, global_qkv=global_qkv, scale=self.scale,
            )  # fmt: skip
        keys, values = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        tokens, hidden = tokens_and_hidden(global_mask, key_padding_mask)
        runs = self.band.runs
        of_runs, sinks = [(q, keys, values)], [self.sink]
        if len(runs) > 1:
            sizes = [count for count, _ in runs]
            parts = (x.split(sizes, dim=1) for x in (q, keys, values))
            of_runs = list(zip(*parts, strict=True))
            sinks = [None] * len(runs) if self.sink is None else [*self.sink.split(sizes)]
        outs = [
            attend_in_tiles(
                *of_run, window=self.window, dilation=dilation, is_causal=is_causal,
                hidden=hidden, tokens=tokens, scale=self.scale, dropout_p=self.active_dropout_p,
                sink=sink, kernel=kernel,
            )
            for of_run, (_, dilation), sink in zip(of_runs, runs, sinks, strict=True)
        ]  # fmt: skip
        out = outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)
        self.kernel = "compiled_band" if kernel == "compiled" else "tiled_band" + mark(q)
        if tokens is not None:
            rows = global_rows(
                *(global_qkv or (q, k, v)), tokens, is_causal=is_causal,
                key_padding_mask=key_padding_mask, scale=self.scale,
                dropout_p=self.active_dropout_p, sink=self.sink,
            )  # fmt: skip
            if self.sink is not None or kernel == "compiled":
                out = out.clone()  # its backward pass reads it
            tokens.write_rows(out, rows)
        return out

    def attend_across(self, part: Part) -> Tensor:
        """Fetch the keys of one window to each side, and those of the global tokens elsewhere."""
        return attend_across(
            part, self.attend, reach=self.band.reach, scale=self.scale,
            dropout_p=self.active_dropout_p, sink=self.sink,
        )  # fmt: skip

    def exchange_bytes(self, problem: Problem, spans: Sequence[tuple[int, int]], rank: int) -> int:
        """Return the bytes of the keys and values beside the rank's span."""
        return bytes_beside(problem, spans, rank, self.band.reach)

    def make_state(self, shape: StateShape) -> SlidingWindow:
        """Keep the keys and values of one window."""
        return SlidingWindow(self.shown(), shape, reach=self.band.reach)

    def advance(
        self, chunk: Chunk, state: SlidingWindow, *, global_mask: Tensor | None = None,
        global_qkv: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Attend over the band; the tokens of the window that came before stand in front."""
        if not state.longest:
            return prefill_first(chunk, state, self.attend, global_mask, global_qkv)
        if global_mask is not None:
            raise UnsupportedError(
                "global_mask: global tokens belong to the first chunk, which all others see; "
                f"{state.longest} tokens came before"
            )
        if chunk.size > 1:
            return prefill(chunk, state, self.attend)
        state.append(chunk)
        if self.kernel != "window_slice":  # a module is slow to write to
            self.kernel = "window_slice"
        return decode_step(chunk.q, state, self.band, self.scale, self.sink)

    def reference(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        rows: Tensor | None = None,
        global_mask: Tensor | None = None,
        global_qkv: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Mask dense attention by the pattern of section 3.1, term by term."""
        seq_len = q.shape[2]
        at = query_positions(seq_len, rows, q.device)
        seen = visible_keys(
            at, seq_len, seq_len, is_causal=is_causal, key_padding_mask=key_padding_mask
        )
        distance = (torch.arange(seq_len, device=q.device) - at[:, None]).abs()
        gap = torch.tensor(self.dilation, device=q.device)[:, None, None]
        window = (distance <= self.window * gap) & (distance % gap == 0)  # [H, K, N]
        if global_mask is None:
            return dense_softmax_attention(q[:, :, at], k, v, seen & window, self.scale, self.sink)
        pattern = window | global_mask[:, None, None, :]
        scale, sink = self.scale, self.sink
        local = dense_softmax_attention(q[:, :, at], k, v, seen & pattern, scale, sink)
        q_g, k_g, v_g = global_qkv or (q, k, v)
        everywhere = dense_softmax_attention(q_g[:, :, at], k_g, v_g, seen, scale, sink)
        return torch.where(global_mask[:, None, at, None], everywhere, local)

    def fixed_sizes(self) -> dict[str, int]:
        """Name the window: W keys on each side and the query's own."""
        return {"window": 2 * self.window + 1}

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count the band's pairs; global tokens belong to a call and are not counted."""
        dim, seq_len, is_causal = problem.head_dim, problem.seq_len, problem.is_causal
        pairs, training = self.band.pairs(seq_len, is_causal), mode == "training"
        if self.kernel_on(problem.device) == "flex":
            executed = flex_band_ops(self.band, dim, seq_len, is_causal, training)
        else:
            rows = tile_rows(problem.device, self.kernel_on(problem.device))
            executed = tiled_band_ops(self.band, dim, seq_len, rows, is_causal, training)
        return Cost(
            pattern_ops=problem.batch * softmax_ops(pairs, dim, mode),
            executed_ops=problem.batch * executed,
            exponentials=problem.batch * pairs,
            bytes=problem.io_bytes(mode),
        )
