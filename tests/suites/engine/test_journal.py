from __future__ import annotations

import codecs
import errno
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers_sweep import case, record

from results.records.load import load
from results.schema import RecordError, content_id
from suites.engine import journal as journal_module
from suites.engine import run_folder as folder_module
from suites.engine.journal import Journal
from suites.engine.provenance import commit_of
from suites.engine.run_folder import JournalError, new_folder


def lines(folder, name="records.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def fill(folder, *lengths, resume=False):
    with Journal(folder, resume=resume) as journal:
        for seq_len in lengths:
            journal.append(record(case(seq_len=seq_len)))


def test_records_are_appended_and_read_back(tmp_path):
    fill(tmp_path / "a" / "run", 1, 2)
    assert [r["case"]["seq_len"] for r in lines(tmp_path / "a" / "run")] == [1, 2]
    with Journal(tmp_path / "a" / "run", resume=True) as journal:
        assert journal.done == {(case(seq_len=n).id, 0) for n in (1, 2)}
        assert journal.run == "r"
        assert journal.notices == []


def test_a_plan_without_a_record_is_replaced(tmp_path):
    for _ in range(2):  # the first sweep was stopped before its first record
        with Journal(tmp_path, resume=True) as journal:
            journal.plan(["attnbench", "run"], [(case().id, "one", 0)])
    assert [plan["run"] for plan in lines(tmp_path, "plans.jsonl")] == [journal.run]
    fill(tmp_path, 1, resume=True)
    with Journal(tmp_path, resume=True) as journal:  # of a run with records no plan is lost
        journal.plan(["attnbench", "run"], [(case().id, "one", 0)])
    assert len(lines(tmp_path, "plans.jsonl")) == 2


def test_new_folders_are_never_shared(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_folder(tmp_path / "runs" / "now"), range(8)))
    assert sorted(path.name for path in made) == ["now", *(f"now-{n}" for n in range(2, 9))]
    assert all(path.is_dir() for path in made)
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"--out: .*file/now: Not a directory"):
        new_folder(tmp_path / "file" / "now")


@pytest.mark.parametrize("place", [0, 1])
def test_a_byte_order_mark_costs_no_line(tmp_path, place):
    with Journal(tmp_path) as journal:
        machine = journal.add_machine({"cpu": "one"})
        environment = journal.add_environment({"torch": "2"})
        for seq_len in (1, 2):
            journal.append(
                {**record(case(seq_len=seq_len)), "machine": machine, "environment": environment}
            )
    for name in ("records.jsonl", "machines.jsonl", "environments.jsonl"):
        parts = (tmp_path / name).read_bytes().splitlines(keepends=True)
        marked = [codecs.BOM_UTF8 * (i == place) + part for i, part in enumerate(parts)]
        (tmp_path / name).write_bytes(b"".join(marked))
    run = load(tmp_path)
    assert [r["case"]["seq_len"] for r in run.records] == [1, 2]
    assert (run.machines, run.environments) == (
        {machine: {"cpu": "one"}}, {environment: {"torch": "2"}}
    )  # fmt: skip
    assert run.warnings == ()
    with Journal(tmp_path, resume=True) as journal:
        assert len(journal.done) == 2
        assert (journal.notices, journal.add_machine({"cpu": "one"})) == ([], machine)
    assert len((tmp_path / "machines.jsonl").read_bytes().splitlines()) == 1


def test_each_record_is_on_the_disk_when_append_returns(tmp_path, monkeypatch):
    synced = []
    with Journal(tmp_path) as journal:
        monkeypatch.setattr(
            journal_module.os, "fsync", lambda _: synced.append(len(lines(tmp_path)))
        )
        journal.append(record(case(seq_len=1)))
        journal.append(record(case(seq_len=2)))
        assert synced == [1, 2]
        monkeypatch.undo()


def test_a_record_that_is_none_is_refused_and_not_written(tmp_path):
    with Journal(tmp_path) as journal:
        with pytest.raises(RecordError, match="status"):
            journal.append({**record(case()), "status": "splendid"})
        with pytest.raises(RecordError, match="got nan"):
            journal.append(record(case(), latency=float("nan")))
    assert lines(tmp_path) == []


def test_machines_and_environments_stand_once_by_their_content(tmp_path):
    machine = {"cpu": "x", "cores": 2}
    for resume in (False, True):
        with Journal(tmp_path, resume=resume) as journal:
            addresses = {journal.add_machine(machine) for _ in range(2)}
            assert addresses == {content_id(machine)}
    assert lines(tmp_path, "machines.jsonl") == [{"id": content_id(machine), **machine}]
    with Journal(tmp_path, resume=True) as journal:
        journal.add_machine({"cpu": "y"})
        journal.add_environment({"torch": "1"})
    assert len(lines(tmp_path, "machines.jsonl")) == 2
    assert len(lines(tmp_path, "environments.jsonl")) == 1


