"""The side of a sweep that runs on a machine of the cluster: a launcher, and folders of its own.

An actor of Ray holds it, and dies with the driver; the launcher's children die with the actor.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suites.engine.session import SUITES
from suites.processes.free_memory import MEMORY_SHARE, free_memory
from suites.processes.launcher import Launcher, LaunchError, Method
from suites.processes.outcome import Outcome, scrub

OF_RAY = ("OMP_NUM_THREADS", "PYTHONBREAKPOINT")
"""Variables that Ray sets in its workers, which a case would inherit."""


class Worker:
    """Runs the requests of a driver on its machine; one at a time.

    Args:
        benchmark_dir: the suites; ``None`` = those that are installed here.
        plugins: of each, its Python files: path below the plug-in's place to content.
        early: modules that a fork server imports once.
    """

    def __init__(
        self,
        benchmark_dir: str | None,
        plugins: Sequence[Mapping[str, bytes]],
        early: Sequence[str],
    ) -> None:
        for name in OF_RAY:
            os.environ.pop(name, None)
        with contextlib.suppress(OSError):  # Ray has its workers give way to everybody else
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        folder = SUITES if benchmark_dir is None else Path(benchmark_dir)
        self._launcher = Launcher(folder, early=early, apart=True)  # Ray kills its children
        root = self._launcher.scratch  # its reaper removes that, however this process ends
        self._store = root / "store"
        self._plugins: list[str] = []
        for number, contents in enumerate(plugins):
            place = root / f"plugin-{number}"
            for name, content in contents.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content)
            self._plugins += [str(place / name) for name in {Path(n).parts[0] for n in contents}]

    def ready(self) -> tuple[str, int]:
        """Return which GPUs this process sees, as CUDA names them, and its niceness."""
        return os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.nice(0)

    def look(self) -> tuple[float, int | None]:
        """Return the machine's load, and the bytes of its memory that a case may have."""
        return os.getloadavg()[0], int(MEMORY_SHARE * free_memory())

    def ask(
        self, request: Mapping[str, Any], timeout_s: float, allocator: str, method: Method
    ) -> tuple[Outcome | str, tuple[float, int | None]]:
        """Run one request to its end, and look at the machine then.

        A text in place of an outcome says why this machine can start none.

        Paths of the driver's machine mean nothing here: these are the machine's own.
        """
        asked = {**request, "plugins": self._plugins}
        if request["do"] == "case":
            asked |= {"store": str(self._store), "traces": str(self._store), "lock": None}
            asked.pop("heartbeat", None)
        try:
            outcome: Outcome | str = self._launcher.ask(
                asked, timeout_s=timeout_s, allocator=allocator, method=method
            )
        except (LaunchError, OSError) as error:
            outcome = scrub(f"{type(error).__name__}: {error}")
        return outcome, self.look()

    def close(self) -> None:
        """Stop the launcher's servers and remove the folder."""
        self._launcher.close()
