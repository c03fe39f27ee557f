"""A run in chapters: one per setting, with all that is computed for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from results.analysis.crossovers import crossovers, feasible, speedups
from results.analysis.exponents import fit_all
from results.analysis.profiles import Profiles, profiles
from results.analysis.roofline import Roofs, with_limits
from results.analysis.series import points
from results.figures.theme import Look, looks
from results.records.case_columns import SETTING
from results.records.frames import as_rows
from results.records.load import Run
from results.schema import MODES
from results.statistics.power_law import Fit
from results.text import numbers
from results.text.labels import rank
from results.text.settings import in_words, machine_name, names_precision


@dataclass(frozen=True)
class Chapter:
    """One setting: rows of the run's tables that belong to it.

    Attributes:
        setting: values of `series.SETTING`.
        title: the setting in words.
        points, fits, crossovers, speedups, feasible, limits: see the functions of these names.
        peaks: the roofs that belong to it; empty if unmeasured.
        profiles: where the time of its calls goes; empty frames if it was not profiled.
        looks: (backend, options) to colour and marker, the same in every chapter.
    """

    setting: Mapping[str, Any]
    title: str
    points: pd.DataFrame
    fits: pd.DataFrame
    crossovers: pd.DataFrame
    speedups: pd.DataFrame
    feasible: pd.DataFrame
    limits: pd.DataFrame
    peaks: Mapping[str, float]
    profiles: Profiles
    looks: Mapping[tuple[str, str], Look]

    @property
    def modes(self) -> list[str]:
        """The modes that were tried, forward first."""
        return [m for m in MODES if (self.points["mode"] == m).any()]

    def slopes(self, mode: str, metrics: Collection[str]) -> dict[tuple[str, str], str]:
        """Return the fitted exponents as a legend writes them: ``N^1.02 (0.98–1.05)``.

        Args:
            mode: of the rows.
            metrics: of which a mode has one.
        """
        rows = self.fits[(self.fits["mode"] == mode) & self.fits["metric"].isin(metrics)]
        notes = {}
        for row in as_rows(rows):
            fit = row["fit"]
            if isinstance(fit, Fit):
                between = numbers.interval(fit.low, fit.high, numbers.exponent)
                told = f"\u2002N^{numbers.exponent(fit.exponent)} {between}".rstrip()
                notes[row["backend"], row["options"]] = told
        return notes

    def first_series(self, most: int) -> Chapter:
        """Return the chapter with at most so many series, the known backends first."""
        every = set(zip(self.points["backend"], self.points["options"], strict=True))
        if len(every) <= most:
            return self
        kept = set(sorted(every, key=lambda key: (rank(key[0]), key[1]))[:most])

        def of(frame: pd.DataFrame) -> pd.DataFrame:
            keys = zip(frame["backend"], frame["options"], strict=True)
            return frame[np.array([key in kept for key in keys], dtype=bool)]

        return replace(
            self,
            points=of(self.points), fits=of(self.fits), crossovers=of(self.crossovers),
            speedups=of(self.speedups), feasible=of(self.feasible), limits=of(self.limits),
            profiles=Profiles(*map(of, self.profiles)),
        )  # fmt: skip


def chapters(run: Run, table: pd.DataFrame | None = None) -> list[Chapter]:
    """Return the chapters of a run, the one with most measurements first.

    Args:
        run: what was loaded.
        table: its `series.points`, where they are known already.
    """
    table = points(run) if table is None else table
    if table.empty:
        return []
    fits, crossed, sped = fit_all(run, table), crossovers(run, table), speedups(table)
    reach, limits = feasible(table), with_limits(run, table)
    drawn = looks(zip(table["backend"], table["options"], strict=True))
    roofs, profiled = Roofs(run), profiles(run)
    settings = table.groupby(list(SETTING), sort=False)["value"].count()
    machines = _names(run)
    several = len({key[0] for key in settings.index}) > 1
    precise = names_precision(as_rows(table[["matmul_precision"]]))
    of_points, of_fits, of_crossovers, of_speedups, of_feasible, of_limits = map(
        by_setting, (table, fits, crossed, sped, reach, limits)
    )
    result = []
    place = {m: i for i, m in enumerate(run.frame["machine"].unique())}
    for key in sorted(settings.index, key=lambda k: (-settings[k], place[k[0]])):
        setting = dict(zip(SETTING, key, strict=True))
        where = f"{machines[setting['machine']]}: " if several else ""
        title = where + in_words(setting, with_precision=precise)
        result.append(
            Chapter(
                setting=setting,
                title=title,
                points=of_points(key),
                fits=of_fits(key),
                crossovers=of_crossovers(key),
                speedups=of_speedups(key),
                feasible=of_feasible(key),
                limits=of_limits(key),
                peaks=roofs.peaks(setting),
                profiles=profiled.of(setting),
                looks=drawn,
            )
        )
    return _told_apart(result)


def by_setting(frame: pd.DataFrame) -> Callable[[tuple[Any, ...]], pd.DataFrame]:
    """Return what gives the rows of a setting, by its values in the order of `SETTING`."""
    parts = dict(iter(frame.groupby(list(SETTING), sort=False)))
    return lambda key: parts.get(key, frame.iloc[:0])


def _names(run: Run) -> dict[str, str]:
    """Return a name for every machine in the frame."""
    names = {}
    for machine in run.frame["machine"].unique():
        about = run.machines.get(machine, {})
        names[machine] = machine_name(about) or f"machine {machine[:8]}"
    return names


def _told_apart(found: list[Chapter]) -> list[Chapter]:
    """Add the ids of machine and environment, whichever differ, to titles that would be equal."""
    alike: dict[str, list[Chapter]] = {}
    for chapter in found:
        alike.setdefault(chapter.title, []).append(chapter)
    told = []
    for chapter in found:
        title = chapter.title
        for what in ("machine", "environment"):
            if len({c.setting[what] for c in alike[chapter.title]}) > 1:
                title += f", {what} {chapter.setting[what][:8]}"
        told.append(replace(chapter, title=title))
    return told
