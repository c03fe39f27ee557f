"""The asv classes, few and thin: what plain ``asv run`` and the driver both call.

Every benchmark returns ``{"samples": [s, ...], "number": 1, "record": {...}}``. asv keeps the
samples and computes its statistics from them; the driver reads the record from the same file.

This module is imported by asv's fork server, which then forks once a case. So it imports what a
case needs and computes nothing: a tensor operation in the server would hang its children.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from collections.abc import Mapping
from typing import Any

import torch
from asv_runner.benchmarks import benchmark_types
from asv_runner.benchmarks._base import Benchmark
from asv_runner.benchmarks.mark import SkipNotImplemented

import attention.backends as backends
from attention import registry
from results.schema import MEASUREMENT, Case
from suites.error.suite import ERROR_PRESETS, TRAINED_NAME
from suites.measure.process import die_with_parent, hold_lock, offer_to_oom_killer
from suites.parsing import parse_backend
from suites.processes.processors import DRIVER_VARIABLE
from suites.worker import kinds
from suites.worker.run import answer

_IMPORTER = os.getpid()
"""The process that imported this module: the fork server, or under spawn the case itself."""


class _Measured(Benchmark):  # type: ignore[misc]  # asv_runner has no types
    """A benchmark whose function takes its own samples and returns asv's result as it is.

    A ``request`` among asv's extra parameters becomes the function's argument: a case then needs
    no place in a grid.
    """

    name_regex = re.compile(r"^measure_.+$")

    def __init__(self, name: str, func: Any, attr_sources: list[Any]) -> None:
        super().__init__(name, func, attr_sources)
        self.type = "time"
        self.unit = "seconds"

    def run(self, *params: Any) -> Any:
        """Run the benchmark."""
        for source in self._attr_sources:
            if hasattr(source, "request"):
                return self.func(source.request)
        return self.func(*params)


if not any(known.__name__ == _Measured.__name__ for known in benchmark_types):
    benchmark_types.append(_Measured)


def _enter_child(lock: str | None) -> None:
    """Make this process a case's: it dies with its parent, and before the driver."""
    forked = os.getpid() != _IMPORTER
    die_with_parent(_IMPORTER if forked else int(os.environ.get(DRIVER_VARIABLE, os.getppid())))
    offer_to_oom_killer()
    if lock is not None:
        hold_lock(lock)


