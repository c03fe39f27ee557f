"""A rank of kind ``context``: ``torchrun … -m suites.context_parallel.rank FOLDER``.

Every rank draws the whole inputs under the case's seed and cuts out its span. All time the same
training steps between barriers and take the slowest rank's time, so that they agree on when to
stop; each then holds its own rows of output and dq against the backend's dense reference.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from attention.context_parallel import ContextParallel, split
from results.schema import Case
from suites.arms.build import build_attention, draw_inputs, problem_of
from suites.arms.steps import SEARCH_S
from suites.context_parallel.kind import threads_of
from suites.measure.clock import sample_in_turn
from suites.measure.gate import Call, check_call
from suites.measure.memory import peak_memory
from suites.measure.process import die_with_parent
from suites.measure.sentinel import sentinel_of
from suites.measure.timers import HostTimer, Timed
from suites.worker.kinds import import_plugins


class Step:
    """A training step of this rank: forward and backward over its part."""

    def __init__(self, layer: ContextParallel, case: Case) -> None:
        inputs = draw_inputs(replace(case, mode="training"))
        assert inputs.output_grad is not None
        self.layer, self.case = layer, case
        self.parts = [split(x.detach()).requires_grad_() for x in inputs.tensors]
        self.output_grad = split(inputs.output_grad)
        self.output: Tensor | None = None

    def prepare(self) -> None:
        """Drop what the last call left."""
        self.output = None
        for x in (*self.parts, *self.layer.parameters()):
            x.grad = None

    def call(self) -> None:
        """Go forward and back."""
        self.output = self.layer(*self.parts, is_causal=self.case.is_causal)
        self.output.backward(self.output_grad)

    def settle(self) -> None:
        """Keep the output and the gradients."""


class RanksTimer(HostTimer):
    """Times a call that all ranks make: from a barrier to the end of the slowest."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def sample(self, timed: Timed) -> float:
        """Return the latency of one call, the same number on every rank."""
        _synchronise(self.device)
        dist.barrier()
        seconds = super().sample(_Finished(timed, self.device))
        slowest = torch.tensor([seconds], dtype=torch.float64, device=self.device)
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        return float(slowest)


class _Finished:
    """A call that ends when the device has done its work."""

    def __init__(self, timed: Timed, device: torch.device) -> None:
        self.prepare, self.settle = timed.prepare, timed.settle
        self._call, self._device = timed.call, device

    def call(self) -> None:
        self._call()
        _synchronise(self._device)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(case: Case, budget_s: float, limit_s: float) -> dict[str, Any]:
    """Measure a case on this rank; every rank is given the same limit."""
    rank = dist.get_rank()
    device = torch.device("cuda", rank) if case.device == "cuda" else torch.device("cpu")
    torch.manual_seed(case.seed)  # equal weights on all ranks
    module = build_attention(case.arms[0], case).to(device, getattr(torch, case.dtype))
    module.train()
    layer = ContextParallel(module)
    step = Step(layer, case)
    (timing,) = sample_in_turn(
        [step], RanksTimer(device), budget_s=budget_s, seed=case.seed, limit_s=limit_s,
        companion=sentinel_of(case.device), search_s=SEARCH_S,
    )  # fmt: skip
    step.prepare()
    step.output = layer(*step.parts, is_causal=case.is_causal)
    forward = layer.received
    step.output.backward(step.output_grad)
    received, kernel = layer.received, module.kernel
    spans = layer.spans
    gate = _gate(case, step, module, spans[rank])
    step.prepare()
    return {
        "latency": timing.metric(),
        "peak_memory": peak_memory(step.call, case.device),
        "received": received,
        "received_forward": forward,
        "foretold": module.exchange_bytes(problem_of(case), spans, rank),
        "kernel": kernel,
        "gate": gate,
    }


def _gate(case: Case, step: Step, module: Any, span: tuple[int, int]) -> dict[str, Any]:
    """Hold sampled rows of this rank's output and dq against the reference on the whole inputs.

    A row of dq depends on its own row of the output alone.
    """
    start, stop = span
    inputs = draw_inputs(replace(case, mode="training"))
    q, k, v = (x.detach() for x in inputs.tensors)
    assert step.output is not None
    generator = torch.Generator().manual_seed(case.seed)
    local = torch.randperm(stop - start, generator=generator)[:64].sort().values.to(q.device)
    whole = torch.zeros_like(q)
    grad = step.parts[0].grad
    assert grad is not None
    whole[:, :, start:stop] = grad
    call = Call(
        module, q, k, v, case.is_causal, step.output.detach()[:, :, local],
        inputs.output_grad, whole, local + start,
    )  # fmt: skip
    return check_call(call, seed=case.seed, precision=case.matmul_precision)


def guarded(folder: Path, rank: int, work: Callable[[], dict[str, Any]]) -> int:
    """Write what `work` finds, or how it failed, to the rank's file; return the exit code."""
    try:
        answer, code = work(), 0
    except Exception as error:
        traceback.print_exc()
        text = " ".join(str(error).split())
        name = type(error).__name__
        answer, code = {"error": name, "text": text or name, "at": time.time()}, 1
    (folder / f"rank-{rank}.json").write_text(json.dumps(answer))
    return code


def main(folder: Path) -> int:
    """Run this rank."""
    die_with_parent(os.getppid())  # torchrun gives its ranks a session of their own
    rank = int(os.environ["RANK"])
    request = json.loads((folder / "request.json").read_text())
    case = Case.from_json(request["case"])

    def work() -> dict[str, Any]:
        for reason in import_plugins(request["plugins"]).values():
            sys.stderr.write(f"plug-in: {reason}\n")
        torch.set_num_threads(threads_of(case))
        torch.set_float32_matmul_precision(case.matmul_precision)
        if case.device == "cuda":
            torch.cuda.set_device(rank)
        dist.init_process_group("nccl" if case.device == "cuda" else "gloo")
        return measure(case, request["budget_s"], request["limit_s"])

    code = guarded(folder, rank, work)
    if not code:
        dist.barrier()
        dist.destroy_process_group()
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
