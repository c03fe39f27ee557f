"""Where the time goes: from records to tables and the figure; profiles that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic
from helpers_page import unscripted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from results.analysis.analysis import Analysis
from results.analysis.profiles import profiles
from results.chapters.speed.profile_figure import FARTHEST, profile_figure
from results.chapters.speed.rows import Chapter, chapters
from results.chapters.speed.tables import tables
from results.figures.theme import LIGHT, PARTS, css_variables, styled
from results.page.blocks import TableView
from results.records.load import Run, load
from results.report import write_report
from results.schema import PROFILE_PARTS, RECORDS

SMALL: dict[str, Any] = {
    "lengths": (512, 1024), "launches": 1, "modes": ("forward",), "noise": 0.0,
    "sample_noise": 0.0,
}  # fmt: skip
TWO = synthetic.profiled({name: synthetic.SEVEN[name] for name in ("sdpa", "longformer")})


def run(folder: Path, laws: Any = TWO, **options: Any) -> Run:
    return load(synthetic.write_run(folder, laws, **{**SMALL, **options}))


def chapter(folder: Path, laws: Any = TWO, **options: Any) -> Chapter:
    (one,) = chapters(Analysis(run(folder, laws, **options)))
    return one


def view(of: Chapter, title: str) -> TableView:
    return next(v for v in tables(of) if v.title == title)


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the profile of one speed record, the first of `sdpa`."""
    file = folder / RECORDS
    records = [json.loads(line) for line in file.read_text().splitlines()]
    edit(next(r for r in records if r["case"]["kind"] == "speed")["arms"][0]["profile"])
    file.write_text("".join(json.dumps(r) + "\n" for r in records))


def test_a_row_per_series_length_and_part(tmp_path: Path) -> None:
    found = profiles(run(tmp_path))
    assert len(found.parts) == 2 * 2 * len(PROFILE_PARTS)
    assert list(found.parts["backend"].unique()) == ["sdpa", "longformer"]
    products = found.parts[found.parts["part"] == "products"]
    assert set(products["share"]) == {0.5}
    assert list(products["rate"]) == pytest.approx([9e10] * 4)
    copies = found.parts[found.parts["part"] == "copies"]
    assert copies["rate"].isna().all()
    assert len(found.products) == 2 * 2 * 2
    assert found.faults.empty


def test_launches_give_their_median(tmp_path: Path) -> None:
    folders = [
        synthetic.write_run(
            tmp_path / str(ms), synthetic.profiled(TWO, synthetic.profile(ms * 1e-3)),
            **SMALL, run=f"run-{ms}",
        )
        for ms in (10, 20, 90)
    ]  # fmt: skip
    parts = profiles(load(*folders)).parts
    assert set(parts["call"]) == {0.02}
    assert set(parts[parts["part"] == "exponentials"]["seconds"]) == {0.005}


def test_the_table_shows_shares_and_rates_at_the_longest_length(tmp_path: Path) -> None:
    shown = view(chapter(tmp_path), "Where the time goes")
    assert shown.head[4:11] == list(PROFILE_PARTS)
    cells = [c.text for c in shown.rows[1]]
    assert cells[:4] == ["longformer", "forward", "1,024", "10.0 ms"]
    assert cells[4:11] == ["50 %", "–", "25 %", "12 %", "<0.1 %", "–", "12 %"]
    assert cells[11:] == ["50 %", "25 %"]  # of 1.8e11 and 4e9 op/s
    assert any(note.startswith("Products: matrix products.") for note in shown.notes)


def test_products_stand_beside_their_rate_alone(tmp_path: Path) -> None:
    shown = view(chapter(tmp_path), "Matrix products by shape")
    assert shown.is_long
    told = [" ".join(f"{c.text} {c.small}".split()) for c in shown.rows[0]]
    assert told[2:] == [
        "8 x [64, 64] @ [64, 512]", "8", "40 %", "100 GFLOP/s 56 %", "150 GFLOP/s 83 %",
    ]  # fmt: skip
    assert shown.rows[1][-1].text == "–"


def test_rates_without_a_peak_stand_alone(tmp_path: Path) -> None:
    of = chapter(tmp_path, roof=None)
    assert [c.text for c in view(of, "Where the time goes").rows[0]][11:] == ["–", "–"]
    assert view(of, "Matrix products by shape").rows[0][-1] == ("150 GFLOP/s", "", False)


