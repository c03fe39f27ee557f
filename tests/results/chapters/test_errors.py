"""Error at a budget on the page, from records whose truth is known."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import synthetic_quality as made
from helpers_page import unscripted

from results.chapters.error.figures import against_cost, against_length, caption
from results.chapters.error.rows import ErrorChapter, budget_of, default_rows, error_chapters
from results.chapters.error.sentences import (
    closest_within,
    error_answers,
    error_paragraphs,
    exact_latency,
    fair_latency,
)
from results.chapters.error.tables import error_tables
from results.records.load import load
from results.report import write_report

ONE = {"gaussian:scale=1": 1.0}


def chapter_of(folder: Path, records: list[dict[str, Any]]) -> ErrorChapter:
    (chapter,) = error_chapters(load(made.write_quality(folder, records)))
    return chapter


def told(folder: Path, records: list[dict[str, Any]]) -> str:
    found = error_paragraphs(chapter_of(folder, records))
    return "\n".join(s for p in found for s in p.sentences)


def launched(records: list[dict[str, Any]], factors: Sequence[float]) -> list[dict[str, Any]]:
    """Return the records as launches that took so many times as long, one a factor."""
    launches = []
    for index, factor in enumerate(factors):
        for record in copy.deepcopy(records):
            record["launch"]["index"] = index
            for arm in record["arms"]:
                times = arm["metrics"]["latency"]
                times["samples"] = [factor * t for t in times["samples"]]
            launches.append(record)
    return launches


THREE = (0.99, 1.0, 1 / 0.99)
"""Of launches; their geometric mean is 1."""


@pytest.mark.parametrize(
    ("options", "budget"),
    [
        (["window=32", "window=64"], "window"),
        (["", "window=64"], "window"),
        (["block_size=64,num_random_blocks=1", "block_size=64,num_random_blocks=3"],
         "num_random_blocks"),
        (["features=softmax,num_features=32,seed=1", "features=softmax,num_features=32,seed=2"],
         "num_features"),
        (["block_size=16", "block_size=32", "block_size=32,num_random_blocks=8"], "block_size"),
        (["size=3", "size=4"], "size"),  # a family that nobody foresaw
        (["size=3"], ""), (["kind=a", "kind=b"], ""), ([""], ""), (["=,a=inf", "a=nan"], ""),
    ],
)  # fmt: skip
def test_the_budget_is_the_number_that_varies(options: list[str], budget: str) -> None:
    assert budget_of(options) == budget


def test_rows_have_the_errors_and_costs_of_their_records(tmp_path: Path) -> None:
    chapter = chapter_of(tmp_path, made.error_records())
    assert chapter.seq_len == 2048
    assert chapter.inputs == list(made.INPUTS)
    for row in chapter.rows.to_dict("records"):
        if row["is_exact"]:
            assert row["backend"] in made.EXACT
            continue
        family = made.FAMILIES[row["backend"]]
        assert row["budget_name"] == family.budget
        assert row["rest"] == ""
        hardness = made.INPUTS[row["inputs"]]
        assert row["relative_error"] == pytest.approx(family.error(row["budget"], hardness))
        assert row["weights_error"] == pytest.approx(1.5 * row["relative_error"])
        assert math.isnan(row["weights_kl"]) == (not family.has_kl)
        seconds = family.seconds * row["budget"] * row["seq_len"] + 1e-4
        assert row["latency"] == pytest.approx(seconds)
        assert row["operations"] == 2048 * row["seq_len"] * row["budget"]


def test_the_closest_at_one_latency_is_found_among_measured_points(tmp_path: Path) -> None:
    chapter = chapter_of(tmp_path, made.error_records(inputs=ONE))
    rows = chapter.at("gaussian:scale=1")
    latency = fair_latency(rows)
    fastest = [min(f.budgets) * f.seconds * 2048 + 1e-4 for f in made.FAMILIES.values()]
    assert latency == pytest.approx(max(fastest))
    # A second way: every point of every family, by its law.
    expected = []
    for name, family in made.FAMILIES.items():
        points = [
            (family.error(b, 1.0), name, b)
            for b in family.budgets
            if family.seconds * b * 2048 + 1e-4 <= latency * (1 + 1e-12)
        ]
        expected.append(min(points))
    found = closest_within(rows, latency)
    assert [(r["backend"], r["budget"]) for r in found] == [e[1:] for e in sorted(expected)]
    assert exact_latency(rows) == ("sdpa", pytest.approx(1.5e-8 * 2048**2))


def test_the_sentences_say_who_is_closest_and_who_is_of_no_use(tmp_path: Path) -> None:
    def three(**exact: Any) -> list[dict[str, Any]]:
        return launched(made.error_records(inputs=ONE, **exact), THREE)

    text = told(tmp_path / "1", three())
    closest = r"Smallest error within .*, a time that each method can meet: performer:num_f"
    assert re.search(closest, text)
    assert "All approximations are faster than exact attention (sdpa, 62.9 ms)" in text
    assert "an output of zeros (relative error 1): linformer (3 of 3 settings)." in text
    quick = {"full": 4e-8, "sdpa": 1e-9}
    text = told(tmp_path / "2", three(exact=quick))
    said = "Slower than exact attention (sdpa, 4.19 ms), so of no use here: "
    assert said in text
    dear = text.split("of no use here")[1].split("\n")[0]
    assert "longformer:window=256" in dear
    assert "longformer:window=32 " not in dear
    text = told(tmp_path / "3", three(exact={"sdpa": 1e-12}))
    assert "No approximation is faster than exact attention" in text
    (paragraph,) = error_answers(error_chapters(load(tmp_path / "3")))
    assert paragraph.sentences[0].endswith("is faster than every approximation.")


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ((0.8, 1.0, 1.25), "Statistically tied in time with exact attention (sdpa, 798 µs): lin"),
        (THREE, "No approximation is faster than exact attention (sdpa, 798 µs)"),
    ],
)
def test_an_order_needs_launches_that_tell_it(
    tmp_path: Path, factors: Sequence[float], said: str
) -> None:
    # The fastest point of linformer, 0.89 ms at 2,048 tokens, and exact attention a tenth less.
    only = {"linformer": made.Family("rank", (64,), 9.0, 0.3, 6e-9)}
    near = {"sdpa": 0.9 * (64 * 6e-9 * 2048 + 1e-4) / 2048**2}
    records = made.error_records(only, inputs=ONE, exact=near)
    assert said in told(tmp_path / "some", launched(records, factors))
    one = launched(records, (1.0,))
    assert "exact attention" not in told(tmp_path / "one", one)
    notes = error_tables(chapter_of(tmp_path / "note", one))[0].notes
    assert "One process each: differences in latency have no interval." in notes


def test_without_exact_attention_nothing_is_called_useless(tmp_path: Path) -> None:
    text = told(tmp_path, made.error_records(inputs=ONE, exact={}))
    assert "exact attention (" not in text
    assert "Smallest error within" in text


def test_one_family_is_compared_with_none(tmp_path: Path) -> None:
    families = {"performer": made.FAMILIES["performer"]}
    text = told(tmp_path, made.error_records(families, inputs=ONE, exact={}))
    assert "Smallest error" not in text


def test_variants_of_a_family_are_lines_of_their_own(tmp_path: Path) -> None:
    plain = made.FAMILIES["performer"]
    families = {
        "performer": made.Family(
            plain.budget, plain.budgets, 1.5, 0.5, 8e-9, {"orthogonal": "false"}
        )
    }
    records = [
        *made.error_records({"performer": plain}, inputs=ONE, exact={}),
        *made.error_records(families, inputs=ONE, exact={}),
    ]
    chapter = chapter_of(tmp_path, records)
    assert set(chapter.rows["rest"]) == {"", "orthogonal=false"}
    assert len(chapter.looks) == 2
    figure = against_cost(chapter, "relative_error", "latency")
    assert figure is not None
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert texts == ["performer", "performer:orthogonal=false", "output of zeros"]


@pytest.fixture(scope="module")
def chapter(tmp_path_factory: pytest.TempPathFactory) -> ErrorChapter:
    return chapter_of(tmp_path_factory.mktemp("errors"), made.error_records())


@pytest.mark.parametrize("cost", ["latency", "operations"])
def test_a_panel_a_distribution_a_line_a_family_a_number_a_budget(
    chapter: ErrorChapter, cost: str
) -> None:
    figure = against_cost(chapter, "relative_error", cost)
    assert figure is not None
    assert [ax.get_title() for ax in figure.axes] == list(made.INPUTS)
    for ax in figure.axes:
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        drawn = [line for line in ax.lines if line.get_marker() not in ("", "None")]
        assert sorted(len(line.get_xdata()) for line in drawn) == [3, 3, 4]
        shown = [t.get_text() for t in ax.texts]
        assert sorted(shown) == sorted(
            str(b) for family in made.FAMILIES.values() for b in family.budgets
        )
        low, high = ax.get_xlim()
        exact = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
        assert any(low < x < high for x in exact)  # the line of exact attention is inside
        assert sum(low <= t <= high for t in ax.get_xticks()) >= 2
    assert "num features of performer" in caption("relative_error", cost, chapter)


def test_weights_are_drawn_where_a_method_has_them(tmp_path: Path) -> None:
    chapter = chapter_of(tmp_path, made.error_records(inputs=ONE))
    figure = against_cost(chapter, "weights_kl", "latency")
    assert figure is not None
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert texts == ["longformer", "performer", "exact attention"]
    only = {"linformer": made.FAMILIES["linformer"]}
    chapter = chapter_of(tmp_path / "2", made.error_records(only, inputs=ONE))
    assert against_cost(chapter, "weights_kl", "latency") is None


def test_error_against_length_is_at_one_budget(tmp_path: Path) -> None:
    records = made.error_records(inputs=ONE)
    kept = [  # a budget that was left out at one length is not the usual one
        r
        for r in records
        if not (
            r["case"]["arms"][0]["options"].get("window") == 32 and r["case"]["seq_len"] == 512
        )
    ]
    chapter = chapter_of(tmp_path, kept)
    rows = default_rows(chapter.rows)
    chosen = rows[~rows["is_exact"]].groupby("backend")["options"].unique()
    assert {k: list(v) for k, v in chosen.items()} == {
        "longformer": ["window=128"], "linformer": ["rank=128"],
        "performer": ["num_features=128"],
    }  # fmt: skip
    figure = against_length(chapter)
    assert figure is not None
    marked = [x for x in figure.axes[0].lines if x.get_marker() not in ("", "None")]
    assert [len(line.get_xdata()) for line in marked] == [3, 3, 3]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["longformer, window 128", "linformer, rank 128",
                      "performer, num features 128", "output of zeros"]  # fmt: skip
    one = chapter_of(tmp_path / "2", made.error_records(inputs=ONE, lengths=(512,)))
    assert against_length(one) is None


def test_defaults_without_options_are_the_default_budget(tmp_path: Path) -> None:
    records = [
        *made.error_records(inputs=ONE, exact={}),
        *made.error_records({}, inputs=ONE, exact={"longformer": 2e-9}),
    ]
    for record in records:
        if record["case"]["arms"][0] == {"name": "longformer", "options": {}}:
            record["arms"][0]["metrics"]["relative_error"]["value"] = 0.2
    rows = default_rows(chapter_of(tmp_path, records).rows)
    assert set(rows[rows["backend"] == "longformer"]["options"]) == {""}
    # Of four budgets there are two in the middle.
    rows = default_rows(chapter_of(tmp_path / "2", made.error_records(inputs=ONE)).rows)
    assert set(rows[rows["backend"] == "longformer"]["options"]) == {"window=64"}


def test_tables_have_every_case_and_the_reasons(tmp_path: Path) -> None:
    reason = "causal | a projection mixes *all* positions"
    records = made.error_records(fails={"linformer": ("unsupported", reason)})
    by_inputs, every = error_tables(chapter_of(tmp_path, records))
    assert by_inputs.head == ["backend", "latency", "FLOPs", *made.INPUTS]
    assert len(by_inputs.rows) == 2 + 4 + 3 + 3
    cells = {row[0].text: row for row in by_inputs.rows}
    assert all(cell.text == "unsupported" for cell in cells["linformer:rank=64"][3:])
    assert cells["performer:num_features=32"][3].text == "0.27"
    assert len(every.rows) == len(records)
    assert {row[-1].text for row in every.rows} == {"", reason}
    assert all(len(row) == len(every.head) for row in every.rows)


def test_forms_and_shapes_are_chapters_of_their_own(tmp_path: Path) -> None:
    records = [
        *made.error_records(inputs=ONE), *made.error_records(inputs=ONE, is_causal=False),
        *made.error_records(inputs=ONE, is_causal=False, head_dim=32),
    ]  # fmt: skip
    found = error_chapters(load(made.write_quality(tmp_path, records)))
    assert [c.title for c in found] == [
        "causal", "bidirectional, 8 heads × 64", "bidirectional, 8 heads × 32"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "records",
    [
        made.error_records(inputs=ONE, exact={},
                           fails=dict.fromkeys(made.FAMILIES, ("crashed", "why"))),
        made.error_records({}, inputs=ONE, lengths=(512,)),
        made.error_records({"performer": made.FAMILIES["performer"]}, inputs={"": 1.0},
                           lengths=(512,), exact={}),
    ],
    ids=["all failed", "exact alone", "one family, one length"],
)  # fmt: skip
def test_partial_runs_have_a_sensible_report(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    page = unscripted(write_report([made.write_quality(tmp_path, records)], ["html"])[0])
    shown = re.sub(r"<[^>]*>", " ", re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL))
    assert not re.search(r"\b(nan|inf|None|<NA>)\b", shown, flags=re.IGNORECASE)
    assert '<details class="part" id="error"' in page
    assert '<ul class="sentences"></ul>' not in page


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    records = made.error_records(inputs=ONE, lengths=(512,))
    folder = made.write_quality(tmp_path, records)
    lines = (folder / "records.jsonl").read_text().splitlines()
    bad = json.loads(lines[3])
    bad["arms"][0]["metrics"]["relative_error"]["value"] = -1.0
    lines[3] = json.dumps(bad)
    lines[4] = lines[4].replace('"weights_error": {"unit": "1", "value": ', '"x": {"value": NaN, ')
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    run = load(folder)
    assert len(run.records) == len(records) - 2
    assert len(run.warnings) == 2
    write_report([folder], ["html"])
