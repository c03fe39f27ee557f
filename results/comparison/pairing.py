"""Two runs side by side: what each holds of a case, and what differs between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from results.analysis.series import with_cross_len
from results.analysis.warm_up import is_cut_short
from results.comparison.machine import is_alike, moved
from results.records.case_columns import SETTING
from results.records.frames import as_rows
from results.records.load import Run, machine_names
from results.schema import IDENTITY, PEER, PROJECTIONS, format_option
from results.text import numbers
from results.text.clean import clean
from results.text.labels import label
from results.text.settings import differing

Place = tuple[str, str, int]
"""Machine, case id and arm."""

SETTLED = 4
"""Version of the measuring code from which on launches start with a settled heap."""


class IncomparableError(ValueError):
    """The two runs cannot be compared; the message says what differs and what is accepted."""


@dataclass(frozen=True)
class Side:
    """What one run holds of a case.

    Attributes:
        launches: the metric's medians, one a launch that succeeded.
        status: where none did, how the first ended.
        reason: likewise; where some did, how many did not.
        cut_short: how many of the launches had a warm-up that was cut short.
        sentinels: of a time, the sentinel of each of its launches in s; NaN where it has none.
    """

    launches: tuple[float, ...] = ()
    status: str = "ok"
    reason: str = ""
    cut_short: int = 0
    sentinels: tuple[float, ...] = ()


@dataclass(frozen=True)
class Known:
    """A case as people name it, its backend, where it runs, and how its memory is allocated.

    `measurement` is the version of the measuring code; `setting` is what it shares with all that
    was measured together, `series` with the cases of the setting that differ from it in length
    alone.
    """

    name: str
    backend: str
    mode: str
    device: str
    allocator: str
    measurement: int
    setting: tuple[Any, ...]
    series: tuple[Any, ...]

    @property
    def may_fault(self) -> bool:
        """Whether a process may give freed memory back, and have it faulted in again."""
        is_settled = self.measurement >= SETTLED
        return self.device == "cpu" and self.allocator == "default" and not is_settled


class Pairing:
    """The machines of two runs, one of NEW with one of BASE, and how far each moved between them.

    Attributes:
        machines: machine of NEW to that of BASE.
        alike: machine of NEW to whether its sentinels compare (`machine.is_alike`).
        sentinels: machine of NEW to what changed in its sentinel; None = unknown.

    Raises:
        IncomparableError: if the runs were measured by different versions of the measuring code,
            or share no machine and one of them holds several.
    """

    def __init__(self, base: Run, new: Run) -> None:
        versions = [_version(run) for run in (base, new)]
        if versions[0] != versions[1]:
            raise IncomparableError(
                f"BASE: measured by version {versions[0]} of the measuring code, NEW by version "
                f"{versions[1]}; expected the same, their numbers are not comparable"
            )
        self._incomplete = [
            f"{name}: {said}" for name, run in (("BASE", base), ("NEW", new))
            for said in run.incomplete
        ]  # fmt: skip
        self.machines = _pair_machines(base, new)
        self.alike = {
            here: is_alike(base, new, there, here) for here, there in self.machines.items()
        }
        # With sentinels in the launches the model tells times at one speed of the machine.
        self._at_one_speed = all(self.alike.values()) and all(
            (run.frame["sentinel"] > 0).any() for run in (base, new)
        )
        self.sentinels = {
            here: moved(base, new, there, here) for here, there in self.machines.items()
        }

    def notes(self, threshold: float) -> Iterator[str]:
        """Yield what is to be kept in mind, one sentence each."""
        yield from self._incomplete
        if any(here != there for here, there in self.machines.items()):
            yield "the runs are of two machines: a ratio is between them, not between commits"
        most = math.expm1(max(abs(d.centre) if d else 0.0 for d in self.sentinels.values()))
        if most > threshold:
            yield (
                f"the control benchmark, the same work in both runs, moved by {most:.0%}: the "
                "machine itself changed by that much, and every interval allows for it"
                + "; times are given at its mean speed"
                * self._at_one_speed
            )
        if None in self.sentinels.values():
            yield (
                "the runs share no control benchmark: a change that most cases share counts as "
                "the machine's"
            )


def _version(run: Run) -> int:
    """Return which version of the measuring code took a run's times."""
    timed = [r for r in run.records if r["case"]["kind"] in ("speed", "peer")]
    version: int = (timed or run.records)[0]["measurement"]
    return version


def _pair_machines(base: Run, new: Run) -> dict[str, str]:
    here, there = (list(run.frame["machine"].unique()) for run in (new, base))
    if shared := [machine for machine in here if machine in there]:
        return {machine: machine for machine in shared}
    if len(here) == len(there) == 1:
        return {here[0]: there[0]}
    raise IncomparableError(
        f"NEW: none of its {len(here)} machines is among the {len(there)} of BASE; expected a "
        "machine in common, or one in each"
    )


