"""From options and presets to a list of cases and the order in which they are launched.

No torch and no asv here: what a backend accepts is asked of it elsewhere, before the first launch.
"""

from __future__ import annotations

import difflib
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from results.schema import (
    ALLOCATORS,
    CLAIM,
    CONTEXT,
    CONTEXT_MODE,
    FULL_PRECISION,
    IDENTITY,
    SENTINEL,
    Allocator,
    Arm,
    Case,
    Level,
    MatmulPrecision,
    Mode,
    content_id,
)
from suites.claims.suite import CLAIM_PRESETS, EXPERIMENTS, SCALING
from suites.content_names import corpus_name, folder_name, hf_config_name
from suites.context_parallel.suite import CONTEXT_PRESETS
from suites.error.suite import ERROR_PRESETS, InputRow, input_rows
from suites.peers.suite import PeerRow
from suites.processes import processors
from suites.quality.suite import (
    SMALL,
    TRAINING_PRESETS,
    Chosen,
    TaskRow,
    rows_for,
    task_cases,
)
from suites.training.plan import View

Suite = Literal["speed", "peers", "error", "quality", "quantized", "claims", "context"]

SUITES: tuple[str, ...] = get_args(Suite)

MOST_SENTINELS = 21
"""Launches of the sentinel in a sweep, at most: one at each end and at every twentieth between."""
LAUNCHES_PER_SENTINEL = 4
"""There is no more than one sentinel to so many other launches, but for the fewest."""
FEWEST_SENTINELS = 4
"""Launches of the sentinel in the shortest sweep: fewer tell of no drift."""
SENTINEL_BUDGET_S = 0.1
"""Sampling time of a sentinel, at most: some ten of its calls."""

ANY = "any"
"""In `Preset.by_device`: every device."""


@dataclass(frozen=True)
class Pick:
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
        picks: the backends, each with modes and causality of its own; empty = as `backends`.
        backends: what is compared; empty = the picks, or all that are registered.
        levels: of each length.
        models: configurations of level model, which the command line writes as it does backends.
        by_device: further fields of `Grid` on a device, or on `ANY`, in place of its defaults.
    """

    seq_lens: tuple[int, ...]
    modes: tuple[Mode, ...]
    launches: int
    budget_s: float
    case_timeout_s: float
    picks: tuple[Pick, ...] = ()
    backends: tuple[Arm, ...] = ()
    levels: tuple[Level, ...] = ("attention",)
    models: tuple[Arm, ...] = _PUBLISHED
    by_device: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


PRESETS: Mapping[str, Preset] = {
    "quick": Preset(_QUICK, _BOTH, launches=3, budget_s=0.25, case_timeout_s=60.0),
    "standard": Preset(_STANDARD, _BOTH, launches=3, budget_s=0.5, case_timeout_s=180.0),
    "full": Preset(_FULL, _BOTH, launches=3, budget_s=1.0, case_timeout_s=600.0),
    "scaling": Preset(
        _SCALING, ("forward",), launches=5, budget_s=0.5, case_timeout_s=120.0,
        picks=(
            Pick("longformer"),
            Pick("bigbird"),
            Pick("linformer"),
            Pick("performer", causal=(False, True)),
        ),
    ),
    # One head and hardly more than one sample: a call takes seconds, its inputs 768 MiB.
    "million": Preset(
        _MILLION, _BOTH, launches=1, budget_s=0.2, case_timeout_s=600.0,
            by_device={ANY: {"num_heads": (1,)}},
        picks=(
            Pick("longformer", _BOTH),
            Pick("performer", _BOTH, causal=(False, True)),
            Pick("linformer"),
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

DEFAULT_PRESET = "quick"
"""Of suite speed."""

PEERS = Preset((), _BOTH, launches=3, budget_s=1.0, case_timeout_s=300.0)
"""Suite peers where nothing says otherwise; every row has a length of its own."""


APART_FROM_TRAINING_S = 30.0
"""Seconds of a case of kind task beyond its training's own, at least: to build and to measure."""

LARGEST_LIMIT_S = 1e6
"""The most that ``--case-timeout`` takes."""


