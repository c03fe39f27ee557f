"""The options of a sweep, as the command line takes them: those of all suites, in one order."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click import Option

from results.schema import ALLOCATORS, DEVICES, DTYPES, LEVELS, MATMUL_PRECISIONS, SPEED_MODES
from suites import registry
from suites.names import arms, models
from suites.parameters import COUNTS, PLUGIN, SAMPLE_TIME, Number, Parsed, Several, Switch, one_of
from suites.parsing import LARGEST_LIMIT_S, parse_backend, parse_shard, parse_span
from suites.suite import Suite

LARGEST = 2**53 - 1
"""The largest whole number that every reader of JSON keeps exactly."""

OF_OTHERS = "…"
"""In `OPTIONS`: the place of the suites' own options that are not named there."""

OPTIONS: tuple[Option | str, ...] = (
    Option(
        ["--suite"],
        default="speed",
        show_default=True,
        help="What is measured: {summaries}.",
    ),
    Option(
        ["--preset"],
        help="Lengths, launches and limits where no option says otherwise. Default: quick; for "
        "peers lengths of their own, 3 launches. {defaults}.",
    ),
    Option(
        ["--backend", "backends"],
        shell_complete=one_of(arms),
        multiple=True,
        type=Parsed("NAME[:key=value,…]", parse_backend),
        help="A backend with its options; several values of one option with +. Repeatable. "
        "Default: all; presets scaling, million and kernels have their own. With peers: our "
        "side, with these options in place of its own. With error: in place of the preset's "
        "budgets; with quality: in place of a task's own.",
    ),
    "inputs",
    "ranks",
    "claims",
    "tasks",
    "forms",
    "view",
    "amount",
    "lr",
    "pretrain",
    "num_seeds",
    "corpus",
    "lra_data",
    "weights",
    "peers",
    OF_OTHERS,
    Option(
        ["--plugin", "plugins"],
        multiple=True,
        type=PLUGIN,
        help="A Python file that registers backends, peers or tasks, or the folder of a suite. "
        "Repeatable.",
    ),
    Option(["--seq-len", "seq_lens"], type=COUNTS, help="Lengths in tokens."),
    Option(
        ["--mode", "modes"],
        type=Several(click.Choice(SPEED_MODES)),
        help="training = forward and backward; decode = one token after a context of each "
        "length, with a state. Default: forward and training, or as the preset says.",
    ),
    Option(
        ["--level", "levels"],
        type=Several(click.Choice(LEVELS)),
        help="attention = q, k, v in; layer = with projections; block = with all the rest; "
        "model = a whole one, whose training takes the optimiser's step too. "
        "Default: attention, of preset models model; a peer sets its own.",
    ),
    Option(
        ["--model", "models"],
        shell_complete=one_of(models),
        multiple=True,
        type=Parsed("NAME[:key=value,…]", parse_backend),
        help="A configuration of level model, with values in place of its own. Repeatable. With "
        "quality: {quality}:d_model=…, the shape of the model that is trained. Default: {speed}.",
    ),
    "hf_configs",
    Option(
        ["--checkpointing", "checkpointings"],
        type=Switch(),
        is_flag=False,
        flag_value="on",
        default="off",
        show_default=True,
        help="Of a model's training: keep the blocks' inputs alone, and compute the rest anew. "
        "off,on compares. Alone: on.",
    ),
    Option(
        ["--device"],
        type=click.Choice(DEVICES),
        default="cpu",
        show_default=True,
        help="Where to measure.",
    ),
    Option(
        ["--dtype", "dtypes"],
        type=Several(click.Choice(DTYPES)),
        help="Of inputs and parameters. Default: {speed}.",
    ),
    Option(
        ["--batch", "batches"],
        type=COUNTS,
        help="Sequences at a time. Default: {speed}. A training's: {quality}; {quantized}.",
    ),
    Option(["--num-heads"], type=COUNTS, help="Heads. Default: {speed}. With error: {error}."),
    Option(["--head-dim", "head_dims"], type=COUNTS, help="Width of a head. Default: {speed}."),
    Option(
        ["--causal", "is_causal"],
        is_flag=True,
        help="Causal attention. With peers: the causal rows alone.",
    ),
    Option(["--threads"], type=COUNTS, help="CPU threads. Default: all cores."),
    Option(
        ["--allocator", "allocators"],
        type=Several(click.Choice(ALLOCATORS)),
        help="The C allocator's policy: retained keeps freed memory in the process. Default: "
        "default; for peers on a CPU both.",
    ),
    Option(
        ["--matmul-precision", "matmul_precisions"],
        type=Several(click.Choice(MATMUL_PRECISIONS)),
        default="highest",
        show_default=True,
        help="Of float32 matrix products, in torch's words; an output is held to full precision "
        "where it keeps it.",
    ),
    Option(
        ["--compile", "compiles"],
        type=Switch(),
        is_flag=False,
        flag_value="on",
        default="off",
        show_default=True,
        help="Compile the module with torch.compile; off,on compares. Alone: on.",
    ),
    "profile",
    Option(
        ["--launches"],
        type=click.IntRange(1, 1000),
        metavar="N",
        help="Fresh processes per case, and no more. Default by preset: {defaults}; of speed then "
        "as many more as --precision takes.",
    ),
    "precision",
    Option(
        ["--sample-time", "budget_s"],
        type=SAMPLE_TIME,
        metavar="SECONDS",
        help="Sampling time of each arm in a launch, less where the samples agree before; warming "
        "up comes before it. Default by preset: {defaults}.",
    ),
    Option(
        ["--seed"],
        type=click.IntRange(0, LARGEST),
        default=0,
        show_default=True,
        metavar="N",
        help="Of inputs, random features and order.",
    ),
    Option(
        ["--case-timeout", "case_timeout_s"],
        type=Number(0, LARGEST_LIMIT_S, min_open=True),
        metavar="SECONDS",
        help="Longest time of one launch. Default by preset: {defaults}. With --equal time at "
        "least 1.5 times the seconds of a training and 120.",
    ),
    Option(
        ["--budget", "within_s"],
        type=Parsed("TIME", parse_span),
        help="Time of the whole command, as 4m, 1h30m or 90s: a launch that is predicted to end "
        "later is not started. --resume measures those left, and answers what is open. Default "
        "by preset, for what --precision adds alone: {defaults}.",
    ),
    Option(
        ["--shard"],
        type=Parsed("i/n", parse_shard),
        default="1/1",
        show_default=True,
        help="Measure the i-th of n parts of the sweep; join them with merge.",
    ),
    Option(
        ["--cluster"],
        metavar="HOST:PORT",
        help="Measure on the machines of the Ray cluster at this address, each case on one that "
        "nobody else uses meanwhile; needs attnbench[cluster]. With it --threads is by default "
        "all cores of the smallest machine.",
    ),
    Option(
        ["--cluster-kind"],
        metavar="NAME",
        help="With --cluster: only machines with a GPU of this kind, as Ray names it, or with a "
        "resource of this name.",
    ),
    Option(
        ["--resume"],
        is_flag=True,
        help="Go on with the run in --out: only what it does not hold is measured. A training "
        "that ran out of time goes on from its checkpoint.",
    ),
    Option(
        ["--out"],
        type=click.Path(file_okay=False, path_type=Path),
        help="The run's folder. Default: runs/<time>-<preset or suite>.",
    ),
    Option(
        ["--no-report"],
        is_flag=True,
        help="Write no report at the end, and no table of the methods.",
    ),
)
"""The options of a sweep in the order of the help: those that suites share, and the names of those
of one suite. A help text may hold ``{defaults}``, what all suites say of theirs, or that of one
suite by its name."""

