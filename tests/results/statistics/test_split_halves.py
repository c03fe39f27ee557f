"""Halves of real runs agree within the model's intervals: no simulated noise flatters them."""

from __future__ import annotations

from verification import split_halves
from verification.show import table


def test_two_halves_of_shipped_runs_agree() -> None:
    got = split_halves.measure("short", lambda line: None)
    assert {row["of"] for row in got.details} == {"exponent", "time", "ratio"}
    assert got.passed, table([got])
