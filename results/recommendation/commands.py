"""The commands that measure what a recommendation lacks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from results.recommendation.evidence import RECALL, SPEED_INPUTS
from results.recommendation.question import Question
from results.recommendation.ranking import Ranking
from results.schema import FULL_PRECISION
from results.text.clean import clean


def speed_command(asked: Question) -> str:
    """Return the command that measures what was asked for."""
    causal = " --causal" if asked.is_causal and asked.mode != "decode" else ""
    return f"attnbench run --mode {asked.mode} --seq-len {asked.seq_len}{causal}{_device(asked)}"


def error_command(ranking: Ranking) -> str:
    """Return the command that measures the error of what is ranked, where it counts as theirs."""
    asked, setting = ranking.question, ranking.setting
    inputs = shlex.quote(clean(asked.error_inputs or SPEED_INPUTS))
    own = [
        f" --{name.replace('_', '-')} {setting[name]}"
        for name, default in _ERROR_DEFAULTS.items()
        if setting[name] != default
    ]
    compiled = " --compile on" if setting["compile"] else ""
    causal = " --causal" if asked.is_causal else ""
    return (
        f"attnbench run --suite error --inputs {inputs} --seq-len {asked.seq_len}{causal}"
        f"{''.join(own)}{compiled}{_device(asked)}{_backends(ranking)}"
    )


def recall_command(ranking: Ranking) -> str:
    """Return the command that trains what is ranked on recall."""
    asked = ranking.question
    task = shlex.quote(clean(asked.recall_task or RECALL))
    form = "causal" if asked.is_causal else "bidirectional"
    return (
        f"attnbench run --suite quality --task {task} --form {form}{_device(asked)}"
        f"{_backends(ranking)}"
    )


_ERROR_DEFAULTS: Mapping[str, Any] = {
    "dtype": "float32", "head_dim": 64, "matmul_precision": FULL_PRECISION,
}  # fmt: skip
"""What suite error takes by itself."""


def _backends(ranking: Ranking) -> str:
    return "".join(f" --backend {shlex.quote(clean(c.label))}" for c in ranking.candidates)


def _device(asked: Question) -> str:
    return f" --device {asked.device}" if asked.device != "cpu" else ""
