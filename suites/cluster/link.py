"""All that is asked of a Ray cluster: its machines, and an actor on one of them."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.schema import Case
from suites.cluster.connection import first_line, ray_module
from suites.cluster.worker import Worker
from suites.processes.free_memory import memory_for_case
from suites.processes.outcome import Outcome
from suites.processes.server import IMPORT_TIMEOUT_S, WATCHDOG_S, Method

GRACE_S = IMPORT_TIMEOUT_S + 2 * WATCHDOG_S
"""Seconds beyond a request's own limit after which its machine counts as lost."""
LOOK_S = 30.0
"""How long a machine has to answer what takes no time."""

FRESH_S = 1.0
"""How long holds what was seen of a machine when a case ended."""

KIND = "accelerator_type:"
"""What Ray's resource that names a kind of GPU begins with."""


class LostError(RuntimeError):
    """A machine of the cluster went away, or can start no case; one line that says why."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, or its share around one of its GPUs.

    Attributes:
        node: Ray's id of it, new each time that it joins.
        name: what Ray calls it; an address unless it was given a name.
        cpus: processors that are the share's.
        gpus: GPUs that are the share's: 0 or 1.
        part: which share of the machine, from 0.
    """

    node: str
    name: str
    cpus: int
    gpus: int
    part: int = 0


# -- machines ------------------------------------------------------------------------------------


def nodes(device: str, kind: str | None) -> list[Node]:
    """Return the machines that are there now and have what is asked for.

    Args:
        device: ``cuda`` = a share for each GPU; ``cpu`` = each machine whole.
        kind: a GPU of this kind, or a resource of this name; ``None`` = any.

    Raises:
        LostError: if the cluster does not say, as when its head is gone.
    """
    shares: list[Node] = []
    for node in _every_node():
        resources = node["Resources"]
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        fits = kind is None or f"{KIND}{kind}" in resources or kind in resources
        if not node["Alive"] or not fits or not cpus:
            continue
        name = node.get("NodeName") or node["NodeManagerAddress"]
        if device == "cpu":
            shares.append(Node(node["NodeID"], name, cpus, 0))
        else:
            share = cpus // gpus if gpus else 0
            shares += [Node(node["NodeID"], name, share, 1, part) for part in range(gpus)]
    return sorted(shares, key=lambda one: (one.name, one.part))


def _every_node() -> list[dict[str, Any]]:
    """Return what Ray says of its nodes.

    Raises:
        LostError: if it does not.
    """
    ray = ray_module()
    try:
        answer: list[dict[str, Any]] = ray.nodes()
    except Exception as error:  # of its core, which has no kind of its own for it
        raise LostError(f"the cluster stopped answering: {first_line(error)}") from None
    return answer


def what_is_there() -> str:
    """Return in words which machines the cluster has."""
    alive = [node["Resources"] for node in _every_node() if node["Alive"]]
    kinds = sorted({key.removeprefix(KIND) for one in alive for key in one if KIND in key})
    gpus = int(sum(one.get("GPU", 0) for one in alive))
    named_resources = sorted(
        {
            key
            for one in alive
            for key in one
            if key not in ("CPU", "GPU", "memory", "object_store_memory") and ":" not in key
        }
    )
    named = f" ({', '.join(kinds)})" if kinds else ""
    others = f", resources {', '.join(named_resources)}" if named_resources else ""
    with_cpus = sum(one.get("CPU", 0) >= 1 for one in alive)
    return (
        f"{len(alive)} node{'s'[: len(alive) != 1]}, {with_cpus} with CPUs, {gpus} GPUs{named}"
        f"{others}"
    )


def mark_of(node: Node, gpus: str) -> str:
    """Return eight hexadecimal digits that tell a machine, or a GPU of it, from its like.

    Its name itself stays out of what is passed on.
    """
    name = f"{node.name} {gpus}" if node.gpus else node.name
    return hashlib.sha256(name.encode()).hexdigest()[:8]


