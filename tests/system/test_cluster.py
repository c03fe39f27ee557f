from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import signal
import socket
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers_sweep import FAKE_SUITES, case, is_alive, pids_in, record, wait_until

import cli
from results.records.load import load
from suites.cluster import connection, facts, link
from suites.cluster import machines as machines_module
from suites.cluster import sweep as sweep_module
from suites.cluster.answering import agenda_of
from suites.cluster.deal import Dealer, Group, Own, Place, groups_of
from suites.cluster.sweep import run_on_cluster
from suites.engine.driver import run_sweep
from suites.engine.journal import JournalError
from suites.engine.session import MisuseError
from suites.parsing import parse_backend
from suites.plan import Item, cases, order, plan_sweep
from suites.processes.launcher import LaunchError
from suites.processes.signals import Terminated
from suites.registry import find
from suites.suite import BASE_ROUNDS, Plan
from suites.terminal.standing import Standing, joined

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.2"  # Ray takes 127.0.0.1 for the address by which others reach this machine

# -- dealing, without Ray ------------------------------------------------------------------------


def made_grid(*backends, **chosen) -> Plan:
    chosen = {
        "seq_lens": (16, 32), "modes": ("forward",), "launches": 1, "case_timeout_s": 5.0,
        "threads": (1,), **chosen,
    }  # fmt: skip
    return plan_sweep("quick", backends=tuple(map(parse_backend, backends)), **chosen)


def test_what_is_compared_is_one_group_and_nothing_is_lost_or_twice():
    grid = made_grid("linear", "quadratic", modes=("forward", "training"), launches=3,
                     dtypes=("float32", "bfloat16"))  # fmt: skip
    every = order(grid, cases(grid))
    groups = groups_of(grid, every)
    assert len(groups) == 2 * 2 * 2  # lengths, modes, dtypes
    for group in groups:
        settings = {(i.case.mode, i.case.dtype, i.case.seq_len) for i in group.items}
        assert len(settings) == 1
        assert {i.case.arms[0].name for i in group.items} == {"linear", "quadratic"}
        assert {i.launch for i in group.items} == {0, 1, 2}
        places = [every.index(item) for item in group.items]
        assert places == sorted(places)  # the sweep's order
    dealt = Counter((i.case.id, i.launch) for group in groups for i in group.items)
    assert dealt == Counter((i.case.id, i.launch) for i in every if i.case.kind == "speed")


def test_trainings_of_a_task_stay_together_whatever_they_are_of():
    compared = find("quality").compared_by
    one = case("linear", kind="task", task="copying", training="steps", model="small", seq_len=0)
    other = dataclasses.replace(one, kind="quantized", seed=3, weights="int8")
    assert compared(one) == compared(other)
    assert compared(one) != compared(dataclasses.replace(one, task="sorting"))


def test_a_claim_on_growth_has_all_its_lengths_on_one_machine():
    claims, speed = find("claims").compared_by, find("speed").compared_by
    assert claims(case(seq_len=64)) == claims(case(seq_len=4096))
    assert speed(case(seq_len=64)) != speed(case(seq_len=4096))


ONE, TWO, OTHER = Place("one", "alike"), Place("two", "alike"), Place("other", "unlike")


def dealer_of(*groups, **options):
    dealer = Dealer([dataclasses.replace(g, items=type(g.items)(g.items)) for g in groups],
                    **options)  # fmt: skip
    for place in (ONE, TWO, OTHER):
        dealer.join(place)
    return dealer


def group_of(setting, length, count=1, **fields):
    made = Group((setting,), length, **fields)
    made.items.extend(Item(case(seq_len=length, mode=setting), n) for n in range(count))
    return made


def test_a_machine_keeps_to_a_curve_while_there_is_another_for_the_others():
    groups = [group_of(mode, n) for n in (16, 32) for mode in ("forward", "training")]
    dealer = dealer_of(*groups)
    first, second = dealer.take(ONE), dealer.take(TWO)
    assert first.setting != second.setting
    list(dealer.items(ONE))
    assert dealer.take(ONE).setting == first.setting
    assert dealer.take(OTHER).setting == second.setting  # else it would have nothing to do
    assert dealer.take(OTHER) is None


