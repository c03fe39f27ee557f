"""What a comparison's page shows: sentences, and of every setting its figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import pandas as pd

from results.analysis.crossovers import against, crossovers
from results.analysis.selection import Selection
from results.analysis.series import SERIES, by_setting, points, with_cross_len
from results.comparison import words
from results.comparison.backend_changes import counted
from results.comparison.changes import Change, Comparison
from results.comparison.compare import compare
from results.comparison.figures import BESIDE_CAPTION, RATIO_CAPTION, beside_figure, ratio_figure
from results.comparison.pairing import Pairing, ours
from results.comparison.tables import Sides, case_view, crossover_view, fastest_view
from results.comparison.verdicts import Verdict
from results.figures.panels import cut
from results.figures.theme import looks
from results.metrics import COMPARED, METRICS
from results.page.blocks import Drawing, Paragraph, Section
from results.records.case_columns import SETTING
from results.records.frames import as_rows
from results.records.load import Run, machine_names
from results.schema import MODES
from results.statistics.intervals import Estimate
from results.text import numbers
from results.text.labels import rank
from results.text.settings import in_words, names_precision

LONGEST_NAME = 40
"""Characters of a machine's name in headings."""


MOST_NAMED = 5
"""Changed cases that the summary names, of each verdict."""


REMARKABLE: tuple[Verdict, ...] = ("fails", "worse", "better")


def name_sides(base: Run, new: Run) -> Sides:
    """Name the runs by their machines, where each has one and their names differ."""
    names = [list(machine_names(run).values()) for run in (base, new)]
    if all(len(n) == 1 for n in names) and names[0] != names[1]:
        return Sides(*(cut(n, LONGEST_NAME) for n in (names[0][0], names[1][0])))
    return Sides()


def every_metric(
    base: Run, new: Run, first: Comparison, only: Selection | None = None
) -> list[Comparison]:
    """Return the comparison by every metric that both runs have, `first` among them.

    Args:
        base: what it was.
        new: what it is.
        first: their comparison by one metric; the others have its thresholds.
        only: the cases that are judged.
    """
    every = []
    for metric in COMPARED:
        if metric == first.metric:
            every.append(first)
            continue
        try:
            every.append(
                compare(
                    base, new, metric=metric, threshold=first.threshold,
                    thresholds=first.thresholds, only=only,
                )
            )  # fmt: skip
        except ValueError:  # `first` could be compared: this metric has none of the cases
            continue
    return every


def summary(comparison: Comparison, sides: Sides, *, is_headed: bool = False) -> Paragraph:
    """Count the verdicts of a comparison, and name what changed most.

    Args:
        comparison: by one metric.
        sides: what the runs are called.
        is_headed: whether its headline stands above, which is not said again.
    """
    count = len(comparison.changes)
    sentences = [f"{words.summary(comparison)}, of {counted(count)} ({words.terms(comparison)})."]
    open_cases = words.undecided(comparison)
    if open_cases and not (is_headed and open_cases == words.headline(comparison)):
        sentences.append(f"{open_cases[:1].upper()}{open_cases[1:]}.")
    sentences += filter(None, (_named(comparison, verdict) for verdict in REMARKABLE))
    ratios = [c.ratio.value for c in comparison.changes if c.ratio.value > 0]
    if ratios:
        what = METRICS[comparison.metric].in_sentence
        middle = numbers.times(median(ratios))
        between = f"{numbers.times(min(ratios))} to {numbers.times(max(ratios))}"
        sentences.append(
            f"Over {counted(len(ratios))}, {sides.new} takes {middle} the {what} of "
            f"{sides.base} (median; range {between})."
        )
    return Paragraph(METRICS[comparison.metric].title, sentences)


def _named(comparison: Comparison, verdict: Verdict) -> str:
    changes = [c for c in words.in_order(comparison) if c.verdict == verdict]
    if not changes:
        return ""
    first_ones = [f"{c.name}{_by_how_much(c)}" for c in changes[:MOST_NAMED]]
    more = len(changes) - len(first_ones)
    word = comparison.word(verdict)
    rest = f"; and {more} more" if more else ""
    return f"{word[:1].upper()}{word[1:]}: {'; '.join(first_ones)}{rest}."


def _by_how_much(change: Change) -> str:
    size = words.ratio(change.ratio) if change.ratio.value > 0 else change.reason
    return f", {size}" if size else ""


