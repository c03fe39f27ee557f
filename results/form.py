"""The form of a record, declared for msgspec, and plain words for what has another form.

Below the schema: no project import. An object may have more fields than are declared, of any form.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from inspect import isclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType, inspect


class RecordError(ValueError):
    """A record that does not have the documented form; the message says where and what."""


def one_of(words: Sequence[str]) -> Meta:
    """Return what a string is checked by that is one of some words."""
    return Meta(pattern=rf"\A(?:{'|'.join(words)})\Z", description=f"one of {', '.join(words)}")


def declared(needed: Mapping[str, Any] | None = None, /, **optional: Any) -> Any:
    """Return the form of an object by those of its fields: needed; absent, null or of a form."""
    fields = [(name, form | None, None) for name, form in optional.items()]
    return msgspec.defstruct("Declared", [*(needed or {}).items(), *fields])


def amounts(names: Iterable[str]) -> Any:
    """Return the form of an object of optional amounts."""
    return declared(**dict.fromkeys(names, Amount))


def list_of(form: Any, most: int, least: int | None = None) -> Any:
    """Return the form of a list of a bounded length."""
    return Annotated[list[form], Meta(min_length=least, max_length=most)]


def dict_of(form: Any, most: int = 64) -> Any:
    """Return the form of an object of so many fields, whose names are a stranger's."""
    return Annotated[dict[str, form], Meta(max_length=most)]


MOST_ARMS = 64
LONGEST_NAME = 100

Status = Literal["ok", "unsupported", "out_of_memory", "timeout", "crashed", "failed", "not_run"]

Count = Annotated[int, Meta(ge=0, le=2**53)]
Amount = Annotated[float, Meta(ge=0, le=1e300)]
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]
Id = Annotated[str, Meta(max_length=200)]
Name = Annotated[str, Meta(max_length=LONGEST_NAME)]
Identifier = Annotated[
    str,
    Meta(pattern=r"\A[A-Za-z_]\w{0,99}\Z", description="a name of at most 100 letters, digits, _"),
]
Precision = Literal["full", "reduced"]

COSTS = ("pattern_ops", "executed_ops", "exponentials", "bytes")
"""The declared cost of one call."""

COMPILED = ("compile_time", "graphs", "breaks", "recompiles")
"""What torch's compiler did."""

Samples = list_of(Finite, 10**6, least=1) | UnsetType
Metric = msgspec.defstruct(
    "Metric",
    [
        ("unit", Name),
        ("samples", Samples, UNSET),
        ("value", Any, None),
        ("sentinel", Samples, UNSET),
    ],
)
"""Samples, or else a value, which `check_metric` looks at; a latency's sentinel is in seconds."""

Gradient = declared(
    relative_l2=Amount, precision=Precision, difference=Amount, allowed=Amount,
)  # fmt: skip

Fingerprint = dict_of(
    declared({"projections": list_of(Finite, 1024, least=1), "norm": Amount, "allowed": Amount})
)
"""Of a first launch's output and gradient: what later ones are held against, products of rows with
fixed vectors."""

Gate = declared(
    relative_l2=Amount, budget=Amount, precision=Precision, gradient=Gradient,
    fingerprint=Fingerprint, same_as_launch=Count, difference=Amount, allowed=Amount,
)  # fmt: skip
"""How far an output was off its reference. That of a launch behind a case's first says in place of
that how far it was off the first's: ``same_as_launch``, ``difference``, ``allowed``."""

Contestant = declared(
    {"metrics": dict_of(Metric)},
    cost=amounts(COSTS),
    expected=amounts(("time", "memory")),
    gate=Gate,
    compiled=amounts(COMPILED),
    fixed_size=dict_of(Amount),
)
"""What an arm of the case reached."""

Record = declared(
    {
        "schema": Annotated[int, Meta(ge=1)], "measurement": Annotated[int, Meta(ge=0)],
        "run": Id, "machine": Id, "environment": Id, "status": Status, "case": dict[str, Any],
        "launch": declared({"index": Count}),
        "arms": list_of(Contestant, MOST_ARMS),
    },
    reason=str, commit=Id,
)  # fmt: skip
"""A record; its case is a `results.schema.Case` with an id."""


LARGEST_VALUE, SMALLEST_VALUE = 1e30, 1e-30
"""Of any metric that is not 0: a quotient of two, and its square, is a float."""

_RANGES = {"latency": (1e-12, 1e9), "accuracy": (SMALLEST_VALUE, 1.0)}


