"""The settings of a run as the chapter of speed shows them: with a colour for each series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from results.analysis.analysis import Analysis, SettingAnalysis
from results.figures.theme import Look, looks


@dataclass(frozen=True, eq=False)
class Chapter(SettingAnalysis):
    """One setting, and how its series look."""

    @cached_property
    def looks(self) -> Mapping[tuple[str, str], Look]:
        """(backend, options) to colour and marker, the same in every setting of a run."""
        table = self.analysis.points
        return looks(zip(table["backend"], table["options"], strict=True))


def chapters(analysis: Analysis) -> list[Chapter]:
    """Return the settings of a run, the one with most measurements first."""
    return [Chapter(analysis, one.setting, one.title) for one in analysis.settings]
