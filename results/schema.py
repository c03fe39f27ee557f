"""What a record looks like: the one thing that measuring and reporting share.

On the lowest floor of the house. Standard library only: no torch, no pandas, no project import but
`results.metrics`.

A run is a folder with three files of JSON lines. ``records.jsonl`` holds one line a launch,
``machines.jsonl`` and ``environments.jsonl`` hold what the launches ran on, addressed by the hash
of their content. ``plans.jsonl`` says which launches the run is to hold (`results.records.plans`).
Raw samples are kept; statistics are computed from them by the readers.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, get_args

from results.metrics import METRICS, RECORDED

SCHEMA = 1
"""Version of the record's layout. Readers refuse a newer one."""

MEASUREMENT = 2
"""Version of the measuring code. Raised when old numbers are no longer comparable."""

RECORDS = "records.jsonl"
MACHINES = "machines.jsonl"
ENVIRONMENTS = "environments.jsonl"
PLANS = "plans.jsonl"

Status = Literal["ok", "unsupported", "out_of_memory", "timeout", "crashed", "failed", "not_run"]
Level = Literal["attention", "layer", "block", "model"]
Mode = Literal["forward", "training", "decode", "context_parallel"]
Allocator = Literal["default", "retained"]
MatmulPrecision = Literal["highest", "high", "medium"]

STATUSES: tuple[str, ...] = get_args(Status)
LEVELS: tuple[str, ...] = get_args(Level)
MODES: tuple[str, ...] = get_args(Mode)
CONTEXT_MODE: Literal["context_parallel"] = "context_parallel"
"""Mode of kind context alone: a training step over a sequence that is cut over ranks."""
SPEED_MODES: tuple[str, ...] = tuple(mode for mode in MODES if mode != CONTEXT_MODE)
"""Modes of kind speed."""
CALL_MODES: tuple[str, ...] = ("forward", "training")
"""Modes of a call on whole sequences."""
ALLOCATORS: tuple[str, ...] = get_args(Allocator)
MATMUL_PRECISIONS: tuple[str, ...] = get_args(MatmulPrecision)
DTYPES: tuple[str, ...] = ("float32", "float64", "bfloat16", "float16")
ITEM_SIZE: Mapping[str, int] = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of an element."""
DEVICES: tuple[str, ...] = ("cpu", "cuda")

FULL_PRECISION: MatmulPrecision = "highest"
"""Torch's default, and what a case has that does not say: records are older than the field."""

IDENTITY = "identity"
"""Name of the arm that has everything of a layer, block or model but the attention."""

LSTM = "lstm"
"""Name of the arm with torch's LSTM in the place of a layer's attention."""

PEER = "peer:"
"""What stands before the name of an arm that is another library's implementation."""

PROJECTIONS = "projections"
"""Name of the arm that has a peer's projections alone."""

SENTINEL = "sentinel"
"""Kind and only arm of the case that is repeated through a run: the same work in every version, so
that what changes in it is the machine."""

TRAINING_KINDS: tuple[str, ...] = ("task", "quantized")
"""Kinds that train a model: their seeds are trainings, and no shorter length foretells them."""

CLAIM: Literal["claim"] = "claim"
"""Kind and only arm of the case that tests a claim by an experiment; its `task` is the claim."""

UNSIGNED_KINDS: tuple[str, ...] = (
    "speed", "peer", "roof", "sentinel", "error", "task", "quantized", "context",
)  # fmt: skip
"""Kinds whose values are all from 0; what an experiment or a plug-in's suite finds may be less."""

CONTEXT: Literal["context"] = "context"
"""Kind of a case over several ranks."""

STOPS: tuple[str, ...] = ("spread", "budget", "count")
"""Why an arm's sampling ended (``metrics.latency.stopped``): the samples agreed, their time was
spent, or there were enough for any purpose. Records from before the word was there have none."""


def warm_up_converged(metric: Mapping[str, Any]) -> bool | None:
    """Return whether a latency's warm-up converged; None where the record does not say."""
    warm_up = metric.get("warm_up")
    told = warm_up.get("converged") if isinstance(warm_up, dict) else None
    return told if isinstance(told, bool) else None


CONDITIONS: Mapping[str, str] = {
    "steal": "1",
    "other_cpu": "1",
    "frequency": "Hz",
    "throttled": "1",
    "switches": "1",
    "gpu_users": "1",
    "gpu_temperature": "degC",
    "gpu_frequency": "Hz",
}
"""What a record's ``conditions`` say of the machine while a launch was timed, and their units.

Each is a number, or null where the system does not tell: processors' time (in processors: 0.5 =
half of one) that the hypervisor gave to others, and that other programs took; the mean clock of
the processors; times a processor slowed itself down for heat or power; involuntary context
switches; processes beside ours on the GPU, its temperature and clock. ``gpu_throttled`` beside
them is a list of reasons.
"""

