"""Suite claims: what is said of attention, put to the test. No torch.

A claim is tested by its experiment (`suites.claims`), by what records of kind speed say of how
cost grows, or by both.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from click import Option

from results.schema import CLAIM, Arm, Case
from suites.parameters import one_of
from suites.suite import Key, Plan, Suite, by_preset


@dataclass(frozen=True, order=True)
class ScalingRow:
    """A backend's forward call over lengths.

    Attributes:
        backend: by name.
        seq_lens: in tokens.
        is_causal: of the call.
    """

    backend: str
    seq_lens: tuple[int, ...]
    is_causal: bool = False


@dataclass(frozen=True)
class ClaimPreset:
    """What suite claims does under one name.

    Attributes:
        launches: of a speed case; of an experiment its seeds.
        budget_s: sampling time of what is timed, a call.
        case_timeout_s: the longest that an experiment under one seed may take.
    """

    launches: int
    budget_s: float
    case_timeout_s: float = 600.0


CLAIM_PRESETS: Mapping[str, ClaimPreset] = {
    "quick": ClaimPreset(launches=3, budget_s=0.1),
    "standard": ClaimPreset(launches=5, budget_s=0.3),
}
"""By name."""

EXPERIMENTS: tuple[str, ...] = (
    "attention-quadratic", "ffn-linear", "sparse-nlogn", "heads-cost", "head-dim",
    "rnn-sequential", "rnn-vanishing", "long-range", "sqrt-dk", "shared-qk", "dot-vs-additive",
    "causal-mask", "kv-cache", "decode-state", "quantization", "sinusoidal", "residual-norm",
    "layernorm-batch", "dropout-eval", "dropout-place", "order-blind", "sequential-depth",
    "ffn-nonlinear", "objectives",
)  # fmt: skip
"""The claims that have an experiment, by id."""

_MATERIALISED = (512, 1024, 2048, 4096)
"""Where scores stay within what a process keeps: at 8,192 tokens 8 heads have 2 GiB of them, which
the C library asks anew of the system at every call, page by page: seventeen times the time of half
the length on the machine of the reference records."""

_SHORT = (1024, 2048, 4096, 8192)
_LONG = (4096, 8192, 16384, 32768)
_EXACT = (ScalingRow("full", _MATERIALISED), ScalingRow("sdpa", _SHORT))

SCALING: Mapping[str, tuple[ScalingRow, ...]] = {
    "attention-quadratic": _EXACT,
    "memory-quadratic": _EXACT,
    "sparse-nlogn": (ScalingRow("longformer", _LONG), ScalingRow("bigbird", _LONG)),
    "low-rank-linear": (ScalingRow("linformer", _LONG),),
    "kernel-linear": (
        ScalingRow("performer", _LONG),
        ScalingRow("performer", _LONG, is_causal=True),
    ),
}
"""By a claim's id, the calls whose growth it is about."""

CLAIMS: tuple[str, ...] = tuple(dict.fromkeys((*EXPERIMENTS, *SCALING)))
"""All claims, by id."""


@dataclass(frozen=True, kw_only=True)
class ClaimsPlan(Plan):
    """A sweep of suite claims; of an experiment `launches` are the seeds.

    Attributes:
        claims: the ids of those that are tested.
    """

    claims: tuple[str, ...]


class ClaimsSuite(Suite[ClaimsPlan]):
    """What is said of attention, by experiments and by calls of kind speed."""

    name = "claims"
    kind = CLAIM
    summary = "what is said of attention, put to the test"
    foretold_by: Literal["likes"] = "likes"
    presets = CLAIM_PRESETS
    refusal = "an experiment has its own; see --claim"
    examples = (
        "attnbench run claims --out runs/claims",
        "attnbench run claims --claim kv-cache --claim heads-cost",
    )
    helps: Mapping[str, str] = {"launches": "Processes per case; seeds of an experiment."}
    defaults: Mapping[str, str] = {
        name: by_preset(CLAIM_PRESETS, name) for name in ("launches", "budget_s", "case_timeout_s")
    }
    options = (
        Option(
            ["--claim", "claims"],
            shell_complete=one_of(lambda: sorted(CLAIMS)),
            multiple=True,
            metavar="ID",
            show_default="all",
            help="What is put to the test; `attnbench list --claims` has them all. Repeatable.",
        ),
    )

    def plan(self, preset: str | None, chosen: Mapping[str, Any]) -> ClaimsPlan:
        """Return the sweep of a preset and options."""
        fields = {"claims": CLAIMS, **vars(self.preset(preset)), **chosen}
        for claim in fields["claims"]:
            if claim not in CLAIMS:
                near = difflib.get_close_matches(claim, CLAIMS, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                accepted = ", ".join(CLAIMS)
                raise ValueError(f"claim: no claim {claim!r}{hint}; accepted: {accepted}")
        plan = ClaimsPlan(suite=self, **fields)
        # Page faults of fresh memory scatter between processes.
        return replace(plan, allocators=("retained",)) if plan.device == "cpu" else plan

    def cases(self, plan: ClaimsPlan) -> list[Case]:
        """Return a case per experiment and seed, and those of kind speed that claims ask for."""
        (fixed,) = replace(plan, num_heads=(0,), head_dims=(0,)).points((0,))
        experiments = [
            Case(
                kind=CLAIM, level="attention", mode="forward", arms=(Arm(CLAIM),),
                is_causal=False, task=claim, **{**fixed, "seed": seed},
            )
            for claim in plan.claims if claim in EXPERIMENTS
            for seed in range(plan.seed, plan.seed + plan.launches)
        ]  # fmt: skip
        rows = {row for claim in plan.claims for row in SCALING.get(claim, ())}
        return experiments + [
            Case(
                kind="speed", level="attention", mode="forward", arms=(Arm(row.backend),),
                is_causal=row.is_causal, **point,
            )
            for row in sorted(rows)
            for point in plan.points(row.seq_lens)
        ]  # fmt: skip

    def launches_of(self, plan: ClaimsPlan, case: Case) -> int:
        """Return how often a case is launched: an experiment once, its launches are seeds."""
        return 1 if case.task else plan.launches

    def label(self, case: Case) -> str:
        """Name an experiment."""
        return f"claim {case.task} seed {case.seed}"

    def describe(self, record: Mapping[str, Any]) -> str:
        """Write what an experiment found."""
        metrics = record["arms"][0]["metrics"]
        return "  ".join(f"{name} {one['value']:.3g}" for name, one in metrics.items())[:200]

    def compared_by(self, case: Case) -> tuple[Key, int]:
        """Return one key for all: the claims of a run are judged on one machine together."""
        return ("claims",), 0


SUITE = ClaimsSuite()
