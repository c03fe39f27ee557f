"""The Python that asv starts its servers and cases with: its surroundings, its limits, its end."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from suites.processes.outcome import OUTPUT_LIMIT, TAIL_BYTES, TIMEOUT_CODE
from suites.processes.processors import DRIVER_VARIABLE

EARLY_VARIABLE = "ATTNBENCH_EARLY"
"""Names to a fork server, apart by spaces, the modules to import at `IMPORT_SIGNAL`; those of a
package that the suites have not imported are left out."""

IMPORT_SIGNAL = signal.SIGUSR1
"""Has a fork server import what its cases need, after what its first answers do not wait for."""

SOCKET_FOLDER_LENGTH = 107 - len("/asv-forkserver-12345678/socket")
"""The most bytes of a path in which asv's socket still has a valid name."""

_GUARD = """
import ctypes, importlib, os, runpy, signal, sys, traceback
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(os.environ["ATTNBENCH_DRIVER_PID"]):
    os._exit(1)
def _import(*_):
    for name in os.environ.get("ATTNBENCH_EARLY", "").split():
        if name.partition(".")[0] in sys.modules:
            importlib.import_module(name)
signal.signal(signal.SIGUSR1, _import)
sys.argv = sys.argv[1:]
code = 1
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
    code = 0
except SystemExit as end:
    code = end.code & 255 if isinstance(end.code, int) else int(end.code is not None)
except BaseException:
    traceback.print_exc()
finally:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    os._exit(code)
"""
# Asks for SIGKILL at the driver's end (PR_SET_PDEATHSIG) before anything else runs, so that
# there is no moment at which a killed driver leaves a server behind. The process ends with its
# main thread, as a forked case does: threads that a case left running hold nothing up.


class Interpreter:
    """What asv's runner asks of an environment: variables, and a way to run the interpreter."""

    def __init__(self, python: str, root: Path, variables: Mapping[str, str], cwd: Path) -> None:
        self._command = [python, "-P", "-c", _GUARD]
        self._cwd = cwd
        self.process: subprocess.Popen[bytes] | None = None
        self.env_vars = {
            "ASV_PYTHONPATH": str(root),
            DRIVER_VARIABLE: str(os.getpid()),
            # Else asking whether there is a GPU would initialise CUDA before the fork.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
            **variables,
        }

    def run(self, args: list[str], **options: Any) -> Any:
        """Start a process in a group of its own; with ``return_popen`` asv waits for it."""
        env = {k: v for k, v in options["env"].items() if not k.startswith("MALLOC_")}
        env.update(self.env_vars)
        popen: dict[str, Any] = {"env": env, "stdin": subprocess.DEVNULL, "process_group": 0}
        if options.get("return_popen"):
            self.process = subprocess.Popen(
                [*self._command, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                cwd=self._cwd, **popen,
            )  # fmt: skip
            _limit_files(self.process.pid)
            return self.process
        with tempfile.TemporaryFile(dir=self._cwd) as output:
            self.process = subprocess.Popen(
                [*self._command, *args], stdout=output, stderr=subprocess.STDOUT,
                cwd=options["cwd"], **popen,
            )  # fmt: skip
            _limit_files(self.process.pid)
            try:
                code = self.process.wait(options["timeout"])
            except subprocess.TimeoutExpired:
                code = TIMEOUT_CODE
            finally:
                self.kill()
            output.seek(max(0, output.seek(0, os.SEEK_END) - 2 * TAIL_BYTES))
            return output.read().decode("utf-8", "replace"), "", code

    def kill(self) -> None:
        """Kill the process and its whole group, and wait for its end."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None  # its number may be another's from now on


def _limit_files(pid: int) -> None:
    """Bound the size of every file that a process and its children write.

    The bound is the soft one: where a trained model is kept, it is lifted for that long
    (`suites.measure.process.large_files`).
    """
    if sys.platform == "linux":
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        soft = OUTPUT_LIMIT if hard == resource.RLIM_INFINITY else min(OUTPUT_LIMIT, hard)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def folders_in(scratch: Path) -> Iterator[None]:
    """Have asv make the folder of its socket in ours, which goes even if this process is killed.

    Where the path would be too long for a socket, asv's own choice stands.
    """
    before = tempfile.tempdir
    if len(os.fsencode(scratch)) <= SOCKET_FOLDER_LENGTH:
        tempfile.tempdir = str(scratch)
    try:
        yield
    finally:
        tempfile.tempdir = before