@dataclass(frozen=True)
class Grid:
    """A sweep: the product of its axes, and how often and how long each case is measured.

    Attributes:
        backends: what is compared; each is a case of its own. In suite peers: our counterparts,
            with options in place of a row's own; empty = every row's.
        seq_lens: in tokens; empty, in suite peers: every row's own.
        matmul_precisions: of float32 products; other dtypes have `FULL_PRECISION` alone.
        compiles: whether the module goes through ``torch.compile``.
        models: configurations of level model.
        checkpointings: whether a model's training keeps the blocks' inputs alone.
        picks: the modes and the causality of the backends named here; `modes` and `is_causal`
            hold for the others.
        peers: names; empty = all that run on `device`.
        rows: of suite peers, as chosen (`suites.peers.suite.choose_rows`).
        inputs: of suite error: what q, k and v are drawn from, and at which shape.
        tasks: of suites quality and quantized: what is trained, on what budget.
        view: of these: what is equal among the trainings.
        num_seeds: of these: trainings of each case, from `seed` on.
        weights: of suite quantized: what the parameters are kept in.
        files: a content's name to its path, of the tasks and models that are read from files.
        ranks: of suite context: over how many processes a sequence is cut.
        claims: of suite claims: the ids of those that are tested; `launches` are their seeds.
        profile: whether the launches of suite speed also say where the time goes; the cases are
            the same.
        shard: ``(i, n)``, from 1: this sweep is the i-th of n parts.
    """

    backends: tuple[Arm, ...]
    seq_lens: tuple[int, ...]
    modes: tuple[Mode, ...]
    levels: tuple[Level, ...] = ("attention",)
    device: str = "cpu"
    dtypes: tuple[str, ...] = ("float32",)
    batches: tuple[int, ...] = (1,)
    num_heads: tuple[int, ...] = (8,)
    head_dims: tuple[int, ...] = (64,)
    threads: tuple[int, ...] = (1,)
    allocators: tuple[Allocator, ...] = ("default",)
    matmul_precisions: tuple[MatmulPrecision, ...] = (FULL_PRECISION,)
    compiles: tuple[bool, ...] = (False,)
    models: tuple[Arm, ...] = _PUBLISHED
    checkpointings: tuple[bool, ...] = (False,)
    is_causal: bool = False
    seed: int = 0
    launches: int = 1
    budget_s: float = 1.0
    case_timeout_s: float = 60.0
    picks: tuple[Pick, ...] = ()
    suite: Suite = "speed"
    peers: tuple[str, ...] = ()
    rows: tuple[PeerRow, ...] = ()
    inputs: tuple[InputRow, ...] = ()
    tasks: tuple[TaskRow, ...] = ()
    view: View = "steps"
    num_seeds: int = 3
    weights: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    ranks: tuple[int, ...] = ()
    claims: tuple[str, ...] = ()
    profile: bool = False
    shard: tuple[int, int] = (1, 1)


class Item(NamedTuple):
    """One launch of one case: what the driver does next."""

    case: Case
    launch: int


def grid_from(preset: str | None, **chosen: Any) -> Grid:
    """Fill a grid from a preset; `chosen` holds fields of `Grid`.

    ``None`` and ``()`` = as the preset says. Modes that are chosen, and `is_causal` if it is
    true, hold for the preset's picks too.

    Without a preset, suites speed and error take their `DEFAULT_PRESET`, suite peers `PEERS`.
    `inputs` are given as distributions with their options.

    Raises:
        ValueError: if there is no such preset or suite, or a field has no meaning in the suite.
    """
    suite = chosen.get("suite") or "speed"
    _check_suite(suite, chosen)
    if suite in TRAINING_PRESETS:
        return _training_grid(suite, preset, chosen)
    if suite == "claims":
        return _claims_grid(preset, chosen)
    if suite == "context":
        return _context_grid(preset, chosen)
    values = _preset_values(suite, preset, chosen.get("device") or "cpu")
    values["threads"] = (available_cores(),)
    given = {key: value for key, value in chosen.items() if value is not None and value != ()}
    values.update(given)
    if configs := values.pop("hf_configs", ()):
        values |= _with_configs(values, configs, given)
    if suite == "error":
        values["inputs"] = input_rows(
            values["inputs"],
            values["seq_lens"],
            heads_chosen=bool(given.get("num_heads") or given.get("head_dims")),
            lengths_chosen=bool(given.get("seq_lens")),
        )
    grid = Grid(**values)
    changes: dict[str, Any] = {}
    if given.get("modes"):
        changes["modes"] = grid.modes
    if grid.is_causal:
        changes["causal"] = (True,)
    _check_levels(grid, given)
    return replace(grid, picks=tuple(replace(pick, **changes) for pick in grid.picks))


