"""Linformer: softmax attention over R projected keys and values.

Wang et al. 2020, arXiv 2006.04768, eq. 7: ``softmax(Q(EK)ᵀ/sqrt(D))·(FV)`` with E and F of shape
``[R, M]``. Time ``O(N·R·D)``, memory ``O(N·D)``. Bidirectional, built for a longest length;
shorter inputs use the leading columns of the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from attention.base import Attention
from attention.checks import check_choice, check_int
from attention.derivatives import in_transform
from attention.functional import (
    dense_softmax_attention,
    differentiable_rows,
    draw_seed,
    expand_kv_heads,
    in_float32,
)
from attention.kernels.onednn import mark
from attention.kernels.sequence_projection import along_sequence
from attention.kernels.tiled import DensePlan, fold_heads, tiled_attention
from attention.problem import Cost, Mode, Problem, Supports, softmax_ops
from attention.registry import register

if TYPE_CHECKING:
    from attention.parallel.collectives import Part

Sharing = Literal["none", "headwise", "key_value", "layer"]
Method = Literal["learned", "mean_pool"]
SHARINGS = ("none", "headwise", "key_value", "layer")
METHODS = ("learned", "mean_pool")


class LinformerProjection(nn.Module):
    """The matrix E (or F) of eq. 7: ``[heads or 1, R, M]``.

    Args:
        seq_len: longest M.
        rank: R.
        heads: 1 = one matrix for all heads, else one each.
    """

    def __init__(self, *, seq_len: int, rank: int, heads: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, rank, seq_len))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrix: entries of N(0, 1/R), after the paper's theorem 2."""
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Project ``[B, H, M, D]`` along the sequence: ``[B, H, R, D]``."""
        return along_sequence(self.weight[:, :, : x.shape[2]], x)


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
            if not isinstance(shared, LinformerProjection):
                raise TypeError(
                    f"projection: expected a LinformerProjection, got {type(shared).__name__}"
                )
            wanted = (1, self.rank, self.seq_len)
            if tuple(shared.weight.shape) != wanted:
                raise ValueError(
                    f"projection: expected a weight {wanted}, got {tuple(shared.weight.shape)}"
                )
            return shared, None
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
        if self.sharing == "none" and self.method == "learned":
            k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        hidden = None
        if self.method == "mean_pool":
            keys, values, hidden = self._pool(k, v, key_padding_mask)
        else:
            project_k = self.key_projection
            assert project_k is not None
            keys = project_k(k)  # [B, H_kv, R, D]
            values = (self.value_projection or project_k)(v)
        self.kernel = f"{self.method}_projection+{self._core(q, keys, hidden)}"
        return self._attend(q, keys, values, hidden).to(dtype)

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
        own, exchange = part.own_keys, part.exchange
        if self.sharing == "none" and self.method == "learned":
            k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        hidden = None
        if self.method == "learned":
            assert self.key_projection is not None
            project_v = self.value_projection or self.key_projection
            columns = slice(exchange.start, exchange.stop)
            both = [
                along_sequence(project.weight[:, :, columns], x)
                for project, x in ((self.key_projection, k), (project_v, v))
            ]
            total = exchange.total(torch.cat(both, dim=1))
        else:
            at = torch.arange(exchange.start, exchange.stop, device=k.device) // self.segment
            rows = -(-exchange.total_length // self.segment)
            blank = k.new_zeros(k.shape[0], 2 * k.shape[1], rows, k.shape[3])
            total = exchange.total(blank.index_add(2, at, torch.cat([k, v], dim=1)))
            counts = own.new_zeros(own.shape[0], rows, dtype=torch.int64)
            counts = exchange.total(counts.index_add(1, at, own.to(torch.int64)))
            total = total / counts.clamp(min=1)[:, None, :, None]
            hidden = None if part.key_padding_mask is None else counts == 0
        keys, values = total.split(k.shape[1], dim=1)
        self.kernel = f"{self.method}_projection+{self._core(q, keys, hidden)}"
        out = self._attend(q, keys.contiguous(), values.contiguous(), hidden)
        return out.to(part.q.dtype)

    def exchange_bytes(self, problem: Problem, spans: Sequence[tuple[int, int]], rank: int) -> int:
        """Return the bytes of the all-reduce, as a ring moves them; pooling also counts tokens."""
        learned = self.method == "learned"
        heads = problem.num_heads if learned and self.sharing == "none" else problem.num_kv_heads
        rows = self.rank if learned else -(-problem.key_len // self.segment)
        wide = torch.promote_types(problem.dtype, torch.float32)
        size = 2 * problem.batch * heads * rows * problem.head_dim * wide.itemsize
        moved = 2 * (len(spans) - 1) * size // len(spans)
        counts = 0 if learned else 2 * (len(spans) - 1) * problem.batch * rows * 8 // len(spans)
        return moved + counts

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
        k, v = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        if hidden is not None:
            hidden = hidden.expand(q.shape[0], -1).repeat_interleave(self.num_heads, dim=0)
        outs = []
        for row, (q3, k3, v3) in enumerate(folded := fold_heads(q, k, v)):
            groups = q3.shape[0]
            unseen = None if hidden is None else hidden[row * groups : (row + 1) * groups]
            outs.append(
                tiled_attention(
                    q3,
                    k3,
                    v3,
                    DensePlan(groups, q3.shape[1], k3.shape[1], unseen),
                    scale=self.scale,
                    dropout_p=self.active_dropout_p,
                    dropout_seed=draw_seed() if self.active_dropout_p else 0,
                )
            )
        return outs[0].unflatten(0, q.shape[:2]) if len(folded) == 1 else torch.stack(outs)

    def _pool(
        self, k: Tensor, v: Tensor, key_padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Average the real tokens of each segment; a segment without any is hidden."""
        length, segment = k.shape[2], self.segment
        if key_padding_mask is None and length % segment == 0:
            k, v = (x.unflatten(2, (-1, segment)).mean(dim=3) for x in (k, v))
            return k, v, None
        pad = -length % segment
        real = (
            torch.ones(k.shape[0], length, dtype=torch.bool, device=k.device)
            if key_padding_mask is None
            else key_padding_mask
        )
        real = nn.functional.pad(real, (0, pad)).unflatten(1, (-1, segment))  # [B, r, segment]
        count = real.sum(dim=2)
        weight = real.to(k.dtype) / count.clamp(min=1)[:, :, None]
        pooled = []
        for x in (k, v):
            padded = nn.functional.pad(x, (0, 0, 0, pad)).unflatten(2, (-1, segment))
            pooled.append((padded * weight[:, None, :, :, None]).sum(dim=3))
        return pooled[0], pooled[1], count == 0

    def reference(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
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
