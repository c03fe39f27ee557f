"""Suite speed: what our backends cost, at four levels and in three modes. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from click import Option

from results.schema import IDENTITY, Arm, Case, Level, Mode
from suites.content_names import hf_config_name
from suites.parameters import FILE
from suites.suite import SHARED, Plan, Suite, by_preset, listed

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
_PUBLISHED = (Arm("bert-base"), Arm("gpt2-small"), Arm("bart-base"))

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
        by_device: further fields of `SpeedPlan` on a device, or on `ANY`, in place of its
            defaults.
    """

    seq_lens: tuple[int, ...]
    modes: tuple[Mode, ...]
    launches: int
    budget_s: float
    case_timeout_s: float
    choices: tuple[BackendChoice, ...] = ()
    backends: tuple[Arm, ...] = ()
    levels: tuple[Level, ...] = ("attention",)
    models: tuple[Arm, ...] = _PUBLISHED
    by_device: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def fields(self, device: str, *, but: Collection[str] = ()) -> dict[str, Any]:
        """Return the fields of a plan on a device, all but some."""
        fields = vars(self) | {
            "backends": self.backends or tuple(Arm(one.backend) for one in self.choices)
        }
        for where in (ANY, device):
            fields |= self.by_device.get(where, {})
        return {n: v for n, v in fields.items() if n not in but and n != "by_device"}


PRESETS: Mapping[str, Preset] = {
    "quick": Preset(_QUICK, _BOTH, launches=3, budget_s=0.25, case_timeout_s=60.0),
    "standard": Preset(_STANDARD, _BOTH, launches=3, budget_s=0.5, case_timeout_s=180.0),
    "full": Preset(_FULL, _BOTH, launches=3, budget_s=1.0, case_timeout_s=600.0),
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
        levels=("model",), models=_PARTS, by_device={"cuda": {"models": _PUBLISHED}},
    ),
}  # fmt: skip
"""By name. Lengths lie close enough for four of them to fit an exponent, but in ``million``;
``kernels`` has one length, and asks which exact kernel is the fastest; ``decode`` has contexts,
and ``models`` whole models, on a CPU at a quarter or a third of their size."""


@dataclass(frozen=True, kw_only=True)
class SpeedPlan(Plan):
    """A sweep of suite speed.

    Attributes:
        modes: of each length.
        levels: of each length.
        models: configurations of level model.
        checkpointings: whether a model's training keeps the blocks' inputs alone.
        choices: the modes and the causality of the backends named here; `modes` and `is_causal`
            hold for the others.
    """

    modes: tuple[Mode, ...]
    levels: tuple[Level, ...] = ("attention",)
    models: tuple[Arm, ...] = _PUBLISHED
    checkpointings: tuple[bool, ...] = (False,)
    choices: tuple[BackendChoice, ...] = ()

    def choice(self, arm: Arm) -> BackendChoice:
        """Return how a backend is measured: as its choice says, else as the sweep does."""
        named = (choice for choice in self.choices if choice.backend == arm.name)
        return next(named, BackendChoice(arm.name, self.modes, (self.is_causal,)))


def _by_device(name: str) -> str:
    """Say a field's default, and where a preset has another on some device."""
    others = [
        f"{preset} {'' if device == ANY else f'on {device} '}{listed(values[name])}"
        for preset, one in PRESETS.items()
        for device, values in one.by_device.items()
        if name in values
    ]
    return "; ".join([listed(getattr(SpeedPlan, name)), *others])


def _defaults() -> dict[str, str]:
    """Return what the help of options says of the presets."""
    usual, parts = PRESETS["quick"].models, PRESETS["models"].models
    shown = [", ".join(arm.label for arm in arms) for arms in (usual, parts)]
    limits = ("launches", "budget_s", "case_timeout_s")
    axes = ("dtypes", "batches", "num_heads", "head_dims")
    return {
        "models": f"{shown[0]}; of preset models on a CPU {shown[1]}",
        **{name: by_preset(PRESETS, name) for name in limits},
        **{name: _by_device(name) for name in axes},
    }


