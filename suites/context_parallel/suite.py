"""Suite context: a training step over one sequence that is cut over several ranks. No torch.

The lengths of a preset stand in the ratio of its numbers of ranks, so that its cases show both how
the time of one length falls with the ranks (strong scaling) and how it holds while the tokens of a
rank stay (weak scaling).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from click import Option

from results.schema import CONTEXT, CONTEXT_MODE, Arm, Case
from suites.parameters import COUNTS
from suites.suite import Key, Plan, Suite, by_preset, listed
from suites.words import measured, precision

_COMPARED = (Arm("sdpa"), Arm("longformer"), Arm("linformer"), Arm("performer"))


@dataclass(frozen=True)
class ContextPreset:
    """What suite context does under one name.

    Attributes:
        backends: what is compared.
        seq_lens: of the whole sequence, in tokens.
        ranks: over how many processes it is cut.
        launches: fresh sets of ranks per case.
        budget_s: sampling time, in seconds.
        case_timeout_s: the longest that one launch may take, in seconds.
    """

    backends: tuple[Arm, ...]
    seq_lens: tuple[int, ...]
    ranks: tuple[int, ...]
    launches: int
    budget_s: float
    case_timeout_s: float


CONTEXT_PRESETS: Mapping[str, ContextPreset] = {
    "quick": ContextPreset(
        _COMPARED, (1024, 2048, 4096), (1, 2, 4), launches=1, budget_s=0.25, case_timeout_s=120.0
    ),
    "standard": ContextPreset(
        _COMPARED,
        (4096, 8192, 16384, 32768),
        (1, 2, 4, 8),
        launches=3,
        budget_s=0.5,
        case_timeout_s=300.0,
    ),
}
"""By name."""


@dataclass(frozen=True, kw_only=True)
class ContextPlan(Plan):
    """A sweep of suite context.

    Attributes:
        ranks: over how many processes a sequence is cut.
    """

    ranks: tuple[int, ...]


class ContextSuite(Suite[ContextPlan]):
    """What one training step over a cut sequence takes."""

    name = "context"
    kind = CONTEXT
    summary = "a training step over one sequence that is cut over several processes"
    presets = CONTEXT_PRESETS
    takes = frozenset(
        {"backends", "seq_lens", "dtypes", "batches", "num_heads", "head_dims", "is_causal",
         "matmul_precisions"}
    )  # fmt: skip
    refusal = "suite context measures a training step at level attention alone"
    examples = (
        "attnbench run context --ranks 1,2,4 --out runs/ranks",
        "attnbench run context --preset standard --device cuda --dtype bfloat16",
    )
    defaults: Mapping[str, str] = {
        "backends": ",".join(arm.name for arm in _COMPARED),
        **{
            name: by_preset(CONTEXT_PRESETS, name)
            for name in ("launches", "budget_s", "case_timeout_s")
        },
    }
    compares_all = True
    options = (
        Option(
            ["--ranks"],
            type=COUNTS,
            show_default="; ".join(f"{n} {listed(p.ranks)}" for n, p in CONTEXT_PRESETS.items()),
            help="Over how many processes a sequence is cut; each has a GPU, if there are any.",
        ),
    )

    def plan(self, preset: str | None, chosen: Mapping[str, Any]) -> ContextPlan:
        """Return the sweep of a preset and options."""
        plan = ContextPlan(suite=self, **{**vars(self.preset(preset)), **chosen})
        shortest = min(plan.seq_lens)
        for ranks in plan.ranks:
            if not 1 <= ranks <= shortest:
                raise ValueError(
                    f"ranks: expected 1 to {shortest}, the tokens of the shortest sequence; "
                    f"got {ranks}"
                )
        return plan

    def cases(self, plan: ContextPlan) -> list[Case]:
        """Return a case per backend, number of ranks and point of the axes."""
        return [
            Case(
                kind=CONTEXT, level="attention", mode=CONTEXT_MODE, arms=(arm,),
                is_causal=plan.is_causal, ranks=ranks, **point,
            )
            for arm in plan.backends
            for ranks in sorted(set(plan.ranks))
            for point in plan.points(plan.seq_lens)
        ]  # fmt: skip

    def label(self, case: Case) -> str:
        """Name a case by its ranks."""
        causal = " causal" if case.is_causal else ""
        over = f"{case.ranks} rank{'s'[: case.ranks != 1]}"
        return f"{case.arms[0].label} over {over}{causal}{precision(case)} N={case.seq_len}"

    def describe(self, record: Mapping[str, Any]) -> str:
        """Write latency, memory and what a token costs in exchange."""
        metrics = record["arms"][0]["metrics"]
        share = metrics["exchanged_bytes"]["value"] / record["case"]["seq_len"]
        return f"{measured(metrics)}  {share:.4g} B/token exchanged"

    def compared_by(self, case: Case) -> tuple[Key, int]:
        """Return the key of all lengths: several ranks are compared with shorter sequences."""
        return (case.kind, case.mode, case.dtype), 0

    def cluster_misuse(self, plan: ContextPlan) -> str | None:
        """Say that a case has one GPU there."""
        if plan.device == "cuda" and max(plan.ranks) > 1:
            return (
                "a case has one GPU there, and suite context needs one a rank; run it on one of "
                "the machines"
            )
        return None


SUITE = ContextSuite()