class Remote:
    """A machine of the cluster, held for this driver alone until it is let go of.

    Args:
        node: which.
        stopped: says whether the sweep is over; nothing is waited for then.
        benchmark_dir: the suites there; ``None`` = those that are installed.
        plugins: files and folders of this machine, whose Python files are sent.
        early: modules that a fork server imports once.
    """

    def __init__(
        self,
        node: Node,
        *,
        stopped: Callable[[], bool],
        benchmark_dir: Path | None,
        plugins: Sequence[str],
        early: Sequence[str],
    ) -> None:
        ray = ray_module()
        self._stopped = stopped
        self._machine: Mapping[str, Any] = {}
        self._seen: tuple[float, int | None] = (0.0, None)
        self._seen_at = float("-inf")
        contents = [_contents(Path(plugin)) for plugin in plugins]
        self._actor = (
            ray.remote(Worker)
            .options(
                num_cpus=node.cpus, num_gpus=node.gpus, max_restarts=0, max_task_retries=0,
                scheduling_strategy=on(node),
            )
            .remote(None if benchmark_dir is None else str(benchmark_dir), contents, list(early))
        )  # fmt: skip

    def ready(self) -> tuple[str, int]:
        """Wait until the machine is free for this driver; return its GPUs and its niceness.

        Raises:
            LostError: if it goes away first.
        """
        gpus, niceness = got(self._actor.ready.remote(), None, self._stopped)
        return str(gpus), int(niceness)

    def meet(self, machine: Mapping[str, Any]) -> None:
        """Take note of what the machine is."""
        self._machine = machine

    def look(self, case: Case) -> tuple[float, int | None]:
        """Return the machine's load, and the bytes that a case may have.

        What was seen when the last case ended holds for the next that follows at once: nobody
        else is there.
        """
        if time.monotonic() - self._seen_at > FRESH_S:
            self._see(got(self._actor.look.remote(), LOOK_S, self._stopped))
        load, free = self._seen
        return load, memory_for_case(case, self._machine) if case.device == "cuda" else free

    def _see(self, seen: tuple[float, int | None]) -> None:
        self._seen, self._seen_at = seen, time.monotonic()

    def ask(
        self,
        request: Mapping[str, Any],
        *,
        timeout_s: float,
        allocator: str = "default",
        method: Method = "forkserver",
    ) -> Outcome:
        """Run one request there to its end, as a `Launcher` does.

        Raises:
            LostError: if the machine went away meanwhile, or can start nothing.
        """
        local = ("plugins", "store", "traces", "lock", "heartbeat")  # paths of this machine
        sent = {key: value for key, value in request.items() if key not in local}
        answer = self._actor.ask.remote(sent, timeout_s, allocator, method)
        outcome, seen = got(answer, timeout_s + GRACE_S, self._stopped)
        self._see(seen)
        if isinstance(outcome, str):
            raise LostError(f"it cannot start cases: {outcome}")
        assert isinstance(outcome, Outcome)
        return outcome

    def end(self) -> None:
        """Kill the actor; with it go its children."""
        with contextlib.suppress(Exception):  # Ray has many names for what is gone already
            ray_module().kill(self._actor)

    def close(self) -> None:
        """Let the machine go in order."""
        with contextlib.suppress(Exception):
            ray_module().get(self._actor.close.remote(), timeout=LOOK_S)
        self.end()


def _contents(plugin: Path) -> dict[str, bytes]:
    """Return a plug-in's Python files by their paths from the folder that it lies in."""
    files = sorted(plugin.rglob("*.py")) if plugin.is_dir() else [plugin]
    return {str(file.relative_to(plugin.parent)): file.read_bytes() for file in files}


def on(node: Node) -> Any:
    """Return Ray's word for: there, or nowhere."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node.node, soft=False)


def got(reference: Any, seconds: float | None, stopped: Callable[[], bool]) -> Any:
    """Wait for an answer.

    Raises:
        LostError: if its machine went away, or does not answer in time, or the sweep is over.
    """
    ray = ray_module()
    left = float("inf") if seconds is None else seconds
    try:
        while left > 0 and not stopped():
            some = min(left, 1.0)
            try:
                return ray.get(reference, timeout=some)
            except ray.exceptions.GetTimeoutError:
                left -= some
    except ray.exceptions.RayTaskError as error:
        raise LostError(f"the worker failed: {first_line(error.cause or error)}") from None
    except ray.exceptions.RayError as error:
        raise LostError(_why(error)) from None
    if stopped():
        raise LostError("the sweep is over")
    raise LostError(f"it did not answer within {seconds:g} s")


def _why(error: BaseException) -> str:
    """Return in one line what Ray says of something that is gone."""
    text = str(error)
    if "node has died" in text:
        return "its node died"
    if "ModuleNotFoundError" in text:
        return "attnbench cannot be imported by Ray's workers there"
    for line in reversed(text.splitlines()):
        if "Error" in line:
            return line.strip()[:300]
    return "its worker died" if "died" in text else first_line(error)
