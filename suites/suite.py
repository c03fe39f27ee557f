"""The contract of a suite, on the driver's side: what it measures, what is said of it. No torch.

A suite is one folder. ``suite.py`` ends in ``SUITE = MySuite()`` and is imported by the driver,
``kind.py`` measures its cases (`suites.kind`), and ``chapter.py`` of a plug-in, or a folder of
`results.chapters`, reports them. `suites.registry` has them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Generic, Literal, TypeVar

import click

from results.schema import FULL_PRECISION, Allocator, Arm, Case, MatmulPrecision
from suites.words import measured, precision

Key = tuple[Any, ...]
"""What the cases have in common that are compared with one another."""

SHARED: Mapping[str, str] = {
    "backends": "backend", "seq_lens": "seq-len", "modes": "mode", "levels": "level",
    "models": "model", "checkpointings": "checkpointing", "dtypes": "dtype", "batches": "batch",
    "num_heads": "num-heads", "head_dims": "head-dim", "is_causal": "causal",
    "allocators": "allocator", "matmul_precisions": "matmul-precision", "compiles": "compile",
}  # fmt: skip
"""Options of `attnbench run` that a suite may take, by the name of their value."""

BASE_ROUNDS = 3
"""Launches of every case before a run's questions are asked: fewer say too little of scatter."""

