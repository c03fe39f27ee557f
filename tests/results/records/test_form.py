"""What of a stranger's record is refused, by its field, and what is accepted: a row each."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import synthetic
import synthetic_quality

from results.records.json_lines import parse
from results.records.load import load
from results.records.validation import drop_faults
from results.schema import LATER_FIELDS, UNITS, RecordError, check_record, content_id

ABSENT = object()
LONG = "x" * 100_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A record with every part that one may have."""
    extra = {
        "profile": synthetic.profile(), "fixed_size": {"rank": 256},
        "gate": {"relative_l2": 1e-7, "budget": 1e-6, "precision": "full",
                 "gradient": {"relative_l2": 1e-7, "precision": "reduced"},
                 "fingerprint": {"output": {"projections": [1.5], "norm": 2.0, "allowed": 1e-6}}},
        "compiled": {"compile_time": 1.0, "graphs": 1, "breaks": 0, "recompiles": 0},
        "quality": synthetic_quality.task_records(seeds=(0,))[0]["arms"][0]["quality"],
    }  # fmt: skip
    folder = synthetic.write_run(
        tmp_path_factory.mktemp("whole"), {"mine": synthetic.Law(1e-6, 1.0, extra=extra)},
        lengths=(512,), launches=1, modes=("forward",),
    )  # fmt: skip
    records = synthetic.read_records(folder)
    record = next(r for r in records if r["case"]["kind"] == "speed")
    record["conditions"] = synthetic.conditions()
    record["launch"]["predicted"] = {"latency": 0.1, "peak_memory": None}
    record["arms"][0]["metrics"]["latency"]["stopped"] = "spread"
    return record


def keys_of(place: str) -> list[str | int]:
    found = re.findall(r"\[(\d+)\]|([^.\[]+)", place)
    return [name or int(index) for index, name in found]


