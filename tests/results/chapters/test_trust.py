"""How far a run can be trusted: known series, known outliers, and sentences with their causes."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from helpers_page import unscripted
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy import stats

from results.analysis.analysis import Analysis
from results.chapters.trust.drift import DRIFT_LIMIT, Drift, running_median
from results.chapters.trust.figures import drift_figure
from results.chapters.trust.rows import RunTrust, Trust, trust
from results.chapters.trust.sampling import half_width, outliers
from results.chapters.trust.sentences import trust_paragraphs
from results.chapters.trust.tables import trust_tables
from results.records.load import load
from results.report import write_report
from results.schema import CONDITIONS

LAWS = {"sdpa": synthetic.SEVEN["sdpa"], "performer": synthetic.SEVEN["performer"]}
SHAPE: dict[str, Any] = {"laws": LAWS, "lengths": (512, 2048), "modes": ("forward",)}

Change = Callable[[int, dict[str, Any]], None]


def made(folder: Path, change: Change | None = None, extra: Any = (), **options: Any) -> Path:
    """Write a small run, change its records one by one, and add some."""
    synthetic.write_run(folder, **{**SHAPE, **options})
    records = synthetic.read_records(folder)
    for index, record in enumerate(records):
        if change is not None:
            change(index, record)
    return synthetic.write_records(folder, [*records, *extra])


def trusted(*folders: Path) -> Trust:
    return trust(Analysis(load(*folders)))


def read(folder: Path) -> RunTrust:
    (one,) = trusted(folder).runs
    return one


def told(*folders: Path) -> str:
    return "\n".join(s for p in trust_paragraphs(trusted(*folders)) for s in p.sentences)


def drift_of(folder: Path, seconds: list[float], **options: Any) -> Drift:
    (one,) = read(made(folder, extra=synthetic.sentinels(seconds, **options))).drifts
    return one


# -- drift ---------------------------------------------------------------------------------------


def test_a_steady_machine_has_no_drift_whatever_one_process_does(tmp_path: Path) -> None:
    drift = drift_of(tmp_path, [1.0, 1.0, 1.0, 1.5, 1.0, 1.0])
    assert drift.drift == 0
    assert drift.spread == pytest.approx(0.25)  # its 90 % quantile lies between 1 and 1.5
    assert not drift.is_disturbed


def test_a_machine_that_jumps_is_disturbed_though_its_running_median_stands(
    tmp_path: Path,
) -> None:
    folder = made(tmp_path, extra=synthetic.sentinels([0.120, 0.053, 0.016, 0.107]))
    (drift,) = read(folder).drifts
    assert drift.drift == 0
    # Quantiles of 16, 53, 107 and 120 ms at 0.3 and 2.7 of the three gaps.
    assert drift.spread == pytest.approx(116.1 / 27.1 - 1)
    (warning,) = trusted(folder).warnings
    assert "took 16.0 ms to 120 ms: a spread of 328 %, a drift of 0 %. Measure again" in warning
    assert "limits: " not in told(folder)
    (table,) = [v for v in trust_tables(trusted(folder)) if v.title == "Control benchmark"]
    assert [c.is_status for c in table.rows[0][3:5]] == [False, True]


def test_one_odd_repetition_of_many_is_no_jump(tmp_path: Path) -> None:
    assert drift_of(tmp_path, [*[1.0] * 10, 27.0, *[1.0] * 10]).spread == 0


@pytest.mark.parametrize("odd", [0, -1])
def test_an_odd_process_at_an_end_does_not_count(tmp_path: Path, odd: int) -> None:
    seconds = [1.0] * 6
    seconds[odd] = 1.4
    assert drift_of(tmp_path, seconds).drift == pytest.approx(0)


@pytest.mark.parametrize("count", [4, 5, 9, 30])
def test_a_steady_drift_is_found_from_end_to_end(tmp_path: Path, count: int) -> None:
    drift = drift_of(tmp_path, list(np.linspace(1.0, 1.2, count)))
    assert drift.drift == pytest.approx(0.2)
    assert drift.is_disturbed
    assert "a drift of 20 %. Measure again" in drift.warning


def test_a_step_is_found(tmp_path: Path) -> None:
    assert drift_of(tmp_path, [1.0, 1.0, 1.0, 1.3, 1.3]).drift == pytest.approx(0.3)


def test_the_running_median_of_a_known_series() -> None:
    values = np.array([3.0, 1.0, 2.0, 8.0, 4.0])
    # Inner medians 2, 2, 4; the ends: median(3, 2, 2) and median(4, 4, 8).
    assert running_median(values).tolist() == [2.0, 2.0, 2.0, 4.0, 4.0]


def test_the_drift_follows_the_order_of_running(tmp_path: Path) -> None:
    records = synthetic.sentinels([1.0, 1.05, 1.1, 1.15], apart_s=120)
    drift = read(made(tmp_path, extra=records[::-1])).drifts[0]
    assert drift.seconds.tolist() == [1.0, 1.05, 1.1, 1.15]
    assert drift.minutes.tolist() == [0, 2, 4, 6]
    assert drift.has_clock


def test_a_clock_that_was_set_back_is_not_an_axis(tmp_path: Path) -> None:
    assert not drift_of(tmp_path, [1.0, 1.0, 1.0, 1.0], apart_s=-60).has_clock


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_repetitions_have_no_drift_but_a_reason(tmp_path: Path, count: int) -> None:
    drift = drift_of(tmp_path, [1.0, 2.0, 3.0][:count])
    assert math.isnan(drift.drift)
    assert drift.is_disturbed == (count > 1)  # they spread
    assert drift.reason == f"{count} repetitions: needs 4 to tell a drift"
    assert f"{count} repetitions), always the same work, took 1.00 s" in told(tmp_path)
    assert f" %, {drift.reason}." in told(tmp_path)


def test_failed_repetitions_are_counted_and_not_used(tmp_path: Path) -> None:
    records = synthetic.sentinels([1.0] * 5)
    for record in records[1:4]:
        record |= {"status": "crashed", "reason": "killed", "arms": []}
    drift = read(made(tmp_path, extra=records)).drifts[0]
    assert drift.reason == "2 repetitions, 3 failed: needs 4 to tell a drift"


def test_sentinels_of_several_settings_stand_apart(tmp_path: Path) -> None:
    extra = [
        *synthetic.sentinels([1.0] * 4),
        *synthetic.sentinels(list(np.linspace(1, 1.5, 4)), threads=1),
        *synthetic.sentinels([0.1] * 4, device="cuda", threads=1),
    ]
    found = {d.name: d.is_disturbed for d in read(made(tmp_path, extra=extra)).drifts}
    assert found == {"cpu, 2 threads": False, "cpu, 1 thread": True, "cuda": False}


def test_a_disturbed_run_is_said_before_everything_else(tmp_path: Path) -> None:
    extra = synthetic.sentinels([1.0, 1.0, 1.2, 1.2])
    page, markdown = (f.read_text() for f in write_report([made(tmp_path, extra=extra)]))
    sentence = (
        "(cpu, 2 threads, 4 repetitions), always the same work, took 1.00 s to 1.20 s: a spread"
    )
    for text in (html.unescape(page), markdown):
        top = text[: text.index("Summary in sentences")]
        assert "noisy machine" in top
        assert sentence in top
        assert "Measure again on a quiet one" in top
    assert markdown.count(sentence) == 2


def test_a_run_within_the_limit_is_not_called_disturbed(tmp_path: Path) -> None:
    near = 1 + DRIFT_LIMIT
    folder = made(tmp_path, extra=synthetic.sentinels([1.0, 1.0, near * 0.999, near * 0.999]))
    assert trusted(folder).warnings == ()
    assert "(limits: spread 30 %, drift 10 %)." in told(folder)


def test_only_the_disturbed_run_of_two_is_named(tmp_path: Path) -> None:
    quiet = made(tmp_path / "1", extra=synthetic.sentinels([1.0] * 4))
    loud = synthetic.sentinels([1.0, 1.0, 1.5, 1.5], run="run-2")
    (warning,) = trusted(quiet, made(tmp_path / "2", extra=loud, run="run-2")).warnings
    assert warning.startswith("run run-2: Noisy machine: the control benchmark (cpu, 2 threads")
    assert "a drift of 50 %" in warning


# -- the sentinel in the launches ----------------------------------------------------------------

FOUR: dict[str, Any] = {"lengths": (512, 1024, 2048, 4096), "launches": 5}


def beside(folder: Path, speed: Callable[[int, int, int], float], **options: Any) -> Path:
    """Write a run whose machine swings by 20 %, with a sentinel in every launch.

    `speed` gives, by number, length and launch, by what else the sentinel's time is multiplied.
    """
    rng = np.random.default_rng(0)

    def change(index: int, record: dict[str, Any]) -> None:
        if record["case"]["kind"] == "speed":
            swing = float(np.exp(0.2 * rng.standard_normal()))
            n, launch = record["case"]["seq_len"], record["launch"]["index"]
            latency = record["arms"][0]["metrics"]["latency"]
            latency["samples"] = [swing * s for s in latency["samples"]]
            latency["sentinel"] = [4e-3 * swing * speed(index, n, launch)] * 3

    return made(folder, change, **{**FOUR, **options})


def test_the_drift_is_that_of_the_launches_where_they_have_a_sentinel(tmp_path: Path) -> None:
    def change(index: int, record: dict[str, Any]) -> None:
        if record["case"]["kind"] == "speed":  # the last started first
            record["launch"]["started"] = f"2026-01-05T10:{20 - index:02}:00Z"
            record["arms"][0]["metrics"]["latency"]["sentinel"] = [1e-3 * index, 4e-3, 4e-3]

    folder = made(tmp_path, change, extra=synthetic.sentinels([1.0, 1.0, 1.5, 1.5]))
    (drift,) = read(folder).drifts
    assert drift.seconds == pytest.approx([4e-3] * 12)  # the median of each
    assert drift.minutes.tolist() == list(range(12))
    assert (drift.drift, drift.spread) == (0, 0)
    assert "The control benchmark (cpu, 2 threads, 12 processes), always the same" in told(folder)


def test_a_drift_over_many_launches_is_no_noise() -> None:
    rng = np.random.default_rng(0)
    noise = np.exp(0.08 * rng.standard_normal((50, 200)))
    steady = [running_median(row) for row in noise]
    assert np.mean([one.max() / one.min() - 1 > DRIFT_LIMIT for one in steady]) <= 0.1
    rising = [running_median(row * np.linspace(1, 1.3, 200)) for row in noise]
    assert np.mean([one.max() / one.min() - 1 > DRIFT_LIMIT for one in rising]) == 1
    assert {len(one) for one in steady} == {200}


def test_what_the_sentinel_takes_off_is_told_by_series(tmp_path: Path) -> None:
    folder = beside(tmp_path, lambda *_: 1.0, noise=0.02)
    found = trusted(folder).between
    assert len(found.series) == 2
    for one in found.series:
        assert one.launches == 20
        assert one.model.coefficient == pytest.approx(1, abs=0.1)
    assert 0.12 < found.pooled("sd_without") < 0.3
    assert 0.01 < found.pooled("sd") < 0.03
    text = told(folder)
    assert re.search(r"times scatter by \d\d %, and by \d\.\d % once the control", text)
    assert "too uncertain to tell whether the case disturbs it (limit 0.02)" in text  # it swings
    assert "F test" not in text
    title = "Correction by the control benchmark"
    (view,) = [v for v in trust_tables(trusted(folder)) if v.title == title]
    assert [row[0].text for row in view.rows] == ["sdpa", "performer"]
    assert view.head == ["backend", "mode", "processes", "scatter", "corrected", "coefficient"]


def test_a_sentinel_that_long_cases_slow_down_is_a_warning(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def slower(_: int, n: int, launch: int) -> float:
        return (n / 512) ** 0.3 * math.exp(0.01 * rng.standard_normal())

    # The machine's swing is in the sentinel, and would hide a slope: it stands still here.
    folder = beside(tmp_path, slower)
    records = synthetic.read_records(folder)
    for record in records:
        if record["case"]["kind"] == "speed":
            latency = record["arms"][0]["metrics"]["latency"]
            n, launch = record["case"]["seq_len"], record["launch"]["index"]
            latency["sentinel"] = [4e-3 * slower(0, n, launch)]
    found = trusted(synthetic.write_records(folder, records))
    assert found.between.slope is not None
    assert found.between.slope.centre == pytest.approx(0.3, abs=0.02)
    assert found.between.p < 1e-3
    assert any("benchmark's time depends on the length" in w for w in found.warnings)
    assert "a sign that the case disturbs it" in told(folder)
    assert "F test, p < 0.001" in told(folder)


def test_a_steady_sentinel_is_no_sign_of_a_disturbance(tmp_path: Path) -> None:
    def change(index: int, record: dict[str, Any]) -> None:
        if record["case"]["kind"] == "speed":
            beside = record["arms"][0]["metrics"]["latency"]
            beside["sentinel"] = [4e-3 * (1 + 0.01 * (index % 3))]

    text = told(made(tmp_path, change, **FOUR))
    assert "no sign that the case disturbs it (limit 0.02)" in text


def test_the_f_test_is_that_of_scipy(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    folder = beside(tmp_path, lambda *_: math.exp(0.1 * rng.standard_normal()))
    frame = load(folder).frame
    rows = frame[frame["sentinel"].notna()]
    logs = [np.log(part["sentinel"]) for _, part in rows.groupby("case_id")]
    assert trusted(folder).between.p == pytest.approx(stats.f_oneway(*logs).pvalue)


def test_a_case_that_scatters_more_than_its_series_is_named(tmp_path: Path) -> None:
    assert trusted(made(tmp_path / "1", **FOUR)).between.odd == ()

    def change(index: int, record: dict[str, Any]) -> None:
        case = record["case"]
        if case["seq_len"] == 1024 and case["arms"][0]["name"] == "sdpa":
            latency = record["arms"][0]["metrics"]["latency"]
            factor = 1.3 ** (record["launch"]["index"] - 2)
            latency["samples"] = [factor * s for s in latency["samples"]]

    folder = made(tmp_path / "2", change, **FOUR)
    (odd,) = trusted(folder).between.odd
    assert odd.name == "sdpa, forward, 1,024 tokens"
    assert odd.sd == pytest.approx(math.log(1.3) * math.sqrt(2.5), rel=0.1)
    assert odd.ratio > 10
    text = told(folder)
    assert "intervals of some cases are too narrow" in text
    assert "other lengths of the same series: sdpa, forward, 1,024 tokens (4" in text


# -- samples and launches ------------------------------------------------------------------------


def test_outliers_are_counted_by_side_and_distance() -> None:
    # Quartiles 10 and 14 whatever stands outside: mild beyond 4 and 20, severe beyond -2 and 26.
    inside = [10.0] * 8 + [12.0] * 9 + [14.0] * 8
    found = outliers([*inside, 3.9, 20.1, 20.2, 26.1, 4.0, 20.0])
    assert found == {"low_severe": 0, "low_mild": 1, "high_mild": 2, "high_severe": 1}
    assert outliers([*inside, -2.1])["low_severe"] == 1
    assert outliers([5.0] * 9) == dict.fromkeys(found, 0)


def test_outliers_are_reported_by_backend_and_dropped_nowhere(tmp_path: Path) -> None:
    quiet = [0.10, 0.11, 0.12, 0.13, 0.14, 0.11, 0.12, 0.13]

    def change(_: int, record: dict[str, Any]) -> None:
        if record["case"]["kind"] == "speed":
            odd = [9.0] if record["case"]["arms"][0]["name"] == "sdpa" else []
            few = record["launch"]["index"] == 0
            latency = record["arms"][0]["metrics"]["latency"]
            latency["samples"] = quiet[:5] if few else [*quiet, *odd]

    folder = made(tmp_path, change)
    table = read(folder).sampling.outliers.set_index("name")
    assert table.loc["sdpa"].to_dict() == {
        "launches": 6, "looked": 4, "samples": 36, "low_severe": 0, "low_mild": 0, "high_mild": 0,
        "high_severe": 4,
    }  # fmt: skip
    assert table.loc["performer"][["looked", "samples", "high_severe"]].tolist() == [4, 32, 0]
    assert "5.9 % of 68 samples are outliers, 0 low and 4 high; none was dropped." in told(folder)
    frame = load(folder).frame
    kept = frame[(frame["backend"] == "sdpa") & (frame["metric"] == "latency")]["samples"]
    assert sum(9.0 in samples for samples in kept) == 4


def test_samples_without_outliers_are_called_so(tmp_path: Path) -> None:
    def change(_: int, record: dict[str, Any]) -> None:
        if record["case"]["kind"] == "speed":
            record["arms"][0]["metrics"]["latency"]["samples"] = [0.1] * 8

    assert "None of 96 samples is an outlier." in told(made(tmp_path, change))


def test_the_half_width_follows_order_statistics() -> None:
    assert math.isnan(half_width([1.0, 2.0, 3.0, 4.0, 5.0]))
    # Binomial tails: of 6 and 8 the extremes enclose the median, of 9 the second and eighth do.
    assert half_width([1, 2, 3, 4, 5, 6]) == pytest.approx(2.5 / 3.5)
    assert half_width(range(1, 9)) == pytest.approx(3.5 / 4.5)
    assert half_width(range(1, 10)) == pytest.approx(3 / 5)
    assert half_width(range(1, 1002)) == pytest.approx(half_width(range(1, 1001)), rel=0.02)


def test_the_interval_behind_the_half_width_covers_the_median() -> None:
    rng = np.random.default_rng(0)
    for count in (6, 9, 20):
        samples = np.sort(rng.exponential(size=(4000, count)), axis=1)
        widths = np.array([half_width(s) * np.median(s) * 2 for s in samples])
        low = next(k for k in range(count) if np.allclose(
            widths, samples[:, count - 1 - k] - samples[:, k]))  # fmt: skip
        covered = (samples[:, low] <= math.log(2)) & (math.log(2) <= samples[:, count - 1 - low])
        assert 0.945 <= covered.mean() <= 0.99


def test_the_spread_between_launches_names_the_worst_case(tmp_path: Path) -> None:
    def change(_: int, record: dict[str, Any]) -> None:
        if record["case"]["kind"] == "speed":
            far = record["case"]["seq_len"] == 2048 and record["launch"]["index"] == 2
            slow = 1.5 if far and record["case"]["arms"][0]["name"] == "sdpa" else 1.0
            record["arms"][0]["metrics"]["latency"]["samples"] = [0.1 * slow] * 9

    folder = made(tmp_path, change)
    between = read(folder).sampling.between
    assert (between.num_values, between.median) == (4, 0)
    assert between.high == pytest.approx(0.5)
    assert between.where == "sdpa, forward, 2,048 tokens"
    assert "at most 50 %, in sdpa, forward, 2,048 tokens)" in told(folder)


def test_an_arm_is_named_with_the_first_of_its_case(tmp_path: Path) -> None:
    folder = made(tmp_path, floor=synthetic.Law(1e-9, 1.0), roof={"empty_latency": 1e-6})
    small = read(folder).harness[0].small
    assert "identity beside sdpa, forward, 512 tokens" in small
    assert "identity beside performer, forward, 512 tokens" in small


def test_a_single_launch_says_that_processes_are_not_compared(tmp_path: Path) -> None:
    assert "Each case was measured in one process" in told(made(tmp_path, launches=1))


def test_why_sampling_ended_is_counted(tmp_path: Path) -> None:
    words = ["spread", "spread", "spread", "budget", "count", None]

    def change(index: int, record: dict[str, Any]) -> None:
        if record["case"]["kind"] == "speed":
            latency = record["arms"][0]["metrics"]["latency"]
            latency["stopped"] = words[(index - 1) % len(words)]
            latency["warm_up"] = {"calls": 5, "converged": index % 2 == 0}

    folder = made(tmp_path, change)
    sampling = read(folder).sampling
    assert sampling.stopped == {"spread": 6, "budget": 2, "count": 2, "": 2}
    assert (sampling.not_converged, sampling.warm_ups, sampling.arms) == (6, 12, 12)
    text = told(folder)
    assert "60 % of the measurements were sampled until their median was known to ±2 %" in text
    assert "6 of 12 warm-ups were cut short before their calls stopped getting faster" in text


# -- the harness and what the machine did --------------------------------------------------------


def test_cases_next_to_an_empty_call_are_named(tmp_path: Path) -> None:
    folder = made(tmp_path, roof={**synthetic.ROOF, "empty_latency": 2e-4})
    (cost,) = read(folder).harness
    # sdpa takes 3.5 ms at 512 tokens, less than 20 × 0.2 ms; all else takes more.
    assert cost.small == ("sdpa, forward, 512 tokens",)
    assert cost.cases == 4
    assert cost.share.high == pytest.approx(2e-4 / 3.46e-3, rel=0.1)
    text = told(folder)
    assert "an empty call takes 200 µs (cpu), more than 5 % of the time of sdpa, forward" in text


def test_a_cheap_empty_call_does_not_show(tmp_path: Path) -> None:
    assert "an empty call takes at most 0.1 % of any case's time" in told(made(tmp_path))
    assert read(made(tmp_path, roof=None)).harness == ()


QUIET = "No disturbance in the 13 processes whose conditions were recorded."

DISTURBED = {
    "steal": ({"steal": 0.3}, "of the processes (median 0.30 of 2 cores, at most"),
    "other_cpu": ({"other_cpu": 0.2}, "of the processes (median 0.20 of 2 cores, at most"),
    "throttled": ({"throttled": 2}, "The CPU throttled 26 times"),
    "gpu_users": ({"gpu_users": 1}, "13 processes shared the GPU with other programs"),
    "gpu_throttled": (
        {"gpu_throttled": ["sw_power_cap", "gpu_idle"]},
        "The GPU throttled in 13 processes (sw_power_cap)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DISTURBED)
def test_each_disturbance_has_its_sentence(tmp_path: Path, name: str) -> None:
    changes, sentence = DISTURBED[name]

    def change(_: int, record: dict[str, Any]) -> None:
        record["conditions"] = synthetic.conditions(**changes)

    folder = made(tmp_path, change)
    text = told(folder)
    assert sentence in text
    assert "No disturbance" not in text
    (warning,) = trusted(folder).warnings  # it stands at the top of the report too
    assert sentence in warning
    others = [s for n, (_, s) in DISTURBED.items() if n != name]
    assert not any(s in text for s in others)


def test_a_minority_of_launches_that_lost_much_is_said(tmp_path: Path) -> None:
    def change(index: int, record: dict[str, Any]) -> None:
        record["conditions"] = synthetic.conditions(steal=0.9 if index % 4 == 0 else 0.0)

    text = told(made(tmp_path, change))
    assert "(median 0 of 2 cores, at most 0.90 in" in text
    assert "took more than 0.1 of a core in 31 % of the processes" in text
    assert QUIET not in text


def test_what_happened_in_few_launches_is_said_and_nothing_is_called_quiet(tmp_path: Path) -> None:
    def change(index: int, record: dict[str, Any]) -> None:
        record["conditions"] = synthetic.conditions(other_cpu=1.6 if index == 3 else 0.0)

    folder = made(tmp_path, change)
    assert trusted(folder).warnings == ()
    text = told(folder)
    assert "Other programs took more than 0.1 of a core in 7.7 % of the processes (at" in text
    assert "No disturbance" not in text


def test_a_drift_keeps_the_run_from_being_called_quiet(tmp_path: Path) -> None:
    def change(_: int, record: dict[str, Any]) -> None:
        record["conditions"] = synthetic.conditions()

    extra = synthetic.sentinels([1.0, 1.0, 1.5, 1.5])
    assert "No disturbance" not in told(made(tmp_path, change, extra=extra))


def test_a_clock_that_changes_and_a_busy_machine_are_said(tmp_path: Path) -> None:
    def change(index: int, record: dict[str, Any]) -> None:
        record["conditions"] = synthetic.conditions(frequency=2.4e9 if index == 3 else 3.0e9)
        record["launch"]["load"] = 7.5

    text = told(made(tmp_path, change))
    assert "The CPU clock varied from 2.40 to 3.00 GHz between processes" in text
    assert "7.5 programs were running when processes started (median)" in text


def test_conditions_without_a_value_are_none(tmp_path: Path) -> None:
    def change(_: int, record: dict[str, Any]) -> None:
        record["conditions"] = dict.fromkeys(CONDITIONS)

    assert "were not recorded" in told(made(tmp_path, change))


@pytest.mark.parametrize(
    "changes", [{}, {"steal": 0.1}, {"other_cpu": 0.1}, {"gpu_users": 0},
                {"gpu_throttled": ["GPU idle"]}, {"steal": None, "other_cpu": None}],
)  # fmt: skip
def test_a_quiet_machine_is_called_so(tmp_path: Path, changes: dict[str, Any]) -> None:
    def change(_: int, record: dict[str, Any]) -> None:
        record["conditions"] = synthetic.conditions(**changes)

    assert QUIET in told(made(tmp_path, change))


def test_conditions_have_a_median_ends_and_the_worst_place(tmp_path: Path) -> None:
    def change(index: int, record: dict[str, Any]) -> None:
        clock = 1e9 if index == 4 else 3e9
        record["conditions"] = synthetic.conditions(frequency=clock, switches=index)

    known = read(made(tmp_path, change)).conditions
    assert known.spans["frequency"][:4] == (13, 3e9, 1e9, 3e9)
    assert known.spans["frequency"].where == "performer, forward, 2,048 tokens, process 0"
    assert known.spans["switches"][:4] == (13, 6, 0, 12)
    assert known.spans["switches"].where == "performer, forward, 2,048 tokens, process 2"
    assert known.spans["gpu_temperature"].num_values == 0


def test_predictions_are_held_against_what_was_taken(tmp_path: Path) -> None:
    ratios = iter([1.0, 2.0, 0.1])

    def change(_: int, record: dict[str, Any]) -> None:
        if record["case"]["kind"] == "speed":
            metrics = record["arms"][0]["metrics"]
            ratio = next(ratios, None)
            latency = float(np.median(metrics["latency"]["samples"]))
            record["launch"]["predicted"] = {
                "latency": ratio and latency / ratio,
                "peak_memory": 2 * metrics["peak_memory"]["value"],
            }

    folder = made(tmp_path, change)
    records = synthetic.read_records(folder)
    records[-1] |= {"status": "not_run", "reason": "would take 3 h", "arms": []}
    found = read(synthetic.write_records(folder, records)).predictions
    assert found.latency.num_values == 3
    assert found.latency[1:4] == pytest.approx((1.0, 0.1, 2.0))
    assert found.latency.where == "performer, forward, 512 tokens, process 0"
    assert found.memory[:4] == (4, 0.5, 0.5, 0.5)  # of the first launches
    assert found.not_run == 1
    assert "1 process was not started" in told(folder)


# -- records that lack all this, and records that lie --------------------------------------------


def test_an_old_run_shows_what_it_has_and_no_empty_table(tmp_path: Path) -> None:
    folder = made(tmp_path)
    assert drift_figure(trusted(folder)) is None
    views = trust_tables(trusted(folder))
    assert [v.title for v in views] == [
        "Spread between and within processes", "Machine conditions while measuring",
        "Overhead of measuring",
    ]  # fmt: skip
    assert all(len(row) == len(view.head) for view in views for row in view.rows)
    text = told(folder)
    assert "No control benchmark was run" in text
    assert "outlier" not in text  # 7 samples a launch are too few to say
    assert "were not recorded" in text
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_a_run_of_roofs_alone_has_a_chapter(tmp_path: Path) -> None:
    page = unscripted(write_report([made(tmp_path, laws={})], ["html"])[0])
    assert "How far to trust these numbers" in page


def test_several_runs_have_a_column_and_shared_sentences_once(tmp_path: Path) -> None:
    one = made(tmp_path / "1")
    two = made(tmp_path / "2", run="run-2", machine={"cpu": "Another"}, seed=1)
    found = trusted(one, two)
    first, *rest = trust_paragraphs(found)
    assert first.heading == "All runs"
    assert first.sentences[0].startswith("No control benchmark was run")
    assert [p.heading for p in rest] == ["Run run-1", "Run run-2"]
    assert all(view.head[0] == "run" for view in trust_tables(found))


def test_one_run_on_two_machines_is_told_apart(tmp_path: Path) -> None:
    one, two = made(tmp_path / "1"), made(tmp_path / "2", machine={"cpu": "Another CPU"})
    names = [run.name for run in trusted(one, two).runs]
    assert names[0].startswith("run run-1, Example CPU 2.5 GHz, environment ")
    assert names[1].startswith("run run-1, Another CPU, environment ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["steal", "throttled", "gpu_users", "gpu_throttled", "latency",
                         "peak_memory", "converged", "x"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(JSON, JSON, JSON, JSON, JSON, JSON), min_size=5, max_size=5))
def test_anything_in_the_new_fields_is_survived(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[Any, ...]]
) -> None:
    records = synthetic.sentinels([1.0] * 5)
    for record, (what, foretold, stopped, warm_up, started, load_1) in zip(
        records, values, strict=True
    ):
        record["conditions"] = what
        record["launch"] |= {"predicted": foretold, "started": started, "load": load_1}
        record["arms"][0]["metrics"]["latency"] |= {"stopped": stopped, "warm_up": warm_up}
    folder = tmp_path_factory.mktemp("fuzz")
    lines = [json.dumps(r) for r in records if not re.search("NaN|Infinity", json.dumps(r))]
    if not lines:
        return
    (folder / "records.jsonl").write_text("\n".join(lines))
    found = trusted(folder)
    text = "\n".join(s for p in trust_paragraphs(found) for s in p.sentences)
    trust_tables(found)
    assert not re.search(r"\b(nan|inf)\b", text)


# -- the figure and the page ---------------------------------------------------------------------


def test_the_figure_has_a_line_a_sentinel_in_minutes(tmp_path: Path) -> None:
    extra = [
        *synthetic.sentinels([1.0, 1.1, 1.0, 1.0], apart_s=300),
        *synthetic.sentinels([2.0, 2.2, 1.8], apart_s=300, threads=1),
        *synthetic.sentinels([2.0], threads=4),
    ]
    found = trusted(made(tmp_path, extra=extra))
    figure = drift_figure(found)
    assert isinstance(figure, Figure)
    (ax,) = figure.axes
    drawn = [line for line in ax.lines if line.get_linestyle() == "None"]
    assert [np.asarray(line.get_xdata()).tolist() for line in drawn] == [
        [0, 5, 10, 15], [0, 5, 10],
    ]  # fmt: skip
    assert np.asarray(drawn[1].get_ydata()) == pytest.approx([0, 10, -10])
    assert "minutes" in ax.get_xlabel()
    assert len({line.get_color() for line in drawn}) == 2


def test_two_repetitions_make_no_figure(tmp_path: Path) -> None:
    found = trusted(made(tmp_path, extra=synthetic.sentinels([1.0, 1.1])))
    assert drift_figure(found) is None


@pytest.mark.drawn
def test_page_and_markdown_hold_the_chapter_and_escape_names(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    laws = {hostile: synthetic.Law(1e-5, 1.0), "a|b": synthetic.Law(1e-5, 1.0)}

    def change(index: int, record: dict[str, Any]) -> None:
        record["conditions"] = synthetic.conditions(
            throttled=9 if index == 1 else 0, gpu_throttled=[hostile]
        )
        for arm in record["arms"]:
            if "latency" in arm["metrics"]:
                arm["metrics"]["latency"]["samples"] = [0.1] * 8 + [0.9]

    extra = synthetic.sentinels([1.0, 1.0, 1.2, 1.2], run=hostile)
    folder = made(tmp_path, change, extra, laws=laws, run=hostile)
    files = write_report([folder])
    page, markdown = unscripted(files[0]), files[1].read_text()
    assert "<script" not in page
    assert "<script" not in markdown
    assert "a\\|b" in markdown
    start, end = (page.index(f'class="part" id="{name}"') for name in ("trust", "environment"))
    chapter = page[start:end]
    assert html.unescape(chapter).count(hostile) >= 3
    assert chapter.count("<figure>") == 1
    assert chapter.count("<svg") == 1
    for heading in (
        "Control benchmark", "Outliers among the samples", "Machine conditions while measuring",
    ):  # fmt: skip
        assert f"<h3>{heading}</h3>" in chapter
        assert f"#### {heading}" in markdown
    for theme in ("light", "dark"):
        assert (tmp_path / "figures" / f"trust-{theme}.png").read_bytes().startswith(b"\x89PNG")