def test_what_a_machine_has_begun_waits_for_it_while_it_is_there_or_about_to_join():
    dealer = dealer_of(group_of("forward", 16, home="two"))
    assert dealer.take(ONE) is None
    assert dealer.take(TWO) is not None
    joining = [True]
    dealer = dealer_of(group_of("forward", 16, home="gone"), arriving=lambda: joining[0])
    assert dealer.take(ONE) is None
    joining[0] = False
    assert dealer.take(ONE) is not None


def test_a_lost_machines_group_goes_to_its_like_and_a_launch_is_tried_twice():
    dealer = dealer_of(group_of("forward", 16, 2))
    held = dealer.take(ONE)
    item = next(dealer.items(ONE))
    assert not dealer.gives_up(item)
    dealer.leave(ONE)
    assert dealer.take(OTHER) is None
    assert dealer.take(TWO) is held
    assert next(dealer.items(TWO)) == item
    assert dealer.gives_up(item)
    dealer.drop(TWO)
    dealer.leave(TWO)
    assert dealer.take(OTHER) is held  # nobody alike is there
    assert [one.launch for one in dealer.items(OTHER)] == [1]
    assert dealer.over


def test_whoever_waits_is_let_go_at_the_end():
    dealer = dealer_of(group_of("forward", 16))
    dealer.take(ONE)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(dealer.await_more(TWO)))
    thread.start()
    assert thread.is_alive()
    list(dealer.items(ONE))
    thread.join(5)
    assert answers == [False]


def test_a_machine_answers_what_it_has_measured_whole():
    grid = made_grid("linear", "quadratic", seq_lens=(16, 32), launches=None, precision=0.1)
    every = cases(grid)
    whole, half = every[:3], every[3:]
    ran = [record(one, n, latency=1.0 + 0.5 * n) for one in whole for n in range(BASE_ROUNDS)]
    ran += [record(one, 0) for one in half]
    agenda = agenda_of(grid, every, ran)
    assert agenda.plan(math.inf) > 0
    assert {item.case.id for item in agenda.left} <= {one.id for one in whole}
    assert {item.launch for item in agenda.left} >= {BASE_ROUNDS}
    assert agenda_of(grid, every, ran[-1:]) is None
    fixed = made_grid("linear", "quadratic", seq_lens=(16, 32), launches=BASE_ROUNDS)
    assert agenda_of(fixed, every, ran) is None


def test_a_machine_is_told_whether_there_is_a_group_for_it():
    dealer = dealer_of(group_of("forward", 16), group_of("forward", 32, home="two"))
    assert dealer.has_for(ONE)
    dealer.take(ONE)
    assert not dealer.has_for(ONE)
    assert dealer.has_for(TWO)
    dealer.leave(TWO)
    assert dealer.has_for(ONE)
    dealer.stop()
    assert not dealer.has_for(ONE)


def test_machines_tell_of_their_questions_together():
    one = Standing(4, ("a", "b"), 30.0, None)
    two = Standing(3, (), 0.0, None)
    assert joined([one, two]) == Standing(7, ("a", "b"), 30.0, None)
    assert joined([one, Standing(2, ("c",), None, None)]).remaining_s is None


def test_each_machine_tells_of_itself_first_and_last():
    grid = made_grid("linear", launches=3)
    own = Own(grid)
    told, end = [*own.before_group()], [*own.at_end()]
    assert [i.case.kind for i in told] == ["roof"]
    assert [i.launch for i in (*told, *end)] == [0, 1, 2]
    done = {(i.case.id, i.launch) for i in (*told, *end)}
    assert [*Own(grid, done).before_group()] == []


# -- what is refused, without a cluster ----------------------------------------------------------


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return taken.getsockname()[1]


