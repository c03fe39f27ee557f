"""Short inputs, bytes per token, and the exponents of the scaling preset's lengths."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic

from results.analysis.analysis import Analysis
from results.chapters.speed.rows import Chapter, chapters
from results.chapters.speed.sentences import summarise
from results.chapters.speed.short_inputs import short_inputs
from results.chapters.speed.tables import tables
from results.page.blocks import TableView
from results.records.load import load
from suites.speed.presets import PRESETS

LENGTHS = (64, 128, 256, 512, 1024)


def chapter(tmp_path: Path, laws: dict[str, synthetic.Law], **options: object) -> Chapter:
    shape = {"lengths": LENGTHS, "modes": ("forward",), "noise": 0.0, "sample_noise": 0.0}
    run = load(synthetic.write_run(tmp_path, laws, **{**shape, **options}))
    (found,) = chapters(Analysis(run))
    return found


def view(of: Chapter, title: str) -> TableView:
    return next(v for v in tables(of) if v.title == title)


def sentences(of: Chapter) -> str:
    return "\n".join(s for p in summarise(of) if p.heading == "Short inputs" for s in p.sentences)


ONE_US = {
    "sdpa": synthetic.Law(1e-6, 1.0),
    "full": synthetic.Law(9e-6, 1.0),
    "linformer": synthetic.Law(2e-6, 1.0, extra={"fixed_size": {"rank": 256}}),
    "performer": synthetic.Law(1e-6, 1.0, 49e-6, extra={"fixed_size": {"features": 256}}),
}


def test_short_inputs_are_judged_and_the_size_that_explains_is_named(tmp_path: Path) -> None:
    of = chapter(tmp_path, ONE_US)
    found = short_inputs(of.points)
    assert set(found["backend"]) == {"linformer", "performer"}  # full is exempt
    assert set(found["seq_len"]) == {64, 128, 256, 512}
    by_length = found[found["backend"] == "linformer"].set_index("seq_len")
    # 2 N against 1.5 N + 50, in µs: more from N = 100 on
    assert dict(by_length["over"]) == {64: False, 128: True, 256: True, 512: True}
    assert by_length["why"][128] == "its rank of 256 is larger than the input"
    assert by_length["why"][256] == by_length["why"][512] == ""
    shown = view(of, "Short inputs")
    assert [[c.text for c in row][6:] for row in shown.rows if row[0].text == "linformer"] == [
        ["within", ""],
        ["more", by_length["why"][128]],
        ["more", ""],
        ["more", ""],
    ]


def test_the_summary_names_who_costs_more_and_who_does_not(tmp_path: Path) -> None:
    assert sentences(chapter(tmp_path, ONE_US)).splitlines() == [
        "linformer takes more than 1.5 × the time of sdpa plus 50 µs at 128, 256 and 512 tokens "
        "(forward); its rank of 256 is larger than the input up to 128 tokens.",
        "Within 1.5 × the time of sdpa plus 50 µs up to 512 tokens: performer.",
    ]


@pytest.mark.parametrize(
    ("laws", "lengths"),
    [({"linformer": ONE_US["linformer"]}, LENGTHS), (ONE_US, (1024, 2048))],
    ids=["no sdpa", "no short length"],
)
def test_nothing_is_said_without_sdpa_or_short_lengths(
    tmp_path: Path, laws: dict[str, synthetic.Law], lengths: tuple[int, ...]
) -> None:
    of = chapter(tmp_path, laws, lengths=lengths)
    assert "Short inputs" not in {v.title for v in tables(of)}
    assert sentences(of) == ""


def test_memory_is_told_per_token_of_the_longest_length(tmp_path: Path) -> None:
    laws = {
        "sdpa": synthetic.Law(1e-6, 1.0, memory=(2048.0, 1.0)),
        "full": synthetic.Law(1e-6, 1.0, memory=(8.0, 2.0), fails={1024: ("failed", "no")}),
    }
    shown = view(
        chapter(tmp_path, laws, case={"batch": 2}), "Peak memory above the inputs, forward"
    )
    assert shown.head[-1] == "bytes per token"
    assert {row[0].text: row[-1].text for row in shown.rows} == {"sdpa": "1,020", "full": "2,050"}
    # q, k, v and the output: 4 × 8 heads × 64 × 4 bytes
    assert "themselves have 8,192." in shown.notes[-1]


def test_the_scaling_preset_gives_exponents_with_intervals(tmp_path: Path) -> None:
    preset = PRESETS["scaling"]
    laws = {pick.backend: synthetic.SEVEN[pick.backend] for pick in preset.choices}
    of = chapter(tmp_path, laws, lengths=preset.seq_lens, launches=preset.launches, noise=0.02)
    shown = view(of, "Exponents of time and memory in the length")
    times = [row for row in shown.rows if row[2].text == "time"]
    assert {row[0].text for row in times} == set(laws)
    for row in times:
        low, high = (float(bound) for bound in row[4].text.split("–"))
        assert low <= float(row[3].text) <= high
        assert 0.95 < float(row[3].text) < 1.05
        assert row[6].text == "4,096–65,536 (5)"
