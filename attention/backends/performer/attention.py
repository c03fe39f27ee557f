"""Performer: softmax attention through positive random features (FAVOR+).

Choromanski et al. 2021, arXiv 2009.14794, eq. 4-7 and lemma 1: ``D⁻¹ φ(Q)(φ(K)ᵀV)`` with
``φ(x) = exp(ωx - |x|²/2)/sqrt(R)``, the rows ω orthogonal and as long as Gaussian vectors
(section 3.3) or independent ones, x scaled by ``D^-¼``; or ReLU features
``φ(x) = max(ωx, 0) + ε`` (section 4). Time ``O(N·R·D)``, memory ``O(N·D)``. Causal by prefix sums
over chunks, memory linear too.

Features are kept in range by factors that cancel in the quotient
(`attention.kernels.linear.features`); no ε is needed. Half precision computes them in float32.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from attention.backends.performer.context_parallel import attend_across
from attention.backends.performer.dense import dense_weights
from attention.backends.performer.random_features import (
    independent_features,
    orthogonal_features,
)
from attention.base import Attention
from attention.checks import check_bool, check_choice, check_float, check_int, check_seed
from attention.decoding.caches import RunningSums
from attention.decoding.chunk import Chunk
from attention.decoding.state import StateShape
from attention.functional import draw_seed, expand_kv_heads, query_positions, visible_keys
from attention.kernels.compiled.attention import compiled_reasons
from attention.kernels.compiled.features import compiled_features
from attention.kernels.compiled.features import executed_ops as compiled_ops
from attention.kernels.fold import by_groups
from attention.kernels.linear.chunked import chunked_attention
from attention.kernels.linear.chunked import executed_ops as chunked_ops
from attention.kernels.linear.decode import continue_causal
from attention.kernels.linear.features import Features
from attention.kernels.linear.tiled import bidirectional, causal
from attention.kernels.linear.tiled import executed_ops as tiled_ops
from attention.kernels.onednn import mark
from attention.problem import Cost, Mode, Problem, Supports
from attention.registry import register

if TYPE_CHECKING:
    from attention.parallel.collectives import Part

Kind = Literal["softmax", "relu"]
KINDS: tuple[str, ...] = get_args(Kind)
Kernel = Literal["auto", "tiled", "compiled", "chunked"]
KERNELS: tuple[str, ...] = get_args(Kernel)


@register("performer")
class PerformerAttention(Attention):
    """Kernel attention with R random features.

    Args:
        num_heads: H.
        head_dim: D.
        num_features: R.
        features: ``softmax`` (FAVOR+, approximates softmax attention) or ``relu``.
        epsilon: added to ReLU features (default 1e-3); softmax features take none.
        orthogonal: draw ω in blocks of D orthogonal directions, whose estimate of softmax varies
            less than that of independent ones (theorem 2); False draws independent ones.
        seed: of the features; ``None`` draws it from torch's default generator.
        kernel: ``tiled`` walks the sequence in small tiles with reused buffers; ``chunked`` is a
            few large batched products; ``auto`` is chunked on CUDA, else tiled, decided by the
            device alone. Both run anywhere. ``compiled`` is for a CPU with a C++ compiler.
        scale: factor on QKᵀ in the softmax that is approximated; ``None`` means ``1/sqrt(D)``.
    """

    summary = "positive random features (FAVOR+)"
    paper = "Choromanski et al. 2021, arXiv 2009.14794"
    family = "kernel"
    exact = False
    approximates = "softmax"
    reads_values = True
    supports = Supports(causal=True, cross=True, key_padding=True, dropout=False, state=True)
    time_exponent = memory_exponent = 1.0
    decode_time_exponent = decode_memory_exponent = 0.0
    cuda_kernel = "chunked"
    whole_in_transforms = True

    projection: Tensor

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        num_features: int = 256,
        features: Kind = "softmax",
        epsilon: float | None = None,
        orthogonal: bool = True,
        seed: int | None = None,
        kernel: Kernel = "auto",
        scale: float | None = None,
    ) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, scale=scale)
        self.kernel_choice = check_choice("kernel", kernel, KERNELS)
        self.num_features = check_int("num_features", num_features, minimum=1)
        self.features = check_choice("features", features, KINDS)
        if epsilon is not None and features == "softmax":
            raise ValueError(
                f"epsilon: only ReLU features take one; got {epsilon} with features 'softmax'"
            )
        self.epsilon = (
            check_float("epsilon", epsilon, minimum=0.0)
            if epsilon is not None
            else (1e-3 if features == "relu" else 0.0)
        )
        self.orthogonal = check_bool("orthogonal", orthogonal)
        if seed is not None:
            check_seed(seed)
        self._first_seed = draw_seed() if seed is None else seed
        self._generator = torch.Generator("cpu")
        shape = (self.num_features, self.head_dim)
        with torch.inference_mode(False):  # a backward pass may keep it
            self.register_buffer("projection", torch.empty(shape, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the features as the constructor does: the first ones of the seed's stream.

        For a module that was made on the meta device and has memory since (`to_empty`).
        """
        self._generator.manual_seed(self._first_seed)
        if not self.projection.is_meta:
            self.redraw()

    def _draw(self) -> Tensor:
        draw = orthogonal_features if self.orthogonal else independent_features
        return draw(self.num_features, self.head_dim, self._generator)

    def redraw(self) -> None:
        """Replace the random features by the next ones of the seed's stream."""
        with torch.no_grad():
            self.projection.copy_(self._draw())
        self.forget_shown()

    def drawn(self) -> str:
        """Return a digest of the features: equal ones have the same, whichever seed drew them."""
        if self.projection.is_meta:
            return "drawn='nowhere'"
        values = self.projection.detach().double().cpu().numpy()
        return f"drawn={hashlib.blake2b(values.tobytes(), digest_size=8).hexdigest()!r}"

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move or convert the features, which may round them."""
        moved = super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.forget_shown()
        return moved

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Load features, which may be others."""
        super()._load_from_state_dict(*args, **kwargs)
        self.forget_shown()

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Sum the keys' features once (causal: chunk by chunk), then read them per query."""
        k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        features, hidden = self._map(), None
        if key_padding_mask is not None:
            hidden = ~key_padding_mask[:, None].expand(-1, self.num_heads, -1)  # [B, H, M]
        if self.kernel_on(q.device.type) == "chunked":  # all heads of the batch at once
            self.kernel = "chunked_prefix_sums" if is_causal else "chunked_sums"
            q3, k3, v3 = (x.flatten(0, 1) for x in (q, k, v))
            unseen = None if hidden is None else hidden.flatten(0, 1)  # [B·H, M]
            out = chunked_attention(q3, k3, v3, features, unseen, is_causal=is_causal)
            return out.view(q.shape)
        if self.kernel_on(q.device.type) == "compiled":
            self.kernel = "compiled_prefix_sums" if is_causal else "compiled_sums"
            return compiled_features(q, k, v, features, hidden, is_causal=is_causal)
        self.kernel = ("tiled_prefix_sums" if is_causal else "tiled_sums") + mark(q)
        run = causal if is_causal else bidirectional

        def attend(rows: slice, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            unseen = None if hidden is None else hidden[rows].flatten(0, 1)
            return run(q, k, v, features, unseen)

        return by_groups(attend, q, k, v)

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        """Add: what the compiled kernel cannot serve, where it was chosen."""
        reasons = super().unsupported_reasons(problem)
        if self.kernel_on(problem.device) == "compiled":
            reasons += compiled_reasons(problem, dropout_p=0.0)
        return reasons

    def make_state(self, shape: StateShape) -> RunningSums:
        """Keep the sums over keys."""
        lowest = self._map().lowest(shape.dtype)
        return RunningSums(self.shown(), shape, rank=self.num_features, lowest=lowest)

    def advance(self, chunk: Chunk, state: RunningSums) -> Tensor:
        """Read the sums, chunk by chunk, and add to them."""
        k, v = (expand_kv_heads(x, self.num_heads) for x in (chunk.k, chunk.v))
        kernel = "running_sums" if chunk.size == 1 else "running_sums" + mark(chunk.q)
        if self.kernel != kernel:  # a module is slow to write to
            self.kernel = kernel
        hidden = None
        if not chunk.is_even:
            hidden = (~chunk.is_real).repeat_interleave(self.num_heads, dim=0)
        q3, k3, v3 = (x.flatten(0, 1) for x in (chunk.q, k, v))
        sums = (state.s, state.z, state.top)
        out = continue_causal(q3, k3, v3, self._map(), sums, hidden)
        state.advance(chunk)
        return out.view(chunk.q.shape)

    def attend_across(self, part: Part) -> Tensor:
        """Exchange the sums over keys, ``[R, D + 1]`` and their stabilisers: whatever N is."""
        self.kernel = "chunked_prefix_sums" if part.is_causal else "chunked_sums"
        return attend_across(part, self._map())

    def across_reasons(self, problem: Problem | None = None) -> list[str]:
        """Add: the sums that are exchanged are those of the chunked kernel."""
        reasons = super().across_reasons(problem)
        if self.kernel_choice == "tiled":
            reasons.append("kernel: over ranks it is chunked; expected auto or chunked, got tiled")
        return reasons

    def exchange_bytes(self, problem: Problem, spans: Sequence[tuple[int, int]], rank: int) -> int:
        """Return the bytes of the sums that the other ranks hold."""
        wide = torch.promote_types(problem.dtype, torch.float32).itemsize
        one = self.num_features * (problem.head_dim + 2) * wide
        return (len(spans) - 1) * problem.batch * problem.num_kv_heads * one

    def _map(self) -> Features:
        return Features(
            projection=self.projection,
            scale=math.sqrt(self.scale),
            kind=self.features,
            epsilon=self.epsilon,
        )

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False,
        key_padding_mask: Tensor | None = None, rows: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Form the N×M matrix ``φ(Q)φ(K)ᵀ`` of eq. 4 and normalise its rows."""
        at = query_positions(q.shape[2], rows, q.device)
        hidden = ~visible_keys(
            at, q.shape[2], k.shape[2], is_causal=is_causal, key_padding_mask=key_padding_mask
        )
        k, v = expand_kv_heads(k, q.shape[1]), expand_kv_heads(v, q.shape[1])
        weights = dense_weights(q[:, :, at], k, hidden, self._map())  # [B, H, K, M]
        total = weights.sum(dim=-1, keepdim=True)
        out: Tensor = weights / torch.where(total > 0, total, 1.0) @ v
        return out

    def fixed_sizes(self) -> dict[str, int]:
        """Name the features: R of them."""
        return {"features": self.num_features}

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count features, sums over keys and reads per query; causal adds the chunks' squares.

        Per token and side two products of ``2·R·D`` forward (features; sums or read) and three
        backward (ω is not differentiated).
        """
        n, m, d, r = problem.seq_len, problem.key_len, problem.head_dim, self.num_features
        heads = problem.batch * problem.num_heads
        seeing = min(n, m) if problem.is_causal else n  # queries that have a key
        sides, denominators = (2, 1) if mode == "forward" else (5, 2)
        pattern = sides * 2 * r * d * (seeing + m) + denominators * 2 * seeing * r
        by_kernel = {"chunked": chunked_ops, "compiled": compiled_ops}
        count_ops = by_kernel.get(self.kernel_on(problem.device), tiled_ops)
        executed = count_ops(
            heads, n, m, d, r, is_causal=problem.is_causal, training=mode == "training"
        )
        exponentials = (n + m) * r if self.features == "softmax" else 0
        return Cost(
            pattern_ops=heads * pattern,
            executed_ops=executed,
            exponentials=heads * exponentials,
            bytes=problem.io_bytes(mode),
        )

    def get_extra_state(self) -> Any:
        """Keep the stream of features: a loaded module redraws what the saved one would have."""
        return self._generator.get_state()

    def set_extra_state(self, state: Any) -> None:
        """Restore the stream of features."""
        self._generator.set_state(state.cpu())