TAKEN = {word for one in OPTIONS if isinstance(one, Option) for word in (str(one.name), *one.opts)}
"""Names and words that no suite's own option may have."""


class SweepCommand(click.Command):
    """The command that measures: its options are those of all suites that are there.

    So a plug-in's options are typed, completed and explained as ours are, and only a sweep that
    names it, or an environment that has it, has them.
    """

    def __init__(self, *args: Any, **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.params = sweep_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Load the suites of plug-ins, then read the options."""
        if not ctx.resilient_parsing:  # what is only completed runs no stranger's code
            self._load(ctx, args)
            self.params = sweep_options()
        return super().parse_args(ctx, args)

    def _load(self, ctx: click.Context, args: Sequence[str]) -> None:
        """Load the suites that are installed, and those of the folders that are named."""
        for name, reason in registry.load_installed(TAKEN).items():
            click.echo(f"plug-in {name} failed to load: {reason}", err=True)
        for word, following in itertools.pairwise([*args, ""]):
            name, equals, value = word.partition("=")
            folder = Path(value if equals else following)
            if name == "--plugin" and folder.is_dir():
                load_plugin(ctx, folder)


def load_plugin(ctx: click.Context, folder: Path) -> None:
    """Load the suite of a plug-in's folder; what is wrong with it is misuse."""
    try:
        registry.load_folder(folder, TAKEN)
    except ValueError as error:
        raise click.UsageError(f"--plugin: {error}", ctx) from None


def sweep_options() -> list[click.Parameter]:
    """Return the options of a sweep, with those of the suites that are there."""
    suites = registry.suites()
    of_suites = {option.name: option for suite in suites for option in suite.options}
    named = [one for one in OPTIONS if isinstance(one, str)]
    options: list[click.Parameter] = []
    for one in OPTIONS:
        if isinstance(one, Option):
            options.append(_filled(one, suites))
        else:
            names = [n for n in of_suites if n not in named] if one == OF_OTHERS else [one]
            options += [_filled(of_suites[name], suites) for name in names]
    return options


def _filled(option: Option, suites: Sequence[Suite[Any]]) -> Option:
    """Return an option whose help holds what the suites say of it, with their names to choose."""
    filled = copy.copy(option)
    defaults = {suite.name: suite.defaults.get(option.name or "", "") for suite in suites}
    if option.help:
        filled.help = option.help.format(
            defaults="; ".join(text for text in defaults.values() if text),
            summaries="; ".join(f"{suite.name} = {suite.summary}" for suite in suites),
            **defaults,
        )
    if option.name == "suite":
        filled.type = click.Choice([suite.name for suite in suites])
    if option.name == "preset":
        names = (name for suite in suites for name in suite.presets)
        filled.type = click.Choice(list(dict.fromkeys(names)))
    return filled
