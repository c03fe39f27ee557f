from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from helpers_in_process import InProcess
from helpers_sweep import FAKE_SUITES, is_alive, pids_in, wait_until

from results.records.load import load
from results.schema import Arm, check_record
from suites.engine import session as session_module
from suites.engine.driver import run_sweep
from suites.engine.journal import JournalError
from suites.engine.session import MisuseError, Session
from suites.parsing import parse_backend
from suites.plan import cases, order, plan_sweep
from suites.processes.launcher import LaunchError
from suites.processes.outcome import Outcome


@pytest.fixture(autouse=True)
def _in_process(request):
    if request.node.get_closest_marker("slow") is None:
        request.getfixturevalue("in_process")


class Watch:
    """A progress that keeps what it was told, and may act on it."""

    def __init__(self, act=None):
        self.begun, self.records, self.times, self.act = None, [], [], act

    def begin(self, folder, total, done, notices):
        self.begun = (total, done, list(notices))

    def starting(self, item):
        if self.act:
            self.act(item, self)

    def finished(self, record, remaining_s):
        self.records.append(record)
        self.times.append(remaining_s)


def sweep(
    folder, *backends, progress=None, plugins=(), resume=False, command=(), suites=FAKE_SUITES,
    within_s=None, **chosen,
):  # fmt: skip
    chosen = {
        "seq_lens": (16, 32), "modes": ("forward",), "launches": 1, "case_timeout_s": 2.0,
        "threads": (1,), **chosen,
    }  # fmt: skip
    grid = plan_sweep("quick", backends=tuple(map(parse_backend, backends)), **chosen)
    watch = progress or Watch()
    summary = run_sweep(
        grid, folder, progress=watch, plugins=plugins, resume=resume, command=command,
        benchmark_dir=suites, within_s=within_s,
    )  # fmt: skip
    return grid, summary, watch


