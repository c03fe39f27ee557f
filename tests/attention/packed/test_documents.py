"""Lengths of packed documents: the forms they come in, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from attention import Packed

LENGTHS = (3, 1, 4)


@pytest.mark.parametrize(
    "made",
    [
        lambda: Packed.from_cu_seqlens([0, 3, 4, 8]),
        lambda: Packed.from_cu_seqlens(Packed(LENGTHS).cu_seqlens),
        lambda: Packed.from_segment_ids(torch.tensor([7, 7, 7, 2, 9, 9, 9, 9])),
        lambda: Packed.from_segment_ids(Packed(LENGTHS).segment_ids),
        lambda: Packed.from_position_ids([0, 1, 2, 0, 0, 1, 2, 3]),
        lambda: Packed.from_position_ids(Packed(LENGTHS).positions),
    ],
)
def test_every_form_gives_the_lengths(made: Callable[[], Packed]) -> None:
    assert made() == Packed(LENGTHS)
    assert hash(made()) == hash(Packed(LENGTHS))


def test_an_empty_document_keeps_its_place() -> None:
    packed = Packed.from_cu_seqlens([0, 2, 2, 5])
    assert packed.lengths == (2, 0, 3)
    assert packed.cu_seqlens.tolist() == [0, 2, 2, 5]
    assert packed.segment_ids.tolist() == [[0, 0, 2, 2, 2]]
    assert packed.positions.tolist() == [[0, 1, 0, 1, 2]]
    assert [part.shape[1] for part in packed.split(torch.zeros(1, 5))] == [2, 0, 3]


@pytest.mark.parametrize("shape", [(), (1,), (1, 2)])
def test_split_undoes_pack(shape: tuple[int, ...]) -> None:
    more = (6,) if shape else ()
    parts = [torch.randn(*shape, length, *more) for length in LENGTHS]
    row = Packed(LENGTHS).pack(parts)
    assert row.shape == (*(shape or (1,)), 8, *more)
    for part, again in zip(parts, Packed(LENGTHS).split(row), strict=True):
        assert torch.equal(part.view_as(again), again)


@pytest.mark.parametrize(
    ("ask", "error", "named"),
    [
        (lambda: Packed(torch.tensor([3, 4])), TypeError, "lengths: expected a list"),
        (lambda: Packed([3, 1.5]), TypeError, r"lengths\[1\]"),
        (lambda: Packed([3, -1]), ValueError, r"lengths\[1\]: expected at least 0, got -1"),
        (lambda: Packed([0, 0]), ValueError, "lengths: expected at least one token"),
        (lambda: Packed.from_cu_seqlens([1, 4]), ValueError, r"cu_seqlens: .* got \[1, 4\]"),
        (lambda: Packed.from_cu_seqlens([0, 4, 3]), ValueError, "cu_seqlens"),
        (lambda: Packed.from_cu_seqlens([0]), ValueError, "cu_seqlens"),
        (lambda: Packed.from_segment_ids([0, 1, 0]), ValueError, "segment_ids: .* got 0 in two"),
        (lambda: Packed.from_position_ids([0, 2]), ValueError, "position_ids: .* 0, then 2"),
        (lambda: Packed.from_position_ids([5, 6]), ValueError, "position_ids: .* the first 5"),
        (lambda: Packed.from_position_ids(torch.zeros(2, 3).long()), ValueError, "one row"),
        (lambda: Packed.from_position_ids(torch.zeros(3)), TypeError, "float32"),
        (lambda: Packed.from_segment_ids(torch.ones(3, device="meta").long()), ValueError, "meta"),
        (lambda: Packed([2]).pack([torch.zeros(3)]), ValueError, r"parts\[0\]: expected 2"),
        (lambda: Packed([2]).pack([]), ValueError, "parts: expected 1 tensors"),
        (lambda: Packed([2]).split(torch.zeros(1, 3)), ValueError, "x: expected 2 tokens"),
    ],
)
def test_what_does_not_fit_is_refused(
    ask: Callable[[], Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        ask()
