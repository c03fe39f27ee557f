"""What a comparison's page shows: sentences, and of every setting its figures and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import pandas as pd

from results.analysis.crossovers import against, crossovers
from results.analysis.selection import Selection
from results.analysis.series import SERIES, by_setting, points, with_cross_len
from results.analysis.warm_up import MARK, marked
from results.comparison import text as changes_text
from results.comparison.backend_changes import BackendChange, counted
from results.comparison.changes import Change, Comparison, compare
from results.comparison.figures import BESIDE_CAPTION, RATIO_CAPTION, beside_figure, ratio_figure
from results.comparison.pairing import Pairing, ours
from results.comparison.verdicts import REGRESSIONS, Verdict
from results.figures.panels import cut
from results.figures.theme import looks
from results.metrics import COMPARED, METRICS
from results.page.blocks import Cell, Drawing, Paragraph, Section, TableView
from results.page.cells import name
from results.page.columns import Columns, Row, Writer, of, table
from results.records.case_columns import SETTING
from results.records.frames import as_rows
from results.records.load import Run, machine_names
from results.schema import MODES
from results.statistics.intervals import Estimate, estimate, is_less
from results.text import numbers
from results.text.labels import rank
from results.text.settings import in_words, names_precision
from results.text.written import writer

LONGEST_NAME = 40
"""Characters of a machine's name in headings."""

MOST_NAMED = 5
"""Changed cases that the summary names, of each verdict."""

BACKENDS_NOTE = (
    "The mean over a backend's cases. A backend changed where it did so by itself and more than "
    "the others did, or the sentinel where they are few; what all share may be the machine's. "
    "Seen from: the smallest change that could have been seen, in four tries of five."
)

_REMARKABLE: tuple[Verdict, ...] = ("fails", "worse", "better")


@dataclass(frozen=True)
class Sides:
    """What the page calls the two runs: base and new, or their machines where those differ."""

    base: str = "base"
    new: str = "new"


def name_sides(base: Run, new: Run) -> Sides:
    """Name the runs by their machines, where each has one and their names differ."""
    names = [list(machine_names(run).values()) for run in (base, new)]
    if all(len(n) == 1 for n in names) and names[0] != names[1]:
        return Sides(*(cut(n, LONGEST_NAME) for n in (names[0][0], names[1][0])))
    return Sides()


def every_metric(
    base: Run, new: Run, found: Comparison, only: Selection | None = None
) -> list[Comparison]:
    """Return the comparison by every metric that both runs have, `found` among them.

    Args:
        base: what it was.
        new: what it is.
        found: their comparison by one metric; the others have its thresholds.
        only: the cases that are judged.
    """
    every = []
    for metric in COMPARED:
        if metric == found.metric:
            every.append(found)
            continue
        try:
            every.append(
                compare(
                    base, new, metric=metric, threshold=found.threshold,
                    thresholds=found.thresholds, only=only,
                )
            )  # fmt: skip
        except ValueError:  # `found` could be compared: this metric has none of the cases
            continue
    return every


# -- sentences -----------------------------------------------------------------------------------


def summary(found: Comparison, sides: Sides) -> Paragraph:
    """Count the verdicts of a comparison, and name what changed most."""
    count = len(found.changes)
    sentences = [
        f"{changes_text.summary(found)}, of {counted(count)} ({changes_text.terms(found)})."
    ]
    if told := changes_text.undecided(found):
        sentences.append(f"{told[:1].upper()}{told[1:]}.")
    sentences += filter(None, (_named(found, verdict) for verdict in _REMARKABLE))
    ratios = [c.ratio.value for c in found.changes if c.ratio.value > 0]
    if ratios:
        what = METRICS[found.metric].title.lower()
        middle = numbers.times(median(ratios))
        between = f"{numbers.times(min(ratios))} to {numbers.times(max(ratios))}"
        sentences.append(
            f"In the median over {counted(len(ratios))} {sides.new} takes "
            f"{middle} the {what} of {sides.base}: from {between}."
        )
    return Paragraph(METRICS[found.metric].title, sentences)


def _named(found: Comparison, verdict: Verdict) -> str:
    changes = [c for c in changes_text.in_order(found) if c.verdict == verdict]
    if not changes:
        return ""
    told = [f"{c.name}{_by_how_much(c)}" for c in changes[:MOST_NAMED]]
    more = len(changes) - len(told)
    word = found.word(verdict)
    rest = f"; and {more} more" if more else ""
    return f"{word[:1].upper()}{word[1:]}: {'; '.join(told)}{rest}."


def _by_how_much(change: Change) -> str:
    told = changes_text.ratio(change.ratio) if change.ratio.value > 0 else change.reason
    return f", {told}" if told else ""


