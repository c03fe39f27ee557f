from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from helpers_sweep import case, record

from results.schema import IDENTITY, Arm
from suites.plan import Item
from suites.terminal.progress import (
    Console,
    Summary,
    closing,
    describe,
    duration,
    label,
)
from suites.terminal.standing import Standing
from suites.words import seconds

GONE = "\r\x1b[1A\x1b[2K"
"""The bar is erased, and the cursor where it began."""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def play(stream, **options):
    console = Console(stream, **options)
    console.begin(Path("runs/x"), 2, 0, ["a torn line was cut off"])
    for remaining, made in ((7.4, record(case())), (0.0, failed())):
        console.starting(Item(case(), 0))
        console.finished(made, remaining)
    console.end()
    return stream.getvalue()


def failed():
    return {**record(case("full", 128)), "status": "failed", "reason": "RuntimeError:\n  x",
            "arms": []}  # fmt: skip


def test_a_log_gets_plain_lines_alone():
    assert play(io.StringIO()).splitlines() == [
        "2 processes into runs/x",
        "note: a torn line was cut off",
        "[1/2] linear forward N=64  ok  1 s  0.0 MiB  about 7 s left",
        "[2/2] full forward N=128  failed  RuntimeError: x",
    ]


def test_a_terminal_gets_colour_and_a_bar_that_is_gone_at_the_end():
    shown = play(Terminal())
    assert "\x1b[32mok\x1b[0m" in shown
    assert "░" * 20 + " 0/2" in shown
    assert "█" * 10 + "░" * 10 + " 1/2  about 7 s left  now: linear forward N=64" in shown
    assert shown.endswith(GONE)
    assert "\x1b[?25l" not in shown  # the cursor stays: a killed sweep could not bring it back


def test_a_terminal_without_colour_gets_none():
    assert "\x1b[32m" not in play(Terminal(), colour=False)


def test_bar_is_no_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    bars = re.findall(r"[█░][^\r\n]*", play(Terminal()))
    assert len(bars) >= 2
    assert all(len(bar) <= 40 for bar in bars)


def test_time_left_is_not_guessed():
    stream = io.StringIO()
    console = Console(stream)
    console.begin(Path("x"), 2, 0, [])
    console.finished(record(case()), None)
    assert stream.getvalue().endswith("time left: not known yet\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.5e-6, "2.5 µs"), (1.234e-3, "1.23 ms"), (0.9994, "999 ms"), (1, "1 s"), (61.26, "61.3 s"),
     (1234.5, "1234 s")],
)  # fmt: skip
def test_latency_in_words(value, text):
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (3900, "1 h 5 min")],
)
def test_duration_in_words(value, text):
    assert duration(value) == text


def test_labels():
    arms = (Arm("longformer", {"window": 64, "dilation": [1, 2]}), Arm(IDENTITY))
    layer = case(arms=arms, level="layer", mode="training")
    assert label(layer) == "longformer:dilation=1+2,window=64 layer training N=64"
    roof = case(kind="roof", arms=(Arm("roof"),), threads=2)
    assert label(roof) == "peaks of the machine float32 2 threads"
    rates = {"matmul_rate": {"unit": "op/s", "samples": [1.0e9, 2.0e9]}}
    assert describe({**record(roof), "arms": [{"metrics": rates}]}) == "matmul 2 GFLOP/s"


def test_closing_says_what_was_done_and_what_comes_next():
    text = closing(Summary(Path("runs/x"), {"ok": 3, "failed": 1}, 2, 75.0))
    assert text.splitlines() == [
        "1 failed, 3 ok in 1 min 15 s; 2 were there already",
        "results: runs/x",
        "report:  attnbench report runs/x",
    ]


def test_closing_says_what_the_budget_left_out():
    first, second, *_ = closing(Summary(Path("runs/x"), {"ok": 3}, 0, 75.0, 2)).splitlines()
    assert first == "3 ok in 1 min 15 s; 2 processes not started: no time left of --budget"
    assert second == "go on with the same command and --resume --out runs/x"


OPEN = tuple(f"the exponent of x{number}, forward (±0.13 of ±0.10)" for number in range(7))


def asked(stream, budget_s=240.0):
    """Tell of a sweep whose questions are asked after its first rounds."""
    console = Console(stream)
    console.begin(Path("runs/x"), 2, 0, [])
    console.planned(0, Standing(0, (), None, budget_s), 9.0)
    for _ in range(2):
        console.starting(Item(case(), 0))
        console.finished(record(case()), 7.0)
    console.planned(1, Standing(20, OPEN, 100.0, budget_s), 100.0)
    console.starting(Item(case(), 1))
    console.finished(record(case()), 1.0)
    console.planned(0, Standing(20, (), 0.0, budget_s), 0.0)
    console.end()
    return stream.getvalue()


def test_a_log_says_what_is_open_when_launches_are_chosen():
    assert asked(io.StringIO()).splitlines() == [
        "2 processes into runs/x",
        "[1/2] linear forward N=64  ok  1 s  0.0 MiB  first rounds: about 7 s left (budget 4 min)",
        "[2/2] linear forward N=64  ok  1 s  0.0 MiB",
        "7 of 20 questions open · about 1 min 40 s left (budget 4 min)",
        "[3/3] linear forward N=64  ok  1 s  0.0 MiB",
    ]


def test_a_bar_says_what_is_open_and_how_long_it_takes():
    shown = asked(Terminal(), budget_s=None)
    assert " 0/2  first rounds: about 9 s left  now:" in shown
    assert " 2/3  7 of 20 questions open · about 1 min 40 s left  now:" in shown


@pytest.mark.parametrize(
    ("standing", "lines"),
    [
        (Standing(20, (), 0.0, 240.0), ["all 20 questions are answered"]),
        (Standing(20, OPEN, 130.0, 240.0), [
            "7 of 20 questions are open:", *(f"  {text}" for text in OPEN[:5]), "  and 2 more",
            "they would take about 2 min 10 s: go on with the same command and --resume "
            "--out 'my run' --budget 3m",
        ]),
        (Standing(20, OPEN[:1], None, None), [
            "1 of 20 questions are open:", f"  {OPEN[0]}",
            "more processes would not answer them: those of their cases failed",
        ]),
    ],
)  # fmt: skip
def test_closing_says_which_questions_are_open_and_how_to_go_on(standing, lines):
    text = closing(Summary(Path("my run"), {"ok": 3}, 0, 75.0, standing=standing))
    assert text.splitlines()[1:-2] == lines


def test_a_model_is_named_and_its_checkpoints_are() -> None:
    model = {"level": "model", "model": "bert-base:num_layers=3", "num_heads": 0}
    trained = case(mode="training", checkpointing=True, **model)
    assert label(trained) == "linear bert-base:num_layers=3 training checkpointed N=64"
    assert label(case(level="block")) == "linear block forward N=64"