def with_(record: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """Return a record with a value in one place; a changed case has the id of its content."""
    changed = copy.deepcopy(record)
    *way, last = keys_of(place)
    holder: Any = changed
    for key in way:
        holder = holder[key]
    if value is ABSENT:
        del holder[last]
    else:
        holder[last] = value
    case = changed["case"]
    if place.startswith("case.") and last != "id":
        content = {k: v for k, v in case.items() if k != "id"}
        case["id"] = content_id({k: v for k, v in content.items()
                                 if k not in LATER_FIELDS or v != LATER_FIELDS[k]})  # fmt: skip
    return changed


METRIC, MINE = "arms[0].metrics.latency", "arms[0].metrics.mine"
COUNT = "expected a whole number from 0 to 9,007,199,254,740,992, got "
AMOUNT = "expected a number from 0 to 1e+300"
TEXT = "expected a string, at most 200 long"

REFUSED: list[tuple[str, Any, str]] = [
    ("schema", 0, "schema: expected a whole number from 1, got 0"),
    ("schema", 2, "schema: 2 is newer than this version reads (1)"),
    ("schema", True, "schema: expected a whole number from 1, got True"),
    ("schema", ABSENT, "schema: missing, expected a whole number from 1"),
    ("measurement", -1, "measurement: expected a whole number from 0, got -1"),
    ("measurement", "2", "measurement: expected a whole number from 0, got '2'"),
    *((name, LONG, f"{name}: {TEXT}, got 100,000 long") for name in ("run", "machine",
                                                                      "environment")),
    ("commit", LONG, "commit: expected a string, at most 200 long or null, got 100,000 long"),
    ("run", None, f"run: {TEXT}, got None"),
    ("status", "great", "status: expected one of crashed, failed, not_run, ok, out_of_memory"),
    ("status", [], "status: expected one of crashed"),
    ("reason", ["x"], "reason: expected a string or null, got ['x']"),
    ("launch", [], "launch: expected an object, got []"),
    *(("launch.index", n, f"launch.index: {COUNT}{n}") for n in (True, -1, 2**60, 1.0)),
    ("case", 3, "case: expected an object, got 3"),
    ("case.id", "0" * 16, "case.id: '0000000000000000' is not the hash of the case"),
    ("case.mine", 1, "case: unknown mine"),
    ("case.batch", ABSENT, "case.batch: missing, expected a whole number from 0"),
    ("case.seq_len", 0, "case.seq_len: expected a length from 1, got 0"),
    *(("case.seq_len", n, f"case.seq_len: {COUNT}{n}") for n in (10**18, -1, 512.0, True, None)),
    *(("case.kind", kind, "case.kind: expected a name of at most 100") for kind in ("", "a b", 3)),
    ("case.mode", "backward", "case.mode: expected one of context_parallel, decode, forward"),
    ("case.dtype", "int3", "case.dtype: expected one of float32, float64, bfloat16, float16, got"),
    ("case.device", None, "case.device: expected one of cpu, cuda, got None"),
    ("case.compile", 1, "case.compile: expected true or false, got 1"),
    ("case.model", 3, "case.model: expected a string, got 3"),
    ("case.arms", [], "case.arms: expected a list of at least 1, at most 64 long, got []"),
    ("case.arms", [{"name": "a"}] * 5000, "case.arms: expected a list of at least 1, at most 64 "),
    ("case.arms", [{"options": {}}], "case.arms[0].name: missing, expected a string"),
    ("case.arms", [{"name": "a", "options": 3}], "case.arms[0].options: expected an object, got"),
    ("case.arms", [{"name": "a", "mine": 3}], "case: unknown mine"),
    ("arms", [], "arms: the case has 1, the results 0"),
    ("arms", [{"metrics": {}}] * 65, "arms: expected a list, at most 64 long, got 65 long"),
    ("arms[0]", 3, "arms[0]: expected an object, got 3"),
    ("arms[0].metrics", ABSENT, "arms[0].metrics: missing, expected an object"),
    ("arms[0].metrics", {str(i): {} for i in range(65)}, "arms[0].metrics: expected an object"),
    ("arms[0].metrics", {LONG: {"unit": "1", "value": 1}}, "(name): expected a string, at most"),
    (METRIC, 3, f"{METRIC}: expected an object, got 3"),
    (f"{METRIC}.unit", ABSENT, f"{METRIC}.unit: missing, expected a string"),
    (f"{METRIC}.unit", "ms", f"{METRIC}.unit: expected s, got 'ms'"),
    (f"{METRIC}.samples", [], f"{METRIC}.samples: expected a list of at least 1, at most 1,00"),
    (f"{METRIC}.samples", None, f"{METRIC}.samples: expected a list of at least 1"),
    (f"{METRIC}.samples", ["fast"], f"{METRIC}.samples[0]: expected a number from -1e+300"),
    (f"{METRIC}.samples", [0.1, True], f"{METRIC}.samples[1]: expected a number from -1e+300"),
    *((f"{METRIC}.samples", [0.1, value], f"{METRIC}: expected 1e-12 to 1e+09, got {value}")
      for value in (1e-300, 1e299, 0, -1)),
    (MINE, {"unit": "1", "value": 10**400}, f"{MINE}.value: expected"),
    (MINE, {"unit": "1"}, f"{MINE}.value: expected a number"),
    (MINE, {"unit": "1", "value": float("nan")}, "expected a number from -1e+300"),
    (MINE, {"unit": "1", "value": -1}, "mine: expected 1e-30 to 1e+30, got -1"),
    (MINE, {"unit": "1", "value": 1e31}, "mine: expected 1e-30 to 1e+30, got 1e"),
    *((f"arms[0].metrics.{name}", {"unit": "%", "value": 0.5}, f"{name}.unit: expected {unit}, ")
      for name, unit in UNITS.items()),
    ("arms[0].metrics.accuracy", {"unit": "1", "value": 2}, "accuracy: expected 1e-30 to 1, got"),
    ("arms[0].metrics", {"\x1b[m": {"unit": "1"}}, r"metrics.'\x1b[m'.value: expected a number"),
    ("arms[0].cost.executed_ops", "many", f"cost.executed_ops: {AMOUNT} or null, got 'many'"),
    ("arms[0].expected.time", -1, f"arms[0].expected.time: {AMOUNT} or null, got -1"),
    ("arms[0].gate", 3, "arms[0].gate: expected an object or null, got 3"),
    ("arms[0].gate.precision", "some", "gate.precision: expected one of full, reduced or null"),
    ("arms[0].gate.gradient", 3, "arms[0].gate.gradient: expected an object or null, got 3"),
    ("arms[0].gate.gradient.relative_l2", -1, f"gate.gradient.relative_l2: {AMOUNT} or null"),
    ("arms[0].gate.fingerprint", 3, "gate.fingerprint: expected an object, at most 64 long or"),
    ("arms[0].gate.fingerprint.output.projections", [], "projections: expected a list of at le"),
    ("arms[0].gate.fingerprint.output.norm", -1, f"fingerprint.output.norm: {AMOUNT}, got -1"),
    ("arms[0].gate.same_as_launch", -1, "gate.same_as_launch: expected a whole number from 0"),
    ("arms[0].gate.difference", "x", f"arms[0].gate.difference: {AMOUNT} or null, got 'x'"),
    ("arms[0].metrics.latency.sentinel", [], "latency.sentinel: expected a list of at least 1"),
    ("arms[0].compiled.graphs", -1, f"arms[0].compiled.graphs: {AMOUNT} or null, got -1"),
    ("arms[0].fixed_size", [1], "arms[0].fixed_size: expected an object, at most 64 long or null"),
    ("arms[0].fixed_size", {str(i): i for i in range(65)}, "fixed_size: expected an object, at"),
    ("arms[0].fixed_size.rank", "many", f"arms[0].fixed_size.rank: {AMOUNT}, got 'many'"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "message"), REFUSED)
def test_what_is_refused_is_named(
    whole: dict[str, Any], place: str, value: Any, message: str
) -> None:
    with pytest.raises(RecordError) as caught:
        check_record(with_(whole, place, value))
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("data", [3, [1, 2], None, "record"])
def test_what_is_no_object_is_no_record(data: Any) -> None:
    with pytest.raises(RecordError, match="expected an object, got"):
        check_record(data)


FURLONGS = {"unit": "furlong", "samples": [1, 2.5, 0]}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("case.kind", "my_suite"), ("case.ranks", ABSENT),
        ("case.arms", [{"name": "\ud800", "options": {}}]),
        (MINE, FURLONGS), ("arms[0].metrics", {"\ud800": FURLONGS}),
        ("arms[0].gate", {"same_as_launch": 0, "difference": 0.0, "allowed": 1e-6}),
        ("arms[0].gate", None), ("arms[0].cost", ABSENT), ("arms[0].fixed_size", None),
        ("mine", {"of any": ["form"]}), ("launch.mine", 1), ("arms[0].mine", LONG),
        ("mine\ud800", 1), ("reason", None), ("commit", ABSENT), ("launch.started", 3),
    ],
)  # fmt: skip
def test_what_is_accepted_comes_back_as_it_was(
    whole: dict[str, Any], place: str, value: Any
) -> None:
    record = with_(whole, place, value)
    assert check_record(copy.deepcopy(record)) == record


