"""Suite speed: what our backends cost, at four levels and in three modes. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from click import Option

from results.schema import IDENTITY, Arm, Case, Level, Mode
from suites.content_names import hf_config_name
from suites.documents import parse_documents, total_of
from suites.parameters import FILE, Parsed
from suites.parsing import parse_precision
from suites.speed.presets import ANY, PRESETS, PUBLISHED, BackendChoice
from suites.suite import BASE_ROUNDS, SHARED, Plan, Suite, by_preset, listed


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
        memory_arms: labels of the backends that are measured at `memory_lengths`; ``None`` = not
            known yet.
        packed: the documents of a row, measured packed and padded; "" = a row is one.
    """

    modes: tuple[Mode, ...]
    levels: tuple[Level, ...] = ("attention",)
    models: tuple[Arm, ...] = PUBLISHED
    checkpointings: tuple[bool, ...] = (False,)
    choices: tuple[BackendChoice, ...] = ()
    memory_arms: frozenset[str] | None = None
    packed: str = ""

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


def _of_presets(name: str, shown: Callable[[float], str]) -> str:
    """Say a field's values in the presets that have one."""
    values = {preset: getattr(one, name) for preset, one in PRESETS.items()}
    told = [f"{p} {shown(value)}" for p, value in values.items() if value is not None]
    return f"{', '.join(told)}, others none"


def _defaults() -> dict[str, str]:
    """Return what the help of options says of the presets."""
    usual = listed(arm.label for arm in PRESETS["quick"].models)
    limits = ("launches", "budget_s", "case_timeout_s")
    axes = ("dtypes", "batches", "num_heads", "head_dims")
    return {
        "backends": "all that run on the device, or the preset's",
        "modes": "forward,training, or the preset's",
        "levels": "attention, or the preset's",
        "models": usual,
        **{name: by_preset(PRESETS, name) for name in limits},
        **{name: _by_device(name) for name in axes},
        "precision": _of_presets("precision", lambda value: f"{100 * value:g}%"),
        "within_s": _of_presets("within_s", lambda value: f"{value / 60:g}m"),
    }


class SpeedSuite(Suite[SpeedPlan]):
    """What our backends cost."""

    name = "speed"
    kind = "speed"
    summary = "what our backends cost: time and memory, forward, training and decoding"
    examples = (
        "attnbench run --preset quick --out runs/today",
        "attnbench run speed --backend full,sdpa,longformer:window=64 --seq-len 512,1024",
    )
    presets = PRESETS
    takes = frozenset(SHARED)
    options = (
        Option(
            ["--hf-config", "hf_configs"],
            multiple=True,
            type=FILE,
            help="A model by its config.json of Hugging Face's. Repeatable.",
        ),
        Option(
            ["--profile"],
            is_flag=True,
            help="Say where a call's time goes, with traces for Perfetto.",
        ),
        Option(
            ["--packed"],
            type=Parsed("LENGTHS", parse_documents),
            help="Documents that fill --seq-len, packed and padded: 512,300,212, "
            "uniform:low=64,high=512, lognormal:mean=512,sigma=1.",
        ),
        Option(
            ["--precision"],
            type=Parsed("PERCENT", parse_precision),
            help="Add processes until exponents are known to ±0.10 and crossovers to ±15 % (at "
            "10%; else in proportion). Not with --launches.",
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
        fields |= _launches(fields, chosen)
        fields |= _packed(fields, chosen)
        if "seq_lens" in chosen or "packed" in chosen:
            fields["memory_lengths"] = ()
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
                packed=plan.packed,
                padded=padded,
            )
            for arm in plan.backends
            for level in plan.levels
            for mode in plan.choice(arm).modes
            for fixed in _fixed(plan, arm, level, mode)
            for point in plan.points((*plan.seq_lens, *plan.memory_lengths))
            for padded in ((False, True) if plan.packed else (False,))
            if not (mode == "decode" and (point["compile"] or plan.packed))
            if point["seq_len"] not in plan.memory_lengths
            or (_has_memory_lengths(plan, arm, level, mode) and not point["compile"])
        ]

    def informed(self, plan: SpeedPlan, inspected: Mapping[str, Mapping[str, Any]]) -> SpeedPlan:
        """Return a sweep that knows whose memory is declared to grow with the length at most."""
        told = [(c.arms[0].label, inspected[c.id]) for c in self.cases(plan) if c.id in inspected]
        linear = {arm for arm, one in told if one["memory_exponent"] <= 1}
        supported = {arm for arm, one in told if not one["unsupported"]}
        return replace(plan, memory_arms=frozenset(linear & supported))

    def launches_of(self, plan: SpeedPlan, case: Case) -> int:
        """Return how often a case is launched: once where its memory alone is measured."""
        return plan.launches if plan.times(case) else 1

    def builds_models(self, plan: SpeedPlan) -> bool:
        """Say whether there are cases of level model."""
        return "model" in plan.levels


def _launches(fields: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a plan that decide how often cases are launched.

    Raises:
        ValueError: if both a number of launches and a precision are chosen.
    """
    if "launches" not in chosen:
        return {} if fields["precision"] is None else {"launches": BASE_ROUNDS}
    if "precision" in chosen:
        raise ValueError(
            "precision: chooses the processes per case, expected no --launches beside "
            f"it; got {100 * chosen['precision']:g}% and {chosen['launches']}"
        )
    return {"precision": None, "within_s": None}


def _packed(fields: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a plan that the documents of a row decide.

    Raises:
        ValueError: if another option goes with no documents.
    """
    if "packed" not in chosen:
        return {}
    for name, accepted in (("levels", ("attention",)), ("batches", (1,)), ("compiles", (False,))):
        if tuple(chosen.get(name, accepted)) != accepted:
            shown = {"levels": "level attention", "batches": "batch 1", "compiles": "no --compile"}
            raise ValueError(f"packed: goes with {shown[name]}; got {listed(chosen[name])}")
    if "decode" in chosen.get("modes", ()):
        raise ValueError("packed: goes with modes forward and training; got decode")
    total = total_of(chosen["packed"])
    if total is None:
        return {"levels": ("attention",), "batches": (1,), "compiles": (False,)}
    if chosen.get("seq_lens", (total,)) != (total,):
        raise ValueError(
            f"packed: its documents have {total} tokens; expected no other --seq-len, got "
            f"{listed(chosen['seq_lens'])}"
        )
    seq_lens = (total,)
    return {"levels": ("attention",), "batches": (1,), "compiles": (False,), "seq_lens": seq_lens}


def _has_memory_lengths(plan: SpeedPlan, arm: Arm, level: Level, mode: Mode) -> bool:
    """Say whether cases at `SpeedPlan.memory_lengths` are measured."""
    is_linear = plan.memory_arms is None or arm.label in plan.memory_arms
    return is_linear and level == "attention" and mode != "decode"


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
