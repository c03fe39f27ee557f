"""Measure what a sweep over a cluster costs beyond its cases; a program, on logical nodes.

    python tests/programs/measure_cluster.py overhead   # 1, 2 and 4 nodes, a process a case
    python tests/programs/measure_cluster.py many       # 100,000 launches, answered at once

Both go the way of every sweep: one launch at a time on each machine, a call of Ray each, the
record synced to the disk before the next. What came out is kept in results/reference/cluster, and
docs/build_measured.py puts it into docs/cluster.md.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[2]
os.environ |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/helpers'}", "RAY_USAGE_STATS_ENABLED": "0",
               "RAY_worker_niceness": "0"}  # fmt: skip

from helpers_sweep import FAKE_SUITES  # noqa: E402 (Ray's workers inherit what is set above)

from results.schema import MEASUREMENT, Arm  # noqa: E402
from suites.cluster import link  # noqa: E402
from suites.cluster.sweep import run_on_cluster  # noqa: E402
from suites.cluster.worker import Worker  # noqa: E402
from suites.engine.driver import run_sweep  # noqa: E402
from suites.plan import plan_sweep  # noqa: E402
from suites.processes.outcome import Outcome  # noqa: E402

HOST = "127.0.0.2"
KEPT = ROOT / "results" / "reference" / "cluster"
LAUNCHES = 100_000


class Watch:
    """Notes how long each launch took beyond what its own machine says, and the memory."""

    def __init__(self):
        self.beyond, self.memory, self.count = [], {}, 0
        self._since = {}

    def begin(self, folder, total, done, notices):
        self.begun = time.perf_counter()

    def starting(self, item):
        self._since[threading.get_ident()] = time.perf_counter()

    def finished(self, record, remaining_s):
        took = time.perf_counter() - self._since[threading.get_ident()]
        self.count += 1
        if self.count <= 10_000:
            self.beyond.append(took - record["launch"]["wall_s"])
        if self.count in (1000, LAUNCHES // 10, LAUNCHES // 2, LAUNCHES):
            self.memory[self.count] = resident_mib()
            sys.stderr.write(f"{self.count} after {time.perf_counter() - self.begun:.0f} s\n")

    def note(self, text):
        pass

    def more(self, count):
        pass


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cluster_of(count: int):
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "node_ip_address": HOST, "include_dashboard": False},
    )
    for number in range(count):
        made.add_node(
            num_cpus=1, node_name=f"node-{number}", node_ip_address=f"127.0.0.{9 + number}"
        )
    return made


def overhead() -> dict[str, object]:
    grid = plan_sweep(
        "quick", backends=tuple(Arm("linear", {"n": n}) for n in range(5)), threads=(1,),
        seq_lens=(16, 32, 64, 128), modes=("forward", "training"), launches=5,
    )  # fmt: skip
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch()
        run_sweep(grid, Path(folder), progress=watch, benchmark_dir=FAKE_SUITES)
        rows.append(row(0, watch.beyond))
    for count in (1, 2, 4):
        cluster = cluster_of(count)
        with tempfile.TemporaryDirectory() as folder:
            watch = Watch()
            run_on_cluster(
                grid, Path(folder), address=cluster.address, progress=watch,
                benchmark_dir=FAKE_SUITES,
            )  # fmt: skip
            rows.append(row(count, watch.beyond))
        cluster.shutdown()
    return {"rows": rows}


def row(machines: int, seconds: list[float]) -> dict[str, float]:
    told = {
        "machines": machines, "launches": len(seconds), "median_s": median(seconds),
        "p95_s": quantiles(seconds, n=20)[-1],
    }  # fmt: skip
    print(told, flush=True)
    return told


class AtOnce(Worker):
    """Answers every request itself, at once."""

    def ask(self, request, timeout_s, allocator, method):
        if request["do"] == "preflight":
            one = {"misuse": None, "unsupported": [], "cost": [None], "time_exponent": 1.0,
                   "memory_exponent": 1.0}  # fmt: skip
            told = {
                "measurement": MEASUREMENT, "machine": {"cpu": "simulated", "cores": 1},
                "environment": {}, "names": [], "cases": {c["id"]: one for c in request["cases"]},
            }  # fmt: skip
            return Outcome(told, None, None, None, 0.0), self.look()
        latency = {"unit": "s", "samples": [1e-3] * 50, "cache": "warm"}
        arms = [{"kernel": "simulated", "gate": None, "cost": None,
                 "metrics": {"latency": latency}}]  # fmt: skip
        return Outcome(
            {"status": "ok", "reason": None, "arms": arms}, None, None, None, 0.0
        ), self.look()


def many(count: int = 4) -> dict[str, object]:
    link.Worker = AtOnce
    arms = tuple(Arm("linear", {"n": n}) for n in range(LAUNCHES // 100))
    grid = plan_sweep(
        "quick", backends=arms, seq_lens=tuple(range(16, 176, 16)), launches=5, threads=(1,),
        modes=("forward", "training"),
    )  # fmt: skip
    cluster, watch = cluster_of(count), Watch()
    with tempfile.TemporaryDirectory() as folder:
        run_on_cluster(grid, Path(folder), address=cluster.address, progress=watch)
    whole = time.perf_counter() - watch.begun
    cluster.shutdown()
    memory = [{"launches": n, "mib": mib} for n, mib in watch.memory.items()]
    return {"machines": count, "launches": watch.count, "cases": len(arms) * 20, "seconds": whole,
            "memory": memory}  # fmt: skip


def main(what: str) -> None:
    found = {"overhead": overhead, "many": many}[what]()
    from suites.measure.machine import machine  # imports torch, whose memory is not the driver's

    KEPT.mkdir(exist_ok=True)
    told = {
        "measured": what, "machine": machine(),
        "ray": importlib.metadata.version("ray"), **found,
    }  # fmt: skip
    file = KEPT / f"{what}.json"
    file.write_text(json.dumps(told, indent=1) + "\n")
    print(f"kept in {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1])
