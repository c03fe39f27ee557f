"""What suite context measures where no option says otherwise. No torch.

The lengths of a preset stand in the ratio of its numbers of ranks, so that its cases show both how
the time of one length falls with the ranks (strong scaling) and how it holds while the tokens of a
rank stay (weak scaling).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from results.schema import Arm

_COMPARED = (Arm("sdpa"), Arm("longformer"), Arm("linformer"), Arm("performer"))


@dataclass(frozen=True)
class ContextPreset:
    """What suite context does under one name.

    Attributes:
        backends: what is compared.
        seq_lens: of the whole sequence, in tokens.
        ranks: over how many processes it is cut.
        launches: fresh sets of ranks per case.
        budget_s: sampling time, in seconds.
        case_timeout_s: the longest that one launch may take, in seconds.
    """

    backends: tuple[Arm, ...]
    seq_lens: tuple[int, ...]
    ranks: tuple[int, ...]
    launches: int
    budget_s: float
    case_timeout_s: float


CONTEXT_PRESETS: Mapping[str, ContextPreset] = {
    "quick": ContextPreset(
        _COMPARED, (1024, 2048, 4096), (1, 2, 4), launches=1, budget_s=0.25, case_timeout_s=120.0
    ),
    "standard": ContextPreset(
        _COMPARED,
        (4096, 8192, 16384, 32768),
        (1, 2, 4, 8),
        launches=3,
        budget_s=0.5,
        case_timeout_s=300.0,
    ),
}
"""By name."""
