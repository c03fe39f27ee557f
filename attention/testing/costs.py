"""Checks of what a backend declares to cost: operations, memory, time."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from attention.base import Attention
from attention.problem import Cost, Mode, Problem
from attention.testing.bench import (
    Bench,
    Inputs,
    NotAsked,
    Violation,
    described,
)


class _Largest(TorchDispatchMode):
    """Watches the tensors that operations make, forward and backward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out: Any = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.nbytes = max(self.nbytes, tensor.untyped_storage().nbytes())
        return out


def _held(bench: Bench, call: Inputs, mode: Mode) -> tuple[int, int]:
    """Return the bytes of the largest tensor made; of the inputs and what is kept beside them."""
    module = bench.build(call.k.shape[2]).to(torch.float32)
    leaves = [x.requires_grad_(mode == "training") for x in (call.q, call.k, call.v)]
    watch, saved = _Largest(), dict[int, int]()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    for leaf in leaves:  # kept in any case: a method that copies them keeps more by a factor
        keep(leaf)
    with watch, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = module(*leaves, **call.asks)
        if mode == "training":
            out.sum().backward()
    return watch.nbytes, sum(saved.values())


def check_hidden_memory(bench: Bench) -> None:
    """No tensor grows faster with the length than the declared memory."""
    declared = bench.cls.memory_exponent
    if declared >= 2:
        raise NotAsked("quadratic memory is declared")
    modes: tuple[Mode, ...] = ("forward", "training")
    for causal, padding, mode in itertools.product(bench.causals, bench.paddings, modes):
        small, large = (
            bench.inputs(n, is_causal=causal, padding=padding, dtype=torch.float32)
            for n in (1024, 4096)
        )
        held = zip(_held(bench, small, mode), _held(bench, large, mode), strict=True)
        what = ("the largest tensor", "what is kept for the backward pass")
        for name, (before, after) in zip(what, held, strict=True):
            exponent = math.log(after / before) / math.log(4) if before else 0.0
            if exponent > declared + 0.25:
                raise Violation(
                    f"{name} grows with N^{exponent:.2f} ({before} B at 1024, {after} B at "
                    f"4096; {mode}, is_causal={causal}, padding={padding}), declared "
                    f"{declared:g}",
                    bench.show(large, "# a tensor of N·N hides here"),
                )


def counted_ops(module: Attention, call: Inputs, mode: Mode) -> int:
    """Count the operations torch sees in one call, fused attention on its math path."""
    leaves = [x.detach().requires_grad_(mode == "training") for x in (call.q, call.k, call.v)]
    module.train()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = module(*leaves, **call.asks)
        if mode == "training":
            out.sum().backward()
    total: int = counter.get_total_flops()
    return total


def _problem(call: Inputs) -> Problem:
    return Problem.of(call.q, call.k, is_causal=call.is_causal)


def check_operations(bench: Bench) -> None:
    """Torch's counter of operations agrees with the declared cost."""
    # Torch's math path multiplies the hidden half of a causal matrix too, so where a dense method
    # hands causality to torch its count says nothing.
    dense_pairs = bench.cls.family == "dense" and bench.cls.supports.bidirectional
    causals = (False,) if dense_pairs else bench.causals
    for n, causal in itertools.product((65, 257, 700), causals):
        for mode in ("forward", "training"):
            call = bench.inputs(n, is_causal=causal, dtype=torch.float32)
            module = bench.build(n)
            cost: Cost = module.cost(_problem(call), mode)
            counted = counted_ops(module, call, mode)
            if counted == 0 and cost.executed_ops:
                raise NotAsked("torch's counter sees none of its operations (a pinned kernel)")
            if not 0.99 * cost.pattern_ops <= counted <= 1.01 * cost.executed_ops:
                raise Violation(
                    f"torch counts {counted} operations ({mode}, {described(call)}), declared "
                    f"{cost.pattern_ops} of the pattern, {cost.executed_ops} executed",
                    bench.show(call, f"print(m.cost(attention.Problem.of(q, k), {mode!r}))"),
                )


def check_ops_exponent(bench: Bench) -> None:
    """Executed operations grow with the length as declared."""
    lengths = (4096, 16384)
    counts = []
    for n in lengths:
        call = bench.inputs(n, batch=1, dtype=torch.float32)
        module = bench.build(n)
        cost = module.cost(_problem(call), "forward")
        counts.append(cost.executed_ops)
    exponent = math.log(counts[1] / counts[0]) / math.log(lengths[1] / lengths[0])
    if abs(exponent - bench.cls.time_exponent) > 0.1:
        raise Violation(
            f"executed operations grow with N^{exponent:.2f} from {lengths[0]} to {lengths[1]}, "
            f"declared {bench.cls.time_exponent:g}",
            bench.show(call, "print(m.cost(attention.Problem.of(q, k), 'forward'))"),
        )


def check_time_exponent(bench: Bench) -> None:
    """Time grows with the length as declared; asked for only where time is measured."""
    lengths = (4096, 8192, 16384)
    medians = []
    for n in lengths:
        call = bench.inputs(n, batch=1, dtype=torch.float32)
        module = bench.build(n).eval()
        samples = []
        with torch.inference_mode():
            for _ in range(6):
                start = time.perf_counter()
                call.through(module)
                if bench.device == "cuda":
                    torch.cuda.synchronize()
                samples.append(time.perf_counter() - start)
        medians.append(statistics.median(samples[1:]))
    exponent = math.log(medians[-1] / medians[0]) / math.log(lengths[-1] / lengths[0])
    if abs(exponent - bench.cls.time_exponent) > 0.35:
        shown = ", ".join(f"{n}: {s * 1e3:.1f} ms" for n, s in zip(lengths, medians, strict=True))
        raise Violation(
            f"time grows with N^{exponent:.2f} ({shown}), declared {bench.cls.time_exponent:g}",
            bench.show(call, "# time m(q, k, v) at these lengths"),
        )
