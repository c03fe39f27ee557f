"""Seeded synthetic run folders: records whose exponents, crossovers and statuses are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from results.schema import (
    ENVIRONMENTS,
    MACHINES,
    MEASUREMENT,
    RECORDS,
    SCHEMA,
    Arm,
    Case,
    content_id,
)

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)

MACHINE = {
    "cpu": "Example CPU 2.5 GHz", "cores": 2, "ram_bytes": 24 * 2**30, "os": "Linux",
    "gpu": None, "gpu_memory_bytes": None,
}  # fmt: skip
ENVIRONMENT = {
    "attnbench": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "blas": "mkl", "numpy": "2.4",
    "asv": "0.6.6", "xformers": None, "triton": None, "cuda": None, "driver": None,
    "thp": "madvise", "governor": None, "flags": ["avx2", "avx512f"], "glibc": "2.36",
}  # fmt: skip
ROOF = {"matmul_rate": 1.8e11, "exp_rate": 4e9, "bandwidth": 2e10, "empty_latency": 2e-6}


@dataclass(frozen=True)
class Law:
    """How one synthetic backend behaves: ``seconds = constant + coefficient * N ** exponent``.

    Attributes:
        memory: bytes at N: ``coefficient * N ** exponent``, as (coefficient, exponent).
        error: relative L2 distance from exact softmax.
        fails: length to (status, reason), for every launch.
        extra: further entries of the arm's results; they replace those made here.
        ops_exponent: local exponent of the declared operations, if not `exponent`.
    """

    coefficient: float
    exponent: float
    constant: float = 0.0
    memory: tuple[float, float] = (8192.0, 1.0)
    error: float = 1e-7
    fails: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    ops_exponent: float | None = None
    ops: float = 1e4
    extra: Mapping[str, Any] = field(default_factory=dict)

    def seconds(self, seq_len: int) -> float:
        return self.constant + self.coefficient * float(seq_len) ** self.exponent


SEVEN: Mapping[str, Law] = {
    "full": Law(
        4.4e-8, 2.0, memory=(64.0, 2.0), ops=2048.0,
        fails={16384: ("out_of_memory", "RuntimeError: can't allocate memory: 17 GB")},
    ),
    "sdpa": Law(1.32e-8, 2.0, memory=(2200.0, 1.0), ops=2048.0),
    "xformers": Law(1, 1, fails=dict.fromkeys(LENGTHS, ("unsupported", "xformers needs CUDA"))),
    "longformer": Law(1.2e-5, 1.0, error=0.31, memory=(5000.0, 1.0), ops=1e6),
    "bigbird": Law(1.3e-5, 1.0, error=0.28, memory=(9000.0, 1.0), ops=1.3e6),
    "linformer": Law(7.5e-6, 1.0, error=0.35, memory=(4000.0, 1.0), ops=1.1e6),
    "performer": Law(1.22e-5, 1.0, error=0.06, memory=(6000.0, 1.0), ops=1.1e6),
}  # fmt: skip


def profile(seconds: float = 0.01, **changes: Any) -> dict[str, Any]:
    """Return an arm's profile: half of the call products, at 9e10 op/s, a third a softmax."""

    def share(part: float, calls: int, rate: float | None = None) -> dict[str, Any]:
        ops = None if rate is None else int(rate * part * seconds)
        return {"seconds": part * seconds, "calls": calls, "operations": ops}

    return {
        "calls": 3,
        "seconds": seconds,
        "parts": {
            "products": share(0.5, 12, 9e10), "fused": share(0, 0),
            "exponentials": share(0.25, 4, 1e9), "copies": share(0.125, 7),
            "passes": share(0.0005, 3), "compiled": share(0, 0), "between": share(0.1245, 0),
        },
        "products": [
            {"shape": "8 x [64, 64] @ [64, 512]", **share(0.4, 8, 1e11), "alone": 1.5e11},
            {"shape": "8 x [64, 512] @ [512, 64]", **share(0.1, 4, 5e10), "alone": None},
        ],
        **changes,
    }  # fmt: skip


def profiled(laws: Mapping[str, Law], told: Any = None) -> Mapping[str, Law]:
    """Return the laws with a profile in every arm, as `profile` makes it or as `told`."""
    extra = {"profile": profile() if told is None else told}
    return {name: replace(law, extra={**law.extra, **extra}) for name, law in laws.items()}


