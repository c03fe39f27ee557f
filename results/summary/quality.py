"""What is known of each method's quality: a cell a method, and the command that measures it."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from results.chapters.speed.rows import Chapter
from results.page.blocks import Cell
from results.recommendation.candidates import shipped_evidence
from results.recommendation.evidence import Evidences
from results.recommendation.quality import UNKNOWN
from results.summary.methods import Comparison, Method

Quality = Callable[[Method], Cell]
"""What writes a method's evidence of quality."""


def qualities(chapter: Chapter, comparison: Comparison) -> tuple[Quality, str]:
    """Return what writes the quality of a method, and how to measure what is not known.

    The second is "" where all is known.
    """
    known = Evidences(chapter.analysis.run.frame, shipped_evidence())
    is_causal = bool(chapter.setting["is_causal"]) or comparison.mode == "decode"
    texts = {
        m.key: "exact" if m.is_exact else known.quality(
            m.backend, m.options, is_causal=is_causal, seq_len=comparison.length
        ).short
        for m in comparison.methods
    }  # fmt: skip

    def write(method: Method) -> Cell:
        return Cell(texts[method.key])

    unknown = [m for m in comparison.methods if texts[m.key] == UNKNOWN]
    return write, _command(unknown, is_causal=is_causal) if unknown else ""


def _command(methods: list[Method], *, is_causal: bool) -> str:
    """Say how to measure the error of methods on the inputs of a trained model."""
    words = ["attnbench", "run", "--suite", "error", "--inputs", "trained"]
    words += ["--causal"] * is_causal
    words += [word for m in methods for word in ("--backend", m.label)]
    return f"Quality not measured; to measure it: {shlex.join(words)}"