def test_a_folder_that_holds_a_run_needs_resume(tmp_path):
    fill(tmp_path, 1)
    with pytest.raises(JournalError, match=r"holds a run; add --resume"):
        fill(tmp_path, 2)
    fill(tmp_path, 2, resume=True)
    assert len(lines(tmp_path)) == 2


def test_resume_on_nothing_starts_fresh(tmp_path):
    fill(tmp_path / "new", 1, resume=True)
    assert len(lines(tmp_path / "new")) == 1


def test_fresh_runs_have_ids_of_their_own(tmp_path):
    runs = set()
    for name in "ab":
        with Journal(tmp_path / name) as journal:
            runs.add(journal.run)
    assert len(runs) == 2


@pytest.mark.parametrize("kept", range(0, 400, 37))
def test_a_torn_last_line_is_cut_off(tmp_path, kept):
    fill(tmp_path, 1, 2)
    file = tmp_path / "records.jsonl"
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + second[:kept])
    with Journal(tmp_path, resume=True) as journal:
        assert journal.done == {(case(seq_len=1).id, 0)}
        assert len(journal.notices) == (1 if kept else 0)
        journal.append(record(case(seq_len=3)))
    assert [r["case"]["seq_len"] for r in lines(tmp_path)] == [1, 3]
    assert len(load(tmp_path).records) == 2


def test_a_last_line_that_lacks_its_end_alone_is_kept(tmp_path):
    fill(tmp_path, 1, 2)
    file = tmp_path / "records.jsonl"
    file.write_bytes(file.read_bytes()[:-1])
    fill(tmp_path, 3, resume=True)
    assert [r["case"]["seq_len"] for r in lines(tmp_path)] == [1, 2, 3]


def test_an_unreadable_line_in_the_middle_is_named_and_its_case_measured_anew(tmp_path):
    fill(tmp_path, 1, 2, 3)
    file = tmp_path / "records.jsonl"
    first, _, third = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + b"\xff\x00 not json\n" + third)
    with Journal(tmp_path, resume=True) as journal:
        assert journal.done == {(case(seq_len=n).id, 0) for n in (1, 3)}
        assert "records.jsonl:2" in journal.notices[0]


def test_a_newer_schema_is_refused(tmp_path):
    fill(tmp_path, 1)
    newer = {**record(case(seq_len=2)), "schema": 99}
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write(json.dumps(newer) + "\n")
    with pytest.raises(JournalError, match="99 is newer"):
        fill(tmp_path, 3, resume=True)


