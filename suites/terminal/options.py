"""The options of a sweep, as the command line takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from results.schema import ALLOCATORS, DEVICES, DTYPES, LEVELS, MATMUL_PRECISIONS, SPEED_MODES
from suites.claims.suite import CLAIM_PRESETS
from suites.context_parallel.suite import CONTEXT_PRESETS
from suites.error.suite import ERROR_PRESETS
from suites.parsing import parse_backend, parse_shard, parse_span
from suites.plan import ANY, DEFAULT_PRESET, LARGEST_LIMIT_S, PRESETS, SUITES, Grid
from suites.quality.suite import SMALL, TRAINING_PRESETS, WEIGHTS, QualityPreset
from suites.tasks.forms import FORMS
from suites.terminal.completion import (
    arms,
    claims,
    inputs,
    models,
    one_of,
    peers,
    several_of,
    tasks,
)
from suites.training.plan import VIEWS

if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:  # in older versions of click the class takes no parameters
    _Type = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

LARGEST = 2**53 - 1
"""The largest whole number that every reader of JSON keeps exactly."""


class Several(_Type):
    """One or several values, separated by commas."""

    def __init__(self, kind: click.ParamType[Any]) -> None:
        self.kind = kind
        self.name = f"{kind.name},…"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Show the choices, or the kind of value."""
        if isinstance(self.kind, click.Choice):
            return f"{'|'.join(self.kind.choices)},…"
        return "N,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Read each part; the same value twice counts once."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        return tuple(dict.fromkeys(self.kind.convert(part, param, ctx) for part in parts))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the last part by the choices."""
        choices = self.kind.choices if isinstance(self.kind, click.Choice) else ()
        return several_of(incomplete, map(str, choices))


class Number(click.FloatRange):
    """A number of a range: not a number is outside of every one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the value."""
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


class Parsed(_Type):
    """A value that a function of the suites reads."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self.parse = parse

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Show the form."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the value; what the function does not accept is misuse."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Switch(_Type):
    """``on``, ``off`` or both, as booleans."""

    name = "off|on,…"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Show the choices."""
        return self.name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[bool, ...]:
        """Read each part."""
        words = Several(click.Choice(["off", "on"])).convert(value, param, ctx)
        return tuple(word is True or word == "on" for word in words)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the last part."""
        return several_of(incomplete, ("off", "on"))


SAMPLE_TIME = Number(0, 600, min_open=True)
COUNTS = Several(click.IntRange(1, 2**30))
PLUGIN = click.Path(exists=True, dir_okay=False, path_type=Path)


def _by_preset(field: str) -> str:
    """Say a field's default by preset, and what the other suites have of their own."""
    parts = [_shown(PRESETS, field), f"with error: {_shown(ERROR_PRESETS, field)}"]
    for suite, presets in TRAINING_PRESETS.items():
        usual = {name: _Usual(one) for name, one in presets.items()}
        parts.append(f"with {suite}: {_shown(usual, field)}")
    return f"Default by preset: {'; '.join(parts)}."


class _Usual:
    """A preset of a suite that trains, with the grid's default where it has none of its own."""

    def __init__(self, preset: QualityPreset) -> None:
        self._preset = preset

    def __getattr__(self, field: str) -> Any:
        return getattr(self._preset, field, getattr(Grid, field, None))


def _shown(presets: Mapping[str, Any], field: str) -> str:
    """Name the presets' values; one, if all have the same."""
    values = {name: f"{getattr(one, field):g}" for name, one in presets.items()}
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _of_trainings(field: str) -> str:
    """Say the values of the presets' rows, by suite."""
    parts = []
    for suite, presets in TRAINING_PRESETS.items():
        found = {getattr(row, field) for one in presets.values() for row in one.rows}
        parts.append(f"with {suite} a task's own, {' or '.join(map(str, sorted(found)))}")
    return "; ".join(parts)


def _seeds() -> str:
    """Say how many trainings a case has, by suite."""
    parts = [f"{suite} {_shown(one, 'seeds')}" for suite, one in TRAINING_PRESETS.items()]
    return f"Default: {'; '.join(parts)}."


def _by_device(field: str) -> str:
    """Say a field's default, and where a preset has another on some device."""
    default = getattr(Grid, field)
    others = [
        f"{name} {'' if device == ANY else f'on {device} '}{_listed(values[field])}"
        for name, preset in PRESETS.items()
        for device, values in preset.by_device.items()
        if field in values
    ]
    return f"Default: {'; '.join([_listed(default), *others])}."


