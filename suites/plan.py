"""From options to a sweep, its cases, and the order in which they are launched.

No torch and no asv here: what a backend accepts is asked of it elsewhere, before the first launch.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from results.schema import FULL_PRECISION, Arm, Case, content_id
from suites.machine.cases import roof_cases
from suites.processes import processors
from suites.registry import find, suites, takers
from suites.suite import EVERYWHERE, SHARED, Plan, Suite

DEFAULTS: Mapping[str, Any] = {
    "checkpointings": (False,), "compiles": (False,), "matmul_precisions": (FULL_PRECISION,),
}  # fmt: skip
"""Values of options that say nothing, beside ``None``, false and nothing at all."""


class Item(NamedTuple):
    """One launch of one case: what the driver does next."""

    case: Case
    launch: int


def plan_sweep(preset: str | None, *, suite: str = "speed", **chosen: Any) -> Plan:
    """Return the sweep that a suite makes of a preset and options.

    Args:
        preset: by name; ``None`` = as the suite says.
        suite: by name.
        chosen: values of the command's options, by their names; ``None`` and ``()`` = not given.

    Raises:
        ValueError: if there is no such suite or preset, or an option has no meaning in the suite.
            The message begins with the option.
        TypeError: if there is no such option.
    """
    one = find(suite)
    given = {name: value for name, value in chosen.items() if _is_given(name, value)}
    taken = {option.name for option in one.options} | one.takes | set(EVERYWHERE)
    for name, value in given.items():
        if name not in taken and value != one.only.get(name):
            _refuse(one, name, value)
    values = {name: value for name, value in given.items() if name in taken}
    plan: Plan = one.plan(preset, {"threads": (available_cores(),), **values})
    return replace(plan, names_backends="backends" in values)


def _is_given(name: str, value: Any) -> bool:
    """Say whether an option has another value than one that says nothing; 0 is a number."""
    return not (value is None or value is False or value == () or value == DEFAULTS.get(name))


def spelled() -> dict[str, str]:
    """Return how the command line writes the options of suites, by the name of their value."""
    own = {o.name: o.opts[-1].removeprefix("--") for one in suites() for o in one.options}
    return {**SHARED, **own}


def refusal(suite: Suite[Any], name: str) -> str:
    """Say why a suite does not take an option of another, by the name of its value."""
    only = f"only with suite {' or '.join(takers(name))}"
    return suite.refusals.get(name) or (suite.refusal if name in SHARED else "") or only


def _refuse(suite: Suite[Any], name: str, value: Any) -> None:
    """Say of an option that a suite does not take who takes it, or why there is none."""
    there = spelled()
    if name not in there:
        raise TypeError(f"{name}: no such option; there are {', '.join(there)}")
    came = f"suite {suite.name}" if value is True else _shown(value)
    raise ValueError(f"{there[name]}: {refusal(suite, name)}; got {came}")


def _shown(value: Any) -> str:
    """Write an option's value as the command line takes it."""
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return value.label if isinstance(value, Arm) else str(value)


def available_cores() -> int:
    """Return the number of processors this process may run on."""
    return len(processors.usable())


def cases(plan: Plan) -> list[Case]:
    """Return the cases of a sweep's shard without its roofs, series by series, lengths rising."""
    by_series = group(plan.suite.cases(plan)).values()
    index, count = plan.shard
    return [case for part in list(by_series)[index - 1 :: count] for case in part]


def series_id(case: Case) -> str:
    """Return what the cases that differ in their length alone have in common."""
    content = {k: v for k, v in case.to_json().items() if k not in ("id", "seq_len", "key_len")}
    return content_id(content)


def group(every: Iterable[Case]) -> dict[str, list[Case]]:
    """Gather cases by series, each in rising length; equal cases once."""
    series: dict[str, dict[str, Case]] = defaultdict(dict)
    for case in every:
        series[series_id(case)].setdefault(case.id, case)
    return {
        key: sorted(part.values(), key=lambda case: case.seq_len) for key, part in series.items()
    }


def order(plan: Plan, cases: Sequence[Case]) -> list[Item]:
    """Return every launch of the sweep in the order it is to be run.

    All cases of launch 0 come first, then launch 1, …: a slow change of the machine then spreads
    over all cases. Each round begins with the roofs, and has the order of `round_of`.
    """
    items: list[Item] = []
    for launch in range(plan.launches):
        roofs = roof_cases(plan, single_thread=launch == 0) if cases else []
        again = [case for case in cases if launch < plan.suite.launches_of(plan, case)]
        items += [Item(case, launch) for case in (*roofs, *round_of(again, launch, plan.seed))]
    return items


def round_of(every: Sequence[Case], launch: int, seed: int) -> list[Case]:
    """Return cases in the order of a round, shuffled under the seed.

    In the first each series is run in rising length, so that the shorter lengths predict the
    longer ones: a uniform random merge of series. Later ones are shuffled fully: where lengths
    rise, what changes in the machine within a round would pass for growth.
    """
    rng = random.Random(f"{seed}:{launch}")
    if launch:
        return rng.sample(every, len(every))
    parts = {key: iter(part) for key, part in group(every).items()}
    places = [series_id(case) for case in every]
    rng.shuffle(places)
    return [next(parts[key]) for key in places]