def _claims_grid(preset: str | None, chosen: Mapping[str, Any]) -> Grid:
    """Fill the grid of suite claims.

    Raises:
        ValueError: if it has no such preset or claim, or what is chosen has no meaning there.
    """
    if preset is not None and preset not in CLAIM_PRESETS:
        raise ValueError(
            f"preset: expected one of {', '.join(CLAIM_PRESETS)} in suite claims, got {preset!r}"
        )
    taken = CLAIM_PRESETS[preset or DEFAULT_PRESET]
    known = (*EXPERIMENTS, *(claim for claim in SCALING if claim not in EXPERIMENTS))
    claims = chosen.get("claims") or known
    for claim in claims:
        if claim not in known:
            near = difflib.get_close_matches(claim, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"claim: no claim {claim!r}{hint}; accepted: {', '.join(known)}")
    fields = {**vars(taken), "threads": (available_cores(),)}
    # Page faults of fresh memory scatter between processes.
    if (chosen.get("device") or "cpu") == "cpu":
        fields["allocators"] = ("retained",)
    own = ("device", "threads", "seed", "launches", "budget_s", "case_timeout_s", "shard")
    fields |= {k: chosen[k] for k in own if chosen.get(k) is not None and chosen.get(k) != ()}
    return Grid(
        suite="claims", claims=tuple(claims), backends=(), seq_lens=(), modes=("forward",),
        **fields,
    )  # fmt: skip


def _context_grid(preset: str | None, chosen: Mapping[str, Any]) -> Grid:
    """Fill the grid of suite context.

    Raises:
        ValueError: if it has no such preset, or what is chosen has no meaning there.
    """
    if preset is not None and preset not in CONTEXT_PRESETS:
        accepted = ", ".join(CONTEXT_PRESETS)
        raise ValueError(f"preset: expected one of {accepted} in suite context, got {preset!r}")
    for name, option in _NOT_OF_CONTEXT.items():
        if _is_set(chosen.get(name)):
            raise ValueError(
                f"{option}: suite context measures a training step at level attention alone; "
                f"got {chosen[name]}"
            )
    fields = {**vars(CONTEXT_PRESETS[preset or DEFAULT_PRESET]), "threads": (available_cores(),)}
    fields |= {k: v for k, v in chosen.items() if v is not None and v != ()}
    for ranks in fields["ranks"]:
        if not 1 <= ranks <= min(fields["seq_lens"]):
            raise ValueError(
                f"ranks: expected 1 to {min(fields['seq_lens'])}, the tokens of the shortest "
                f"sequence; got {ranks}"
            )
    return Grid(**{**fields, "modes": (CONTEXT_MODE,)})


