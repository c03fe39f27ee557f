from __future__ import annotations

import pandas as pd

from results.page.blocks import LONG, Cell
from results.page.columns import across, of, spread, table


def test_a_table_has_a_column_a_writer() -> None:
    view = table("Title", [{"a": 1}, {"a": 2}], {"A": of("a"), "twice": lambda r: Cell("", "2")})
    assert view.head == ["A", "twice"]
    assert view.rows == [[Cell("1"), Cell("", "2")], [Cell("2"), Cell("", "2")]]
    assert not view.is_long


def test_heads_may_be_equal_and_optional_columns_go_where_they_say_nothing() -> None:
    columns = [("x", of("a")), ("x", of("b")), ("remark", of("c"))]
    rows = [{"a": 1, "b": 2, "c": ""}]
    assert table("", rows, columns).head == ["x", "x", "remark"]
    assert table("", rows, columns, optional=("remark",)).head == ["x", "x"]
    said = [*rows, {"a": 1, "b": 2, "c": "why"}]
    assert table("", said, columns, optional=("remark",)).head == ["x", "x", "remark"]


def test_long_tables_are_folded_unless_it_is_said() -> None:
    rows = [{"a": n} for n in range(LONG + 1)]
    assert table("", rows, {"A": of("a")}).is_long
    assert not table("", rows, {"A": of("a")}, is_long=False).is_long


def test_rows_are_spread_over_columns_and_gaps_are_marked() -> None:
    frame = pd.DataFrame({"name": ["a", "a", "b"], "n": [1, 2, 2], "value": [10, 20, 30]})
    columns = [("name", lambda row: row[0]["name"]), *across([1, 2], str, of("value"))]
    view = table("", spread(frame, ("name",), "n"), columns)
    assert view.head == ["name", "1", "2"]
    assert [[cell.text for cell in row] for row in view.rows] == [
        ["a", "10", "20"], ["b", "–", "30"],
    ]  # fmt: skip