def test_only_what_an_experiment_finds_may_lie_below_zero(whole: dict[str, Any]) -> None:
    record = with_(whole, MINE, {"unit": "1", "value": -2.5})
    check_record(with_(record, "case.kind", "claim"))
    with pytest.raises(RecordError, match="mine: expected"):
        check_record(record)


PROFILE, LATENCY = "arms[0].profile", "arms[0].metrics.latency"
QUALITY = "arms[0].quality"

DROPPED: list[tuple[str, str, Any, str]] = [
    ("conditions", "", [1], "conditions: expected an object, got [1]"),
    ("conditions", ".steal", "much", f"conditions.steal: {AMOUNT} or null, got 'much'"),
    ("conditions", ".other_cpu", -1, f"conditions.other_cpu: {AMOUNT} or null, got -1"),
    ("conditions", ".gpu_throttled", [1], "conditions.gpu_throttled[0]: expected a string, at mo"),
    ("conditions", ".gpu_throttled", ["x" * 101], "gpu_throttled[0]: expected a string, at most"),
    ("conditions", ".gpu_throttled", ["x"] * 21, "gpu_throttled: expected a list, at most 20 lon"),
    ("launch.predicted", "", 3, "launch.predicted: expected an object, got 3"),
    ("launch.predicted", ".latency", True, "launch.predicted.latency: expected a number from 0"),
    (f"{LATENCY}.stopped", "", "tired", "stopped: expected one of spread, budget, count, got 'ti"),
    (PROFILE, "", [], "arms[0].profile: expected an object, got []"),
    (PROFILE, ".seconds", 0, "arms[0].profile.seconds: expected a number from 1e-09 to 1,000,000"),
    (PROFILE, ".seconds", ABSENT, "arms[0].profile.seconds: missing, expected a number from"),
    (PROFILE, ".parts", [], "arms[0].profile.parts: expected an object, got []"),
    (PROFILE, ".parts.rest", {}, "arms[0].profile.parts: Object contains unknown field `rest`"),
    (PROFILE, ".parts.copies", 3, "arms[0].profile.parts.copies: expected an object, got 3"),
    (PROFILE, ".parts.fused.seconds", -1, "parts.fused.seconds: expected a number from 0 to 1,00"),
    (PROFILE, ".parts.fused.operations", "9", f"fused.operations: {AMOUNT} or null, got '9'"),
    (PROFILE, ".products", [{}] * 101, "products: expected a list, at most 100 long or null, got"),
    (PROFILE, ".products[1]", None, "arms[0].profile.products[1]: expected an object, got None"),
    (PROFILE, ".products[1].shape", 7, "products[1].shape: expected a string, got 7"),
    (PROFILE, ".products[1].alone", True, f"products[1].alone: {AMOUNT} or null, got True"),
    (PROFILE, ".failed", ["x"], "arms[0].profile.failed: expected a string, got ['x']"),
    (QUALITY, "", 3, "arms[0].quality: expected an object, got 3"),
    (QUALITY, ".metric", "f1", "quality.metric: expected one of accuracy, bits_per_byte or null"),
    (QUALITY, ".chance", "x", "arms[0].quality.chance: expected a number from 0 to 1 or null"),
    (QUALITY, ".chance", 1.5, "arms[0].quality.chance: expected a number from 0 to 1 or null"),
    (QUALITY, ".parameters", -1, f"arms[0].quality.parameters: {AMOUNT} or null, got -1"),
    (QUALITY, ".groups", [1], "arms[0].quality.groups: expected an object or null, got [1]"),
    (QUALITY, ".groups.name", "x" * 301, "groups.name: expected a string, at most 300 long"),
    (QUALITY, ".groups.count", [1], "groups: expected values, correct, count of one length"),
    (QUALITY, ".groups.correct", [10**6] * 7, "quality.groups: more correct than there are"),
    (QUALITY, ".groups.values", [True] * 7, "quality.groups.values[0]: expected a number from 0"),
    (QUALITY, ".curve.loss", [1.0] * 100_000, "curve.loss: expected a list, at most 2,000 long"),
    (QUALITY, ".curve.step", ["x"] * 60, "quality.curve.step[0]: expected a number from 0 to"),
    (QUALITY, ".curve.step", [1], "quality.curve: expected step, time, loss of one length"),
    (QUALITY, ".facts", 3, "arms[0].quality.facts: expected an object, at most 64 long or null"),
    (QUALITY, ".facts", {str(i): i for i in range(65)}, "facts: expected an object, at most 64 l"),
    (QUALITY, ".facts", {"a": 1e19}, "arms[0].quality.facts.a: expected a number from -1e+18"),
    (QUALITY, ".task", {"a": "x" * 301}, "task.a: expected a number from -1e+18 to 1e+18 or a st"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "place", "value", "message"), DROPPED)
