"""One sequence cut over the ranks of a process group, and what they tell one another.

Each rank holds the tokens of its span, in the order of the ranks; spans may differ in length. All
transport is torch.distributed's (NCCL on CUDA, gloo on a CPU); every exchange can be
differentiated once, and its backward pass is an exchange too. So all ranks make the same calls in
the same order, and go backward together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from attention.checks import UnsupportedError
from attention.derivatives import must_be_plain

Wanted = Callable[[int], tuple[int, int]]
"""Which tokens a rank asks for, from the first to before the last; all ranks know of all."""


class Exchange:
    """What a rank knows of the others, and how it asks them.

    Args:
        length: tokens of this rank's part, at least 1.
        device: of the tensors that are exchanged.
        group: the ranks; ``None`` = all.
        agreed: what must be equal on all ranks, by name, as whole numbers; the same names on all.
        told: what the ranks tell one another beside it, by name; likewise.

    Attributes:
        told: what each rank told, by name.
        received: bytes that came from other ranks since, in both passes. An all-reduce counts as
            a ring moves it: ``2·(P - 1)/P`` of the tensor.

    Raises:
        RuntimeError: if torch.distributed has no process group.
    """

    def __init__(
        self,
        length: int,
        device: torch.device,
        group: dist.ProcessGroup | None = None,
        agreed: Mapping[str, int] | None = None,
        told: Mapping[str, int] | None = None,
    ) -> None:
        self.group = group
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)
        self.received = 0
        facts = {"length": length, **(told or {}), **(agreed or {})}
        row = torch.tensor([*facts.values()], dtype=torch.int64, device=device)
        every = [torch.empty_like(row) for _ in range(self.ranks)]
        dist.all_gather(every, row, group=group)
        columns = torch.stack(every, dim=1).tolist()
        self.told: dict[str, list[int]] = dict(zip(facts, columns, strict=True))
        self.agreed = tuple(agreed or ())
        ends = torch.tensor(self.told["length"]).cumsum(0).tolist()
        self.spans = list(zip([0, *ends[:-1]], ends, strict=True))
        self.start, self.stop = self.spans[self.rank]
        self.total_length: int = ends[-1]

    def check_agreed(self) -> None:
        """Check that the ranks agree; where they do not, all of them raise.

        Raises:
            ValueError: naming the first thing in which they differ, and what each has.
        """
        for name in self.agreed:
            if len(set(self.told[name])) > 1:
                raise ValueError(f"{name}: expected the same on all ranks, got {self.told[name]}")

    # -- differentiable ---------------------------------------------------------------------------

    def fetch(self, x: Tensor, wanted: Wanted) -> Tensor:
        """Return the tokens that this rank asks for, wherever they lie.

        Args:
            x: this rank's part ``[B, h, n, D]``.
            wanted: of each rank.

        Returns:
            ``[B, h, last - first, D]``.
        """
        out: Tensor = _Fetch.apply(x, self, wanted)  # type: ignore[no-untyped-call]
        return out

    def gather(self, x: Tensor) -> Tensor:
        """Return what every rank gives, equal in shape: ``[P, ...]``."""
        out: Tensor = _Gather.apply(x, self)  # type: ignore[no-untyped-call]
        return out

    def total(self, x: Tensor) -> Tensor:
        """Return the sum over all ranks (all-reduce)."""
        out: Tensor = _Total.apply(x, self)  # type: ignore[no-untyped-call]
        return out

    # -- not differentiated -----------------------------------------------------------------------

    def fetch_mask(self, mask: Tensor | None, wanted: Wanted) -> Tensor | None:
        """Return `fetch` of a bool mask ``[B, n]``; None of none."""
        if mask is None:
            return None
        return self.fetch(mask.to(torch.uint8)[:, None, :, None], wanted)[:, 0, :, 0].bool()

    def largest(self, x: Tensor) -> Tensor:
        """Return the element-wise largest of all ranks (all-reduce)."""
        x = x.detach().clone()
        self._reduce(x, dist.ReduceOp.MAX)
        return x

    # -- transport --------------------------------------------------------------------------------

    def swap(self, sent: dict[int, Tensor], expected: dict[int, Tensor]) -> None:
        """Send tensors to ranks, and fill those that come from ranks."""
        operations = []
        for kind, tensors in ((dist.isend, sent), (dist.irecv, expected)):
            operations += [
                dist.P2POp(kind, x, group=self.group, group_peer=rank)
                for rank, x in tensors.items()
                if x.numel()
            ]
        self.received += sum(x.numel() * x.element_size() for x in expected.values())
        if operations:
            for work in dist.batch_isend_irecv(operations):
                work.wait()

    def _reduce(self, x: Tensor, how: Any) -> None:
        dist.all_reduce(x, op=how, group=self.group)
        self.received += 2 * (self.ranks - 1) * x.numel() * x.element_size() // self.ranks

    def others(self) -> list[int]:
        """Return the other ranks."""
        return [rank for rank in range(self.ranks) if rank != self.rank]

    def overlap(self, holder: int, asked: tuple[int, int]) -> slice:
        """Return which of the tokens that a rank holds are asked for, counted in its part."""
        start, stop = self.spans[holder]
        first = min(max(asked[0], start), stop)
        return slice(first - start, max(first, min(asked[1], stop)) - start)


@dataclass
class Part:
    """A rank's part of one attention call, checked.

    Attributes:
        q: ``[B, H, n, D]``.
        k: ``[B, H_kv, n, D]``.
        v: ``[B, H_kv, n, D]``.
        exchange: the way to the other parts.
        is_causal: as in `Attention.forward`, over the whole sequence.
        key_padding_mask: bool ``[B, n]``, True = this key takes part; or ``None``.
        call_inputs: those that the backend declares, of this part.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    exchange: Exchange
    is_causal: bool = False
    key_padding_mask: Tensor | None = None
    call_inputs: dict[str, Any] = field(default_factory=dict)

    @property
    def own_keys(self) -> Tensor:
        """Which of the part's keys take part: bool ``[B, n]``."""
        if self.key_padding_mask is not None:
            return self.key_padding_mask
        return torch.ones(self.k.shape[0], self.k.shape[2], dtype=torch.bool, device=self.k.device)

    def fetch_keys(self, wanted: Wanted) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return keys, values and padding mask of the tokens that are asked for."""
        both = self.exchange.fetch(torch.cat([self.k, self.v], dim=1), wanted)
        k, v = both.split(self.k.shape[1], dim=1)
        return k, v, self.exchange.fetch_mask(self.key_padding_mask, wanted)


def check_first_derivative(grad: Tensor) -> None:
    """Refuse what would not be an exchange again: gradients that are differentiated.

    Raises:
        UnsupportedError: if the backward pass makes a graph.
    """
    if must_be_plain(grad):
        raise UnsupportedError(
            "create_graph: a sequence cut over ranks has first derivatives only; accepted is False"
        )


class _Fetch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, exchange: Exchange, wanted: Wanted) -> Tensor:
        ctx.exchange, ctx.wanted, ctx.shape = exchange, wanted, x.shape
        rank = exchange.rank
        first, last = wanted(rank)
        out = x.new_empty(*x.shape[:2], last - first, x.shape[3])
        parts = _parts(exchange, wanted, out)
        sent = {
            other: x[:, :, exchange.overlap(rank, wanted(other))].contiguous()
            for other in exchange.others()
        }
        expected = {other: torch.empty_like(parts[other]) for other in exchange.others()}
        exchange.swap(sent, {rank: x.contiguous() for rank, x in expected.items()})
        parts[rank].copy_(x[:, :, exchange.overlap(rank, (first, last))])
        for other, got in expected.items():
            parts[other].copy_(got)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        check_first_derivative(grad)
        exchange, wanted = ctx.exchange, ctx.wanted
        rank = exchange.rank
        parts = _parts(exchange, wanted, grad)
        grad_x = grad.new_zeros(ctx.shape)
        at = {other: exchange.overlap(rank, wanted(other)) for other in range(exchange.ranks)}
        expected = {
            other: grad.new_empty(grad_x[:, :, at[other]].shape) for other in exchange.others()
        }
        sent = {other: parts[other].contiguous() for other in exchange.others()}
        exchange.swap(sent, expected)
        grad_x[:, :, at[rank]] += parts[rank]
        for other, got in expected.items():
            grad_x[:, :, at[other]] += got
        return grad_x, None, None


def _parts(exchange: Exchange, wanted: Wanted, x: Tensor) -> Sequence[Tensor]:
    """Cut what a rank asked for by who holds it."""
    asked = wanted(exchange.rank)
    held = [exchange.overlap(holder, asked) for holder in range(exchange.ranks)]
    parts: Sequence[Tensor] = x.split([at.stop - at.start for at in held], dim=2)
    return parts


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        x = x.contiguous()
        out = x.new_empty(exchange.ranks, *x.shape)
        out[exchange.rank] = x
        others = exchange.others()
        exchange.swap(dict.fromkeys(others, x), {other: out[other] for other in others})
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        check_first_derivative(grad)
        exchange: Exchange = ctx.exchange
        grad = grad.contiguous()
        others = exchange.others()
        got = torch.empty_like(grad)
        got[exchange.rank] = grad[exchange.rank]
        exchange.swap(
            {other: grad[other] for other in others}, {other: got[other] for other in others}
        )
        return got.sum(dim=0), None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        x = x.clone(memory_format=torch.contiguous_format)
        exchange._reduce(x, dist.ReduceOp.SUM)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        check_first_derivative(grad)
        grad = grad.clone(memory_format=torch.contiguous_format)
        ctx.exchange._reduce(grad, dist.ReduceOp.SUM)
        return grad, None