def sentinels(
    seconds: Sequence[float],
    *,
    samples: int = 9,
    apart_s: float = 60.0,
    started: str = "2026-01-05T10:00:00Z",
    run: str = "run-1",
    machine: Mapping[str, Any] = MACHINE,
    environment: Mapping[str, Any] = ENVIRONMENT,
    **case: Any,
) -> list[dict[str, Any]]:
    """Return the records of a sentinel that took `seconds`, one launch each, `apart_s` apart."""
    head = {
        "schema": SCHEMA, "measurement": MEASUREMENT, "run": run, "commit": None,
        "machine": content_id(machine), "environment": content_id(environment),
    }  # fmt: skip
    first = datetime.fromisoformat(started)
    one = _case("sentinel", {}, 0, case, kind="sentinel")
    records = []
    for index, latency in enumerate(seconds):
        time = (first + timedelta(seconds=apart_s * index)).strftime("%Y-%m-%dT%H:%M:%SZ")
        arm = {
            "kernel": "", "gate": None, "cost": None,
            "metrics": {"latency": {"unit": "s", "samples": [float(latency)] * samples,
                                    "stopped": "spread"}},
        }  # fmt: skip
        records.append(_record(head, one, index, time, [arm]))
    return records


def conditions(**changes: Any) -> dict[str, Any]:
    """Return a record's conditions, of a quiet machine without a GPU but for `changes`."""
    return {
        "steal": 0.01, "other_cpu": 0.02, "frequency": 3.2e9, "throttled": 0, "switches": 3,
        "gpu_users": None, "gpu_temperature": None, "gpu_frequency": None, "gpu_throttled": [],
        **changes,
    }  # fmt: skip


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run folder."""
    return [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]


def cut_short(folder: Path, backend: str, seq_len: int, launches: Sequence[int] = (1,)) -> Path:
    """Say of a backend's times at a length that the warm-up of some launches was cut short."""
    records = read_records(folder)
    for record in records:
        case = record["case"]
        for arm, results in zip(case["arms"], record["arms"], strict=False):
            if "latency" in results["metrics"] and case["kind"] != "roof":
                own = arm["name"] == backend and case["seq_len"] == seq_len
                ended = not (own and record["launch"]["index"] in launches)
                results["metrics"]["latency"]["warm_up"] = {"calls": 5, "converged": ended}
    return write_records(folder, records)


