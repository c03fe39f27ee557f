"""Run one request in a child process through asv's runner: the only file that knows asv's inside.

asv's fork server imports the suites once and forks a child per request; its spawner starts a new
interpreter each time, which CUDA needs. Both take arbitrary JSON as the child's parameters and
leave the answer in a file. This module gives them an environment without git or configuration,
holds the limits that asv does not, and never leaves a process behind (`suites.processes.reaper`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from results.schema import SENTINEL
from suites.processes import reaper
from suites.processes.interpreter import EARLY_VARIABLE, IMPORT_SIGNAL, Interpreter, folders_in
from suites.processes.memory_guard import MemoryGuard
from suites.processes.outcome import Outcome, read_outcome, tail
from suites.processes.shared_memory import SharedMemory

ENTRY = "benchmarks.Driven.measure_request"
"""The benchmark that answers every request, in the folder given to `Launcher`."""

Method = Literal["forkserver", "spawn"]

RETAINED = {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}
"""glibc settings of the allocator ``retained``: freed memory stays with the process."""

APART = ("/bin/sh", "-c", 'exec 3<&0; "$0" "$@" <&3 3<&- &')
"""Starts a command with this standard input, and ends at once."""

BACKWARD = "torch.fx.experimental.symbolic_shapes"
"""What a first backward pass imports: a third of a second of its case."""

IMPORT_TIMEOUT_S = 300.0
WATCHDOG_S = 10.0
"""How long asv may be late with its own timeout before the whole process group is killed."""

MOST_OUTPUT = 4 << 20
"""Characters of output after which a server is replaced."""

ROOM_BYTES = 1 << 20
"""With less than this, the folder of temporary files is full."""


class LaunchError(RuntimeError):
    """The suites cannot be started at all; the message holds what they printed."""


class Launcher:
    """Runs requests, each in a process of its own; use it as a context manager.

    Args:
        benchmark_dir: the package that holds ``benchmarks.py``. Its parent folder comes first in
            the children's import path; the user's working directory is not in it.
        python: the interpreter of the children.
        early: modules that a fork server imports, once, before its first case but the sentinel.
        apart: start the keeper as nobody's child: somebody kills this process's children when it
            is ended, and the keeper with them.
    """

    def __init__(
        self,
        benchmark_dir: Path,
        *,
        python: str = sys.executable,
        early: Sequence[str] = (),
        apart: bool = False,
    ) -> None:
        self._apart = apart
        self._benchmark_dir = benchmark_dir.resolve()
        self._python = python
        self._early = tuple(early)
        self._token = secrets.token_hex(16)
        self._scratch = tempfile.TemporaryDirectory(
            prefix="attnbench-", ignore_cleanup_errors=True
        )
        self._keeper: subprocess.Popen[bytes] | None = None
        self._servers: dict[str, _Server] = {}

    @property
    def scratch(self) -> Path:
        """The folder of temporary files, which goes with the launcher even if it is killed."""
        return Path(self._scratch.name)

    def __enter__(self) -> Launcher:
        """Return the launcher; its servers start when they are first needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Stop every server and whatever it started."""
        while self._servers:
            self._servers.popitem()[1].close()
        reaper.kill_marked(self._token)
        self._scratch.cleanup()
        if self._keeper is not None:  # last: an interrupt above leaves the work to it
            with contextlib.suppress(OSError):  # it may have been killed
                self._keeper.communicate(reaper.QUIET)
            self._keeper = None

    def ask(
        self,
        request: Mapping[str, Any],
        *,
        timeout_s: float,
        allocator: str = "default",
        method: Method = "forkserver",
    ) -> Outcome:
        """Run one request to its end, whatever that is.

        Args:
            request: what the child is to do; see ``suites/kinds``.
            timeout_s: after that many seconds the child is killed.
            allocator: the C allocator's policy in the child.
            method: fork from a server that has imported the suites, or start anew.

        Raises:
            LaunchError: if no server can be started.
            OSError: if the folder of temporary files cannot be written.
        """
        self._make_scratch()
        server = self._server(allocator, method)
        if request.get("case", {}).get("kind", SENTINEL) != SENTINEL:
            server.import_early()
        folder = Path(tempfile.mkdtemp(dir=self._scratch.name))
        answer = folder / "answer.json"
        cwd = folder / "cwd"
        cwd.mkdir()
        shared = SharedMemory()
        guard = MemoryGuard(lambda: self._end_case(shared), lambda: server.introduce(shared))
        started = time.perf_counter()
        with guard:
            out, code, late = server.run(request, answer, cwd, timeout_s)
        wall = time.perf_counter() - started
        if not server.alive:
            self._servers.pop(f"{method}:{allocator}").close()
        self._end_case(shared)
        outcome = read_outcome(answer, out, code, late, timeout_s, wall)
        shutil.rmtree(folder, ignore_errors=True)  # else it goes with the scratch folder
        unowned = shared.clear()
        if outcome.record is None:
            if guard.reason is not None:
                left = f"; new in shared memory, and left there: {', '.join(unowned[:3])}"
                reason = guard.reason + (left if unowned else "")
                return replace(outcome, status="out_of_memory", reason=reason)
            self._check_room()
        return outcome

    def _end_case(self, shared: SharedMemory) -> None:
        """Kill what belongs to the case: all that carries the run's mark, but the servers."""
        servers = {s.server for s in self._servers.values() if s.server is not None}
        if strays := set(reaper.marked(self._token)) - servers:
            shared.note(strays)
            reaper.kill_marked(self._token, servers)

    def _make_scratch(self) -> None:
        """Make sure that the folder of temporary files is there: a case may have removed it."""
        Path(self._scratch.name).mkdir(mode=0o700, exist_ok=True)

    def _check_room(self) -> None:
        """Take note when it is no fault of a case that it left no answer.

        Raises:
            OSError: if the folder of temporary files is full, though the case's own are gone.
        """
        self._make_scratch()
        room = os.statvfs(self._scratch.name)
        if room.f_bavail * room.f_frsize < ROOM_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._scratch.name)

    def _start_keeper(self) -> None:
        """Start the process that cleans up after a driver that was killed."""
        command = [*reaper.command(sys.executable), self._token, self._scratch.name]
        self._keeper = subprocess.Popen(
            [*APART, *command] if self._apart else command,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd="/", env={}, start_new_session=True,
        )  # fmt: skip

    def _server(self, allocator: str, method: Method) -> _Server:
        key = f"{method}:{allocator}"
        if self._keeper is None:
            self._start_keeper()
        if key in self._servers and not self._servers[key].reachable():
            self._servers.pop(key).close()
        if key not in self._servers:
            variables = RETAINED if allocator == "retained" else {}
            if method == "forkserver":
                variables = {**variables, EARLY_VARIABLE: " ".join(self._early)}
            scratch = Path(self._scratch.name)
            interpreter = Interpreter(
                self._python,
                self._benchmark_dir.parent,
                {reaper.VARIABLE: self._token, **variables},
                scratch,
            )
            server = _Server(self._benchmark_dir, interpreter, scratch, method)
            self._servers[key] = server  # before it starts: an interrupt must find it
            server.start()
        return self._servers[key]


class _Server:
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

    def introduce(self, shared: SharedMemory) -> None:
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
                raise LaunchError(f"what the cases need cannot be imported: {tail(out)}")

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
