"""Longformer: softmax attention over a sliding window and a few global tokens.

Beltagy, Peters and Cohan 2020, arXiv 2004.05150, section 3.1: query i sees the keys j with
``|i - j| <= W·d`` and ``(i - j) mod d = 0`` (window W on each side, dilation d), all see the
global tokens, and the global tokens see all, through projections of their own. Time
``O(N·W·D)``, memory ``O(N·D)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attention.base import Attention, UnsupportedError
from attention.checks import check_choice, check_int
from attention.decoding.caches import SlidingWindow
from attention.decoding.chunk import Chunk, gathered
from attention.decoding.state import StateShape
from attention.functional import (
    dense_softmax_attention,
    differentiable_rows,
    draw_seed,
    expand_kv_heads,
    opaque,
    query_positions,
    real_first,
    sdpa_rows,
    visible_keys,
)
from attention.kernels.dilation import by_residue, from_residues, hidden_by_residue
from attention.kernels.flex import KERNELS, Kernel, check_gradient, flex_ops, flex_reasons
from attention.kernels.flex_band import ExtraKeys, band_attention, band_tiles
from attention.kernels.onednn import mark
from attention.kernels.tiled import (
    Hidden,
    Tiles,
    fold_heads,
    tiled_attention,
    tiled_cost,
    tiles_of_groups,
    tiles_of_run,
)
from attention.problem import CallInput, Cost, Mode, Problem, Supports, softmax_ops
from attention.registry import register

if TYPE_CHECKING:
    from attention.parallel.collectives import Part

TILE_ROWS = {"cpu": 128, "cuda": 128}


@register("longformer")
class LongformerAttention(Attention):
    """Sliding-window attention with dilation and global tokens.

    Args:
        num_heads: H.
        head_dim: D.
        window: keys seen on each side of the query; with ``is_causal`` the left half only.
        dilation: gap between the keys of a window: one number, or one per head.
        kernel: ``tiled`` runs anywhere; ``flex`` is FlexAttention, compiled, without dropout and,
            on a CPU, without a backward pass; ``auto`` is flex on CUDA, else tiled, decided by
            the device alone.
        scale: factor on QKᵀ; ``None`` means ``1/sqrt(D)``.
        dropout_p: probability of dropping an attention weight in training mode.

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
    ) -> None:
        super().__init__(num_heads=num_heads, head_dim=head_dim, scale=scale, dropout_p=dropout_p)
        self.kernel_choice = check_choice("kernel", kernel, KERNELS)
        self.window = check_int("window", window, minimum=0)
        self.dilation = _check_dilation(dilation, num_heads)

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        """Add: what FlexAttention cannot serve, where it was chosen."""
        reasons = super().unsupported_reasons(problem)
        if self.kernel_on(problem.device) == "flex":
            reasons += flex_reasons(problem, dropout_p=self.active_dropout_p)
        return reasons

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        is_causal: bool,
        key_padding_mask: Tensor | None,
        global_mask: Tensor | None = None,
        global_qkv: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend tile by tile over the band; the global rows run through fused attention."""
        if self.kernel_on(q.device.type) == "flex":
            more = (key_padding_mask, global_mask, global_qkv)
            return self._flex(q, k, v, is_causal, *more)
        keys, values = expand_kv_heads(k, self.num_heads), expand_kv_heads(v, self.num_heads)
        tokens, hidden = _tokens_and_hidden(global_mask, key_padding_mask)
        runs = _runs(self.dilation)
        if len(runs) == 1:
            out = self._band(q, keys, values, runs[0][1], is_causal, hidden, tokens)
        else:
            sizes = [count for count, _ in runs]
            parts = zip(*(x.split(sizes, dim=1) for x in (q, keys, values)), runs, strict=True)
            outs = [
                self._band(q1, k1, v1, dilation, is_causal, hidden, tokens)
                for q1, k1, v1, (_, dilation) in parts
            ]
            out = torch.cat(outs, dim=1)
        self.kernel = "tiled_band" + mark(q)
        if tokens is not None:
            rows = self._global_rows(
                *(global_qkv or (q, k, v)), tokens, is_causal, key_padding_mask
            )
            batch, at, slot = tokens.where
            out[batch, :, at] = rows[batch, :, slot]
        return out

    @property
    def reach(self) -> int:
        """Tokens on each side of a query within which its window lies."""
        return self.window * max(self.dilation)

    def attend_across(self, part: Part) -> Tensor:
        """Fetch the keys of one window to each side, and those of the global tokens elsewhere.

        The part then lies between what was fetched: the band runs over all of it, and the rows of
        the others are dropped. The rows of the global tokens are softmax over all ranks' keys.
        """
        exchange, size = part.exchange, part.q.shape[2]

        def wanted(rank: int) -> tuple[int, int]:
            start, stop = exchange.spans[rank]
            after = 0 if part.is_causal else self.reach
            return max(0, start - self.reach), min(exchange.total_length, stop + after)

        first, last = wanted(exchange.rank)
        k, v, seen = part.fetch_keys(wanted)
        pad = torch.nn.functional.pad
        before = exchange.start - first
        q = pad(part.q, (0, 0, before, last - exchange.stop))  # nobody asks for these rows
        global_mask = part.call_inputs.get("global_mask")
        tokens = None if global_mask is None else GlobalsAcross.of(part, global_mask)
        if tokens is None:
            out = self.attend(q, k, v, is_causal=part.is_causal, key_padding_mask=seen)
            return out[:, :, before : before + size]
        k_g, v_g, there = tokens.outside(first, last, is_causal=part.is_causal)
        if seen is None:
            seen = torch.ones(k.shape[0], k.shape[2], dtype=torch.bool, device=k.device)
        is_global = exchange.fetch_mask(tokens.mask, wanted)
        assert is_global is not None
        out = self.attend(
            pad(q, (0, 0, there.shape[1], 0)),
            torch.cat([k_g, k], dim=2),
            torch.cat([v_g, v], dim=2),
            is_causal=part.is_causal,
            key_padding_mask=torch.cat([there, seen], dim=1),
            global_mask=torch.cat([there, is_global], dim=1),
        )
        before += there.shape[1]
        out = out[:, :, before : before + size].clone()
        batch, at, rows = tokens.rows(self.scale, self.active_dropout_p)
        out[batch, :, at] = rows.to(out.dtype)
        return out

    def exchange_bytes(self, problem: Problem, spans: Sequence[tuple[int, int]], rank: int) -> int:
        """Return the bytes of the keys and values beside the rank's span."""
        start, stop = spans[rank]
        after = 0 if problem.is_causal else min(problem.key_len - stop, self.reach)
        token = 2 * problem.batch * problem.num_kv_heads * problem.head_dim
        return (min(start, self.reach) + after) * token * problem.dtype.itemsize

    def make_state(self, shape: StateShape) -> SlidingWindow:
        """Keep the keys and values of one window."""
        return SlidingWindow(self.shown(), shape, reach=self.reach)

    def advance(
        self,
        chunk: Chunk,
        state: SlidingWindow,
        *,
        global_mask: Tensor | None = None,
        global_qkv: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend over the band; the tokens of the window that came before stand in front."""
        if not state.longest:
            return self._first(chunk, state, global_mask, global_qkv)
        if global_mask is not None:
            raise UnsupportedError(
                "global_mask: global tokens belong to the first chunk, which all others see; "
                f"{state.longest} tokens came before"
            )
        if chunk.size == 1:
            state.append(chunk)
            return self._newest(chunk.q, state)
        past = slice(max(0, state.end - state.reach), state.end)
        parts = [(state.k[:, :, past], state.v[:, :, past], state.seen[:, past])]
        if state.globals is not None:
            parts.insert(0, state.globals)
        k = torch.cat([*(part[0] for part in parts), chunk.k], dim=2)
        v = torch.cat([*(part[1] for part in parts), chunk.v], dim=2)
        seen = torch.cat([*(part[2] for part in parts), chunk.is_real], dim=1)
        before = seen.shape[1] - chunk.size
        q = torch.nn.functional.pad(chunk.q, (0, 0, before, 0))  # nobody asks for these rows
        is_global = None
        if state.globals is not None:
            is_global = torch.zeros_like(seen)
            is_global[:, : state.globals[2].shape[1]] = state.globals[2]
        out = self.attend(q, k, v, is_causal=True, key_padding_mask=seen, global_mask=is_global)
        state.append(chunk)
        return out[:, :, before:]

    def _first(
        self,
        chunk: Chunk,
        state: SlidingWindow,
        global_mask: Tensor | None,
        global_qkv: tuple[Tensor, Tensor, Tensor] | None,
    ) -> Tensor:
        """Attend within the first chunk, and keep its global tokens."""
        mask = None if chunk.is_even else chunk.is_real
        if global_mask is not None:
            global_mask = chunk.mask_in_order(global_mask)
        if global_qkv is not None and chunk.order is not None:
            q_g, k_g, v_g = (gathered(x, chunk.order) for x in global_qkv)
            global_qkv = (q_g, k_g, v_g)
        out = self.attend(
            chunk.q, chunk.k, chunk.v, is_causal=True, key_padding_mask=mask,
            global_mask=global_mask, global_qkv=global_qkv,
        )  # fmt: skip
        tokens = _GlobalTokens.of(global_mask, mask)
        if tokens is not None:
            state.globals = (tokens.gather(chunk.k), tokens.gather(chunk.v), ~tokens.absent)
        state.append(chunk, None if tokens is None else tokens.mask)
        return out

    def _newest(self, q: Tensor, state: SlidingWindow) -> Tensor:
        """Attend from the last token of each sequence to its window and the global tokens."""
        if self.kernel != "window_slice":  # a module is slow to write to
            self.kernel = "window_slice"
        if state.is_full and self.window == state.reach:  # no dilation: the window is one slice
            first = state.end - 1 - self.window
            k, v = (x.narrow(2, first, self.window + 1) for x in (state.k, state.v))
            return sdpa_rows(q, k, v, hidden=None, scale=self.scale)
        runs = _runs(self.dilation)
        keys, values = state.k, state.v
        if len(runs) > 1:
            keys, values = (expand_kv_heads(x, self.num_heads) for x in (keys, values))
        outs, head = [], 0
        for count, dilation in runs:
            first = state.end - 1 - min(self.window, (state.end - 1) // dilation) * dilation
            at = slice(first, state.end, dilation)
            own = slice(head, head + count) if len(runs) > 1 else slice(None)
            k, v = keys[:, own, at], values[:, own, at]
            hidden = None if state.is_full else ~state.seen[:, at]
            if state.globals is not None:
                extra_k, extra_v, there = state.globals
                if len(runs) > 1:
                    extra_k, extra_v = (
                        expand_kv_heads(x, self.num_heads)[:, own] for x in (extra_k, extra_v)
                    )
                k, v = torch.cat([extra_k, k], dim=2), torch.cat([extra_v, v], dim=2)
                hidden = torch.cat([~there, ~state.seen[:, at]], dim=1)
            mask = None if hidden is None else hidden[:, None, None, :]
            outs.append(sdpa_rows(q[:, own], k, v, hidden=mask, scale=self.scale))
            head += count
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)

    def _band(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        dilation: int,
        is_causal: bool,
        hidden: Tensor | None,
        tokens: _GlobalTokens | None,
    ) -> Tensor:
        """Attend over the window for heads of one dilation: ``[B, h, N, D]``."""
        batch, heads, seq_len, _ = q.shape
        extra = None if tokens is None else (tokens.gather(k), tokens.gather(v))
        if dilation > 1:  # the positions of one residue form a sequence of their own
            q, k, v = (by_residue(x, dilation) for x in (q, k, v))
            hidden = hidden_by_residue(hidden, batch, seq_len, dilation, q.device)
            if extra is not None:
                extra = (
                    extra[0].repeat_interleave(dilation, dim=1),
                    extra[1].repeat_interleave(dilation, dim=1),
                )
        groups = q.shape[1]
        if hidden is not None:
            hidden = hidden.reshape(batch, -1, q.shape[2])
            hidden = hidden.repeat(1, groups // hidden.shape[1], 1)  # [B, G/B, n]
        tensors = [q, k, v, *(extra or ())]
        outs = []
        for row, (q3, k3, v3, *extra3) in enumerate(folded := fold_heads(*tensors)):
            together = len(folded) == 1
            plan = BandPlan(
                groups=q3.shape[0],
                seq_len=q3.shape[1],
                window=self.window,
                is_causal=is_causal,
                rows=TILE_ROWS.get(q.device.type, 256),
                device=q.device,
                hidden=_rows_of(hidden, row, together),
                extra_hidden=_rows_of(
                    None if tokens is None else tokens.padding(groups), row, together
                ),
                extra_at=_rows_of(None if tokens is None else tokens.at(groups), row, together),
                dilation=dilation,
            )
            outs.append(
                tiled_attention(
                    q3,
                    k3,
                    v3,
                    plan,
                    scale=self.scale,
                    extra_k=extra3[0] if extra3 else None,
                    extra_v=extra3[1] if extra3 else None,
                    dropout_p=self.active_dropout_p,
                    dropout_seed=draw_seed() if self.active_dropout_p else 0,
                )
            )
        out = outs[0].unflatten(0, (batch, groups)) if len(outs) == 1 else torch.stack(outs)
        return from_residues(out, dilation, heads, seq_len)

    @opaque
    def _flex(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        is_causal: bool,
        key_padding_mask: Tensor | None,
        global_mask: Tensor | None,
        global_qkv: tuple[Tensor, Tensor, Tensor] | None,
    ) -> Tensor:
        """Attend over the band with FlexAttention, heads of one dilation at a time."""
        check_gradient(q, k, v, *(global_qkv or ()))
        self.kernel = "flex_band"
        runs = _runs(self.dilation)
        tokens, hidden = _tokens_and_hidden(global_mask, key_padding_mask)
        keys, values = k, v
        if runs != [(self.num_heads, 1)]:  # residues become heads: each needs its own keys
            keys, values = (expand_kv_heads(x, self.num_heads) for x in (k, v))
        sizes = [[count for count, _ in runs]] + [
            [count * x.shape[1] // self.num_heads for count, _ in runs] for x in (keys, values)
        ]
        parts = [x.split(size, dim=1) for x, size in zip((q, keys, values), sizes, strict=True)]
        outs = [
            band_attention(
                *(part[run] for part in parts),
                window=self.window,
                dilation=dilation,
                is_causal=is_causal,
                scale=self.scale,
                hidden=hidden,
                extra=None
                if tokens is None
                else ExtraKeys(
                    tokens.gather(parts[1][run]),
                    tokens.gather(parts[2][run]),
                    tokens.absent,
                    tokens.positions,
                ),
            )
            for run, (_, dilation) in enumerate(runs)
        ]
        out = outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)
        if tokens is None:
            return out
        rows = self._global_rows(*(global_qkv or (q, k, v)), tokens, is_causal, key_padding_mask)
        batch, at, slot = tokens.where
        out = out.clone()  # the compiled call keeps its output for the backward pass
        out[batch, :, at] = rows[batch, :, slot]
        return out

    def _global_rows(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tokens: _GlobalTokens,
        is_causal: bool,
        key_padding_mask: Tensor | None,
    ) -> Tensor:
        """Attend from the global tokens to all keys: ``[B, H, X, D]``."""
        hidden = None if key_padding_mask is None else ~key_padding_mask[:, None, None, :]
        if is_causal:
            keys = torch.arange(k.shape[2], device=k.device)
            future = keys > tokens.positions[:, None, :, None]
            hidden = future if hidden is None else hidden | future
        return differentiable_rows(
            tokens.gather(q),
            k,
            v,
            hidden=hidden,
            scale=self.scale,
            dropout_p=self.active_dropout_p,
        )

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
            return dense_softmax_attention(q[:, :, at], k, v, seen & window, self.scale)
        pattern = window | global_mask[:, None, None, :]
        local = dense_softmax_attention(q[:, :, at], k, v, seen & pattern, self.scale)
        q_g, k_g, v_g = global_qkv or (q, k, v)
        everywhere = dense_softmax_attention(q_g[:, :, at], k_g, v_g, seen, self.scale)
        return torch.where(global_mask[:, None, at, None], everywhere, local)

    def fixed_sizes(self) -> dict[str, int]:
        """Name the window: W keys on each side and the query's own."""
        return {"window": 2 * self.window + 1}

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count the band's pairs; global tokens belong to a call and are not counted."""
        dim, pattern, executed = problem.head_dim, 0, 0
        for heads, gap in _runs(self.dilation):
            lengths = [len(range(r, problem.seq_len, gap)) for r in range(gap)]
            pairs = sum(band_pairs(n, self.window, problem.is_causal) for n in lengths)
            pattern += heads * pairs
            plan = BandPlan(
                groups=1,
                seq_len=-(-problem.seq_len // gap),
                window=self.window,
                is_causal=problem.is_causal,
                rows=TILE_ROWS.get(problem.device, 256),
                device=torch.device("cpu"),
            )
            if self.kernel_on(problem.device) == "flex":
                pairs = _flex_pairs(plan.seq_len, self.window, problem.is_causal)
                executed += heads * gap * flex_ops(pairs, dim, mode == "training")
            else:
                executed += heads * gap * tiled_cost(plan, dim, mode == "training")
        return Cost(
            pattern_ops=problem.batch * softmax_ops(pattern, dim, mode),
            executed_ops=problem.batch * executed,
            exponentials=problem.batch * pattern,
            bytes=problem.io_bytes(mode),
        )


class BandPlan:
    """Tiles of a band over one sequence of n positions: a `attention.kernels.tiled.Plan`.

    Args:
        groups: G.
        seq_len: n.
        window: keys on each side.
        is_causal: the left half only.
        rows: queries in a tile.
        device: of the masks.
        hidden: bool ``[G, n]``, True = this key is not seen in the window; or ``None``.
        extra_hidden: bool ``[G, X]``, True = this extra key is not seen; or ``None``.
        extra_at: positions of the extra keys in the undilated sequence ``[G, X]``; or ``None``.
        dilation: of the sequence; group g holds the positions of residue ``g mod dilation``.
    """

    block_size, block_offset = 1, 0
    extra_ranges = ()

    def __init__(
        self,
        *,
        groups: int,
        seq_len: int,
        window: int,
        is_causal: bool,
        rows: int,
        device: torch.device,
        hidden: Tensor | None = None,
        extra_hidden: Tensor | None = None,
        extra_at: Tensor | None = None,
        dilation: int = 1,
    ) -> None:
        self.groups, self.seq_len, self.window = groups, seq_len, window
        self.reach = 0 if is_causal else window  # keys seen to the right
        self.is_causal, self.device, self.hidden = is_causal, device, hidden
        self.rows = min(rows, seq_len)
        self.extra_hidden, self.extra_at, self.dilation = extra_hidden, extra_at, dilation
        self.extra = 0 if extra_at is None else extra_at.shape[1]
        self.may_be_empty = hidden is not None
        self._bands: dict[tuple[int, int, int], tuple[Hidden, ...]] = {}

    def _window(self, start: int) -> tuple[int, int, int]:
        """Return (stop, lo, hi) of the tile that starts at `start`."""
        stop = min(start + self.rows, self.seq_len)
        return stop, max(0, start - self.window), min(self.seq_len, stop + self.reach)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Walk (rows, columns)."""
        for start in range(0, self.seq_len, self.rows):
            stop, lo, hi = self._window(start)
            yield stop - start, hi - lo + self.extra

    def batches(self, cells: int, *, disjoint: bool) -> Iterator[Tiles]:
        """Walk the whole tiles between the ends along the sequence, the rest over the groups."""
        rows, width = self.rows, self.rows + self.window + self.reach
        first = -(-self.window // rows)  # the first tile whose window is whole
        inner = max(0, (self.seq_len - self.reach) // rows - first)
        spacing = -(-width // rows) if disjoint else 1
        cut = (width + self.extra) * rows
        if run := tiles_of_run(inner, self.groups, cells, cut, spacing):
            for at, count, apart in run:
                start = (first + at) * rows
                for group in range(self.groups):
                    lo = start - self.window
                    yield self._masked(
                        Tiles(group, 1, start, rows, lo, width, count, apart * rows)
                    )
        else:
            inner = 0
        for start in range(0, self.seq_len, rows):
            if first <= start // rows < first + inner:
                continue
            stop, lo, hi = self._window(start)
            cut = (stop - start) * (hi - lo + self.extra)
            for group, count in tiles_of_groups(self.groups, cells, cut):
                yield self._masked(Tiles(group, count, start, stop - start, lo, hi - lo))

    def _masked(self, tiles: Tiles) -> Tiles:
        """Add what band, padding and extra keys hide."""
        hidden = self._band(tiles.start - tiles.lo, tiles.rows, tiles.width)
        if self.hidden is not None:
            keys = tiles.window(self.hidden)
            hidden = (*hidden, Hidden(0, tiles.width, keys[:, None, :]))
        if self.extra_at is not None:
            mask = self._extra_mask(tiles)
            hidden = (*hidden, Hidden(tiles.width, tiles.width + self.extra, mask))
        return replace(tiles, hidden=hidden) if hidden else tiles

    def _band(self, shift: int, rows: int, columns: int) -> tuple[Hidden, ...]:
        """Return what the band hides in a tile whose first query is at column `shift`.

        A triangle of the first columns, too far left of the last rows, and one of the last
        columns, too far right of the first rows.
        """
        key = (shift, rows, columns)
        if key not in self._bands:
            left = (0, min(columns, max(0, shift - self.window + rows - 1)))
            right = (min(columns, max(0, shift + self.reach + 1)), columns)
            row = torch.arange(shift, shift + rows, device=self.device)[:, None]
            parts = []
            for side, (lo, hi) in enumerate((left, right)):
                if lo < hi:
                    column = torch.arange(lo, hi, device=self.device)
                    distance = column - row
                    unseen = distance > self.reach if side else distance < -self.window
                    parts.append(Hidden(lo, hi, unseen, is_shared=True))
            self._bands[key] = tuple(parts)
        return self._bands[key]

    def _extra_mask(self, tiles: Tiles) -> Tensor:
        """Return which extra keys are not seen: ``[tiles or 1, rows or 1, X]``."""
        assert self.extra_at is not None
        assert self.extra_hidden is not None
        mask = tiles.of_groups(self.extra_hidden)[:, None, :]
        if not self.is_causal:
            return mask
        residue = torch.arange(self.groups, device=self.device) % self.dilation
        # Positions of the queries in the undilated sequence, [tiles, rows].
        at = tiles.of_groups(residue)[:, None] + tiles.positions(self.device) * self.dilation
        return mask | (tiles.of_groups(self.extra_at)[:, None, :] > at[:, :, None])


class _GlobalTokens:
    """The global tokens of a batch, gathered to the front: X is the most that a row has."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        count = mask.sum(dim=1)
        most = int(count.max())
        order = real_first(mask)
        self.positions = order[:, :most]  # [B, X]
        self.absent = torch.arange(most, device=mask.device) >= count[:, None]  # [B, X]

    @classmethod
    def of(
        cls, global_mask: Tensor | None, key_padding_mask: Tensor | None
    ) -> _GlobalTokens | None:
        """Return the global tokens that take part; None if there are none in the batch."""
        if global_mask is None:
            return None
        mask = global_mask if key_padding_mask is None else global_mask & key_padding_mask
        return cls(mask) if bool(mask.any()) else None

    def gather(self, x: Tensor) -> Tensor:
        """Return the global tokens' rows of ``[B, H, N, D]``: ``[B, H, X, D]``."""
        index = self.positions[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
        return x.gather(2, index)

    def padding(self, groups: int) -> Tensor:
        """Return which of the X slots are empty, for each group: ``[B, G/B, X]``."""
        return self.absent[:, None, :].expand(-1, groups, -1)

    def at(self, groups: int) -> Tensor:
        """Return the positions of the X slots, for each group: ``[B, G/B, X]``."""
        return self.positions[:, None, :].expand(-1, groups, -1)

    @property
    def where(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return (batch row, position, slot) of every global token."""
        batch, slot = torch.nonzero(~self.absent, as_tuple=True)
        return batch, self.positions[batch, slot], slot


class GlobalsAcross:
    """The global tokens of a sequence that is cut over ranks: X slots of each of P ranks.

    Args:
        part: of this rank.
        mask: which of its tokens are global and take part: bool ``[B, n]``.
        slots: X, the most that a rank has in a row of the batch.
    """

    def __init__(self, part: Part, mask: Tensor, slots: int) -> None:
        self.part, self.mask, self.slots = part, mask, slots
        exchange = part.exchange
        count = mask.sum(dim=1)
        at = real_first(mask)[:, :slots]
        at = torch.nn.functional.pad(at, (0, slots - at.shape[1]))
        there = torch.arange(slots, device=mask.device) < count[:, None]
        own = torch.where(there, at + exchange.start, -1)
        positions = exchange.gather(own)  # [P, B, X]
        self.positions = positions.transpose(0, 1).flatten(1)  # [B, P·X]
        q, k, v = part.call_inputs.get("global_qkv") or (part.q, part.k, part.v)
        self.k, self.v = k, v
        index = at[:, None, :, None]
        given = [
            x.gather(2, index.expand(-1, x.shape[1], -1, x.shape[3])) for x in (part.k, part.v, q)
        ]
        sizes = [x.shape[1] for x in given]
        every = exchange.gather(torch.cat(given, dim=1))  # [P, B, 2·H_kv + H, X, D]
        every = every.permute(1, 2, 0, 3, 4).flatten(2, 3)
        self.seen_k, self.seen_v, self.q = every.split(sizes, dim=1)
        self.own = own

    @classmethod
    def of(cls, part: Part, global_mask: Tensor) -> GlobalsAcross | None:
        """Return the global tokens of all ranks; None if there are none."""
        mask = global_mask & part.own_keys
        slots = int(part.exchange.largest(mask.sum(dim=1).max()))
        return cls(part, mask, slots) if slots else None

    def outside(self, first: int, last: int, *, is_causal: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys and values ``[B, H_kv, P·X, D]`` of all slots, and which are outside.

        Args:
            first: of the tokens that the rank has fetched.
            last: behind them.
            is_causal: those behind are in nobody's past.
        """
        there = (self.positions >= 0) & (self.positions < first)
        if not is_causal:
            there |= self.positions >= last
        return self.seen_k, self.seen_v, there

    def rows(self, scale: float, dropout_p: float) -> tuple[Tensor, Tensor, Tensor]:
        """Attend from all global tokens to all keys of all ranks.

        Returns:
            batch row, position and output ``[K, H, D]`` of every global token of this rank.
        """
        part, exchange = self.part, self.part.exchange
        wide = torch.promote_types(self.q.dtype, torch.float32)
        k, v = (expand_kv_heads(x, self.q.shape[1]).to(wide) for x in (self.k, self.v))
        scores = (self.q.to(wide) * scale) @ k.mT  # [B, H, P·X, n]
        hidden = ~part.own_keys[:, None, None, :]
        if part.is_causal:
            keys = torch.arange(exchange.start, exchange.stop, device=k.device)
            hidden = hidden | (keys > self.positions[:, None, :, None])
        scores = scores.masked_fill(hidden, torch.finfo(wide).min)
        top = exchange.largest(scores.amax(dim=-1, keepdim=True))
        weights = (scores - top).exp().masked_fill(hidden, 0.0)
        total = weights.sum(dim=-1, keepdim=True)
        if dropout_p:
            weights = torch.nn.functional.dropout(weights, dropout_p)
        summed = exchange.total(torch.cat([weights @ v, total], dim=-1))
        number, total = summed[..., :-1], summed[..., -1:]
        out = number / torch.where(total > 0, total, 1.0)
        mine = out[:, :, exchange.rank * self.slots : (exchange.rank + 1) * self.slots]
        batch, slot = torch.nonzero(self.own >= 0, as_tuple=True)
        return batch, self.own[batch, slot] - exchange.start, mine[batch, :, slot]


def _tokens_and_hidden(
    global_mask: Tensor | None, key_padding_mask: Tensor | None
) -> tuple[_GlobalTokens | None, Tensor | None]:
    """Return the global tokens, and which keys no window shows: ``[B, N]``, None = all are."""
    tokens = _GlobalTokens.of(global_mask, key_padding_mask)
    hidden = None if key_padding_mask is None else ~key_padding_mask
    if tokens is not None:  # seen as extra keys: not a second time in the window
        hidden = tokens.mask if hidden is None else hidden | tokens.mask
    return tokens, hidden


def _flex_pairs(seq_len: int, window: int, is_causal: bool) -> int:
    """Count the pairs that FlexAttention's tiles cover, over `seq_len` positions."""
    return band_tiles(seq_len, window, is_causal, False, None, torch.device("cpu")).covered_pairs


def band_pairs(seq_len: int, window: int, is_causal: bool) -> int:
    """Count the pairs of a band over `seq_len` positions."""
    reach = min(window, seq_len - 1)
    if reach < 0:
        return 0
    side = reach * seq_len - reach * (reach + 1) // 2
    return seq_len + (1 if is_causal else 2) * side


def _check_dilation(dilation: Any, num_heads: int) -> tuple[int, ...]:
    if isinstance(dilation, Sequence) and not isinstance(dilation, str):
        if len(dilation) != num_heads:
            raise ValueError(
                f"dilation: expected one number or {num_heads} (one per head), "
                f"got {len(dilation)}: {list(dilation)}"
            )
        return tuple(check_int("dilation", d, minimum=1) for d in dilation)
    return (check_int("dilation", dilation, minimum=1),) * num_heads


def _runs(dilation: tuple[int, ...]) -> list[tuple[int, int]]:
    """Group neighbouring heads of equal dilation: (number of heads, dilation)."""
    runs: list[tuple[int, int]] = []
    for gap in dilation:
        if runs and runs[-1][1] == gap:
            runs[-1] = (runs[-1][0] + 1, gap)
        else:
            runs.append((1, gap))
    return runs


def _rows_of(x: Tensor | None, row: int, together: bool) -> Tensor | None:
    """Take from ``[B, g, n]`` what one folded call needs: all as ``[B·g, n]``, or one row."""
    if x is None:
        return None
    return x.flatten(0, 1) if together else x[row]