def records(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def ends(folder, name):
    return [r["status"] for r in records(folder) if r["case"]["arms"][0]["name"] == name]


def test_a_sweep_that_was_ended_is_known_to_be_incomplete(tmp_path):
    folder = tmp_path / "my run"

    def stop(_, watch):
        if len(watch.records) == 3:
            raise KeyboardInterrupt

    command = ("attnbench", "run", "--plugin", str(Path.home() / "my file.py"))
    with pytest.raises(KeyboardInterrupt):
        sweep(folder, "linear", "quadratic", launches=2, progress=Watch(stop), command=command)
    (lacking,) = load(folder).unfinished
    there, planned = lacking.launches
    assert there == len(records(folder)) == 3
    assert sum(count for _, count in lacking.missing) == planned - 3
    assert ("linear forward N=32", 2) in lacking.missing
    # The record of a command names nobody's home, and a shell still finds it.
    assert lacking.resume() == (f"attnbench run --plugin ~/'my file.py' --resume --out '{folder}'")
    sweep(folder, "linear", "quadratic", launches=2, resume=True)
    assert load(folder).unfinished == ()
    assert len((folder / "plans.jsonl").read_text().splitlines()) == 2


def test_every_launch_is_recorded_in_its_order(tmp_path):
    grid, summary, watch = sweep(tmp_path, "linear", "quadratic", launches=2)
    written = records(tmp_path)
    items = order(grid, cases(grid))
    assert [(r["case"]["id"], r["launch"]["index"]) for r in written] == [
        (i.case.id, i.launch) for i in items
    ]
    assert [r["launch"]["order"] for r in written] == list(range(len(items)))
    assert watch.records == written
    assert watch.begun == (len(items), 0, [])
    assert summary.statuses == {"ok": len(items)}
    assert summary.skipped == 0


def test_records_have_the_documented_form_and_are_read_by_the_results(tmp_path):
    sweep(tmp_path, "linear")
    for record in records(tmp_path):
        check_record(record)
        assert set(record) == {
            "schema", "measurement", "run", "machine", "environment", "commit", "case", "launch",
            "status", "reason", "log_tail", "arms",
        }  # fmt: skip
        assert set(record["launch"]) == {
            "index", "order", "started", "wall_s", "load", "predicted"
        }  # fmt: skip
        assert record["launch"]["started"].endswith("Z")
        assert record["launch"]["wall_s"] > 0
    run = load(tmp_path)
    assert run.warnings == ()
    assert [m["cpu"] for m in run.machines.values()] == ["a stand-in"]
    frame = run.frame[(run.frame["metric"] == "latency") & (run.frame["seq_len"] == 32)]
    assert frame["value"].tolist() == [32e-6]


def test_without_backends_all_that_are_registered_are_measured(tmp_path):
    sweep(tmp_path)
    names = {r["case"]["arms"][0]["name"] for r in records(tmp_path)}
    assert names == {"linear", "quadratic", "roof"}


CRASHES = ("segfaults", "is_killed", "exits", "kills_server")


@pytest.mark.parametrize("more", [(), pytest.param(CRASHES, marks=pytest.mark.slow)])
def test_whatever_a_case_does_the_sweep_goes_on(tmp_path, more):
    names = {
        "raises": "failed", **dict.fromkeys(more, "crashed"), "answers_nonsense": "failed",
        "unsupported": "unsupported", "out_of_memory": "out_of_memory", "times_out": "timeout",
        "linear": "ok", **({"answers_nan": "failed"} if more else {}),
    }  # fmt: skip
    _, summary, _ = sweep(tmp_path, *names, seq_lens=(16,))
    for name, status in names.items():
        assert ends(tmp_path, name) == [status]
    for record in records(tmp_path):
        assert (record["reason"] is None) == (record["status"] == "ok")
        assert (record["arms"] == []) == (record["status"] != "ok")
    assert sum(summary.statuses.values()) == len(names) + 1  # the roof
    (raised,) = (r for r in records(tmp_path) if r["case"]["arms"][0]["name"] == "raises")
    assert "RuntimeError: no luck at 16, in ~" in raised["log_tail" if more else "reason"]
    (large,) = (r for r in records(tmp_path) if r["status"] == "out_of_memory")
    assert (large["log_tail"], large["run"]) == ("asking for 9 GiB", raised["run"])


def test_an_unsupported_case_starts_no_process(tmp_path):
    sweep(tmp_path, "unsupported")
    found = [r for r in records(tmp_path) if r["status"] == "unsupported"]
    assert {r["launch"]["wall_s"] for r in found} == {0.0}
    assert {r["reason"] for r in found} == {"device: not here"}


@pytest.mark.slow
def test_a_hanging_case_is_recorded_and_the_next_one_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(session_module.CHILD_GRACE_S, "forkserver", 0.3)
    pids = tmp_path / "pids"
    sweep(tmp_path / "run", f"hangs:pids={pids}", "linear", seq_lens=(16,), case_timeout_s=0.5)
    assert ends(tmp_path / "run", "hangs") == ["timeout"]
    assert ends(tmp_path / "run", "linear") == ["ok"]
    wait_until(lambda: not any(is_alive(pid) for pid in pids_in(pids)))


def test_cases_predicted_too_slow_are_not_run_with_the_prediction(tmp_path):
    # 1 s at 1000 tokens: measured. 100 s at 10000: three calls would take 300 s.
    sweep(tmp_path, "quadratic:seconds=1e-6", seq_lens=(1000, 10_000), case_timeout_s=60.0)
    assert ends(tmp_path, "quadratic") == ["ok", "not_run"]
    (refused,) = (r for r in records(tmp_path) if r["status"] == "not_run")
    assert "predicted 100 s per call (from length 1000)" in refused["reason"]
    assert refused["launch"]["wall_s"] == 0.0
    assert refused["launch"]["predicted"]["latency"] == 100.0


def test_cases_predicted_too_large_are_not_run_with_the_prediction(tmp_path, monkeypatch):
    monkeypatch.setattr(session_module, "memory_for_case", lambda *_: 1 << 30)
    sweep(tmp_path, "quadratic:seconds=1e-12", "linear", seq_lens=(512, 2048))
    assert ends(tmp_path, "quadratic") == ["ok", "not_run"]
    assert ends(tmp_path, "linear") == ["ok", "ok"]
    reasons = [r["reason"] for r in records(tmp_path) if r["status"] == "not_run"]
    assert "predicted 4.01 GiB of memory (from length 512); 1 GiB are free" in reasons[0]


def test_a_case_that_timed_out_is_not_tried_again_in_the_next_launch(tmp_path):
    sweep(tmp_path, "times_out", seq_lens=(16, 32), launches=2, case_timeout_s=0.3)
    assert ends(tmp_path, "times_out") == ["timeout", "not_run", "not_run", "not_run"]


def test_time_left_is_told_and_ends_at_nothing(tmp_path):
    _, _, watch = sweep(tmp_path, "sleeps:seconds=0.1", launches=2, case_timeout_s=60.0)
    assert watch.times[-1] == 0
    assert all(t is None or t >= 0 for t in watch.times)
    middle = watch.times[len(watch.times) // 2]
    assert 0.1 < middle < 30


# -- resume -------------------------------------------------------------------------------------


def test_a_changed_grid_measures_the_difference_alone(tmp_path):
    sweep(tmp_path, "linear", seq_lens=(16, 32))
    with pytest.raises(JournalError, match="--resume"):
        sweep(tmp_path, "linear", seq_lens=(16, 64))
    _, summary, watch = sweep(tmp_path, "linear", "quadratic", seq_lens=(16, 64), resume=True)
    added = [(r["case"]["arms"][0]["name"], r["case"]["seq_len"]) for r in watch.records]
    assert sorted(added) == [("linear", 64), ("quadratic", 16), ("quadratic", 64)]
    assert summary.skipped == 2  # the roof too
    assert watch.begun[:2] == (5, 2)
    assert [r["launch"]["order"] for r in records(tmp_path)] == list(range(6))
    assert len({r["run"] for r in records(tmp_path)}) == 1
    _, again, _ = sweep(tmp_path, "linear", "quadratic", seq_lens=(16, 64), resume=True)
    assert again.statuses == {}


def test_a_resumed_run_says_that_its_records_are_of_another_commit(tmp_path, monkeypatch):
    monkeypatch.setattr("suites.engine.driver.commit_of", lambda _: "a" * 40)
    sweep(tmp_path, "linear", seq_lens=(16,))
    assert not sweep(tmp_path, "linear", seq_lens=(16,), resume=True)[2].begun[2]
    monkeypatch.setattr("suites.engine.driver.commit_of", lambda _: "b" * 40)
    (said,) = sweep(tmp_path, "linear", resume=True)[2].begun[2]
    assert said.startswith(f"--resume: the run has results of commit {'a' * 40}, and now it is bb")


def test_a_resumed_run_says_what_stays_without_a_profile(tmp_path):
    sweep(tmp_path, "linear", seq_lens=(16, 32))
    _, summary, watch = sweep(tmp_path, "linear", seq_lens=(16, 32), resume=True, profile=True)
    assert summary.statuses == {}
    (notice,) = watch.begun[2]
    assert "2 finished measurements have no profile" in notice
    _, _, watch = sweep(tmp_path, "linear", seq_lens=(64,), resume=True, profile=True)
    assert watch.begun[2] == []  # none of those that are asked for is there
    _, _, watch = sweep(tmp_path, "linear", seq_lens=(64,), resume=True, profile=True)
    assert watch.begun[2] == []  # all have one
    _, _, watch = sweep(tmp_path, "linear", seq_lens=(16, 32), resume=True)
    assert watch.begun[2] == []  # none is asked for


def test_resumed_predictions_know_the_lengths_that_are_there(tmp_path):
    slow = "quadratic:seconds=1e-6"
    sweep(tmp_path, slow, seq_lens=(1000,), case_timeout_s=60.0)
    sweep(tmp_path, slow, seq_lens=(10_000,), case_timeout_s=60.0, resume=True)
    assert ends(tmp_path, "quadratic") == ["ok", "not_run"]


def test_shards_make_the_whole_sweep(tmp_path):
    for shard in ((1, 2), (2, 2)):
        sweep(tmp_path / str(shard[0]), "linear", "quadratic", "out_of_memory", shard=shard)
    sweep(tmp_path / "whole", "linear", "quadratic", "out_of_memory")
    ids = [
        Counter(r["case"]["id"] for r in records(tmp_path / name) if r["case"]["kind"] == "speed")
        for name in ("1", "2", "whole")
    ]
    assert ids[0] + ids[1] == ids[2]


# -- misuse -------------------------------------------------------------------------------------


def test_an_unknown_backend_is_misuse_and_makes_no_folder(tmp_path):
    with pytest.raises(MisuseError, match="quadratik: name: no backend 'quadratik'"):
        sweep(tmp_path / "run", "linear", "quadratik")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_suites_that_cannot_be_asked_are_an_error(tmp_path):
    suites = tmp_path / "suites"
    suites.mkdir()
    (suites / "__init__.py").write_text("")
    (suites / "benchmarks.py").write_text("import no_such_module")
    with pytest.raises(LaunchError, match="No module named 'no_such_module'"):
        sweep(tmp_path / "run", "linear", suites=suites)


def test_a_run_does_not_go_on_with_a_plugin_that_was_edited(tmp_path):
    plugin, out = tmp_path / "mine.py", tmp_path / "run"
    plugin.write_text("one")
    sweep(out, "linear", seq_lens=(16,), plugins=[plugin])
    before = [(out / name).read_bytes() for name in ("records.jsonl", "plans.jsonl")]
    plugin.write_text("two")
    with pytest.raises(
        MisuseError, match=r"--resume: .* with mine\.py of one, and now it is of two"
    ):
        sweep(out, "linear", plugins=[plugin], resume=True)
    assert [(out / name).read_bytes() for name in ("records.jsonl", "plans.jsonl")] == before
    plugin.write_text("one")
    other = tmp_path / "other.py"
    other.write_text("three")
    _, summary, watch = sweep(out, "linear", plugins=[plugin, other], resume=True)
    assert summary.skipped
    assert [n for n in watch.begun[2] if "with and without the plug-in of other.py: reports" in n]
    assert len({r["environment"] for r in records(out)}) == 2


def test_a_plugin_that_is_edited_meanwhile_ends_the_sweep(tmp_path):
    plugin, out = tmp_path / "mine.py", tmp_path / "run"
    plugin.write_text("one")
    act = lambda item, watch: plugin.write_text("two") if watch.records else None  # noqa: E731
    with pytest.raises(LaunchError, match=r"--plugin: mine\.py has changed: expected the content"):
        sweep(out, "linear", plugins=[plugin], progress=Watch(act))
    assert len(records(out)) == 2  # the one that ran meanwhile had imported it


def test_no_launch_is_started_that_would_end_after_the_budget(tmp_path, monkeypatch):
    every = sweep(tmp_path / "a", "linear")[1].statuses.total()
    remaining = Session.remaining

    def long_at_32(self, items):
        if len(items) == 1 and items[0].case.seq_len == 32:
            return 1e4
        return remaining(self, items)

    monkeypatch.setattr(Session, "remaining", long_at_32)
    _, summary, watch = sweep(tmp_path / "b", "linear", within_s=5e3)
    assert (summary.left_out, summary.statuses.total()) == (1, every - 1)
    assert all(r["case"]["seq_len"] != 32 for r in records(tmp_path / "b"))
    assert all(time is None or time <= 5e3 for time in watch.times)
    monkeypatch.setattr(Session, "remaining", remaining)
    _, summary, _ = sweep(tmp_path / "b", "linear", within_s=5e3, resume=True, budget_s=0.5)
    assert (summary.left_out, summary.statuses, summary.skipped) == (0, {"ok": 1}, every - 1)
    _, summary, _ = sweep(tmp_path / "c", "linear", within_s=1e-9)
    assert (summary.left_out, summary.statuses.total()) == (every, 0)


def test_plugins_and_limits_are_handed_to_the_child(tmp_path, monkeypatch):
    plugin = tmp_path / "mine.py"
    plugin.write_text("")
    asked = []
    original = InProcess.ask

    def ask(self, request, **options):
        asked.append((request, options))
        return original(self, request, **options)

    monkeypatch.setattr(InProcess, "ask", ask)
    monkeypatch.chdir(tmp_path)
    relative = plugin.relative_to(tmp_path)
    sweep(tmp_path / "run", "linear", plugins=[relative], budget_s=0.5, allocators=("retained",),
          profile=True)  # fmt: skip
    request, options = next(a for a in asked if a[0].get("case", {}).get("kind") == "speed")
    assert request["plugins"] == asked[0][0]["plugins"] == [str(plugin)]
    assert request["budget_s"] == 0.5
    assert request["profile"] is True
    assert request["deadline_s"] == 2.0 < options["timeout_s"]
    assert request["memory_limit"] > 0
    assert request["lock"] == str(tmp_path / "run" / "lock.child")
    assert options["allocator"] == "retained"
    assert options["method"] == "forkserver"


def test_cuda_cases_are_spawned(tmp_path, monkeypatch):
    methods = {}

    def ask(self, request, **options):
        if request["do"] != "case":
            return original(self, request, **options)
        methods[request["case"]["device"]] = options["method"]
        return Outcome(None, "failed", "no device in this test", None, 0.0)

    original = InProcess.ask
    monkeypatch.setattr(InProcess, "ask", ask)
    sweep(tmp_path, "linear", device="cuda")
    assert methods == {"cuda": "spawn"}


@pytest.mark.slow
def test_the_driver_is_not_offered_to_the_oom_killer_by_a_sweep(tmp_path):
    own = Path("/proc/self/oom_score_adj")
    before = own.read_text()
    sweep(tmp_path, "linear")
    assert own.read_text() == before


def test_arms_of_the_grid_are_those_of_the_records(tmp_path):
    sweep(tmp_path, "linear:seconds=1e-5", levels=("layer",), seq_lens=(16,))
    (record,) = (r for r in records(tmp_path) if r["case"]["kind"] == "speed")
    arms = [Arm(a["name"], a["options"]).label for a in record["case"]["arms"]]
    assert arms == ["linear:seconds=1e-05", "identity"]
    assert [a["kernel"] for a in record["arms"]] == ["linear", "identity"]