def test_a_profiler_that_failed_is_named(tmp_path: Path) -> None:
    laws = {"sdpa": TWO["sdpa"]}
    laws |= synthetic.profiled({"bigbird": synthetic.SEVEN["bigbird"]}, {"failed": "no\nluck"})
    shown = view(chapter(tmp_path, laws), "Where the time goes")
    assert [c.text for c in shown.rows[-1]][:4] == ["bigbird", "forward", "1,024", "failed"]
    assert shown.notes[-1] == "No profile of bigbird, forward, 1,024 tokens: no luck."


def test_without_profiles_nothing_is_shown(tmp_path: Path) -> None:
    of = chapter(tmp_path, {"sdpa": synthetic.SEVEN["sdpa"]})
    assert not {"Where the time goes", "Matrix products by shape"} & {v.title for v in tables(of)}
    assert profile_figure(of) is None


# -- records of strangers ------------------------------------------------------------------------


def test_a_malformed_profile_costs_itself_alone(tmp_path: Path) -> None:
    whole = run(tmp_path)
    change(tmp_path, lambda profile: profile.update(seconds=0))
    found = load(tmp_path)
    (warning,) = found.warnings
    assert warning.startswith(f"{tmp_path / RECORDS}:2: arms[0].profile.seconds: expected a numb")
    assert warning.endswith("; profile left out")
    assert found.frame.equals(whole.frame)
    left = profiles(found).parts
    assert set(left["seq_len"][left["backend"] == "sdpa"]) == {1024}
    assert len(left) == 3 * len(PROFILE_PARTS)


def test_a_profile_that_is_no_object_is_named(tmp_path: Path) -> None:
    found = run(tmp_path, synthetic.profiled(TWO, [1]))
    assert len(found.warnings) == 4
    assert profiles(found).parts.empty


FINITE = st.floats(allow_nan=False, allow_infinity=False)
"""What is no JSON number costs the whole line, before a profile is looked at."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | FINITE | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


@pytest.mark.slow
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_profile_breaks_the_tables_or_the_figure(tmp_path: Path, data: st.DataObject) -> None:
    told = synthetic.profile()
    *way, last = data.draw(st.sampled_from(list(places(told))))
    inner: Any = told
    for key in way:
        inner = inner[key]
    inner[last] = data.draw(JSON)
    laws = {"sdpa": TWO["sdpa"]}
    laws |= synthetic.profiled({"bigbird": synthetic.SEVEN["bigbird"]}, told)
    of = chapter(tmp_path, laws, lengths=(512,))
    assert len(of.points[of.points["metric"] == "latency"]) == 2
    assert view(of, "Where the time goes").rows
    with styled(LIGHT):
        assert profile_figure(of) is not None


@pytest.mark.drawn
def test_text_of_a_profile_is_shown_and_never_run(tmp_path: Path) -> None:
    told = synthetic.profile()
    told["products"][0]["shape"] = "<script>alert(1)</script>\n| x"
    folder = synthetic.write_run(tmp_path, synthetic.profiled(TWO, told), **SMALL)
    files = write_report([folder])
    page, text = unscripted(files[0]), files[1].read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    assert page.count("<figure>") == 6
    assert "profile-1-light.png" in text


# -- the figure ----------------------------------------------------------------------------------


def test_bars_are_the_parts_in_ms(tmp_path: Path) -> None:
    of = chapter(tmp_path, modes=("forward", "training"))
    with styled(LIGHT):
        figure = profile_figure(of)
    assert figure is not None
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "forward, at 1,024 tokens", "training, at 1,024 tokens",
    ]  # fmt: skip
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["sdpa", "longformer"]
    assert ax.get_xlabel() == "time per call (ms)"
    first = [bar for bar in ax.patches if round(bar.get_y() + bar.get_height() / 2) == 0]
    assert [bar.get_width() for bar in first] == pytest.approx([5.0, 2.5, 1.25, 0.005, 1.245])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "products", "exponentials", "copies", "passes", "between",
    ]  # fmt: skip


def test_a_bar_beyond_the_others_is_pressed_and_says_so(tmp_path: Path) -> None:
    laws = dict(TWO) | synthetic.profiled(
        {"full": synthetic.SEVEN["full"]}, synthetic.profile(1.0)
    )
    with styled(LIGHT):
        figure = profile_figure(chapter(tmp_path, laws))
    assert figure is not None
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.texts] == ["1.00 s, not to scale", "10.0 ms", "10.0 ms"]
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert max(ends) == pytest.approx(FARTHEST * 10.0)


def test_parts_have_colors_that_no_backend_has() -> None:
    assert set(PARTS) == set(PROFILE_PARTS)
    for theme in (0, 1):
        own = {colors[theme] for colors in PARTS.values()}
        assert len(own) == len(PARTS)
        series = {v[1 + theme] for v in css_variables().values() if v[0].startswith("--s")}
        assert not own & series
