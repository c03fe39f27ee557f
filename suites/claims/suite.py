"""What suite claims tests where no option says otherwise. No torch.

A claim is tested by its experiment (`suites.claims`), by what records of kind speed say of how
cost grows, or by both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class ScalingRow:
    """A backend's forward call over lengths.

    Attributes:
        backend: by name.
        seq_lens: in tokens.
        is_causal: of the call.
    """

    backend: str
    seq_lens: tuple[int, ...]
    is_causal: bool = False


@dataclass(frozen=True)
class ClaimPreset:
    """What suite claims does under one name.

    Attributes:
        launches: of a speed case; of an experiment its seeds.
        budget_s: sampling time of what is timed, a call.
        case_timeout_s: the longest that an experiment under one seed may take.
    """

    launches: int
    budget_s: float
    case_timeout_s: float = 600.0


CLAIM_PRESETS: Mapping[str, ClaimPreset] = {
    "quick": ClaimPreset(launches=3, budget_s=0.1),
    "standard": ClaimPreset(launches=5, budget_s=0.3),
}
"""By name."""

EXPERIMENTS: tuple[str, ...] = (
    "attention-quadratic", "ffn-linear", "sparse-nlogn", "heads-cost", "head-dim",
    "rnn-sequential", "rnn-vanishing", "long-range", "sqrt-dk", "shared-qk", "dot-vs-additive",
    "causal-mask", "kv-cache", "decode-state", "quantization", "sinusoidal", "residual-norm",
    "layernorm-batch", "dropout-eval", "dropout-place", "order-blind", "sequential-depth",
    "ffn-nonlinear", "objectives",
)  # fmt: skip
"""The claims that have an experiment, by id."""

_MATERIALISED = (512, 1024, 2048, 4096)
"""Where scores stay within what a process keeps: at 8,192 tokens 8 heads have 2 GiB of them, which
the C library asks anew of the system at every call, page by page: seventeen times the time of half
the length on the machine of the reference records."""

_SHORT = (1024, 2048, 4096, 8192)
_LONG = (4096, 8192, 16384, 32768)
_EXACT = (ScalingRow("full", _MATERIALISED), ScalingRow("sdpa", _SHORT))

SCALING: Mapping[str, tuple[ScalingRow, ...]] = {
    "attention-quadratic": _EXACT,
    "memory-quadratic": _EXACT,
    "sparse-nlogn": (ScalingRow("longformer", _LONG), ScalingRow("bigbird", _LONG)),
    "low-rank-linear": (ScalingRow("linformer", _LONG),),
    "kernel-linear": (
        ScalingRow("performer", _LONG),
        ScalingRow("performer", _LONG, is_causal=True),
    ),
}
"""By a claim's id, the calls whose growth it is about."""
