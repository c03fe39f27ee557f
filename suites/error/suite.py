"""Suite error: how far each backend is from exact softmax, beside what it costs. No torch.

For each family the budgets that it offers, between exact attention in two forms, on inputs from
nearly uniform attention to a trained model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from click import Option

from results.schema import Arm, Case
from suites.parameters import Parsed, any_of, flattened
from suites.parsing import parse_backends
from suites.suite import Plan, Suite, by_preset
from suites.words import measured, precision


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
        heads: fields of `Case` in place of the sweep's.
    """

    inputs: Arm
    seq_lens: tuple[int, ...]
    heads: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ErrorPreset:
    """What suite error measures under one name; attributes as of `ErrorPlan`."""

    backends: tuple[Arm, ...]
    inputs: tuple[Arm, ...]
    seq_lens: tuple[int, ...]
    launches: int
    budget_s: float
    case_timeout_s: float
    num_heads: tuple[int, ...] = (4,)


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
        seq_lens: of the sweep.
        heads_chosen: whether an option names the heads: then they are everyone's, and are refused
            where a trained model has others.
        lengths_chosen: whether an option names the lengths: then each is asked for, and is
            unsupported where a trained model's text is shorter.
    """
    rows = []
    for one in inputs:
        trained = one.name == TRAINED_NAME
        within = tuple(n for n in seq_lens if n <= TRAINED.seq_len)
        shape = {
            "num_heads": TRAINED.num_heads, "num_kv_heads": TRAINED.num_heads,
            "head_dim": TRAINED.head_dim,
        }  # fmt: skip
        rows.append(
            InputRow(
                inputs=one,
                seq_lens=within if trained and not lengths_chosen else tuple(seq_lens),
                heads=shape if trained and not heads_chosen else {},
            )
        )
    return tuple(rows)


@dataclass(frozen=True, kw_only=True)
class ErrorPlan(Plan):
    """A sweep of suite error.

    Attributes:
        inputs: what q, k and v are drawn from, and at which shape.
    """

    inputs: tuple[InputRow, ...]


class ErrorSuite(Suite[ErrorPlan]):
    """How far each backend is from exact softmax, at several budgets and on several inputs."""

    name = "error"
    kind = "error"
    summary = "how far each backend is from exact softmax, by budget and inputs, and what it costs"
    examples = (
        "attnbench run error --out runs/error",
        "attnbench run error --backend longformer:window=64 --inputs trained --seq-len 2048",
    )
    presets = ERROR_PRESETS
    takes = frozenset(
        {"backends", "seq_lens", "dtypes", "batches", "num_heads", "head_dims", "is_causal",
         "allocators", "matmul_precisions", "compiles"}
    )  # fmt: skip
    only: Mapping[str, Any] = {"modes": ("forward",), "levels": ("attention",)}
    refusals: Mapping[str, str] = {
        "modes": "suite error is of mode forward", "levels": "suite error is of level attention"
    }  # fmt: skip
    defaults: Mapping[str, str] = {
        "backends": "the preset's, at several budgets",
        "num_heads": f"{ERROR_PRESETS['quick'].num_heads[0]}",
        **{
            name: by_preset(ERROR_PRESETS, name)
            for name in ("launches", "budget_s", "case_timeout_s")
        },
    }
    compares_all = True
    options = (
        Option(
            ["--inputs"],
            multiple=True,
            type=Parsed("NAME[:key=value,…]", parse_backends),
            shell_complete=any_of(lambda: input_names()),
            callback=flattened,
            show_default=f"{', '.join(one.label for one in _QUICK_INPUTS)}; standard, full: more",
            help="gaussian, peaked, low_rank, heavy_tailed or trained. Repeatable.",
        ),
    )

    def plan(self, preset: str | None, chosen: Mapping[str, Any]) -> ErrorPlan:
        """Return the sweep of a preset and options; inputs are distributions with options."""
        fields = {**vars(self.preset(preset)), **chosen}
        fields["inputs"] = input_rows(
            fields["inputs"],
            fields["seq_lens"],
            heads_chosen="num_heads" in chosen or "head_dims" in chosen,
            lengths_chosen="seq_lens" in chosen,
        )
        return ErrorPlan(suite=self, **fields)

    def cases(self, plan: ErrorPlan) -> list[Case]:
        """Return a case per distribution, backend at a budget and point of the axes."""
        return [
            Case(
                kind="error", level="attention", mode="forward", arms=(arm,),
                is_causal=plan.is_causal, inputs=row.inputs.label, **{**point, **row.heads},
            )
            for row in plan.inputs
            for arm in plan.backends
            for point in plan.points(row.seq_lens)
        ]  # fmt: skip

    def label(self, case: Case) -> str:
        """Name a case by its inputs."""
        how = f"{' causal' if case.is_causal else ''}{' compiled' if case.compile else ''}"
        on = f"{case.inputs}{how}{precision(case)}"
        return f"{case.arms[0].label} on {on} N={case.seq_len}"

    def describe(self, record: Mapping[str, Any]) -> str:
        """Write latency, memory and the error."""
        metrics = record["arms"][0]["metrics"]
        return f"{measured(metrics)}  error {metrics['relative_error']['value']:.3g}"


def input_names() -> list[str]:
    """Return the names of what queries and keys are drawn from."""
    return sorted({arm.name for preset in ERROR_PRESETS.values() for arm in preset.inputs})


SUITE = ErrorSuite()