def _models() -> str:
    """Name the models of the presets."""
    usual = PRESETS[DEFAULT_PRESET].models
    own = PRESETS["models"].models
    shown = [", ".join(arm.label for arm in arms) for arms in (usual, own)]
    return f"{shown[0]}; of preset models on a CPU {shown[1]}"


def _inputs() -> str:
    """Name the inputs of suite error's default preset."""
    return ", ".join(one.label for one in ERROR_PRESETS[DEFAULT_PRESET].inputs)


def _listed(values: tuple[Any, ...]) -> str:
    return ",".join(str(value) for value in values)


# fmt: off  (one option, one entry)
OPTIONS = (
    click.option(
        "--suite",
        type=click.Choice(SUITES),
        default="speed",
        show_default=True,
        help="What is measured: speed = our backends; peers = other libraries, each beside our "
        "counterpart on the same inputs and weights; error = how far each backend is from exact "
        "softmax, at several budgets and on several inputs, beside what it costs; quality = what "
        "a small model learns with each backend, on several tasks; quantized = a trained model "
        "with its weights in fewer bits; claims = what is said of attention, put to the test; "
        "context = a training step over one sequence that is cut over several processes.",
    ),
    click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        help="Lengths, launches and limits where no option says otherwise. Default: quick; for "
        "peers lengths of their own, 3 launches. With error: "
        f"{', '.join(ERROR_PRESETS)}, with budgets and inputs of their own; with quality "
        f"{', '.join(TRAINING_PRESETS['quality'])}, with tasks of their own; with claims "
        f"{', '.join(CLAIM_PRESETS)}; with context {', '.join(CONTEXT_PRESETS)}.",
    ),
    click.option(
        "--backend",
        "backends",
        shell_complete=one_of(arms),
        multiple=True,
        type=Parsed("NAME[:key=value,…]", parse_backend),
        help="A backend with its options; several values of one option with +. Repeatable. "
        "Default: all; presets scaling, million and kernels have their own. With peers: our "
        "side, with these options in place of its own. With error: in place of the preset's "
        "budgets; with quality: in place of a task's own.",
    ),
    click.option(
        "--inputs",
        shell_complete=one_of(inputs),
        multiple=True,
        type=Parsed("NAME[:key=value,…]", parse_backend),
        help="Of suite error: what queries and keys are drawn from: gaussian, peaked, low_rank, "
        "heavy_tailed or trained, with options. Repeatable. Default: "
        f"{_inputs()}; the other presets have more.",
    ),
    click.option(
        "--ranks",
        type=COUNTS,
        help="Of suite context: over how many processes a sequence is cut, each with a GPU of its "
        "own, or on a CPU with its share of the threads. Default by preset: "
        f"{'; '.join(f'{n} {_listed(p.ranks)}' for n, p in CONTEXT_PRESETS.items())}.",
    ),
    click.option(
        "--claim",
        "claims",
        shell_complete=one_of(claims),
        multiple=True,
        metavar="ID",
        help="Of suite claims: what is put to the test. Repeatable; `attnbench list --claims` has "
        "them all. Default: all.",
    ),
    click.option(
        "--task",
        "tasks",
        shell_complete=one_of(tasks),
        multiple=True,
        type=Parsed("NAME[:key=value,…]", parse_backend),
        help="Of suites quality and quantized: what is learnt, in place of the preset's "
        "tasks. Repeatable; "
        "`attnbench list --tasks` names them.",
    ),
    click.option(
        "--form",
        "forms",
        type=Several(click.Choice(FORMS)),
        help="Of suites quality and quantized: what a model sees. Default: both, as far as "
        "a task has them.",
    ),
    click.option(
        "--equal",
        "view",
        type=click.Choice(VIEWS),
        help="Of suites quality and quantized: what all trainings of a task have the same "
        "of; operations are "
        "those of exact attention in as many steps. Default: steps.",
    ),
    click.option(
        "--amount",
        type=Number(0, 1e9, min_open=True),
        metavar="N",
        help="Of suites quality and quantized: steps of a training (or seconds, with "
        "--equal time). Default: a "
        "task's own.",
    ),
    click.option(
        "--lr",
        type=Number(0, 10, min_open=True),
        metavar="RATE",
        help="Of suites quality and quantized: the highest learning rate. Default: a task's own.",
    ),
    click.option(
        "--pretrain",
        type=Number(0, 1, max_open=True),
        metavar="SHARE",
        help="Of suites quality and quantized: share of a training that is spent on the "
        "task's own inputs "
        "first. Default: 0; of listops and lra 0 and 0.5.",
    ),
    click.option(
        "--seeds",
        "num_seeds",
        type=click.IntRange(1, 1000),
        metavar="N",
        help="Of suites quality and quantized: trainings of each case, from --seed on. "
        f"{_seeds()}",
    ),
    click.option(
        "--corpus",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="The text of task language. Default: the Python standard library's sources.",
    ),
    click.option(
        "--lra-data",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIR",
        help="A folder in Long Range Arena's TSV format, for task lra.",
    ),
    click.option(
        "--weights",
        type=Several(click.Choice(WEIGHTS)),
        help=f"Of suite quantized: what weights are kept in. Default: {','.join(WEIGHTS)}.",
    ),
    click.option(
        "--peers",
        type=Several(click.STRING),
        shell_complete=lambda ctx, param, incomplete: several_of(incomplete, peers()),
        help="Peers to measure. Default: all that run on the device.",
    ),
    click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=PLUGIN,
        help="A Python file that registers backends, peers or tasks. Repeatable.",
    ),
    click.option("--seq-len", "seq_lens", type=COUNTS, help="Lengths in tokens."),
    click.option(
        "--mode",
        "modes",
        type=Several(click.Choice(SPEED_MODES)),
        help="training = forward and backward; decode = one token after a context of each "
        "length, with a state. Default: forward and training, or as the preset says.",
    ),
    click.option(
        "--level",
        "levels",
        type=Several(click.Choice(LEVELS)),
        help="attention = q, k, v in; layer = with projections; block = with all the rest; "
        "model = a whole one, whose training takes the optimiser's step too. "
        "Default: attention, of preset models model; a peer sets its own.",
    ),
    click.option(
        "--model",
        "models",
        shell_complete=one_of(models),
        multiple=True,
        type=Parsed("NAME[:key=value,…]", parse_backend),
        help="A configuration of level model, with values in place of its own. Repeatable. With "
        f"quality: {SMALL}:d_model=…, the shape of the model that is trained. "
        f"Default: {_models()}.",
    ),
    click.option(
        "--hf-config",
        "hf_configs",
        multiple=True,
        type=PLUGIN,
        help="A config.json of Hugging Face's transformers: its model, with random weights, at "
        "level model, with each backend in its layers. Repeatable; needs transformers.",
    ),
    click.option(
        "--checkpointing",
        "checkpointings",
        type=Switch(),
        is_flag=False,
        flag_value="on",
        default="off",
        show_default=True,
        help="Of a model's training: keep the blocks' inputs alone, and compute the rest anew. "
        "off,on compares. Alone: on.",
    ),
    click.option(
        "--device",
        type=click.Choice(DEVICES),
        default="cpu",
        show_default=True,
        help="Where to measure.",
    ),
    click.option(
        "--dtype",
        "dtypes",
        type=Several(click.Choice(DTYPES)),
        help=f"Of inputs and parameters. {_by_device('dtypes')}",
    ),
    click.option(
        "--batch",
        "batches",
        type=COUNTS,
        help=f"Sequences at a time. {_by_device('batches')} A training's: "
        f"{_of_trainings('batch')}.",
    ),
    click.option(
        "--num-heads",
        type=COUNTS,
        help=f"Heads. {_by_device('num_heads')} With error: "
        f"{_listed(ERROR_PRESETS[DEFAULT_PRESET].num_heads)}.",
    ),
    click.option(
        "--head-dim",
        "head_dims",
        type=COUNTS,
        help=f"Width of a head. {_by_device('head_dims')}",
    ),
    click.option(
        "--causal",
        "is_causal",
        is_flag=True,
        help="Causal attention. With peers: the causal rows alone.",
    ),
    click.option("--threads", type=COUNTS, help="CPU threads. Default: all cores."),
    click.option(
        "--allocator",
        "allocators",
        type=Several(click.Choice(ALLOCATORS)),
        help="The C allocator's policy: retained keeps freed memory in the process. Default: "
        "default; for peers on a CPU both.",
    ),
    click.option(
        "--matmul-precision",
        "matmul_precisions",
        type=Several(click.Choice(MATMUL_PRECISIONS)),
        default="highest",
        show_default=True,
        help="Of float32 matrix products, in torch's words; an output is held to full precision "
        "where it keeps it.",
    ),
    click.option(
        "--compile",
        "compiles",
        type=Switch(),
        is_flag=False,
        flag_value="on",
        default="off",
        show_default=True,
        help="Compile the module with torch.compile; off,on compares. Alone: on.",
    ),
    click.option(
        "--profile",
        is_flag=True,
        help="Say where a call's time goes, too: a few more calls under torch's profiler, after "
        "all that is measured. Of each case the run's folder keeps a trace, for Perfetto, and a "
        "table of operators, in traces. Only with suite speed.",
    ),
    click.option(
        "--launches",
        type=click.IntRange(1, 1000),
        metavar="N",
        help=f"Fresh processes per case. {_by_preset('launches')}",
    ),
    click.option(
        "--sample-time",
        "budget_s",
        type=SAMPLE_TIME,
        metavar="SECONDS",
        help="Sampling time of each arm in a launch, less where the samples agree before; warming "
        f"up comes before it. {_by_preset('budget_s')}",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, LARGEST),
        default=0,
        show_default=True,
        metavar="N",
        help="Of inputs, random features and order.",
    ),
    click.option(
        "--case-timeout",
        "case_timeout_s",
        type=Number(0, LARGEST_LIMIT_S, min_open=True),
        metavar="SECONDS",
        help=f"Longest time of one launch. {_by_preset('case_timeout_s')} With --equal time at "
        "least 1.5 times the seconds of a training and 120.",
    ),
    click.option(
        "--budget",
        "within_s",
        type=Parsed("TIME", parse_span),
        help="Time of the whole command, as 4m, 1h30m or 90s: a launch that is predicted to end "
        "later is not started. --resume measures those left. Default: no limit.",
    ),
    click.option(
        "--shard",
        type=Parsed("i/n", parse_shard),
        default="1/1",
        show_default=True,
        help="Measure the i-th of n parts of the sweep; join them with merge.",
    ),
    click.option(
        "--cluster",
        metavar="HOST:PORT",
        help="Measure on the machines of the Ray cluster at this address, each case on one that "
        "nobody else uses meanwhile; needs attnbench[cluster]. With it --threads is by default "
        "all cores of the smallest machine.",
    ),
    click.option(
        "--cluster-kind",
        metavar="NAME",
        help="With --cluster: only machines with a GPU of this kind, as Ray names it, or with a "
        "resource of this name.",
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="Go on with the run in --out: only what it does not hold is measured. A training "
        "that ran out of time goes on from its checkpoint.",
    ),
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="The run's folder. Default: runs/<time>-<preset or suite>.",
    ),
)

