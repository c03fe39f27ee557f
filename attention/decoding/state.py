"""Decode states: what a backend keeps of the tokens it has seen, so that one more costs little.

A state belongs to a batch of sequences, each with a length of its own. Tokens come in chunks of
any size (`attention.decoding.mixin.Decoding.prefill`) or one at a time (`step`); the padding of a chunk
never enters a state. Three kinds of memory are enough for all backends:

- `KeyValueCache`: every key and value, for exact attention and for sparse patterns that reach back
  at random;
- `SlidingWindow`: the last keys and values, for windows, and the global tokens of the beginning;
- `RunningSums`: sums over keys, for kernel attention.

All tensors are allocated when the state is made. States keep no graph: decoding is inference.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from attention.functional import real_first


@dataclass(frozen=True)
class StateShape:
    """What a state is made for.

    Attributes:
        batch_size: B.
        max_len: the most tokens of a sequence; ``None`` = no end, where the size of the state does
            not depend on it.
        num_heads: H.
        num_kv_heads: H_kv.
        head_dim: D.
        dtype: of keys and values.
        device: where it lives.
    """

    batch_size: int
    max_len: int | None
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    def zeros(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Make a zero tensor that may be written to in and out of inference mode."""
        with torch.inference_mode(mode=False):
            return torch.zeros(shape, dtype=dtype or self.dtype, device=self.device)


@dataclass(frozen=True, eq=False)
class Mark:
    """A place to go back to; made by `DecodeState.mark`.

    Attributes:
        state: whose it is.
        serial: which of its marks; a later one has a larger number.
        content: what the state held there.
    """

    state: DecodeState
    serial: int
    content: Mapping[str, Any]


class DecodeState:
    """What a backend keeps of a batch of sequences; made by `Attention.init_state`.

    Attributes:
        append_only: names of tensors that tokens are only ever written behind the others of: a
            mark needs no copy of them.
        sequence_axes: names of tensors, or tuples of them, that hold something of every sequence,
            and along which axis: a sequence's heads may lie there, one after the other.
        made_by: the backend with its options and draws, as it shows itself.
        shape: what the state was made for.
        lengths: tokens seen of each sequence, int64 ``[B]``.
        shortest: the least of them.
        longest: the largest of them.
    """

    append_only: ClassVar[frozenset[str]] = frozenset()
    sequence_axes: ClassVar[Mapping[str, int]] = {"lengths": 0}

    def __init__(self, made_by: str, shape: StateShape) -> None:
        self.made_by, self.shape = made_by, shape
        self.lengths = shape.zeros(shape.batch_size, dtype=torch.int64)
        self.shortest = self.longest = 0
        # Those that can be gone back to, as long as somebody holds them: a mark that nobody can
        # hand back takes no room here.
        self._marks: weakref.WeakSet[Mark] = weakref.WeakSet()
        self._made = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave the marks out: they are of this state, and no copy's."""
        return {name: value for name, value in vars(self).items() if name != "_marks"}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Take what was kept, without a mark."""
        vars(self).update(kept)
        self._marks = weakref.WeakSet()

    @property
    def is_even(self) -> bool:
        """Whether all sequences are of the same length."""
        return self.shortest == self.longest

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of the state."""
        held = [x if isinstance(x, tuple) else (x,) for x in vars(self).values()]
        return sum(x.nbytes for part in held for x in part if isinstance(x, Tensor))

    def advance(self, chunk: Chunk) -> None:
        """Count the tokens of a chunk as seen."""
        self.count(chunk.size, None if chunk.is_even else chunk.counts)

    def count(self, size: int, counts: Tensor | None = None) -> None:
        """Count tokens as seen: `size` of each sequence, or as many as `counts` ``[B]`` says."""
        if counts is None:
            self.lengths.add_(size)
            self.shortest += size
            self.longest += size
        else:
            self.lengths += counts
            self.shortest, self.longest = int(self.lengths.min()), int(self.lengths.max())

    def select(self, indices: Tensor) -> None:
        """Keep these sequences, in this order, in place: what a beam search does at each step.

        Args:
            indices: which, int64 ``[B']``, on the state's device. One may come several times or
                not at all, so that the batch may grow or shrink.

        The marks that there are hold other sequences: none of them can be gone back to.

        Raises:
            TypeError: if it is no tensor of int64.
            ValueError: if its shape or an index does not fit.
        """
        index = check_indices(indices, self.shape.batch_size)
        for name, axis in self.sequence_axes.items():
            held = getattr(self, name)
            if isinstance(held, tuple):
                setattr(self, name, tuple(self._of(x, axis, index) for x in held))
            elif held is not None:
                setattr(self, name, self._of(held, axis, index))
        if not self.is_even:
            self.shortest, self.longest = int(self.lengths.min()), int(self.lengths.max())
        self.shape = replace(self.shape, batch_size=len(index))
        self._marks.clear()

    def _of(self, x: Tensor, axis: int, index: Tensor) -> Tensor:
        """Return what a tensor holds of some sequences, as one that may be written to."""
        with torch.inference_mode(mode=False), torch.no_grad():
            apart = x.unflatten(axis, (self.shape.batch_size, -1))
            chosen: Tensor = apart.index_select(axis, index).flatten(axis, axis + 1)
            return chosen

    def mark(self) -> Mark:
        """Remember where the state is, for `rewind`: to take tokens back that came after.

        It costs a copy of the state where that has one size, and hardly anything for a cache.
        """
        kept = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
            if name not in (*self.append_only, "_marks", "_made")
        }
        mark = Mark(self, self._made, kept)
        self._marks.add(mark)
        self._made += 1
        return mark

    def rewind(self, mark: Mark) -> None:
        """Go back to a mark, in place; as often as you like.

        Raises:
            ValueError: if the mark is another state's, or is later than one that the state went
                back to since, or than a `select`: what was there is no longer held.
        """
        if mark.state is not self:
            raise ValueError(f"mark: of another state, made by {mark.state.made_by}")
        if mark not in self._marks:
            raise ValueError(
                "mark: later than one that the state went back to since, or than its sequences; "
                "its tokens are gone"
            )
        for name, value in mark.content.items():
            held = getattr(self, name)
            if isinstance(value, Tensor) and isinstance(held, Tensor):
                held.copy_(value)
            else:
                setattr(self, name, value)
        for later in [other for other in self._marks if other.serial > mark.serial]:
            self._marks.discard(later)


