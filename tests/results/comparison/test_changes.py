"""Two runs compared: ratios, verdicts over the whole table, and what may not be compared."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from results.analysis.analysis import Analysis
from results.analysis.selection import parse
from results.analysis.series import points
from results.chapters.environment.facts import provenance
from results.comparison.backend_changes import EVERY
from results.comparison.changes import Comparison
from results.comparison.compare import compare
from results.comparison.pairing import IncomparableError, Side
from results.comparison.text import as_json, markdown, text
from results.comparison.verdicts import verdict_of
from results.comparison.words import headline
from results.records.load import load
from results.schema import MEASUREMENT, RECORDS
from results.statistics.intervals import Estimate

SMALL: dict[str, Any] = {
    "lengths": (512, 1024, 2048), "modes": ("forward",), "roof": None, "launches": 5,
}  # fmt: skip
LAWS = {n: synthetic.SEVEN[n] for n in ("full", "sdpa", "longformer", "bigbird", "performer")}


def both(
    tmp_path: Path,
    laws: Mapping[str, synthetic.Law] = LAWS,
    *,
    options: Mapping[str, Any] | None = None,
    **new: Any,
) -> Comparison:
    base = synthetic.write_run(tmp_path / "a", LAWS, **SMALL, seed=1)
    other = synthetic.write_run(tmp_path / "b", laws, **{**SMALL, "seed": 2, "run": "r2", **new})
    return compare(load(base), load(other), **(options or {}))


def slowed(name: str, factor: float) -> dict[str, synthetic.Law]:
    law = LAWS[name]
    return {**LAWS, name: replace(law, coefficient=law.coefficient * factor)}


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {c.name: c.verdict for c in comparison.changes}


def test_the_same_code_has_no_regression(tmp_path: Path) -> None:
    got = both(tmp_path)
    assert len(got.changes) == 15
    assert got.regressions == []
    for change in got.changes:
        assert change.ratio.low < change.ratio.value < change.ratio.high
        assert change.pairs == 0


def test_a_slower_case_is_found_and_a_faster_one(tmp_path: Path) -> None:
    got = verdicts(
        both(tmp_path, {**slowed("sdpa", 1.4), **{"full": slowed("full", 0.6)["full"]}})
    )
    for n in SMALL["lengths"]:
        assert got[f"sdpa forward N={n}"] == "worse"
        assert got[f"full forward N={n}"] == "better"
        assert got[f"longformer forward N={n}"] in ("inconclusive", "no change")


def test_the_ratio_is_new_over_base(tmp_path: Path) -> None:
    got = both(tmp_path, slowed("sdpa", 1.4))
    change = next(c for c in got.changes if c.name == "sdpa forward N=1024")
    logs = [np.mean(np.log(side.launches)) for side in (change.base, change.new)]
    assert change.ratio.value == pytest.approx(math.exp(logs[1] - logs[0]))
    assert 1.3 < change.ratio.value < 1.5


def test_quiet_runs_show_that_nothing_changed(tmp_path: Path) -> None:
    base = synthetic.write_run(tmp_path / "a", LAWS, **SMALL, noise=0.002)
    new = synthetic.write_run(tmp_path / "b", LAWS, **SMALL, noise=0.002, seed=5, run="r2")
    got = compare(load(base), load(new))
    assert set(verdicts(got).values()) == {"no change"}
    assert got.suspects == []


def test_a_change_below_the_threshold_is_none(tmp_path: Path) -> None:
    base = synthetic.write_run(tmp_path / "a", LAWS, **SMALL, noise=0.001, sample_noise=0.001)
    new = synthetic.write_run(
        tmp_path / "b", slowed("sdpa", 1.02), **SMALL, noise=0.001, sample_noise=0.001, seed=5,
        run="r2",
    )  # fmt: skip
    assert compare(load(base), load(new)).regressions == []
    strict = compare(load(base), load(new), threshold=0.01)
    assert {c.name.split()[0] for c in strict.regressions} == {"sdpa"}


def test_one_launch_has_a_ratio_and_no_verdict(tmp_path: Path) -> None:
    got = both(tmp_path, slowed("sdpa", 1.5), launches=1)
    assert set(verdicts(got).values()) == {"inconclusive"}
    assert all(c.reason == "one process: no interval" for c in got.changes)
    assert len(got.suspects) == 15


@pytest.mark.parametrize(
    ("case", "measurement", "factor", "verdict"),
    [
        ({}, 3, 1.5, "inconclusive"),
        ({}, 3, 3.5, "worse"),  # no layout does that
        ({"allocator": "retained"}, 3, 1.5, "worse"),  # pages stay
        ({"device": "cuda"}, 3, 1.5, "worse"),
        ({}, 4, 1.5, "worse"),  # the heap is settled
    ],
)
def test_few_launches_may_share_a_layout_of_memory(
    tmp_path: Path, case: dict[str, Any], measurement: int, factor: float, verdict: str
) -> None:
    few: dict[str, Any] = {
        **SMALL, "launches": 3, "case": case, "noise": 0.01, "measurement": measurement,
    }  # fmt: skip
    base = synthetic.write_run(tmp_path / "a", LAWS, **few)
    new = synthetic.write_run(tmp_path / "b", slowed("sdpa", factor), **few, seed=3, run="r2")
    got = compare(load(base), load(new))
    found = next(c for c in got.changes if c.name == "sdpa forward N=1024")
    assert found.verdict == verdict
    assert ("3 processes may share a memory layout" in found.reason) == (verdict == "inconclusive")
    assert (found in got.suspects) == (verdict in ("worse", "inconclusive"))


def test_layouts_do_not_matter_to_memory(tmp_path: Path) -> None:
    more = {**LAWS, "full": replace(LAWS["full"], memory=(80.0, 2.0))}
    got = both(tmp_path, more, launches=3, options={"metric": "peak_memory"})
    assert verdicts(got)["full forward N=2048"] == "worse"


@pytest.mark.parametrize("status", ["failed", "crashed", "out_of_memory"])
def test_a_case_that_broke_is_a_regression(tmp_path: Path, status: str) -> None:
    law = replace(LAWS["sdpa"], fails={1024: (status, "boom")})
    got = both(tmp_path, {**LAWS, "sdpa": law})
    (broken,) = got.regressions
    assert (broken.verdict, broken.reason) == ("fails", f"{status}: boom")


@pytest.mark.parametrize("status", ["timeout", "not_run", "unsupported"])
def test_a_case_that_was_not_measured_is_no_regression(tmp_path: Path, status: str) -> None:
    law = replace(LAWS["sdpa"], fails={1024: (status, "too slow")})
    got = both(tmp_path, {**LAWS, "sdpa": law})
    assert got.regressions == []
    change = next(c for c in got.changes if c.name == "sdpa forward N=1024")
    assert (change.verdict, change.reason) == ("inconclusive", f"new: {status} (too slow)")
    assert change in got.suspects


def test_what_neither_run_measured_is_left_out_and_counted(tmp_path: Path) -> None:
    laws = {**LAWS, "xformers": synthetic.SEVEN["xformers"]}
    base = synthetic.write_run(tmp_path / "a", laws, **SMALL)
    new = synthetic.write_run(tmp_path / "b", laws, **SMALL, run="r2", seed=2)
    got = compare(load(base), load(new))
    assert len(got.changes) == 15
    assert "3 cases without latency in either run: not compared" in got.notes


def test_a_metric_that_no_case_has_is_misuse(tmp_path: Path) -> None:
    laws = {"xformers": synthetic.Law(1, 1, fails={512: ("unsupported", "no CUDA")})}
    runs = [
        load(synthetic.write_run(tmp_path / n, laws, **{**SMALL, "lengths": (512,)}, run=n))
        for n in "ab"
    ]
    with pytest.raises(IncomparableError, match="none of the 1 case in both runs has latency"):
        compare(*runs)
    with pytest.raises(IncomparableError, match="shares no case with state bytes"):
        both(tmp_path / "c", options={"metric": "state_bytes"})


def test_launches_that_failed_beside_good_ones_are_said(tmp_path: Path) -> None:
    base = synthetic.write_run(tmp_path / "a", LAWS, **SMALL)
    new = synthetic.write_run(tmp_path / "b", LAWS, **SMALL, seed=2, run="r2")
    records = [json.loads(line) for line in (new / RECORDS).read_text().splitlines()]
    for record in records:
        case = record["case"]
        of = case["arms"][0]["name"], case["seq_len"]
        if of == ("sdpa", 512) and record["launch"]["index"] < 2:
            record.update(status="crashed", reason="boom", arms=[])
    (new / RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records))
    got = compare(load(base), load(new))
    change = next(c for c in got.changes if c.name == "sdpa forward N=512")
    assert change.new.reason == "2 of 5 processes crashed"
    assert "new: 2 of 5 processes crashed" in text(got)
    assert change in got.suspects


def test_few_cases_do_not_tell_what_runs_differ_by(tmp_path: Path) -> None:
    few: dict[str, Any] = {**SMALL, "lengths": (512,), "noise": 0.002}
    laws = {n: LAWS[n] for n in ("full", "sdpa")}
    slow = {**laws, "sdpa": replace(laws["sdpa"], coefficient=1.3 * laws["sdpa"].coefficient)}
    base = synthetic.write_run(tmp_path / "a", laws, **few)
    new = synthetic.write_run(tmp_path / "b", slow, **few, seed=2, run="r2")
    got = compare(load(base), load(new))
    assert got.regressions == []
    change = next(c for c in got.changes if c.name.startswith("sdpa"))
    assert change.reason == (
        "2 cases: too few to know the noise between runs; needs 5, or --confirm"
    )
    assert change in got.suspects


def test_cases_of_one_run_alone_are_counted(tmp_path: Path) -> None:
    got = both(tmp_path, {k: v for k, v in LAWS.items() if k != "full"}, lengths=(512, 1024, 4096))
    assert "7 cases of BASE alone: not compared" in got.notes
    assert "4 cases of NEW alone: not compared" in got.notes


def test_memory_is_compared_and_differences_below_its_resolution_are_none(tmp_path: Path) -> None:
    more = {
        **LAWS,
        "full": replace(LAWS["full"], memory=(80.0, 2.0)),
        "longformer": replace(LAWS["longformer"], memory=(5100.0, 1.0)),
    }
    got = both(tmp_path, more, options={"metric": "peak_memory"})
    found = verdicts(got)
    assert found["full forward N=2048"] == "worse"
    assert got.word("worse") == "larger"
    assert found["longformer forward N=2048"] == "no change"
    assert found["sdpa forward N=2048"] == "no change"


def test_layer_cases_compare_the_backend_and_not_the_floor(tmp_path: Path) -> None:
    layer: dict[str, Any] = {
        **SMALL, "floor": synthetic.Law(1e-8, 1.0), "case": {"level": "layer"},
    }  # fmt: skip
    base = synthetic.write_run(tmp_path / "a", LAWS, **layer)
    new = synthetic.write_run(tmp_path / "b", LAWS, **layer, seed=2, run="r2")
    got = compare(load(base), load(new))
    assert {c.arm for c in got.changes} == {0}
    assert len(got.changes) == 15


def test_only_equal_cases_are_compared(tmp_path: Path) -> None:
    with pytest.raises(IncomparableError, match="shares no case"):
        both(tmp_path, case={"threads": 7})


def test_versions_of_the_measuring_code_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(IncomparableError, match="of the measuring code, NEW by version"):
        both(tmp_path, measurement=MEASUREMENT + 1)


def test_two_machines_are_compared_with_a_warning(tmp_path: Path) -> None:
    got = both(tmp_path, machine={**synthetic.MACHINE, "cpu": "Another CPU"})
    assert ("machine", "Example CPU 2.5 GHz", "Another CPU") in got.differences
    assert any("two machines" in note for note in got.notes)


def test_versions_of_plugins_are_differences(tmp_path: Path) -> None:
    plugins = {
        "backend a": "a.py sha256-000000000000",
        "backend longformer": "b 1 sha256-111111111111",
    }
    base, new = (
        synthetic.write_run(
            tmp_path / run, LAWS, **SMALL, run=run,
            environment={**synthetic.ENVIRONMENT, "plugins": plugins | changed},
        )
        for run, changed in (("a", {}), ("b", {"backend longformer": "b 2 sha256-222222222222"}))
    )  # fmt: skip
    got = compare(load(base), load(new))
    assert got.differences == (
        ("backend longformer", plugins["backend longformer"], "b 2 sha256-222222222222"),
    )
    assert len(got.changes) == 15
    assert not any("@" in change.name for change in got.changes)
    both_in_one = load(base, new)  # never pooled: two environments, and two names
    found = {name for name in both_in_one.frame["backend"] if name.startswith("longformer")}
    assert found == {"longformer@111111", "longformer@222222"}
    assert set(map(len, points(both_in_one)["launches"])) == {SMALL["launches"]}
    facts = [f for f in provenance(Analysis(both_in_one)) if f.title == "Environment"]
    assert ("plugins", ", ".join(f"{k} of {v}" for k, v in plugins.items())) in facts[0].pairs


def test_of_several_machines_each_is_compared_with_itself(tmp_path: Path) -> None:
    other = {**synthetic.MACHINE, "cpu": "Another CPU"}
    folders = {}
    for name, seed in (("a", 1), ("b", 2)):
        for index, machine in enumerate((synthetic.MACHINE, other)):
            laws = slowed("sdpa", 1.5) if (name, index) == ("b", 1) else LAWS
            folders[name, index] = synthetic.write_run(
                tmp_path / f"{name}{index}", laws, **SMALL, seed=seed + index, machine=machine,
                run=f"{name}{index}",
            )  # fmt: skip
    base, new = (load(folders[n, 0], folders[n, 1]) for n in "ab")
    got = compare(base, new)
    assert len(got.changes) == 30
    assert len(got.regressions) == 3
    third = synthetic.write_run(
        tmp_path / "c", LAWS, **SMALL, machine={**synthetic.MACHINE, "cpu": "A third"}
    )
    with pytest.raises(IncomparableError, match="none of its 1 machines"):
        compare(base, load(third))


def test_two_environments_of_one_machine_are_refused(tmp_path: Path) -> None:
    one = synthetic.write_run(tmp_path / "a", LAWS, **SMALL)
    two = synthetic.write_run(
        tmp_path / "b", LAWS, **SMALL, run="r2",
        environment={**synthetic.ENVIRONMENT, "torch": "9"},
    )  # fmt: skip
    with pytest.raises(IncomparableError, match=r"NEW: machine .* 2 environments; expected one"):
        compare(load(one), load(one, two))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "speed"}, "metric: expected one of latency"),
        ({"threshold": 0.0}, "threshold: expected a fraction"),
        ({"threshold": math.nan}, "threshold: expected a fraction"),
    ],
)
def test_misuse_names_what_is_accepted(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        both(tmp_path, options=options)


# -- the machine between the runs ----------------------------------------------------------------


def add_sentinels(folder: Path, seconds: float) -> None:
    records = [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]
    case = synthetic._case("sentinel", {}, 512, {}, kind="sentinel").to_json()
    latency = {"unit": "s", "samples": [seconds], "cache": "warm"}
    with (folder / RECORDS).open("a") as file:
        for index in range(5):
            record = {
                **records[0], "case": case, "launch": {**records[0]["launch"], "index": index},
                "arms": [{"metrics": {"latency": latency}}],
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")


def test_what_the_sentinel_shares_is_the_machines_and_no_regression(tmp_path: Path) -> None:
    slow = {n: replace(law, coefficient=1.3 * law.coefficient) for n, law in LAWS.items()}
    found = {}
    for name, moved in (("machine", 1.3), ("code", 1.0)):
        base = synthetic.write_run(tmp_path / f"a{name}", LAWS, **SMALL)
        new = synthetic.write_run(tmp_path / f"b{name}", slow, **SMALL, seed=3, run="r2")
        add_sentinels(base, 0.01)
        add_sentinels(new, 0.01 * moved)
        found[name] = compare(load(base), load(new))
    assert found["machine"].regressions == []
    assert any(
        "the control benchmark" in note and "30%" in note for note in found["machine"].notes
    )
    assert len(found["code"].regressions) == 15
    assert found["code"].notes == ()


def test_without_a_sentinel_what_most_cases_share_is_no_regression(tmp_path: Path) -> None:
    slow = {n: replace(law, coefficient=1.3 * law.coefficient) for n, law in LAWS.items()}
    got = both(tmp_path, slow)
    assert got.regressions == []
    assert len(got.suspects) == 15
    assert any("share no control benchmark" in note for note in got.notes)


# -- whole backends ------------------------------------------------------------------------------

NOISY: dict[str, Any] = {
    "lengths": (512, 1024, 2048, 4096, 8192), "roof": None, "launches": 3, "noise": 0.15,
}  # fmt: skip
SIX = {n: replace(synthetic.SEVEN[n], fails={}) for n in (*LAWS, "linformer")}


def times(laws: Mapping[str, synthetic.Law], factor: float) -> dict[str, synthetic.Law]:
    return {n: replace(law, coefficient=factor * law.coefficient) for n, law in laws.items()}


def noisy(
    tmp_path: Path,
    laws: Mapping[str, synthetic.Law],
    *,
    moved: float | None = None,
    **options: Any,
) -> Comparison:
    """Compare six backends with others; with a sentinel that moved by a factor, if at all."""
    base = synthetic.write_run(tmp_path / "a", SIX, **NOISY, seed=11)
    new = synthetic.write_run(tmp_path / "b", laws, **NOISY, seed=12, run="r2")
    if moved is not None:
        add_sentinels(base, 0.01)
        add_sentinels(new, 0.01 * moved)
    return compare(load(base), load(new), **options)


def test_a_backend_slower_in_all_its_cases_is_found_where_no_case_is(tmp_path: Path) -> None:
    got = noisy(tmp_path, {**SIX, **times({"sdpa": SIX["sdpa"]}, 1.3)})
    assert set(verdicts(got).values()) == {"inconclusive"}
    assert {b.backend for b in got.worse_backends} == {"sdpa"}
    assert got.is_regression
    whole = next(b for b in got.backends if b.name == "sdpa")
    assert whole.cases == 10
    for found in (whole.ratio, whole.apart):
        assert found.low < 1.3 < found.high
        assert found.low > 1
    told = text(got).splitlines()
    assert next(line for line in told if " sdpa " in line).startswith("slower")
    assert "; sdpa slower (latency" in told[-1]
    assert markdown(got).startswith("### attnbench: a regression")
    assert headline(got) == "sdpa became worse over its cases"
    assert got.count("inconclusive") == 60


def test_what_all_backends_share_is_the_machines_unless_its_sentinel_stayed(
    tmp_path: Path,
) -> None:
    alike = {
        name: noisy(tmp_path / name, times(SIX, 1.3), moved=moved)
        for name, moved in (("unknown", None), ("machine", 1.3), ("code", 1.0))
    }
    for name, got in alike.items():
        assert {b.backend for b in got.worse_backends} <= {EVERY}, name
    every = {name: next(b for b in got.backends if b.backend == EVERY)
             for name, got in alike.items()}  # fmt: skip
    assert {name: row.verdict for name, row in every.items()} == {
        "unknown": "inconclusive", "machine": "inconclusive", "code": "worse",
    }  # fmt: skip
    assert every["unknown"].reason == "no control benchmark"
    assert every["machine"].ratio.value == pytest.approx(1.3, rel=0.15)
    assert every["machine"].apart.value == pytest.approx(1.0, rel=0.15)
    assert "every backend became worse over its cases" in headline(alike["code"])


def test_a_backend_that_others_overtook_is_not_slower(tmp_path: Path) -> None:
    faster = {**times(SIX, 1 / 1.5), "sdpa": SIX["sdpa"]}
    got = noisy(tmp_path, faster, moved=1.0)
    assert got.worse_backends == []


@pytest.mark.parametrize("names", [("sdpa",), ("sdpa", "full")])
def test_few_backends_are_held_against_the_sentinel(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    few = {n: SIX[n] for n in names}
    found = {}
    for name, moved in (("none", None), ("stayed", 1.0), ("moved", 1.3)):
        base = synthetic.write_run(tmp_path / f"a{name}", few, **NOISY, seed=1)
        new = synthetic.write_run(
            tmp_path / f"b{name}", times(few, 1.3), **NOISY, seed=2, run="r2"
        )
        if moved is not None:
            add_sentinels(base, 0.01)
            add_sentinels(new, 0.01 * moved)
        found[name] = compare(load(base), load(new))
    assert {b.reason for b in found["none"].backends} == {"no control benchmark"}
    assert found["none"].worse_backends == found["moved"].worse_backends == []
    assert {b.backend for b in found["stayed"].worse_backends} == set(names)


def test_memory_of_a_backend_needs_no_sentinel(tmp_path: Path) -> None:
    more = {**SIX, "full": replace(SIX["full"], memory=(80.0, 2.0))}
    got = noisy(tmp_path, more, metric="peak_memory")
    assert {b.backend for b in got.worse_backends} == {"full"}
    assert {b.verdict for b in got.backends if b.backend != "full"} == {"no change"}


def test_undecided_is_never_called_fine(tmp_path: Path) -> None:
    got = noisy(tmp_path, SIX)
    assert not got.is_regression
    # Of one case the interval ends below the threshold: that it is slower is ruled out.
    assert headline(got).startswith("undecided: 59 of 60 cases; a change of ")
    assert " % in a whole backend could have been seen (median); " in headline(got)
    assert headline(got).endswith("more --launches, or --confirm, can decide more")
    assert markdown(got).startswith("### attnbench: undecided: 59 of 60 cases\n")
    assert "no change could" not in headline(got)
    measured = tuple(replace(c, pairs=40) for c in got.changes)
    assert headline(replace(got, changes=measured)).endswith("a quieter machine can decide more")
    told = json.loads(as_json(got))
    assert (told["regression"], told["undecided"]) == (False, 59)
    assert told["headline"] == headline(got)
    one = both(tmp_path / "one", launches=1)
    assert "no change could have been seen" in headline(one)


def test_a_base_that_measured_nothing_is_not_called_fine(tmp_path: Path) -> None:
    got = both(tmp_path)
    gone = tuple(replace(c, base=Side((), "crashed", "boom")) for c in got.changes)
    told = headline(replace(got, changes=tuple(replace(c, verdict="inconclusive") for c in gone)))
    assert told == "nothing to compare with: BASE measured none of 15 cases"


def test_the_smallest_change_that_could_have_been_seen_is_seen(tmp_path: Path) -> None:
    got = both(tmp_path, noise=0.01)
    for change in got.changes:
        half = change.ratio.high / change.ratio.value
        assert change.smallest > max(half, 1.03)
    for of_backend in got.backends:
        if of_backend.backend != EVERY:
            half = of_backend.apart.high / of_backend.apart.value
            assert of_backend.smallest > max(half, 1.03)
    told = json.loads(as_json(got))
    assert all(c["smallest_seen"] > 1.03 for c in told["cases"])


# -- thresholds and cases by choice --------------------------------------------------------------


def test_a_backend_has_a_threshold_of_its_own(tmp_path: Path) -> None:
    slow = slowed("sdpa", 1.4)
    got = both(tmp_path, slow, options={"thresholds": {"sdpa": 0.6}})
    assert got.regressions == []
    assert {c.threshold for c in got.changes if c.backend == "sdpa"} == {0.6}
    assert {c.threshold for c in got.changes if c.backend != "sdpa"} == {0.03}
    assert got.worse_backends == []
    assert "changes of at least 3.0 %, of sdpa 60 %)" in text(got)
    strict = both(tmp_path / "b", slow, options={"threshold": 0.6, "thresholds": {"sdpa": 0.05}})
    assert {c.backend for c in strict.regressions} == {"sdpa"}
    with pytest.raises(ValueError, match="threshold: no case of NEW is of sdp; there are full"):
        both(tmp_path / "c", slow, options={"thresholds": {"sdp": 0.6}})
    with pytest.raises(ValueError, match="threshold: expected a fraction"):
        both(tmp_path / "d", slow, options={"thresholds": {"sdpa": 0.0}})


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        (["backend=sdpa"], 3),
        (["backend=sdpa", "backend=full"], 6),
        (["backend=sdpa,full", "seq-len=512,1024"], 4),
        (["seq_len=2048", "mode=forward", "causal=off", "dtype=float32", "threads=2"], 5),
    ],
)
def test_cases_are_chosen_by_the_words_of_the_options(
    tmp_path: Path, texts: list[str], count: int
) -> None:
    got = both(tmp_path, slowed("sdpa", 1.4), options={"only": parse(texts)})
    assert len(got.changes) == count
    assert f"{15 - count} cases not chosen by --only: not judged" in got.notes
    assert EVERY not in {b.backend for b in got.backends}
    # The others still tell what the machine did: sdpa alone is slower.
    if texts == ["backend=sdpa"]:
        assert set(verdicts(got).values()) == {"worse"}
        assert [b.name for b in got.worse_backends] == ["sdpa forward"]


def test_a_backend_with_options_is_chosen_by_name_and_as_a_whole(tmp_path: Path) -> None:
    wide = replace(LAWS["longformer"], name="longformer", options={"window": 64, "dilation": 2})
    laws = {**LAWS, "wide": wide}
    runs = [load(synthetic.write_run(tmp_path / n, laws, **SMALL, run=n)) for n in "ab"]
    label = "longformer:dilation=2,window=64"
    for chosen, count in (("longformer", 6), (label, 3)):
        got = compare(*runs, only=parse([f"backend={chosen}"]), thresholds={label: 0.2})
        assert len(got.changes) == count
        assert {c.threshold for c in got.changes if c.backend == label} == {0.2}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["backend=sdp"], "only: no case in both runs has backend=sdp; there are full, sdpa"),
        (["seq-len=512", "seq-len=7"], "only: no case in both runs has seq-len=7; there are 512"),
        (["sequence=512"], "expected NAME=VALUE,… with NAME of backend, mode, level, seq-len"),
        (["mode="], "expected NAME=VALUE,…, got 'mode='"),
    ],
)
def test_a_choice_that_chooses_nothing_says_what_there_is(
    tmp_path: Path, texts: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        both(tmp_path, options={"only": parse(texts)})


# -- verdicts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "is_certain", "verdict"),
    [
        (Estimate(1.10, 1.05, 1.15), True, "worse"),
        (Estimate(1.10, 1.05, 1.15), False, "inconclusive"),
        (Estimate(1.02, 1.01, 1.028), True, "no change"),
        (Estimate(1.02, 1.01, 1.05), True, "inconclusive"),
        (Estimate(0.90, 0.85, 0.95), True, "better"),
        (Estimate(1.00, 0.98, 1.02), False, "no change"),
        (Estimate(1.00, 0.90, 1.11), False, "inconclusive"),
        (Estimate(1.50, math.nan, math.nan), False, "inconclusive"),
    ],
)
def test_verdicts_of_ratios(ratio: Estimate, is_certain: bool, verdict: str) -> None:
    assert verdict_of(ratio, is_certain, 0.03) == verdict


def test_false_alarms_are_rare_where_launches_and_runs_scatter(tmp_path: Path) -> None:
    """Noise of 5 % between launches, 3 % between runs, and bursts."""
    rng = np.random.default_rng(1)
    law = synthetic.Law(1e-6, 1.0)
    alarms = cases = 0
    for table in range(12):
        runs = []
        for side in "ab":
            laws = {
                f"b{i}": replace(law, coefficient=1e-6 * math.exp(0.03 * rng.standard_normal()))
                for i in range(30)
            }
            folder = synthetic.write_run(
                tmp_path / f"{side}{table}", laws, lengths=(512,), modes=("forward",), roof=None,
                noise=0.05, seed=int(rng.integers(2**31)), run=side,
            )  # fmt: skip
            runs.append(load(folder))
        got = compare(*runs)
        alarms += len(got.regressions)
        cases += len(got.changes)
    assert cases == 360
    assert alarms == 0


# -- how it is told ------------------------------------------------------------------------------


def test_json_holds_the_launches_and_the_verdicts(tmp_path: Path) -> None:
    got = both(tmp_path, slowed("sdpa", 1.4), environment={**synthetic.ENVIRONMENT, "torch": "9"})
    told = json.loads(as_json(got))
    assert told["regression"] is True
    assert told["differences"] == [{"name": "torch", "base": "2.13.0", "new": "9"}]
    slower = [c for c in told["cases"] if c["verdict"] == "slower"]
    assert {c["name"] for c in slower} == {f"sdpa forward N={n}" for n in SMALL["lengths"]}
    assert all(len(c["base"]) == len(c["new"]) == 5 for c in told["cases"])


def test_text_counts_and_puts_what_is_worse_first(tmp_path: Path) -> None:
    lines = text(both(tmp_path, slowed("sdpa", 1.4))).splitlines()
    rows = [line for line in lines if " forward N=" in line]
    assert all(row.startswith("slower") for row in rows[:3])
    assert len(rows) == 15
    assert lines[-1].startswith("3 slower, 0 faster, ")


def test_markdown_escapes_and_folds(tmp_path: Path) -> None:
    law = replace(LAWS["sdpa"], fails={1024: ("crashed", "<img src=x> | `boom`")})
    page = markdown(both(tmp_path, {**LAWS, "sdpa": law}))
    assert page.startswith("### attnbench: a regression")
    assert "&lt;img src=x&gt; \\| \\`boom\\`" in page
    assert "<details>" in page
    table = [line for line in page.splitlines() if line.startswith("|") and " N=" in line]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
