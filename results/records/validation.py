"""What the readers need of a record beyond the schema: numbers they can compute with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from results.schema import CONDITIONS, PROFILE_PARTS, STOPS, UNSIGNED_KINDS, RecordError
from results.text.clean import clean

COSTS = ("pattern_ops", "executed_ops", "exponentials", "bytes")
"""The declared cost of one call."""

_LARGEST_INT = 2**53
_LARGEST_NUMBER = 1e300
_LARGEST_ENTRY = 1e18
_LONGEST_S = 1e6
_MOST_PRODUCTS = 100
_MOST_REASONS, _LONGEST_REASON = 20, 100
MOST_GROUPS, MOST_CURVE = 20_000, 2_000
"""Entries of `quality`'s groups and of its curve."""
_MOST_ENTRIES, _LONGEST_ENTRY = 64, 300


_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "cost": COSTS,
    "expected": ("time", "memory"),
    "gate": ("relative_l2", "budget"),
    "compiled": ("compile_time", "graphs", "breaks", "recompiles"),
}


def check_values(record: Mapping[str, Any]) -> None:
    """Check the values of a record that has the schema's form.

    Raises:
        RecordError: naming the field and what is accepted.
    """
    for key, value in record["case"].items():
        if isinstance(value, int) and value > _LARGEST_INT:
            raise RecordError(f"case.{key}: {value:.3g} is beyond any length or count")
    launch = record["launch"]
    if isinstance(launch["index"], bool) or not 0 <= launch["index"] <= _LARGEST_INT:
        raise RecordError("launch.index: expected a whole number from 0")
    for where, value in (("reason", record.get("reason")), ("commit", record.get("commit"))):
        if value is not None and not isinstance(value, str):
            raise RecordError(f"{where}: expected a string or null, got {type(value).__name__}")
    least = 0.0 if record["case"]["kind"] in UNSIGNED_KINDS else -_LARGEST_NUMBER
    for index, arm in enumerate(record["arms"]):
        _check_arm(f"arms[{index}]", arm, least)


def _check_arm(where: str, arm: Mapping[str, Any], least: float) -> None:
    for part, keys in _NUMBERS.items():
        numbers = arm.get(part)
        if numbers is None:
            continue
        if not isinstance(numbers, dict):
            raise RecordError(f"{where}.{part}: expected an object or null")
        for key in keys:
            if numbers.get(key) is not None:
                _check_number(f"{where}.{part}.{key}", numbers[key], minimum=0.0)
    _check_details(where, arm)
    for name, metric in arm["metrics"].items():
        at = f"{where}.metrics.{clean(name)}"
        for value in metric.get("samples", [metric.get("value")]):
            _check_number(at, value, minimum=least)
            if name == "latency" and value <= 0:
                raise RecordError(f"{at}: expected times above 0, got {value}")


def _check_details(where: str, arm: Mapping[str, Any]) -> None:
    """Check what an arm states beside its numbers: the gate's details and the fixed sizes."""
    gate = arm.get("gate") or {}
    gradient = gate.get("gradient")
    if gradient is not None:
        if not isinstance(gradient, dict):
            raise RecordError(f"{where}.gate.gradient: expected an object or null")
        if gradient.get("relative_l2") is not None:
            _check_number(f"{where}.gate.gradient.relative_l2", gradient["relative_l2"], minimum=0)
    for part in (gate, gradient or {}):
        if part.get("precision") not in (None, "full", "reduced"):
            raise RecordError(f"{where}.gate.precision: expected full or reduced")
    sizes = arm.get("fixed_size")
    if sizes is None:
        return
    if not isinstance(sizes, dict):
        raise RecordError(f"{where}.fixed_size: expected an object or null")
    for name, tokens in sizes.items():
        _check_number(f"{where}.fixed_size.{clean(name)}", tokens, minimum=0.0)


def check_profile(where: str, profile: Any) -> None:
    """Check an arm's ``profile``, ``None`` included: a fault in it costs the profile alone.

    Raises:
        RecordError: naming the field and what is accepted.
    """
    if profile is None:
        return
    if not isinstance(profile, dict):
        raise RecordError(f"{where}: expected an object or null")
    if "failed" in profile:
        if not isinstance(profile["failed"], str):
            raise RecordError(f"{where}.failed: expected a string")
        return
    _check_number(f"{where}.seconds", profile.get("seconds"), minimum=1e-9, maximum=_LONGEST_S)
    parts, products = profile.get("parts"), profile.get("products") or []
    if not isinstance(parts, dict) or set(parts) - set(PROFILE_PARTS):
        raise RecordError(f"{where}.parts: expected an object of {', '.join(PROFILE_PARTS)}")
    if not isinstance(products, list) or len(products) > _MOST_PRODUCTS:
        raise RecordError(f"{where}.products: expected at most {_MOST_PRODUCTS} in a list")
    for name, part in parts.items():
        _check_share(f"{where}.parts.{name}", part)
    for index, product in enumerate(products):
        at = f"{where}.products[{index}]"
        _check_share(at, product)
        if not isinstance(product.get("shape"), str):
            raise RecordError(f"{at}.shape: expected a string")
        if product.get("alone") is not None:
            _check_number(f"{at}.alone", product["alone"], minimum=0.0)


def _check_share(where: str, share: Any) -> None:
    """Check what a part of a call, or a product in it, took."""
    if not isinstance(share, dict):
        raise RecordError(f"{where}: expected an object")
    _check_number(f"{where}.seconds", share.get("seconds"), minimum=0.0, maximum=_LONGEST_S)
    _check_number(f"{where}.calls", share.get("calls"), minimum=0.0)
    if share.get("operations") is not None:
        _check_number(f"{where}.operations", share["operations"], minimum=0.0)


