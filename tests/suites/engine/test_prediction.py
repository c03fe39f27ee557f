from __future__ import annotations

from types import SimpleNamespace

import pytest
from helpers_sweep import case, record

from results.schema import Arm
from suites.engine.declared import Declared
from suites.engine.prediction import History
from suites.plan import Item
from suites.processes.free_memory import MEMORY_SHARE, free_memory, memory_for_case, total_memory

GIB = 1 << 30


def declared(*cases, exponent=2.0, ops=lambda n: n**2):
    cost = [{"executed_ops": ops(c.seq_len), "exponentials": 0} for c in cases]
    return {c.id: Declared((), (k,), exponent, exponent) for c, k in zip(cases, cost, strict=True)}


def objection(history, of, timeout_s=60.0, free=GIB):
    return history.objection(of, timeout_s=timeout_s, free_bytes=free)


def test_nothing_seen_nothing_objected():
    assert objection(History({}), case()) is None


def test_latency_is_scaled_by_the_declared_operations_of_the_longest_shorter_length():
    short, middle, long = case(seq_len=100), case(seq_len=200), case(seq_len=400)
    history = History(declared(short, middle, long, ops=lambda n: n**2 + 10_000 * n))
    history.add(record(short, latency=5.0))
    history.add(record(middle, latency=1.0))
    seconds, source = history.latency(long)
    assert seconds == pytest.approx((400**2 + 4_000_000) / (200**2 + 2_000_000))
    assert source == "from length 200"


def test_without_declared_operations_the_declared_exponent_scales():
    short, long = case(seq_len=100), case(seq_len=1000)
    history = History({c.id: Declared((), (None,), 1.5, 1.0) for c in (short, long)})
    history.add(record(short, latency=1.0))
    assert history.latency(long)[0] == pytest.approx(10**1.5)


def test_case_predicted_too_slow_is_objected_to_with_the_prediction():
    short, long = case(seq_len=100), case(seq_len=1000)
    history = History(declared(short, long))
    history.add(record(short, latency=1.0))
    reason = objection(history, long, timeout_s=250)
    assert "predicted 100 s per call (from length 100)" in reason
    assert "the limit is 250 s (--case-timeout)" in reason
    assert objection(history, long, timeout_s=350) is None
    assert objection(history, short, timeout_s=4) is None


def test_numbers_of_a_launch_that_failed_predict_nothing():
    short, long = case(seq_len=100), case(seq_len=1000)
    history = History(declared(short, long))
    history.add(record(short, latency=1.0, status="failed", reason="wrong output"))
    assert history.foretold(long) == {"latency": None, "peak_memory": None}


def test_longer_lengths_and_other_series_predict_nothing():
    long = case(seq_len=1000)
    other = case(seq_len=100, mode="training")
    history = History(declared(long, other))
    history.add(record(long, latency=1000.0))
    assert history.latency(case(seq_len=100)) is None
    assert history.latency(other) is None


def test_without_shorter_lengths_the_peak_rates_give_a_lower_bound():
    one = case(seq_len=1000)
    roof = case(kind="roof", arms=(Arm("roof"),), seq_len=0, key_len=0)
    told = {one.id: Declared((), ({"executed_ops": 8e9, "exponentials": 1e9},), 2.0, 2.0)}
    history = History(told)
    rates = {"matmul_rate": [1e9, 4e9], "exp_rate": [1e8]}
    metrics = {name: {"unit": "op/s", "samples": found} for name, found in rates.items()}
    history.add({**record(roof), "arms": [{"metrics": metrics}]})
    assert history.latency(one)[0] == pytest.approx(2.0 + 10.0)
    assert "lower bound" in objection(history, one, timeout_s=30)
    assert history.latency(case(seq_len=1000, threads=2)) is None  # no such roof


def test_case_predicted_too_large_is_objected_to():
    short, long = case(seq_len=1024), case(seq_len=4096)
    history = History(declared(short, long))
    history.add(record(short, latency=1e-3, peak=64 << 20))
    reason = objection(history, long, free=GIB)
    assert "predicted 1.02 GiB of memory (from length 1024)" in reason  # 16 · 64 MiB + inputs
    assert objection(history, long, free=2 * GIB) is None
    assert objection(history, long, free=None) is None