def write_records(folder: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Replace the records of a run folder; return the folder."""
    _lines(folder / RECORDS, records)
    return folder


def write_run(
    folder: Path,
    laws: Mapping[str, Law] = SEVEN,
    *,
    lengths: Sequence[int] = LENGTHS,
    launches: int = 3,
    noise: float = 0.02,
    sample_noise: float = 0.01,
    modes: Sequence[str] = ("forward", "training"),
    seed: int = 0,
    run: str = "run-1",
    started: str = "2026-01-05T10:00:00Z",
    commit: str | None = "1234567890abcdef1234567890abcdef12345678",
    machine: Mapping[str, Any] = MACHINE,
    environment: Mapping[str, Any] = ENVIRONMENT,
    measurement: int = MEASUREMENT,
    roof: Mapping[str, float] | None = ROOF,
    case: Mapping[str, Any] | None = None,
    floor: Law | None = None,
) -> Path:
    """Write a run folder and return it; equal arguments give equal bytes.

    With `floor` every case has the identity arm too, whose times scatter as the first arm's do.
    """
    rng = np.random.default_rng(seed)
    head = {
        "schema": SCHEMA, "measurement": measurement, "run": run, "commit": commit,
        "machine": content_id(machine), "environment": content_id(environment),
    }  # fmt: skip
    shape = dict(case or {})
    records = []
    if roof is not None:
        records.append(_record(head, _case("roof", {}, 0, shape, kind="roof"), 0, started, [
            {"kernel": "", "gate": None, "cost": None,
             "metrics": {k: {"unit": _UNITS[k], "samples": [v, v]}
                         for k, v in roof.items()}}
        ]))  # fmt: skip
    for launch in range(launches):
        for mode in modes:
            for key, law in laws.items():
                for n in lengths:
                    one = _case(law.name or key, law.options, n, {**shape, "mode": mode})
                    if floor is not None:
                        one = replace(one, arms=(*one.arms, Arm("identity")))
                    if n in law.fails:
                        records.append(_record(head, one, launch, started, [], *law.fails[n]))
                        continue
                    arm = _arm(law, n, mode, rng, noise, sample_noise)
                    arms = [arm] if floor is None else [arm, _floor_of(arm, law, floor, n)]
                    records.append(_record(head, one, launch, started, arms))
    folder.mkdir(parents=True, exist_ok=True)
    _lines(folder / RECORDS, records)
    _lines(folder / MACHINES, [{"id": content_id(machine), **machine}])
    _lines(folder / ENVIRONMENTS, [{"id": content_id(environment), **environment}])
    return folder


_UNITS = {"matmul_rate": "op/s", "exp_rate": "op/s", "bandwidth": "B/s", "empty_latency": "s"}


def _case(
    name: str, options: Mapping[str, Any], n: int, shape: Mapping[str, Any], **kw: Any
) -> Case:
    fields: dict[str, Any] = {
        "kind": "speed", "level": "attention", "mode": "forward", "batch": 1, "num_heads": 8,
        "num_kv_heads": 8, "head_dim": 64, "seq_len": n, "key_len": n, "device": "cpu",
        "dtype": "float32", "is_causal": False, "threads": 2, "allocator": "default",
        "compile": False, "seed": 0,
    }  # fmt: skip
    return Case(arms=(Arm(name, dict(options)),), **{**fields, **shape, **kw})


def _arm(
    law: Law, n: int, mode: str, rng: np.random.Generator, noise: float, sample_noise: float
) -> dict[str, Any]:
    factor = 2.8 if mode == "training" else 1.0
    centre = law.seconds(n) * factor * float(np.exp(noise * rng.standard_normal()))
    samples = centre * np.exp(sample_noise * rng.standard_normal(7))
    ops = law.ops * float(n) ** (law.ops_exponent or law.exponent) * factor
    size = {"unit": "B", "value": int(law.memory[0] * n ** law.memory[1])}
    if mode == "decode":
        return {
            "kernel": "synthetic", "gate": {"relative_l2": 3e-7, "budget": 1e-6, "rows": 1},
            "cost": None,
            "expected": {"time": round(law.exponent), "memory": round(law.memory[1])},
            "metrics": {
                "latency": {"unit": "s", "samples": [float(s) for s in samples], "cache": "warm"},
                "state_bytes": size,
            },
            **law.extra,
        }  # fmt: skip
    return {
        "kernel": "synthetic",
        "gate": {"relative_l2": 3e-7, "budget": 1e-6, "rows": 64},
        "cost": {"pattern_ops": int(ops * 0.8), "executed_ops": int(ops),
                 "exponentials": int(ops / 256), "bytes": 8192 * n},
        "expected": {"time": round(law.exponent), "memory": round(law.memory[1])},
        "metrics": {
            "latency": {"unit": "s", "samples": [float(s) for s in samples], "cache": "warm"},
            "peak_memory": size,
            "relative_error": {"unit": "1", "value": law.error, "input_scale": 0.3, "rows": 256},
        },
        **law.extra,
    }  # fmt: skip


def _floor_of(arm: Mapping[str, Any], law: Law, floor: Law, n: int) -> dict[str, Any]:
    """Return the floor of an arm: its samples in the ratio of the laws."""
    latency = arm["metrics"]["latency"]
    ratio = floor.seconds(n) / law.seconds(n)
    samples = [s * ratio for s in latency["samples"]]
    return {**arm, "metrics": {**arm["metrics"], "latency": {**latency, "samples": samples}}}


def _record(
    head: Mapping[str, Any], case: Case, launch: int, started: str, arms: list[dict[str, Any]],
    status: str = "ok", reason: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        **head, "case": case.to_json(),
        "launch": {"index": launch, "order": 0, "started": started, "wall_s": 1.0, "load": 0.1},
        "status": status, "reason": reason, "log_tail": None, "arms": arms,
    }  # fmt: skip


def _lines(file: Path, objects: Sequence[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(o) + "\n" for o in objects))


@dataclass(frozen=True)
class Beside:
    """One synthetic pair: a peer beside our counterpart, in seconds and bytes.

    Attributes:
        ours: (latency, peak memory) of our arm in mode forward; training takes three times both.
        theirs: likewise of the peer.
        projections: latency of the projections alone; 0 = it has none.
        difference: of the outputs.
        claim: what differs, "" = the same function.
        fails: mode to (status, reason), for every launch.
    """

    backend: str
    ours: tuple[float, int]
    theirs: tuple[float, int]
    projections: float = 0.0
    difference: float = 1e-7
    claim: str = ""
    is_causal: bool = False
    fails: Mapping[str, tuple[str, str]] = field(default_factory=dict)


PAIRS: Mapping[str, Beside] = {
    "torch-sdpa": Beside("sdpa", (0.2, 1 << 23), (0.2, 1 << 23)),
    "transformers-longformer": Beside("longformer", (0.1, 1 << 24), (0.3, 1 << 28), 0.05),
    "local-attention": Beside(
        "longformer", (0.05, 1 << 24), (0.12, 1 << 28), difference=0.5, claim="sees whole blocks",
        fails={"training": ("unsupported", "no | backward *pass*")},
    ),
    "performer-pytorch": Beside(
        "performer", (0.05, 1 << 23), (1.4, 1 << 29), difference=0.1, claim="an ε more",
        is_causal=True,
    ),
}  # fmt: skip


def write_peer_run(
    folder: Path,
    pairs: Mapping[str, Beside] = PAIRS,
    *,
    launches: int = 3,
    noise: float = 0.02,
    modes: Sequence[str] = ("forward", "training"),
    allocators: Sequence[str] = ("default", "retained"),
    seq_len: int = 4096,
    seed: int = 0,
    case: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run of kind peer; the arms of a launch share its noise, as if in alternation.

    `case` holds further fields of every case.
    """
    rng = np.random.default_rng(seed)
    head = {
        "schema": SCHEMA, "measurement": MEASUREMENT, "run": "peers-1", "commit": None,
        "machine": content_id(MACHINE), "environment": content_id(ENVIRONMENT),
    }  # fmt: skip
    records = []
    for launch in range(launches):
        for name, pair in pairs.items():
            for mode in modes:
                for allocator in allocators:
                    shape = {
                        "kind": "peer", "mode": mode, "allocator": allocator,
                        "level": "layer" if pair.projections else "attention",
                        "is_causal": pair.is_causal, **(case or {}),
                    }  # fmt: skip
                    alone = (Arm("projections"),) if pair.projections else ()
                    arms = (Arm(pair.backend), Arm(f"peer:{name}"), *alone)
                    one = replace(_case(pair.backend, {}, seq_len, shape), arms=arms)
                    ending = pair.fails.get(mode)
                    factor = float(np.exp(noise * rng.standard_normal()))
                    factor *= 3.0 if mode == "training" else 1.0
                    results = [] if ending else _beside(name, pair, factor)
                    records.append(
                        _record(head, one, launch, "2026-01-05T10:00:00Z", results,
                                *(ending or ()))
                    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    _lines(folder / RECORDS, records)
    _lines(folder / MACHINES, [{"id": content_id(MACHINE), **MACHINE}])
    _lines(folder / ENVIRONMENTS, [{"id": content_id(ENVIRONMENT), **ENVIRONMENT}])
    return folder


def _beside(name: str, pair: Beside, factor: float) -> list[dict[str, Any]]:
    def arm(latency: float, memory: int) -> dict[str, Any]:
        return {
            "kernel": "", "gate": None, "cost": None,
            "metrics": {
                "latency": {"unit": "s", "samples": [latency * factor] * 3, "cache": "warm"},
                "peak_memory": {"unit": "B", "value": memory},
            },
        }  # fmt: skip

    same = not pair.claim
    theirs = arm(*pair.theirs)
    theirs["kernel"] = f"{name} 1.0: function"
    theirs["gate"] = {"relative_l2": pair.difference, "budget": 7.6e-6} if same else None
    theirs["peer"] = {"same_function": same, "difference": pair.claim, "project": "a project"}
    theirs["metrics"]["output_difference"] = {
        "unit": "1", "value": pair.difference, "input_scale": 0.3,
    }  # fmt: skip
    alone = [arm(pair.projections, 1 << 22)] if pair.projections else []
    return [arm(*pair.ours), theirs, *alone]