def test_a_fault_beside_the_measurements_costs_its_part_alone(
    whole: dict[str, Any], part: str, place: str, value: Any, message: str
) -> None:
    record = check_record(with_(whole, part + place, value))
    (fault,) = drop_faults(record)
    assert message in fault
    assert fault.endswith(f"; {part.rpartition('.')[2]} left out")
    assert record == with_(whole, part, ABSENT)


def test_what_is_whole_or_not_there_is_no_fault(whole: dict[str, Any]) -> None:
    record = copy.deepcopy(whole)
    assert list(drop_faults(record)) == []
    assert record == whole
    nothing = {"conditions": None, "launch": {"predicted": None},
               "arms": [{"metrics": {"latency": {"stopped": None}}}, {"metrics": {}}]}  # fmt: skip
    assert list(drop_faults(nothing)) == []
    assert list(drop_faults(with_(whole, PROFILE, {"failed": "no luck"}))) == []


# -- lines ---------------------------------------------------------------------------------------

NO_JSON: list[tuple[bytes, str]] = [
    (b'{"schema": 1e400}', "a number beyond any float"),
    (b'{"schema": -1e999}', "a number beyond any float"),
    (b'{"schema": ' + b"1" * 400 + b".0}", "a number beyond any float"),
    (b'{"schema": ' + b"9" * 20 + b"}", "a whole number of 20 digits; expected 19 at most"),
    (b'{"schema": -' + b"9" * 20 + b"}", "a whole number of 20 digits; expected 19 at most"),
    (b'{"schema": ' + b"9" * 100_000 + b"}", "of hundreds of digits"),
    (b'{"schema": NaN}', "malformed: invalid character (byte 11)"),
    (b'{"schema": -Infinity}', "malformed"),
    (b'{"schema": 1, "schema": 1}', "the key 'schema' stands twice in one object"),
    (rb'{"schema": 1, "sch\u0065ma": "\u003a"}', "the key 'schema' stands twice in one object"),
    (b'{"a": [{"b": ":", "b": "::"}]}', "the key 'b' stands twice in one object"),
    (b'{"a": ' * 70 + b"1" + b"}" * 70, "more than 64 levels"),
    (b"[" * 70 + b"]" * 70, "more than 64 levels"),
    (b"[" * 200_000, "recursion"),
    (b"\xff\xfe{\x00}\x00", "malformed"),
    (b'{"a": "\xed\xa0\x80"}', "Invalid UTF-8"),
    (b"\x00" * 4096, "malformed"),
    (b'{"a": "\x1b[31m"}', "malformed"),
    (b'{"schema": 1, "meas', "truncated"),
    (b'{"a": "\\ud8', "truncated"),
    (b"{'a': 1}", "malformed"),
    (b'{"a": 01}', "malformed"),
    (b'{"a": 1} {"a": 1}', "malformed: trailing characters"),
]