def sections(base: Run, new: Run, every: Sequence[Comparison], sides: Sides) -> list[Section]:
    """Return a section a setting, the one with most cases first."""
    tables = {comparison.metric: case_table(comparison, new) for comparison in every}
    whole = pd.concat(tables.values())
    crossed = by_setting(_crossed(base, new, whole))
    rows_in = {metric: by_setting(table) for metric, table in tables.items()}
    drawn = looks(zip(whole["backend"], whole["options"], strict=True))
    precise = names_precision(as_rows(whole[["matmul_precision"]]))
    machines = machine_names(new)
    made = []
    for key in whole.groupby(list(SETTING), sort=False).size().sort_values(ascending=False).index:
        setting = dict(zip(SETTING, key, strict=True))
        where = f"{machines[setting['machine']]}: " if len(machines) > 1 else ""
        parts = {metric: of(key) for metric, of in rows_in.items()}
        parts = {metric: part for metric, part in parts.items() if len(part)}
        drawings = [d for m, part in parts.items() for d in _drawings(m, part, drawn, sides)]
        shown = [fastest_view(parts["latency"], sides)] if "latency" in parts else []
        shown += [crossover_view(crossed(key), sides)]
        shown += [case_view(metric, part, sides) for metric, part in parts.items()]
        title = where + in_words(setting, with_precision=precise)
        made.append(Section(title, drawings=drawings, tables=[t for t in shown if t.rows]))
    return made


def case_table(comparison: Comparison, new: Run) -> pd.DataFrame:
    """Return a row a case of a comparison.

    Columns: `SERIES`, `seq_len` and `kind`; `base`, `new` and `value` (new over base), each with
    its interval (`base_low`, `base_high`, …, `ci_low`, `ci_high`); `cells` of both;
    `verdict`, `word` (what it is called), `note` (what a figure says of it), `remark`, `ringed`;
    `base_cut_short` and `new_cut_short` (launches), and `converged`: whether both are 0.
    """
    frame = with_cross_len(ours(new).drop_duplicates(["machine", "case_id", "arm"]))
    frame = frame.set_index(["machine", "case_id", "arm"], drop=False)
    rows = []
    for change in comparison.changes:
        about = frame.loc[change.key].to_dict()
        where = {c: about[c] for c in (*SERIES, "seq_len", "kind")}
        word = comparison.word(change.verdict)
        rows.append(
            {
                **where, "verdict": change.verdict, "word": word,
                **_side("base", change.values[0]), **_side("new", change.values[1]),
                "cells": change.cells,
                "base_status": change.base.status, "new_status": change.new.status,
                "base_cut_short": change.base.cut_short, "new_cut_short": change.new.cut_short,
                "value": change.ratio.value, "ci_low": change.ratio.low,
                "ci_high": change.ratio.high, "remark": words.remark(change),
                "smallest": words.smallest(change.smallest),
                "note": word, "ringed": change.verdict in REMARKABLE,
                "converged": not change.base.cut_short and not change.new.cut_short,
            }
        )  # fmt: skip
    table = pd.DataFrame.from_records(rows)
    table["rank"] = [rank(b) for b in table["backend"]]
    table["mode_rank"] = [MODES.index(m) for m in table["mode"]]
    order = ["mode_rank", "rank", "options", "seq_len"]
    return table.sort_values(order, kind="stable").drop(columns=["rank", "mode_rank"])


def _side(name: str, value: Estimate) -> dict[str, Any]:
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}


def _drawings(
    metric: str, part: pd.DataFrame, drawn: Mapping[Any, Any], sides: Sides
) -> Iterator[Drawing]:
    """Yield the ratios, of memory where some case changed; of times both runs themselves too."""
    alone = part[part["kind"] == "speed"]
    part = alone if len(alone) else part.drop_duplicates([*SERIES, "seq_len"])
    names = (sides.base, sides.new)
    title = METRICS[metric].title
    if metric == "latency" or (part["ringed"] & (part["value"] > 0)).any():
        yield Drawing(
            f"ratio-{metric.replace('_', '-')}",
            f"{title}: {sides.new} over {sides.base}",
            RATIO_CAPTION,
            partial(ratio_figure, part, drawn, names, METRICS[metric].in_sentence),
        )
    if metric != "latency":
        return
    for mode in dict.fromkeys(part["mode"]):
        yield Drawing(
            f"beside-{mode}",
            f"{title}, {mode}: {sides.base} and {sides.new}",
            BESIDE_CAPTION,
            partial(beside_figure, part[part["mode"] == mode], drawn, names),
        )


def _crossed(base: Run, new: Run, shown: pd.DataFrame) -> pd.DataFrame:
    """Return the crossovers of both runs, a row a series that is shown and baseline."""
    places = ["machine", "environment"]
    key = [*(c for c in SERIES if c not in places), "baseline"]
    before, after = (crossovers(against(points(run))) for run in (base, new))
    after["there"] = after["machine"].map(Pairing(base, new).machines)
    before = before.rename(columns={"machine": "there"})
    values = ["seq_len", "reason"]
    both = after.merge(
        before[["there", *key, *values]], on=["there", *key], suffixes=("", "_base")
    )
    is_reached = both["seq_len"].notna() | both["seq_len_base"].notna()
    both = both[is_reached & ~both["backend"].isin(("full", "sdpa"))]
    return both.merge(shown[list(SERIES)].drop_duplicates(), on=list(SERIES))
