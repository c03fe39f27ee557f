"""Figures, by their axes and data."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import synthetic
from matplotlib.colors import to_hex
from PIL import Image, ImageColor

import results
from results.analysis.analysis import Analysis
from results.chapters.speed.figures import (
    FIGURES,
    error_figure,
    fraction_figure,
    memory_figure,
    speedup_figure,
)
from results.chapters.speed.figures import time_figure as draw_time
from results.chapters.speed.rows import Chapter, chapters
from results.figures.svg import drawn
from results.figures.theme import DARK, INK, LIGHT, css_variables, looks, recolour, styled
from results.records.load import load


@pytest.fixture(scope="module")
def chapter(tmp_path_factory: pytest.TempPathFactory) -> Chapter:
    laws = synthetic.profiled(synthetic.SEVEN)
    (one,) = chapters(Analysis(load(synthetic.write_run(tmp_path_factory.mktemp("run"), laws))))
    return one


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with styled(LIGHT):
        yield
    assert plt.get_fignums() == []  # no figure is left in pyplot's hands


def legend(ax) -> list[str]:
    return [t.get_text() for t in ax.get_legend().get_texts()]


def test_time_has_a_panel_per_mode_with_all_that_was_measured(chapter: Chapter) -> None:
    figure = draw_time(chapter)
    assert figure is not None
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["forward", "training"]
    for ax in figure.axes:
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        names = [t.split("\u2002")[0] for t in legend(ax)]
        assert names == ["full", "sdpa", "longformer", "bigbird", "linformer", "performer"]
        curves = [line for line in ax.lines if len(line.get_xdata()) > 1]
        assert len(curves) == 6
        assert list(curves[1].get_xdata()) == list(synthetic.LENGTHS)
    assert figure.axes[0].get_xlabel() == "sequence length (tokens)"
    ticks = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert ticks == ["512", "1k", "2k", "4k", "8k", "16k"]


def test_the_legend_gives_the_exponents(chapter: Chapter) -> None:
    figure = draw_time(chapter)
    assert figure is not None
    text = next(t for t in legend(figure.axes[0]) if t.startswith("sdpa"))
    assert text.startswith("sdpa\u2002N^")
    assert float(text.split("N^")[1].split()[0]) == pytest.approx(2.0, abs=0.05)
    assert text.endswith(")")


@pytest.mark.parametrize("figure_of", [draw_time, memory_figure])
def test_failed_cases_are_marked_where_they_would_be(chapter: Chapter, figure_of) -> None:
    figure = figure_of(chapter)
    for ax in figure.axes:
        (mark,) = [line for line in ax.lines if line.get_marker() == "x"]
        assert list(mark.get_xdata()) == [16384]
        assert [t.get_text() for t in ax.texts] == ["full: out of memory"]
        # The mark has room of its own above every line.
        low, high = (math.log(v) for v in ax.get_ylim())
        top = max(max(line.get_ydata()) for line in ax.lines if line.get_marker() != "x")
        assert (math.log(top) - low) / (high - low) < mark.get_ydata()[0] - 0.03


def test_memory_is_told_in_binary_units(chapter: Chapter) -> None:
    figure = memory_figure(chapter)
    assert figure is not None
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert "16 MiB" in labels
    assert "4 GiB" in labels


def test_speedup_shows_both_baselines_and_the_line_of_one(chapter: Chapter) -> None:
    figure = speedup_figure(chapter)
    assert figure is not None
    titles = {ax.get_title(loc="left") for ax in figure.axes}
    modes = ("forward", "training")
    assert titles == {f"{m}, over {b}" for m, b in itertools.product(modes, ("full", "sdpa"))}
    for ax in figure.axes:
        low, high = ax.get_ylim()
        assert low < 1 < high
        baseline = ax.get_title(loc="left").split()[-1]
        assert baseline not in legend(ax)


def test_error_is_drawn_over_time_at_the_longest_common_length(chapter: Chapter) -> None:
    figure = error_figure(chapter)
    assert figure is not None
    ax = figure.axes[0]
    assert ax.get_title(loc="left") == "forward, at 8,192 tokens"
    points = {to_hex(line.get_color()): line.get_ydata()[0] for line in ax.lines}
    look = chapter.looks["performer", ""]
    assert points[look.light] == pytest.approx(0.06)


def test_shares_of_the_limit_are_percentages(chapter: Chapter) -> None:
    figure = fraction_figure(chapter)
    assert figure is not None
    assert figure.axes[0].get_ylim() == (0, 100)


def test_a_backend_keeps_its_color_in_every_figure(chapter: Chapter) -> None:
    for draw in (draw_time, memory_figure, speedup_figure, fraction_figure):
        figure = draw(chapter)
        assert figure is not None
        ax = figure.axes[-1]
        shown = dict(zip(legend(ax), ax.get_legend().get_lines(), strict=True))
        line = next(v for k, v in shown.items() if k.startswith("linformer"))
        look = chapter.looks["linformer", ""]
        assert (to_hex(line.get_color()), line.get_marker()) == (look.light, look.marker)
        recolour(figure, {light: dark for _, light, dark in css_variables().values()})
        assert to_hex(line.get_color()) == css_variables()[look.light][2]


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colors_stand_out_in_light_and_dark() -> None:
    for _, light, dark in (v for v in css_variables().values() if v[0].startswith("--s")):
        assert contrast(light, LIGHT.paper) >= 3
        assert contrast(dark, DARK.paper) >= 3


def test_looks_differ_between_backends_and_between_variants() -> None:
    known = [(b, "") for b in ("full", "sdpa", "xformers", "longformer", "bigbird", "linformer",
                               "performer", "mine", "yours")]  # fmt: skip
    found = looks([*known, ("longformer", "window=64")])
    alone = [found[k] for k in known]
    assert len({x.light for x in alone}) == len({x.marker for x in alone}) == len(known)
    one, two = found["longformer", ""], found["longformer", "window=64"]
    assert one.light == two.light
    assert one.dashes != two.dashes


def inline(chapter: Chapter, prefix: str, title: str) -> str:
    made = drawn(partial(draw_time, chapter), prefix=prefix, title=title)
    assert made is not None
    assert made.inline is not None
    assert made.pngs is None
    return made.inline.svg


def test_an_inline_svg_takes_the_pages_colors_and_ids_of_its_own(chapter: Chapter) -> None:
    one = inline(chapter, "a", 'x "<y>"')
    two = inline(chapter, "b", "x")
    assert one.startswith("<svg")
    assert 'aria-label="x &quot;&lt;y&gt;&quot;. forward' in one
    assert "var(--ink)" in one
    assert INK not in one
    assert "sequence length (tokens)" in one  # text stays text
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert one == inline(chapter, "a", 'x "<y>"')


def test_nothing_measured_gives_no_figure(tmp_path: Path) -> None:
    laws = {"sdpa": synthetic.Law(1, 1, fails=dict.fromkeys(synthetic.LENGTHS, ("failed", "x")))}
    (one,) = chapters(Analysis(load(synthetic.write_run(tmp_path, laws))))
    assert [draw(one) for draw in FIGURES.values()] == [None] * len(FIGURES)
    assert drawn(partial(draw_time, one)) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_files_are_drawn_once_and_recoloured(chapter: Chapter, name: str) -> None:
    """What has a colour in the light file has that colour's counterpart in the dark one."""
    made = drawn(partial(FIGURES[name], chapter), inline=name == "time", pngs=True)
    assert made is not None
    assert made.pngs is not None
    light, dark = (
        np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in made.pngs[:2]
    )
    found = 0
    for paper in ((LIGHT.paper, DARK.paper), *(pair[1:] for pair in css_variables().values())):
        before, after = (np.array(ImageColor.getrgb(colour)) for colour in paper)
        there = (light == before).all(axis=2)
        if there.sum() > 50:  # the edge of a letter may have a series' grey by chance
            found += 1
            assert (dark == after).all(axis=2)[there].mean() > 0.95, paper
    assert found >= 4  # paper, ink, grid and series
    left = (dark == np.array(ImageColor.getrgb(LIGHT.paper))).all(axis=2)
    assert left.sum() == 0


