"""Before the first launch: what only a child knows of a sweep, and whom that leaves out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from results.schema import Case
from suites.engine.session import Asks, MisuseError, ask_about, check_accepted
from suites.machine.cases import roof_cases
from suites.plan import cases
from suites.suite import Plan


def prepared(
    plan: Plan, plugins: list[str], launcher: Asks
) -> tuple[Plan, Mapping[str, Any], list[str]]:
    """Return a sweep with what only a child knows of it, and what a child says of its cases.

    Returns:
        The sweep, what was told, and a line for each backend that is left out.

    Raises:
        MisuseError: if a backend, a peer or an option is not accepted.
        LaunchError: if no child can be asked.
    """
    if not plan.suite.is_complete(plan):
        plan = completed(plan, ask_about(launcher, [], plugins))
    every = [*roof_cases(plan, single_thread=True), *cases(plan)]
    told = ask_about(launcher, every, plugins, plan.files)
    check_accepted(told, every)
    plan, left_out = _that_run(plan, told, every)
    return plan.suite.informed(plan, told["cases"]), told, left_out


def _that_run(
    plan: Plan, told: Mapping[str, Any], every: Sequence[Case]
) -> tuple[Plan, list[str]]:
    """Return a sweep without backends that nobody named and that cannot run, and who they are.

    That is those that the device cannot run, and those that serve none of their cases.

    Raises:
        MisuseError: if none can run on the device.
    """
    unavailable = {
        **_serving_none(told, every),
        **told.get("unavailable", {}).get(plan.device, {}),
    }
    running = tuple(arm for arm in plan.backends if arm.name not in unavailable)
    if plan.names_backends or not plan.backends:
        return plan, []
    if not running:
        why = Counter(unavailable[arm.name] for arm in plan.backends).most_common(1)[0][0]
        raise MisuseError(
            f"--device {plan.device}: no backend runs there ({why}); attnbench doctor says what "
            "does"
        )
    gone = dict.fromkeys(arm.name for arm in plan.backends if arm.name in unavailable)
    return replace(plan, backends=running), [
        f"{name} is left out ({unavailable[name]}); --backend {name} keeps it" for name in gone
    ]


def _serving_none(told: Mapping[str, Any], every: Sequence[Case]) -> dict[str, str]:
    """Return the backends whose cases are all unsupported, with the first reason."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for case in every:
        said = told["cases"][case.id]["unsupported"] if case.arms else []
        reasons[case.arms[0].name if case.arms else ""].append(said[0] if said else "")
    return {name: found[0] for name, found in reasons.items() if all(found)}


def completed(plan: Plan, told: Mapping[str, Any]) -> Plan:
    """Return a sweep with what a child tells of what is registered.

    Raises:
        MisuseError: if what is chosen is not there.
    """
    try:
        whole: Plan = plan.suite.completed(plan, told)
    except ValueError as error:
        broken = "".join(f"; --plugin: {reason}" for reason in told["broken"].values())
        raise MisuseError(f"--{error}{broken}") from None
    return whole