def test_inputs_that_alone_do_not_fit_are_objected_to():
    huge = case(seq_len=1 << 20)
    told = objection(History({}), huge, free=GIB)
    assert "predicted 6 GiB of memory (inputs only)" in told  # q, k and v
    assert objection(History({}), case(seq_len=1 << 10), free=GIB) is None


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ({"status": "timeout", "reason": "too long", "wall_s": 61.0}, "timed out at length 128"),
        ({"status": "out_of_memory", "reason": "could not allocate"}, "could not allocate"),
        (
            {"status": "crashed", "reason": "killed by signal 9 (SIGKILL), likely the "
             "out-of-memory killer"},
            "out of memory at length 128 (process 0)",
        ),
        ({"status": "crashed", "reason": "killed by signal 11 (SIGSEGV)"}, None),
        ({"status": "failed", "reason": "RuntimeError: x"}, None),
        ({"status": "not_run", "reason": "predicted"}, None),
        ({"status": "timeout", "reason": "under a shorter limit", "wall_s": 10.0}, None),
    ],
)  # fmt: skip
def test_what_ended_a_shorter_length_keeps_the_longer_ones_from_starting(ending, expected):
    history = History({})
    history.add({**record(case(seq_len=128), wall_s=ending.pop("wall_s", 1.0)), **ending,
                 "arms": []})  # fmt: skip
    for seq_len in (128, 256):  # in a later launch, the same length too
        reason = objection(history, case(seq_len=seq_len))
        assert reason is None if expected is None else expected in reason
    assert objection(history, case(seq_len=64)) is None


def test_time_left_is_known_from_earlier_launches_and_shorter_lengths():
    short, long, other = case(seq_len=100), case(seq_len=200), case("other")
    gone = case("gone")
    history = History({**declared(short, long), gone.id: Declared(unsupported=("not here",))})
    items = [Item(short, 1), Item(long, 0), Item(other, 0), Item(gone, 0)]
    assert history.remaining(items) is None
    history.add(record(short, latency=0.1, wall_s=2.0))
    expected = 2.0 + (2.0 + 3 * (0.4 - 0.1)) + 2.0  # same case; scaled; the mean
    assert history.remaining(items) == pytest.approx(expected)
    assert history.remaining([]) == 0


def test_time_left_knows_the_limit_of_a_case_and_what_will_not_be_started():
    short, long, longest = (case(seq_len=n) for n in (100, 1000, 10_000))
    items = [Item(of, launch) for launch in (0, 1) for of in (short, long, longest)]
    history = History(declared(short, long, longest))
    history.add(record(short, latency=0.1, wall_s=2.0))
    # Three calls of 10 s are within the limit, a whole launch is not; 10,000 tokens are too many.
    assert history.remaining(items, timeout_s=31.0) == 2 * (2.0 + 31.0 + 0.0)
    assert history.remaining(items, timeout_s=31.0, foretelling=False) == 2 * (2.0 + 2 * 31.0)
    assert history.remaining(items, timeout_s=31.0, free_bytes=1) == 0.0


# -- free memory --------------------------------------------------------------------------------


def test_free_memory_is_the_least_that_system_and_container_allow(tmp_path, monkeypatch):
    system = SimpleNamespace(total=9000 * 1024, available=8000 * 1024)
    monkeypatch.setattr("psutil.virtual_memory", lambda: system)
    group = tmp_path / "cgroup"
    group.mkdir()
    assert free_memory(group) == 8000 * 1024
    (group / "memory.max").write_text("max\n")
    assert (free_memory(group), total_memory(group)) == (8000 * 1024, 9000 * 1024)
    (group / "memory.max").write_text("5000000\n")
    (group / "memory.current").write_text("3000000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 1000000\n")
    assert (free_memory(group), total_memory(group)) == (3_000_000, 5_000_000)


def test_a_case_may_have_a_share_of_what_is_free_on_its_device():
    machine = {"gpu_memory_bytes": 1000}
    assert memory_for_case(case(device="cuda"), machine) == MEMORY_SHARE * 1000
    assert memory_for_case(case(device="cuda"), {"gpu_memory_bytes": None}) is None
    assert 0 < memory_for_case(case(), machine) <= MEMORY_SHARE * 2**50


def test_a_context_that_takes_too_long_to_be_fed_is_objected_to():
    cases = [case(seq_len=n, mode="decode", is_causal=True) for n in (1000, 10_000)]
    history = History({c.id: Declared((), (None,), 1.0, 1.0) for c in cases})
    history.add(record(cases[0], latency=1e-4, wall_s=4.0))
    said = objection(history, cases[1], timeout_s=100.0)
    limit = "the limit is 100 s (--case-timeout)"
    assert said == f"predicted 200 s to fill the context (from length 1000); {limit}"
    assert objection(history, cases[1], timeout_s=300.0) is None
    short = History({c.id: Declared((), (None,), 1.0, 1.0) for c in cases})
    short.add(record(cases[0], latency=1e-4, wall_s=1.9))  # no more than any launch takes
    assert objection(short, cases[1], timeout_s=1.0) is None