@pytest.mark.parametrize(("raw", "message"), NO_JSON)
def test_a_line_that_is_no_plain_json_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises((ValueError, RecursionError), match=re.escape(message)):
        parse(raw)


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"a": "\ud800", "b\udc00": "\ud83d\ude00"}', rb'{"\\ud800": 1, "\u003a": ":"}',
        b'{"a": 9223372036854775807, "b": -9999999999999999999}', b'{"a": 0.12345678901234567890}',
        b'"' + b"9" * 30 + b'"', b"[" * 64 + b"]" * 64, b'{"a": 1e-999}',
        '{"ä": "×"}'.encode(),
    ],
)  # fmt: skip
def test_plain_json_is_read_as_the_standard_library_does(raw: bytes) -> None:
    assert parse(raw) == json.loads(raw)


def test_a_fault_is_named_by_file_line_and_field_and_the_rest_is_used(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    bad = [with_(whole, place, value) for place, value, _ in REFUSED]
    partly = with_(with_(whole, PROFILE, 3), "launch.index", 7)
    texts = [json.dumps(record).encode() for record in (whole, *bad, partly)]
    folder = synthetic.write_records(tmp_path, [])
    (folder / "records.jsonl").write_bytes(b"\n".join([*texts, *(raw for raw, _ in NO_JSON)]))
    run = load(folder)
    assert [record["launch"]["index"] for record in run.records] == [0, 7]
    place = f"{folder / 'records.jsonl'}:"
    messages = [w for w in run.warnings if w.startswith(place)]
    assert len(messages) == len(REFUSED) + 1 + len(NO_JSON)
    for number, message in enumerate(messages, start=2):
        assert message.startswith(f"{place}{number}: ")
        assert message.endswith("left out")
        assert message.isprintable()
        assert len(message) < 500