# -- what a run holds ----------------------------------------------------------------------------


def ours(run: Run) -> pd.DataFrame:
    """Return the rows of a run whose arm a commit can change: no floor, no peer, no roof."""
    frame = run.frame
    kinds = frame["kind"].isin(("speed", "peer"))
    fixed = frame["backend"].isin((IDENTITY, PROJECTIONS)) | frame["backend"].str.startswith(PEER)
    return frame[kinds & ~fixed]


def sides(run: Run, metric: str, name: str) -> dict[Place, Side]:
    """Return what a run holds of a metric.

    Args:
        run: what was loaded.
        metric: its name.
        name: what an error calls the run.

    Raises:
        IncomparableError: if a machine stands there in several environments, or a case has
            launches of several commits.
    """
    frame = ours(run)
    for machine, part in frame.groupby("machine", sort=False):
        if (count := part["environment"].nunique()) > 1:
            raise IncomparableError(
                f"{name}: machine {str(machine)[:8]} stands there in {count} environments; "
                "expected one"
            )
    if measured := [v for v in frame["version"].unique() if v]:
        raise IncomparableError(
            f"{name}: holds results of the same cases by several versions: "
            f"{numbers.listing(measured)}; expected one: each version in a folder of its own"
        )
    found: dict[Place, Side] = {}
    for key, part in frame.groupby(["machine", "case_id", "arm"], sort=False):
        good = part[(part["metric"] == metric) & (part["status"] == "ok")]
        bad, values = part[part["status"] != "ok"], good["value"]
        if len(values):
            cut = sum(is_cut_short(row) for row in as_rows(good[["converged"]]))
            lost = _lost(values, bad)
            beside = tuple(map(float, good["sentinel"]))
            found[key] = Side(
                tuple(map(float, values)), reason=lost, cut_short=cut, sentinels=beside
            )
        elif len(bad):
            found[key] = Side((), str(bad["status"].iloc[0]), str(bad["reason"].iloc[0]))
    return found


def _lost(values: pd.Series, bad: pd.DataFrame) -> str:
    """Say how many launches failed beside those that were measured; "" for none."""
    failed = bad.drop_duplicates(["run", "launch"])
    if failed.empty:
        return ""
    status = str(failed["status"].iloc[0])
    return f"{len(failed)} of {len(failed) + len(values)} processes {status}"


def named(run: Run) -> dict[tuple[str, int], Known]:
    """Name every case and arm: backend, mode and length, and what else differs between them."""
    frame = with_cross_len(ours(run).drop_duplicates(["case_id", "arm"]))
    places = ("machine", "environment", "version")
    around = [c for c in SETTING if c not in places]
    several = [c for c in around if frame[c].nunique() > 1]
    measurement = _version(run)
    known = {}
    for row in as_rows(frame):
        what = f"{label(row['backend'], row['options'])} {row['mode']} N={row['seq_len']}"
        beside = "beside a peer" if row["kind"] == "peer" else ""
        parts = [part for part in (what, beside, differing(row, several)) if part]
        known[row["case_id"], row["arm"]] = Known(
            ", ".join(parts), label(row["backend"], row["options"]), row["mode"], row["device"],
            row["allocator"], measurement,
            tuple(row[c] for c in around),
            tuple(row[c] for c in ("kind", "mode", "backend", "options")),
        )  # fmt: skip
    return known


def plugins_of(run: Run) -> dict[str, str]:
    """Return what plug-ins registered in a run, each to the plug-in and its version."""
    held = (run.environments.get(a, {}).get("plugins") for a in run.frame["environment"].unique())
    return {
        clean(name): clean(version)
        for plugins in held if isinstance(plugins, dict)
        for name, version in plugins.items()
    }  # fmt: skip


def differences(base: Run, new: Run) -> tuple[tuple[str, str, str], ...]:
    """Return what the runs say differently of themselves: a name, the old value, the new one."""
    before, after = _about(base), _about(new)
    rows = ((key, before.get(key, ""), after.get(key, "")) for key in {**before, **after})
    return tuple((key, old or "–", now or "–") for key, old, now in rows if old != now)


def _flat(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Walk a description's keys and values; of plug-ins what each registered."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield key.replace("_", " "), value


def _about(run: Run) -> dict[str, str]:
    frame = run.frame
    about = {
        "commit": " ".join(c[:12] for c in frame["commit"].unique() if c),
        "machine": " / ".join(machine_names(run).values()),
    }
    for known, column in ((run.machines, "machine"), (run.environments, "environment")):
        for address in frame[column].unique():
            for key, value in _flat(known.get(address, {})):
                values = value if isinstance(value, list) else [value]
                text = clean(" ".join(map(format_option, values)))[:80]
                about.setdefault(clean(key), "" if text == "none" else text)
    return about
