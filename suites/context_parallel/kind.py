"""Kind ``context``: a training step over one sequence that is cut over several ranks.

The case's process starts the ranks by torchrun, each a process of `suites.context_parallel.rank`
(NCCL and a GPU each on CUDA, gloo on a CPU, where they share the cores), and puts together what
they found: the slowest rank's time, the largest memory, the sum of the bytes, the worst gate.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from attention.base import Attention, UnsupportedError
from results.schema import CONTEXT_MODE, Case
from suites.arms.build import build_attention, expected_exponents, problem_of
from suites.kind import Inspection, Kind, Measured, Request, arm, metrics
from suites.measure.conditions import Watch
from suites.measure.gate import WrongOutputError
from suites.measure.process import seconds_left

FIXED: Mapping[str, Any] = {
    "mode": CONTEXT_MODE, "level": "attention", "compile": False, "allocator": "default",
}  # fmt: skip

_ERRORS: Mapping[str, type[Exception]] = {
    "UnsupportedError": UnsupportedError, "WrongOutputError": WrongOutputError,
    "MemoryError": MemoryError, "OutOfMemoryError": MemoryError,
}  # fmt: skip


def check_context(case: Case) -> Attention:
    """Return the backend of a case of this kind, on the meta device.

    Raises:
        ValueError: if a field is not what the kind has; naming it.
        TypeError: if the backend has no such option.
        UnsupportedError: if the backend cannot be cut, or there are not as many devices.
    """
    for name, value in FIXED.items():
        if getattr(case, name) != value:
            raise ValueError(f"{name}: expected {value}, got {getattr(case, name)}")
    if len(case.arms) != 1:
        raise ValueError(f"arms: expected one, got {len(case.arms)}")
    if case.key_len != case.seq_len:
        raise ValueError(f"key_len: expected {case.seq_len} as seq_len, got {case.key_len}")
    if not 1 <= case.ranks <= case.seq_len:
        raise ValueError(
            f"ranks: expected 1 to {case.seq_len}, one token each at least; got {case.ranks}"
        )
    with torch.device("meta"):
        module = build_attention(case.arms[0], case)
    reasons = [*module.across_reasons(), *module.unsupported_reasons(problem_of(case))]
    if case.device == "cuda" and (there := torch.cuda.device_count()) < case.ranks:
        reasons.append(f"ranks: {case.ranks} need as many GPUs; torch sees {there}")
    if reasons:
        raise UnsupportedError("; ".join(reasons))
    return module


def inspect(case: Case, _request: Request) -> Inspection:
    """Check that the backend can be cut over the ranks; the cost of one device is not told."""
    exponents = expected_exponents(check_context(case), replace(case, mode="training"))
    return Inspection(time_exponent=exponents["time"], memory_exponent=exponents["memory"])


def run(case: Case, request: Request) -> Measured:
    """Measure a case of kind context.

    Raises:
        UnsupportedError: if the backend cannot be cut, or there are not as many devices.
        WrongOutputError: if a rank's output or gradient is off the reference.
        RuntimeError: if a rank failed.
    """
    request.stage("building")
    module = check_context(case)
    watch = Watch(case.device)
    with tempfile.TemporaryDirectory() as folder:
        request.stage("running the ranks")
        asked = {
            "case": case.to_json(), "budget_s": request.budget_s, "limit_s": seconds_left(),
            "plugins": [str(path) for path in request.plugins],
        }  # fmt: skip
        ranks = _ranks(case, asked, Path(folder))
    gates = [one["gate"] for one in ranks]
    worst = max(gates, key=lambda gate: gate["relative_l2"])
    gradients = [gate["gradient"] for gate in gates]
    exchanged = metrics(
        peak_memory=max(one["peak_memory"] for one in ranks),
        exchanged_bytes=sum(one["received"] for one in ranks),
        exchanged_forward=sum(one["received_forward"] for one in ranks),
        exchanged_formula=sum(one["foretold"] for one in ranks),
    )
    together = arm(  # its cost is not told: over ranks other work is executed
        {"latency": ranks[0]["latency"], **exchanged},
        kernel=" + ".join(dict.fromkeys(one["kernel"] for one in ranks)),
        gate={**worst, "gradient": max(gradients, key=lambda one: one["relative_l2"])},
        expected={"time": module.time_exponent, "memory": module.memory_exponent},
        fixed_size=dict(module.fixed_sizes()),
        compiled=None,
    )
    return Measured([together], watch.conditions())


def _ranks(case: Case, asked: Mapping[str, Any], folder: Path) -> Sequence[Mapping[str, Any]]:
    """Run the ranks to their end; return what each found."""
    (folder / "request.json").write_text(json.dumps(asked))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--standalone",
        f"--nproc-per-node={case.ranks}", "--max-restarts=0",
        "-m", "suites.context_parallel.rank", str(folder),
    ]  # fmt: skip
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": str(threads_of(case)),
        # All ranks are on this machine, whatever its name resolves to.
        "GLOO_SOCKET_IFNAME": "lo",
    }
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=sys.stderr, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        code = process.wait(timeout=seconds_left())
    finally:  # a time limit is an exception too
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    answers = {
        rank: json.loads(file.read_text())
        for rank in range(case.ranks)
        if (file := folder / f"rank-{rank}.json").exists()
    }
    if missing := [str(rank) for rank in range(case.ranks) if rank not in answers]:
        raise RuntimeError(
            f"rank {', '.join(missing)} gave no result; torchrun ended with exit code {code}"
        )
    if failed := [(one["at"], rank) for rank, one in answers.items() if "error" in one]:
        _, first = min(failed)  # the others only miss the one that ended
        error, text = answers[first]["error"], answers[first]["text"]
        raise _ERRORS.get(error, RuntimeError)(f"rank {first}: {text}")
    return [answers[rank] for rank in range(case.ranks)]


def threads_of(case: Case) -> int:
    """Return the threads of a rank: on a CPU the ranks share those of the case."""
    return max(1, case.threads // case.ranks)


KIND = Kind("context", inspect, run)
