"""Softmax attention over a plan of tiles by the compiled kernel, forward and backward.

The same function as `attention.kernels.tiled`, of float32; half precision is converted, and the
output and the gradients are rounded once. The forward pass keeps its inputs, its output and one
number a query; the backward pass computes the scores anew.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attention.derivatives import must_be_plain, plain_gradients
from attention.functional import opaque
from attention.kernels.compiled.library import Call, Matrix, library, reason_against
from attention.kernels.compiled.table import Table
from attention.kernels.tile_operands import LOG2_E
from attention.problem import Problem

WIDTH = 16
"""Widths D are padded to a multiple of it: the lanes of the widest registers."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INSTEAD = "; kernel='auto' serves it"

Plain = Callable[..., Tensor]


def compiled_reasons(problem: Problem, *, dropout_p: float) -> list[str]:
    """Say why the compiled kernel cannot serve a call; empty = it can.

    Args:
        problem: the call.
        dropout_p: probability of dropping an attention weight in this call.
    """
    reasons = []
    if problem.device not in ("cpu", "meta"):  # of meta tensors there is nothing to run
        reasons.append(f"kernel: compiled runs on cpu, not on {problem.device}{INSTEAD}")
    elif problem.device == "cpu" and (reason := reason_against()):
        reasons.append(reason + INSTEAD)
    if problem.dtype not in DTYPES:
        reasons.append(f"dtype: kernel 'compiled' takes float32, bfloat16, float16{INSTEAD}")
    if dropout_p:
        reasons.append(f"dropout_p: kernel 'compiled' drops no weight{INSTEAD}")
    return reasons


@opaque
def compiled_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Table, *, plain: Plain, scale: float,
    may_be_empty: bool, extra_k: Tensor | None = None, extra_v: Tensor | None = None,
    sink: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attend over the tiles of a table, whose group g is head ``g mod H`` of batch ``g // H``.

    Args:
        q: ``[B, H, N, D]``.
        k: ``[B, H_kv, M, D]``.
        v: ``[B, H_kv, M, D_v]``.
        table: the tiles.
        plain: the same function of ``(q, k, v, extra_k, extra_v, sink)`` by operations that
            autograd follows: second derivatives are taken of it.
        scale: factor on the scores.
        may_be_empty: whether a query may see no key; it then gives zeros.
        extra_k: keys that tiles name beside those of the sequence, ``[B, H_kv, X, D]``.
        extra_v: their values.
        sink: logits ``[H]`` that take part in each row's softmax.

    Returns:
        ``[B, H, N, D_v]``.
    """
    out: Tensor = _Compiled.apply(  # type: ignore[no-untyped-call]
        q, k, v, extra_k, extra_v, sink, table, plain, scale, may_be_empty
    )
    return out


class _Compiled(torch.autograd.Function):
    """Forward and backward of `compiled_attention`."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, extra_k: Tensor | None,
        extra_v: Tensor | None, sink: Tensor | None, table: Table, plain: Plain, scale: float,
        may_be_empty: bool,
    ) -> Tensor:  # fmt: skip
        ctx.table, ctx.plain, ctx.scale, ctx.may_be_empty = table, plain, scale, may_be_empty
        operands = [None if x is None else ready(x) for x in (q, k, v, extra_k, extra_v)]
        wide_q, wide_v = operands[0], operands[2]
        assert wide_q is not None
        assert wide_v is not None
        batch, heads, seq_len, _ = q.shape
        if wide_v.shape[3] == wide_q.shape[3]:
            out = torch.empty_like(wide_q)  # strides included: heads side by side stay so
        else:
            out = wide_q.new_empty(batch, seq_len, heads, wide_v.shape[3]).transpose(1, 2)
        log_totals = None
        if any(ctx.needs_input_grad):
            log_totals = wide_q.new_empty(batch, heads, seq_len)
        call = _Call(table, operands, sink, scale, may_be_empty)
        call.put(out=out)
        call.run("attend_forward", log_totals)
        out = out[..., : v.shape[3]]
        given = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, extra_k, extra_v, sink, out, log_totals)
        return given

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, out, log_totals = ctx.saved_tensors
        if must_be_plain(grad):
            return *plain_gradients(ctx.plain, tuple(inputs), grad), None, None, None, None
        sink: Tensor | None = inputs[5]
        operands = [None if x is None else ready(x) for x in inputs[:5]]
        wide_out, wide_grad = ready(out), ready(grad)
        call = _Call(ctx.table, operands, sink, ctx.scale, ctx.may_be_empty)
        made = call.gradients()
        call.put(out=wide_out, grad_out=wide_grad)
        call.run("attend_backward", log_totals)
        of_sink = None
        if sink is not None and ctx.needs_input_grad[5]:
            mean = (out.float() * grad.float()).sum(dim=3)  # [B, H, N]
            share = torch.exp2(sink.float()[:, None] * LOG2_E - log_totals)
            of_sink = -(share * mean).sum(dim=(0, 2)).to(sink.dtype)
        grads = [
            None if total is None or x is None else total[..., : x.shape[3]].to(x.dtype)
            for total, x in zip(call.summed(made), inputs, strict=False)
        ]
        return *grads, of_sink, None, None, None, None


