"""The form of a record, declared for msgspec, and plain words for what has another form.

Below the schema: no project import. An object may have more fields than are declared, of any form.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, inspect

MOST_ARMS = 64
LONGEST_NAME = 100
LARGEST_VALUE, SMALLEST_VALUE = 1e30, 1e-30
"""Of any metric that is not 0: a quotient of two, and its square, is a float."""


def one_of(words: Sequence[str]) -> Meta:
    """Return what a string is checked by that is one of some words."""
    return Meta(pattern=rf"\A(?:{'|'.join(words)})\Z", description=f"one of {', '.join(words)}")


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


class Launch(Struct):
    """Which repetition of a case a record is of."""

    index: Count


class Cost(Struct):
    """The declared cost of one call."""

    pattern_ops: Amount | None = None
    executed_ops: Amount | None = None
    exponentials: Amount | None = None
    bytes: Amount | None = None


COSTS = Cost.__struct_fields__


class Expected(Struct):
    """What a call is declared to take: seconds and bytes."""

    time: Amount | None = None
    memory: Amount | None = None


class Gradient(Struct):
    """How far a gradient is from the reference's."""

    relative_l2: Amount | None = None
    precision: Precision | None = None


class Gate(Gradient):
    """How far an output is from the reference's, and how far it may be."""

    budget: Amount | None = None
    gradient: Gradient | None = None


class Compiled(Struct):
    """What torch's compiler did."""

    compile_time: Amount | None = None
    graphs: Amount | None = None
    breaks: Amount | None = None
    recompiles: Amount | None = None


class Metric(Struct):
    """What was measured: samples, or else a value."""

    unit: Name
    samples: Annotated[list[Finite], Meta(min_length=1, max_length=10**6)] | UnsetType = UNSET
    value: Any = None


class Contestant(Struct):
    """What an arm of the case reached; see `check_metric`. The fixed sizes are amounts."""

    metrics: Annotated[dict[str, Any], Meta(max_length=64)]
    cost: Cost | None = None
    expected: Expected | None = None
    gate: Gate | None = None
    compiled: Compiled | None = None
    fixed_size: Annotated[dict[str, Any], Meta(max_length=64)] | None = None


class Record(Struct):
    """A record; its `case` is a `results.schema.Case` with an id."""

    schema: Annotated[int, Meta(ge=1)]
    measurement: Annotated[int, Meta(ge=0)]
    run: Id
    machine: Id
    environment: Id
    status: Status
    case: dict[str, Any]
    launch: Launch
    arms: Annotated[list[Contestant], Meta(max_length=MOST_ARMS)]
    reason: str | None = None
    commit: Id | None = None


_RANGES = {"latency": (1e-12, 1e9), "accuracy": (SMALLEST_VALUE, 1.0)}


def check_metric(where: str, name: str, data: Any, unit: str | None, *, is_signed: bool) -> None:
    """Check a metric of an arm.

    Args:
        where: its place in the record.
        name: its name.
        data: what the record says of it.
        unit: that of a metric of this name; None if it may be any.
        is_signed: whether values may lie below zero.

    Raises:
        RecordError: naming the field, what was there and what is accepted.
    """
    metric: Metric = checked(data, Metric, where)
    checked(name, Name, f"{where} (name)")
    if unit not in (None, metric.unit):
        raise RecordError(f"{where}.unit: expected {unit}, got {metric.unit!r}")
    given = metric.samples
    values = [checked(metric.value, Finite, f"{where}.value")] if given is UNSET else given
    least, most = _RANGES.get(name, (SMALLEST_VALUE, LARGEST_VALUE))
    is_time = name == "latency"
    for value in values:
        size = abs(value) if is_signed and not is_time else value
        if not least <= size <= most and (size or is_time):
            raise RecordError(f"{where}: expected {least:g} to {most:g}, got {value:g}")


# -- what has another form, in words -------------------------------------------------------------


class RecordError(ValueError):
    """A record that does not have the documented form; the message says where and what."""


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


def checked_each(entries: Mapping[str, object], form: Any, where: str) -> None:
    """Check each value of an object whose names are a stranger's; see `checked`."""
    for name, value in entries.items():
        checked(value, form, f"{where}.{shown(name)}")


def shown(name: str) -> str:
    """Return a stranger's name as a message may hold it."""
    short = name[:LONGEST_NAME]
    return short if short.isprintable() else repr(short)


_PLACE = re.compile(r"(?s)(.*) - at `\$((?:\.\w+|\[\d+\])*)`\Z")


def _fault(message: str, data: Any, form: Any, where: str) -> str:
    """Say in plain words what msgspec says, by the place in the data and in the form."""
    at_place = _PLACE.match(message)
    said, place = at_place.groups() if at_place else (message, "")
    accepted = inspect.type_info(form)
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", place):
        data = data[name or int(index)]
        accepted = _within(accepted, name)
    at = f"{where}{place}" if where else place.removeprefix(".")
    field, colon = (f"{at}.", f"{at}: ") if at else ("", "")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", said):
        name = missing[1]
        return f"{field}{name}: missing, expected {_words(_within(accepted, name))}"
    if not said.startswith(("Expected", "Invalid enum", "Number out", "Integer value out")):
        return f"{field}{said}"  # a check of one field against another names the fields
    got = f"{len(data):,} long" if " of length " in said and data else _REPR.repr(data)
    return f"{colon}expected {_words(accepted)}, got {got}"


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring = 2, 60


def _within(form: inspect.Type, name: str) -> inspect.Type:
    """Return the form of a field, or of a list's items where there is no name."""
    for one in form.types if isinstance(form, inspect.UnionType) else (form,):
        if isinstance(one, inspect.StructType | inspect.DataclassType):
            return next(field.type for field in one.fields if field.name == name)
        if isinstance(one, inspect.ListType | inspect.VarTupleType):
            return one.item_type
    raise LookupError(f"{form} has no {name or 'items'}")


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
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.BoolType: "true or false",
    inspect.NoneType: "null",
    inspect.StrType: "a string",
    inspect.ListType: "a list",
    inspect.VarTupleType: "a list",
    inspect.DictType: "an object",
    inspect.StructType: "an object",
    inspect.DataclassType: "an object",
}