class KeyValueCache(DecodeState):
    """All keys and values.

    Attributes:
        k: ``[B, H_kv, max_len, D]``; sequence b holds ``lengths[b]`` of them.
        v: likewise.
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
        size = (shape.batch_size, shape.num_kv_heads, shape.max_len, shape.head_dim)
        self.k, self.v = shape.zeros(*size), shape.zeros(*size)

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
        **DecodeState.sequence_axes,
        "k": 0,
        "v": 0,
        "seen": 0,
        "globals": 0,
    }

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
        kept = min(self.reach + 1, self.end + chunk.size)
        # Position in (what is there, the chunk) of the last tokens of each sequence.
        stop = self.end + chunk.counts[:, None]
        at = stop - kept + torch.arange(kept, device=stop.device)  # [B, kept]
        absent = at < 0
        index = at.clamp_min(0)
        for buffer, new in ((self.k, chunk.k), (self.v, chunk.v)):
            both = torch.cat([buffer[:, :, : self.end], new], dim=2)
            where = index[:, None, :, None].expand(-1, both.shape[1], -1, both.shape[3])
            buffer[:, :, :kept] = both.gather(2, where)
        both = torch.cat([self.seen[:, : self.end], seen], dim=1)
        self.seen[:, :kept] = both.gather(1, index) & ~absent
        self.end = kept


class RunningSums(DecodeState):
    """Sums over keys, as `attention.kernels.linear_tiled` carries them.

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
        **DecodeState.sequence_axes,
        "s": 0,
        "z": 0,
        "top": 0,
    }

    def __init__(self, made_by: str, shape: StateShape, *, rank: int, lowest: float) -> None:
        super().__init__(made_by, shape)
        wide = torch.promote_types(shape.dtype, torch.float32)
        groups = shape.batch_size * shape.num_heads
        self.s = shape.zeros(groups, rank, shape.head_dim, dtype=wide)
        self.z = shape.zeros(groups, rank, dtype=wide)
        self.top = shape.zeros(groups, rank, dtype=wide).fill_(lowest)