class _Driven:
    """The driver's entry. Found by name alone: without a request ``asv run`` could not run it."""

    version = str(MEASUREMENT)

    def measure_request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a request (see `suites.worker.run`); its ``lock`` is held until the end."""
        _enter_child(request.get("lock"))
        return answer(request)


def __getattr__(name: str) -> Any:
    """Give asv ``benchmarks.Driven.measure_request``; its discovery sees only the namespace."""
    if name == "Driven":
        return _Driven
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class AttentionSpeed:
    """Latency at level attention over the quick preset's grid, in asv's own runner."""

    version = str(MEASUREMENT)
    timeout = 120.0
    param_names = ("backend", "seq_len", "mode")
    params = (
        ("bigbird", "full", "linformer", "longformer", "performer", "sdpa", "xformers"),
        (512, 1024, 2048, 4096),
        ("forward", "training"),
    )

    def measure_latency(self, backend: str, seq_len: int, mode: str) -> dict[str, Any]:
        """Measure one point of the grid: fp32 on the CPU, B=1, H=8, D=64, all threads.

        Raises:
            SkipNotImplemented: if the backend does not run here; asv shows ``n/a``.
            RuntimeError: with the reason, if the case did not end well; asv shows ``failed``.
        """
        return _measure_ours(backend, {}, seq_len, mode)


class DecodeStep:
    """Latency of one token after a context, for every backend that decodes."""

    version = str(MEASUREMENT)
    timeout = 120.0
    param_names = ("backend", "context")
    params = (
        ("bigbird", "full", "gated_delta", "gated_linear", "longformer", "performer", "sdpa",
         "xformers"),
        (1024, 8192),
    )  # fmt: skip

    def measure_latency(self, backend: str, context: int) -> dict[str, Any]:
        """Measure a step: fp32 on the CPU, B=1, H=8, D=64, all threads.

        Raises:
            SkipNotImplemented: if the backend does not run here; asv shows ``n/a``.
            RuntimeError: with the reason, if the case did not end well; asv shows ``failed``.
        """
        return _measure_ours(backend, {}, context, "decode", is_causal=True)


PEER_ROWS: Mapping[str, tuple[str, dict[str, Any], str, bool]] = {
    "transformers-longformer": ("longformer", {"window": 256}, "attention", False),
    "transformers-bigbird": (
        "bigbird", {"block_size": 64, "num_random_blocks": 3}, "attention", False,
    ),
    "linformer": ("linformer", {"rank": 256}, "attention", False),
    "linformer-layer": ("linformer", {"rank": 256}, "layer", False),
    "performer-pytorch": ("performer", {"num_features": 256}, "attention", False),
    "performer-pytorch-causal": ("performer", {"num_features": 256}, "attention", True),
    "torch-sdpa": ("sdpa", {}, "attention", False),
}  # fmt: skip
"""Our sides of suite peers' rows, each once, by the first peer that it stands beside: backend,
options, level and causality. A test compares."""


class BesidePeers:
    """Latency of our sides of suite peers' rows, so that a slower kernel shows by its row.

    The peers themselves do not change with our commits: they are left out.
    """

    version = str(MEASUREMENT)
    timeout = 120.0
    param_names = ("beside", "mode")
    params = (tuple(PEER_ROWS), ("forward", "training"))

    def measure_latency(self, beside: str, mode: str) -> dict[str, Any]:
        """Measure our side of a row: fp32 on the CPU, B=1, H=8, N=4096, D=64, all threads.

        Raises:
            SkipNotImplemented: if the backend does not run here; asv shows ``n/a``.
            RuntimeError: with the reason, if the case did not end well; asv shows ``failed``.
        """
        backend, options, level, is_causal = PEER_ROWS[beside]
        return _measure_ours(backend, options, 4096, mode, level=level, is_causal=is_causal)


class ErrorAtBudget:
    """Distance from exact softmax over the quick preset of suite error, so that a change shows.

    What is trained is left out: it takes a minute before the first case.
    """

    version = str(MEASUREMENT)
    timeout = 120.0
    unit = "relative L2"
    param_names = ("backend", "inputs")
    params = (
        tuple(arm.label for arm in ERROR_PRESETS["quick"].backends),
        tuple(one.label for one in ERROR_PRESETS["quick"].inputs if one.name != TRAINED_NAME),
    )

    def track_relative_error(self, backend: str, inputs: str) -> float:
        """Take the error at one point of the grid: fp32 on the CPU, B=1, H=4, N=1024, D=64.

        Raises:
            SkipNotImplemented: if the backend does not run here; asv shows ``n/a``.
            RuntimeError: with the reason, if the case did not end well; asv shows ``failed``.
        """
        arm = parse_backend(backend)
        record = _measure_ours(
            arm.name, arm.options, 1024, "forward", kind="error", num_heads=4, inputs=inputs
        )["record"]
        return float(record["arms"][0]["metrics"]["relative_error"]["value"])


def _measure_ours(
    backend: str,
    options: Mapping[str, Any],
    seq_len: int,
    mode: str,
    *,
    level: str = "attention",
    is_causal: bool = False,
    kind: str = "speed",
    num_heads: int = 8,
    inputs: str = "",
) -> dict[str, Any]:
    """Measure a backend as a kind does; raise what asv shows as ``n/a`` or ``failed``."""
    _enter_child(None)
    case = Case.from_json(
        {
            "kind": kind, "level": level, "mode": mode, "inputs": inputs,
            "arms": [{"name": backend, "options": dict(options)}],
            "batch": 1, "num_heads": num_heads, "num_kv_heads": num_heads, "head_dim": 64,
            "seq_len": seq_len, "key_len": seq_len, "device": "cpu", "dtype": "float32",
            "is_causal": is_causal, "threads": torch.get_num_threads(),
            "allocator": "default", "compile": False, "seed": 0,
        }
    )  # fmt: skip
    result = answer({"do": "case", "case": case.to_json(), "budget_s": 0.4, "deadline_s": 60.0})
    record = result["record"]
    if record["status"] == "unsupported":
        raise SkipNotImplemented(record["reason"])
    if record["status"] != "ok":
        raise RuntimeError(f"{record['status']}: {record['reason']}")
    return result


def _import_early() -> None:
    """Import before the fork, once for all cases, kinds, backends and what torch imports late.

    A first backward pass imports torch's symbolic shapes, a third of a second of a case's warm-up;
    a driver asks for them itself, when its first results are there. Plug-ins load in the case.
    """
    if DRIVER_VARIABLE not in os.environ:
        importlib.import_module("torch.fx.experimental.symbolic_shapes")
    for module in pkgutil.iter_modules(backends.__path__):
        importlib.import_module(f"{backends.__name__}.{module.name}")
    registry.discover_ours()
    kinds.import_all()


_import_early()
