"""What suite speed measures where no option says otherwise. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from results.schema import Arm, Level, Mode

ANY = "any"
"""In `Preset.by_device`: every device."""


@dataclass(frozen=True)
class BackendChoice:
    """A backend of a preset that measures a choice of them, each in its own way.

    Attributes:
        backend: its name.
        modes: that it is measured in.
        causal: whether, for each of them, attention is causal.
    """

    backend: str
    modes: tuple[Mode, ...] = ("forward",)
    causal: tuple[bool, ...] = (False,)


_QUICK = (768, 1024, 1536, 2048, 4096)
_STANDARD = (512, *_QUICK[:4], 3072, 4096, 6144, 8192, 16384)
_FULL = (128, 256, *_STANDARD, 24576, *(2**power for power in range(15, 21)))

_SCALING = (4096, 8192, 16384, 32768, 65536)
_MILLION = (2**16, 2**18, 2**20)

_BOTH: tuple[Mode, ...] = ("forward", "training")

_CONTEXTS = (512, 1024, 2048, 4096, 8192, 16384, 32768)

# The same share of layers and of vocabulary: the parts keep their proportions.
_PARTS = (
    Arm("bert-base", {"num_layers": 3, "vocab_size": 7680}),
    Arm("gpt2-small", {"num_layers": 3, "vocab_size": 12544}),
    Arm("bart-base", {"num_layers": 2, "vocab_size": 16755}),
)
PUBLISHED = (Arm("bert-base"), Arm("gpt2-small"), Arm("bart-base"))

_EXACT = (
    Arm("sdpa"),
    *(Arm("sdpa", {"kernel": kernel}) for kernel in ("flash", "cudnn", "efficient", "math")),
    Arm("xformers"),
)
_ON_A_GPU: Mapping[str, Any] = {
    "seq_lens": (16384,), "dtypes": ("bfloat16",), "batches": (4,), "num_heads": (16,),
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """What a sweep measures where the options do not say otherwise.

    Attributes:
        seq_lens: lengths in tokens.
        modes: of each length.
        launches: fresh processes per case.
        budget_s: sampling time per arm, in seconds.
        case_timeout_s: the longest that one launch may take, in seconds.
        choices: the backends, each with modes and causality of its own; empty = as `backends`.
        backends: what is compared; empty = the choices, or all that are registered.
        levels: of each length.
        models: configurations of level model, which the command line writes as it does backends.
        by_device: further fields of a plan on a device, or on `ANY`, in place of its
            defaults.
        precision: to which a run's questions are answered where no option says otherwise, as a
            fraction (`results.statistics.questions`); ``None`` = `launches` alone decide.
        within_s: seconds of such a sweep, if its first rounds leave some; ``None`` = no limit.
    """

    seq_lens: tuple[int, ...]
    modes: tuple[Mode, ...]
    launches: int
    budget_s: float
    case_timeout_s: float
    choices: tuple[BackendChoice, ...] = ()
    backends: tuple[Arm, ...] = ()
    levels: tuple[Level, ...] = ("attention",)
    models: tuple[Arm, ...] = PUBLISHED
    by_device: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    precision: float | None = None
    within_s: float | None = None

    def fields(self, device: str, *, but: Collection[str] = ()) -> dict[str, Any]:
        """Return the fields of a plan on a device, all but some."""
        fields = vars(self) | {
            "backends": self.backends or tuple(Arm(one.backend) for one in self.choices)
        }
        for where in (ANY, device):
            fields |= self.by_device.get(where, {})
        return {n: v for n, v in fields.items() if n not in but and n != "by_device"}


PRESETS: Mapping[str, Preset] = {
    "quick": Preset(
        _QUICK, _BOTH, launches=3, budget_s=0.25, case_timeout_s=60.0,
        precision=0.10, within_s=4 * 60,
    ),
    "standard": Preset(
        _STANDARD, _BOTH, launches=3, budget_s=0.5, case_timeout_s=180.0,
        precision=0.10, within_s=40 * 60,
    ),
    "full": Preset(
        _FULL, _BOTH, launches=3, budget_s=1.0, case_timeout_s=600.0, precision=0.05,
    ),
    "scaling": Preset(
        _SCALING, ("forward",), launches=5, budget_s=0.5, case_timeout_s=120.0,
        choices=(
            BackendChoice("longformer"),
            BackendChoice("bigbird"),
            BackendChoice("linformer"),
            BackendChoice("performer", causal=(False, True)),
        ),
    ),
    # One head and hardly more than one sample: a call takes seconds, its inputs 768 MiB.
    "million": Preset(
        _MILLION, _BOTH, launches=1, budget_s=0.2, case_timeout_s=600.0,
        by_device={ANY: {"num_heads": (1,)}},
        choices=(
            BackendChoice("longformer", _BOTH),
            BackendChoice("performer", _BOTH, causal=(False, True)),
            BackendChoice("linformer"),
        ),
    ),
    "kernels": Preset(
        (1024,), _BOTH, launches=3, budget_s=0.5, case_timeout_s=180.0,
        backends=_EXACT, by_device={"cuda": _ON_A_GPU},
    ),
    "decode": Preset(
        _CONTEXTS, ("decode",), launches=3, budget_s=0.25, case_timeout_s=180.0,
    ),
    "models": Preset(
        (512, 1024, 2048), _BOTH, launches=3, budget_s=0.25, case_timeout_s=180.0,
        levels=("model",), models=_PARTS, by_device={"cuda": {"models": PUBLISHED}},
    ),
}  # fmt: skip
"""By name. Lengths lie close enough for four of them to fit an exponent, but in ``million``;
``kernels`` has one length, and asks which exact kernel is the fastest; ``decode`` has contexts,
and ``models`` whole models, on a CPU at a quarter or a third of their size."""