# -- predictions held against what cases took ---------------------------------------------------


def series(*lengths, **changes):
    """Cases that declare linear growth in time and memory."""
    every = [case(seq_len=n, **changes) for n in lengths]
    return every, History({c.id: Declared((), (None,), 1.0, 1.0) for c in every})


def test_a_backend_that_declares_n_and_takes_n_squared_is_foreseen():
    (a, b, c, d), history = series(1000, 2000, 4000, 16_000)
    history.add(record(a, latency=1.0, peak=1 << 20))
    assert history.foretold(b) == {"latency": 2.0, "peak_memory": 2 << 20}  # as declared
    history.add(record(b, latency=4.0, peak=4 << 20))
    assert history.foretold(c) == {"latency": 16.0, "peak_memory": 16 << 20}
    history.add(record(c, latency=16.0, peak=16 << 20))
    assert history.foretold(d) == {"latency": 256.0, "peak_memory": 256 << 20}
    reason = objection(history, d, timeout_s=500)
    assert "predicted 256 s per call (from length 4000, × 4 as it grew faster" in reason
    assert objection(history, d, timeout_s=1000) is None
    assert "of memory (from length 4000, × 4" in objection(history, d, 1000, free=300 << 20)


def test_a_prediction_is_never_scaled_down():
    (a, b, c), history = series(1000, 2000, 4000)
    history.add(record(a, latency=1.0, peak=1 << 20))
    history.add(record(b, latency=1.1, peak=1 << 20))  # fixed costs hide the growth
    assert history.foretold(c) == {"latency": 2.2, "peak_memory": 2 << 20}


def test_only_the_last_growth_counts_and_only_in_its_series():
    (a, b, c, d), history = series(1000, 2000, 4000, 8000)
    history.add(record(a, latency=1.0))
    history.add(record(b, latency=4.0))
    history.add(record(c, latency=8.0))
    assert history.foretold(d)["latency"] == 16.0
    other = case("full", seq_len=1000)
    history.add(record(other, latency=1.0))
    assert history.foretold(case("full", seq_len=2000))["latency"] == 2.0


def test_the_same_length_again_is_foretold_as_it_was_and_says_nothing_of_growth():
    (a, b), history = series(1000, 2000)
    history.add(record(a, latency=1.0))
    history.add(record(b, latency=4.0))
    history.add(record(a, 1, latency=9.0))
    assert history.foretold(a)["latency"] == 9.0
    assert history.foretold(b)["latency"] == 4.0


def test_near_lengths_and_endings_without_numbers_correct_nothing():
    (a, b, c, d), history = series(1000, 1001, 2000, 8000)
    history.add(record(a, latency=1.0))
    history.add(record(b, latency=1.5))
    history.add({**record(c), "status": "failed", "reason": "x", "arms": []})
    assert history.foretold(d)["latency"] == float(f"{1.5 * 8000 / 1001:.4g}")


def test_no_growth_is_beyond_what_the_driver_can_count_with():
    (a, b, c), history = series(1, 2, 1 << 40)
    history.add(record(a, latency=1e-9, peak=1))
    history.add(record(b, latency=1e300, peak=1 << 52))
    assert objection(history, c) is not None


def test_roofs_are_not_foretold_and_always_run():
    _, history = series(1000)
    one = case(kind="roof", arms=(Arm("roof"),))
    history.add({**record(one), "status": "timeout", "reason": "slow", "arms": []})
    assert objection(history, one, timeout_s=0.0, free=0) is None
    assert history.foretold(one) == {"latency": None, "peak_memory": None}


def test_a_lower_bound_is_no_prediction():
    one = case(seq_len=1000)
    roof = case(kind="roof", arms=(Arm("roof"),), seq_len=0, key_len=0)
    history = History({one.id: Declared((), ({"executed_ops": 8e9, "exponentials": 1e9},))})
    metrics = {n: {"unit": "op/s", "samples": [1e9]} for n in ("matmul_rate", "exp_rate")}
    history.add({**record(roof), "arms": [{"metrics": metrics}]})
    assert history.latency(one) is not None
    assert history.foretold(one) == {"latency": None, "peak_memory": None}


def test_a_roofs_time_counts_for_the_time_left():
    _, history = series(1000)
    roof = case(kind="roof", arms=(Arm("roof"),))
    history.add(record(roof, wall_s=0.5))
    assert history.remaining([Item(roof, 1), Item(roof, 2)]) == 1.0
