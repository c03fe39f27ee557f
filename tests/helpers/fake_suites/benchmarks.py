"""Answers the driver's requests as the real suites do; the arm's name says what happens."""

import ctypes
import fcntl
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from asv_runner.benchmarks import benchmark_types
from asv_runner.benchmarks._base import Benchmark

from results.schema import MEASUREMENT, Case

NAMES = ["linear", "quadratic"]


class _Asked(Benchmark):
    name_regex = re.compile("^measure_.+$")

    def __init__(self, name, func, attr_sources):
        super().__init__(name, func, attr_sources)
        self.type, self.unit = "time", "seconds"

    def run(self):
        request = next(s.request for s in self._attr_sources if hasattr(s, "request"))
        return self.func(request)


if not any(kind.__name__ == "_Asked" for kind in benchmark_types):
    benchmark_types.append(_Asked)


class Driven:
    def measure_request(self, request):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        do = {"preflight": preflight, "case": case, "environment": environment}[request["do"]]
        return {"samples": [0.0], "number": 1, "record": do(request)}


def environment(request):
    """What the child sees: for the tests of the launcher."""
    return {
        "malloc": {k: v for k, v in os.environ.items() if k.startswith("MALLOC_")},
        "path": sys.path,
        "cwd": str(Path.cwd()),
        "parent": os.getppid(),
        "group": os.getpgrp(),
        "models": _origin("models"),
        "early": "json.tool" in sys.modules,
    }


def _origin(name):
    import importlib.util

    return importlib.util.find_spec(name).origin


def preflight(request):
    told = {}
    for data in request["cases"]:
        one = Case.from_json(data)
        arm = one.arms[0]
        known = one.kind in ("roof", "sentinel", "sorting") or arm.name in (
            *NAMES,
            *BEHAVIOURS,
            "unsupported",
        )
        told[one.id] = {
            "misuse": None if known else f"name: no backend {arm.name!r}; there are {NAMES}",
            "unsupported": ["device: not here"] if arm.name == "unsupported" else [],
            "cost": [_cost(a.name, one.seq_len) for a in one.arms],
            "time_exponent": 2.0 if arm.name == "quadratic" else 1.0,
            "memory_exponent": 2.0 if arm.name == "quadratic" else 1.0,
        }
    return {
        "measurement": MEASUREMENT,
        "machine": {"cpu": "a stand-in", "cores": 2, "ram_bytes": 1 << 30, "gpu": None,
                    "gpu_memory_bytes": None},
        "environment": {"attnbench": "0", "torch": "none"} | _plugins(request),
        "names": NAMES,
        "cases": told,
    }  # fmt: skip


def _plugins(request):
    found = {}
    for path in map(Path, request["plugins"]):
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        found[path.name] = "".join(file.read_text() for file in files)
    return {"plugins": found} if found else {}


def _cost(name, seq_len):
    ops = seq_len**2 if name == "quadratic" else 1000 * seq_len
    return {"pattern_ops": ops, "executed_ops": ops, "exponentials": 0, "bytes": seq_len}


def case(request):
    if request.get("lock"):
        lock = os.open(request["lock"], os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_SH)
    one = Case.from_json(request["case"])
    if one.kind == "roof":
        units = {"matmul_rate": "op/s", "exp_rate": "op/s", "bandwidth": "B/s"}
        rates = {name: {"unit": unit, "samples": [1e9]} for name, unit in units.items()}
        return _ok([{"metrics": rates}])
    if one.kind == "sentinel":
        return _ok([{"metrics": {"latency": {"unit": "s", "samples": [1e-3] * 8}}}])
    behaviour = BEHAVIOURS.get(one.arms[0].name)
    ended = behaviour(one, request) if behaviour else None
    if ended is not None:
        return ended
    arms = [_arm(arm, one) for arm in one.arms]
    if request.get("profile"):
        arms[0]["profile"] = _profile(arms[0]["metrics"]["latency"]["samples"][0])
    return _ok(arms)


def _profile(seconds):
    """Three quarters of a call are copies."""
    parts = {
        "copies": {"seconds": 0.75 * seconds, "calls": 3, "operations": None},
        "between": {"seconds": 0.25 * seconds, "calls": 0, "operations": None},
    }
    return {"calls": 3, "seconds": seconds, "parts": parts, "products": []}


