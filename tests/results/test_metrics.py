from __future__ import annotations

import pytest

from results.metrics import COMPARED, FITTED, MEMORY, METRICS, RECORDED, metric, of_role
from results.schema import UNITS
from results.text.written import WRITERS, writer


def test_units_of_records_are_those_of_the_table() -> None:
    assert dict(UNITS) == {name: METRICS[name].unit for name in RECORDED}
    assert not set(UNITS) & set(of_role("derived"))


def test_a_metric_without_a_row_is_shown_by_its_name_and_unit() -> None:
    made = metric("cache_misses", "1/s")
    assert (made.title, made.words, made.unit) == ("Cache misses", "cache misses", "1/s")
    assert (made.declared, made.worse, made.asv) == ("", "", ())
    assert writer("cache_misses", "1/s")(1234.5) == "1,230"
    assert writer("wait", "s")(0.25) == "250 ms"
    assert writer("heap", "B")(2048) == "2.00 KiB"


def test_what_is_compared_has_words_for_both_verdicts_and_is_fitted() -> None:
    assert COMPARED == FITTED == of_role("cost")
    assert all(METRICS[name].better and METRICS[name].title for name in COMPARED)
    assert MEMORY == ("peak_memory", "state_bytes")


@pytest.mark.parametrize("name", METRICS)
def test_every_row_is_written_as_something(name: str) -> None:
    assert METRICS[name].written in WRITERS
    assert writer(name)(2.0)
