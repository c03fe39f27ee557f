"""What contradicts common belief: a finding each, its numbers read from the reference runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from measured_answer import BASELINE, TEXT, TRAINED
from measured_tables import chaptered

from results.chapters.error.rows import error_chapters
from results.chapters.quality.rows import chapters_of_tasks
from results.chapters.speed.rows import Chapter
from results.records.frames import as_rows
from results.records.load import Run
from results.text import numbers

LINEAR = ("longformer", "bigbird", "linformer", "performer")
UNIFORM = "gaussian:scale=0.3"
"""Inputs on which softmax is nearly uniform."""


@dataclass(frozen=True)
class Finding:
    """A sentence that people do not expect, and what it rests on.

    Attributes:
        title: the finding.
        belief: what is often said.
        measured: the numbers, in one or two sentences.
        holds: whether the numbers bear the title out.
        command: that measures it.
        page: of docs/ that has the tables.
    """

    title: str
    belief: str
    measured: str
    holds: bool
    command: str
    page: str

    @property
    def text(self) -> str:
        """The finding as Markdown."""
        return (
            f"## {self.title}\n\nOften said: {self.belief}\n\nMeasured: {self.measured}\n\n"
            f"`attnbench run {self.command}`, [all of it]({self.page})."
        )


def findings(run_of: Callable[..., Run]) -> str:
    """Return all findings as Markdown.

    Args:
        run_of: returns the reference runs of these names, without one that of speed.

    Raises:
        ValueError: if the numbers do not bear out a title; naming it.
    """
    (speed,) = chaptered(run_of())
    (text,) = (c for c in chapters_of_tasks(run_of("text")) if c.setting["task"] == TEXT)
    every = (
        _memory(speed),
        _short(speed),
        _growth(run_of("scaling")),
        _learnt(speed, {row["backend"]: row["score"] for row in as_rows(text.trials[0].good)}),
        _inputs(run_of("error")),
        _decoding(run_of("decode")),
        _models(speed, run_of("models")),
        _memory_saved(speed),
    )
    if wrong := [one.title for one in every if not one.holds]:
        raise ValueError(f"the reference runs do not show: {'; '.join(wrong)}")
    return "\n\n".join(one.text for one in every)


def _at(chapter: Chapter, metric: str, mode: str = "forward") -> pd.DataFrame:
    """Return backends by length: the values of a metric, one setting, default options."""
    rows = chapter.points
    rows = rows[(rows["metric"] == metric) & (rows["mode"] == mode) & (rows["options"] == "")]
    table = rows.pivot_table(index="backend", columns="seq_len", values="value", aggfunc="first")
    assert isinstance(table, pd.DataFrame)
    return table


def _exponents(chapter: Chapter, metric: str, mode: str = "forward") -> Mapping[str, str]:
    rows = chapter.fits
    rows = rows[(rows["metric"] == metric) & (rows["mode"] == mode)]
    return {
        row["backend"]: (
            f"{numbers.exponent(row['exponent'])} "
            f"{numbers.interval(row['ci_low'], row['ci_high'], numbers.exponent)}"
        )
        for row in as_rows(rows[rows["exponent"].notna()])
    }


def _memory(speed: Chapter) -> Finding:
    memory = _at(speed, "peak_memory")
    longest = int(memory.loc["full"].dropna().index.max())
    full, fused = memory.loc["full", longest], memory.loc[BASELINE, longest]
    grows = _exponents(speed, "peak_memory")
    return Finding(
        "Exact attention does not need quadratic memory",
        "self-attention's memory grows with the square of the length.",
        f"At {numbers.tokens(longest)} tokens materialised softmax (`full`) takes "
        f"{numbers.size(full)}, fused exact attention (`{BASELINE}`) {numbers.size(fused)}; their "
        f"memory grows with exponents of {grows['full']} and {grows[BASELINE]}. Only the time is "
        "quadratic.",
        fused < full / 10,
        "--backend full,sdpa --mode forward", "performance.md",
    )  # fmt: skip


def _short(speed: Chapter) -> Finding:
    rows = speed.crossovers
    rows = rows[(rows["mode"] == "training") & (rows["baseline"] == BASELINE)]
    rows = rows[rows["backend"].isin(LINEAR) & rows["seq_len"].notna()]
    forward = speed.crossovers
    forward = forward[(forward["mode"] == "forward") & (forward["baseline"] == BASELINE)]
    forward = forward[forward["backend"].isin(LINEAR) & forward["seq_len"].notna()]
    told = [
        f"{row['backend']} from {numbers.from_tokens(row)}"
        for row in as_rows(forward.sort_values("seq_len"))
    ]
    trained = [
        f"{row['backend']} from {numbers.from_tokens(row)}"
        for row in as_rows(rows.sort_values("seq_len"))
    ]
    return Finding(
        "Linear methods overtake fused exact attention below a thousand tokens",
        "linear attention pays at tens of thousands of tokens only.",
        f"Faster than `{BASELINE}` in a forward pass: {numbers.listing(told)} tokens; in "
        f"training: {numbers.listing(trained)}. Below that the exact method is "
        "both right and fast.",
        bool(forward["seq_len"].max() < 1000),
        "--preset standard", "performance.md",
    )  # fmt: skip


def _growth(run: Run) -> Finding:
    chapter = next(c for c in chaptered(run) if not c.setting["is_causal"])
    of = _exponents(chapter, "latency")
    highs = chapter.fits[chapter.fits["metric"] == "latency"].set_index("backend")["ci_high"]
    first, last = (int(f(chapter.points["seq_len"])) for f in (min, max))
    n_log_n = 1 + math.log(math.log(last) / math.log(first)) / math.log(last / first)
    return Finding(
        "Windows and blocks cost O(n), not O(n log n)",
        "sparse attention (Longformer, BigBird) is O(n log n).",
        f"From {numbers.tokens(first)} to {numbers.tokens(last)} tokens their time grows with "
        f"exponents of {of['longformer']} and {of['bigbird']}, as many keys per query at every "
        f"length; that of n log n would be {numbers.exponent(n_log_n)}.",
        all(high < n_log_n for high in (highs["longformer"], highs["bigbird"])),
        "--preset scaling", "performance_long.md",
    )  # fmt: skip


def _learnt(speed: Chapter, bits: Mapping[str, float]) -> Finding:
    rows = speed.speedups
    rows = rows[(rows["mode"] == "forward") & (rows["baseline"] == BASELINE)]
    rows = rows[rows["backend"].isin(LINEAR) & rows["value"].notna()]
    longest = int(rows["seq_len"].max())
    by_speed = rows[rows["seq_len"] == longest].sort_values("value", ascending=False)
    fastest = as_rows(by_speed)[0]
    ranked = [
        f"{row['backend']} {numbers.digits(row['value'], 2)} × and {bits[row['backend']]:.2f}"
        for row in as_rows(by_speed)
    ]
    return Finding(
        "The fastest method learns least",
        "an approximation of softmax costs a little accuracy.",
        f"Speed-up over `{BASELINE}` at {numbers.tokens(longest)} tokens, and bits per byte of a "
        f"small masked language model trained with it (`{BASELINE}` {bits[BASELINE]:.2f}, less is "
        f"better): {', '.join(ranked)}.",
        max(bits, key=bits.__getitem__) == fastest["backend"],
        "quality --task language:objective=masked", "quality_text.md",
    )  # fmt: skip


def _inputs(run: Run) -> Finding:
    errors: dict[str, dict[str, float]] = {}
    for chapter in error_chapters(run):
        rows = chapter.rows
        rows = rows[(rows["options"] == "") & rows["backend"].isin(LINEAR)]
        for row in as_rows(rows[rows["inputs"].isin((TRAINED, UNIFORM))]):
            errors.setdefault(row["inputs"], {})[row["backend"]] = row["relative_error"]
    drawn, trained = errors[UNIFORM], errors[TRAINED]
    told = [
        f"{name} {numbers.digits(drawn[name], 2)} and {numbers.digits(trained[name], 2)}"
        for name in LINEAR
    ]
    return Finding(
        "Errors on random inputs say nothing of a model",
        "Performer approximates softmax closely, a window does not.",
        "That is so where softmax is nearly uniform, on normal inputs of a small deviation; on a "
        "trained model's inputs the order is the reverse. Relative error on the two: "
        f"{', '.join(told)}.",
        drawn["performer"] < drawn["longformer"] and trained["performer"] > trained["longformer"],
        "error --preset standard", "quality_error.md",
    )  # fmt: skip


def _decoding(run: Run) -> Finding:
    (chapter,) = chaptered(run)
    time, state = (_at(chapter, metric, "decode") for metric in ("latency", "state_bytes"))
    first, last = int(min(time.columns)), int(max(time.columns))
    at = [
        f"{name} {numbers.seconds(time.loc[name, first])} and "
        f"{numbers.seconds(time.loc[name, last])}, {numbers.size(state.loc[name, last])}"
        for name in (BASELINE, "longformer", "performer")
    ]
    return Finding(
        "A window decodes in constant time with a cache as small as itself",
        "decoding a token costs as much as the context is long.",
        f"A token after {numbers.tokens(first)} and after {numbers.tokens(last)} tokens, and the "
        f"KV cache or recurrent state there: {'; '.join(at)}.",
        time.loc["longformer", last] < 1.2 * time.loc["longformer", first],
        "--preset decode", "performance_decoding.md",
    )  # fmt: skip


def _models(speed: Chapter, run: Run) -> Finding:
    bert = next(
        c for c in chaptered(run)
        if str(c.setting["model"]).startswith("bert-base") and not c.setting["compile"]
        and not c.setting["checkpointing"]
    )  # fmt: skip
    rows = bert.speedups
    rows = rows[(rows["mode"] == "forward") & (rows["baseline"] == BASELINE)]
    rows = rows[(rows["backend"] == "performer") & rows["value"].notna()]
    whole = as_rows(rows.sort_values("seq_len"))[-1]
    length = int(whole["seq_len"])
    alone = speed.speedups
    alone = alone[(alone["mode"] == "forward") & (alone["baseline"] == BASELINE)]
    (own,) = as_rows(alone[(alone["backend"] == "performer") & (alone["seq_len"] == length)])
    return Finding(
        "A model gains a fraction of what its attention gains",
        "an attention that is ten times as fast makes the model so.",
        f"At {numbers.tokens(length)} tokens performer's call is "
        f"{numbers.times(own['value'], own['ci_low'], own['ci_high'])} as fast as `{BASELINE}`'s, "
        "a forward pass of BERT (a quarter of its layers and vocabulary) with it "
        f"{numbers.times(whole['value'], whole['ci_low'], whole['ci_high'])}: the rest is "
        "projections and feed-forward layers.",
        own["value"] > 2 * whole["value"],
        "--preset models", "performance_models.md",
    )  # fmt: skip


def _memory_saved(speed: Chapter) -> Finding:
    memory = _at(speed, "peak_memory", "training")
    longest = int(memory.loc[BASELINE].dropna().index.max())
    told: list[Any] = [
        f"{name} {numbers.size(memory.loc[name, longest])}" for name in (BASELINE, *LINEAR)
    ]
    return Finding(
        "Linear methods save little memory, in training too",
        "linear attention lets longer sequences fit.",
        f"A training step's attention at {numbers.tokens(longest)} tokens, above its inputs: "
        f"{', '.join(told)}. Beside a fused exact kernel that is little; materialised "
        f"scores take {numbers.size(memory.loc['full', longest])}.",
        bool(memory.loc[list(LINEAR), longest].min() > 0.5 * memory.loc[BASELINE, longest]),
        "--mode training", "performance.md",
    )  # fmt: skip
