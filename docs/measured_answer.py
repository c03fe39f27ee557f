"""The answer: a figure, and where exact attention wins, what wins above, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from measured_tables import chaptered, loaded

from results.chapters.error.rows import error_chapters
from results.chapters.quality.rows import chapters_of_tasks
from results.chapters.speed.rows import Chapter
from results.records.frames import as_rows
from results.text import numbers

BASELINE = "sdpa"
TEXT = "language:objective=masked"
TRAINED = "trained"


def answer(speed: Path, text: Path, error: Path) -> str:
    """Return three sentences as a list, from runs of the suites speed, quality and error."""
    (chapter,) = chaptered(loaded(speed))
    return "\n".join([_below(chapter), _above(chapter), f"{_quality(text)} {_error(error)}"])


def figure(folder: str) -> str:
    """Return what shows the figure of time against length."""
    return (
        "<picture>\n"
        f'<source media="(prefers-color-scheme: dark)" srcset="{folder}/time-dark.png">\n'
        f'<img alt="Time against length, by backend" src="{folder}/time-light.png">\n'
        "</picture>"
    )


def _below(chapter: Chapter) -> str:
    """Say up to which length exact attention is the fastest, and what overtakes it where."""
    rows = chapter.crossovers
    rows = rows[(rows["mode"] == "forward") & (rows["baseline"] == BASELINE)]
    rows = rows[rows["seq_len"].notna() & (rows["backend"] != "full")].sort_values("seq_len")
    is_always = rows["reason"].str.startswith("faster at every")
    later = [
        f"{row['backend']} {numbers.from_tokens(row)} "
        f"{numbers.interval(row['ci_low'], row['ci_high'], numbers.about_tokens)}".strip()
        for row in as_rows(rows[~is_always])
    ]
    first = numbers.digits(rows[~is_always]["seq_len"].min(), 1, to="down")
    always = [
        f"{row['backend']} at every length tried, {numbers.tokens(row['seq_len'])} and more"
        for row in as_rows(rows[is_always])
    ]
    return (
        f"- **Below about {first} tokens take exact attention** (`{BASELINE}`). Faster than it, "
        f"from so many tokens on: {', '.join([*later, *always])}. Forward; 95 % intervals in "
        "brackets."
    )


def _above(chapter: Chapter) -> str:
    """Say how much faster the others are at the longest length, and in how much memory."""
    rows = chapter.speedups
    rows = rows[(rows["mode"] == "forward") & (rows["baseline"] == BASELINE)]
    rows = rows[(rows["backend"] != "full") & rows["value"].notna()]
    longest = int(rows["seq_len"].max())
    at = rows[rows["seq_len"] == longest].sort_values("value", ascending=False)
    faster = [
        f"{row['backend']} {numbers.times(row['value'], row['ci_low'], row['ci_high'])}"
        for row in as_rows(at)
    ]
    points = chapter.points
    points = points[(points["metric"] == "peak_memory") & (points["mode"] == "forward")]
    memory = points[points["seq_len"] == longest].set_index("backend")["value"]
    ours = memory[at["backend"]]
    return (
        f"- **At {numbers.tokens(longest)} tokens** speed-ups over `{BASELINE}`: "
        f"{', '.join(faster)}. They save no memory beside it ({numbers.size(ours.min())} to "
        f"{numbers.size(ours.max())}; `{BASELINE}` {numbers.size(memory[BASELINE])}), only beside "
        f"materialised softmax (`full` {numbers.size(memory['full'])})."
    )


def _quality(text: Path) -> str:
    """Say what a small language model learns with each."""
    (chapter,) = (c for c in chapters_of_tasks(loaded(text)) if c.setting["task"] == TEXT)
    (trial,) = chapter.trials
    bits = _listed((row["backend"], f"{row['score']:.2f}") for row in as_rows(trial.good))
    length = numbers.tokens(chapter.setting["seq_len"])
    return (
        "- **They compute something else; a model must be trained with it.** Bits per byte of a "
        f"small masked language model trained with each ({length} tokens, one seed, less is "
        f"better): {bits}."
    )


def _error(error: Path) -> str:
    """Say how far the outputs of a trained model's attention move when it is replaced."""
    (chapter,) = (c for c in error_chapters(loaded(error)) if TRAINED in c.inputs)
    rows = chapter.rows[chapter.rows["inputs"] == TRAINED]
    rows = rows[(rows["options"] == "") & ~rows["backend"].isin(("full", BASELINE))]
    moved = _listed(
        (row["backend"], numbers.digits(row["relative_error"], 2))
        for row in as_rows(rows.sort_values("relative_error"))
    )
    length = numbers.tokens(int(rows["seq_len"].max()))
    return (
        f"Put into a trained model without training, their relative error is {moved}; 1 is that "
        f"of zeros ({length} tokens)."
    )


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    return numbers.listing([f"{value} ({name})" for name, value in pairs])