def test_a_wide_interval_does_not_squeeze_the_lines(tmp_path: Path) -> None:
    folder = synthetic.write_run(tmp_path, launches=2, noise=0.5)
    (one,) = chapters(Analysis(load(folder)))
    figure = draw_time(one)
    assert figure is not None
    for ax in figure.axes:
        values = [v for line in ax.lines if line.get_marker() != "x" for v in line.get_ydata()]
        low, high = ax.get_ylim()
        assert low > min(values) / 2
        assert high < max(values) * 4
        for band in ax.collections:
            for path in band.get_paths():
                assert path.vertices[:, 1].max() < max(values) * 4


# -- for notebooks ---------------------------------------------------------------------------


@pytest.fixture
def measured(tmp_path):
    return results.load(synthetic.write_run(tmp_path))


@pytest.mark.slow
def test_a_notebook_gets_axes(measured):
    axes = [
        results.plots.scaling(measured),
        results.plots.scaling(measured, "peak_memory", mode="training"),
        results.plots.speedup(measured, over="full"),
        results.plots.errors(measured),
    ]
    for ax in axes:
        assert ax.lines
        assert ax.get_legend() is not None
    assert axes[0].get_ylabel() == "time per call"
    own = plt.subplots()[1]
    assert results.plots.scaling(measured, ax=own) is own
    plt.close("all")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("scaling", {"metric": "speed"}, "metric: expected one of latency, peak_memory, got"),
        ("scaling", {"mode": "decode"}, "mode: expected one of forward, training, got 'decode'"),
        ("scaling", {"setting": 7}, "setting: expected one of 0 = "),
        ("speedup", {"over": "nothing"}, "over: expected one of "),
    ],
)
def test_a_notebook_is_told_what_is_accepted(measured, name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(results.plots, name)(measured, **arguments)
