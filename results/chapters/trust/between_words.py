"""How far launches scatter, in sentences, and a table of what the sentinel takes off."""

from __future__ import annotations

from results.chapters.trust.between_launches import STEADY, SURE, WIDEST, BetweenLaunches, Series
from results.page.blocks import Cell, TableView
from results.page.columns import Columns, table
from results.text import numbers


def between_sentences(told: BetweenLaunches) -> list[str]:
    """Say what the sentinel takes off, whether it can be trusted, and which cases stand out."""
    said = []
    if told.series:
        ends = [one.model.coefficient for one in told.series]
        without, left = (numbers.percent(told.pooled(sd)) for sd in ("sd_without", "sd"))
        said.append(
            "Between the processes of a case, times scatter by "
            f"{without}, and by {left} once the control benchmark's own changes are removed "
            f"(standard deviation over {len(ends):,} series; each has its own coefficient, "
            f"{numbers.interval(min(ends), max(ends), numbers.exponent).strip('()')})."
        )
    if told.slope is not None:
        centre, half = told.slope.centre, told.slope.half_width
        between = numbers.interval(centre - half, centre + half, numbers.exponent)
        verdict = (
            "a sign that the case disturbs it" if told.is_biased
            else "no sign that the case disturbs it" if half <= WIDEST
            else "too uncertain to tell whether the case disturbs it"
        )  # fmt: skip
        said.append(
            "The control benchmark's time grows with the length of the case that it runs with as "
            f"N^{numbers.exponent(centre)} {between}: {verdict} (limit {STEADY:g})."
        )
        if told.p < SURE:
            said.append(
                "It differs between cases by more than between processes (F test, "
                f"p < {SURE:g}): some cases met a slower machine, or disturb it."
            )
    if told.odd:
        named = [
            f"{one.name} ({numbers.percent(one.sd)}, {numbers.times(one.ratio)} as much)"
            for one in told.odd
        ]
        said.append(
            "The intervals of some cases are too narrow, as their processes scatter far more than "
            f"at other lengths of the same series: {numbers.few(named)}."
        )
    return said


def between_table(between: BetweenLaunches) -> TableView:
    """Return how far the launches of each series scatter, without the sentinel and with it."""
    columns: Columns[Series] = {
        "backend": lambda one: one.name,
        "mode": lambda one: one.mode,
        "setting": lambda one: one.setting,
        "processes": lambda one: f"{one.launches:,}",
        "scatter": lambda one: numbers.percent(one.model.sd_without),
        "corrected": lambda one: numbers.percent(one.model.sd),
        "coefficient": lambda one: Cell(
            numbers.exponent(one.model.coefficient),
            f"±{numbers.exponent(one.model.coefficient_error, to='up')}",
        ),
    }
    notes = [
        "Scatter: standard deviation of the log time between processes of a case; corrected: "
        "after removing what follows the control benchmark. Coefficient, with its standard "
        "error: which part of the control benchmark's change is removed, 1 = all, 0 = nothing."
    ]
    title = "Correction by the control benchmark"
    return table(
        title,
        between.series,
        columns,
        notes=notes,
        optional=("setting",),
        text_columns=2 + any(one.setting for one in between.series),
    )
