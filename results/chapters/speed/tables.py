"""The report's tables as rows of text: what the page and the Markdown both show."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from results.analysis.profiles import longest
from results.analysis.warm_up import marked
from results.chapters.speed.attention_share import worth
from results.chapters.speed.rows import Chapter
from results.chapters.speed.short_inputs import BASELINE, FACTOR, SHORT, SLACK, short_inputs
from results.page.blocks import LONG, Cell, TableView
from results.page.cells import plus_minus, ratio_cell
from results.records.frames import as_rows
from results.schema import ITEM_SIZE, PROFILE_PARTS
from results.text import numbers
from results.text.labels import label
from results.text.modes import WORDS
from results.text.notes import MOST, capped
from results.text.numbers import status_word

IN_CASES = "in the table of every case"
"""Where the notes are that a list leaves out."""


def tables(chapter: Chapter) -> list[TableView]:
    """Return the tables of a chapter that have rows."""
    views = []
    for mode in chapter.modes:
        title = f"{WORDS[mode].call}, {mode}"
        views += [
            _matrix(chapter, mode, "latency", title, numbers.seconds),
            _memory(chapter, mode),
        ]
    views.append(_worth(chapter))
    views += [_scaling(chapter), _crossovers(chapter), _short(chapter)]
    views += [_profile(chapter), _products(chapter)]
    return [v for v in views if v.rows]


def _matrix(
    chapter: Chapter, mode: str, metric: str, title: str, write: Callable[[float], str]
) -> TableView:
    """Return backends by lengths."""
    rows = chapter.points
    rows = rows[(rows["mode"] == mode) & (rows["metric"] == metric)]
    lengths = sorted(set(rows["seq_len"]))
    result: list[list[Cell]] = []
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for key, part in rows.groupby(["backend", "options"], sort=False):
        by_length = {row["seq_len"]: row for row in as_rows(part)}
        cells = [Cell(label(*key))]
        for n in lengths:
            row = by_length.get(n)
            if row is None:
                cells.append(Cell(numbers.NONE))
            elif math.isfinite(row["value"]):
                cells.append(Cell(marked(write(row["value"]), row), plus_minus(row)))
            else:
                word = status_word(row["status"])
                cells.append(Cell(word, is_status=True))
                if row["reason"]:
                    reasons.setdefault((word, row["reason"]), {}).setdefault(label(*key))
        result.append(cells)
    head = ["backend", *(numbers.tokens(n) for n in lengths)]
    notes = [
        f"{numbers.few(list(names), MOST)}, {word}: {reason}."
        for (word, reason), names in reasons.items()
    ]
    return TableView(title, head, result, notes=capped(notes, IN_CASES))


def _memory(chapter: Chapter, mode: str) -> TableView:
    """Return backends by lengths, and what the longest one takes a token."""
    words = WORDS[mode]
    view = _matrix(chapter, mode, words.memory, f"{words.memory_title}, {mode}", numbers.size)
    if words.memory != "peak_memory":
        return view
    rows = chapter.points
    rows = rows[(rows["mode"] == mode) & (rows["metric"] == words.memory)]
    rows = rows[rows["value"].notna()].sort_values("seq_len")
    last = {label(r["backend"], r["options"]): r for r in as_rows(rows)}
    for cells in view.rows:
        row = last.get(cells[0].text)
        cells.append(Cell(numbers.NONE if row is None else numbers.digits(_per_token(row))))
    if last:
        view.head.append("bytes per token")
        view.notes.append(_io_per_token(chapter.setting))
    return view if last else TableView(view.title, view.head, [r[:-1] for r in view.rows])


def _per_token(row: Mapping[Hashable, Any]) -> float:
    return float(row["value"] / (row["batch"] * row["seq_len"]))


def _io_per_token(setting: Mapping[str, Any]) -> str:
    """Say what a token costs before anything is computed: its part of inputs and output."""
    query = setting["num_heads"] * setting["head_dim"]
    key = setting["num_kv_heads"] * setting["head_dim"]
    attention = setting["level"] == "attention"
    elements = 2 * query + (2 * key if attention else 0)
    what = "q, k, v and the output" if attention else "the input and the output"
    if not elements:  # a model's heads are its own
        return "Bytes per token: the peak at the longest length, over batch × tokens."
    size = numbers.tokens(elements * ITEM_SIZE[setting["dtype"]])
    return (
        "Bytes per token: the peak at the longest length that was measured, over batch × tokens; "
        f"{what} themselves have {size}."
    )


def _worth(chapter: Chapter) -> TableView:
    """Return what each attention is worth within a layer, block or model, beside the floor."""
    rows = []
    for mode in chapter.modes:
        for row in as_rows(worth(chapter.points, mode)):
            rows.append(
                [
                    Cell(label(row["backend"], row["options"])),
                    Cell(mode),
                    Cell(numbers.tokens(row["seq_len"])),
                    Cell(marked(numbers.seconds(row["value"]), row), plus_minus(row)),
                    Cell(numbers.digits(row["tokens_per_s"], 2)),
                    Cell(numbers.size(row["memory"])),
                    Cell(*_between(row)),
                    ratio_cell(row),
                ]
            )
    head = [
        "backend", "mode", "tokens", "time", "tokens/s", "memory", "attention's share",
        f"× {BASELINE}",
    ]  # fmt: skip
    notes = [
        "Attention's share: what is left of the time without the identity arm's, which has "
        "everything else and is sampled in alternation, with the 95 % interval over launches; of "
        "lstm there is none, since it stands in the place of the projections too. Of an "
        "encoder-decoder it is the encoder's self-attention. It is below 0 where a method saves "
        "more in the projections than it takes (Linformer).",
        "Tokens/s: of the input. Memory: of a model above weights and optimiser's moments.",
        f"× {BASELINE}: how many times as fast the whole is as with {BASELINE}, with the 95 % "
        "interval over launches.",
    ]
    title = f"What the attention is worth in a {chapter.setting['level']}"
    return TableView(title, head, rows, 2, notes, is_long=len(rows) > LONG)


def _between(row: Mapping[Hashable, Any]) -> tuple[str, str]:
    """Write a share and its interval."""

    def write(share: float, /, *, to: numbers.To = "nearest") -> str:
        return f"{numbers.rounded(100 * share, 0, to) + 0.0:.0f}"  # nothing has no sign

    value = row["attention_share"]
    between = numbers.interval(row["share_low"], row["share_high"], write, unit=" %")
    return (f"{write(value)} %" if math.isfinite(value) else numbers.NONE), between


_MEASURED = {"latency": "time", "state_bytes": "state"}


def _scaling(chapter: Chapter) -> TableView:
    rows = []
    for row in as_rows(chapter.fits):
        known = math.isfinite(row["exponent"])
        between = numbers.interval(row["ci_low"], row["ci_high"], numbers.exponent).strip("()")
        rows.append(
            [
                Cell(label(row["backend"], row["options"])),
                Cell(row["mode"]),
                Cell(_MEASURED.get(row["metric"], "memory")),
                Cell(marked(numbers.exponent(row["exponent"]), row)),
                Cell(between or numbers.NONE),
                Cell(f"{row['expected']:g}" if math.isfinite(row["expected"]) else numbers.NONE),
                Cell(
                    f"{numbers.tokens(row['seq_len_min'])}–{numbers.tokens(row['seq_len_max'])}"
                    if known
                    else numbers.NONE
                ),
                Cell(row["reason"]),
            ]
        )
    head = ["backend", "mode", "of", "exponent", "95 % interval", "declared", "lengths", "remark"]
    return TableView("Exponents of time and memory in the length", head, rows, text_columns=3)


def _crossovers(chapter: Chapter) -> TableView:
    rows = []
    for row in as_rows(chapter.crossovers):
        between = numbers.interval(row["ci_low"], row["ci_high"], numbers.tokens).strip("()")
        rows.append(
            [
                Cell(label(row["backend"], row["options"])),
                Cell(row["mode"]),
                Cell(row["baseline"]),
                Cell(marked(numbers.tokens(row["seq_len"], to="up"), row)),
                Cell(between or numbers.NONE),
                Cell(row["reason"]),
            ]
        )
    head = ["backend", "mode", "faster than", "from tokens", "95 % interval", "remark"]
    return TableView("From which length on a backend is faster", head, rows, text_columns=3)


def _short(chapter: Chapter) -> TableView:
    """Return what short inputs cost beside exact attention, and whose size explains it."""
    found = short_inputs(chapter.points)
    rows = [
        [
            Cell(label(row["backend"], row["options"])),
            Cell(row["mode"]),
            Cell(numbers.tokens(row["seq_len"])),
            Cell(marked(numbers.seconds(row["value"]), row), plus_minus(row)),
            Cell(numbers.seconds(row["baseline"])),
            Cell(numbers.seconds(row["allowed"])),
            Cell("more" if row["over"] else "within", is_status=bool(row["over"])),
            Cell(row["why"] if row["over"] else ""),
        ]
        for row in as_rows(found[found["baseline"].notna()])
    ]
    head = ["backend", "mode", "tokens", "time", BASELINE, "allowed", "verdict", "remark"]
    notes = [
        f"Allowed at up to {SHORT} tokens: {FACTOR:g} × the time of {BASELINE} and "
        f"{SLACK * 1e6:g} µs more; full, which holds all scores, is exempt."
    ]
    return TableView("Short inputs", head, rows, 2, notes, is_long=len(rows) > LONG)


def _profile(chapter: Chapter) -> TableView:
    """Return the parts of each backend's call at its longest length, and two of their rates."""
    keys = ["mode", "backend", "options", "seq_len"]
    found = chapter.profiles
    rows = []
    for key, part in longest(found.parts).groupby(keys, sort=False):
        by_name = {row["part"]: row for row in as_rows(part)}
        rates = [
            by_name[name]["rate"] / chapter.peaks.get(peak, math.nan)
            for name, peak in (("products", "matmul_rate"), ("exponentials", "exp_rate"))
        ]
        told = [
            Cell(numbers.seconds(part["call"].iloc[0])),
            *(Cell(_share(by_name[name]["share"])) for name in PROFILE_PARTS),
            *(Cell(numbers.percent(rate)) for rate in rates),
        ]
        rows.append([*_which(key), *told])
    known = set(found.parts[keys].itertuples(index=False, name=None))
    failed = found.faults[keys].drop_duplicates().itertuples(index=False, name=None)
    nothing = [Cell("failed", is_status=True), *[Cell(numbers.NONE)] * (len(PROFILE_PARTS) + 2)]
    rows += [[*_which(key), *nothing] for key in failed if key not in known]
    head = [
        "backend", "mode", "tokens", "time", *PROFILE_PARTS, "products, of peak",
        "exponentials, of peak",
    ]  # fmt: skip
    notes = [
        "Shares of single calls under torch's profiler, which slows those of many small steps: "
        "the fastest of a few calls a launch, the median over launches.",
        "Products: matrix products. Fused: torch's fused attention, products and exponentials in "
        "one. Exponentials: with all of a softmax. Copies: also gathers and fills. Passes: every "
        "other operator that reads and writes memory. Compiled: code that torch compiled. "
        "Between: Python, dispatch, allocation and freeing.",
        "Of peak: operations of that part over its time, over this machine's measured peak.",
        *capped(
            [
                f"No profile of {label(row['backend'], row['options'])}, {row['mode']}, "
                f"{numbers.tokens(row['seq_len'])} tokens: {row['reason']}."
                for row in as_rows(found.faults)
            ],
            "in the records",
        ),
    ]
    return TableView("Where the time goes", head, rows, text_columns=2, notes=notes)


