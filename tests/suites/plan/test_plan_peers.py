"""Which cases a peers sweep measures: rows, options, lengths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from results.schema import Arm
from suites.peers.suite import PeerRow, choose_rows
from suites.plan import cases, order, plan_sweep


def row(peer: str, backend: str, **changes: Any) -> PeerRow:
    values: dict[str, Any] = {
        "is_causal": False, "is_default": True, "devices": ("cpu", "cuda"),
        "ours": Arm(backend, {"window": 256} if backend == "longformer" else {}),
        "num_projections": 0, "subtracts_projections": False,
        "seq_lens": {"forward": 4096, "training": 4096},
    }  # fmt: skip
    return PeerRow(peer=peer, **{**values, **changes})


ROWS = (
    row("local", "longformer"),
    row("local", "longformer", is_causal=True, is_default=False),
    row("layer", "longformer", num_projections=3, subtracts_projections=True),
    row("sums", "performer"),
    row("sums", "performer", is_causal=True, seq_lens={"forward": 4096, "training": 1024}),
    row("gpu", "sdpa", devices=("cuda",)),
)


def chosen(**options: Any) -> tuple[PeerRow, ...]:
    base: dict[str, Any] = {"peers": (), "backends": (), "is_causal": False, "device": "cpu"}
    return choose_rows(ROWS, **{**base, **options})


def names(rows: tuple[PeerRow, ...]) -> list[tuple[str, bool]]:
    return [(r.peer, r.is_causal) for r in rows]


def test_rows_by_default_are_those_of_the_device():
    local = [("local", False), ("layer", False), ("sums", False), ("sums", True)]
    assert names(chosen()) == local
    assert names(chosen(device="cuda")) == [*local, ("gpu", False)]


def test_peer_that_is_named_is_measured_wherever():
    assert names(chosen(peers=("gpu", "local"))) == [("local", False), ("gpu", False)]


def test_causal_takes_the_causal_rows_alone():
    assert names(chosen(is_causal=True)) == [("local", True), ("sums", True)]


def test_backend_gives_our_side_its_options():
    arms = (Arm("longformer", {"window": 64}), Arm("longformer", {"dilation": 2}))
    rows = chosen(backends=arms, peers=("local",))
    assert [r.ours.options for r in rows] == [{"window": 64}, {"window": 256, "dilation": 2}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"peers": ("locl",)}, "peers: no peer 'locl'; there are local, layer, sums, gpu"),
        ({"backends": (Arm("full"),)}, "backend: full is no peer's counterpart"),
        ({"peers": ("gpu",), "backends": (Arm("longformer"),)}, "no peer fits"),
    ],
)
def test_what_is_not_there_is_misuse(options: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        chosen(**options)


def test_arms_are_ours_the_peer_and_its_projections():
    by_name = {r.peer: [arm.name for arm in r.arms] for r in chosen()}
    assert by_name["local"] == ["longformer", "peer:local"]
    assert by_name["layer"] == ["longformer", "peer:layer", "projections"]


def test_suite_measures_each_row_at_its_own_length_under_both_allocators():
    grid = replace(plan_sweep(None, suite="peers"), rows=chosen())
    every = cases(grid)
    assert len(every) == 4 * 2 * 2
    assert {case.kind for case in every} == {"peer"}
    assert {case.allocator for case in every} == {"default", "retained"}
    lengths = {(c.is_causal, c.mode): c.seq_len for c in every if c.arms[1].name == "peer:sums"}
    assert lengths.pop((True, "training")) == 1024
    assert set(lengths.values()) == {4096}
    assert {c.level for c in every if len(c.arms) == 3} == {"layer"}
    items = order(grid, every)
    assert sum(item.case.kind == "peer" for item in items) == 3 * len(every)


def test_options_go_before_the_rows_own():
    grid = plan_sweep(
        None, suite="peers", seq_lens=(64, 128), modes=("forward",), launches=1,
        allocators=("default",), is_causal=False,
    )  # fmt: skip
    grid = replace(grid, rows=chosen())
    every = cases(grid)
    assert len(every) == 4 * 2
    assert {case.seq_len for case in every} == {64, 128}
    assert plan_sweep("quick", suite="peers").seq_lens == plan_sweep("quick").seq_lens
    assert plan_sweep(None).seq_lens == plan_sweep("quick").seq_lens
    assert plan_sweep(None, suite="peers", device="cuda").allocators == ("default",)


def test_what_a_suite_would_ignore_is_misuse():
    with pytest.raises(ValueError, match="peers: only with suite peers; got local"):
        plan_sweep(None, peers=("local",))
    with pytest.raises(ValueError, match="level: set by the peer"):
        plan_sweep(None, suite="peers", levels=("layer",))
    with pytest.raises(ValueError, match=r"suite: expected one of speed, peers, .*got 'races'"):
        plan_sweep(None, suite="races")
