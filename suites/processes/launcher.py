"""Run one request in a child process, through asv's runner (`suites.processes.server`).

The child gets an environment without git or configuration, and limits that asv does not hold; and
nothing is left behind, no process (`suites.processes.reaper`), file or shared memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from suites.processes import reaper
from suites.processes.interpreter import EARLY_VARIABLE, Interpreter
from suites.processes.memory_guard import MemoryGuard
from suites.processes.outcome import Outcome, read_outcome
from suites.processes.server import LaunchError, Method, Server
from suites.processes.shared_memory import SharedMemoryJanitor

__all__ = ["LaunchError", "Launcher", "Method"]

RETAINED = {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}
"""glibc settings of the allocator ``retained``: freed memory stays with the process."""

APART = ("/bin/sh", "-c", 'exec 3<&0; "$0" "$@" <&3 3<&- &')
"""Starts a command with this standard input, and ends at once."""

BACKWARD = "torch.fx.experimental.symbolic_shapes"
"""What a first backward pass imports: a third of a second of its case."""

ROOM_BYTES = 1 << 20
"""With less than this, the folder of temporary files is full."""


class Launcher:
    """Runs requests, each in a process of its own; use it as a context manager.

    Args:
        benchmark_dir: the package that holds ``benchmarks.py``. Its parent folder comes first in
            the children's import path; the user's working directory is not in it.
        python: the interpreter of the children.
        early: modules that a fork server imports, once, before its first case.
        apart: start the reaper as nobody's child: somebody kills this process's children when it
            is ended, and the reaper with them.
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
        self._reaper: subprocess.Popen[bytes] | None = None
        self._servers: dict[str, Server] = {}

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
        if self._reaper is not None:  # last: an interrupt above leaves the work to it
            with contextlib.suppress(OSError):  # it may have been killed
                self._reaper.communicate(reaper.QUIET)
            self._reaper = None

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
            request: what the child is to do; see `suites.worker.run.answer`.
            timeout_s: after that many seconds the child is killed.
            allocator: the C allocator's policy in the child.
            method: fork from a server that has imported the suites, or start anew.

        Raises:
            LaunchError: if no server can be started.
            OSError: if the folder of temporary files cannot be written.
        """
        self._make_scratch()
        server = self._server(allocator, method)
        if "case" in request:
            server.import_early()
        folder = Path(tempfile.mkdtemp(dir=self._scratch.name))
        answer = folder / "answer.json"
        cwd = folder / "cwd"
        cwd.mkdir()
        shared = SharedMemoryJanitor()
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

    def _end_case(self, shared: SharedMemoryJanitor) -> None:
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

    def _start_reaper(self) -> None:
        """Start the process that cleans up after a driver that was killed."""
        command = [*reaper.command(sys.executable), self._token, self._scratch.name]
        self._reaper = subprocess.Popen(
            [*APART, *command] if self._apart else command,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd="/", env={}, start_new_session=True,
        )  # fmt: skip

    def _server(self, allocator: str, method: Method) -> Server:
        key = f"{method}:{allocator}"
        if self._reaper is None:
            self._start_reaper()
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
            server = Server(self._benchmark_dir, interpreter, scratch, method)
            self._servers[key] = server  # before it starts: an interrupt must find it
            server.start()
        return self._servers[key]
