"""Packed documents: their lengths, and the forms that others write them in."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attention.checks import check_int


class Packed:
    """Lengths of documents that stand one behind another in one row.

    A document may be empty, as in other people's lists of lengths; all together hold a token.

    Args:
        lengths: of the documents in tokens, whole numbers on the host: with a tensor's values,
            shapes would depend on the device.

    Raises:
        TypeError: if `lengths` is no list or tuple of whole numbers.
        ValueError: if one is negative, or all are 0.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        if not isinstance(lengths, list | tuple):
            raise TypeError(
                f"lengths: expected a list of whole numbers, got {type(lengths).__name__}"
            )
        self.lengths = tuple(
            check_int(f"lengths[{at}]", length, minimum=0) for at, length in enumerate(lengths)
        )
        if not sum(self.lengths):
            raise ValueError(f"lengths: expected at least one token in all, got {lengths}")

    @classmethod
    def from_cu_seqlens(cls, cu_seqlens: Tensor | Sequence[int]) -> Packed:
        """Take the places where documents start, and the end: ``[0, 512, 812, 1024]``.

        Raises:
            TypeError: if they are no whole numbers.
            ValueError: if there are fewer than two, the first is not 0, or one is below another.
        """
        places = _whole_numbers("cu_seqlens", cu_seqlens)
        lengths = [stop - start for start, stop in itertools.pairwise(places)]
        if len(places) < 2 or places[0] != 0 or min(lengths) < 0:
            raise ValueError(
                "cu_seqlens: expected 0, then the end of each document, none below the one "
                f"before, got {_shown(places)}"
            )
        return cls(lengths)

    @classmethod
    def from_segment_ids(cls, segment_ids: Tensor | Sequence[int]) -> Packed:
        """Take the document's number of each token, ``[N]`` or ``[1, N]``: ``[0, 0, 0, 1, 1]``.

        Whatever the numbers are, padding's too: a run of one number is a document.

        Raises:
            TypeError: if they are no whole numbers.
            ValueError: if there is more than one row, or a number comes back after another.
        """
        ids = _whole_numbers("segment_ids", segment_ids)
        runs = [(key, len(list(run))) for key, run in itertools.groupby(ids)]
        seen: set[int] = set()
        for key, _ in runs:
            if key in seen:
                raise ValueError(
                    f"segment_ids: expected each document in one piece, got {key} in two"
                )
            seen.add(key)
        return cls([length for _, length in runs])

    @classmethod
    def from_position_ids(cls, position_ids: Tensor | Sequence[int]) -> Packed:
        """Take each token's place in its document, ``[N]`` or ``[1, N]``: ``[0, 1, 2, 0, 1]``.

        Raises:
            TypeError: if they are no whole numbers.
            ValueError: if there is more than one row, or a place is neither 0 nor the next one.
        """
        places = _whole_numbers("position_ids", position_ids)
        starts = []
        for at, place in enumerate(places):
            if place == 0:
                starts.append(at)
            elif at == 0 or place != places[at - 1] + 1:
                before = "the first" if at == 0 else f"{places[at - 1]}, then"
                raise ValueError(
                    "position_ids: expected 0, 1, 2 … in each document, got "
                    f"{before} {place} (token {at})"
                )
        return cls([b - a for a, b in itertools.pairwise([*starts, len(places)])])

    @property
    def total(self) -> int:
        """N, the tokens of all documents."""
        return sum(self.lengths)

    @property
    def longest(self) -> int:
        """The tokens of the longest document."""
        return max(self.lengths)

    @property
    def cu_seqlens(self) -> Tensor:
        """Where documents start, and the end, int32 ``[documents + 1]``, on the CPU."""
        return torch.tensor([0, *itertools.accumulate(self.lengths)], dtype=torch.int32)

    @property
    def segment_ids(self) -> Tensor:
        """The document's number of each token, from 0 on, int64 ``[1, N]``, on the CPU."""
        numbers = torch.arange(len(self.lengths))
        return numbers.repeat_interleave(torch.tensor(self.lengths))[None]

    @property
    def positions(self) -> Tensor:
        """Each token's place in its document, from 0 on, int64 ``[1, N]``, on the CPU."""
        return torch.cat([torch.arange(length) for length in self.lengths])[None]

    def positions_of(self, x: Tensor) -> Tensor:
        """Return the positions for a row ``[1, N, …]``, on its device.

        Raises:
            ValueError: if it is not one row of N tokens.
        """
        self.check_row(x.shape[0], x.shape[1])
        return self.positions.to(x.device)

    def pack(self, parts: Sequence[Tensor], dim: int | None = None) -> Tensor:
        """Put the documents' tensors one behind another.

        Args:
            parts: a tensor a document: ids ``[L]`` or ``[1, L]``, hidden states ``[1, L, d]``, or
                queries ``[1, H, L, D]``.
            dim: the axis of tokens; ``None`` = the third of four, else the second.

        Returns:
            ``[1, N]``, ``[1, N, d]`` or ``[1, H, N, D]``.

        Raises:
            ValueError: if a document's tensor is missing or has another length.
        """
        if len(parts) != len(self.lengths):
            raise ValueError(
                f"parts: expected {len(self.lengths)} tensors, one a document, got {len(parts)}"
            )
        rows = [x[None] if x.dim() == 1 else x for x in parts]
        axis = _token_axis(rows[0]) if dim is None else dim
        for at, (x, length) in enumerate(zip(rows, self.lengths, strict=True)):
            if x.shape[axis] != length:
                raise ValueError(f"parts[{at}]: expected {length} tokens, got {tuple(x.shape)}")
        return torch.cat(rows, dim=axis)

    def split(self, x: Tensor, dim: int | None = None) -> list[Tensor]:
        """Undo `pack`: return a view of each document; arguments as there.

        Raises:
            ValueError: if `x` does not hold as many tokens.
        """
        axis = _token_axis(x) if dim is None else dim
        if x.shape[axis] != self.total:
            raise ValueError(f"x: expected {self.total} tokens, got {tuple(x.shape)}")
        return list(x.split(list(self.lengths), dim=axis))

    def check_row(self, batch: int, tokens: int) -> None:
        """Check that a batch is one row, of as many tokens.

        Raises:
            ValueError: if it is not.
        """
        if batch != 1:
            raise ValueError(
                f"packed: expected one row that holds all documents, got a batch of {batch}"
            )
        if tokens != self.total:
            raise ValueError(
                f"packed: its {len(self.lengths)} lengths add up to {self.total}, the row has "
                f"{tokens} tokens; expected as many"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and self.lengths == other.lengths

    def __hash__(self) -> int:
        return hash(self.lengths)

    def __repr__(self) -> str:
        return f"Packed({_shown(self.lengths)})"


def _whole_numbers(name: str, given: Any) -> list[int]:
    """Return the whole numbers of one row."""
    if isinstance(given, Tensor):
        if given.is_meta:
            raise ValueError(f"{name}: expected values, got a tensor on meta, which has none")
        if given.is_floating_point() or given.dtype == torch.bool:
            raise TypeError(f"{name}: expected whole numbers, got {given.dtype}")
        row = given[0] if given.dim() == 2 and given.shape[0] == 1 else given
        if row.dim() != 1:
            raise ValueError(f"{name}: expected one row, got {tuple(given.shape)}")
        given = row.tolist()
    if not isinstance(given, list | tuple):
        raise TypeError(f"{name}: expected whole numbers, got {type(given).__name__}")
    return [check_int(f"{name}[{at}]", x, minimum=0) for at, x in enumerate(given)]


def _token_axis(x: Tensor) -> int:
    return 2 if x.dim() == 4 else 1


def _shown(numbers: Sequence[int]) -> str:
    """Write a few of them."""
    text = ", ".join(map(str, numbers[:8]))
    return f"[{text}, … {len(numbers)} in all]" if len(numbers) > 8 else f"[{text}]"