class SpeedSuite(Suite[SpeedPlan]):
    """What our backends cost."""

    name = "speed"
    kind = "speed"
    summary = "our backends"
    presets = PRESETS
    takes = frozenset(SHARED)
    options = (
        Option(
            ["--hf-config", "hf_configs"],
            multiple=True,
            type=FILE,
            help="A config.json of Hugging Face's transformers: its model, with random weights, "
            "at level model, with each backend in its layers. Repeatable; needs transformers.",
        ),
        Option(
            ["--profile"],
            is_flag=True,
            help="Say where a call's time goes, too: a few more calls under torch's profiler, "
            "after all that is measured. Of each case the run's folder keeps a trace, for "
            "Perfetto, and a table of operators, in traces. Only with suite speed.",
        ),
    )
    run_name = "quick"
    compares_all = True

    defaults: Mapping[str, str] = _defaults()

    def plan(self, preset: str | None, chosen: Mapping[str, Any]) -> SpeedPlan:
        """Return the sweep of a preset and options.

        Modes that are chosen, and causality if it is, hold for the preset's choices too.
        """
        fields = self.preset(preset).fields(chosen.get("device", SpeedPlan.device)) | chosen
        if configs := fields.pop("hf_configs", ()):
            fields |= _with_configs(configs, chosen)
        plan = SpeedPlan(suite=self, **fields)
        _check_levels(plan, chosen)
        changes: dict[str, Any] = {"modes": plan.modes} if "modes" in chosen else {}
        if plan.is_causal:
            changes["causal"] = (True,)
        return replace(plan, choices=tuple(replace(one, **changes) for one in plan.choices))

    def cases(self, plan: SpeedPlan) -> list[Case]:
        """Return a case per backend, level, mode and point of the axes."""
        return [
            Case(
                kind="speed",
                level=level,
                mode=mode,
                arms=(arm,) if level == "attention" else (arm, Arm(IDENTITY)),
                **{**point, **fixed},
            )
            for arm in plan.backends
            for level in plan.levels
            for mode in plan.choice(arm).modes
            for fixed in _fixed(plan, arm, level, mode)
            for point in plan.points(plan.seq_lens)
            if not (mode == "decode" and point["compile"])
        ]

    def builds_models(self, plan: SpeedPlan) -> bool:
        """Say whether there are cases of level model."""
        return "model" in plan.levels


def _fixed(plan: SpeedPlan, arm: Arm, level: Level, mode: Mode) -> Iterator[dict[str, Any]]:
    """Walk what level and mode decide of a case, as fields of `Case`."""
    if level != "model":
        causal = (True,) if mode == "decode" else plan.choice(arm).causal
        yield from ({"is_causal": is_causal} for is_causal in causal)
        return
    for model in plan.models:
        for checkpointing in plan.checkpointings if mode == "training" else (False,):
            yield {
                "model": model.label, "checkpointing": checkpointing, "is_causal": False,
                "num_heads": 0, "num_kv_heads": 0, "head_dim": 0,
            }  # fmt: skip


def _with_configs(configs: Sequence[Path], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a plan that configurations of transformers decide: level model.

    Raises:
        ValueError: if a file is no configuration.
    """
    models, files = [*chosen.get("models", ())], {}
    for path in configs:
        try:
            name = hf_config_name(path)
        except ValueError as error:
            message = str(error).removeprefix(f"{path.name}: ")
            raise ValueError(f"hf-config: {path}: {message}") from None
        models.append(Arm(name))
        files[name] = str(path.resolve())
    levels = chosen.get("levels", ("model",))
    if "model" not in levels:
        raise ValueError(f"hf-config: only with level model; got {', '.join(levels)}")
    return {"models": tuple(models), "files": files, "levels": levels}


def _check_levels(plan: SpeedPlan, chosen: Mapping[str, Any]) -> None:
    """Check that no option is given that no case of the sweep would have.

    Raises:
        ValueError: naming the option and what came.
    """
    trained = "model" in plan.levels and "training" in plan.modes
    if any(plan.checkpointings) and not trained:
        raise ValueError("checkpointing: only level model in mode training has it; got on")
    if "model" not in plan.levels and "models" in chosen:
        named = ", ".join(arm.label for arm in chosen["models"])
        raise ValueError(f"model: only with level model; got {named}")
    if any(plan.compiles) and set(plan.modes) == {"decode"}:
        raise ValueError("compile: a step of a decoder runs as it is; got on")
    if set(plan.levels) == {"model"}:
        for name in ("num_heads", "head_dims"):
            if name in chosen:
                raise ValueError(
                    f"{SHARED[name]}: a model has its own; got {chosen[name][0]}. Scale a model "
                    "by its options: --model bert-base:num_layers=4"
                )
        if plan.is_causal:
            raise ValueError("causal: a model is causal or not by itself; got it at level model")


SUITE = SpeedSuite()
