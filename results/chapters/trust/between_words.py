"""What is said of how far launches scatter: sentences, and a table of what the sentinel brings."""

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
            f"Beside the sentinel, launches of a case scatter by {left} in place of {without} "
            f"(standard deviation over {len(ends):,} series, each with a coefficient of its own: "
            f"{numbers.interval(min(ends), max(ends), numbers.exponent).strip('()')})."
        )
    if told.slope is not None:
        centre, half = told.slope.centre, told.slope.half_width
        between = numbers.interval(centre - half, centre + half, numbers.exponent)
        verdict = (
            "a sign that the case disturbs it" if told.is_biased
            else "no sign that the case disturbs it" if half <= WIDEST
            else "too uncertain to say whether the case disturbs it"
        )  # fmt: skip
        said.append(
            "The sentinel's own time grows with the length of the case beside it as "
            f"N^{numbers.exponent(centre)} {between}: {verdict} (limit {STEADY:g})."
        )
        if told.p < SURE:
            said.append(
                f"It differs between cases by more than between launches (F test, p < {SURE:g}): "
                "some cases may have met a slower machine, or disturb it."
            )
    if told.odd:
        named = [
            f"{one.name} by {numbers.percent(one.sd)}, {numbers.times(one.ratio)} as much"
            for one in told.odd
        ]
        said.append(
            "Launches of some cases scatter by far more than those of their series' other "
            f"lengths, so that their intervals are too narrow: {numbers.few(named)}."
        )
    return said


def between_table(between: BetweenLaunches) -> TableView:
    """Return how far the launches of each series scatter, without the sentinel and beside it."""
    columns: Columns[Series] = {
        "backend": lambda one: one.name,
        "mode": lambda one: one.mode,
        "setting": lambda one: one.setting,
        "launches": lambda one: f"{one.launches:,}",
        "scatter": lambda one: numbers.percent(one.model.sd_without),
        "beside the sentinel": lambda one: numbers.percent(one.model.sd),
        "coefficient": lambda one: Cell(
            numbers.exponent(one.model.coefficient),
            f"±{numbers.exponent(one.model.coefficient_error, to='up')}",
        ),
    }
    notes = [
        "Scatter: standard deviation between launches of a case, of the logarithm. The "
        "coefficient, with its standard error, says how much of what the sentinel tells is taken "
        "off a launch's time: 1 = all, 0 = nothing."
    ]
    title = "What the sentinel in the launches brings"
    return table(
        title,
        between.series,
        columns,
        notes=notes,
        optional=("setting",),
        text_columns=2 + any(one.setting for one in between.series),
    )