def check_indices(indices: Any, batch_size: int) -> Tensor:
    """Check which sequences of a batch are chosen: int64 ``[B']``, from 0 on, below `batch_size`.

    Raises:
        TypeError: if it is no tensor of int64.
        ValueError: if its shape or an index does not fit.
    """
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64:
        found = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
        raise TypeError(f"indices: expected a tensor of int64, got {found}")
    if indices.dim() != 1 or not len(indices):
        raise ValueError(f"indices: expected [B'] with at least one, got {tuple(indices.shape)}")
    low, high = (int(x) for x in torch.aminmax(indices))
    if low < 0 or high >= batch_size:
        raise ValueError(
            f"indices: expected sequences from 0 to {batch_size - 1}, got "
            f"{low if low < 0 else high}"
        )
    return indices


# -- chunks --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Chunk:
    """The tokens of one call, the real ones of each sequence first.

    Attributes:
        q: ``[B, H, C, D]``.
        k: ``[B, H_kv, C, D]``.
        v: ``[B, H_kv, C, D]``.
        size: C.
        mask: bool ``[B, C]``, True = real; ``None`` = all tokens of all sequences are.
        order: where each token was in the call, int64 ``[B, C]``; ``None`` = where it is.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    size: int
    mask: Tensor | None = None
    order: Tensor | None = None

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Chunk:
        """Gather the real tokens of a call to the front.

        Args:
            q: ``[B, H, C, D]``.
            k: ``[B, H_kv, C, D]``.
            v: ``[B, H_kv, C, D]``.
            mask: bool ``[B, C]``, True = real, of which some are not; ``None`` = all are.
        """
        size = q.shape[2]
        if mask is None:
            return cls(q, k, v, size)
        order = real_first(mask)
        q, k, v = (gathered(x, order) for x in (q, k, v))
        return cls(q, k, v, size, mask.gather(1, order), order)

    @property
    def is_even(self) -> bool:
        """Whether all tokens of all sequences are real."""
        return self.mask is None

    @property
    def is_real(self) -> Tensor:
        """Which tokens are real, bool ``[B, C]``; where all are, made anew."""
        if self.mask is not None:
            return self.mask
        return torch.ones(self.q.shape[0], self.size, dtype=torch.bool, device=self.q.device)

    @property
    def counts(self) -> Tensor:
        """Real tokens of each sequence, int64 ``[B]``; made anew."""
        if self.mask is not None:
            return self.mask.sum(dim=1)
        return torch.full((self.q.shape[0],), self.size, device=self.q.device)

    def in_order(self, out: Tensor) -> Tensor:
        """Put an output ``[B, H, C, D]`` back to where its tokens were."""
        if self.order is None:
            return out
        return torch.zeros_like(out).scatter_(2, _index(out, self.order), out)

    def mask_in_order(self, mask: Tensor) -> Tensor:
        """Gather a mask of the call ``[B, C]`` as the tokens were."""
        return mask if self.order is None else mask.gather(1, self.order)


def gathered(x: Tensor, order: Tensor) -> Tensor:
    """Gather tokens of ``[B, h, C, D]`` by ``[B, C]``."""
    return x.gather(2, _index(x, order))


def _index(x: Tensor, order: Tensor) -> Tensor:
    return order[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])


def alike(state: DecodeState, chunk: Chunk) -> Iterator[tuple[Tensor, int, int]]:
    """Walk the sequences that have as many tokens, and get as many: (rows, tokens, new ones)."""
    if state.is_even and chunk.is_even:
        every = torch.arange(state.shape.batch_size, device=chunk.q.device)
        yield every, state.longest, chunk.size
        return
    pairs = torch.stack([state.lengths, chunk.counts], dim=1)
    kinds, member = torch.unique(pairs, dim=0, return_inverse=True)
    for kind, (length, count) in enumerate(kinds.tolist()):
        if count:
            yield torch.nonzero(member == kind)[:, 0], length, count


__all__ = [
    "Chunk",
    "DecodeState",
    "KeyValueCache",
    "Mark",
    "RunningSums",
    "SlidingWindow",
    "StateShape",
    "alike",
    "check_indices",
    "gathered",
]
