"""Decode states: what a backend keeps of the tokens it has seen, so that one more costs little.

A state belongs to a batch of sequences, each with a length of its own. Tokens come in chunks of
any size (`attention.decoding.mixin.Decoding.prefill`) or one at a time (`step`); the padding of a
chunk never enters a state. Three kinds of memory are enough for all backends:

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

from attention.checks import check_int
from attention.decoding.chunk import Chunk


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
        value_dim: D_v; 0 = D.
    """

    batch_size: int
    max_len: int | None
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    value_dim: int = 0

    @property
    def v_dim(self) -> int:
        """D_v, the width of values."""
        return self.value_dim or self.head_dim

    @classmethod
    def checked(
        cls,
        *,
        batch_size: int,
        max_len: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        **heads: int,
    ) -> StateShape:
        """Make one of a user's arguments; `heads` are the others, checked already.

        Raises:
            ValueError: if an argument is out of range.
            TypeError: if an argument is of the wrong type.
        """
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise TypeError(f"dtype: expected a floating-point dtype, got {dtype!r}")
        return cls(
            batch_size=check_int("batch_size", batch_size, minimum=1),
            max_len=None if max_len is None else check_int("max_len", max_len, minimum=1),
            dtype=dtype,
            device=torch.device(device),
            **heads,
        )

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

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        """Take what was kept, without a mark."""
        vars(self).update(attributes)
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
        content = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
            if name not in (*self.append_only, "_marks", "_made")
        }
        mark = Mark(self, self._made, content)
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


def check_indices(indices: Any, batch_size: int) -> Tensor:
    """Check which sequences of a batch are chosen: int64 ``[B']``, from 0 on, below `batch_size`.

    Raises:
        TypeError: if it is no tensor of int64.
        ValueError: if its shape or an index does not fit.
    """
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64:
        given = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
        raise TypeError(f"indices: expected a tensor of int64, got {given}")
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
    "Mark",
    "StateShape",
    "alike",
    "check_indices",
]
