"""One of asv's launchers under a watchdog: the only file that knows asv's inside.

asv's fork server imports the suites once and forks a child per request; its spawner starts a new
interpreter each time, which CUDA needs. Both take arbitrary JSON as the child's parameters and
leave the answer in a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from suites.processes.interpreter import IMPORT_SIGNAL, Interpreter, folders_in
from suites.processes.outcome import tail
from suites.processes.shared_memory import SharedMemoryJanitor

ENTRY = "benchmarks.Driven.measure_request"
"""The benchmark that answers every request, in the folder given to `Launcher`."""

Method = Literal["forkserver", "spawn"]

IMPORT_TIMEOUT_S = 300.0

WATCHDOG_S = 10.0
"""How long asv may be late with its own timeout before the whole process group is killed."""

MOST_OUTPUT = 4 << 20
"""Characters of output after which a server is replaced."""


class LaunchError(RuntimeError):
    """The suites cannot be started at all; the message holds what they printed."""


class Server:
    """One of asv's launchers, with a policy of the allocator, and a watchdog over it."""

    def __init__(
        self, folder: Path, interpreter: Interpreter, scratch: Path, method: Method
    ) -> None:
        self._interpreter = interpreter
        self._scratch = scratch
        self._folder = folder
        self._method = method
        self._asv: Any = None
        self._has_early = method == "spawn"
        self.alive = True

    @property
    def server(self) -> int | None:
        """The process that outlives a case; ``None`` under spawn, or when it does not run."""
        process = self._interpreter.process
        return process.pid if process is not None and self._method == "forkserver" else None

    def introduce(self, shared: SharedMemoryJanitor) -> None:
        """Tell of the case's processes, as long as they live."""
        process = self._interpreter.process
        if process is not None:
            shared.meet(process.pid, itself=self._method == "spawn")

    def start(self) -> None:
        """Start asv's side and import the suites.

        Raises:
            LaunchError: if that fails.
        """
        from asv import runner  # not at start-up: only a sweep needs it

        if self._method == "spawn":
            self._asv = runner.Spawner(self._interpreter, str(self._folder))
            return
        try:
            with self._watchdog(IMPORT_TIMEOUT_S), folders_in(self._scratch):
                self._asv = runner.ForkServer(self._interpreter, str(self._folder))
                imported, out = self._asv.preimport()
        except RuntimeError as error:
            raise LaunchError(f"asv's fork server did not start: {error}") from None
        if not imported:
            raise LaunchError(f"the suites in {self._folder} cannot be imported: {tail(out)}")

    def import_early(self) -> None:
        """Have the server import, once, what is named in `EARLY_VARIABLE`.

        Raises:
            LaunchError: if it ends over it.
        """
        if self._has_early:
            return
        self._has_early = True
        process = self._interpreter.process
        if process is None:
            return
        with self._watchdog(IMPORT_TIMEOUT_S), contextlib.suppress(ProcessLookupError):
            process.send_signal(IMPORT_SIGNAL)
            imported, out = self._asv.preimport()  # answered when the imports are done
            if not imported:
                raise LaunchError(f"modules that the cases need cannot be imported: {tail(out)}")

    def run(
        self, request: Mapping[str, Any], answer: Path, cwd: Path, timeout_s: float
    ) -> tuple[str, int | None, bool]:
        """Return the child's output, its exit code (``None``: server gone), and if killed late."""
        with self._watchdog(timeout_s + WATCHDOG_S) as barked:
            try:
                out, code = self._asv.run(
                    name=ENTRY,
                    params_str=json.dumps({"request": request}),
                    profile_path="None",
                    result_file_name=str(answer),
                    timeout=timeout_s,
                    cwd=str(cwd),
                )
            except Exception as error:  # asv has no one type for a server that went away
                self.alive = False
                return str(error), None, barked.is_set()
        # What a child printed lies in the memory of a server, which later cases inherit.
        self.alive = len(out) <= MOST_OUTPUT
        return out, code, False

    def reachable(self) -> bool:
        """Say whether the server's socket is there: a case may have removed it."""
        if self._method == "spawn":
            return True
        return self._asv is not None and Path(self._asv.socket_name).exists()

    @contextlib.contextmanager
    def _watchdog(self, seconds: float) -> Iterator[threading.Event]:
        """Kill the whole group if the block is still waiting after `seconds`."""
        barked = threading.Event()

        def bark() -> None:
            barked.set()
            if self._interpreter.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._interpreter.process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, bark)
        timer.daemon = True
        timer.start()
        try:
            yield barked
        finally:
            timer.cancel()

    def close(self) -> None:
        """Kill the server and its children, and remove what asv laid down."""
        self._interpreter.kill()
        if self._asv is not None:
            self._asv.interrupt()  # else it prints what the server printed
            with contextlib.suppress(OSError):  # its folder may be gone
                self._asv.close()
