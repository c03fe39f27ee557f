from __future__ import annotations

from pathlib import Path

import pytest

from results.schema import CONDITIONS, canonical
from suites.machine import disturbances
from suites.measure.conditions import (
    LEAST_TICKS,
    Ticks,
    Watch,
    frequency,
    gpu_conditions,
    processor_time,
    throttles,
    ticks,
)
from suites.measure.machine import as_ranges, turbo

TICK = 0.01
"""Seconds; what ``sysconf`` says on Linux."""


@pytest.fixture(autouse=True)
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    monkeypatch.setattr("psutil.PROCFS_PATH", str(tmp_path))


def write(folder: Path, path: str, text: str) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_ticks_are_those_of_all_processors(tmp_path: Path):
    assert ticks() is None
    write(tmp_path, "stat", "cpu  100 20 30 9999 777 1 2 50 60 7\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    assert ticks() == Ticks(busy=pytest.approx(1.53), stolen=0.5)


def test_others_are_what_was_busy_without_this_process():
    before, now = Ticks(10.0, 1.0), Ticks(13.5, 1.25)
    told = processor_time(before, now, own_s=2.5, wall_s=2.0)
    assert told == {"steal": 0.125, "other_cpu": 0.5}
    # ticks are coarser than this process's own time
    assert processor_time(before, now, own_s=4.0, wall_s=2.0)["other_cpu"] == 0.0
    nothing = {"steal": None, "other_cpu": None}
    assert processor_time(None, now, own_s=0.0, wall_s=2.0) == nothing
    assert processor_time(before, now, own_s=0.0, wall_s=0.9 * LEAST_TICKS * TICK) == nothing


def test_throttles_of_all_processors_are_added_up(tmp_path: Path):
    assert throttles(tmp_path) is None
    for name, text in (
        ("cpu0/thermal_throttle/core_throttle_count", "3\n"),
        ("cpu1/thermal_throttle/core_throttle_count", "4\n"),
        ("cpu1/thermal_throttle/package_throttle_count", "1\n"),
        ("cpu1/thermal_throttle/core_throttle_max_time_ms", "900\n"),
        ("cpufreq/thermal_throttle/core_throttle_count", "50\n"),
    ):
        write(tmp_path, f"devices/system/cpu/{name}", text)
    assert throttles(tmp_path) == 8


def test_frequency_is_what_the_system_scales_to_else_what_it_shows(tmp_path: Path):
    assert frequency(tmp_path, tmp_path) is None
    write(tmp_path, "cpuinfo", "cpu MHz\t\t: 2000.5\nx : 1\ncpu MHz\t\t: 3000.5\n")
    assert frequency(tmp_path, tmp_path) == 2500.5e6
    for cpu, kilohertz in ((0, 1_000_000), (1, 3_000_000)):
        write(tmp_path, f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", f"{kilohertz}\n")
    assert frequency(tmp_path, tmp_path) == 2e9


def test_a_watch_tells_what_changed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    count = "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    clock = iter([100.0, 102.0])
    monkeypatch.setattr("suites.measure.conditions.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("suites.measure.conditions.time.process_time", lambda: 5.0)
    write(tmp_path, "stat", "cpu  100 0 0 0 0 0 0 10 0 0\n")
    write(tmp_path, count, "7")
    watch = Watch("cpu", proc=tmp_path, sys=tmp_path)
    write(tmp_path, "stat", "cpu  200 0 0 0 0 0 0 30 0 0\n")
    write(tmp_path, count, "9")
    told = watch.conditions()
    assert set(told) == {*CONDITIONS, "gpu_throttled"}
    assert (told["steal"], told["other_cpu"], told["throttled"]) == (0.1, 0.5, 2)
    assert told["frequency"] is told["gpu_users"] is None
    assert told["gpu_throttled"] == []


def test_a_watch_survives_a_system_that_tells_nothing(tmp_path: Path):
    told = Watch("cpu", proc=tmp_path, sys=tmp_path).conditions()
    assert {key for key, value in told.items() if value is None} == set(CONDITIONS) - {"switches"}
    assert canonical(told)


# -- the GPU -------------------------------------------------------------------------------------


def asked(users: str | None, gpu: dict[str, str]):
    def ask(query: str, *_: str) -> str | None:
        if query.startswith("--query-compute-apps"):
            return users
        return next((text for word, text in gpu.items() if word in query), None)

    return ask


def test_a_gpus_conditions_are_read_from_nvidia_smi():
    told = gpu_conditions(asked("101\n202\n", {"event": "61, 1980, 0x0000000000000044\n"}))
    assert told == {
        "gpu_users": 1, "gpu_temperature": 61.0, "gpu_frequency": 1.98e9,
        "gpu_throttled": ["software power cap", "hardware thermal slowdown"],
    }  # fmt: skip


def test_an_older_driver_is_asked_in_its_words_and_idling_is_no_throttling():
    told = gpu_conditions(asked("", {"throttle": "[N/A], 345, 0x0000000000000001\n"}))
    assert told == {
        "gpu_users": 0, "gpu_temperature": None, "gpu_frequency": 345e6, "gpu_throttled": []
    }  # fmt: skip


def test_without_nvidia_smi_nothing_is_told_of_a_gpu():
    told = gpu_conditions(asked(None, {}))
    assert list(told.values()) == [None, None, None, []]


# -- the machine and the doctor ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "text"), [({0, 1, 2, 3}, "0-3"), ({5, 0, 2, 3}, "0,2-3,5"), ({7}, "7"), ((), "")]
)
def test_processors_are_written_as_ranges(numbers: set[int], text: str):
    assert as_ranges(numbers) == text


def test_turbo_is_read_where_the_system_tells(tmp_path: Path):
    assert turbo(tmp_path) is None
    write(tmp_path, "cpufreq/boost", "1\n")
    assert turbo(tmp_path) is True
    write(tmp_path, "intel_pstate/no_turbo", "1\n")
    assert turbo(tmp_path) is False


def test_doctor_says_what_to_do_about_clocks(tmp_path: Path):
    (hidden,) = disturbances.clocks(proc=tmp_path, sys=tmp_path)
    assert (hidden.level, hidden.advice) == (
        "note",
        "take several processes per case: --launches 3",
    )
    cpus = "devices/system/cpu"
    write(tmp_path, f"{cpus}/cpu0/cpufreq/scaling_governor", "powersave\n")
    write(tmp_path, f"{cpus}/cpu0/cpufreq/scaling_cur_freq", "1200000\n")
    write(tmp_path, f"{cpus}/cpufreq/boost", "1\n")
    scaled, boosted = disturbances.clocks(proc=tmp_path, sys=tmp_path)
    assert scaled.level == "problem"
    assert scaled.text == "governor powersave; now 1.20 GHz on average"
    assert "cpupower" in scaled.advice
    assert boosted.level == "note"
    assert "echo 0 >" in boosted.advice


def test_doctor_says_what_to_do_about_throttling(tmp_path: Path):
    assert disturbances.throttling(sys=tmp_path)[0].level == "note"
    file = "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    write(tmp_path, file, "0")
    assert disturbances.throttling(sys=tmp_path)[0].level == "fine"
    write(tmp_path, file, "12")
    (hot,) = disturbances.throttling(sys=tmp_path)
    assert (hot.level, "12 times" in hot.text, "cool" in hot.advice) == ("note", True, True)


@pytest.mark.parametrize(("stolen", "level"), [(1, "fine"), (10, "problem")])
def test_doctor_watches_what_is_stolen(tmp_path: Path, stolen, level, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    write(tmp_path, "stat", "cpu  100 0 0 0 0 0 0 10 0 0\n")

    def wait(_: float) -> None:
        write(tmp_path, "stat", f"cpu  100 0 0 0 0 0 0 {10 + stolen} 0 0\n")

    (found,) = disturbances.steal(wait=wait)
    assert found.level == level
    assert bool(found.advice) == (level == "problem")


def test_doctor_notes_fewer_processors_and_other_users_of_the_gpu():
    assert disturbances.affinities(4, 4)[0].level == "fine"
    (bound,) = disturbances.affinities(2, 4)
    assert (bound.level, "2 of 4" in bound.text) == ("note", True)
    levels = [disturbances.gpu_users(asked(text, {}))[0].level for text in (None, "", "1\n")]
    assert levels == ["note", "fine", "problem"]
