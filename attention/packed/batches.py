"""How a backend attends to packed documents: as the rows of few batches.

Documents of one length are the rows of a batch, and short ones of nearly one length too, padded;
the others get a call each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from attention.checks import UnsupportedError, autocasts, check_qkv
from attention.functional import has_values
from attention.packed.documents import Packed
from attention.problem import CallInput, Cost, Family, Mode, Problem, Supports

MOST_SCORES = {"cpu": 2**18}
"""Query-key pairs of all heads in one batch, by device: what a cache holds, or fills a GPU."""
MOST_PADDING = {"cpu": 2**17}
"""Pairs, times heads and channels, that padding may add to a document: computed in less time than
a call costs."""
ELSEWHERE = {"scores": 2**27, "padding": 2**27}
CHEAP_CALLS = {("cpu", "dense")}
"""Devices and families of which a call costs less than to copy a document into a batch."""


class Backend(Protocol):
    """What is asked of a backend here; `attention.base.Attention` has it."""

    family: ClassVar[Family]
    supports: ClassVar[Supports]
    rows_apart: ClassVar[bool]
    call_inputs: ClassVar[Mapping[str, CallInput]]
    num_heads: int
    head_dim: int

    def unsupported_reasons(self, problem: Problem) -> list[str]:
        """Say why a call would be refused."""

    def check_call_inputs(self, q: Tensor, k: Tensor, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the declared extra inputs, validated."""

    def cost(self, problem: Problem, mode: Mode) -> Cost:
        """Count what a call must do."""

    @property
    def attend(self) -> Callable[..., Tensor]:
        """Attend, without checks."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **asked: Any) -> Any:
        """Check the call, then attend."""


@dataclass(frozen=True)
class Batch:
    """Documents that are computed as the rows of one batch.

    Attributes:
        documents: their numbers, from 0 on.
        width: tokens of the longest of them.
        is_padded: whether one is shorter.
        is_run: whether they stand one behind another, so that nothing need be copied.
    """

    documents: tuple[int, ...]
    width: int
    is_padded: bool
    is_run: bool


def batches(lengths: Sequence[int], *, most_pairs: int, most_padding: int | None) -> list[Batch]:
    """Say which documents are computed together; empty ones are left out.

    Args:
        lengths: of all documents.
        most_pairs: query-key pairs of one head in a batch of several documents.
        most_padding: pairs that padding may add to a document; 0 = equal lengths alone; ``None`` =
            those that stand one behind another alone, so that none is copied.
    """
    order = [at for at, length in enumerate(lengths) if length]
    if most_padding is not None:
        order.sort(key=lambda at: (-lengths[at], at))
    groups: list[list[int]] = []
    for at in order:
        width = lengths[groups[-1][0]] if groups else 0
        fits = bool(groups) and (len(groups[-1]) + 1) * width**2 <= most_pairs
        if most_padding is None:
            fits = fits and lengths[at] == width and groups[-1][-1] == at - 1
        if fits and width**2 - lengths[at] ** 2 <= (most_padding or 0):
            groups[-1].append(at)
        else:
            groups.append([at])
    made = []
    for group in groups:
        width, is_padded = lengths[group[0]], lengths[group[-1]] < lengths[group[0]]
        group.sort()
        is_run = not is_padded and group[-1] - group[0] == len(group) - 1
        made.append(Batch(tuple(group), width, is_padded, is_run))
    return made


def attend_packed(
    backend: Backend,
    packed: Packed,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    is_causal: bool,
    key_padding_mask: Tensor | None,
    return_lse: bool,
    **call_inputs: Any,
) -> Any:
    """Attend to each document by itself; arguments, results and errors as of a backend's call."""
    if not isinstance(packed, Packed):
        raise TypeError(f"packed: expected attention.Packed(lengths), got {type(packed).__name__}")
    q, k, v = check_qkv(q, k, v, num_heads=backend.num_heads, head_dim=backend.head_dim)
    packed.check_row(q.shape[0], q.shape[2])
    if k.shape[2] != q.shape[2]:
        raise ValueError(
            f"packed: documents attend to themselves; expected as many keys as queries, "
            f"got N={q.shape[2]}, M={k.shape[2]}"
        )
    if key_padding_mask is not None:
        raise ValueError("key_padding_mask: packed documents hold no padding; expected None")
    if not isinstance(is_causal, bool):
        raise TypeError(f"is_causal: expected a bool, got {type(is_causal).__name__}")
    extra = backend.check_call_inputs(q, k, call_inputs)
    problem = Problem.of(q, k, is_causal=is_causal, value_dim=v.shape[3])
    for length in sorted({*packed.lengths} - {0}, reverse=True):
        if reasons := backend.unsupported_reasons(_of_length(problem, length)):
            raise UnsupportedError(f"packed: a document of {length} tokens: {'; '.join(reasons)}")
    parts = _plan(backend, packed, problem)
    ask = functools.partial(backend.forward, is_causal=is_causal, return_lse=return_lse)
    if len(parts) == 1 and len(parts[0].documents) == 1:
        return ask(q, k, v, **extra)
    attend = functools.partial(backend.attend, is_causal=is_causal)
    is_plain = k.shape == v.shape and not (extra or return_lse or autocasts(q.device.type))
    checked = is_plain and has_values(q)  # `forward` has nothing to add
    of_batches = [_cut(x, packed.lengths, parts, 2) for x in (q, k, v)]
    of_inputs = _cut_inputs(backend, extra, packed.lengths, parts)
    outs = []
    for at, part in enumerate(parts):
        mask = None
        if part.is_padded and not _ignores_later(backend, is_causal):
            ends = torch.tensor([packed.lengths[document] for document in part.documents])
            mask = (torch.arange(part.width) < ends[:, None]).to(q.device)
        given = {name: of[at] for name, of in of_inputs.items()}
        call = attend if checked and mask is None else ask
        outs.append(call(*(x[at] for x in of_batches), key_padding_mask=mask, **given))
    if not return_lse:
        return _in_order(outs, packed.lengths, parts)
    return tuple(_in_order(list(same), packed.lengths, parts) for same in zip(*outs, strict=True))