class _Call:
    """A call of the kernel: holds what it points into until it has run."""

    def __init__(
        self, table: Table, operands: Sequence[Tensor | None], sink: Tensor | None, scale: float,
        may_be_empty: bool,
    ) -> None:  # fmt: skip
        q, k, v, extra_k, extra_v = operands
        assert q is not None
        assert k is not None
        assert v is not None
        self._table, self._operands = table, operands
        self._held: list[Any] = [table, operands]
        self._batch, self._heads, seq_len, dim = q.shape
        self._key_heads = k.shape[1]
        self._threads = torch.get_num_threads()
        call = self._call = Call(
            tiles=table.tiles.ctypes.data, segments=table.segments.ctypes.data,
            masks=table.masks.ctypes.data, num_tiles=len(table.tiles),
            may_be_empty=may_be_empty, heads=self._heads, sharing=self._heads // self._key_heads,
            queries=seq_len, dim=dim, value_dim=v.shape[3], most_rows=table.most_rows,
            most_columns=table.most_columns, scale_of_base_2=scale * LOG2_E, scale=scale,
        )  # fmt: skip
        if sink is not None:
            logits = (sink.detach().float() * LOG2_E).contiguous()
            self._held.append(logits)
            call.sink = logits.data_ptr()
        self.put(q=q, k=k, v=v, extra_k=extra_k, extra_v=extra_v)

    def put(self, **tensors: Tensor | None) -> None:
        """Say where tensors ``[B, heads, rows, dim]`` lie."""
        for name, x in tensors.items():
            if x is not None:
                self._held.append(x)
                setattr(self._call, name, matrix(x))

    def gradients(self) -> list[Tensor | None]:
        """Make room for the gradients: of keys and values one for each part, in zeros."""
        q, *others = self._operands
        assert q is not None
        groups = self._batch * self._heads
        shared = self._batch * self._key_heads
        # A part adds to gradients of its own. With few groups each is cut, so that all threads
        # have the same to do, and what its pieces added is added up.
        even = shared % self._threads == 0 or shared >= 4 * self._threads
        pieces = 1 if even else self._threads
        parts = self._table.parts(groups, self._heads // self._key_heads, pieces)
        self._held.append(parts)
        self._call.parts, self._call.num_parts = parts.ctypes.data, len(parts) - 1
        made: list[Tensor | None] = [torch.empty_like(q)]
        made += [
            None if x is None else x.new_zeros(shared * pieces, 1, *x.shape[2:]) for x in others
        ]
        names = ("grad_q", "grad_k", "grad_v", "grad_extra_k", "grad_extra_v")
        self.put(**dict(zip(names, made, strict=True)))
        return made

    def summed(self, made: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Add up the parts' gradients of keys and values: ``[B, H_kv, M, D]``."""
        of_q, *others = made
        shape = (self._batch, self._key_heads, -1)
        sums = [
            None if x is None else x.view(*shape, *x.shape[2:]).sum(dim=2)
            if x.shape[0] > self._batch * self._key_heads
            else x.view(*shape[:2], *x.shape[2:])
            for x in others
        ]  # fmt: skip
        return [of_q, *sums]

    def run(self, name: str, log_totals: Tensor | None) -> None:
        """Call a function of the kernel."""
        if log_totals is not None:
            self._held.append(log_totals)
            self._call.log_total = log_totals.data_ptr()
        if len(self._table.tiles):
            getattr(library(), name)(ctypes.byref(self._call), self._threads)


def matrix(x: Tensor) -> Matrix:
    """Say where ``[B, heads, rows, dim]`` lies."""
    return Matrix(x.data_ptr(), *x.stride()[:3])


def ready(x: Tensor) -> Tensor:
    """Return what the kernels can read: float32, rows contiguous, a multiple of `WIDTH` wide."""
    x = x.detach().float()
    if missing := -x.shape[3] % WIDTH:
        return F.pad(x, (0, missing))
    return x if x.stride(3) == 1 else x.contiguous()
