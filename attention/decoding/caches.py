"""The four kinds of memory that decode states are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from attention.decoding.chunk import Chunk
from attention.decoding.state import DecodeState, StateShape


class KeyValueCache(DecodeState):
    """All keys and values.

    Attributes:
        k: ``[B, H_kv, max_len, D]``; sequence b holds ``lengths[b]`` of them.
        v: ``[B, H_kv, max_len, D_v]``, likewise.
    """

    append_only = frozenset({"k", "v"})
    sequence_axes: ClassVar[Mapping[str, int]] = {**DecodeState.sequence_axes, "k": 0, "v": 0}

    def __init__(self, made_by: str, shape: StateShape) -> None:
        super().__init__(made_by, shape)
        if shape.max_len is None:
            raise ValueError(
                f"max_len: {made_by} keeps every key; expected the most tokens of a sequence, "
                "got None"
            )
        size = (shape.batch_size, shape.num_kv_heads, shape.max_len)
        self.k, self.v = (shape.zeros(*size, width) for width in (shape.head_dim, shape.v_dim))

    def append(self, chunk: Chunk) -> None:
        """Write the keys and values of a chunk behind those of each sequence."""
        if chunk.is_even and self.is_even:
            self.k.narrow(2, self.longest, chunk.size).copy_(chunk.k)
            self.v.narrow(2, self.longest, chunk.size).copy_(chunk.v)
        else:
            row, place = torch.nonzero(chunk.is_real, as_tuple=True)
            at_each = self.lengths[row] + place
            self.k[row, :, at_each] = chunk.k.transpose(1, 2)[row, place]
            self.v[row, :, at_each] = chunk.v.transpose(1, 2)[row, place]
        self.advance(chunk)

    def held(self) -> tuple[Tensor, Tensor]:
        """Return keys and values up to the end of the longest sequence."""
        return self.k.narrow(2, 0, self.longest), self.v.narrow(2, 0, self.longest)


class SlidingWindow(DecodeState):
    """The last keys and values, and the global tokens of the first chunk.

    The buffers hold twice what is looked at: tokens are written one behind the other, and moved to
    the front when the end is reached. So the window is a slice, and a step moves nothing.

    Args:
        made_by: see `DecodeState`.
        shape: see `DecodeState`.
        reach: tokens before the present one that are looked at.

    Attributes:
        reach: as given.
        end: one past the last token in the buffers; every sequence ends there.
        k: ``[B, H_kv, 2·(reach + 1), D]``.
        v: likewise.
        seen: bool ``[B, 2·(reach + 1)]``, True = takes part in the window: a token, not a global.
        globals: keys and values ``[B, H_kv, X, D]`` of the global tokens, and bool ``[B, X]``,
            False = this sequence has fewer; ``None`` = there are none.
    """

    sequence_axes: ClassVar[Mapping[str, int]] = {
        **DecodeState.sequence_axes, "k": 0, "v": 0, "seen": 0, "globals": 0
    }  # fmt: skip

    def __init__(self, made_by: str, shape: StateShape, *, reach: int) -> None:
        super().__init__(made_by, shape)
        self.reach, self.end = reach, 0
        room = 2 * (reach + 1)
        size = (shape.batch_size, shape.num_kv_heads, room, shape.head_dim)
        self.k, self.v = shape.zeros(*size), shape.zeros(*size)
        self.seen = shape.zeros(shape.batch_size, room, dtype=torch.bool)
        self.globals: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def is_full(self) -> bool:
        """Whether every token of the window takes part, in every sequence."""
        return self.globals is None and self.shortest > self.reach

    def append(self, chunk: Chunk, is_global: Tensor | None = None) -> None:
        """Write the keys and values of a chunk, of which the last `reach` + 1 are kept.

        Args:
            chunk: the tokens.
            is_global: bool ``[B, C]``, True = not a part of the window; or ``None``.
        """
        if chunk.is_even and chunk.size <= self.reach + 1:
            if self.end + chunk.size > 2 * (self.reach + 1):
                self._keep(self.end - self.reach - 1 + chunk.size)
            self.k.narrow(2, self.end, chunk.size).copy_(chunk.k)
            self.v.narrow(2, self.end, chunk.size).copy_(chunk.v)
            seen = self.seen.narrow(1, self.end, chunk.size)
            if is_global is None:
                seen.fill_(True)
            else:
                torch.logical_not(is_global, out=seen)
            self.end += chunk.size
        else:
            real = chunk.is_real
            self._write_last(chunk, real if is_global is None else real & ~is_global)
        self.advance(chunk)

    def _keep(self, first: int) -> None:
        """Move the tokens from `first` on to the front."""
        for buffer in (self.k, self.v):
            buffer[:, :, : self.end - first] = buffer[:, :, first : self.end].clone()
        self.seen[:, : self.end - first] = self.seen[:, first : self.end].clone()
        self.end -= first

    def _write_last(self, chunk: Chunk, seen: Tensor) -> None:
        """Put the last tokens of what is there and the chunk at the front, each sequence's own."""
        count = min(self.reach + 1, self.end + chunk.size)
        # Position in (what is there, the chunk) of the last tokens of each sequence.
        stop = self.end + chunk.counts[:, None]
        at = stop - count + torch.arange(count, device=stop.device)  # [B, count]
        absent = at < 0
        index = at.clamp_min(0)
        for buffer, new in ((self.k, chunk.k), (self.v, chunk.v)):
            both = torch.cat([buffer[:, :, : self.end], new], dim=2)
            where = index[:, None, :, None].expand(-1, both.shape[1], -1, both.shape[3])
            buffer[:, :, :count] = both.gather(2, where)
        both = torch.cat([self.seen[:, : self.end], seen], dim=1)
        self.seen[:, :count] = both.gather(1, index) & ~absent
        self.end = count


class RunningSums(DecodeState):
    """Sums over keys, as `attention.kernels.linear` carries them.

    Args:
        made_by: see `DecodeState`.
        shape: see `DecodeState`.
        rank: R, features.
        lowest: the stabiliser before any key.

    Attributes:
        s: ``Σ φ(k)vᵀ``, ``[B·H, R, D]``, float32 or wider.
        z: ``Σ φ(k)``, ``[B·H, R]``.
        top: the stabiliser, ``[B·H, R]``.
    """

    sequence_axes: ClassVar[Mapping[str, int]] = {
        **DecodeState.sequence_axes, "s": 0, "z": 0, "top": 0
    }  # fmt: skip

    def __init__(self, made_by: str, shape: StateShape, *, rank: int, lowest: float) -> None:
        super().__init__(made_by, shape)
        wide = torch.promote_types(shape.dtype, torch.float32)
        groups = shape.batch_size * shape.num_heads
        self.s = shape.zeros(groups, rank, shape.head_dim, dtype=wide)
        self.z = shape.zeros(groups, rank, dtype=wide)
        self.top = shape.zeros(groups, rank, dtype=wide).fill_(lowest)


class MatrixState(DecodeState):
    """A matrix a head, as `attention.kernels.recurrent` carries it.

    Attributes:
        s: S, ``[B, H, D, D_v]``, float32 or wider.
    """

    sequence_axes: ClassVar[Mapping[str, int]] = {**DecodeState.sequence_axes, "s": 0}

    def __init__(self, made_by: str, shape: StateShape) -> None:
        super().__init__(made_by, shape)
        wide = torch.promote_types(shape.dtype, torch.float32)
        size = (shape.batch_size, shape.num_heads, shape.head_dim, shape.v_dim)
        self.s = shape.zeros(*size, dtype=wide)