EVERYWHERE = ("device", "threads", "seed", "launches", "budget_s", "case_timeout_s", "shard")
"""Options that every suite takes."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a launch may take, and what it is told beside its case.

    Attributes:
        budget_s: sampling time of each arm, in seconds.
        case_timeout_s: the longest that a launch may take, in seconds.
        profile: whether a launch also says where the time goes; the cases are the same.
        memory_lengths: in tokens; there a launch measures peak memory and no latency.
        files: a content's name to its path, of tasks and models that are read from files.
    """

    budget_s: float = 1.0
    case_timeout_s: float = 60.0
    profile: bool = False
    memory_lengths: tuple[int, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    def times(self, case: Case) -> bool:
        """Say whether a launch of a case measures its latency."""
        return case.seq_len not in self.memory_lengths


@dataclass(frozen=True, kw_only=True)
class Plan(Limits):
    """A sweep: the axes that every suite has. A suite adds its own in a subclass.

    Attributes:
        suite: whose cases these are.
        backends: what is compared; empty = what the suite says.
        names_backends: whether somebody chose them: then one that does not run on the device is
            told of in every table, else it is left out, and said so once.
        seq_lens: in tokens.
        matmul_precisions: of float32 products; other dtypes have `FULL_PRECISION` alone.
        compiles: whether the module goes through ``torch.compile``.
        launches: fresh processes per case; with a precision, those before questions are asked.
        precision: to which a run's questions are answered, as a fraction, by as many more launches
            as that takes (`suites.engine.planner`); ``None`` = no more.
        within_s: seconds of the sweep where the command does not say, from which on no questions
            are asked any more; ``None`` = no limit.
        shard: ``(i, n)``, from 1: this sweep is the i-th of n parts.
    """

    suite: Suite[Any]
    backends: tuple[Arm, ...] = ()
    names_backends: bool = True
    seq_lens: tuple[int, ...] = ()
    device: str = "cpu"
    dtypes: tuple[str, ...] = ("float32",)
    batches: tuple[int, ...] = (1,)
    num_heads: tuple[int, ...] = (8,)
    head_dims: tuple[int, ...] = (64,)
    threads: tuple[int, ...] = (1,)
    allocators: tuple[Allocator, ...] = ("default",)
    matmul_precisions: tuple[MatmulPrecision, ...] = (FULL_PRECISION,)
    compiles: tuple[bool, ...] = (False,)
    is_causal: bool = False
    seed: int = 0
    launches: int = 1
    precision: float | None = None
    within_s: float | None = None
    shard: tuple[int, int] = (1, 1)

    def precisions(self, dtype: str) -> tuple[MatmulPrecision, ...]:
        """Return the precisions of the products of a dtype: only float32 has a choice."""
        return self.matmul_precisions if dtype == "float32" else (FULL_PRECISION,)

    def points(self, seq_lens: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Walk the axes that every suite has, as fields of `Case`; lengths rise fastest."""
        every = product(
            [(dtype, precision) for dtype in self.dtypes for precision in self.precisions(dtype)],
            self.batches,
            self.num_heads,
            self.head_dims,
            self.threads,
            self.allocators,
            self.compiles,
            sorted(set(seq_lens)),
        )
        for (dtype, kept), batch, heads, dim, threads, allocator, compiled, seq_len in every:
            yield {
                "batch": batch, "num_heads": heads, "num_kv_heads": heads, "head_dim": dim,
                "seq_len": seq_len, "key_len": seq_len, "device": self.device, "dtype": dtype,
                "threads": threads, "allocator": allocator, "compile": compiled,
                "seed": self.seed, "matmul_precision": kept,
            }  # fmt: skip


P = TypeVar("P", bound=Plan)


class CaseRules:
    """What the driver has to know of cases of one kind: their words, and how long they take.

    Attributes:
        kind: of the cases.
        foretold_by: what foretells how long a case takes: shorter ``length``s of its series; its
            ``likes``, cases of another seed; or ``nothing``.
        of_machine: whether a case tells of a machine: each machine of a cluster runs it.
        reports_progress: whether a case that runs says how it goes.
    """

    kind: str = ""
    foretold_by: Literal["length", "likes", "nothing"] = "length"
    of_machine: bool = False
    reports_progress: bool = False

    def label(self, case: Case) -> str:
        """Name a case for people: ``longformer:window=64 training N=4096``."""
        level = "" if case.level == "attention" else f" {case.model or case.level}"
        causal = " causal" if case.is_causal else ""
        compiled = " compiled" if case.compile else ""
        anew = " checkpointed" if case.checkpointing else ""
        documents = f" {'padded' if case.padded else 'packed'}" if case.packed else ""
        how = f"{case.mode}{causal}{compiled}{anew}{documents}{precision(case)}"
        return f"{self.arms_label(case)}{level} {how} N={case.seq_len}"

    def arms_label(self, case: Case) -> str:
        """Name what is measured in a case."""
        return case.arms[0].label

    def describe(self, record: Mapping[str, Any]) -> str:
        """Say in words what was measured in a case that ended well."""
        return measured(record["arms"][0]["metrics"])

    def checkpoint(self, case: Case) -> str | None:
        """Name the file of trained models that a case which ran out of time goes on from."""
        return None


class Suite(CaseRules, ABC, Generic[P]):
    """What `attnbench run NAME` measures: its options, presets, cases and words.

    Attributes:
        name: as the command line writes it.
        kind: of its own cases.
        summary: what is measured, as half a sentence behind "Measure".
        examples: command lines for its help; none = the shortest.
        presets: by name, the first where nothing says otherwise.
        options: of its own. Their values come to `plan` by their names; what holds where one is
            not given, `plan` says, not the option's own default.
        takes: of `SHARED`, the options that have a meaning here; any other is refused.
        only: values that an option which it does not take may have nevertheless.
        refusal: what is said of options of `SHARED` that it does not take.
        refusals: what is said of single ones in place of that, by the name of their value.
        helps: what the help of an option of `SHARED` says here in place of the usual, likewise.
        defaults: what the help of an option says of this suite's default, likewise.
        run_name: of a run's folder, where no preset is named; "" = the suite's.
        compares_all: whether a sweep that names no backend is of all that are registered.
    """

    name: str
    summary: str
    examples: Sequence[str] = ()
    presets: Mapping[str, Any]
    options: Sequence[click.Option] = ()
    takes: frozenset[str] = frozenset()
    only: Mapping[str, Any] = {}
    refusal: str = ""
    refusals: Mapping[str, str] = {}
    helps: Mapping[str, str] = {}
    defaults: Mapping[str, str] = {}
    run_name: str = ""
    compares_all: bool = False

    @abstractmethod
    def plan(self, preset: str | None, chosen: Mapping[str, Any]) -> P:
        """Return the sweep that a preset and options make.

        Args:
            preset: by name; ``None`` = as the suite says.
            chosen: the values of options that the suite takes, by name, as far as they are given;
                always with ``threads``.

        Raises:
            ValueError: if there is no such preset, or a value has no meaning here. The message
                begins with the option, as the command line writes it, and a colon.
        """

    @abstractmethod
    def cases(self, plan: P) -> list[Case]:
        """Return the cases of a sweep, without those of the machine."""

    def preset(self, name: str | None) -> Any:
        """Return a preset by name; ``None`` = the first.

        Raises:
            ValueError: if there is none of this name.
        """
        if name is None:
            return next(iter(self.presets.values()))
        if name not in self.presets:
            raise ValueError(
                f"preset: expected one of {', '.join(self.presets)} in suite {self.name}, "
                f"got {name!r}"
            )
        return self.presets[name]

    def is_complete(self, plan: P) -> bool:
        """Say whether a sweep's cases are known without asking a child what is registered."""
        return bool(plan.backends) or not self.compares_all

    def completed(self, plan: P, told: Mapping[str, Any]) -> P:
        """Return a sweep with what a child told (`suites.worker.preflight`).

        Raises:
            ValueError: if what is chosen is not there.
        """
        return replace(plan, backends=tuple(Arm(name) for name in told["names"]))

    def informed(self, plan: P, inspected: Mapping[str, Mapping[str, Any]]) -> P:
        """Return a sweep with what was declared of its cases.

        Args:
            plan: the sweep.
            inspected: by case id the fields of `suites.kind.Inspection`.
        """
        return plan

    def launches_of(self, plan: P, case: Case) -> int:
        """Return how often a case is launched."""
        return plan.launches

    def builds_models(self, plan: P) -> bool:
        """Say whether cases build whole models, which imports much of torch."""
        return False

    def compared_by(self, case: Case) -> tuple[Key, int]:
        """Return what a case is compared with, as a key, and the length that belongs to it.

        The cases of one key and length run on one machine of a cluster: all arms, backends and
        settings of a kind, mode and dtype. Length 0 = those of all lengths.
        """
        return (case.kind, case.mode, case.dtype), case.seq_len

    def cluster_misuse(self, plan: P) -> str | None:
        """Say why a sweep cannot be measured on a cluster; ``None`` = it can."""
        return None


def by_preset(presets: Mapping[str, Any], name: str) -> str:
    """Name the first preset's value of a field, and those of others; of many their range."""
    first, *others = (getattr(one, name) for one in presets.values())
    apart = {p: getattr(one, name) for p, one in presets.items() if getattr(one, name) != first}
    if len(apart) > 3:
        return f"{first:g}; others {min(others):g} to {max(others):g}"
    listed = ", ".join(f"{preset} {value:g}" for preset, value in apart.items())
    return f"{first:g}; {listed}" if apart else f"{first:g}"


def listed(values: Iterable[Any]) -> str:
    """Join values as the command line takes them."""
    return ",".join(str(value) for value in values)
