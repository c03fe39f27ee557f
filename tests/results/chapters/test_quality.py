"""Tasks and quantised weights on the page, from records whose truth is known."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import synthetic_quality as made
from helpers_page import unscripted
from hypothesis import given
from hypothesis import strategies as st

from results.analysis.analysis import Analysis
from results.analysis.series import points
from results.chapters.error.chapter import error_part
from results.chapters.quality.chapter import task_part
from results.chapters.quality.figures import (
    MOST_GROUPS,
    band,
    cost_figure,
    curve_figure,
    group_figure,
    grouped,
)
from results.chapters.quality.overview import answers, overview
from results.chapters.quality.published import published_tables, rows_of
from results.chapters.quality.rows import Trial, at_chance, chapters_of_tasks
from results.chapters.quality.scores import score
from results.chapters.quality.sentences import quality_paragraphs
from results.chapters.quality.tables import quality_tables
from results.chapters.quantized.chapter import quantized_part
from results.chapters.speed.captions import input_scale
from results.chapters.trust.rows import trust
from results.export.asv import export_asv
from results.export.tables import export_table
from results.records.load import load
from results.report import write_report
from results.schema import LATER_FIELDS, content_id
from results.statistics.pareto import frontier
from results.statistics.seeds import spread, wilson
from results.text.labels import number_of, options_of, training_name

Record = dict[str, Any]


LAWS = {"sdpa": synthetic.SEVEN["sdpa"]}
SMALL: dict[str, Any] = {"lengths": (512, 2048), "launches": 1, "modes": ("forward",)}


def told(folder: Path, records: list[Record]) -> str:
    (chapter,) = chapters_of_tasks(load(made.write_quality(folder, records)))
    return "\n".join(s for p in quality_paragraphs(chapter) for s in p.sentences)


def trial_of(folder: Path, records: list[Record]) -> Trial:
    (chapter,) = chapters_of_tasks(load(made.write_quality(folder, records)))
    (trial,) = chapter.trials
    return trial


def by_name(trial: Trial) -> dict[str, dict[Any, Any]]:
    return {row["backend"]: row for row in trial.rows.to_dict("records")}


def html(folder: Path, records: list[Record]) -> str:
    return unscripted(write_report([made.write_quality(folder, records)], ["html"])[0])


def prose(page: str) -> str:
    """Return what a page says, without its figures."""
    return re.sub(r"<[^>]*>", " ", re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL))


# -- numbers -------------------------------------------------------------------------------------

costs = st.one_of(st.floats(1e-9, 1e9), st.just(math.nan), st.sampled_from([1.0, 2.0]))


@given(st.lists(st.tuples(costs, costs), max_size=12), st.booleans())
def test_the_frontier_is_what_no_other_point_dominates(
    made_points: list[tuple[float, float]], lower: bool
) -> None:
    sign = -1 if lower else 1

    def dominated(i: int) -> bool:
        cost, value = made_points[i]
        return any(
            (c <= cost and sign * v >= sign * value) and (c < cost or sign * v > sign * value)
            for c, v in made_points
        )

    known = {i for i, p in enumerate(made_points) if not any(map(math.isnan, p))}
    expected = {
        i for i in known if not dominated(i)
    }  # NaN compares as false: it dominates nothing
    x, y = [p[0] for p in made_points], [p[1] for p in made_points]
    found = frontier(x, y, lower=lower)
    assert set(found) == expected
    assert [x[i] for i in found] == sorted(x[i] for i in found)


def test_the_interval_of_the_mean_is_students_from_three_seeds_on() -> None:
    found = spread([0.8, 0.9, 1.0])
    # t(0.975, 2) = 4.302653; standard error 0.1 / √3.
    assert found.mean == pytest.approx(0.9)
    assert found.ci_high - found.mean == pytest.approx(4.302653 * 0.1 / math.sqrt(3))
    assert (found.low, found.high) == (0.8, 1.0)
    assert spread([0.8, 0.9, 1.0], high=1.0).ci_high == 1.0
    assert math.isnan(spread([0.8, 0.9]).ci_low)
    assert spread([0.5])[:3] == (0.5, 0.5, 0.5)


def test_equal_seeds_are_no_certainty() -> None:
    assert math.isnan(spread([1.0] * 3, high=1.0).ci_low)
    found = spread([1.0] * 3, high=1.0, num_labels=400)
    # Of all labels right, Wilson's lower end is 1 / (1 + z² / n).
    assert found.ci_low == pytest.approx(1 / (1 + 1.959964**2 / 400))
    assert found.ci_high == 1.0
    wide, narrow = spread([0.7, 0.8, 0.9], num_labels=400), spread([0.7, 0.8, 0.9])
    assert (wide.ci_low, wide.ci_high) == (narrow.ci_low, narrow.ci_high)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.98])
def test_wilsons_interval_holds_a_share_as_often_as_it_says(share: float) -> None:
    drawn = np.random.default_rng(0).binomial(500, share, 4000) / 500
    held = [low <= share <= high for low, high in (wilson(float(s), 500) for s in drawn)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.025)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = [
        found.ci_low <= 0.5 <= found.ci_high
        for found in (spread(list(rng.normal(0.5, 0.1, 3))) for _ in range(2000))
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.0625, 0.06, 0.065], 3500, True),
        ([0.09, 0.09, 0.091], 3500, False),  # small, and surely more
        ([0.08], 100, True),  # within three standard errors of 100 labels
        ([0.08], 100_000, False),
        ([0.3, 0.06, 0.99], 3500, False),  # one seed learnt it: the wide interval is no alibi
        ([0.02, 0.03, 0.02], 3500, True),  # worse than a guess
        ([0.1], math.nan, True),
        ([0.2], math.nan, False),
    ],
)
def test_chance_is_told_by_labels_and_seeds(
    scores: list[float], labels: float, expected: bool
) -> None:
    assert at_chance(spread(scores), 1 / 16, labels) is expected


def test_rows_have_means_over_seeds_and_costs(tmp_path: Path) -> None:
    records = made.task_records()
    trial = trial_of(tmp_path, records)
    for name, row in by_name(trial).items():
        own = [
            r["arms"][0]["metrics"]["accuracy"]["value"]
            for r in records
            if r["case"]["arms"][0]["name"] == name and r["arms"]
        ]
        if own:
            assert row["score"] == pytest.approx(np.mean(own))
            assert (row["score_low"], row["score_high"]) == (min(own), max(own))
            assert row["num_seeds"] == 3
            assert row["latency"] == pytest.approx(made.SIX[name].costs[0])
            assert row["state_bytes"] == made.SIX[name].costs[2]
        else:
            assert math.isnan(row["score"])
            assert row["reason"] == made.SIX[name].fails[1]
    assert trial.chance == made.CHANCE
    assert trial.group == "distance"


def test_launches_of_one_seed_count_as_one(tmp_path: Path) -> None:
    records = made.task_records({"sdpa": made.Learner(lambda d: 0.8)}, seeds=(0, 1))
    again = copy.deepcopy(records[0])
    again["launch"]["index"] = 1
    again["arms"][0]["metrics"]["accuracy"]["value"] = 0.6
    row = by_name(trial_of(tmp_path, [*records, again]))["sdpa"]
    assert row["num_seeds"] == 2
    assert row["score"] == pytest.approx((0.7 + 0.8) / 2)


def test_groups_are_pooled_by_answers_over_seeds(tmp_path: Path) -> None:
    learner = made.Learner(lambda d: 1.0 if d <= 50 else 0.0)
    records = made.task_records({"sdpa": learner}, distances=tuple(range(1, 101)))
    table = grouped(trial_of(tmp_path, records).groups)
    assert len(table) == MOST_GROUPS
    assert list(table["value"]) == sorted(table["value"])
    assert table["value"].iloc[0] == pytest.approx(np.mean(range(1, 10)))  # 9 of 100 in 12 pools
    assert set(table["mean"].round(3)) <= {0.0, 1.0, *table["mean"].round(3)}
    total = (table["mean"] * [9, 9, 9, 9, 8, 8, 8, 8, 8, 8, 8, 8]).sum()
    assert total == pytest.approx(50)


def test_curves_are_compared_over_what_all_seeds_reached(tmp_path: Path) -> None:
    records = made.task_records({"sdpa": made.Learner()}, task=made.TEXT, seeds=(0, 1))
    curve = records[1]["arms"][0]["quality"]["curve"]
    for column in curve:
        curve[column] = curve[column][:30]
    found = band(trial_of(tmp_path, records).curves, "step")
    assert found is not None
    x, low, middle, high = found
    assert x[-1] == curve["step"][-1]
    assert np.all(low <= middle + 1e-12)
    assert np.all(middle <= high + 1e-12)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("steps:amount=400,lr=0.002", "equal steps (400), lr 0.002"),
        ("time:amount=60", "equal time (60.0 s)"),
        ("operations:amount=500,lr=0.1,pretrain=0.5",
         "equal FLOPs (500 steps of exact attention), lr 0.1, pretrain 0.5"),
        ("odd", "odd"), ("steps:amount=x", "equal steps"), ("steps:amount=nan,=,a", "equal steps"),
    ],
)  # fmt: skip
def test_a_training_is_named(text: str, shown: str) -> None:
    assert training_name(text).rstrip(", ") == shown


def test_spellings_of_strangers_are_read_or_left() -> None:
    assert options_of("recall:a=1,b=x=y,,c") == {"a": "1", "b": "x=y"}
    assert options_of("a=1") == {"a": "1"}
    assert options_of("") == {}
    for text in ("inf", "1e999", "1_0", "", "x"):
        assert math.isnan(number_of(text))


def test_scores_are_written_so_that_all_is_all() -> None:
    assert score(1.0, "accuracy") == "100.0 %"
    assert score(0.9999, "accuracy") == "> 99.9 %"
    assert score(0.5994, "accuracy") == "59.9 %"
    assert score(2.1, "bits_per_byte") == "2.100"


# -- sentences -----------------------------------------------------------------------------------


def test_the_sentences_say_who_solves_it_and_who_does_not(tmp_path: Path) -> None:
    text = told(tmp_path, made.task_records())
    assert re.search(r"Solved \(a mean of 99 % or more\): full 100.0 % and sdpa 99\.\d %", text)
    assert re.search(r"Above chance: longformer \d\d\.\d %", text)
    assert re.search(r"At chance \(6\.2 %\): performer", text)
    assert "latency 4.00 ms (sdpa)" in text
    assert "KV cache or state 256 KiB (full and sdpa)" in text
    assert "No result: xformers (unsupported) and linformer (failed)" in text
    assert "Exact attention" not in text


def test_a_seed_that_failed_is_said_and_solves_nothing(tmp_path: Path) -> None:
    two = {"sdpa": made.Learner(), "longformer": made.Learner(only_seeds=(0, 2)),
           "performer": made.Learner(lambda d: 0.5, only_seeds=(1,))}  # fmt: skip
    records = made.task_records(two)
    text = told(tmp_path / "a", records)
    assert "Solved (a mean of 99 % or more): sdpa 100.0 %." in text
    said = "Not counted as solved, as a seed failed: longformer 100.0 % (2 of 3 seeds)."
    assert said in text
    assert "performer 50.0 % (1 of 3 seeds)" in text
    assert "Cheapest that solves it" not in text
    chapters = chapters_of_tasks(load(tmp_path / "a"))
    (sentence,) = answers(chapters)[0].sentences
    assert "solved by sdpa; a seed failed: longformer 100.0 % (2 of 3 seeds); " in sentence
    rows = {row[0].text: row for row in quality_tables(chapters[0])[0].rows}
    assert rows["longformer"][1].small == "2 of 3 seeds"
    assert {rows["sdpa"][3].text, rows["longformer"][3].text} == {"3", "2 of 3"}
    del two["sdpa"]
    text = told(tmp_path / "b", made.task_records(two))
    assert "No backend reaches a mean of 99 % or more with all of its seeds." in text


@pytest.mark.parametrize("task", ["listops", "lra:data=x"])
@pytest.mark.parametrize("share", ["", ",pretrain=0.5"])
def test_training_from_scratch_is_said_to_overstate(tmp_path: Path, task: str, share: str) -> None:
    trainings = (made.STEPS, *([made.STEPS + share] if share else []))
    records = made.task_records({"sdpa": made.Learner()}, task=task, trainings=trainings)
    (chapter,) = chapters_of_tasks(load(made.write_quality(tmp_path, records)))
    notes = [note for table in quality_tables(chapter) for note in table.notes]
    (said,) = [note for note in notes if "Amos et al. 2023, arXiv 2310.02980" in note]
    pointed = "pretrain 0.5." if share else "Here no model was pretrained so."
    assert pointed in said
    records = made.task_records({"sdpa": made.Learner()}, seeds=(0,))
    (chapter,) = chapters_of_tasks(load(made.write_quality(tmp_path / "other", records)))
    assert not any("Amos" in n for table in quality_tables(chapter) for n in table.notes)


def test_a_task_that_exact_attention_fails_says_so(tmp_path: Path) -> None:
    weak = {name: made.Learner(lambda d: 0.5) for name in ("sdpa", "longformer")}
    text = told(tmp_path, made.task_records(weak))
    assert "No backend reaches a mean of 99 % or more; the best is sdpa 50.0 %." in text
    assert "Exact attention does not solve it either (sdpa 50.0 %)" in text
    assert "Cheapest that solves it" not in text


def test_bits_per_byte_stand_beside_the_compressors(tmp_path: Path) -> None:
    text = told(tmp_path, made.task_records(task=made.TEXT))
    assert "Fewest bits per byte: full 2.100." in text
    below = "Better than zlib (2.310 on the same test split): full, sdpa and longformer."
    assert below in text
    assert "No backend beats xz (2.050 on the same test split)" in text
    assert "Solved" not in text


def test_the_summary_has_a_sentence_a_trial(tmp_path: Path) -> None:
    records = made.task_records(trainings=(made.STEPS, made.SECONDS))
    run = load(made.write_quality(tmp_path, records))
    (paragraph,) = answers(chapters_of_tasks(run))
    assert len(paragraph.sentences) == 2
    assert "equal time (60.0 s), lr 0.002: solved by full and sdpa;" in paragraph.sentences[1]
    assert "at chance: performer." in paragraph.sentences[1]


def test_two_views_of_one_setting_are_two_trials_and_never_one_row(tmp_path: Path) -> None:
    slow = {"sdpa": made.Learner(lambda d: 0.5)}
    fast = {"sdpa": made.Learner(lambda d: 1.0)}
    records = [
        *made.task_records(slow, trainings=(made.STEPS,)),
        *made.task_records(fast, trainings=("steps:amount=800,lr=0.002",)),
    ]
    (chapter,) = chapters_of_tasks(load(made.write_quality(tmp_path, records)))
    assert [list(t.rows["score"]) for t in chapter.trials] == [[0.5], [1.0]]


def test_equal_titles_are_told_apart(tmp_path: Path) -> None:
    records = [
        *made.task_records({"sdpa": made.Learner()}, batch=32),
        *made.task_records({"sdpa": made.Learner()}, batch=64),
    ]
    found = chapters_of_tasks(load(made.write_quality(tmp_path, records)))
    assert [c.title for c in found] == [
        f"{made.RECALL}, causal, 256 tokens, batch {b}" for b in (32, 64)
    ]


def test_all_tasks_stand_in_one_table(tmp_path: Path) -> None:
    records = [*made.task_records(), *made.task_records(task="copy", is_causal=False)]
    (view,) = overview(chapters_of_tasks(load(made.write_quality(tmp_path, records))))
    assert view.head == ["task", "form", "tokens", *made.SIX]
    assert [[cell.text for cell in row[:2]] for row in view.rows] == [
        [made.RECALL, "causal"], ["copy", "bidirectional"]
    ]  # fmt: skip
    assert [cell.text for cell in view.rows[0]][5:6] == ["unsupported"]


def test_one_table_has_trainings_of_several_lengths_and_budgets(tmp_path: Path) -> None:
    narrow, wide = (made.Learner(options={"window": window}) for window in (4, 8))
    records = [
        *made.task_records({"longformer": narrow}, trainings=("steps:amount=400,lr=0.002",)),
        *made.task_records(
            {"longformer": wide}, task="copy", trainings=("steps:amount=200,lr=0.003",)
        ),
    ]
    (view,) = overview(chapters_of_tasks(load(made.write_quality(tmp_path, records))))
    assert view.head == ["task", "form", "tokens", "trained", "longformer"]
    assert [row[3].text for row in view.rows] == ["400 steps, lr 0.002", "200 steps, lr 0.003"]
    assert view.notes == ["longformer: window=4 at 256 tokens; window=8 at 256 tokens."]


def test_one_distance_makes_no_figure(tmp_path: Path) -> None:
    records = made.task_records({"sdpa": made.Learner()}, distances=(32.0,))
    (chapter,) = chapters_of_tasks(load(made.write_quality(tmp_path, records)))
    assert group_figure(chapter) is None


# -- tables and figures --------------------------------------------------------------------------


def test_the_table_has_what_the_records_have_alone(tmp_path: Path) -> None:
    run = load(made.write_quality(tmp_path, made.task_records(is_causal=False)))
    results, spent = quality_tables(chapters_of_tasks(run)[0])
    assert "KV cache or state" not in results.head
    assert results.head[-1] == "reason"
    cells = {row[0].text: row for row in results.rows}
    assert cells["linformer"][-1].text == "loss is not finite | at *step* 12"
    assert cells["linformer"][1].is_status
    assert cells["performer"][1].small.endswith("chance")
    latency = results.head.index("latency")
    marked = {name for name, row in cells.items() if row[latency].small == "frontier"}
    assert marked == {"longformer", "sdpa", "full"}
    assert [row[0].text for row in spent.rows] == ["full", "sdpa", "longformer", "performer"]


def test_costs_have_a_panel_each_with_bars_frontier_and_chance(tmp_path: Path) -> None:
    run = load(made.write_quality(tmp_path, made.task_records()))
    (chapter,) = chapters_of_tasks(run)
    figure = cost_figure(chapter, chapter.trials[0])
    assert figure is not None
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "latency, forward pass", "peak memory, forward pass", "KV cache or state"
    ]  # fmt: skip
    for ax in figure.axes:
        assert ax.get_ylabel() == "accuracy"
        marks = [line for line in ax.lines if line.get_marker() in "os^X"]
        assert len(marks) == 4
        bars = [line for line in ax.lines if len(set(line.get_xdata())) == 1 and line not in marks]
        assert len(bars) == 4
        assert any(set(line.get_ydata()) == {made.CHANCE} for line in ax.lines)
        (steps,) = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
        assert list(steps.get_ydata()) == sorted(steps.get_ydata())
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["full", "sdpa", "longformer", "performer", "frontier", "chance"]


def test_text_has_bits_per_byte_compressors_and_curves(tmp_path: Path) -> None:
    run = load(made.write_quality(tmp_path, made.task_records(task=made.TEXT)))
    (chapter,) = chapters_of_tasks(run)
    figure = cost_figure(chapter, chapter.trials[0])
    assert figure is not None
    ax = figure.axes[0]
    assert ax.get_ylabel() == "bits per byte (lower is better)"
    levels = {line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1}
    assert {2.31, 2.05} <= levels
    (steps,) = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
    assert list(steps.get_ydata()) == sorted(steps.get_ydata(), reverse=True)
    curves = curve_figure(chapter, chapter.trials[0])
    assert curves is not None
    assert [a.get_xlabel() for a in curves.axes] == ["training step", "training time (s)"]
    assert len(curves.axes[0].lines) == 4
    assert group_figure(chapter) is None


def test_accuracy_falls_with_distance_where_the_window_ends(tmp_path: Path) -> None:
    run = load(
        made.write_quality(tmp_path, made.task_records(trainings=(made.STEPS, made.SECONDS)))
    )
    (chapter,) = chapters_of_tasks(run)
    figure = group_figure(chapter)
    assert figure is not None
    assert len(figure.axes) == 2
    ax = figure.axes[0]
    assert ax.get_xlabel() == "distance (tokens)"
    line = next(line for line in ax.lines if line.get_marker() == "^")
    by_distance = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert by_distance[32.0] > 0.9
    assert by_distance[64.0] < 0.2


@pytest.mark.parametrize(
    "learners",
    [
        {name: made.Learner(fails=("failed", "no")) for name in ("sdpa", "performer")},
        {"sdpa": made.Learner()},
        {"mine": made.Learner(lambda d: 0.0, costs=(1e-3, 0, 0))},
        {"sdpa": made.Learner(only_seeds=(1,))},
    ],
    ids=["all failed", "one backend", "nothing right", "one seed of three"],
)
@pytest.mark.parametrize("task", [made.RECALL, made.TEXT])
def test_partial_runs_have_a_sensible_report(
    tmp_path: Path, learners: dict[str, made.Learner], task: str
) -> None:
    page = html(tmp_path, made.task_records(learners, task=task))
    shown = prose(page)
    assert not re.search(r"\b(nan|inf|None|<NA>)\b", shown, flags=re.IGNORECASE)
    assert ("What was measured: tasks" in shown) or ("Tasks: " in shown)
    assert 'id="figures"' not in page
    assert 'id="tables"' not in page
    assert '<details class="part" id="quality"' in page
    assert not re.search(r"<ul class=\"sentences\"></ul>", page)
    if all(learner.fails for learner in learners.values()):
        assert "No result: sdpa (failed) and performer (failed)" in shown


def test_one_seed_has_neither_spread_nor_interval(tmp_path: Path) -> None:
    records = made.task_records({"sdpa": made.Learner(lambda d: 0.5)}, seeds=(0,))
    run = load(made.write_quality(tmp_path, records))
    view = quality_tables(chapters_of_tasks(run)[0])[0]
    assert view.rows[0][1] == ("50.0 %", "", False)
    assert view.rows[0][2].text == "–"
    assert not any("over seeds" in note for note in view.notes)


def test_without_tasks_there_are_no_parts(tmp_path: Path) -> None:
    analysis = Analysis(load(synthetic.write_run(tmp_path, LAWS, **SMALL)))
    parts = [part(analysis) for part in (task_part, error_part, quantized_part)]
    assert parts == [None, None, None]


# -- what was published --------------------------------------------------------------------------


def test_published_figures_stand_beside_ours_with_their_hardware(tmp_path: Path) -> None:
    records = made.task_records(task="listops:max_length=64")
    (view,) = published_tables(chapters_of_tasks(load(made.write_quality(tmp_path, records))))
    notes = " ".join(view.notes)
    for source in ("arXiv 2011.04006", "TPU v3", "not comparable as ratios"):
        assert source in notes
    assert view.head[:2] == ["method", "LRA: accuracy"]
    assert view.head[4:] == ["ours: equal steps (400), lr 0.002"]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in view.rows}
    assert len(rows) == len(rows_of("lra_accuracy.csv")) == 11
    assert rows["Longformer"][0] == "35.63 %"
    assert re.fullmatch(r"longformer \d\d\.\d %", rows["Longformer"][3])
    assert rows["Transformer"][:3] == ["36.37 %", "1.4", "9.48 GB"]
    assert rows["Reformer"][3] == "–"
    for kind, title in (("retrieval", "Published and ours: retrieval"), ("odd", "")):
        records = made.task_records(task="lra:data=x", quality={"facts": {"format": kind}})
        run = load(made.write_quality(tmp_path / kind, records))
        assert [v.title for v in published_tables(chapters_of_tasks(run))] == [title] * bool(title)
    other = load(made.write_quality(tmp_path / "other", made.task_records()))
    assert published_tables(chapters_of_tasks(other)) == []


# -- records of strangers ------------------------------------------------------------------------


def test_a_fault_in_quality_costs_that_detail_alone(tmp_path: Path) -> None:
    records = made.task_records({"sdpa": made.Learner()}, seeds=(0, 1))
    records[0]["arms"][0]["quality"]["chance"] = 1.5
    run = load(made.write_quality(tmp_path, records))
    assert len(run.records) == 2
    assert "quality" not in run.records[0]["arms"][0]
    (warning,) = run.warnings
    assert "arms[0].quality.chance" in warning
    assert warning.endswith("quality left out")
    assert by_name(chapters_of_tasks(run)[0].trials[0])["sdpa"]["num_seeds"] == 2


def test_an_accuracy_beyond_all_is_refused(tmp_path: Path) -> None:
    records = made.task_records({"sdpa": made.Learner()}, seeds=(0, 1))
    records[0]["arms"][0]["metrics"]["accuracy"]["value"] = 1.01
    run = load(made.write_quality(tmp_path, records))
    assert len(run.records) == 1
    assert "accuracy" in run.warnings[0]


# -- the rest of the house -----------------------------------------------------------------------


INPUTS = {"gaussian:scale=1": 1.0}


def everything() -> list[Record]:
    return [
        *made.task_records(), *made.task_records(task=made.TEXT, seeds=(0,)),
        *made.error_records(inputs=INPUTS, lengths=(512,)), *made.quantized_records(),
    ]  # fmt: skip


@pytest.mark.drawn
def test_speed_chapters_are_not_disturbed(tmp_path: Path) -> None:
    speed = synthetic.write_run(tmp_path / "speed", LAWS, **SMALL)
    other = made.write_quality(tmp_path / "other", everything())
    alone, both = load(speed), load(speed, other)
    (one, two) = (points(run).drop(columns="cell") for run in (alone, both))
    assert one.equals(two)
    for table in ("cases", "scaling", "crossover", "peers"):
        assert export_table(alone, table, "csv") == export_table(both, table, "csv")
    first = trust(Analysis(both)).runs[0]
    assert first.sampling.arms == trust(Analysis(alone)).runs[0].sampling.arms
    page = unscripted(write_report([speed, other], ["html"], tmp_path / "report")[0])
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for name in ("quality", "error", "quantized", "figures", "tables"):
        assert f'<details class="part" id="{name}"' in page


def test_exports_hold_what_was_measured(tmp_path: Path) -> None:
    run = load(made.write_quality(tmp_path / "run", everything()))
    rows = {
        name: json.loads(str(export_table(run, name, "json")))
        for name in ("tasks", "errors", "quantized", "cases")
    }
    assert len(rows["tasks"]) == 2 * len(made.SIX)
    assert {row["reason"] for row in rows["tasks"] if row["status"] == "failed"} == {
        made.SIX["linformer"].fails[1]
    }
    assert len(rows["errors"]) == (2 + 4 + 3 + 3)
    assert [row["weights"] for row in rows["quantized"]] == list(made.WEIGHTS)
    assert rows["cases"] == []
    for name in ("tasks", "errors", "quantized"):
        export_table(run, name, "parquet", tmp_path / f"{name}.parquet")
        assert str(export_table(run, name, "csv")).count("\n") == len(rows[name]) + 1
    empty = load(synthetic.write_run(tmp_path / "speed", LAWS, **SMALL))
    assert export_table(empty, "tasks", "json") == "[]\n"


def test_asv_export_of_tasks_alone_does_not_fail(tmp_path: Path) -> None:
    run = load(made.write_quality(tmp_path / "run", made.task_records()))
    assert export_asv(run, tmp_path / "asv").exists()


def test_an_error_of_kind_error_is_not_the_speed_figures_inputs(tmp_path: Path) -> None:
    records = made.error_records(inputs=INPUTS, lengths=(512,))
    for record in records:
        record["arms"][0]["metrics"]["relative_error"]["input_scale"] = 7.0
    speed = synthetic.write_run(tmp_path / "speed", LAWS, **SMALL)
    both = load(speed, made.write_quality(tmp_path / "e", records))
    assert input_scale(both) == "inputs of scale 0.3, 256 sampled query rows"


def test_quantised_weights_have_a_table_and_a_sentence(tmp_path: Path) -> None:
    text = write_report([made.write_quality(tmp_path, made.quantized_records())], ["md"])[
        0
    ].read_text()
    assert "bfloat16 50 % of the bytes, 0.80 × the latency" in text
    assert "int8 25 % of the bytes, 1.20 × the latency, logits" in text
    assert "One process per latency: their ratios have no interval." in text
    assert "One seed: how far trainings differ is unknown." in text
    assert "+0.004 bits per byte" in text
    assert "int4 unsupported" in text
    row = next(line for line in text.splitlines() if line.startswith("| int4"))
    assert "no kernel for int4 weights on this CPU" in row
    assert "Kernels: float32: synthetic; bfloat16: synthetic; int8: synthetic." in text


def test_quantised_weights_that_all_ran_have_no_column_of_reasons(tmp_path: Path) -> None:
    ran = {"float32": (4.0, 1e-2, 0.0, 2.1), "bfloat16": (2.0, 8e-3, 2e-3, 2.0996)}
    text = write_report([made.write_quality(tmp_path, made.quantized_records(ran))], ["md"])[
        0
    ].read_text()
    head = next(line for line in text.splitlines() if line.startswith("| weights"))
    assert "reason" not in head
    assert "equal bits per byte" in text
    assert "-0.000" not in text


def test_nothing_measured_nothing_drawn(tmp_path: Path) -> None:
    records = made.task_records({"sdpa": made.Learner(fails=("crashed", "x"))})
    (chapter,) = chapters_of_tasks(load(made.write_quality(tmp_path, records)))
    for draw in (cost_figure, curve_figure):
        assert draw(chapter, chapter.trials[0]) is None  # type: ignore[arg-type]
    assert group_figure(chapter) is None


def test_the_generator_makes_cases_of_the_schema() -> None:
    for record in everything():
        case = record["case"]
        named = {
            k: v for k, v in case.items()
            if k != "id" and (k not in LATER_FIELDS or v != LATER_FIELDS[k])
        }  # fmt: skip
        assert case["id"] == content_id(named)
