"""How memory grows with length, beside what each backend declares: sentences and a table."""

from __future__ import annotations

import math

from results.chapters.speed.rows import Chapter
from results.metrics import MEMORY
from results.page.blocks import TableView
from results.page.cells import name
from results.page.columns import Columns, Row, of, table
from results.records.frames import as_rows
from results.text import memory_growth as words
from results.text import numbers
from results.text.modes import WORDS

_VERDICTS = {
    "declared": "as declared", "otherwise": "otherwise", "irregular": "irregular",
    "": numbers.NONE,
}  # fmt: skip

_NOTE = "Misses are those of the curve with a ≥ 0 and c that misses least at its worst length."


def memory_growth(chapter: Chapter, mode: str) -> list[str]:
    """Say how memory grows with length, where that can be told; the table has the others."""
    fits = chapter.fits
    rows = fits[(fits["mode"] == mode) & (fits["metric"] == WORDS[mode].memory)]
    rows = rows[rows["growth"].isin(["declared", "otherwise"])]
    return words.sentences((name(row), row) for row in as_rows(rows))


def memory_table(chapter: Chapter) -> TableView:
    """Return the table of the series' memory beside its declared growth."""
    columns: Columns[Row] = {
        "backend": name,
        "mode": of("mode"),
        "declared": lambda row: _form(row["expected"]),
        "grows": lambda row: _VERDICTS[row["growth"]],
        "misses by": of("miss", words.miss),
        "the other": lambda row: _form(row["other"]),
        "other misses by": of("other_miss", words.miss),
        "lengths": _lengths,
        "remark": of("reason"),
    }  # fmt: skip
    rows = chapter.fits[chapter.fits["metric"].isin(MEMORY)]
    return table(
        "How memory grows with length", as_rows(rows), columns, text_columns=4, is_long=False,
        notes=[_NOTE],
    )  # fmt: skip


def _form(exponent: float) -> str:
    return words.form(exponent) if math.isfinite(exponent) else numbers.NONE


def _lengths(row: Row) -> str:
    if not math.isfinite(row["seq_len_min"]):
        return numbers.NONE
    return f"{numbers.tokens(row['seq_len_min'])}–{numbers.tokens(row['seq_len_max'])}"
