"""The metrics: one table of what a record may measure, and how each is shown, fitted and compared.

The lowest floor of the house, below `results.schema`: standard library only, no project import.

A metric is a row of `METRICS`. Units in records, columns and axes, exponents, verdicts and exports
are read from here. One that has no row, a plug-in's, is shown by its own name and unit
(`metric`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Written = Literal[
    "seconds", "bytes", "operations", "tokens", "share", "error", "number"
]  # fmt: skip
"""How a value is written, see `results.text.written`."""

Role = Literal["cost", "score", "error", "training", "peak", "exchange", "declared", "derived", ""]
"""What a metric tells: a cost of a call, a score of what was learnt, an error of an approximation,
what a training took, a peak of the machine, what ranks exchanged, what a backend declares of a
call, or what follows from others (exports alone have the last two)."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: in records.
        unit: in records.
        written: how a value is written; "number" with its unit.
        role: what it tells.
        title: the heading of what is about it.
        words: in a sentence; of its axis and columns too, unless `axis` says more.
        axis: the label of an axis.
        short: in a column that names what was measured.
        meaning: what it is, for the caption of a figure.
        declared: the column of the exponent that a backend declares of it; "" = none is fitted.
        worse: what it is called where it is more in a new run than in the old one; "" = runs are
            not compared by it. Less is better of all that are compared.
        better: what it is called where it is less.
        resolution: on a CPU a difference up to this is none, in `unit`.
        higher_is_better: whether more is better.
        leads: whether it stands for a case that has several.
        asv: the kind of benchmark that asv takes it as, its unit and its words there; empty = it
            is not among asv's.
    """

    name: str
    unit: str
    written: Written = "number"
    role: Role = ""
    title: str = ""
    words: str = ""
    axis: str = ""
    short: str = ""
    meaning: str = ""
    declared: str = ""
    worse: str = ""
    better: str = ""
    resolution: float = 0.0
    higher_is_better: bool = False
    leads: bool = False
    asv: tuple[str, str, str] | tuple[()] = ()

    @property
    def in_sentence(self) -> str:
        """The title as it is written within a sentence: *peak memory*, *KV cache or state*."""
        is_word = not self.title[1:2].isupper()
        return f"{self.title[:1].lower()}{self.title[1:]}" if is_word else self.title


_ROWS = (
    Metric(
        "latency", "s", "seconds", "cost", title="Time", words="latency", axis="time per call",
        short="time", declared="expected_time", worse="slower", better="faster", leads=True,
        asv=("time", "seconds", "time"),
    ),
    Metric(
        "peak_memory", "B", "bytes", "cost", title="Peak memory", words="peak memory",
        short="memory", declared="expected_memory", worse="larger", better="smaller",
        resolution=2.0**20, asv=("peakmemory", "bytes", "peak memory"),
    ),
    # What is kept of the tokens so far: mode decode's in place of the peak, kind task's beside it.
    Metric(
        "state_bytes", "B", "bytes", "cost", title="KV cache or state", words="KV cache or state",
        short="state", declared="expected_memory", worse="larger", better="smaller",
        asv=("track", "bytes", "state"),
    ),
    # Kind task's: the share of the labels of the test split that are met, and the loss on them.
    Metric(
        "accuracy", "1", "share", "score", title="Accuracy", words="accuracy", axis="accuracy",
        higher_is_better=True, leads=True,
    ),
    Metric(
        "bits_per_byte", "bit/B", "number", "score", title="Bits per byte", words="bits per byte",
        axis="bits per byte (lower is better)", leads=True,
    ),
    Metric("loss", "nat", words="loss"),
    # Kind error's, and speed's where the output is held against exact softmax attention.
    Metric(
        "relative_error", "1", "error", "error", title="Error of the output",
        axis="relative error", leads=True,
        meaning="Relative L2 distance of the output from exact softmax attention",
        asv=("track", "relative L2", "error to exact softmax"),
    ),
    Metric(
        "weights_error", "1", "error", "error", title="Error of the attention weights",
        axis="relative error of weights",
        meaning="Relative L2 distance of the attention weights from exact softmax's",
    ),
    Metric(
        "weights_kl", "nat", "error", "error", title="Divergence of the attention weights",
        axis="KL (nat)",
        meaning="Mean divergence of a row of attention weights from exact softmax's",
    ),
    # Of an output from a counterpart's: a peer's from ours, on inputs of the scale that stands
    # beside it; a quantised model's from the full one's.
    Metric("output_difference", "1", "error", words="output difference"),
    # What training took; the throughput of kind task is that of the training.
    Metric("training_time", "s", "seconds", "training", words="time"),
    Metric("training_steps", "1", "tokens", "training", words="steps"),
    Metric("training_ops", "op", "operations", "training", words="FLOPs"),
    Metric("throughput", "tokens/s", "number", "training", words="tokens/s"),
    Metric("parameter_bytes", "B", "bytes", words="parameters"),  # a quantised model's
    # A roof case's; `torch_matmul_rate`: products by the library that torch takes by itself.
    Metric("matmul_rate", "op/s", "number", "peak", words="matmul"),
    Metric("torch_matmul_rate", "op/s", words="matmul, torch's default library"),
    Metric("exp_rate", "op/s", "number", "peak", words="exponentials"),
    Metric("bandwidth", "B/s", "number", "peak", words="memory bandwidth"),
    Metric("empty_latency", "s", "seconds", words="empty call"),
    # Of kind context, counted by the ranks: what all of them received in a training step, the part
    # of its forward pass, and that part by the backend's formula. `latency` is then that of the
    # slowest rank, `peak_memory` that of the one that took most.
    Metric("exchanged_bytes", "B", "bytes", "exchange", short="exchanged"),
    Metric("exchanged_forward", "B", "bytes", "exchange", short="forward"),
    Metric("exchanged_formula", "B", "bytes", "exchange", short="formula"),
    # Of exports alone.
    Metric("pattern_ops", "op", "operations", "declared"),
    Metric("executed_ops", "op", "operations", "declared", axis="FLOPs per call"),
    Metric("exponentials", "1", "tokens", "declared"),
    Metric("bytes", "B", "bytes", "declared"),
    Metric("achieved_rate", "op/s", "number", "derived"),
    Metric("fraction_of_limit", "1", "share", "derived"),
    Metric("tile_efficiency", "1", "share", "derived"),
    Metric("kernel_efficiency", "1", "share", "derived"),
)  # fmt: skip

METRICS: Mapping[str, Metric] = {row.name: row for row in _ROWS}
"""Name to row."""

RECORDED: tuple[str, ...] = tuple(
    row.name for row in _ROWS if row.role not in ("declared", "derived")
)  # fmt: skip
"""What records hold."""

FITTED: tuple[str, ...] = tuple(row.name for row in _ROWS if row.declared)
"""What exponents are fitted to."""

COMPARED: tuple[str, ...] = tuple(row.name for row in _ROWS if row.worse)
"""What two runs are compared by."""

MEMORY: tuple[str, ...] = tuple(
    row.name for row in _ROWS if row.declared == "expected_memory"
)  # fmt: skip
"""A mode's memory is one of these."""


def of_role(role: Role) -> tuple[str, ...]:
    """Return the names of the metrics of one role, in the order of the table."""
    return tuple(row.name for row in _ROWS if row.role == role)


_BY_UNIT: Mapping[str, Written] = {"s": "seconds", "B": "bytes"}


def metric(name: str, unit: str = "") -> Metric:
    """Return the row of a metric; one that has none is shown by its own name and unit."""
    known = METRICS.get(name)
    if known is not None:
        return known
    shown = name.replace("_", " ")
    title = f"{shown[:1].upper()}{shown[1:]}"
    return Metric(
        name, unit, _BY_UNIT.get(unit, "number"), title=title, words=shown, short=shown
    )  # fmt: skip