def _arm(arm, one):
    """Latency and memory by a formula of the length, so that a test knows what to expect."""
    power = 2 if arm.name == "quadratic" else 1
    scale = float(arm.options.get("seconds", 1e-6))
    # Not by a seed: children of one fork server would all draw the same.
    scale *= math.exp(random.SystemRandom().gauss(0, float(arm.options.get("scatter", 0))))
    return {
        "kernel": arm.name,
        "gate": None,
        "cost": _cost(arm.name, one.seq_len),
        "metrics": {
            "latency": {"unit": "s", "samples": [scale * one.seq_len**power] * 3, "cache": "warm"},
            "peak_memory": {"unit": "B", "value": int(1024 * one.seq_len**power)},
        },
    }


def _ok(arms):
    return {"status": "ok", "reason": None, "arms": arms}


# -- behaviours ---------------------------------------------------------------------------------


def _sleeps(one, request):
    """Sleep `seconds`; of `length` alone, and no longer than until a file `until` is there."""
    options = one.arms[0].options
    if one.seq_len != options.get("length", one.seq_len):
        return
    pause = float(os.environ.get("TEST_PAUSE", options.get("seconds", 0.3)))
    if "until" not in options:
        time.sleep(pause)
        return
    end = time.monotonic() + pause
    while time.monotonic() < end and not Path(options["until"]).exists():
        time.sleep(0.05)


def _hangs(one, request):
    """Hang without heeding SIGTERM, with a child of its own, and tell who they are."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1000"])
    where = one.arms[0].options.get("pids")
    if where:
        Path(where).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(1000)


def _leaves_child(one, request):
    child = subprocess.Popen(["sleep", "1000"])
    Path(one.arms[0].options["pids"]).write_text(f"{os.getpid()} {child.pid}")


def _raises(one, request):
    raise RuntimeError(f"no luck at {one.seq_len}, in {Path.home()}")


def _segfaults(one, request):
    sys.stderr.write("about to read address 0\n")
    sys.stderr.flush()
    ctypes.string_at(0)


def _is_killed(one, request):
    os.kill(os.getpid(), signal.SIGKILL)


def _exits(one, request):
    os._exit(7)


def _kills_server(one, request):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(1000)


def _stops_server(one, request):
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(1000)


def _prints(one, request):
    for number in range(200_000):
        sys.stdout.write(f"line {number:06d} of a case that talks a lot\n")
    sys.stdout.flush()
    return {"status": "failed", "reason": "said enough", "arms": []}


def _prints_for_ever(one, request):
    while True:
        sys.stdout.write("more and more and more and more\n" * 1000)


def _prints_bytes(one, request):
    """Megabytes without a line's end, no UTF-8, on both streams."""
    for _ in range(30):
        os.write(1, b"\xff\xfe\x00\xc3" * 25_000)
        os.write(2, b"\xe2\x28\xa1 " * 25_000)
    return {"status": "failed", "reason": "said enough", "arms": []}


def _hangs_printing(one, request):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for number in range(1_000_000):
        sys.stdout.write(f"still here {number}\n")
        sys.stdout.flush()
        time.sleep(0.001)


def _dies(one, request):
    os.write(1, b"last words\n")
    signal.signal(int(one.arms[0].options["signal"]), signal.SIG_DFL)
    os.kill(os.getpid(), int(one.arms[0].options["signal"]))
    time.sleep(1000)


def _leaves_daemon(one, request):
    """Leave a process that is in no group, session or family of the case's."""
    where = one.arms[0].options.get("pids")
    if os.fork():
        end = time.monotonic() + 10
        while where and not Path(where).exists() and time.monotonic() < end:
            time.sleep(0.01)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if where:
        made = Path(f"{where}.new")
        made.write_text(f"{os.getpid()} {child.pid}")
        made.rename(where)
    time.sleep(1000)


def _hangs_with_daemon(one, request):
    _leaves_daemon(one, request)
    time.sleep(1000)


def _exits_content(one, request):
    os.write(1, b"thank you\n")
    os._exit(0)


def _exits_by_exception(one, request):
    raise SystemExit(0)


def _interrupts_itself(one, request):
    raise KeyboardInterrupt


