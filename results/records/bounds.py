"""How much a record may hold: beyond, no table and no figure could show it.

The schema says what a record's form is; what is here keeps a record of that form from taking the
readers' time, their memory, or the sense of their ratios.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from results.schema import UNITS, UNSIGNED_KINDS, RecordError
from results.text.clean import clean

MOST_ARMS = 64
MOST_METRICS = 64
MOST_SAMPLES = 1_000_000
MOST_SIZES = 64
LONGEST_ID = 200
LONGEST_NAME = 100
LARGEST_VALUE, SMALLEST_VALUE = 1e30, 1e-30
"""Of any metric that is not 0: a quotient of two, and its square, is a float."""

LONGEST_LATENCY_S, SHORTEST_LATENCY_S = 1e9, 1e-12


def check_bounds(record: Mapping[str, Any]) -> None:
    """Check the amounts in a record that has the schema's form and numbers for its values.

    Raises:
        RecordError: naming the field and what is accepted.
    """
    if record["schema"] < 1 or record["measurement"] < 0:
        raise RecordError("schema, measurement: expected versions, which begin with 1 and 0")
    for key in ("run", "machine", "environment", "commit"):
        if len(record.get(key) or "") > LONGEST_ID:
            raise RecordError(f"{key}: expected at most {LONGEST_ID} characters")
    case = record["case"]
    if case["kind"] in ("speed", "peer") and case["seq_len"] < 1:
        raise RecordError(f"case.seq_len: expected a length from 1, got {case['seq_len']}")
    _check_count("case.arms", case["arms"], MOST_ARMS)
    _check_count("arms", record["arms"], MOST_ARMS)
    for index, arm in enumerate(record["arms"]):
        _check_count(f"arms[{index}].metrics", arm["metrics"], MOST_METRICS)
        _check_count(f"arms[{index}].fixed_size", arm.get("fixed_size") or {}, MOST_SIZES)
        for name, metric in arm["metrics"].items():
            at = f"arms[{index}].metrics.{clean(name[:LONGEST_NAME])}"
            _check_metric(at, name, metric, signed=case["kind"] not in UNSIGNED_KINDS)


def _check_count(where: str, things: Any, most: int) -> None:
    if len(things) > most:
        raise RecordError(f"{where}: expected at most {most}, got {len(things)}")


def _check_metric(where: str, name: str, metric: Mapping[str, Any], *, signed: bool) -> None:
    unit = metric["unit"]
    if len(name) > LONGEST_NAME or len(unit) > LONGEST_NAME:
        raise RecordError(f"{where}: expected a name and unit of {LONGEST_NAME} characters")
    if unit != UNITS.get(name, unit):
        raise RecordError(f"{where}.unit: expected {UNITS[name]}, got {unit!r}")
    low, high = SMALLEST_VALUE, LARGEST_VALUE
    if name == "latency":
        low, high = SHORTEST_LATENCY_S, LONGEST_LATENCY_S
    elif name == "accuracy":
        high = 1.0
    values = metric.get("samples", [metric.get("value")])
    _check_count(where, values, MOST_SAMPLES)
    for value in values:
        if value and not low <= (abs(value) if signed else value) <= high:
            raise RecordError(f"{where}: expected {low:g} to {high:g}, got {value:g}")