# -- settings ------------------------------------------------------------------------------------


def sections(base: Run, new: Run, every: Sequence[Comparison], sides: Sides) -> list[Section]:
    """Return a section a setting, the one with most cases first."""
    tables = {found.metric: case_table(found, new) for found in every}
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
        shown = [_fastest(parts["latency"], sides)] if "latency" in parts else []
        shown += [_crossover_table(crossed(key), sides)]
        shown += [_case_view(metric, part, sides) for metric, part in parts.items()]
        title = where + in_words(setting, with_precision=precise)
        made.append(Section(title, drawings=drawings, tables=[t for t in shown if t.rows]))
    return made


def case_table(found: Comparison, new: Run) -> pd.DataFrame:
    """Return a row a case of a comparison.

    Columns: `SERIES`, `seq_len` and `kind`; `base`, `new` and `value` (new over base), each with
    its interval (`base_low`, `base_high`, …, `ci_low`, `ci_high`) and the launches of both;
    `verdict`, `word` (what it is called), `note` (what a figure says of it), `remark`, `ringed`;
    `base_cut_short` and `new_cut_short` (launches), and `converged`: whether both are 0.
    """
    frame = with_cross_len(ours(new).drop_duplicates(["machine", "case_id", "arm"]))
    frame = frame.set_index(["machine", "case_id", "arm"], drop=False)
    rows = []
    for change in found.changes:
        about = frame.loc[change.key].to_dict()
        where = {c: about[c] for c in (*SERIES, "seq_len", "kind")}
        word = found.word(change.verdict)
        rows.append(
            {
                **where, "verdict": change.verdict, "word": word,
                **_side("base", change.base.launches), **_side("new", change.new.launches),
                "base_status": change.base.status, "new_status": change.new.status,
                "base_cut_short": change.base.cut_short, "new_cut_short": change.new.cut_short,
                "value": change.ratio.value, "ci_low": change.ratio.low,
                "ci_high": change.ratio.high, "remark": changes_text.remark(change),
                "smallest": changes_text.smallest(change.smallest),
                "note": word, "ringed": change.verdict in _REMARKABLE,
                "converged": not change.base.cut_short and not change.new.cut_short,
            }
        )  # fmt: skip
    table = pd.DataFrame.from_records(rows)
    table["rank"] = [rank(b) for b in table["backend"]]
    table["mode_rank"] = [MODES.index(m) for m in table["mode"]]
    order = ["mode_rank", "rank", "options", "seq_len"]
    return table.sort_values(order, kind="stable").drop(columns=["rank", "mode_rank"])


def _side(name: str, launches: Sequence[float]) -> dict[str, Any]:
    known = estimate(launches) if launches else Estimate(math.nan, math.nan, math.nan)
    return {
        name: known.value, f"{name}_low": known.low, f"{name}_high": known.high,
        f"{name}_launches": tuple(launches),
    }  # fmt: skip


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
            partial(ratio_figure, part, drawn, names, title.lower()),
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


# -- tables --------------------------------------------------------------------------------------


def backend_views(every: Sequence[Comparison]) -> list[TableView]:
    """Return a table a metric: what changed in whole backends."""
    return [_backend_view(found) for found in every if found.backends]


def _backend_view(found: Comparison) -> TableView:
    heads = changes_text.BACKEND_HEAD
    rows = [
        (change, dict(zip(heads, changes_text.backend_cells(found, change), strict=True)))
        for change in changes_text.backends_in_order(found)
    ]

    def verdict(row: tuple[BackendChange, Mapping[str, str]]) -> Cell:
        return Cell(row[1]["verdict"], is_status=row[0].is_regression)

    columns: Columns[tuple[BackendChange, Mapping[str, str]]] = {
        **{head: partial(_cell_of, head) for head in heads[1:-1]},
        "verdict": verdict,
        "remark": partial(_cell_of, heads[-1]),
    }
    title = f"{METRICS[found.metric].title}: whole backends"
    return table(title, rows, columns, notes=[BACKENDS_NOTE], is_long=False)


def _cell_of(head: str, row: tuple[BackendChange, Mapping[str, str]]) -> str:
    return row[1][head]


def _case_view(metric: str, part: pd.DataFrame, sides: Sides) -> TableView:
    write = writer(metric)
    beside = part["kind"].nunique() > 1
    where: list[tuple[str, Writer[Row]]] = [
        ("where", of("kind", lambda kind: "beside a peer" if kind == "peer" else ""))
    ]
    columns: Columns[Row] = [
        ("backend", name),
        ("mode", of("mode")),
        *(where if beside else []),
        ("tokens", of("seq_len", numbers.tokens)),
        (sides.base, lambda row: _measured(row, "base", write)),
        (sides.new, lambda row: _measured(row, "new", write)),
        ("new / base", _ratio),
        ("seen from", of("smallest")),
        ("verdict", lambda row: Cell(row["word"], is_status=row["verdict"] in REGRESSIONS)),
        ("remark", of("remark")),
    ]
    title = f"{METRICS[metric].title}: every case"
    return table(title, as_rows(part), columns, text_columns=2 + beside)


