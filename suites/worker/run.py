"""Answer one request in this process: run it, and put what went wrong into words."""

from __future__ import annotations

import gc
import os
import re
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import torch

from attention.base import UnsupportedError
from results.schema import FULL_PRECISION, Case
from suites.arms.transformers_config import files_given
from suites.kind import Measured, Request
from suites.measure.heap_layout import settle_heap, stir_heap
from suites.measure.memory import is_out_of_memory
from suites.measure.process import TimeLimitError, deadline, memory_limit
from suites.worker import kinds
from suites.worker.preflight import preflight

TRIED = re.compile(r"tried to allocate ([\d.]+ ?\w+)")


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a request of the driver.

    Args:
        request: ``{"do": "case", "case"}`` and fields of `suites.kind.Request`, of which
            ``budget_s`` and ``deadline_s`` must be there; or ``{"do": "preflight", "cases"}`` and
            fields, see `suites.worker.preflight`.

    Returns:
        ``samples`` (latencies of the first arm in s; ``[0.0]`` where there are none), ``number``
        (1: a sample is one call) and ``record``.

    Raises:
        ValueError: if the request is of another form; `TypeError` likewise.
    """
    if request["do"] == "preflight":
        return {"samples": [0.0], "number": 1, "record": preflight(request)}
    if request["do"] != "case":
        raise ValueError(f"do: expected case or preflight, got {request['do']!r}")
    record = measured(request)
    latency = record["arms"][0]["metrics"].get("latency") if record["arms"] else None
    return {"samples": latency["samples"] if latency else [0.0], "number": 1, "record": record}


def measured(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run a case; return its status, the reason if it is not ok, its arms and the conditions."""
    at = ["starting"]

    def stage(what: str) -> None:
        at[0] = what

    settings = Request.from_json(request, needs=("budget_s", "deadline_s"), stage=stage)
    limit = settings.memory_limit
    try:
        with deadline(settings.deadline_s):
            arms, conditions = _run(Case.from_json(request["case"]), settings)
        ended = {"status": "ok", "reason": None, "arms": arms}
        return ended if conditions is None else {**ended, "conditions": conditions}
    except TimeLimitError as error:
        return _ended("timeout", f"{error} while {at[0]}")
    except UnsupportedError as error:
        return _ended("unsupported", _one_line(str(error)))
    except Exception as error:
        if (late := _time_limit(error)) is not None:
            return _ended("timeout", f"{late} while {at[0]}")
        traceback.print_exc(file=sys.stderr)
        if is_out_of_memory(error):
            return _ended("out_of_memory", _memory_reason(error, limit, at[0]))
        return _ended("failed", _one_line(f"{type(error).__name__}: {error}"))


def _time_limit(error: BaseException) -> TimeLimitError | None:
    """Return the end of time that an error came of: what is torn open may fail while closing."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, TimeLimitError):
        seen = seen.__context__
    return seen


def _run(case: Case, request: Request) -> Measured:
    gc.freeze()  # what is imported is no garbage: collections need not walk it
    for reason in kinds.import_plugins(request.plugins).values():
        sys.stderr.write(f"plug-in: {reason}\n")  # it costs the cases that need it, no others
    torch.set_float32_matmul_precision(case.matmul_precision)
    if case.device == "cuda":  # an LSTM has a switch of its own, which stands on TF32
        full = case.matmul_precision == FULL_PRECISION
        torch.backends.cudnn.rnn.fp32_precision = "ieee" if full else "tf32"  # type: ignore[attr-defined]
    settle_heap()
    stir_heap()
    start_threads(case.threads)
    kind = kinds.find(case.kind)
    extra = request.memory_limit if case.device == "cpu" else None
    with memory_limit(extra), files_given(request.files):
        return kind.run(case, request)


def start_threads(count: int) -> None:
    """Make torch compute with `count` threads, and start them: their stacks are no case's.

    Compilation runs in this process, so that it leaves no worker processes behind.
    """
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    torch.set_num_threads(count)
    torch.ones(2**16 * count).add_(1.0)


def _memory_reason(error: Exception, limit: int | None, stage: str) -> str:
    tried = TRIED.search(str(error))
    what = f"could not allocate {_size(tried[1])}" if tried else "an allocation failed"
    allowed = "" if limit is None else f"; {_size(str(limit))} were free"
    return f"{what} while {stage}{allowed}"


def _size(text: str) -> str:
    """Write torch's ``1073741824`` or ``1.00 GiB`` in GiB or MiB."""
    digits = text.removesuffix("bytes").strip()
    if not digits.isdigit():
        return text
    count = int(digits)
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _ended(status: str, reason: str) -> dict[str, Any]:
    return {"status": status, "reason": reason, "arms": []}