def packed_cost(backend: Backend, packed: Packed, problem: Problem, mode: Mode) -> Cost:
    """Count what a packed call must do: the documents by themselves, as they are batched.

    Args:
        backend: whose call.
        packed: the documents.
        problem: the call on the whole row.
        mode: forward or training.

    Raises:
        ValueError: if the row has another length, or is not one.
    """
    packed.check_row(problem.batch, problem.seq_len)
    cost = functools.cache(lambda asked: backend.cost(asked, mode))
    each = [cost(_of_length(problem, length)) for length in packed.lengths if length]
    ran = []
    for part in _plan(backend, packed, problem):
        masked = part.is_padded and not _ignores_later(backend, problem.is_causal)
        asked = _of_length(problem, part.width, rows=len(part.documents))
        ran.append(cost(replace(asked, key_padding=masked)).executed_ops)
    return Cost(
        pattern_ops=sum(c.pattern_ops for c in each),
        executed_ops=sum(ran),
        exponentials=sum(c.exponentials for c in each),
        bytes=sum(c.bytes for c in each),
    )


def _plan(backend: Backend, packed: Packed, problem: Problem) -> list[Batch]:
    """Say how a call is computed; padded only where that is served exactly."""
    device = problem.device
    heads, width = problem.num_heads, problem.num_heads * problem.head_dim
    most_pairs = MOST_SCORES.get(device, ELSEWHERE["scores"]) // heads
    most_padding: int | None = MOST_PADDING.get(device, ELSEWHERE["padding"]) // width
    masked = replace(problem, key_padding=True)
    if (device, backend.family) in CHEAP_CALLS:
        most_padding = None
    elif not _ignores_later(backend, problem.is_causal) and (
        backend.rows_apart or backend.unsupported_reasons(masked)
    ):
        most_padding = 0
    return batches(packed.lengths, most_pairs=most_pairs, most_padding=most_padding)


def _ignores_later(backend: Backend, is_causal: bool) -> bool:
    """Whether tokens behind a document change nothing, masked or not.

    A causal query sees none of them, and what decodes with a state knows no length to come.
    """
    return is_causal and backend.supports.state


def _of_length(problem: Problem, length: int, rows: int = 1) -> Problem:
    return replace(problem, batch=rows, seq_len=length, key_len=length)


def _cut_inputs(
    backend: Backend, extra: Mapping[str, Any], lengths: Sequence[int], parts: Sequence[Batch]
) -> dict[str, list[Any]]:
    """Cut a call's further inputs into batches, by the axis of tokens of each kind."""
    made: dict[str, list[Any]] = {}
    for name, value in extra.items():
        if isinstance(value, tuple):
            cut = [_cut(x, lengths, parts, 2) for x in value]
            made[name] = list(zip(*cut, strict=True))
        else:
            axis = 1 if backend.call_inputs[name].kind == "token_mask" else 2
            made[name] = _cut(value, lengths, parts, axis)
    return made


def _cut(x: Tensor, lengths: Sequence[int], parts: Sequence[Batch], axis: int) -> list[Tensor]:
    """Cut ``[1, …, N, …]`` into batches ``[documents, …, width, …]``; views, where they can be.

    One split, since a slice a document would have a gradient of all N tokens each.
    """
    first = {part.documents[0]: part for part in parts if part.is_run}
    inner = {at for part in parts if part.is_run for at in part.documents[1:]}
    heads = [at for at, length in enumerate(lengths) if length and at not in inner]
    sizes = [
        first[at].width * len(first[at].documents) if at in first else lengths[at] for at in heads
    ]
    pieces = dict(zip(heads, x.split(sizes, dim=axis), strict=True))
    made = []
    for part in parts:
        row = pieces[part.documents[0]]
        if len(part.documents) == 1:
            made.append(row)
            continue
        if not part.is_run:
            several = []
            for at in part.documents:
                several.append(pieces[at])
                if lengths[at] < part.width:
                    shape = [*pieces[at].shape]
                    shape[axis] = part.width - lengths[at]
                    several.append(x.new_zeros(shape))
            row = torch.cat(several, dim=axis)
        rows = row.unflatten(axis, (len(part.documents), part.width))
        made.append(rows.movedim(axis, 0).squeeze(1))
    return made


def _in_order(outs: Sequence[Tensor], lengths: Sequence[int], parts: Sequence[Batch]) -> Tensor:
    """Put batches ``[documents, H, width, …]`` into one row ``[1, H, N, …]``."""
    if len(parts) == 1 and parts[0].is_run:
        return outs[0].transpose(0, 1).flatten(1, 2)[None]
    of: dict[int, Tensor] = {}
    for part, out in zip(parts, outs, strict=True):
        if len(part.documents) == 1:
            of[part.documents[0]] = out
            continue
        for at, row in zip(part.documents, out.unbind(0), strict=True):
            of[at] = row[None, :, : lengths[at]]
    return torch.cat([of[at] for at in sorted(of)], dim=2)
