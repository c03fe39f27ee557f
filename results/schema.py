"""What a record looks like: the one thing that measuring and reporting share.

On the lowest floor of the house, above `results.form` and `results.option_text`: no torch, no
pandas.

A run is a folder with three files of JSON lines. ``records.jsonl`` holds one line a launch,
``machines.jsonl`` and ``environments.jsonl`` hold what the launches ran on, addressed by the hash
of their content. ``plans.jsonl`` says which launches the run is to hold (`results.records.plans`).
Raw samples are kept; statistics are computed from them by the readers.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

from results.form import (
    COSTS,
    MOST_ARMS,
    Count,
    Identifier,
    Record,
    RecordError,
    Status,
    check_metric,
    checked,
    one_of,
    shown,
)
from results.metrics import METRICS, RECORDED
from results.option_text import LONGEST, format_option, parse_length, parse_option

__all__ = [
    "COSTS", "LONGEST", "RecordError", "Status", "format_option", "parse_length", "parse_option",
]  # fmt: skip
"""What is of a floor below, and known by this module's name."""

SCHEMA = 1
"""Version of the record's layout. Readers refuse a newer one."""

MEASUREMENT = 4
"""Version of the measuring code. Raised when old numbers are no longer comparable."""

RECORDS = "records.jsonl"
MACHINES = "machines.jsonl"
ENVIRONMENTS = "environments.jsonl"
PLANS = "plans.jsonl"

Kind = Identifier
"""What a case is of: a suite's own word."""
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
"""Kind and only arm of a case that runs of measurement 2 repeated: the same work in every version,
so that what changes in it is the machine. Since then each launch has it (`sentinel_of`)."""

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


def sentinel_of(metric: Mapping[str, Any]) -> float:
    """Return the median in seconds of the sentinel beside a latency; NaN where there is none.

    The sentinel is the same work in every launch of every version, timed in turn with the calls
    (``metrics.latency.sentinel``, seconds, one for each of the samples): what changes in it is the
    machine. Records of before measurement 3 have none.
    """
    samples = metric.get("sentinel")
    return statistics.median(samples) if samples else math.nan


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


@dataclass(frozen=True)
class Case:
    """One thing measured in one process: its shape, where it runs, and its arms.

    Lengths are in tokens; in mode decode `seq_len` is that of the context, and a call is the
    second token behind it. At level layer and block the width is ``num_heads * head_dim``. At
    level model the model's configuration has the heads and says whether attention is causal: here
    they are 0 and false.

    Attributes:
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
        packed: of kind speed: the documents that the row of `seq_len` tokens holds, each attended
            to by itself (``uniform:low=64,high=512``); "" = one.
        padded: whether these are the rows of a batch, padded to the longest, in its place.
    """

    kind: Kind
    level: Level
    mode: Mode
    arms: Annotated[tuple[Arm, ...], Meta(min_length=1, max_length=MOST_ARMS)]
    batch: Count
    num_heads: Count
    num_kv_heads: Count
    head_dim: Count
    seq_len: Count
    key_len: Count
    device: Annotated[str, one_of(DEVICES)]
    dtype: Annotated[str, one_of(DTYPES)]
    is_causal: bool
    threads: Count
    allocator: Allocator
    compile: bool
    seed: Count
    matmul_precision: MatmulPrecision = FULL_PRECISION
    model: str = ""
    checkpointing: bool = False
    inputs: str = ""
    task: str = ""
    training: str = ""
    weights: str = ""
    ranks: Count = 1
    packed: str = ""
    padded: bool = False

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
            RecordError: if a field is missing, unknown or of another form.
        """
        case: Case = checked(data, cls, "case")
        unknown = data.keys() - cls.__dataclass_fields__.keys() - {"id"}
        unknown |= {key for arm in data["arms"] for key in arm} - {"name", "options"}
        if unknown:
            raise RecordError(f"case: unknown {', '.join(map(shown, sorted(unknown)))}")
        return case


LATER_FIELDS: Mapping[str, Any] = {
    f.name: f.default for f in fields(Case) if f.default is not MISSING
}  # fmt: skip
"""Fields that old records lack, and what they then were."""


class NewerSchemaError(RecordError):
    """A record of a layout that came after this version."""


def check_record(data: Any) -> dict[str, Any]:
    """Return `data` if it is a record that this version reads.

    What may be left out of a record, as its profile, is not looked at.

    Raises:
        NewerSchemaError: if the schema is newer.
        RecordError: naming the field, what was there and what is accepted.
    """
    if not isinstance(data, dict):
        raise RecordError(f"expected an object, got {type(data).__name__}")
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerSchemaError(f"schema: {schema} is newer than this version reads ({SCHEMA})")
    checked(data, Record)
    case, arms = Case.from_json(data["case"]), data["arms"]
    if (given := data["case"].get("id")) != case.id:
        raise RecordError(f"case.id: {given!r:.60} is not the hash of the case")
    if case.kind in ("speed", "peer") and case.seq_len < 1:
        raise RecordError("case.seq_len: expected a length from 1, got 0")
    if data["status"] == "ok" and len(arms) != len(case.arms):
        raise RecordError(f"arms: the case has {len(case.arms)}, the results {len(arms)}")
    for index, arm in enumerate(arms):
        for name, metric in arm["metrics"].items():
            where = f"arms[{index}].metrics.{shown(name)}"
            is_signed = case.kind not in UNSIGNED_KINDS
            check_metric(where, name, metric, UNITS.get(name), is_signed=is_signed)
    return data