CONFIRM_OPTIONS = (
    click.option(
        "--base-from",
        type=click.Path(exists=True, path_type=Path),
        metavar="PATH",
        help="Where BASE's version is: a checkout, an environment, or its Python. For --confirm.",
    ),
    click.option(
        "--new-from",
        type=click.Path(exists=True, path_type=Path),
        metavar="PATH",
        help="Where NEW's version is. Default: what runs this command.",
    ),
    click.option(
        "--max-pairs",
        type=click.IntRange(5, 40),
        default=40,
        show_default=True,
        help="Pairs of launches of a case, at most; five at least.",
    ),
    click.option(
        "--sample-time",
        "budget_s",
        type=SAMPLE_TIME,
        default=0.25,
        show_default=True,
        metavar="SECONDS",
        help="Sampling time of a launch of --confirm.",
    ),
    click.option(
        "--case-timeout",
        "case_timeout_s",
        type=Number(0, LARGEST_LIMIT_S, min_open=True),
        default=180.0,
        show_default=True,
        metavar="SECONDS",
        help="Longest time of a launch of --confirm.",
    ),
    click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=PLUGIN,
        help="A Python file that registers backends or peers, for --confirm. Repeatable.",
    ),
    click.option("--resume", is_flag=True, help="Go on with the pairs in --out."),
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where the pairs are written, a run folder a side. Default: runs/<time>-confirm.",
    ),
)
# fmt: on


def sweep_options(function: F) -> F:
    """Give a command the options of a sweep: the fields of its grid, and where it is written."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def confirm_options(function: F) -> F:
    """Give a command the options of measuring two versions again, in alternation."""
    for option in reversed(CONFIRM_OPTIONS):
        function = option(function)
    return function
