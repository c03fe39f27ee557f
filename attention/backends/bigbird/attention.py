"""BigBird: softmax attention over blocks: a window, a few random ones, and global ones.

Zaheer et al. 2020, arXiv 2007.14062, section 2 and appendix D: the sequence is cut into blocks;
a block of queries sees its own block and one on each side, `num_random_blocks` random ones, and
the first and last block, which also see everything (internal global tokens, ITC). Extra global
tokens may stand before the blocks (ETC). Time ``O(N·(3 + r + 2)·block_size·D)``, memory
``O(N·D)``; sequences of at most 256 tokens in blocks below 16 are one masked square, at exact
attention's cost.

Causal, which the paper does not define: a block of queries sees its own block up to the query,
the block before it, random blocks of its past, and the first block. Which random blocks a row of
blocks sees is then a function of (seed, head, row) alone: a longer input never changes the past.

The pattern belongs to the real tokens: with a mask, each batch row is cut to the span from its
first to its last real token, so padding at either end changes nothing.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attention.backends.bigbird.decoding import (
    PatternCache,
    decode_step,
    decode_step_of_each,
    prefill,
)
from attention.backends.bigbird.flex import attend_by_flex, flex_block_ops
from attention.backends.bigbird.flex_tiles import BLOCK_STEP
from attention.backends.bigbird.grid import real_spans
from attention.backends.bigbird.pattern import BlockPattern
from attention.backends.bigbird.tiles import BlockPlan, attend_span
from attention.base import Attention
from attention.checks import check_choice, check_int, check_seed
from attention.decoding.chunk import Chunk
from attention.decoding.state import StateShape
from attention.functional import dense_softmax_attention, expand_kv_heads, query_positions
from attention.kernels.compiled.attention import compiled_reasons
from attention.kernels.flex import INSTEAD, KERNELS, Kernel, flex_reasons
from attention.kernels.onednn import mark
from attention.kernels.tiles import tiled_cost
from attention.problem import Cost, Mode, Problem, Supports, softmax_ops
from attention.registry import register


@register("bigbird")
class BigBirdAttention(Attention):
    """Block-sparse attention: window, random and global blocks.

    Args:
        num_heads: H.
        head_dim: D.
        block_size: tokens in a block, as Hugging Face's BigBird counts: the window is the query's
            block and one on each side, 192 keys of 64; with ``is_causal`` its own block up to the
            query and the one before it.
        num_random_blocks: random blocks each row of blocks sees beside its window; fewer where
            the sequence has not as many others.
        num_global_tokens: the first so many positions are extra global tokens (ETC): outside the
            blocks, they see all and all see them. The blocks start after them.
        seed: of the random blocks, which differ from head to head.
        kernel: ``tiled`` runs anywhere; ``flex`` is FlexAttention, compiled, for block sizes that
            are multiples of 32, without dropout and, on a CPU, without a backward pass; ``auto``
            is flex on CUDA, else tiled, decided by the device alone. ``compiled`` is for a CPU
            with a C++ compiler, without dropout.
        scale: factor on QKᵀ; ``None`` means ``1/sqrt(D)``.
        dropout_p: probability of dropping an attention weight in training mode.
    """

    summary = "window, random and global blocks"
    paper = "Zaheer et al. 2020, arXiv 2007.14062"
    family = "sparse"
    exact = True
    approximates = "pattern"
    reads_values = rows_apart = True
    supports = Supports(causal=True, cross=False, key_padding=True, dropout=True, state=True)
    refusals = {
        "cross": "its blocks are positions of one sequence",
        "context_parallel": "its random blocks lie anywhere in the sequence: every rank would "
        "have to hold all keys",
    }
    time_exponent = memory_exponent = 1.0
    decode_time_exponent = 0.0
    cuda_kernel = "flex"
    whole_in_transforms = True
    pattern_type: ClassVar[type[BlockPattern]] = BlockPattern

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        block_size: int = 64,
        num_random_blocks: int = 3,
        num_global_tokens: int = 0,
        seed: int = 0,
        kernel: Kernel = "auto",
        scale: float | None = None,
        dropout_p: float = 0.0,
    ) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, scale=scale, dropout_p=dropout_p)
        self.kernel_choice = check_choice("kernel", kernel, KERNELS)
        self.block_size = check_int("block_size", block_size, minimum=1)
        self.num_random_blocks = check_int("num_random_blocks", num_random_blocks, minimum=0)
        self.num_global_tokens = check_int("num_global_tokens", num_global_tokens, minimum=0)
        self.seed = check_seed(seed)
        self.pattern = self.pattern_type(
            num_heads=num_heads, block_size=block_size, num_random_blocks=num_random_blocks,
            num_global_tokens=num_global_tokens, seed=seed,
        )  # fmt: skip

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        """Add: what FlexAttention cannot serve, where it was chosen."""
        reasons = super().unsupported_reasons(problem)
        kernel = self.kernel_on(problem.device)
        if kernel == "compiled":
            reasons += compiled_reasons(problem, dropout_p=self.active_dropout_p)
        if kernel == "flex":
            reasons += flex_reasons(problem, dropout_p=self.active_dropout_p)
            if self.block_size % BLOCK_STEP:
                reasons.append(
                    f"block_size: kernel 'flex' needs a multiple of {BLOCK_STEP}, "
                    f"got {self.block_size}{INSTEAD}"
                )
        return reasons

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Attend tile by tile: a row of blocks each, or a few of the rows that see all."""
        if self.kernel_on(q.device.type) == "flex":
            self.kernel = "flex_blocks"
            return attend_by_flex(
                q, k, v, self.pattern, is_causal=is_causal, key_padding_mask=key_padding_mask,
                scale=self.scale,
            )  # fmt: skip
        self.kernel = self._named("blocks", q)
        k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        if key_padding_mask is None:
            return self._attend_span(q, k, v, is_causal, None)
        rows = []
        spans = real_spans(key_padding_mask)
        for x, keys, values, mask, (start, stop) in zip(
            q.unbind(0), k.unbind(0), v.unbind(0), key_padding_mask, spans, strict=True
        ):
            inner = mask[start:stop]
            hidden = None if bool(inner.all()) else ~inner[None]
            q1, k1, v1 = (t[None, :, start:stop] for t in (x, keys, values))  # [1, H, L, D]
            out = (
                self._attend_span(q1, k1, v1, is_causal, hidden)[0]
                if stop > start
                else (x + keys + values)[:, :0]  # no real token: empty, but in the graph
            )
            rows.append(torch.nn.functional.pad(out, (0, 0, start, q.shape[2] - stop)))
        return torch.stack(rows)

    def _attend_span(
        self, q: Tensor, k: Tensor, v: Tensor, is_causal: bool, hidden: Tensor | None
    ) -> Tensor:
        """Attend within the real span of a batch; `hidden` ``[B, L]`` marks holes in it."""
        if self.pattern.grid(q.shape[2], is_causal).is_small:
            self.kernel = self._named("square", q)
        return attend_span(
            q, k, v, self.pattern, is_causal=is_causal, hidden=hidden, scale=self.scale,
            dropout_p=self.active_dropout_p, kernel=self.kernel_on(q.device.type),
        )  # fmt: skip

    def _named(self, what: str, q: Tensor) -> str:
        """Name the kernel of a call."""
        if self.kernel_on(q.device.type) == "compiled":
            return f"compiled_{what}"
        return ("masked_square" if what == "square" else "tiled_blocks") + mark(q)

    def make_state(self, shape: StateShape) -> PatternCache:
        """Keep every key and value: a later row may reach back to any block."""
        return PatternCache(self.shown(), shape, self.pattern)

    def advance(self, chunk: Chunk, state: PatternCache) -> Tensor:
        """Attend to the blocks of each row of blocks, gathered from the cache once for a row."""
        if not state.longest:
            state.append(chunk)
            mask = None if chunk.is_even else chunk.is_real
            return self.attend(chunk.q, chunk.k, chunk.v, is_causal=True, key_padding_mask=mask)
        if self.kernel != "gathered_blocks":  # a module is slow to write to
            self.kernel = "gathered_blocks"
        if chunk.size > 1:
            return prefill(chunk, state, self.pattern, self.scale)
        step = decode_step if state.is_even and chunk.is_even else decode_step_of_each
        return step(chunk, state, self.pattern, self.scale)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False,
        key_padding_mask: Tensor | None = None, rows: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Mask dense attention by the pattern, built pair by pair from its definition."""
        at = query_positions(q.shape[2], rows, q.device)
        outs = []
        for row in range(q.shape[0]):
            mask = None if key_padding_mask is None else key_padding_mask[row : row + 1]
            start, stop = (0, q.shape[2]) if mask is None else real_spans(mask)[0]
            seen = torch.zeros(
                self.num_heads, len(at), q.shape[2], dtype=torch.bool, device=q.device
            )
            inside = (at >= start) & (at < stop)
            grid = self.pattern.grid(stop - start, is_causal)
            seen[:, inside, start:stop] = self.pattern.dense(grid, at[inside] - start)
            if mask is not None:
                seen = seen & mask[0]
            one = slice(row, row + 1)
            outs.append(
                dense_softmax_attention(q[one, :, at], k[one], v[one], seen[None], self.scale)
            )
        return torch.cat(outs)

    def fixed_sizes(self) -> dict[str, int]:
        """Name the pattern: three blocks of window, the random ones, the first and the last."""
        return {"pattern": (3 + self.num_random_blocks + 2) * self.block_size}

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count the pairs of the pattern and of the tiles and full rows that cover it."""
        grid = self.pattern.grid(problem.seq_len, problem.is_causal)
        plan = BlockPlan(grid, self.pattern.draw(grid, heads=1), device=torch.device("cpu"))
        dim, heads = problem.head_dim, problem.batch * problem.num_heads
        training = mode == "training"
        executed, pairs = tiled_cost(plan, dim, training), plan.pattern_pairs()
        if self.kernel_on(problem.device) == "flex":
            executed = flex_block_ops(self.pattern, grid, dim, training)
        return Cost(
            pattern_ops=heads * softmax_ops(pairs, dim, mode),
            executed_ops=heads * executed,
            exponentials=heads * pairs,
            bytes=problem.io_bytes(mode),
        )