def _which(key: tuple[Any, ...]) -> list[Cell]:
    """Return the cells of a mode, a backend with its options, and a length."""
    mode, backend, options, seq_len = key
    return [Cell(label(backend, options)), Cell(mode), Cell(numbers.tokens(seq_len))]


def _share(value: float) -> str:
    if not value > 0:
        return numbers.NONE
    return numbers.percent(value) if value >= 0.001 else "<0.1 %"


def _products(chapter: Chapter) -> TableView:
    """Return the matrix products of each backend's call at its longest length, by shape."""
    peak = chapter.peaks.get("matmul_rate", math.nan)
    rows = [
        [
            Cell(label(row["backend"], row["options"])),
            Cell(row["mode"]),
            Cell(row["product"]),
            Cell(numbers.tokens(row["calls"])),
            Cell(numbers.percent(row["share"])),
            _rate(row["rate"], peak),
            _rate(row["alone"], peak),
        ]
        for row in as_rows(longest(chapter.profiles.products))
    ]
    head = ["backend", "mode", "product", "calls", "share", "in the call", "alone"]
    notes = [
        "Shapes with at least 2 % of a call's time. Alone: the same product by itself, of "
        "contiguous operands, into memory that is there already; below each rate its share of "
        "this machine's measured peak.",
    ]
    return TableView("Matrix products by shape", head, rows, 3, notes, is_long=True)


def _rate(value: float, peak: float) -> Cell:
    if not math.isfinite(value):
        return Cell(numbers.NONE)
    near = value / peak
    return Cell(f"{numbers.rate(value)}op/s", numbers.percent(near) if math.isfinite(near) else "")