def _with_configs(
    values: Mapping[str, Any], configs: Sequence[Path], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields of `Grid` that configurations of transformers decide: level model.

    Raises:
        ValueError: if a file is no configuration.
    """
    models, named = [*given.get("models", ())], {}
    for path in configs:
        try:
            name = hf_config_name(path)
        except ValueError as error:
            said = str(error).removeprefix(f"{path.name}: ")
            raise ValueError(f"hf-config: {path}: {said}") from None
        models.append(Arm(name))
        named[name] = str(path.resolve())
    levels = given.get("levels", ("model",))
    if "model" not in levels:
        raise ValueError(f"hf-config: only with level model; got {', '.join(levels)}")
    return {"models": tuple(models), "files": named, "levels": levels}


def _training_grid(suite: str, preset: str | None, chosen: Mapping[str, Any]) -> Grid:
    """Fill the grid of a suite that trains.

    Raises:
        ValueError: if it has no such preset, or what is chosen does not fit.
    """
    presets = TRAINING_PRESETS[suite]
    if preset is not None and preset not in presets:
        raise ValueError(
            f"preset: expected one of {', '.join(presets)} in suite {suite}, got {preset!r}"
        )
    taken = presets[preset or DEFAULT_PRESET]
    one = {name: _only_one(name, chosen.get(name)) for name in ("batches", "seq_lens", "models")}
    paths = {name: chosen[name] for name in ("corpus", "lra_data") if chosen.get(name)}
    naming = {"corpus": corpus_name, "lra_data": folder_name}
    names = {}
    for option, path in paths.items():
        try:
            names[option] = naming[option](path)
        except ValueError as error:
            raise ValueError(f"{option.replace('_', '-')}: {error}") from None
    model = one["models"]
    if model is not None and model.name != SMALL:
        raise ValueError(f"model: with suite {suite} expected {SMALL}:…, got {model.label}")
    rows = rows_for(
        taken,
        Chosen(
            tasks=chosen.get("tasks") or (), forms=chosen.get("forms") or (),
            amount=chosen.get("amount"), lr=chosen.get("lr"), pretrain=chosen.get("pretrain"),
            shape=model.options if model is not None else {},
            batch=one["batches"], seq_len=one["seq_lens"],
            backends=chosen.get("backends") or (), files=names,
        ),
    )  # fmt: skip
    view = chosen.get("view") or Grid.view
    fields: dict[str, Any] = {
        "num_seeds": taken.seeds, "budget_s": taken.budget_s,
        "weights": taken.weights, "threads": (available_cores(),),
    }  # fmt: skip
    own = ("suite", "device", "dtypes", "threads", "seed", "launches", "budget_s",
           "num_seeds", "view", "weights", "shard")  # fmt: skip
    fields |= {k: chosen[k] for k in own if chosen.get(k) is not None and chosen.get(k) != ()}
    fields["case_timeout_s"] = _training_limit(
        chosen.get("case_timeout_s"), taken.case_timeout_s, rows if view == "time" else ()
    )
    return Grid(
        backends=(), seq_lens=(), modes=("training",), levels=("model",), tasks=rows,
        files={names[option]: str(path.resolve()) for option, path in paths.items()}, **fields,
    )  # fmt: skip


def _training_limit(given: float | None, usual: float, timed: Sequence[TaskRow]) -> float:
    """Return the longest that a case may take, in seconds: enough for the longest training.

    Args:
        given: by an option.
        usual: the preset's.
        timed: rows whose trainings take their seconds, whatever the machine.

    Raises:
        ValueError: if a training could not end within what is given, or within any limit.
    """
    longest = max((row.seconds for row in timed), default=0.0)
    needed = longest + APART_FROM_TRAINING_S if timed else 0.0
    if needed > LARGEST_LIMIT_S:
        raise ValueError(
            f"amount: {longest:g} s of training are beyond any --case-timeout, which is at most "
            f"{LARGEST_LIMIT_S:g}; expected at most {LARGEST_LIMIT_S - APART_FROM_TRAINING_S:g}"
        )
    if given is None:
        generous = 1.5 * longest + 120.0 if timed else 0.0
        return min(LARGEST_LIMIT_S, max(usual, generous))
    if given < needed:
        raise ValueError(
            f"case-timeout: {given:g} s are too few for {longest:g} s of training (--amount) and "
            f"what is measured then; expected at least {needed:g}, or a smaller --amount"
        )
    return given


def _only_one(name: str, values: Any) -> Any:
    """Return the only value of an axis, ``None`` if it has none.

    Raises:
        ValueError: if there are several.
    """
    if values and len(values) > 1:
        option = {"batches": "batch", "seq_lens": "seq-len", "models": "model"}[name]
        raise ValueError(f"{option}: a training has one; got {len(values)}")
    return values[0] if values else None


def _preset_values(suite: str, preset: str | None, device: str) -> dict[str, Any]:
    """Return the fields of `Grid` that a suite's preset sets on a device.

    Raises:
        ValueError: if the suite has no such preset.
    """
    presets: Mapping[str, Any] = ERROR_PRESETS if suite == "error" else PRESETS
    if preset is not None and preset not in presets:
        of_suite = "" if presets is PRESETS else f" in suite {suite}"
        raise ValueError(f"preset: expected one of {', '.join(presets)}{of_suite}, got {preset!r}")
    if suite == "error":
        return dict(vars(presets[preset or DEFAULT_PRESET]))
    if preset is None and suite == "peers":
        values: dict[str, Any] = dict(vars(PEERS))
    else:
        values = dict(vars(presets[preset or DEFAULT_PRESET]))
    by_device = values.pop("by_device")
    for where in (ANY, device):
        values.update(by_device.get(where, {}))
    values["backends"] = values["backends"] or tuple(Arm(p.backend) for p in values["picks"])
    if suite == "peers":
        values.update(backends=(), picks=(), levels=("attention",))
        if device == "cpu":
            values["allocators"] = ALLOCATORS
    return values


_TRAINED = ("quality", "quantized")
_ONLY_WITH: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "tasks": ("task", _TRAINED), "forms": ("form", _TRAINED), "view": ("equal", _TRAINED),
    "amount": ("amount", _TRAINED), "lr": ("lr", _TRAINED), "pretrain": ("pretrain", _TRAINED),
    "num_seeds": ("seeds", _TRAINED), "corpus": ("corpus", _TRAINED),
    "lra_data": ("lra-data", _TRAINED), "weights": ("weights", ("quantized",)),
    "hf_configs": ("hf-config", ("speed",)), "claims": ("claim", ("claims",)),
    "ranks": ("ranks", ("context",)),
}  # fmt: skip
_NOT_CLAIMED: Mapping[str, str] = {
    "backends": "backend", "seq_lens": "seq-len", "batches": "batch", "dtypes": "dtype",
    "models": "model",
}  # fmt: skip
_NOT_OF_CONTEXT: Mapping[str, str] = {
    "modes": "mode", "levels": "level", "models": "model", "compiles": "compile",
    "checkpointings": "checkpointing", "allocators": "allocator",
}  # fmt: skip
_NOT_TRAINED: Mapping[str, str] = {
    "modes": "mode", "levels": "level", "num_heads": "num-heads", "head_dims": "head-dim",
    "is_causal": "causal", "compiles": "compile", "checkpointings": "checkpointing",
    "allocators": "allocator", "matmul_precisions": "matmul-precision",
}  # fmt: skip


def _check_suite(suite: str, chosen: Mapping[str, Any]) -> None:
    """Check that no field is given that the suite would ignore."""
    if suite not in SUITES:
        raise ValueError(f"suite: expected one of {', '.join(SUITES)}, got {suite!r}")
    if suite != "peers" and chosen.get("peers"):
        raise ValueError(f"peers: only with suite peers; got {', '.join(chosen['peers'])}")
    if suite != "error" and chosen.get("inputs"):
        named = ", ".join(one.label for one in chosen["inputs"])
        raise ValueError(f"inputs: only with suite error; got {named}")
    if suite != "speed" and chosen.get("profile"):
        raise ValueError(f"profile: only with suite speed; got suite {suite}")
    for field_name, (option, suites) in _ONLY_WITH.items():
        value = chosen.get(field_name)
        if suite not in suites and value is not None and value != () and value != "":
            raise ValueError(f"{option}: only with suite {' or '.join(suites)}")
    _check_own(suite, chosen)
    if suite == "peers" and "decode" in (chosen.get("modes") or ()):
        raise ValueError("mode: peers are measured in forward and training; got decode")
    if suite == "peers" and chosen.get("levels"):
        raise ValueError(
            "level: a peer sets its own, layer where it carries projections, else attention; "
            f"got {', '.join(chosen['levels'])}"
        )
    if suite == "error":
        for name, value in (("mode", "forward"), ("level", "attention")):
            given = chosen.get(f"{name}s") or (value,)
            if set(given) != {value}:
                raise ValueError(
                    f"{name}: suite error is of {name} {value}; got {', '.join(given)}"
                )


_UNSET: tuple[Any, ...] = (
    None, (), False, (False,), (FULL_PRECISION,), ("float32",), (1,), ("default",),
)  # fmt: skip


def _is_set(value: Any) -> bool:
    """Say whether an option has another value than its default; true is not the number 1."""
    return value not in _UNSET or (isinstance(value, tuple) and any(one is True for one in value))


def _check_own(suite: str, chosen: Mapping[str, Any]) -> None:
    """Check that no axis is given to a suite whose cases have their own."""
    if suite in TRAINING_PRESETS:
        for name, option in _NOT_TRAINED.items():
            value = chosen.get(name)
            if value is not None and value not in ((), False, (False,), (FULL_PRECISION,)):
                raise ValueError(f"{option}: a training has none of its own; see --model, --form")
    if suite == "claims":
        for name, option in {**_NOT_TRAINED, **_NOT_CLAIMED}.items():
            if _is_set(chosen.get(name)):
                raise ValueError(f"{option}: an experiment has its own; see --claim")


def _check_levels(grid: Grid, given: Mapping[str, Any]) -> None:
    """Check that no field is given that no case of the grid would have.

    Raises:
        ValueError: naming the field and what came.
    """
    trained = "model" in grid.levels and "training" in grid.modes
    if any(grid.checkpointings) and not trained:
        raise ValueError("checkpointing: only level model in mode training has it; got on")
    if "model" not in grid.levels and given.get("models"):
        named = ", ".join(arm.label for arm in given["models"])
        raise ValueError(f"model: only with level model; got {named}")
    if any(grid.compiles) and set(grid.modes) == {"decode"}:
        raise ValueError("compile: a step of a decoder runs as it is; got on")
    if set(grid.levels) == {"model"}:
        for name, option in (("num_heads", "num-heads"), ("head_dims", "head-dim")):
            if given.get(name):
                raise ValueError(
                    f"{option}: a model has its own; got {given[name][0]}. Scale a model by its "
                    "options: --model bert-base:num_layers=4"
                )
        if grid.is_causal:
            raise ValueError("causal: a model is causal or not by itself; got it at level model")


def available_cores() -> int:
    """Return the number of processors this process may run on."""
    return len(processors.usable())


# -- cases ---------------------------------------------------------------------------------------


def cases(grid: Grid) -> list[Case]:
    """Return the cases of the grid's shard without its roofs, series by series, lengths rising."""
    by_series = group(_CASES[grid.suite](grid)).values()
    index, count = grid.shard
    return [case for part in list(by_series)[index - 1 :: count] for case in part]


def _speed_cases(grid: Grid) -> list[Case]:
    return [
        Case(
            kind="speed",
            level=level,
            mode=mode,
            arms=(arm,) if level == "attention" else (arm, Arm(IDENTITY)),
            **{**point, **fixed},
        )
        for arm in grid.backends
        for level in grid.levels
        for mode in _picked(grid, arm).modes
        for fixed in _fixed(grid, arm, level, mode)
        for point in _points(grid, grid.seq_lens)
        if not (mode == "decode" and point["compile"])
    ]


def _fixed(grid: Grid, arm: Arm, level: Level, mode: Mode) -> Iterator[dict[str, Any]]:
    """Walk what level and mode decide of a case, as fields of `Case`."""
    if level != "model":
        causal = (True,) if mode == "decode" else _picked(grid, arm).causal
        yield from ({"is_causal": is_causal} for is_causal in causal)
        return
    for model in grid.models:
        for checkpointing in grid.checkpointings if mode == "training" else (False,):
            yield {
                "model": model.label, "checkpointing": checkpointing, "is_causal": False,
                "num_heads": 0, "num_kv_heads": 0, "head_dim": 0,
            }  # fmt: skip


def _peer_cases(grid: Grid) -> list[Case]:
    """Return a case per row and point of the axes; ours, the peer and projections are its arms."""
    return [
        Case(
            kind="peer",
            level="layer" if row.num_projections else "attention",
            mode=mode,
            arms=row.arms,
            is_causal=row.is_causal,
            **point,
        )
        for row in grid.rows
        for mode in grid.modes
        for point in _points(grid, grid.seq_lens or (row.seq_lens[mode],))
    ]


def _error_cases(grid: Grid) -> list[Case]:
    """Return a case per distribution, backend at a budget and point of the axes."""
    return [
        Case(
            kind="error", level="attention", mode="forward", arms=(arm,),
            is_causal=grid.is_causal, inputs=row.inputs.label, **{**point, **row.heads},
        )
        for row in grid.inputs
        for arm in grid.backends
        for point in _points(grid, row.seq_lens)
    ]  # fmt: skip


def _training_cases(grid: Grid) -> list[Case]:
    """Return a case per task, form, arm, seed and, of suite quantized, kind of weights."""
    seeds = range(grid.seed, grid.seed + grid.num_seeds)
    return [
        case
        for point in _points(grid, (1,))
        for case in task_cases(grid.tasks, grid.view, seeds, point, weights=grid.weights)
    ]


def _claim_cases(grid: Grid) -> list[Case]:
    """Return a case per experiment and seed, and those of kind speed that claims are asked of."""
    (fixed,) = _points(replace(grid, num_heads=(0,), head_dims=(0,)), (0,))
    found = [
        Case(
            kind=CLAIM, level="attention", mode="forward", arms=(Arm(CLAIM),), is_causal=False,
            task=claim, **{**fixed, "seed": seed},
        )
        for claim in grid.claims if claim in EXPERIMENTS
        for seed in range(grid.seed, grid.seed + grid.launches)
    ]  # fmt: skip
    rows = {row for claim in grid.claims for row in SCALING.get(claim, ())}
    found += [
        Case(
            kind="speed", level="attention", mode="forward", arms=(Arm(row.backend),),
            is_causal=row.is_causal, **point,
        )
        for row in sorted(rows)
        for point in _points(grid, row.seq_lens)
    ]  # fmt: skip
    return found


def _context_cases(grid: Grid) -> list[Case]:
    """Return a case per backend, number of ranks and point of the axes."""
    return [
        Case(
            kind=CONTEXT, level="attention", mode=CONTEXT_MODE, arms=(arm,),
            is_causal=grid.is_causal, ranks=ranks, **point,
        )
        for arm in grid.backends
        for ranks in sorted(set(grid.ranks))
        for point in _points(grid, grid.seq_lens)
    ]  # fmt: skip


_CASES: Mapping[Suite, Callable[[Grid], list[Case]]] = {
    "speed": _speed_cases, "peers": _peer_cases, "error": _error_cases,
    "quality": _training_cases, "quantized": _training_cases, "claims": _claim_cases,
    "context": _context_cases,
}  # fmt: skip


def _points(grid: Grid, seq_lens: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Walk the axes that every suite has, as fields of `Case`; lengths rise fastest."""
    every = itertools.product(
        [(dtype, precision) for dtype in grid.dtypes for precision in _precisions(grid, dtype)],
        grid.batches,
        grid.num_heads,
        grid.head_dims,
        grid.threads,
        grid.allocators,
        grid.compiles,
        sorted(set(seq_lens)),
    )
    for (dtype, precision), batch, heads, dim, threads, allocator, compiled, seq_len in every:
        yield {
            "batch": batch, "num_heads": heads, "num_kv_heads": heads, "head_dim": dim,
            "seq_len": seq_len, "key_len": seq_len, "device": grid.device, "dtype": dtype,
            "threads": threads, "allocator": allocator, "compile": compiled, "seed": grid.seed,
            "matmul_precision": precision,
        }  # fmt: skip


def _picked(grid: Grid, arm: Arm) -> Pick:
    """Return how a backend is measured: as the grid's pick of it says, else as the grid does."""
    named = (pick for pick in grid.picks if pick.backend == arm.name)
    return next(named, Pick(arm.name, grid.modes, (grid.is_causal,)))


def _precisions(grid: Grid, dtype: str) -> tuple[MatmulPrecision, ...]:
    """Return the precisions of the products of a dtype: only float32 has a choice."""
    return grid.matmul_precisions if dtype == "float32" else (FULL_PRECISION,)


def series_id(case: Case) -> str:
    """Return what the cases that differ in their length alone have in common."""
    content = {k: v for k, v in case.to_json().items() if k not in ("id", "seq_len", "key_len")}
    return content_id(content)


def group(every: Iterable[Case]) -> dict[str, list[Case]]:
    """Gather cases by series, each in rising length; equal cases once."""
    found: dict[str, dict[str, Case]] = defaultdict(dict)
    for case in every:
        found[series_id(case)].setdefault(case.id, case)
    return {
        key: sorted(part.values(), key=lambda case: case.seq_len) for key, part in found.items()
    }


def roof_cases(grid: Grid, *, single_thread: bool) -> list[Case]:
    """Return the cases that measure this machine's peaks in the settings of the grid.

    Args:
        grid: the sweep.
        single_thread: add the peaks of one thread, for every setting that has more.
    """
    threads = sorted({*grid.threads, *([1] if single_thread and grid.device == "cpu" else [])})
    return [
        Case(
            kind="roof", level="attention", mode="forward", arms=(Arm("roof"),),
            batch=0, num_heads=0, num_kv_heads=0, head_dim=0, seq_len=0, key_len=0,
            device=grid.device, dtype=dtype, is_causal=False, threads=count,
            allocator=allocator, compile=False, seed=grid.seed, matmul_precision=precision,
        )
        for dtype in grid.dtypes
        for precision in _precisions(grid, dtype)
        for allocator in grid.allocators
        for count in threads
    ]  # fmt: skip


def sentinel_case(grid: Grid) -> Case:
    """Return the case that is repeated through the sweep: of one shape, in every version."""
    return Case(
        kind="sentinel", level="attention", mode="forward", arms=(Arm(SENTINEL),),
        batch=1, num_heads=8, num_kv_heads=8, head_dim=64, seq_len=512, key_len=512,
        device=grid.device, dtype="float32", is_causal=False, threads=max(grid.threads),
        allocator=grid.allocators[0], compile=False, seed=grid.seed,
    )  # fmt: skip


def launch_budget_s(grid: Grid, case: Case) -> float:
    """Return the sampling time per arm of a launch."""
    return min(grid.budget_s, SENTINEL_BUDGET_S) if case.kind == SENTINEL else grid.budget_s


def order(grid: Grid, speed: Sequence[Case]) -> list[Item]:
    """Return every launch of the sweep in the order it is to be run.

    All cases of launch 0 come first, then launch 1, …: a slow change of the machine then spreads
    over all cases. Each round begins with the roofs and is shuffled under the seed, within
    the constraint that a series is run in rising length, so that the shorter lengths predict the
    longer ones.

    Between them, at both ends and evenly, stand the launches of the sentinel, counted from 0.
    """
    items: list[Item] = []
    for launch in range(grid.launches):
        roofs = roof_cases(grid, single_thread=launch == 0) if speed else []
        rng = random.Random(f"{grid.seed}:{launch}")
        # An experiment's launches are its seeds.
        again = [case for case in speed if case.kind != CLAIM or not launch]
        items += [Item(case, launch) for case in (*roofs, *_shuffled(again, rng))]
    return _with_sentinels(items, sentinel_case(grid))


def _with_sentinels(items: Sequence[Item], case: Case) -> list[Item]:
    """Put the sentinel's launches between those of a sweep; nowhere where there are none."""
    if not items:
        return []
    count = max(FEWEST_SENTINELS, min(MOST_SENTINELS, len(items) // LAUNCHES_PER_SENTINEL))
    places = [round(i * len(items) / (count - 1)) for i in range(count)]
    parts = zip(range(count), places, [*places[1:], len(items)], strict=True)
    return [item for i, a, b in parts for item in (Item(case, i), *items[a:b])]


def _shuffled(every: Sequence[Case], rng: random.Random) -> list[Case]:
    """Shuffle, then let each series take its places in rising length: a uniform random merge."""
    parts = {key: iter(part) for key, part in group(every).items()}
    places = [series_id(case) for case in every]
    rng.shuffle(places)
    return [next(parts[key]) for key in places]
