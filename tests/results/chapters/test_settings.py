"""Comparisons between settings: threads, precision of products, compiled or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import synthetic

from results.analysis.series import points
from results.chapters.settings.pairs import along
from results.chapters.settings.tables import axis_tables
from results.page.blocks import TableView
from results.records.load import load, machine_names
from results.report import write_report

LAW = synthetic.SEVEN["performer"]
SHAPE: dict[str, Any] = {"lengths": (512, 2048), "modes": ("forward",), "noise": 0.001}


def law(factor: float, **extra: Any) -> dict[str, synthetic.Law]:
    """Return one backend that takes `factor` times as long."""
    return {"performer": synthetic.Law(factor * LAW.coefficient, 1.0, extra=extra)}


def runs(tmp_path: Path, *parts: tuple[dict[str, synthetic.Law], dict[str, Any]]) -> list[Path]:
    return [
        synthetic.write_run(
            tmp_path / str(i), laws, **SHAPE, case=case, run=f"run-{i}", seed=i,
            roof=synthetic.ROOF,
        )
        for i, (laws, case) in enumerate(parts)
    ]  # fmt: skip


def views(*folders: Path) -> dict[str, TableView]:
    return {view.title: view for view in axis_tables(points(load(*folders)))}


def texts(view: TableView) -> list[list[str]]:
    return [[cell.text for cell in row] for row in view.rows]


def test_a_run_of_one_setting_compares_nothing(tmp_path: Path) -> None:
    assert views(*runs(tmp_path, (law(1), {}))) == {}


def test_threads_tell_the_speed_up_with_its_interval(tmp_path: Path) -> None:
    parts = [(law(2), {"threads": 1}), (law(1), {"threads": 2}), (law(0.5), {"threads": 4})]
    found = views(*runs(tmp_path, *parts))
    assert list(found) == ["Threads: speed-up from 1 to 2", "Threads: speed-up from 1 to 4"]
    two = found["Threads: speed-up from 1 to 2"]
    assert two.head == ["backend", "mode", "512", "2,048"]
    assert [cell.text for cell in two.rows[0][:2]] == ["performer", "forward"]
    for cell in two.rows[0][2:]:
        assert float(cell.text.split()[0]) == pytest.approx(2, rel=0.05)
        low, high = (float(part) for part in cell.small.strip("()").split("–"))
        assert low <= 2 * 1.05
        assert high >= 2 * 0.95
    rows = along(points(load(*(tmp_path / str(i) for i in range(3)))), "threads")
    assert set(rows["threads"]) == {2, 4}
    assert list(rows[rows["threads"] == 4]["speedup"]) == pytest.approx([4, 4], rel=0.05)


def test_only_equal_cases_are_compared(tmp_path: Path) -> None:
    parts = [
        (law(2), {"threads": 1}), (law(1), {"threads": 2}),
        (law(6), {"threads": 1, "is_causal": True}), (law(2), {"threads": 2, "is_causal": True}),
        (law(9), {"threads": 2, "batch": 4}),
    ]  # fmt: skip
    view = views(*runs(tmp_path, *parts))["Threads: speed-up from 1 to 2"]
    shown = {row[2].text: row[3].text.split()[0] for row in view.rows}
    assert float(shown["batch 1, bidirectional"]) == pytest.approx(2, rel=0.05)
    assert float(shown["batch 1, causal"]) == pytest.approx(3, rel=0.05)
    assert shown["batch 4, bidirectional"] == "–"


def test_precision_tells_what_was_lost(tmp_path: Path) -> None:
    full = {"relative_l2": 3e-7, "budget": 1e-6, "rows": 64}
    lost = {"relative_l2": 4e-4, "budget": 2e-3, "rows": 64, "precision": "reduced"}
    kept = {**full, "precision": "full"}
    parts = [
        (law(2, gate=full), {}),
        (law(1, gate=lost), {"matmul_precision": "high"}),
        (law(1, gate=kept), {"matmul_precision": "medium"}),
    ]
    folders = runs(tmp_path, *parts)
    view = views(*folders)["Matmul precision"]
    assert view.head[2:4] == ["tokens", "precision"]
    shown = [(row[3], *row[7:]) for row in texts(view)]
    assert sorted(shown) == [
        ("high", "3.0e-07", "4.0e-04", "reduced"),
        ("high", "3.0e-07", "4.0e-04", "reduced"),
        ("medium", "3.0e-07", "3.0e-07", "full"),
        ("medium", "3.0e-07", "3.0e-07", "full"),
    ]
    assert float(texts(view)[0][6].split()[0]) == pytest.approx(2, rel=0.05)
    page = write_report(folders, ["html"], tmp_path / "out")[0].read_text()
    assert "matmul precision high" in page
    assert "Between settings" in page


def test_full_precision_alone_is_not_mentioned(tmp_path: Path) -> None:
    page = write_report(runs(tmp_path, (law(1), {})), ["html"])[0].read_text()
    assert "matmul precision highest" not in page
    assert "Between settings" not in page


def test_each_precision_has_its_own_limit(tmp_path: Path) -> None:
    first = synthetic.write_run(tmp_path / "1", law(1), **SHAPE)
    faster = {**synthetic.ROOF, "matmul_rate": 2 * synthetic.ROOF["matmul_rate"]}
    second = synthetic.write_run(
        tmp_path / "2", law(1), **SHAPE, case={"matmul_precision": "medium"}, run="2", roof=faster
    )
    text = write_report([first, second], ["md"], tmp_path / "out")[0].read_text()
    assert "matmul precision highest): " not in text
    for precision, rate in (("highest", "180 G"), ("medium", "360 G")):
        place = text.index(f"matmul precision {precision})")
        assert f"matmul: {rate}FLOP/s" in text[place : place + 200]


COMPILED = {"first_call": 2.5, "compile_time": 2.4, "graphs": 3, "breaks": 2, "recompiles": 0}


def test_compile_tells_time_graphs_and_breaks(tmp_path: Path) -> None:
    parts = [(law(2), {}), (law(1, compiled=COMPILED), {"compile": True})]
    view = views(*runs(tmp_path, *parts))["torch.compile"]
    row = dict(zip(view.head, texts(view)[0], strict=True))
    assert float(row["speed-up"].split()[0]) == pytest.approx(2, rel=0.05)
    assert row["compile time"] == "2.40 s"
    assert (row["graphs"], row["breaks"], row["recompiled"]) == ("3", "2", "0")
    assert "remark" not in row


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        ({"graphs": 0}, "nothing was compiled: it ran in eager mode"),
        ({"recompiles": 1}, "compiles at every call"),
    ],
)
def test_compile_without_eager_still_tells(
    tmp_path: Path, change: dict[str, int], remark: str
) -> None:
    parts = [(law(1, compiled={**COMPILED, **change}), {"compile": True})]
    view = views(*runs(tmp_path, *parts))["torch.compile"]
    row = dict(zip(view.head, texts(view)[0], strict=True))
    assert (row["eager"], row["speed-up"], row["remark"]) == ("–", "–", remark)


def test_a_compile_beyond_the_limit_is_a_timeout(tmp_path: Path) -> None:
    why = "exceeded the time limit of 60 s while compiling"
    slow = {"performer": synthetic.Law(1, 1, fails=dict.fromkeys((512, 2048), ("timeout", why)))}
    view = views(*runs(tmp_path, (law(1), {}), (slow, {"compile": True})))["torch.compile"]
    row = dict(zip(view.head, texts(view)[0], strict=True))
    assert (row["compiled"], row["compile time"], row["remark"]) == ("timeout", "–", why)
    assert row["eager"] != "–"


def test_checkpointing_tells_time_and_memory(tmp_path: Path) -> None:
    model = {"level": "model", "model": "bert-base", "num_heads": 0, "num_kv_heads": 0,
             "head_dim": 0}  # fmt: skip
    kept = {"performer": synthetic.Law(LAW.coefficient, 1.0, memory=(4096.0, 1.0))}
    anew = {"performer": synthetic.Law(1.25 * LAW.coefficient, 1.0, memory=(1024.0, 1.0))}
    folders = [
        synthetic.write_run(
            tmp_path / str(i), laws, lengths=(512, 2048), modes=("training",), noise=0.001,
            case={**model, "checkpointing": bool(i)}, run=f"run-{i}", seed=i,
        )
        for i, laws in enumerate((kept, anew))
    ]  # fmt: skip
    found = views(*folders)
    assert list(found) == ["Activation checkpointing"]
    view = found["Activation checkpointing"]
    rows = [dict(zip(view.head, row, strict=True)) for row in texts(view)]
    assert [row["tokens"] for row in rows] == ["512", "2,048"]
    for row, size in zip(rows, ("512 KiB", "2.00 MiB"), strict=True):
        assert float(row["speed-up"].split()[0]) == pytest.approx(0.8, rel=0.02)
        assert row["memory, on"] == size
    assert [row["memory, off"] for row in rows] == ["2.00 MiB", "8.00 MiB"]


def test_machines_stand_side_by_side_at_the_longest_length_they_share(tmp_path: Path) -> None:
    other = {**synthetic.MACHINE, "cpu": "Another CPU 5 GHz"}
    both = {name: synthetic.SEVEN[name] for name in ("full", "sdpa", "performer")}
    common = {"modes": ("forward",), "noise": 0.001, "roof": None}
    folders = [
        synthetic.write_run(tmp_path / "a", both, lengths=(512, 2048), **common),
        synthetic.write_run(
            tmp_path / "b", law(0.5), lengths=(512, 2048, 4096), **common, machine=other, run="r2"
        ),
    ]
    run = load(*folders)
    (view,) = axis_tables(points(run), machine_names(run))
    assert view.title == "Machines side by side: time per call, forward"
    assert view.head[:2] == ["backend", "tokens"]
    assert sorted(view.head[2:]) == ["Another CPU 5 GHz", "Example CPU 2.5 GHz"]
    (row,) = texts(view)  # what one machine alone measured has nothing beside it
    assert row[:2] == ["performer", "2,048"]
    took = {name: float(cell.removesuffix(" ms"))
            for name, cell in zip(view.head[2:], row[2:], strict=True)}  # fmt: skip
    assert took["Example CPU 2.5 GHz"] / took["Another CPU 5 GHz"] == pytest.approx(2, rel=0.02)
    assert view.title in write_report(folders, ["md"], tmp_path / "r.md")[0].read_text()
