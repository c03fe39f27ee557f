"""Run a sweep on the machines of a Ray cluster: deal, have it run there, write it down here.

The journal is this process's alone; what runs where, `suites.cluster.machines` says.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from suites.cluster import link
from suites.cluster.connection import connected
from suites.cluster.link import Node
from suites.cluster.machines import Machines
from suites.cluster.telling import ClusterProgress, Telling
from suites.engine.continuity import PluginFiles
from suites.engine.journal import Journal
from suites.engine.session import MisuseError
from suites.processes.signals import terminable
from suites.suite import Plan
from suites.terminal.progress import Summary


def check_possible(plan: Plan) -> None:
    """Check that nothing is asked for that needs the driver's own files on the machines.

    Raises:
        MisuseError: naming the option.
    """
    if plan.profile:
        raise MisuseError("--profile: its traces would stay on the machines of --cluster; run it "
                          "on one of them")  # fmt: skip
    if reason := plan.suite.cluster_misuse(plan):
        raise MisuseError(f"--cluster: {reason}")
    if plan.files:
        raise MisuseError(
            f"--cluster: cannot read files of this machine; got {', '.join(plan.files)} by "
            "--corpus, --lra-data or --hf-config"
        )


def with_all_cores(plan: Plan, there: Sequence[Node]) -> Plan:
    """Return the plan with as many threads as each of the machines has cores."""
    return replace(plan, threads=(max(1, min(node.cpus for node in there)),))


def run_on_cluster(
    plan: Plan,
    folder: Path,
    *,
    address: str,
    progress: ClusterProgress,
    kind: str | None = None,
    plugins: Sequence[Path] = (),
    resume: bool = False,
    command: Sequence[str] = (),
    threads_chosen: bool = True,
    benchmark_dir: Path | None = None,
) -> Summary:
    """Measure the plan on a cluster's machines and append every launch to the journal here.

    With a precision each machine answers the questions of what it measured, however long that
    takes: a budget is of one machine's time.

    Args:
        plan: the sweep; without backends, all that are registered.
        folder: the run's folder, of this machine.
        address: of the cluster, ``HOST:PORT``.
        progress: told what happens.
        kind: of GPU, or a resource's name: only machines that have it; ``None`` = all.
        plugins: files and folders of plug-ins, of this machine.
        resume: go on with the run in `folder`: launches that it holds are skipped.
        command: that began the sweep, without ``--resume`` and ``--out``: the run's plan has it.
        threads_chosen: whether the plan's threads were asked for; else they are all the cores
            that each of the machines has.
        benchmark_dir: the suites on the machines; ``None`` = those that are installed there.

    Raises:
        MisuseError: if the cluster, its machines or an option cannot be used.
        JournalError: if the folder cannot be used.
        LaunchError: if no machine is left that can start a case.
        OSError: if a record cannot be written; what is done is kept.
        KeyboardInterrupt: on Ctrl-C, after cleaning up.
        Terminated: on SIGTERM or SIGHUP, after cleaning up.
    """
    started = time.perf_counter()
    check_possible(plan)
    journal = Journal(folder, resume=resume)
    journal.check_free()
    # Ray's own handler of SIGTERM takes the place of the first one.
    with terminable(), connected(address), terminable():
        there = link.nodes(plan.device, kind)
        if not there:
            wanted = f"a GPU{f' of kind {kind}' if kind else ''}" if plan.device == "cuda" else (
                f"resource {kind}" if kind else "CPUs")  # fmt: skip
            raise MisuseError(
                f"--cluster: {address} has no machine with {wanted}; there are "
                f"{link.what_is_there()}"
            )
        if not threads_chosen:
            plan = with_all_cores(plan, there)
        files = PluginFiles(plugins).paths
        telling = Telling(progress)
        machines = Machines(plan, journal, files, telling, benchmark_dir, command)
        with contextlib.closing(machines):
            machines.go(lambda: link.nodes(plan.device, kind), len(there))
        return Summary(
            folder, telling.statuses, machines.skipped, time.perf_counter() - started,
            standing=telling.standing,
        )  # fmt: skip