PROFILE_PARTS: tuple[str, ...] = (
    "products", "fused", "exponentials", "copies", "passes", "compiled", "between",
)  # fmt: skip
"""Parts of a call under the profiler: matrix products; torch's fused attention, whose products and
exponentials are one operator; exponentials and softmax; copies, gathers and fills; every other
pass over memory; code compiled by torch; and what is between them, in Python, dispatch and
allocation.
"""

UNITS: Mapping[str, str] = {name: METRICS[name].unit for name in RECORDED}
"""Metric to unit, of all that records hold: see `results.metrics`."""


class RecordError(ValueError):
    """A record that does not have the documented form; the message says where and what."""


def canonical(value: object) -> str:
    """Return the one JSON text that equal values share: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_id(value: object) -> str:
    """Return the 16 hex digits that address `value` by its canonical JSON."""
    return hashlib.blake2b(canonical(value).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Arm:
    """One contestant in a case: a backend with options, a floor, or a peer."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The arm as the command line writes it: ``longformer:window=64,dilation=1+2``."""
        if not self.options:
            return self.name
        parts = (f"{key}={format_option(self.options[key])}" for key in sorted(self.options))
        return f"{self.name}:{','.join(parts)}"


def format_option(value: Any) -> str:
    """Write an option's value as the command line reads it; lists are joined by ``+``."""
    if isinstance(value, list | tuple):
        return "+".join(format_option(v) for v in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else str(value)


def parse_option(text: str) -> Any:
    """Read an option's value as `format_option` writes it: by its literal form, else text."""
    literal = _literal(text)
    if isinstance(literal, str) and "+" in text:  # 1e+5 is a number, 1+2 a list
        return [_literal(part) for part in text.split("+")]
    return literal


def _literal(text: str) -> int | float | bool | str | None:
    words: dict[str, bool | None] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if math.isfinite(number):
            return number
    return text


@dataclass(frozen=True)
class Case:
    """One thing measured in one process: its shape, where it runs, and its arms.

    Lengths are in tokens; in mode decode `seq_len` is that of the context, and a call is the
    second token behind it. At level layer and block the width is ``num_heads * head_dim``. At
    level model the model's configuration has the heads and says whether attention is causal: here
    they are 0 and false.

    Attributes:
        kind: of measurement: one of `Kind`, or what a plug-in's suite names.
        matmul_precision: of float32 matrix products, in the words of
            ``torch.set_float32_matmul_precision``.
        model: the configuration, as the command line writes it (``bert-base:num_layers=4``);
            "" at the other levels.
        checkpointing: whether training keeps the blocks' inputs alone and computes the rest anew;
            of level model.
        inputs: of kind error: what q, k and v are drawn from (``gaussian:scale=1``); "" at the
            other kinds, as with the next three.
        task: of kind claim: its id. Of kind task and quantized: what is learnt
            (``recall:num_pairs=8``). Its form is
            causal or not as `is_causal` says, and `seq_len` is that of its sequences.
        training: of kind task and quantized: what a training may spend
            (``steps:amount=400,lr=0.002``); `batch` is its own.
        weights: of kind quantized: what the parameters are kept in (``int8``).
        ranks: of kind context: over how many processes the sequence is cut; 1 at the others. On a
            CPU they share the threads.
    """

    kind: str
    level: Level
    mode: Mode
    arms: tuple[Arm, ...]
    batch: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    seq_len: int
    key_len: int
    device: str
    dtype: str
    is_causal: bool
    threads: int
    allocator: Allocator
    compile: bool
    seed: int
    matmul_precision: MatmulPrecision = FULL_PRECISION
    model: str = ""
    checkpointing: bool = False
    inputs: str = ""
    task: str = ""
    training: str = ""
    weights: str = ""
    ranks: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the case as the record holds it, its ``id`` first."""
        return {"id": self.id, **self._content()}

    @cached_property
    def id(self) -> str:
        """The hash of the case's content: equal cases, equal ids, in every run."""
        # A case from before a field was there is the same case, and keeps its id.
        return content_id(
            {
                key: value for key, value in self._content().items()
                if key not in LATER_FIELDS or value != LATER_FIELDS[key]
            }
        )  # fmt: skip

    def _content(self) -> dict[str, Any]:
        """Return the fields as JSON's values."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        content["arms"] = [{"name": a.name, "options": dict(a.options)} for a in self.arms]
        return content

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Case:
        """Build a case from a record's ``case``.

        Raises:
            RecordError: if a field is missing, unknown or of the wrong type.
        """
        names = {f.name for f in fields(cls)}
        given: dict[str, Any] = dict(LATER_FIELDS)
        given |= {key: value for key, value in data.items() if key != "id"}
        if missing := names - given.keys():
            raise RecordError(f"case: missing {', '.join(sorted(missing))}")
        if unknown := given.keys() - names:
            raise RecordError(f"case: unknown {', '.join(map(_shown, sorted(unknown)))}")
        arms = given.pop("arms")
        if not isinstance(arms, list) or not arms:
            raise RecordError(f"case.arms: expected a non-empty list, got {arms!r}")
        for key, value in given.items():
            _check_case_field(key, value)
        return cls(arms=tuple(_arm(a) for a in arms), **given)


LATER_FIELDS: Mapping[str, Any] = {
    f.name: f.default for f in fields(Case) if f.default is not MISSING
}  # fmt: skip
"""Fields that old records lack, and what they then were."""

_TEXT_FIELDS: Mapping[str, tuple[str, ...]] = {
    "level": LEVELS, "mode": MODES, "device": DEVICES, "dtype": DTYPES, "allocator": ALLOCATORS,
    "matmul_precision": MATMUL_PRECISIONS,
}  # fmt: skip


def _shown(name: str) -> str:
    """Return a stranger's name as a message may hold it."""
    return name if name.isprintable() else repr(name)


_KIND = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_kind(value: object) -> bool:
    """Whether a value can name a kind of measurement; of a plug-in's suite it is its own."""
    return isinstance(value, str) and _KIND.fullmatch(value) is not None


def _check_case_field(key: str, value: Any) -> None:
    if key == "kind":
        if not is_kind(value):
            raise RecordError(f"case.kind: expected letters, digits, _ and -, got {value!r}")
    elif key in _TEXT_FIELDS:
        if value not in _TEXT_FIELDS[key]:
            raise RecordError(
                f"case.{key}: expected one of {', '.join(_TEXT_FIELDS[key])}, got {value!r}"
            )
    elif key in ("model", "inputs", "task", "training", "weights"):
        if not isinstance(value, str):
            raise RecordError(f"case.{key}: expected a string, got {value!r}")
    elif key in ("is_causal", "compile", "checkpointing"):
        if not isinstance(value, bool):
            raise RecordError(f"case.{key}: expected true or false, got {value!r}")
    elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RecordError(f"case.{key}: expected a whole number from 0, got {value!r}")


def _arm(data: Any) -> Arm:
    if (
        not isinstance(data, dict)
        or not isinstance(data.get("name"), str)
        or not isinstance(data.get("options", {}), dict)
        or data.keys() - {"name", "options"}
    ):
        raise RecordError(f"case.arms: expected {{name, options}}, got {data!r}")
    return Arm(data["name"], data.get("options", {}))


def check_record(data: Any) -> dict[str, Any]:
    """Return `data` if it is a record that this version reads.

    Raises:
        RecordError: naming the field, what was there and what is accepted.
    """
    if not isinstance(data, dict):
        raise RecordError(f"expected an object, got {type(data).__name__}")
    schema = data.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool):
        raise RecordError(f"schema: expected a whole number, got {schema!r}")
    if schema > SCHEMA:
        raise RecordError(f"schema: {schema} is newer than this version reads ({SCHEMA})")
    for key in ("run", "machine", "environment"):
        if not isinstance(data.get(key), str):
            raise RecordError(f"{key}: expected a string, got {data.get(key)!r}")
    measurement = data.get("measurement")
    if not isinstance(measurement, int) or isinstance(measurement, bool):
        raise RecordError(f"measurement: expected a whole number, got {measurement!r}")
    if data.get("status") not in STATUSES:
        raise RecordError(
            f"status: expected one of {', '.join(STATUSES)}, got {data.get('status')!r}"
        )
    if not isinstance(data.get("case"), dict):
        raise RecordError(f"case: expected an object, got {data.get('case')!r}")
    case = Case.from_json(data["case"])
    if data["case"].get("id") != case.id:
        raise RecordError(f"case.id: {data['case'].get('id')!r} is not the hash of the case")
    launch = data.get("launch")
    if not isinstance(launch, dict) or not isinstance(launch.get("index"), int):
        raise RecordError(f"launch: expected an object with an index, got {launch!r}")
    _check_arms(data, len(case.arms))
    return data


def _check_arms(data: Mapping[str, Any], count: int) -> None:
    arms = data.get("arms")
    if not isinstance(arms, list):
        raise RecordError(f"arms: expected a list, got {arms!r}")
    if data["status"] == "ok" and len(arms) != count:
        raise RecordError(f"arms: the case has {count}, the results are {len(arms)}")
    for index, arm in enumerate(arms):
        if not isinstance(arm, dict) or not isinstance(arm.get("metrics"), dict):
            raise RecordError(f"arms[{index}]: expected an object with metrics, got {arm!r}")
        for name, metric in arm["metrics"].items():
            _check_metric(f"arms[{index}].metrics.{_shown(name)}", metric)


def _check_metric(where: str, metric: Any) -> None:
    if not isinstance(metric, dict) or not isinstance(metric.get("unit"), str):
        raise RecordError(f"{where}: expected an object with a unit, got {metric!r}")
    values = metric.get("samples", [metric.get("value")])
    if not isinstance(values, list) or not values:
        raise RecordError(f"{where}: expected samples or a value, got {metric!r}")
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or value != value or value in (float("inf"), float("-inf")):
            raise RecordError(f"{where}: expected finite numbers, got {value!r}")
