"""Suspects are settled by pairs: confirmed, cleared, given up, or left open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from results.comparison.backend_changes import BackendChange
from results.comparison.changes import Comparison
from results.comparison.compare import compare
from results.comparison.confirmation import LOOKS, MAX_PAIRS, MOST_FAILURES, SHARES, Confirmation
from results.records.load import load

LAWS = {f"b{i}": synthetic.Law(1e-6, 1.0) for i in range(8)}
SMALL: dict[str, Any] = {"lengths": (512,), "modes": ("forward",), "roof": None, "launches": 1}


@pytest.fixture
def suspicion(tmp_path: Path) -> Comparison:
    """Eight suspects: a single launch says nothing."""
    runs = [
        load(synthetic.write_run(tmp_path / n, LAWS, **SMALL, seed=s, run=n))
        for s, n in enumerate("ab")
    ]
    found = compare(*runs)
    assert len(found.suspects) == 8
    return found


def record(case_id: str, seconds: float, **changes: Any) -> dict[str, Any]:
    metrics = {"latency": {"unit": "s", "samples": [seconds, seconds, 9.0 * seconds]}}
    return {"case": {"id": case_id}, "status": "ok", "reason": None,
            "arms": [{"metrics": metrics}], **changes}  # fmt: skip


def settle(
    suspicion: Comparison,
    effects: Mapping[int, float],
    *,
    noise: float = 0.03,
    seed: int = 0,
    max_pairs: int = MAX_PAIRS,
) -> tuple[Comparison, int]:
    """Give pairs until nothing is open; the i-th case is slower by ``effects[i]``."""
    rng = np.random.default_rng(seed)
    order = [c.case_id for c in suspicion.changes]
    confirmation = Confirmation(suspicion, max_pairs=max_pairs)
    rounds = 0
    while open_cases := confirmation.undecided:
        rounds += 1
        assert rounds <= MAX_PAIRS
        for case_id in open_cases:
            factor = 1 + effects.get(order.index(case_id), 0.0)
            pair = [f * math.exp(noise * rng.standard_normal()) for f in (1.0, factor)]
            confirmation.add(*(record(case_id, seconds) for seconds in pair))
        confirmation.close_round()
    return confirmation.result(), rounds


def test_the_looks_share_what_is_allowed() -> None:
    assert len(LOOKS) == len(SHARES)
    assert list(LOOKS) == sorted(LOOKS)
    assert LOOKS[0] >= 5


def test_a_slowdown_is_confirmed_and_the_others_are_cleared(suspicion: Comparison) -> None:
    got, _ = settle(suspicion, {2: 0.1})
    verdicts = [c.verdict for c in got.changes]
    assert verdicts[2] == "worse"
    assert [v for i, v in enumerate(verdicts) if i != 2 and v == "worse"] == []
    assert 5 <= got.changes[2].pairs < 40
    assert got.changes[2].ratio.low < 1.1 < got.changes[2].ratio.high
    assert got.differences == suspicion.differences


def test_the_median_of_a_launch_counts(suspicion: Comparison) -> None:
    got, _ = settle(suspicion, {}, noise=0.0001)
    assert {c.verdict for c in got.changes} == {"no change"}
    assert all(c.pairs == 5 for c in got.changes)
    assert got.changes[0].base.launches[0] == pytest.approx(1.0, abs=0.01)


def test_what_became_faster_is_said(suspicion: Comparison) -> None:
    got, _ = settle(suspicion, {1: -0.2})
    assert got.changes[1].verdict == "better"
    assert got.regressions == []


def test_noise_leaves_a_case_open_until_the_last_pair(suspicion: Comparison) -> None:
    got, rounds = settle(suspicion, {0: 0.03}, noise=0.5, max_pairs=10)
    assert rounds <= 10
    assert got.changes[0].verdict == "inconclusive"
    assert got.regressions == []


def test_false_confirmations_are_rare_and_ten_percent_is_found(suspicion: Comparison) -> None:
    tables = 60
    alarms = found = 0
    for seed in range(tables):
        got, _ = settle(suspicion, {3: 0.1}, noise=0.05, seed=seed)
        found += got.changes[3].verdict == "worse"
        alarms += len(got.regressions) - (got.changes[3].verdict == "worse")
    assert found >= 0.95 * tables
    assert alarms <= 2  # of 420


def test_pairs_that_fail_are_given_up(suspicion: Comparison) -> None:
    confirmation = Confirmation(suspicion)
    ids = [c.case_id for c in suspicion.changes]
    crashed = {"status": "crashed", "reason": "signal 11", "arms": []}
    slow = {"status": "timeout", "reason": "too long", "arms": []}
    for _ in range(MOST_FAILURES):
        assert set(ids) == set(confirmation.undecided)
        for place, case_id in enumerate(ids):
            sides: list[dict[str, Any]] = [{}, {}]
            if place == 0:
                sides[1] = crashed
            elif place == 1:
                sides[0] = crashed
            elif place == 2:
                sides[1] = slow
            confirmation.add(*(record(case_id, 1.0, **side) for side in sides))
        confirmation.close_round()
    assert set(confirmation.undecided) == set(ids[3:])
    got = confirmation.result().changes
    assert (got[0].verdict, got[0].reason) == ("fails", "crashed: signal 11")
    assert (got[1].verdict, got[1].reason) == ("inconclusive", "base: crashed (signal 11)")
    assert (got[2].verdict, got[2].reason) == ("fails", "timeout: too long")


def test_what_failed_in_the_finished_run_may_be_well_again(tmp_path: Path) -> None:
    fails = {**LAWS, "b0": synthetic.Law(1e-6, 1.0, fails={512: ("crashed", "once")})}
    base = load(synthetic.write_run(tmp_path / "a", LAWS, **SMALL))
    new = load(synthetic.write_run(tmp_path / "b", fails, **SMALL, seed=1, run="b"))
    suspicion = compare(base, new)
    assert [c.verdict for c in suspicion.regressions] == ["fails"]
    got, _ = settle(suspicion, {}, noise=0.001)
    assert got.regressions == []


def test_a_case_that_times_out_in_every_pair_fails(suspicion: Comparison) -> None:
    confirmation = Confirmation(suspicion)
    slow = {"status": "timeout", "reason": "too \x1b[31m long", "arms": []}
    case_id = suspicion.changes[0].case_id
    for _ in range(MOST_FAILURES):
        confirmation.add(record(case_id, 1.0), record(case_id, 1.0, **slow))
        confirmation.close_round()
    got = confirmation.result().changes[0]
    assert got.verdict == "fails"
    assert got.reason == "timeout: too \N{REPLACEMENT CHARACTER}[31m long"


@pytest.mark.parametrize(
    ("base", "new", "verdict"),
    [
        (2.0e6, 2.5e6, "no change"),  # within what a peak on a CPU is known to
        (4.0e7, 5.0e7, "worse"),
        (0.0, 0.0, "no change"),
        (0.0, 9.0e6, "inconclusive"),
    ],
)
def test_pairs_of_peaks(tmp_path: Path, base: float, new: float, verdict: str) -> None:
    runs = [
        load(synthetic.write_run(tmp_path / n, {
            "b": synthetic.Law(1e-6, 1.0, memory=(by, 1.0))}, **SMALL, run=n))
        for n, by in (("a", 1e5), ("b", 2e5))
    ]  # fmt: skip
    suspicion = compare(*runs, metric="peak_memory")
    (suspect,) = suspicion.suspects
    confirmation = Confirmation(suspicion)
    while confirmation.undecided:
        pair = []
        for size in (base, new):
            made = record(suspect.case_id, 1.0)
            made["arms"][0]["metrics"]["peak_memory"] = {"unit": "B", "value": size}
            pair.append(made)
        confirmation.add(*pair)
        confirmation.close_round()
    (got,) = confirmation.result().changes
    assert got.verdict == verdict


def test_suspects_of_several_machines_are_refused(tmp_path: Path) -> None:
    other = {**synthetic.MACHINE, "cpu": "Another CPU"}
    sides = []
    for name in "ab":
        folders = [
            synthetic.write_run(
                tmp_path / f"{name}{i}", LAWS, **SMALL, machine=m, run=f"{name}{i}"
            )
            for i, m in enumerate((synthetic.MACHINE, other))
        ]
        sides.append(load(*folders))
    found = compare(*sides)
    assert {c.name.split(": ")[0] for c in found.changes} == {"Example CPU 2.5 GHz", "Another CPU"}
    with pytest.raises(ValueError, match="suspects are of 2 machines; expected runs of one"):
        Confirmation(found)


@pytest.mark.parametrize("pairs", [4, 41])
def test_the_number_of_pairs_has_bounds(suspicion: Comparison, pairs: int) -> None:
    with pytest.raises(ValueError, match=f"max_pairs: expected 5 to 40, got {pairs}"):
        Confirmation(suspicion, max_pairs=pairs)


def test_a_backend_is_settled_by_the_pairs_of_its_cases(tmp_path: Path) -> None:
    many: dict[str, Any] = {**SMALL, "lengths": (256, 512, 1024, 2048)}
    two = {name: synthetic.Law(1e-6, 1.0) for name in ("sdpa", "full")}
    runs = [
        load(synthetic.write_run(tmp_path / n, two, **many, seed=s, run=n))
        for s, n in enumerate("ab")
    ]
    found = compare(*runs)
    assert found.backends == ()  # one launch says nothing of them either
    claimed = replace(
        found,
        backends=tuple(
            BackendChange(found.changes[0].machine, name, "forward", name, 4, threshold=0.03,
                          verdict="worse")
            for name in ("sdpa", "full", "gone")
        ),
    )  # fmt: skip
    slower = {i: 0.05 for i, c in enumerate(found.changes) if c.backend == "sdpa"}
    got, _ = settle(claimed, slower, noise=0.1, max_pairs=10)
    sdpa, full, gone = got.backends
    assert sdpa.verdict == "worse" or sdpa.ratio.low < 1.05 < sdpa.ratio.high
    assert sdpa.pairs == sum(c.pairs for c in got.changes if c.backend == "sdpa") >= 20
    assert full.verdict != "worse"
    assert full.ratio.low < 1 < full.ratio.high
    assert (gone.verdict, gone.reason) == ("inconclusive", "not confirmed: 0 cases with pairs")
    assert sdpa.smallest > 1.03
    got, _ = settle(claimed, dict.fromkeys(slower, 0.3), noise=0.1, max_pairs=10)
    assert [b.verdict for b in got.backends] == ["worse", full.verdict, "inconclusive"]