def _writes_answer(one, request):
    """Put something in the answer's place and leave."""
    place, what = Path.cwd().parent / "answer.json", one.arms[0].options["what"]
    if what == "torn":
        place.write_text('{"record": {"status": "o')
    elif what == "pipe":
        os.mkfifo(place)
    os._exit(0)


def _closes_streams(one, request):
    for descriptor in (0, 1, 2):
        os.close(descriptor)


def _removes_folders(one, request):
    """Remove the working folder and all that is above it and the launcher's."""
    shutil.rmtree(Path.cwd().parent.parent)


def _moves(one, request):
    os.chdir("/")


def _leaves_threads(one, request):
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(1000,)).start()


def _stops_itself(one, request):
    os.kill(os.getpid(), signal.SIGSTOP)


def _leaves_files(one, request):
    Path("sub").mkdir()
    Path("sub/large").write_bytes(bytes(1 << 20))
    Path(one.arms[0].options["where"]).write_text(str(Path.cwd()))


def _fills_shared_memory(one, request):
    """Fill shared memory from a child, until something ends it or 60 MiB are taken."""
    name = Path(f"/dev/shm/{one.arms[0].options['segment']}")
    if not os.fork():
        with name.open("wb") as file:
            for _ in range(60):
                file.write(bytes(1 << 20))
                file.flush()
                time.sleep(0.02)
            time.sleep(1000)
    time.sleep(1000)


def _leaves_shared_memory(one, request):
    Path(f"/dev/shm/torch_{os.getpid()}_{one.arms[0].options['segment']}").write_bytes(bytes(4096))
    Path(f"/dev/shm/{one.arms[0].options['segment']}").write_bytes(bytes(4096))
    time.sleep(0.7)


def _fills_gpu(one, request):
    """Take GPU memory, also in a process that goes on; tell what was free before."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(int(one.arms[0].options["bytes"]), dtype=torch.uint8, device="cuda")
    code = (
        "import torch, time, sys; from pathlib import Path;"
        f"x = torch.empty({held.numel()}, dtype=torch.uint8, device='cuda');"
        "Path(sys.argv[1]).write_text('held'); time.sleep(1000)"
    )
    where = Path(one.arms[0].options["where"])
    where.unlink(missing_ok=True)
    subprocess.Popen([sys.executable, "-c", code, str(where)], start_new_session=True)
    while not where.exists():
        time.sleep(0.05)
    answer = _ok([_arm(one.arms[0], one)])
    answer["arms"][0]["metrics"]["peak_memory"]["value"] = free
    return answer


def _says_plugins(one, request):
    there = [Path(name).is_file() for name in request["plugins"]]
    raise RuntimeError(f"given {request['plugins']}, which are there: {there}")


def _answers_nonsense(one, request):
    return {"status": "splendid", "arms": []}


def _answers_nan(one, request):
    answer = _ok([_arm(one.arms[0], one)])
    answer["arms"][0]["metrics"]["latency"]["samples"] = [float("nan")]
    return answer


def _out_of_memory(one, request):
    """Say so, in words of its own, and claim to be another run's."""
    sys.stderr.write("asking for 9 GiB\n")
    reason = "could not allocate 9 GiB"
    return {"status": "out_of_memory", "reason": reason, "arms": [], "run": "x"}


def _times_out(one, request):
    time.sleep(request["deadline_s"])
    return {"status": "timeout", "reason": "exceeded the time limit", "arms": []}


BEHAVIOURS = {
    name.removeprefix("_"): function
    for name, function in list(globals().items())
    if name in (
        "_sleeps", "_hangs", "_leaves_child", "_raises", "_segfaults", "_is_killed", "_exits",
        "_kills_server", "_stops_server", "_prints", "_prints_for_ever", "_answers_nonsense",
        "_answers_nan", "_out_of_memory", "_times_out", "_prints_bytes", "_hangs_printing",
        "_dies", "_leaves_daemon", "_hangs_with_daemon", "_exits_content", "_exits_by_exception",
        "_interrupts_itself", "_writes_answer", "_closes_streams", "_removes_folders", "_moves",
        "_leaves_threads", "_stops_itself", "_leaves_files",
        "_says_plugins", "_fills_shared_memory", "_leaves_shared_memory", "_fills_gpu",
    )
}  # fmt: skip