def test_a_second_driver_is_told_who_holds_the_folder(tmp_path):
    program = (
        "import sys, pathlib; from suites.engine.journal import Journal\n"
        "with Journal(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(JournalError, match=f"in use by process {holder.pid}, started 20"):
            fill(tmp_path, 1)
        holder.stdin.close()
        assert holder.wait(10) == 0
    fill(tmp_path, 1)


def test_a_driver_waits_for_a_child_of_the_last_one(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "CHILD_WAIT_S", 0.2)
    with Journal(tmp_path) as journal:
        child = journal.child_lock.open("a")
    fcntl.flock(child, fcntl.LOCK_SH)
    with pytest.raises(JournalError, match="still running"):
        fill(tmp_path, 1)
    child.close()
    fill(tmp_path, 1)


def test_the_childs_lock_is_free_while_the_driver_works(tmp_path):
    with Journal(tmp_path) as journal, journal.child_lock.open("a") as child:
        fcntl.flock(child, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_file_in_the_folders_place_is_one_clear_line(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(JournalError, match=r"--out: .*run: "):
        fill(tmp_path / "run", 1)


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    with Journal(tmp_path) as journal:
        journal._files["records.jsonl"] = open("/dev/full", "wb", buffering=0)  # noqa: PTH123, SIM115
        with pytest.raises(OSError, match="No space left"):
            journal.append(record(case()))
        journal._files["records.jsonl"].close()


def test_a_reopened_launch_gets_its_new_record_in_place_of_the_old(tmp_path):
    fill(tmp_path, 1, 2, 3)
    with Journal(tmp_path, resume=True) as journal:
        journal.reopen([(case(seq_len=2).id, 0)])
        assert journal.done == {(case(seq_len=n).id, 0) for n in (1, 3)}
        assert len(lines(tmp_path)) == 3  # it stands until there is another
        journal.append(record(case(seq_len=2), latency=7.0))
        journal.append(record(case(seq_len=4)))
    assert [r["case"]["seq_len"] for r in lines(tmp_path)] == [1, 3, 2, 4]
    assert lines(tmp_path)[2]["arms"][0]["metrics"]["latency"]["samples"] == [7.0]
    assert load(tmp_path).records[2]["case"]["seq_len"] == 2
    assert not list(tmp_path.glob("*.part"))


def test_a_replacement_that_cannot_be_written_leaves_the_old_record(tmp_path):
    fill(tmp_path, 1, 2)
    before = (tmp_path / "records.jsonl").read_bytes()
    (tmp_path / "records.part").symlink_to("/dev/full")
    with Journal(tmp_path, resume=True) as journal:
        journal.reopen([(case(seq_len=1).id, 0)])
        with pytest.raises(OSError, match=r"No space left on device: '.*records\.jsonl'"):
            journal.append(record(case(seq_len=1), latency=7.0))
    assert (tmp_path / "records.jsonl").read_bytes() == before
    assert not (tmp_path / "records.part").is_symlink()


def test_a_write_that_stops_half_way_tells_why_and_is_mended(tmp_path):
    fill(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "records.jsonl").stat().st_size
    with Journal(tmp_path, resume=True) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
        try:
            with pytest.raises(OSError, match=r"File too large: '.*records\.jsonl'"):
                journal.append(record(case(seq_len=2)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "records.jsonl").stat().st_size == size + 100
    assert len(load(tmp_path).records) == 1
    fill(tmp_path, 2, resume=True)
    assert [r["case"]["seq_len"] for r in lines(tmp_path)] == [1, 2]


def remove(folder):
    shutil.rmtree(folder)


def replace_file(folder):
    (folder / "records.jsonl").unlink()
    (folder / "records.jsonl").write_text("")


def move_away(folder):
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize("spoil", [remove, replace_file, move_away])
def test_a_file_that_left_its_folder_is_noticed(tmp_path, spoil):
    folder = tmp_path / "run"
    with Journal(folder) as journal:
        journal.append(record(case(seq_len=1)))
        spoil(folder)
        with pytest.raises(OSError, match=r"removed or replaced .* is lost: '.*records\.jsonl'"):
            journal.append(record(case(seq_len=2)))


def test_the_names_of_new_folders_are_on_the_disk_too(tmp_path, monkeypatch):
    synced = []
    original = folder_module.sync_folder
    for module in (folder_module, journal_module):
        monkeypatch.setattr(
            module, "sync_folder", lambda path: (synced.append(path), original(path))
        )
    fill(tmp_path / "a" / "b", 1)
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} == set(synced)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_clear_line(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(folder_module.fcntl, "flock", refuse)
    with pytest.raises(JournalError, match=r"--out: .* cannot lock files .* a local disk"):
        fill(tmp_path, 1)


def test_a_lock_file_that_was_left_stops_nobody(tmp_path):
    fill(tmp_path, 1)
    # Its process has ended, or its number is another's by now: what holds is the lock alone.
    for holder in ("process 999999999", f"process {os.getpid()}", "", "\0\xff nonsense"):
        (tmp_path / "lock").write_text(f"{holder}, started 2020-01-01T00:00:00Z\n")
        fill(tmp_path, 2, resume=True)
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()}, started 20")


def test_machines_and_environments_are_on_the_disk_before_the_records(tmp_path, monkeypatch):
    synced = []
    original = os.fsync

    def sync(descriptor):
        original(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    with Journal(tmp_path) as journal:
        monkeypatch.setattr(journal_module.os, "fsync", sync)
        journal.add_machine({"cpu": "x"})
        journal.add_environment({"torch": "1"})
        journal.append(record(case()))
    assert synced == ["machines.jsonl", "environments.jsonl", "records.jsonl"]


# -- provenance ---------------------------------------------------------------------------------


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_commit_is_the_checkouts_and_says_when_it_has_changes(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "v1")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(tmp_path) == head
    (tmp_path / "file").write_text("2")
    assert commit_of(tmp_path) == f"{head}+dirty"


def test_without_a_checkout_it_is_the_installed_version(tmp_path, monkeypatch):
    monkeypatch.setattr("suites.engine.provenance.version", lambda name: f"{name} 1.2")
    assert commit_of(tmp_path) == "attnbench 1.2"
    git(tmp_path, "init", "-q")  # no commit yet
    assert commit_of(tmp_path) == "attnbench 1.2"


def test_a_repository_further_up_is_not_ours(tmp_path, monkeypatch):
    monkeypatch.setattr("suites.engine.provenance.version", lambda _: "1.2")
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "somebody's")
    (tmp_path / "site-packages").mkdir()
    assert commit_of(tmp_path / "site-packages") == "1.2"
