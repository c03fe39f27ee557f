"""Mode decode and level model from records to answers: flat lines, crossings, shares."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from results.analysis.analysis import Analysis
from results.chapters.speed.attention_share import worth
from results.chapters.speed.rows import chapters
from results.chapters.speed.sentences import summarise
from results.chapters.speed.tables import tables
from results.export.tables import cases
from results.metrics import MEMORY
from results.records.load import load
from results.report import write_report
from results.schema import IDENTITY, MODES, UNITS, Case, RecordError
from results.statistics.launches import declared_slope
from results.text.modes import WORDS
from tests.helpers.synthetic import LENGTHS, Law, write_run

STEPS = {
    "sdpa": Law(2e-8, 1.0, constant=4e-5, memory=(4096.0, 1.0)),
    "full": Law(6e-8, 1.0, constant=4e-5, memory=(4096.0, 1.0)),
    "longformer": Law(6e-5, 0.0, memory=(2.0**21, 0.0)),
    "performer": Law(1.2e-4, 0.0, memory=(2.0**19, 0.0)),
    "linformer": Law(1, 1, fails=dict.fromkeys(LENGTHS, ("unsupported", "no state"))),
}
CONTEXTS = (512, 1024, 2048, 4096, 8192, 16384, 32768)


@pytest.fixture
def decoded(tmp_path: Path) -> Path:
    return write_run(
        tmp_path / "run", STEPS, lengths=CONTEXTS, modes=("decode",), case={"is_causal": True}
    )


def test_every_mode_has_words_and_a_memory():
    assert set(WORDS) == set(MODES)
    assert {words.memory for words in WORDS.values()} == set(MEMORY)
    assert all(UNITS[metric] == "B" for metric in MEMORY)


def test_a_flat_line_has_exponent_zero_with_an_interval(decoded: Path):
    (chapter,) = chapters(Analysis(load(decoded)))
    fits = chapter.fits.set_index(["backend", "metric"])
    for backend in ("longformer", "performer"):
        time = fits.loc[backend, "latency"]
        assert abs(time["exponent"]) < 0.02
        assert -0.05 < time["ci_low"] <= 0 <= time["ci_high"] < 0.05
        assert fits.loc[backend, "state_bytes"]["exponent"] == pytest.approx(0, abs=1e-9)
    cache = fits.loc["sdpa", "latency"]
    grown = [STEPS["sdpa"].seconds(n) for n in CONTEXTS]
    mean = declared_slope(CONTEXTS, grown)  # not 1: a constant is there
    assert cache["ci_low"] <= mean <= cache["ci_high"]
    assert cache["expected"] == 1.0
    assert fits.loc["sdpa", "state_bytes"]["exponent"] == pytest.approx(1, abs=1e-3)


def test_where_a_constant_state_overtakes_the_cache(decoded: Path):
    (chapter,) = chapters(Analysis(load(decoded)))
    at = chapter.crossovers.set_index(["backend", "baseline"])["seq_len"]
    # 4e-5 + 2e-8 N = 6e-5 at 1000 tokens, and 1.2e-4 at 4000
    assert at["longformer", "sdpa"] == pytest.approx(1000, rel=0.1)
    assert at["performer", "sdpa"] == pytest.approx(4000, rel=0.1)


def test_what_the_report_says_of_decoding(decoded: Path):
    (chapter,) = chapters(Analysis(load(decoded)))
    (decoding, *_) = summarise(chapter)
    assert decoding.heading == "Decoding"
    text = " ".join(decoding.sentences)
    assert "After a context of 32,768 tokens longformer is the fastest" in text
    assert "Faster than sdpa: longformer from 1," in text or "longformer from 9" in text
    assert "performer with 512 KiB of KV cache or state" in text
    assert "Time does not grow with length, as declared, by the exponent: longformer" in text
    assert "Materialised softmax" not in text  # that is about peaks
    titles = [view.title for view in tables(chapter)]
    assert titles[:2] == ["Time per token, decode", "KV cache or recurrent state, decode"]


@pytest.mark.drawn
def test_pages_of_decoding_name_the_context(decoded: Path, tmp_path: Path):
    html, markdown = write_report([decoded], out=tmp_path / "out")
    page = html.read_text()
    assert "context (tokens)" in page
    assert "KV cache or recurrent state" in page
    assert "Time per token, decode" in markdown.read_text()
    for text in (page, markdown.read_text()):
        assert "a flat line is a state that does not grow" in text
        assert "In mode decode a context is fed" in text
        assert "optimiser's step" not in text


def test_pages_without_decoding_speak_of_none(tmp_path: Path):
    for path in write_report([write_run(tmp_path / "run")], out=tmp_path / "out"):
        assert "decode" not in path.read_text()


def test_throughput_of_decoding_counts_the_new_token(decoded: Path):
    table = cases(load(decoded))
    own = table[(table["backend"] == "longformer") & (table["seq_len"] == 4096)]
    values = own.set_index("metric")["value"]
    assert values["throughput"] == pytest.approx(1 / values["latency"])


# -- whole models --------------------------------------------------------------------------------

MODEL = {
    "level": "model", "model": "bert-base:num_layers=3", "num_heads": 0, "num_kv_heads": 0,
    "head_dim": 0,
}  # fmt: skip
WHOLE = {
    "sdpa": Law(4e-4, 1.0, memory=(20000.0, 1.0)),
    "longformer": Law(2e-4, 1.0, memory=(15000.0, 1.0)),
    "lstm": Law(1.6e-4, 1.0, memory=(12000.0, 1.0)),
}
FLOOR = Law(1e-4, 1.0)


@pytest.fixture
def modelled(tmp_path: Path) -> Path:
    return write_run(
        tmp_path / "run", WHOLE, lengths=(512, 1024, 2048), case=MODEL, noise=0.001, floor=FLOOR
    )


def test_share_and_worth_of_an_attention(modelled: Path):
    (chapter,) = chapters(Analysis(load(modelled)))
    assert chapter.title.startswith("model level, cpu, bert-base:num_layers=3, float32, batch 1")
    rows = worth(chapter.points, "forward").set_index(["backend", "seq_len"])
    assert rows.loc[("sdpa", 1024), "attention_share"] == pytest.approx(0.75, abs=0.01)
    assert rows.loc[("longformer", 1024), "attention_share"] == pytest.approx(0.5, abs=0.02)
    assert rows.loc[("longformer", 2048), "speedup"] == pytest.approx(2.0, rel=0.02)
    assert math.isnan(rows.loc[("sdpa", 512), "speedup"])
    assert math.isnan(rows.loc[("lstm", 512), "attention_share"])  # a floor with projections
    assert rows.loc[("lstm", 512), "speedup"] == pytest.approx(2.5, rel=0.02)
    assert rows.loc[("sdpa", 512), "tokens_per_s"] == pytest.approx(2500, rel=0.02)
    assert rows.loc[("sdpa", 512), "memory"] == 512 * 20000
    assert IDENTITY not in rows.index.get_level_values(0)


def test_share_is_taken_launch_by_launch(tmp_path: Path):
    """Launches of a machine that is now fast, now slow: the share is the same in each."""
    folder = write_run(tmp_path / "run", WHOLE, lengths=(512,), case=MODEL, noise=1.0, floor=FLOOR)
    (chapter,) = chapters(Analysis(load(folder)))
    row = worth(chapter.points, "forward").set_index("backend").loc["sdpa"]
    assert row["attention_share"] == pytest.approx(0.75)
    assert row["share_high"] - row["share_low"] < 1e-9
    assert row["ci_high"] > 2 * row["ci_low"]  # though the times scatter


def test_an_attention_alone_has_no_share(tmp_path: Path):
    (chapter,) = chapters(Analysis(load(write_run(tmp_path / "run"))))
    assert worth(chapter.points, "forward").empty
    assert not any("worth" in view.title for view in tables(chapter))


def test_what_the_report_says_of_a_model(modelled: Path):
    (chapter,) = chapters(Analysis(load(modelled)))
    text = " ".join(s for paragraph in summarise(chapter) for s in paragraph.sentences)
    assert "Attention's share of the time there: longformer 50 % and sdpa 75 %." in text
    view = next(v for v in tables(chapter) if "worth" in v.title)
    assert view.title == "What the attention is worth in a model"
    assert view.head[-1] == "× sdpa"
    assert len(view.rows) == 2 * 3 * 3


def test_models_and_checkpointing_are_settings_of_their_own(tmp_path: Path):
    folders = [
        write_run(tmp_path / str(i), WHOLE, lengths=(512, 1024), modes=("training",), run=f"r{i}",
                  case={**MODEL, **more})
        for i, more in enumerate(({}, {"checkpointing": True}, {"model": "gpt2-small"}))
    ]  # fmt: skip
    titles = [chapter.title for chapter in chapters(Analysis(load(*folders)))]
    assert len(titles) == 3
    assert sum("activation checkpointing" in t for t in titles) == 1
    assert sum("gpt2-small" in t for t in titles) == 1
    table = cases(load(*folders))
    assert isinstance(table, pd.DataFrame)
    assert set(table["model"]) == {"bert-base:num_layers=3", "gpt2-small"}


def test_a_case_from_before_these_fields_keeps_its_id():
    old = {
        "kind": "speed", "level": "attention", "mode": "forward",
        "arms": [{"name": "sdpa", "options": {}}], "batch": 1, "num_heads": 8, "num_kv_heads": 8,
        "head_dim": 64, "seq_len": 512, "key_len": 512, "device": "cpu", "dtype": "float32",
        "is_causal": False, "threads": 2, "allocator": "default", "compile": False, "seed": 0,
    }  # fmt: skip
    case = Case.from_json(old)
    assert (case.model, case.checkpointing) == ("", False)
    assert case.id == "5df8cbf141bb4694"
    assert case.to_json()["model"] == ""
    with pytest.raises(RecordError, match=r"case\.model: expected a string"):
        Case.from_json({**old, "model": 3})
    with pytest.raises(RecordError, match=r"case\.checkpointing: expected true or false"):
        Case.from_json({**old, "checkpointing": "yes"})
