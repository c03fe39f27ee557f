"""Linformer: softmax attention over R projected keys and values.

Wang et al. 2020, arXiv 2006.04768, eq. 7: ``softmax(Q(EK)ᵀ/sqrt(D))·(FV)`` with E and F of shape
``[R, M]``. Time ``O(N·R·D)``, memory ``O(N·D)``. Bidirectional, built for a longest length;
shorter inputs use the leading columns of the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from attention.backends.linformer.context_parallel import (
    pooled_across,
    projected_across,
    reduced_bytes,
)
from attention.backends.linformer.projection import LinformerProjection, check_shared, pool
from attention.base import Attention
from attention.checks import check_choice, check_int
from attention.derivatives import in_transform
from attention.functional import dense_softmax_attention, expand_kv_heads, in_float32
from attention.kernels.fold import by_groups
from attention.kernels.fused import differentiable_rows
from attention.kernels.onednn import mark
from attention.kernels.tiled import tiled_attention
from attention.kernels.tiles import DensePlan
from attention.problem import Cost, Mode, Problem, Supports, softmax_ops
from attention.registry import register

if TYPE_CHECKING:
    from attention.parallel.collectives import Part

Sharing = Literal["none", "headwise", "key_value", "layer"]
Method = Literal["learned", "mean_pool"]
SHARINGS = ("none", "headwise", "key_value", "layer")
METHODS = ("learned", "mean_pool")


@register("linformer")
class LinformerAttention(Attention):
    """Attention over a fixed number of projected keys and values.

    Args:
        num_heads: H.
        head_dim: D.
        seq_len: longest M that calls may bring.
        rank: R, the number of projected keys.
        sharing: ``none``: E and F for each head; ``headwise``: one E and one F for all heads;
            ``key_value``: one E for keys, values and all heads; ``layer``: as key_value, and the
            same E in every layer of a stack, given as `projection`.
        method: ``learned`` projections, or ``mean_pool``: the mean of ``ceil(seq_len/R)``
            neighbouring tokens, without parameters.
        projection: the E that layers share; only with sharing ``layer``. ``None`` makes one.
        scale: factor on the scores; ``None`` means ``1/sqrt(D)``.
        dropout_p: probability of dropping an attention weight in training mode.
    """

    summary = "softmax over projected keys and values"
    paper = "Wang et al. 2020, arXiv 2006.04768"
    family = "low_rank"
    exact = False
    approximates = "softmax"
    supports = Supports(causal=False, cross=True, key_padding=True, dropout=True)
    refusals = {
        "causal": "each projected key mixes the whole sequence, the future included",
        "state": "each projected key mixes the whole sequence, the tokens to come included",
    }
    time_exponent = memory_exponent = 1.0
    whole_in_transforms = True

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        seq_len: int,
        rank: int = 256,
        sharing: Sharing = "headwise",
        method: Method = "learned",
        projection: LinformerProjection | None = None,
        scale: float | None = None,
        dropout_p: float = 0.0,
    ) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, scale=scale, dropout_p=dropout_p)
        self.seq_len = check_int("seq_len", seq_len, minimum=1)
        self.rank = check_int("rank", rank, minimum=1)
        self.sharing = check_choice("sharing", sharing, SHARINGS)
        self.method = check_choice("method", method, METHODS)
        self.segment = -(-self.seq_len // self.rank)
        self.key_projection, self.value_projection = self._make(projection)

    def _make(
        self, shared: LinformerProjection | None
    ) -> tuple[LinformerProjection | None, LinformerProjection | None]:
        """Make E and F; where they are one, F is None."""
        if shared is not None:
            if self.sharing != "layer" or self.method != "learned":
                raise ValueError(
                    "projection: only with sharing 'layer' and method 'learned', got sharing "
                    f"{self.sharing!r}, method {self.method!r}"
                )
            return check_shared(shared, rank=self.rank, seq_len=self.seq_len), None
        if self.method == "mean_pool":
            return None, None
        heads = self.num_heads if self.sharing == "none" else 1
        sizes = {"seq_len": self.seq_len, "rank": self.rank, "heads": heads}
        one = self.sharing in ("key_value", "layer")
        return LinformerProjection(**sizes), None if one else LinformerProjection(**sizes)

    @classmethod
    def shared_options(cls, **options: Any) -> dict[str, Any]:
        """Make the one projection that all layers use, for sharing ``layer``."""
        if options.get("sharing") != "layer" or options.get("method", "learned") != "learned":
            return {}
        rank = options.get("rank", cls.options()["rank"].default)
        return {"projection": LinformerProjection(seq_len=options["seq_len"], rank=rank)}

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        """Add: more keys than the projection was built for."""
        reasons = super().unsupported_reasons(problem)
        if problem.key_len > self.seq_len:
            reasons.append(
                f"k: linformer was built for seq_len {self.seq_len}, got M={problem.key_len}"
            )
        return reasons

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Project keys and values along the sequence, then attend over R of them.

        Half precision in float32: a projected key rounded is a score rounded.
        """
        dtype = q.dtype
        q, k, v = in_float32(q, k, v)
        if self._per_head:
            k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        hidden = None
        if self.method == "mean_pool":
            keys, values, hidden = pool(k, v, self.segment, key_padding_mask)
        else:
            project_k, project_v = self._both()
            keys, values = project_k(k), project_v(v)  # [B, H_kv, R, D]
        self.kernel = f"{self.method}_projection+{self._core(q, keys, hidden)}"
        return self._attend(q, keys, values, hidden).to(dtype)

    @property
    def _per_head(self) -> bool:
        """Whether each head has an E and F of its own, and so needs keys of its own."""
        return self.sharing == "none" and self.method == "learned"

    def _both(self) -> tuple[LinformerProjection, LinformerProjection]:
        """Return E and F."""
        assert self.key_projection is not None
        return self.key_projection, self.value_projection or self.key_projection

    def sequence_projections(self, key_len: int) -> tuple[Tensor, Tensor] | None:
        """Return E and F, ``[R, M]`` each, where all heads share them."""
        if self.key_projection is None or self.sharing == "none":
            return None
        first = self.key_projection.weight[0, :, :key_len]
        if self.value_projection is None:
            return first, first
        return first, self.value_projection.weight[0, :, :key_len]

    def attend_projected(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend to keys and values that are projected along the sequence already."""
        if in_transform():
            from attention.transforms import as_a_whole

            return as_a_whole(self, "attend_projected", q, k, v)
        self.kernel = f"{self.method}_projection_first+{self._core(q, k, None)}"
        wide_q, wide_k, wide_v = in_float32(q, k, v)
        return self._attend(wide_q, wide_k, wide_v, None).to(q.dtype)

    def attend_across(self, part: Part) -> Tensor:
        """Add up over the ranks what each projects of its own keys and values."""
        q, k, v = in_float32(part.q, part.k, part.v)
        if self._per_head:
            k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        hidden = None
        if self.method == "mean_pool":
            keys, values, hidden = pooled_across(part, k, v, self.segment)
        else:
            keys, values = projected_across(part, k, v, self._both())
        self.kernel = f"{self.method}_projection+{self._core(q, keys, hidden)}"
        out = self._attend(q, keys.contiguous(), values.contiguous(), hidden)
        return out.to(part.q.dtype)

    def exchange_bytes(self, problem: Problem, spans: Sequence[tuple[int, int]], rank: int) -> int:
        """Return the bytes of the all-reduce, as a ring moves them; pooling also counts tokens."""
        learned = self.method == "learned"
        return reduced_bytes(
            problem,
            spans,
            heads=problem.num_heads if self._per_head else problem.num_kv_heads,
            rows=self.rank if learned else -(-problem.key_len // self.segment),
            counted=not learned,
        )

    def _core(self, q: Tensor, keys: Tensor, hidden: Tensor | None) -> str:
        """Name what attends to the projected keys."""
        if q.device.type != "cpu":
            return "sdpa"
        if hidden is not None or self.active_dropout_p:
            return "tiled" + mark(q)
        trains = torch.is_grad_enabled() and (q.requires_grad or keys.requires_grad)
        return ("sdpa+tiled_backward" if trains else "sdpa") + mark(q)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
        """Attend to projected keys, those of ``[B or 1, R]`` that are `hidden` left out."""
        if q.device.type != "cpu":
            unseen = None if hidden is None else hidden[:, None, None, :]
            return differentiable_rows(
                q, k, v, hidden=unseen, scale=self.scale, dropout_p=self.active_dropout_p
            )
        batch = q.shape[0]
        k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)

        def attend(rows: slice, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            unseen = None
            if hidden is not None:
                unseen = hidden.expand(batch, -1)[rows].repeat_interleave(self.num_heads, dim=0)
            plan = DensePlan(q.shape[0], q.shape[1], k.shape[1], unseen)
            return tiled_attention(
                q, k, v, plan, scale=self.scale, dropout_p=self.active_dropout_p
            )

        return by_groups(attend, q, k, v)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False,
        key_padding_mask: Tensor | None = None, rows: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Compute eq. 7 with E and F written out as matrices."""
        if is_causal:
            raise ValueError("is_causal: eq. 7 has no causal form")
        k, v = expand_kv_heads(k, q.shape[1]), expand_kv_heads(v, q.shape[1])
        e, f, visible = self._matrices(k, key_padding_mask)  # [B|1, H|1, R, M], bool [B|1, R]
        q = q if rows is None else q[:, :, rows]
        seen = visible[:, None, None, :].expand(-1, 1, q.shape[2], -1)
        return dense_softmax_attention(q, e @ k, f @ v, seen, self.scale)

    def _matrices(
        self, k: Tensor, key_padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return E and F as the paper writes them, and which projected keys exist."""
        length = k.shape[2]
        real = torch.ones(1, length, dtype=k.dtype, device=k.device)
        if key_padding_mask is not None:
            real = key_padding_mask.to(k.dtype)
        if self.method == "mean_pool":
            slot = torch.arange(length, device=k.device) // self.segment
            member = torch.eye(self.rank, dtype=k.dtype, device=k.device)[:, slot]  # [R, M]
            e = member * real[:, None, :]
            count = e.sum(dim=-1, keepdim=True)
            e = (e / count.clamp(min=1))[:, None]
            return e, e, count[..., 0] > 0
        assert self.key_projection is not None
        e = self.key_projection.weight[None, :, :, :length].to(k.dtype) * real[:, None, None, :]
        visible = torch.ones(1, self.rank, dtype=torch.bool, device=k.device)
        if self.value_projection is None:
            return e, e, visible
        f = self.value_projection.weight[None, :, :, :length].to(k.dtype)
        return e, f * real[:, None, None, :], visible

    def fixed_sizes(self) -> dict[str, int]:
        """Name the rank: R projected keys."""
        return {"rank": self.rank}

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count the two projections and softmax over N·R pairs."""
        per_head = self.sharing == "none"
        learned = self.method == "learned"
        kv_heads = problem.num_heads if per_head else problem.num_kv_heads
        columns = self.rank if learned else -(-problem.key_len // self.segment)
        pairs = problem.batch * problem.num_heads * problem.seq_len * columns
        ops = softmax_ops(pairs, problem.head_dim, mode)
        weight_bytes = 0
        if learned:
            once = 2 * problem.batch * kv_heads * 2 * self.rank * problem.key_len
            ops += once * problem.head_dim * (1 if mode == "forward" else 3)
            matrices = (1 if self.value_projection is None else 2) * (
                problem.num_heads if per_head else 1
            )
            weight_bytes = matrices * self.rank * problem.key_len * problem.dtype.itemsize
        return Cost(
            pattern_ops=ops,
            # The backward pass computes the scores anew.
            executed_ops=ops + (2 * pairs * problem.head_dim if mode == "training" else 0),
            exponentials=pairs,
            bytes=problem.io_bytes(mode) + weight_bytes * (1 if mode == "forward" else 3),
        )