def _measured(row: Row, side: str, write: Any) -> Cell:
    if not math.isfinite(row[side]):
        return Cell(numbers.status_word(row[f"{side}_status"]), is_status=True)
    between = numbers.interval(row[f"{side}_low"], row[f"{side}_high"], write)
    return Cell(_marked(write(row[side]), row, side), between.strip("()"))


def _marked(text: str, row: Row, side: str) -> str:
    return marked(text, {"converged": row[f"{side}_cut_short"] == 0})


def _ratio(row: Row) -> Cell:
    found = Estimate(row["value"], row["ci_low"], row["ci_high"])
    value, _, between = changes_text.ratio(found).partition(" × ")
    return Cell(f"{value.removesuffix(' ×')} ×" if math.isfinite(row["value"]) else numbers.NONE,
                between.strip("()"))  # fmt: skip


def _fastest(part: pd.DataFrame, sides: Sides) -> TableView:
    """Return, for each mode and length, which backend is fastest in either run."""
    alone = part[part["kind"] == "speed"]
    rows = [
        {"mode": mode, "seq_len": n, "base": _best(group, "base"), "new": _best(group, "new")}
        for (mode, n), group in alone.groupby(["mode", "seq_len"], sort=False)
        if group["backend"].nunique() > 1
    ]
    columns: Columns[Row] = [
        ("mode", of("mode")),
        ("tokens", of("seq_len", numbers.tokens)),
        (f"fastest: {sides.base}", lambda row: row["base"][0]),
        ("time", lambda row: row["base"][1]),
        (f"fastest: {sides.new}", lambda row: row["new"][0]),
        ("time", lambda row: row["new"][1]),
        ("remark", _another),
    ]
    notes = ["Whatever its error is. Below a name: what is not surely slower."]
    return table("The fastest at each length", rows, columns, notes=notes)


def _another(row: Row) -> str:
    """Say whether another backend is fastest, and surely so in the old run."""
    was, now = row["base"][0], row["new"][0]
    alike = was.small.replace(f" {MARK}", "").split(", ")
    return "another one" if was.text != now.text and now.text not in alike else ""


def _best(group: pd.DataFrame, side: str) -> tuple[Cell, Cell]:
    known = as_rows(group[group[side].notna()].sort_values(side, kind="stable"))
    if not known:
        return Cell(numbers.NONE), Cell(numbers.NONE)
    first, *others = known
    launches = f"{side}_launches"
    alike = [
        _marked(name(o), o, side) for o in others
        if not is_less(first[launches], o[launches])
    ]  # fmt: skip
    time = _marked(numbers.seconds(first[side]), first, side)
    return Cell(name(first), ", ".join(alike)), Cell(time)


def _crossed(base: Run, new: Run, shown: pd.DataFrame) -> pd.DataFrame:
    """Return the crossovers of both runs, a row a series that is shown and baseline."""
    places = ["machine", "environment"]
    key = [*(c for c in SERIES if c not in places), "baseline"]
    before, after = (crossovers(against(points(run))) for run in (base, new))
    after["there"] = after["machine"].map(Pairing(base, new).machines)
    before = before.rename(columns={"machine": "there"})
    kept = ["seq_len", "reason"]
    both = after.merge(before[["there", *key, *kept]], on=["there", *key], suffixes=("", "_base"))
    told = both["seq_len"].notna() | both["seq_len_base"].notna()
    both = both[told & ~both["backend"].isin(("full", "sdpa"))]
    return both.merge(shown[list(SERIES)].drop_duplicates(), on=list(SERIES))


def _crossover_table(part: pd.DataFrame, sides: Sides) -> TableView:
    columns: Columns[Row] = [
        ("backend", name),
        ("mode", of("mode")),
        ("faster than", of("baseline")),
        (f"from tokens: {sides.base}", lambda row: numbers.tokens(row["seq_len_base"], to="up")),
        (f"from tokens: {sides.new}", lambda row: numbers.tokens(row["seq_len"], to="up")),
        ("remark", lambda row: _reasons(row, sides)),
    ]
    title = "From which length on a backend is faster"
    return table(title, as_rows(part), columns, text_columns=3)


def _reasons(row: Row, sides: Sides) -> str:
    told = {sides.base: row["reason_base"], sides.new: row["reason"]}
    return "; ".join(f"{name}: {reason}" for name, reason in told.items() if reason)
