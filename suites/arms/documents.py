"""A row of documents: packed, or padded as the rows of a batch, as a case says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attention.packed import Packed
from attention.problem import Problem
from results.schema import Case
from suites.documents import documents_of


def check_documents(case: Case) -> None:
    """Check that a row of documents is of a case that has one."""
    if not case.packed:
        if case.padded:
            raise ValueError("padded: only beside packed; got it without")
        return
    fits = case.kind == "speed" and case.level == "attention" and case.mode != "decode"
    if not (fits and case.batch == 1 and case.key_len == case.seq_len):
        raise ValueError(
            "packed: expected kind speed, level attention, batch 1, as many keys as queries and "
            f"no decoding; got {case.kind}, {case.level}, {case.batch}, {case.key_len}, "
            f"{case.mode}"
        )
    documents_of(case.packed, case.seq_len, case.seed)


def packed_of(case: Case) -> Packed | None:
    """Return the documents of a case's row."""
    if not case.packed:
        return None
    return Packed(documents_of(case.packed, case.seq_len, case.seed))


def _padded(x: Tensor, packed: Packed) -> Tensor:
    """Put documents ``[1, H, N, …]`` into rows ``[documents, H, longest, …]``, zeros behind."""
    rows = x.new_zeros(len(packed.lengths), x.shape[1], packed.longest, *x.shape[3:])
    for row, part in zip(rows, packed.split(x), strict=True):
        row[:, : part.shape[2]] = part[0]
    return rows


def longest_of(case: Case) -> int:
    """Return the longest sequence of a case."""
    packed = packed_of(case)
    return max(case.seq_len, case.key_len) if packed is None else packed.longest


def of_padded(problem: Problem, case: Case) -> Problem:
    """Return the call that documents make as padded rows; of others the call as it is."""
    packed = packed_of(case)
    if packed is None or not case.padded:
        return problem
    rows, tokens = len(packed.lengths), packed.longest
    return replace(problem, batch=rows, seq_len=tokens, key_len=tokens, key_padding=True)


def of_longest(problem: Problem, case: Case) -> Problem:
    """Return the call on the longest of packed documents, which decides what is supported."""
    packed = packed_of(case)
    if packed is None or case.padded:
        return problem
    return replace(problem, seq_len=packed.longest, key_len=packed.longest)


def as_documents(case: Case, drawn: list[Tensor]) -> tuple[list[Tensor], dict[str, Any]]:
    """Return the inputs of a case as its documents stand, and what an arm is asked beside them."""
    packed = packed_of(case)
    if packed is None:
        return drawn, {}
    if not case.padded:
        return drawn, {"packed": packed}
    mask = torch.arange(packed.longest) < torch.tensor(packed.lengths)[:, None]
    return [_padded(x, packed) for x in drawn], {"key_padding_mask": mask.to(case.device)}


def as_rows(case: Case, x: Tensor) -> Tensor:
    """Return numbers of each token as the documents of a case stand."""
    packed = packed_of(case)
    return x if packed is None or not case.padded else _padded(x, packed)


def one_document(case: Case) -> Callable[[Tensor], Tensor]:
    """Return what takes the longest document out of a case's tensors; the row itself if it is one.

    The reference knows one sequence, and the others are computed by the same calls.
    """
    packed = packed_of(case)
    if packed is None:
        return lambda x: x
    at = packed.lengths.index(packed.longest)
    if case.padded:
        return lambda x: x[at : at + 1]
    start = sum(packed.lengths[:at])
    return lambda x: x[:, :, start : start + packed.longest]
