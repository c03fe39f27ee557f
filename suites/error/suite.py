"""What suite error measures where no option says otherwise. No torch.

For each family the budgets that it offers, between exact attention in two forms, on inputs from
nearly uniform attention to a trained model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from results.schema import Arm


@dataclass(frozen=True)
class TrainedShape:
    """What inputs taken from a trained model come in.

    Attributes:
        num_layers: of the model.
        num_heads: of queries, keys and values.
        head_dim: of a head.
        seq_len: tokens of the text they are taken on, the most that a case may have.
    """

    num_layers: int
    num_heads: int
    head_dim: int
    seq_len: int


TRAINED = TrainedShape(num_layers=2, num_heads=4, head_dim=32, seq_len=1024)
TRAINED_NAME = "trained"


@dataclass(frozen=True)
class InputRow:
    """Inputs, at which lengths, and what they fix of a case's shape.

    Attributes:
        inputs: a distribution with its options.
        seq_lens: in tokens.
        heads: fields of `Case` in place of the grid's.
    """

    inputs: Arm
    seq_lens: tuple[int, ...]
    heads: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ErrorPreset:
    """What suite error measures under one name; attributes as of `suites.plan.Grid`."""

    backends: tuple[Arm, ...]
    inputs: tuple[Arm, ...]
    seq_lens: tuple[int, ...]
    launches: int
    budget_s: float
    case_timeout_s: float
    num_heads: tuple[int, ...] = (4,)
    modes: tuple[str, ...] = ("forward",)


def _budgets(name: str, option: str, *values: int, **fixed: object) -> tuple[Arm, ...]:
    return tuple(Arm(name, {option: value, **fixed}) for value in values)


BASELINES = (Arm("full"), Arm("sdpa"))

AS_THEY_ARE = tuple(Arm(name) for name in ("longformer", "bigbird", "linformer", "performer"))
"""With their default options, as suite speed measures them: what `recommend` looks up."""

_QUICK_BUDGETS = (
    *_budgets("longformer", "window", 32, 128),
    *_budgets("bigbird", "block_size", 16, 64),
    *_budgets("linformer", "rank", 32, 128),
    *_budgets("linformer", "rank", 128, method="mean_pool"),
    *_budgets("performer", "num_features", 64, 256),
    *_budgets("performer", "num_features", 256, orthogonal=False),
)
_STANDARD_BUDGETS = (
    *_budgets("longformer", "window", 16, 32, 64, 128, 256),
    *_budgets("bigbird", "block_size", 16, 32, 64),
    *_budgets("bigbird", "num_random_blocks", 1, 8, block_size=32),
    *_budgets("bigbird", "num_global_tokens", 32, block_size=32),
    *_budgets("linformer", "rank", 32, 64, 128, 256),
    *_budgets("linformer", "rank", 64, 256, method="mean_pool"),
    *_budgets("performer", "num_features", 32, 64, 128, 256, 512),
    *_budgets("performer", "num_features", 64, 256, orthogonal=False),
)
_FULL_BUDGETS = (
    *_STANDARD_BUDGETS,
    *_budgets("longformer", "window", 512),
    *_budgets("bigbird", "num_random_blocks", 0, 16, block_size=32),
    *_budgets("linformer", "rank", 16, 512),
    *_budgets("performer", "num_features", 16, 1024),
    *_budgets("performer", "num_features", 32, 128, 512, 1024, orthogonal=False),
)

_GAUSSIAN = tuple(Arm("gaussian", {"scale": scale}) for scale in (0.3, 1, 2))
_QUICK_INPUTS = (*_GAUSSIAN[:2], Arm("peaked"), Arm(TRAINED_NAME))
_STANDARD_INPUTS = (
    *_GAUSSIAN, Arm("peaked"), Arm("low_rank"), Arm("heavy_tailed"), Arm(TRAINED_NAME),
)  # fmt: skip
_FULL_INPUTS = (
    *_GAUSSIAN,
    *_budgets("peaked", "num_keys", 1, 2, 8),
    *_budgets("low_rank", "rank", 2, 8, 32),
    *_budgets("heavy_tailed", "df", 3, 6),
    *_budgets(TRAINED_NAME, "layer", *range(TRAINED.num_layers)),
)

ERROR_PRESETS: Mapping[str, ErrorPreset] = {
    "quick": ErrorPreset(
        (*BASELINES, *AS_THEY_ARE, *_QUICK_BUDGETS), _QUICK_INPUTS, (1024, 4096),
        launches=1, budget_s=0.1, case_timeout_s=300.0,
    ),
    "standard": ErrorPreset(
        (*BASELINES, *AS_THEY_ARE, *_STANDARD_BUDGETS), _STANDARD_INPUTS, (512, 1024, 2048, 4096),
        launches=1, budget_s=0.25, case_timeout_s=300.0,
    ),
    "full": ErrorPreset(
        (*BASELINES, *AS_THEY_ARE, *_FULL_BUDGETS), _FULL_INPUTS,
        (512, 1024, 2048, 4096, 8192, 16384),
        launches=3, budget_s=0.5, case_timeout_s=600.0,
    ),
}  # fmt: skip
"""By the names of suite speed's. What is trained is measured at lengths up to its own."""


def input_rows(
    inputs: Iterable[Arm],
    seq_lens: Sequence[int],
    *,
    heads_chosen: bool,
    lengths_chosen: bool,
) -> tuple[InputRow, ...]:
    """Say at which shape each of the inputs is measured.

    Args:
        inputs: distributions.
        seq_lens: of the grid.
        heads_chosen: whether an option names the heads: then they are everyone's, and are refused
            where a trained model has others.
        lengths_chosen: whether an option names the lengths: then each is asked for, and is
            unsupported where a trained model's text is shorter.
    """
    rows = []
    for one in inputs:
        trained = one.name == TRAINED_NAME
        within = tuple(n for n in seq_lens if n <= TRAINED.seq_len)
        own = {
            "num_heads": TRAINED.num_heads, "num_kv_heads": TRAINED.num_heads,
            "head_dim": TRAINED.head_dim,
        }  # fmt: skip
        rows.append(
            InputRow(
                inputs=one,
                seq_lens=within if trained and not lengths_chosen else tuple(seq_lens),
                heads=own if trained and not heads_chosen else {},
            )
        )
    return tuple(rows)