def check_metric(
    where: str, name: str, metric: Mapping[str, Any], unit: str | None, *, is_signed: bool
) -> None:
    """Check a `Metric` by its name.

    Args:
        where: its place in the record.
        name: its name.
        metric: its unit, and samples or a value.
        unit: that of metrics of this name; None if it may be any.
        is_signed: whether values may lie below zero.

    Raises:
        RecordError: naming the field, what was there and what is accepted.
    """
    checked(name, Name, f"{where} (name)")
    if unit not in (None, metric["unit"]):
        raise RecordError(f"{where}.unit: expected {unit}, got {metric['unit']!r}")
    if "samples" not in metric:
        checked(metric.get("value"), Finite, f"{where}.value")
    least, most = _RANGES["latency"]
    for value in metric.get("sentinel", ()):
        if not least <= value <= most:
            raise RecordError(f"{where}.sentinel: expected {least:g} to {most:g}, got {value:g}")
    least, most = _RANGES.get(name, (SMALLEST_VALUE, LARGEST_VALUE))
    is_time = name == "latency"
    for value in metric.get("samples", [metric.get("value")]):
        size = abs(value) if is_signed and not is_time else value
        if not least <= size <= most and (size or is_time):
            raise RecordError(f"{where}: expected {least:g} to {most:g}, got {value:g}")


# -- what has another form, in words -------------------------------------------------------------


def checked(data: object, form: Any, where: str = "") -> Any:
    """Return JSON values in the types of a form.

    Args:
        data: what a record holds.
        form: a type as msgspec reads it.
        where: the place of `data` in the record.

    Raises:
        RecordError: naming the field, what was there and what is accepted.
    """
    try:
        return msgspec.convert(data, form)
    except msgspec.ValidationError as error:
        fault = _fault(str(error), data, form, where)
    except UnicodeEncodeError:  # half a character in a name, where msgspec takes none
        mended = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")
        return checked(json.loads(mended), form, where)
    raise RecordError(fault)


def shown(name: str) -> str:
    """Return a stranger's name as a message may hold it."""
    short = name[:LONGEST_NAME]
    return short if short.isprintable() else repr(short)


_PLACE = re.compile(r"(?s)(.*) - at `\$((?:\.\w+|\[\d+\]|\[\.\.\.\])*)`\Z")


def _fault(message: str, data: Any, form: Any, where: str) -> str:
    """Say in plain words what msgspec says, by the place in the data and in the form."""
    at_place = _PLACE.match(message)
    said, place = at_place.groups() if at_place else (message, "")
    for name, index in re.findall(r"\.(\w+)|\[(\d*)", place):
        form = _within(form, name)
        key: Any = name or (int(index) if index else _misfit(data, form))
        data = data[key]
        where += f"[{key}]" if index else f".{shown(key)}"
    at = where.removeprefix(".")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", said):
        at = f"{at}.{missing[1]}".removeprefix(".")
        return f"{at}: missing, expected {_words(inspect.type_info(_within(form, missing[1])))}"
    if said.startswith("Object contains unknown"):
        return f"{at}: {said}"
    got = f"{len(data):,} long" if " of length " in said and data else _REPR.repr(data)
    return f"{at}: expected {_words(inspect.type_info(form))}, got {got}".removeprefix(": ")


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring = 2, 60


def _misfit(values: Mapping[str, Any], form: Any) -> str:
    """Return the first field whose value is of another form: msgspec does not name it."""
    for name, value in values.items():
        try:
            msgspec.convert(value, form)
        except (msgspec.ValidationError, UnicodeEncodeError):
            return name
    raise LookupError("every field is of the form")


def _within(form: Any, name: str) -> Any:
    """Return the form of a field of this name, or where it has none, of an item or any field."""
    if get_origin(form) in (Annotated, Union, UnionType):
        inner = get_args(form)[: 1 if get_origin(form) is Annotated else None]
        return next(found for one in inner if (found := _within(one, name)) is not None)
    if get_origin(form) in (list, tuple, dict):
        return get_args(form)[get_origin(form) is dict]
    return get_type_hints(form, include_extras=True).get(name) if isclass(form) else None


def _words(form: inspect.Type) -> str:
    """Say what a form accepts."""
    match form:
        case inspect.UnionType(types=options):
            return " or ".join(_words(one) for one in options)
        case inspect.LiteralType(values=words):
            return f"one of {', '.join(map(str, words))}"
        case inspect.Metadata(extra_json_schema={"description": str(words)}):
            return words
    bounds = ((text, getattr(form, name, None)) for name, text in _BOUNDS.items())
    ends = (text.format(bound) for text, bound in bounds if bound is not None)
    return "".join([_KINDS[type(form)], *ends])


_BOUNDS = {
    "ge": " from {:,}", "le": " to {:,}",
    "min_length": " of at least {:,}", "max_length": ", at most {:,} long",
}  # fmt: skip
_KINDS: Mapping[type, str] = {
    inspect.IntType: "a whole number", inspect.FloatType: "a number",
    inspect.BoolType: "true or false", inspect.NoneType: "null", inspect.StrType: "a string",
    inspect.ListType: "a list", inspect.VarTupleType: "a list", inspect.DictType: "an object",
    inspect.StructType: "an object", inspect.DataclassType: "an object",
}  # fmt: skip
