"""All that is computed from a run, each thing once: what every chapter of the report reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from results.analysis.crossovers import Pair, against, crossovers, feasible, speedups
from results.analysis.exponents import fit_all
from results.analysis.profiles import Profiles, profiles
from results.analysis.roofline import Roofs, with_limits
from results.analysis.series import by_setting, points
from results.records.case_columns import SETTING
from results.records.frames import as_rows
from results.records.load import Run
from results.schema import MODES
from results.text import numbers
from results.text.labels import rank
from results.text.settings import in_words, machine_name, names_precision


class Analysis:
    """What is computed from a run, when it is first asked for, and kept.

    Attributes:
        run: what was loaded.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._by_setting: dict[str, Callable[[tuple[Any, ...]], pd.DataFrame]] = {}

    @cached_property
    def points(self) -> pd.DataFrame:
        """See `series.points`."""
        return points(self.run)

    @cached_property
    def roofs(self) -> Roofs:
        """The peaks of the run's machines."""
        return Roofs(self.run)

    @cached_property
    def fits(self) -> pd.DataFrame:
        """See `exponents.fit_all`."""
        return fit_all(self.points, self.roofs)

    @cached_property
    def _pairs(self) -> list[Pair]:
        return against(self.points)

    @cached_property
    def crossovers(self) -> pd.DataFrame:
        """See `crossovers.crossovers`."""
        return crossovers(self._pairs)

    @cached_property
    def speedups(self) -> pd.DataFrame:
        """See `crossovers.speedups`."""
        return speedups(self._pairs)

    @cached_property
    def feasible(self) -> pd.DataFrame:
        """See `crossovers.feasible`."""
        return feasible(self.points)

    @cached_property
    def limits(self) -> pd.DataFrame:
        """See `roofline.with_limits`."""
        return with_limits(self.points, self.roofs)

    @cached_property
    def profiles(self) -> Profiles:
        """See `profiles.profiles`."""
        return profiles(self.run)

    @cached_property
    def settings(self) -> tuple[SettingAnalysis, ...]:
        """The settings of the run's series, the one with most measurements first."""
        table = self.points
        counts = table.groupby(list(SETTING), sort=False)["value"].count()
        place = {m: i for i, m in enumerate(self.run.frame["machine"].unique())}
        several = len({key[0] for key in counts.index}) > 1
        precise = names_precision(as_rows(table[["matmul_precision"]]))
        found = []
        for key in sorted(counts.index, key=lambda k: (-counts[k], place[k[0]])):
            values = dict(zip(SETTING, key, strict=True))
            where = f"{self._machine(values['machine'])}: " if several else ""
            title = where + in_words(values, with_precision=precise)
            found.append(SettingAnalysis(self, values, title))
        return _told_apart(found)

    def _machine(self, machine: str) -> str:
        return machine_name(self.run.machines.get(machine, {})) or f"machine {machine[:8]}"

    def rows(self, table: str, setting: Mapping[str, Any]) -> pd.DataFrame:
        """Return the rows of one of the tables above that belong to a setting.

        Args:
            table: its name: ``points``.
            setting: values of `case_columns.SETTING`, in that order.
        """
        if table not in self._by_setting:
            self._by_setting[table] = by_setting(getattr(self, table))
        return self._by_setting[table](tuple(setting.values()))


@dataclass(frozen=True, eq=False)
class SettingAnalysis:
    """One setting: the rows of the analysis that belong to it.

    Attributes:
        analysis: of the run.
        setting: values of `case_columns.SETTING`.
        title: the setting in words.
        series: (backend, options) that are kept; None = all.
    """

    analysis: Analysis
    setting: Mapping[str, Any]
    title: str
    series: frozenset[tuple[str, str]] | None = None

    @cached_property
    def points(self) -> pd.DataFrame:
        """What was measured."""
        return self._rows("points")

    @cached_property
    def fits(self) -> pd.DataFrame:
        """The exponents."""
        return self._rows("fits")

    @cached_property
    def crossovers(self) -> pd.DataFrame:
        """Where one backend overtakes another."""
        return self._rows("crossovers")

    @cached_property
    def speedups(self) -> pd.DataFrame:
        """The ratios to the exact baselines."""
        return self._rows("speedups")

    @cached_property
    def feasible(self) -> pd.DataFrame:
        """How far each series goes."""
        return self._rows("feasible")

    @cached_property
    def limits(self) -> pd.DataFrame:
        """The latencies beside the machine's limit."""
        return self._rows("limits")

    @cached_property
    def peaks(self) -> Mapping[str, float]:
        """The roofs that belong to the setting; empty if unmeasured."""
        return self.analysis.roofs.peaks(self.setting)

    @cached_property
    def profiles(self) -> Profiles:
        """Where the time of its calls goes; empty frames if it was not profiled."""
        return Profiles(*map(self._kept, self.analysis.profiles.of(self.setting)))

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
            if math.isfinite(row["exponent"]):
                between = numbers.interval(row["ci_low"], row["ci_high"], numbers.exponent)
                text = f"\u2002N^{numbers.exponent(row['exponent'])} {between}".rstrip()
                notes[row["backend"], row["options"]] = text
        return notes

    def first_series(self, most: int) -> Self:
        """Return the setting with at most so many series, the known backends first."""
        every = set(zip(self.points["backend"], self.points["options"], strict=True))
        if len(every) <= most:
            return self
        first = sorted(every, key=lambda key: (rank(key[0]), key[1]))[:most]
        return replace(self, series=frozenset(first))

    def _rows(self, table: str) -> pd.DataFrame:
        return self._kept(self.analysis.rows(table, self.setting))

    def _kept(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of the series that are kept."""
        if self.series is None:
            return rows
        keys = zip(rows["backend"], rows["options"], strict=True)
        return rows[np.array([key in self.series for key in keys], dtype=bool)]


def _told_apart(settings: list[SettingAnalysis]) -> tuple[SettingAnalysis, ...]:
    """Add the ids of machine and environment, whichever differ, to titles that would be equal."""
    alike: dict[str, list[SettingAnalysis]] = {}
    for one in settings:
        alike.setdefault(one.title, []).append(one)
    result = []
    for one in settings:
        title = one.title
        for what in ("machine", "environment"):
            if len({other.setting[what] for other in alike[one.title]}) > 1:
                title += f", {what} {one.setting[what][:8]}"
        result.append(replace(one, title=title))
    return tuple(result)