class Watch:
    """A progress that keeps what it was told, and may act on it."""

    def __init__(self, act=None):
        self.begun, self.records, self.notes, self.added, self.act = None, [], [], 0, act
        self.standings = []

    def begin(self, folder, total, done, notices):
        self.begun = (total, done, list(notices))

    def planned(self, count, standing, remaining_s):
        self.standings.append(standing)

    def starting(self, item):
        if self.act:
            self.act(item)

    def finished(self, record, remaining_s):
        self.records.append(record)

    def note(self, text):
        self.notes.append(text)

    def more(self, count):
        self.added += count


def swept(folder, address, *backends, progress=None, kind="steady", resume=False, plugins=(),
          **chosen):  # fmt: skip
    watch = progress or Watch()
    grid = made_grid(*backends, **chosen)
    summary = run_on_cluster(
        grid, folder, address=address, kind=kind, progress=watch, resume=resume, plugins=plugins,
        benchmark_dir=FAKE_SUITES,
    )  # fmt: skip
    return grid, summary, watch


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("here", "--cluster: expected HOST:PORT, as `ray start` has it, got 'here'"),
        ("ray://a:1", "--cluster: expected HOST:PORT"),
        (f"{HOST}:0", "--cluster: expected HOST:PORT"),
        ("closed", "nothing answers at"),
    ],
)
def test_an_address_of_nobody_is_refused_at_once(tmp_path, address, says):
    address = f"{HOST}:{free_port()}" if address == "closed" else address
    started = time.monotonic()
    done = CliRunner().invoke(
        cli.main, ["run", "--cluster", address, "--out", str(tmp_path / "run")]
    )
    assert time.monotonic() - started < 10
    assert done.exit_code == 2
    assert says in done.output
    assert len(done.output.strip().splitlines()[-1:]) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", None])
def test_a_listener_that_is_no_cluster_is_refused_in_time(tmp_path, monkeypatch, answer):
    """One that answers otherwise, one that hangs up, and one that says nothing."""
    if answer is None:
        monkeypatch.setattr(connection, "PROBE_S", 0.3)
    with socket.create_server((HOST, 0)) as server:

        def serve():
            one, _ = server.accept()
            if answer is None:
                time.sleep(1)
            one.recv(10)
            one.sendall(answer or b"")
            one.close()

        threading.Thread(target=serve, daemon=True).start()
        address = f"{HOST}:{server.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(MisuseError, match=f"{address} is not a Ray cluster"):
            swept(tmp_path / "run", address, "linear")
        assert time.monotonic() - started < 5


def test_a_cluster_that_takes_no_driver_is_said_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_S", 0.2)
    monkeypatch.setattr(connection, "_greets", lambda listener: True)
    monkeypatch.setattr("ray.init", lambda **_: time.sleep(1))
    with socket.create_server((HOST, 0)) as server:
        address = f"{HOST}:{server.getsockname()[1]}"
        with pytest.raises(MisuseError, match=r"answers, but accepts no connection within 0\.2 s"):
            swept(tmp_path / "run", address, "linear")


def test_a_cluster_that_is_gone_ends_the_sweep_in_one_line(monkeypatch):
    def gone():
        raise RuntimeError("Failed to connect to GCS.\nmore of it")

    monkeypatch.setattr("ray.nodes", gone)
    with pytest.raises(link.LostError, match=r"^the cluster stopped answering: Failed to"):
        link.nodes("cpu", None)


