"""What is known of each method's quality: a cell a method, and the command that measures it."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from results.chapters.speed.rows import Chapter
from results.page.blocks import Cell
from results.recommendation.candidates import shipped_evidence
from results.recommendation.evidence import Evidences
from results.summary.methods import Comparison, Method

Quality = Callable[[Method], Cell]
"""What writes a method's evidence of quality."""


def qualities(
    chapter: Chapter, comparison: Comparison
) -> tuple[Quality, str, frozenset[tuple[str, str]]]:
    """Return what writes the quality of a method, and how to measure what is not known.

    The second is "" where all is known; the third are the keys of those whose quality is poor.
    """
    known = Evidences(chapter.analysis.run.frame, shipped_evidence())
    is_causal = bool(chapter.setting["is_causal"]) or comparison.mode == "decode"
    found = {
        m.key: known.quality(m.backend, m.options, is_causal=is_causal, seq_len=comparison.length)
        for m in comparison.methods
        if not m.is_exact
    }

    def write(method: Method) -> Cell:
        return Cell(found[method.key].short if method.key in found else "exact")

    unknown = [m for m in comparison.methods if m.key in found and found[m.key].best is None]
    poor = frozenset(key for key, quality in found.items() if quality.verdict == "poor")
    return write, _command(unknown, is_causal=is_causal) if unknown else "", poor


def _command(methods: list[Method], *, is_causal: bool) -> str:
    """Say how to measure the error of methods on the inputs of a trained model."""
    words = ["attnbench", "run", "error", "--inputs", "trained"]
    words += ["--causal"] * is_causal
    words += [word for m in methods for word in ("--backend", m.label)]
    return f"Quality on inputs that matter is not known of all; to measure it: {shlex.join(words)}"