def drop_faults(record: dict[str, Any]) -> Iterator[str]:
    """Take out what is said beside the measurements and cannot be read; yield the faults.

    These are `conditions`, the launch's `predicted`, why sampling `stopped` and an arm's
    `quality`: a fault in one costs it alone, the measurements stand.
    """
    parts = [(record, "conditions", "conditions", _check_conditions),
             (record["launch"], "predicted", "launch.predicted", _check_predicted)]  # fmt: skip
    for index, arm in enumerate(record["arms"]):
        if "latency" in arm["metrics"]:
            where = f"arms[{index}].metrics.latency.stopped"
            parts.append((arm["metrics"]["latency"], "stopped", where, _check_stopped))
        parts.append((arm, "quality", f"arms[{index}].quality", _check_quality))
    for holder, key, where, check in parts:
        if holder.get(key) is None:
            continue
        try:
            check(where, holder[key])
        except RecordError as error:
            del holder[key]
            yield f"{error}; {key} left out"


def _check_conditions(where: str, conditions: Any) -> None:
    if not isinstance(conditions, dict):
        raise RecordError(f"{where}: expected an object or null")
    for name in CONDITIONS:
        if conditions.get(name) is not None:
            _check_number(f"{where}.{name}", conditions[name], minimum=0.0)
    reasons = conditions.get("gpu_throttled")
    if reasons is not None and not (
        isinstance(reasons, list)
        and len(reasons) <= _MOST_REASONS
        and all(isinstance(r, str) and len(r) <= _LONGEST_REASON for r in reasons)
    ):
        raise RecordError(
            f"{where}.gpu_throttled: expected at most {_MOST_REASONS} strings of at most "
            f"{_LONGEST_REASON} letters in a list"
        )


def _check_predicted(where: str, predicted: Any) -> None:
    if not isinstance(predicted, dict):
        raise RecordError(f"{where}: expected an object or null")
    for name in ("latency", "peak_memory"):
        if predicted.get(name) is not None:
            _check_number(f"{where}.{name}", predicted[name], minimum=0.0)


def _check_stopped(where: str, stopped: Any) -> None:
    if stopped not in STOPS:
        raise RecordError(f"{where}: expected one of {', '.join(STOPS)}")


def _check_quality(where: str, quality: Any) -> None:
    """Check what a task says beside its metrics: chance, groups, curve, parameters, facts."""
    if not isinstance(quality, dict):
        raise RecordError(f"{where}: expected an object or null")
    if quality.get("metric") not in (None, "accuracy", "bits_per_byte"):
        raise RecordError(f"{where}.metric: expected accuracy or bits_per_byte")
    if quality.get("chance") is not None:
        _check_number(f"{where}.chance", quality["chance"], minimum=0.0, maximum=1.0)
    if quality.get("parameters") is not None:
        _check_number(f"{where}.parameters", quality["parameters"], minimum=0.0)
    for name in ("task", "facts"):
        _check_entries(f"{where}.{name}", quality.get(name))
    groups, curve = quality.get("groups"), quality.get("curve")
    if groups is not None:
        _check_columns(f"{where}.groups", groups, ("values", "correct", "count"), MOST_GROUPS)
        if not isinstance(groups.get("name"), str) or len(groups["name"]) > _LONGEST_ENTRY:
            raise RecordError(f"{where}.groups.name: expected a short string")
        if any(c > n for c, n in zip(groups["correct"], groups["count"], strict=True)):
            raise RecordError(f"{where}.groups: more correct than there are")
    if curve is not None:
        _check_columns(f"{where}.curve", curve, ("step", "time", "loss"), MOST_CURVE)


def _check_columns(where: str, table: Any, names: tuple[str, ...], most: int) -> None:
    """Check lists of numbers of one length."""
    if not isinstance(table, dict):
        raise RecordError(f"{where}: expected an object or null")
    for name in names:
        column = table.get(name)
        if not isinstance(column, list) or len(column) > most:
            raise RecordError(f"{where}.{name}: expected at most {most} numbers in a list")
        for value in column:
            _check_number(f"{where}.{name}", value, minimum=0.0, maximum=_LARGEST_ENTRY)
    if len({len(table[name]) for name in names}) > 1:
        raise RecordError(f"{where}: expected {', '.join(names)} of one length")


def _check_entries(where: str, entries: Any) -> None:
    """Check options or facts: a few names, each with a short text or a number."""
    if entries is None:
        return
    if not isinstance(entries, dict) or len(entries) > _MOST_ENTRIES:
        raise RecordError(f"{where}: expected an object of at most {_MOST_ENTRIES} entries")
    for name, value in entries.items():
        at = f"{where}.{clean(name[:_LONGEST_ENTRY])}"
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(at, value, minimum=-_LARGEST_ENTRY, maximum=_LARGEST_ENTRY)
        elif isinstance(value, str) and len(value) > _LONGEST_ENTRY:
            raise RecordError(f"{at}: expected at most {_LONGEST_ENTRY} characters")


def _check_number(
    where: str, value: Any, *, minimum: float, maximum: float = _LARGEST_NUMBER
) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(f"{where}: expected a number, got {type(value).__name__}")
    if not minimum <= value <= maximum:
        raise RecordError(f"{where}: expected a number from {minimum:g} to {maximum:g}")