def test_without_ray_one_line_says_what_to_install(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "ray" else found(name, *a)
    )
    done = CliRunner().invoke(cli.main, ["run", "--cluster", f"{HOST}:1", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert done.output.endswith("--cluster: needs Ray: pip install 'attnbench[cluster]'\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--profile"], "--profile: its traces would stay on the machines of --cluster"),
        (["quality", "--task", "language", "--corpus", "text"],
         "--cluster: cannot read files of this machine"),
    ],
)  # fmt: skip
def test_what_needs_files_of_the_driver_is_refused(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("a text " * 10_000)
    done = CliRunner().invoke(cli.main, ["run", *arguments, "--cluster", f"{HOST}:1"])
    assert done.exit_code == 2
    assert says in done.output


def test_a_kind_without_a_cluster_is_refused():
    done = CliRunner().invoke(cli.main, ["run", "--cluster-kind", "H100"])
    assert done.exit_code == 2
    assert "--cluster-kind: only with --cluster; got H100" in done.output


RESOURCES = {
    "a": {"CPU": 8.0, "GPU": 2.0, "accelerator_type:H100": 1.0},
    "b": {"CPU": 6.0, "GPU": 1.0, "accelerator_type:L4": 1.0},
    "c": {"CPU": 4.0, "big": 1.0},
    "head": {"memory": 1.0},
    "gone": {"CPU": 4.0, "GPU": 4.0},
}


@pytest.fixture
def described(monkeypatch):
    """Have Ray tell of machines that are not there."""
    told = [
        {"NodeID": name, "NodeName": name, "NodeManagerAddress": name, "Alive": name != "gone",
         "Resources": resources}
        for name, resources in RESOURCES.items()
    ]  # fmt: skip
    monkeypatch.setattr("ray.nodes", lambda: told)


def test_a_machine_is_taken_whole_and_on_gpus_a_share_for_each(described):
    shares = [(n.name, n.part, n.cpus, n.gpus) for n in link.nodes("cpu", None)]
    assert shares == [("a", 0, 8, 0), ("b", 0, 6, 0), ("c", 0, 4, 0)]
    shares = [(n.name, n.part, n.cpus, n.gpus) for n in link.nodes("cuda", None)]
    assert shares == [("a", 0, 4, 1), ("a", 1, 4, 1), ("b", 0, 6, 1)]
    assert {n.name for n in link.nodes("cuda", "H100")} == {"a"}
    assert {n.name for n in link.nodes("cpu", "big")} == {"c"}
    assert link.nodes("cuda", "big") == []
    assert link.what_is_there() == "4 nodes, 3 with CPUs, 3 GPUs (H100, L4), resources big"


def test_threads_are_by_default_all_cores_of_the_smallest_machine(described):
    there = link.nodes("cpu", None)
    assert sweep_module.with_all_cores(made_grid("linear"), there).threads == (4,)


def test_the_gpus_of_a_machine_are_told_apart_and_its_name_is_not_told():
    node = link.Node("id", "host", 4, 1)
    assert link.mark_of(node, "0") != link.mark_of(node, "1")
    assert link.mark_of(link.Node("other", "host", 4, 0), "") == link.mark_of(
        link.Node("id", "host", 8, 0), ""
    )


# -- on a cluster --------------------------------------------------------------------------------


class Nodes:
    """A cluster of logical nodes on loopback addresses."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        self._count = 0
        quick = {"health_check_period_ms": 300, "health_check_failure_threshold": 3,
                 "health_check_initial_delay_ms": 0}  # fmt: skip
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0, "node_ip_address": HOST, "include_dashboard": False,
                "node_name": "head", "_system_config": quick,
            },
        )  # fmt: skip
        self.address = self.cluster.address

    def add(self, name: str, kind: str, cpus: int = 1):
        self._count += 1
        return self.cluster.add_node(
            num_cpus=cpus, resources={kind: 1}, node_name=name,
            node_ip_address=f"127.0.0.{9 + self._count}",
        )  # fmt: skip

    def remove(self, node):
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes():
    pytest.importorskip("ray")
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "RAY_USAGE_STATS_ENABLED")}
    os.environ |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    made = Nodes()
    for name in ("first", "second"):
        made.add(name, "steady")
    yield made
    made.cluster.shutdown()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture
def meanwhile(monkeypatch):
    """Return a list of what the driver is to do before it looks for machines the next time.

    A node of the tests' cluster can be made and ended by the main thread alone.
    """
    todo, look = [], link.nodes

    def and_look(*arguments):
        while todo:
            todo.pop(0)()
        return look(*arguments)

    monkeypatch.setattr(link, "nodes", and_look)
    return todo


def records(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def launches(folder, *names):
    """Return how often each launch of the backends stands in a folder."""
    return Counter(
        (r["case"]["id"], r["launch"]["index"])
        for r in records(folder)
        if r["case"]["kind"] == "speed" and (not names or r["case"]["arms"][0]["name"] in names)
    )


WIDE = {"seq_lens": (16, 32, 64), "modes": ("forward", "training"), "launches": 2,
        "case_timeout_s": 1e4}  # fmt: skip
# A stand-in that sleeps a second says that a token takes that long.


@pytest.fixture(scope="module")
def wide(nodes, tmp_path_factory):
    """Return the folder of a sweep over two machines, and what was told of it."""
    folder = tmp_path_factory.mktemp("wide") / "run"
    # Long enough that both machines have joined before one has done it all.
    grid, summary, watch = swept(folder, nodes.address, "sleeps:seconds=0.2", "linear", **WIDE)
    return folder, grid, summary, watch


def test_a_sweep_over_two_machines_has_the_cases_of_a_local_one(wide, tmp_path, monkeypatch):
    folder, grid, summary, watch = wide
    monkeypatch.setenv("TEST_PAUSE", "0")
    run_sweep(grid, tmp_path, progress=Watch(), benchmark_dir=FAKE_SUITES)
    assert launches(folder) == launches(tmp_path)
    assert max(launches(folder).values()) == 1
    assert summary.statuses == {"ok": len(records(folder))}
    assert watch.begun[:2] == (24, 0)
    assert len(watch.records) == len(records(folder)) == 24 + watch.added
    assert [r["launch"]["order"] for r in records(folder)] == list(range(len(records(folder))))


def test_groups_stay_together_and_both_machines_worked(wide):
    folder, *_ = wide
    where = defaultdict(set)
    for one in records(folder):
        if one["case"]["kind"] == "speed":
            where[one["case"]["mode"], one["case"]["seq_len"]].add(one["machine"])
    assert len(where) == 6
    assert all(len(machines) == 1 for machines in where.values())
    assert len(set().union(*where.values())) == 2


def test_each_machine_has_roofs_of_its_own(wide):
    folder, *_ = wide
    by_machine = defaultdict(list)
    for one in records(folder):
        by_machine[one["machine"]].append(one)
    assert len(by_machine) == 2
    for ran in by_machine.values():
        assert sorted(r["launch"]["index"] for r in ran if r["case"]["kind"] == "roof") == [0, 1]


def test_two_alike_machines_are_two_to_the_report(wide):
    folder, *_ = wide
    run = load(folder)
    assert run.warnings == ()
    assert len(run.machines) == 2
    nodes = {about.pop("node") for about in map(dict, run.machines.values())}
    assert nodes == {link.mark_of(link.Node("", name, 1, 0), "") for name in ("first", "second")}
    assert "first" not in (folder / "machines.jsonl").read_text()
    same = run.frame.groupby(["mode", "seq_len"])["machine"].nunique()
    assert same.drop(index=0, level="seq_len", errors="ignore").loc["training"].max() == 1


def test_a_resumed_sweep_measures_nothing_twice_and_goes_on_where_it_was(wide, nodes, tmp_path):
    folder, *_ = wide
    torn = tmp_path / "run"
    torn.mkdir()
    kept = [r for r in records(folder) if r["launch"]["order"] % 3]
    (torn / "records.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in kept))
    for name in ("machines.jsonl", "environments.jsonl"):
        (torn / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(JournalError, match="--resume"):
        swept(torn, nodes.address, "sleeps:seconds=0.2", "linear", **WIDE)
    _, _, watch = swept(
        torn, nodes.address, "sleeps:seconds=0.2", "linear", **WIDE, resume=True
    )  # fmt: skip
    assert launches(torn) == launches(folder)
    home = {r["case"]["id"]: r["machine"] for r in kept if r["case"]["kind"] == "speed"}
    for one in watch.records:
        if one["case"]["kind"] == "speed":
            assert home.get(one["case"]["id"], one["machine"]) == one["machine"]
    assert load(torn).warnings == ()
    assert watch.begun[:2] == (24, len(launches(torn)) - sum(
        one["case"]["kind"] == "speed" for one in watch.records))  # fmt: skip


def test_each_machine_answers_the_questions_of_what_it_measured(nodes, tmp_path):
    # Alike, so that on whichever machine a length is, the fastest two are an open question.
    backends = ("linear:scatter=0.3", "linear:scatter=0.31")
    chosen = {"seq_lens": (16, 32), "modes": ("forward",), "launches": None, "precision": 0.3}
    folder = tmp_path / "run"
    _, summary, watch = swept(folder, nodes.address, *backends, **chosen)
    ran = launches(folder)
    assert max(ran.values()) == 1
    assert len(ran) > BASE_ROUNDS * 4
    assert summary.standing.open == ()
    assert summary.standing.num_questions > 0
    assert watch.standings[-1] == summary.standing
    # Every launch beyond the first rounds is on the machine that has those.
    where = defaultdict(set)
    for one in records(folder):
        if one["case"]["kind"] == "speed":
            where[one["case"]["id"]].add(one["machine"])
    assert all(len(machines) == 1 for machines in where.values())
    assert load(folder).unfinished == ()
    # The run is resumed to be known more exactly.
    again = {**chosen, "precision": 0.2}
    _, summary, _ = swept(folder, nodes.address, *backends, resume=True, **again)
    assert summary.standing.open == ()
    assert len(launches(folder)) > len(ran)


def test_a_plugin_is_sent_and_its_path_stays_here(nodes, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("")
    _, summary, _ = swept(
        tmp_path / "run", nodes.address, "says_plugins", seq_lens=(16,), plugins=[file]
    )
    (said,) = (r for r in records(tmp_path / "run") if r["case"]["kind"] == "speed")
    assert said["status"] == "failed"
    assert "mine.py" in said["reason"]
    assert str(tmp_path) not in said["reason"]
    assert summary.statuses["failed"] == 1


def test_misuse_is_said_before_anything_is_made(nodes, tmp_path):
    with pytest.raises(MisuseError, match="no backend 'nonesuch'"):
        swept(tmp_path / "run", nodes.address, "nonesuch")
    assert not (tmp_path / "run").exists()


def test_a_kind_that_is_not_there_is_said_in_time(nodes, tmp_path):
    started = time.monotonic()
    with pytest.raises(MisuseError, match=r"no machine with a GPU; there are \d nodes, \d with"):
        swept(tmp_path / "run", nodes.address, "linear", kind=None, device="cuda")
    with pytest.raises(MisuseError, match=r"no machine with resource H100; .* resources steady"):
        swept(tmp_path / "run", nodes.address, "linear", kind="H100")
    assert time.monotonic() - started < 10


def test_a_machine_of_another_version_is_refused_and_named(nodes, tmp_path, monkeypatch):
    here = facts.facts_here()
    monkeypatch.setattr(facts, "facts_here", lambda: here | {"torch": "1.0"})
    with pytest.raises(MisuseError, match=r"second: torch is .* there and 1\.0 here") as refused:
        swept(tmp_path / "run", nodes.address, "linear")
    assert "first: torch is" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_machine_smaller_than_the_threads_of_a_case_is_left_out(nodes, tmp_path):
    said = r"first: it has 1 CPU, and cases of this sweep have 2 threads \(--threads\)"
    with pytest.raises(MisuseError, match=said):
        swept(tmp_path / "run", nodes.address, "linear", threads=(2,))


def test_a_head_that_is_gone_ends_the_sweep_and_what_is_done_stays(nodes, tmp_path, meanwhile):
    def gone():
        raise link.LostError("the cluster stopped answering: it is gone")

    def act(item):
        if item.case.seq_len == 32 and not meanwhile:
            meanwhile.append(gone)

    with pytest.raises(LaunchError, match="--cluster: the cluster stopped answering"):
        swept(
            tmp_path / "run", nodes.address, "sleeps:seconds=5,length=32", progress=Watch(act),
            case_timeout_s=1e4,
        )  # fmt: skip
    assert (tmp_path / "run" / "records.jsonl").read_text()


def test_a_machine_lost_with_a_case_gives_it_to_one_that_joins_late(nodes, tmp_path, meanwhile):
    """The case in flight goes to another, once; what is done stays; nothing is twice."""
    doomed = nodes.add("doomed", "mortal")
    killed, late = [], tmp_path / "late"

    def lose():
        nodes.remove(doomed)
        nodes.add("late", "mortal")
        late.touch()

    def act(item):
        if item.case.arms[0].name == "sleeps" and item.case.seq_len == 32 and not killed:
            killed.append(item)
            meanwhile.append(lose)

    _, summary, watch = swept(
        tmp_path / "run", nodes.address, "linear", f"sleeps:seconds=60,length=32,until={late}",
        kind="mortal", progress=Watch(act), case_timeout_s=1e4,
    )  # fmt: skip
    assert killed
    assert set(launches(tmp_path / "run").values()) == {1}
    assert len(launches(tmp_path / "run")) == 4
    assert set(summary.statuses) == {"ok"}
    by_length = defaultdict(set)
    for one in records(tmp_path / "run"):
        by_length[one["case"]["seq_len"]].add(one["machine"])
    assert len(by_length[16]) == 1
    assert any("doomed is left out: its node died" in note for note in watch.notes)
    assert load(tmp_path / "run").warnings == ()


def test_a_case_that_two_machines_were_lost_with_is_written_down(nodes, tmp_path, meanwhile):
    there = [nodes.add("third", "fragile")]
    names = ["fourth"]

    def lose():
        nodes.remove(there.pop())
        there.extend(nodes.add(name, "fragile") for name in names)
        names.clear()

    def act(item):
        if item.case.arms[0].name == "sleeps":
            meanwhile.append(lose)

    _, summary, _ = swept(
        tmp_path / "run", nodes.address, "sleeps:seconds=5", kind="fragile", seq_lens=(16,),
        progress=Watch(act), case_timeout_s=1e4,
    )  # fmt: skip
    (lost,) = (r for r in records(tmp_path / "run") if r["case"]["kind"] == "speed")
    assert lost["status"] == "crashed"
    assert lost["reason"].startswith("two machines were lost while it ran, the last: ")
    assert summary.statuses["crashed"] == 1
    assert not there


def test_without_any_machine_left_the_sweep_ends_and_what_is_done_stays(
    nodes, tmp_path, monkeypatch, meanwhile
):
    last = nodes.add("last", "lonely")

    def act(item):
        if item.case.seq_len == 32 and item.case.kind == "speed":
            monkeypatch.setattr(machines_module, "NOBODY_S", 8.0)  # before, the machine comes up
            meanwhile.append(lambda: nodes.remove(last))

    with pytest.raises(LaunchError, match=r"no machine was available .* \(last: its node died"):
        swept(
            tmp_path / "run", nodes.address, "sleeps:seconds=5,length=32", kind="lonely",
            progress=Watch(act), case_timeout_s=1e4,
        )  # fmt: skip
    assert [r["case"]["seq_len"] for r in records(tmp_path / "run") if r["case"]["kind"] == "speed"
            ] == [16]  # fmt: skip


def test_when_the_driver_is_ended_so_is_what_runs_on_the_machines(nodes, tmp_path):
    pids = tmp_path / "pids"

    def end():
        pids_in(pids)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end)

    def act(item):
        if item.case.arms[0].name == "hangs":
            thread.start()

    with pytest.raises(Terminated):
        swept(
            tmp_path / "run", nodes.address, f"hangs:pids={pids}", seq_lens=(16,),
            case_timeout_s=60.0, progress=Watch(act),
        )  # fmt: skip
    thread.join()
    wait_until(lambda: not any(is_alive(pid) for pid in pids_in(pids)))
    assert not [r for r in records(tmp_path / "run") if r["case"]["kind"] == "speed"]


# -- what sessions share -------------------------------------------------------------------------


def test_records_of_a_grid_tell_who_has_begun_a_group():
    grid = made_grid("linear", launches=2)
    every = order(grid, cases(grid))
    first = next(i.case for i in every if i.case.seq_len == 16 and i.case.kind == "speed")
    begun = [record(first, machine="there")]
    homes = {r["case"]["id"]: r["machine"] for r in begun}
    short, long = groups_of(grid, every, {(first.id, 0)}, homes)
    assert (short.home, len(short.items)) == ("there", 1)
    assert (long.home, len(long.items)) == ("", 2)
