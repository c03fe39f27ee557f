"""The band in tiles: which a sequence is cut into, and attention over them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attention.backends.longformer.band import Band, by_residue, from_residues, hidden_by_residue
from attention.backends.longformer.global_tokens import GlobalTokens
from attention.kernels.fold import by_groups
from attention.kernels.tiled import tiled_attention
from attention.kernels.tiles import Hidden, Tiles, tiled_cost, tiles_of_groups, tiles_of_run

TILE_ROWS = {"cpu": 128, "cuda": 128}
OTHER_ROWS = 256
COMPILED_ROWS = 32
"""Queries in a tile: of fewer, less of the rectangle around a band is computed in vain."""


@dataclass
class BandPlan:
    """Tiles of a band over one sequence of n positions: a `attention.kernels.tiles.Plan`.

    Attributes:
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

    groups: int
    seq_len: int
    window: int
    is_causal: bool
    rows: int
    device: torch.device
    hidden: Tensor | None = None
    extra_hidden: Tensor | None = None
    extra_at: Tensor | None = None
    dilation: int = 1

    def __post_init__(self) -> None:
        self.rows = min(self.rows, self.seq_len)
        self.reach = 0 if self.is_causal else self.window  # keys seen to the right
        self.extra = 0 if self.extra_at is None else self.extra_at.shape[1]
        self.may_be_empty = self.hidden is not None
        self._bands: dict[tuple[int, int, int], tuple[Hidden, ...]] = {}

    @property
    def key(self) -> Hashable:
        """Shape and window, where nothing else is hidden."""
        if self.hidden is not None or self.extra:
            return None
        return self.groups, self.seq_len, self.window, self.is_causal, self.rows

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
            keys = tiles.window(self.hidden)  # [tiles, width]
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
                    distance = column - row  # [rows, hi - lo]
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


def attend_in_tiles(
    q: Tensor, k: Tensor, v: Tensor, *, window: int, dilation: int, is_causal: bool,
    hidden: Tensor | None, tokens: GlobalTokens | None, scale: float, dropout_p: float,
    sink: Tensor | None, kernel: str,
) -> Tensor:  # fmt: skip
    """Attend over the window and to the global tokens, for heads of one dilation.

    Tensors are ``[B, h, N, D]``; `hidden` is bool ``[B, N]``, True = not seen in the window;
    `sink` is ``[h]``.
    """
    batch, heads, seq_len, _ = q.shape
    extra = [] if tokens is None else [tokens.gather(k), tokens.gather(v)]  # [B, h, X, D]
    if dilation > 1:  # the positions of one residue form a sequence of their own
        q, k, v = (by_residue(x, dilation) for x in (q, k, v))  # [B, h·d, n, D]
        hidden = hidden_by_residue(hidden, batch, seq_len, dilation, q.device)  # [B, d, n]
        extra = [x.repeat_interleave(dilation, dim=1) for x in extra]  # [B, h·d, X, D]
        sink = None if sink is None else sink.repeat_interleave(dilation)  # [h·d]
    groups = q.shape[1]

    def of_groups(x: Tensor, rows: slice) -> Tensor:
        """Give what is ``[B, n]``, or ``[B, d, n]``, to each group of some batch rows."""
        x = x[rows] if x.dim() == 3 else x[rows, None]
        return x.repeat(1, groups // x.shape[1], 1).flatten(0, 1)  # [G, n]

    def attend(rows: slice, q: Tensor, k: Tensor, v: Tensor, *extra: Tensor) -> Tensor:
        plan = BandPlan(
            groups=q.shape[0],
            seq_len=q.shape[1],
            window=window,
            is_causal=is_causal,
            rows=tile_rows(q.device.type, kernel),
            device=q.device,
            hidden=None if hidden is None else of_groups(hidden, rows),
            extra_hidden=None if tokens is None else of_groups(tokens.absent, rows),
            extra_at=None if tokens is None else of_groups(tokens.positions, rows),
            dilation=dilation,
        )
        extra_k, extra_v = extra or (None, None)
        return tiled_attention(
            q, k, v, plan, scale=scale, extra_k=extra_k, extra_v=extra_v,
            sink=None if sink is None else sink.repeat(q.shape[0] // groups), dropout_p=dropout_p,
            compiled=kernel == "compiled",
        )  # fmt: skip

    return from_residues(by_groups(attend, q, k, v, *extra), dilation, heads, seq_len)


def tile_rows(device: str, kernel: str) -> int:
    """Return the queries in a tile."""
    return COMPILED_ROWS if kernel == "compiled" else TILE_ROWS.get(device, OTHER_ROWS)


def tiled_band_ops(
    band: Band, head_dim: int, seq_len: int, rows: int, is_causal: bool, training: bool
) -> int:
    """Count the operations that the tiles execute, for one sequence."""
    executed = 0
    for heads, gap in band.runs:
        plan = BandPlan(
            groups=1,
            seq_len=-(-seq_len // gap),
            window=band.window,
            is_causal=is_causal,
            rows=rows,
            device=torch.device("cpu"),
        )
        executed += heads * gap * tiled_cost(plan, head_dim, training)
    return executed
