"""A third party's suite: what sorting costs. The driver imports this; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from results.schema import Arm, Case
from suites.parameters import Several
from suites.suite import Plan, Suite

ORDERS = ("ascending", "descending")


@dataclass(frozen=True, kw_only=True)
class SortingPlan(Plan):
    """A sweep of suite sorting.

    Attributes:
        orders: each is a case.
    """

    orders: tuple[str, ...]


class SortingSuite(Suite[SortingPlan]):
    """What sorting costs, by length and order."""

    name = "sorting"
    kind = "sorting"
    summary = "what sorting costs"
    examples = ("attnbench run sorting --plugin sorting_suite --order ascending",)
    presets: Mapping[str, Mapping[str, Any]] = {
        "few": {"seq_lens": (256, 512), "orders": ORDERS, "launches": 2, "budget_s": 0.01}
    }
    takes = frozenset({"seq_lens"})
    refusal = "numbers are sorted, nothing attends"
    options = (
        click.Option(
            ["--order", "orders"],
            type=Several(click.Choice(ORDERS)),
            show_default="both",
            help="Which way.",
        ),
    )

    def plan(self, preset: str | None, chosen: Mapping[str, Any]) -> SortingPlan:
        """Return the sweep of a preset and options."""
        return SortingPlan(suite=self, **{**self.preset(preset), **chosen})

    def cases(self, plan: SortingPlan) -> list[Case]:
        """Return a case per order and length; what is its own travels as the arm's options."""
        return [
            Case(
                kind=self.kind, level="attention", mode="forward",
                arms=(Arm("sort", {"order": order}),), is_causal=False, **point,
            )
            for order in plan.orders
            for point in plan.points(plan.seq_lens)
        ]  # fmt: skip

    def label(self, case: Case) -> str:
        """Name a case."""
        return f"sort {case.arms[0].options['order']} N={case.seq_len}"


SUITE = SortingSuite()
