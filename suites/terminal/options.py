"""The options of a sweep, as the command line takes them: those that suites share, in groups."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click import Option

from results.schema import ALLOCATORS, DEVICES, DTYPES, LEVELS, MATMUL_PRECISIONS, SPEED_MODES
from suites.names import arms, models
from suites.parameters import (
    COUNTS,
    LENGTHS,
    PLUGIN,
    SAMPLE_TIME,
    Number,
    Parsed,
    Several,
    Switch,
    any_of,
    flattened,
)
from suites.parsing import LARGEST_LIMIT_S, parse_backends, parse_shard, parse_span
from suites.suite import SHARED, Plan, Suite, listed

LARGEST = 2**53 - 1
"""The largest whole number that every reader of JSON keeps exactly."""

OF_SUITE = "…"
"""In `OPTIONS`: the place of a suite's own options that are not named there."""

OPTIONS: Mapping[str, Sequence[Option | str]] = {
    "What": (
        Option(
            ["--preset"],
            metavar="NAME",
            help="Lengths, processes and limits: {presets}.",
        ),
        Option(
            ["--backend", "backends"],
            multiple=True,
            type=Parsed("NAME[:key=value,…]", parse_backends),
            shell_complete=any_of(arms),
            callback=flattened,
            help="full,longformer:window=64; a value a+b is a list. Repeatable.",
        ),
        OF_SUITE,
        Option(["--seq-len", "seq_lens"], type=LENGTHS, help="Lengths in tokens: 4096, 16k."),
        Option(
            ["--mode", "modes"],
            type=Several(click.Choice(SPEED_MODES)),
            metavar="MODE,…",
            help="forward, training (and backward), decode (a token behind a context).",
        ),
        Option(
            ["--level", "levels"],
            type=Several(click.Choice(LEVELS)),
            metavar="LEVEL,…",
            help="attention (q, k, v in), layer (with projections), block or model.",
        ),
        Option(
            ["--model", "models"],
            multiple=True,
            type=Parsed("NAME[:key=value,…]", parse_backends),
            shell_complete=any_of(models),
            callback=flattened,
            help="A configuration of level model, with changes. Repeatable.",
        ),
        "hf_configs",
        Option(
            ["--checkpointing", "checkpointings"],
            type=Switch(),
            is_flag=False,
            flag_value="on",
            default="off",
            show_default=True,
            help="Recompute activations in a model's training.",
        ),
        Option(["--causal", "is_causal"], is_flag=True, help="Causal attention."),
        Option(
            ["--dtype", "dtypes"],
            type=Several(click.Choice(DTYPES)),
            metavar="DTYPE,…",
            help=f"{', '.join(DTYPES)}.",
        ),
        Option(["--batch", "batches"], type=COUNTS, help="Sequences at a time."),
        Option(["--num-heads"], type=COUNTS, help="Heads."),
        Option(["--head-dim", "head_dims"], type=COUNTS, help="Width of a head."),
        Option(
            ["--matmul-precision", "matmul_precisions"],
            type=Several(click.Choice(MATMUL_PRECISIONS)),
            metavar="WORD,…",
            default="highest",
            show_default=True,
            help=f"Of float32 products: {', '.join(MATMUL_PRECISIONS)}.",
        ),
        Option(
            ["--compile", "compiles"],
            type=Switch(),
            is_flag=False,
            flag_value="on",
            default="off",
            show_default=True,
            help="Compile with torch.compile; off,on compares.",
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
            ["--plugin", "plugins"],
            multiple=True,
            type=PLUGIN,
            help="A file of yours (backends, peers, tasks), or a suite's folder.",
        ),
    ),
    "Where": (
        Option(
            ["--device"],
            type=click.Choice(DEVICES),
            default="cpu",
            show_default=True,
            help="Where to measure.",
        ),
        Option(["--threads"], type=COUNTS, show_default="all cores", help="CPU threads."),
        Option(
            ["--allocator", "allocators"],
            type=Several(click.Choice(ALLOCATORS)),
            metavar="POLICY,…",
            show_default="default",
            help="default, or retained, which keeps freed memory.",
        ),
        Option(
            ["--shard"],
            type=Parsed("i/n", parse_shard),
            default="1/1",
            show_default=True,
            help="Measure the i-th of n parts; merge joins them.",
        ),
        Option(
            ["--cluster"],
            metavar="HOST:PORT",
            help="Measure on a Ray cluster; needs attnbench[cluster].",
        ),
        Option(
            ["--cluster-kind"],
            metavar="NAME",
            help="With --cluster: only machines with this GPU or resource.",
        ),
    ),
    "How long": (
        Option(
            ["--launches"],
            type=click.IntRange(1, 1000),
            metavar="N",
            help="Processes per case.",
        ),
        "precision",
        Option(
            ["--sample-time", "budget_s"],
            type=SAMPLE_TIME,
            metavar="SECONDS",
            help="Sampling time of each variant in a process.",
        ),
        Option(
            ["--case-timeout", "case_timeout_s"],
            type=Number(0, LARGEST_LIMIT_S, min_open=True),
            metavar="SECONDS",
            help="Longest time of one process.",
        ),
        Option(
            ["--budget", "within_s"],
            type=Parsed("TIME", parse_span),
            help="Time of the command, as 4m or 1h30m: what would end later is left to --resume.",
        ),
    ),
    "Output": (
        Option(
            ["--out"],
            type=click.Path(file_okay=False, path_type=Path),
            show_default="runs/<time>-<preset or suite>",
            help="The run's folder.",
        ),
        Option(
            ["--resume"],
            is_flag=True,
            help="Go on with the run in --out: measure what it lacks.",
        ),
        Option(["--no-report"], is_flag=True, help="No table and no report at the end."),
        "profile",
    ),
}
"""The options of a sweep by the groups of the help: those that suites share, and the names of some
that are one suite's. ``{presets}`` in a help text are those of the suite that is asked."""

USUAL: Mapping[str, str] = {
    "seq_lens": "the preset's",
    **{
        name: listed(getattr(Plan, name))
        for name in ("dtypes", "batches", "num_heads", "head_dims")
    },
}
"""What holds without an option in a suite that says nothing of it."""

_EVERY = [one for group in OPTIONS.values() for one in group]

TAKEN = {word for one in _EVERY if isinstance(one, Option) for word in (str(one.name), *one.opts)}
"""Names and words that no suite's own option may have."""


def suite_options(suite: Suite[Any]) -> Mapping[str, list[Option]]:
    """Return the options of a suite by the groups of the help."""
    own = {str(option.name): option for option in suite.options}
    placed = {one for one in _EVERY if isinstance(one, str)}

    def options_of(one: Option | str) -> list[Option]:
        if isinstance(one, Option):
            return [_told(one, suite)] if _is_taken(str(one.name), suite) else []
        names = [name for name in own if name not in placed] if one == OF_SUITE else [one]
        return [_told(own[name], suite) for name in names if name in own]

    return {
        title: [option for one in group for option in options_of(one)]
        for title, group in OPTIONS.items()
    }


def _is_taken(name: str, suite: Suite[Any]) -> bool:
    """Say whether a suite takes an option of this group, if one value of it alone."""
    return name not in SHARED or name in suite.takes or name in suite.only


def _told(option: Option, suite: Suite[Any]) -> Option:
    """Return an option whose help says what it does in a suite, and what holds without it."""
    told, name = copy.copy(option), str(option.name)
    text = suite.helps.get(name, option.help or "")
    told.help = text.format(presets=", ".join(suite.presets))
    usual = {"preset": next(iter(suite.presets)), **USUAL}
    if default := suite.defaults.get(name, usual.get(name)):
        told.show_default = default
    if name == "preset":
        told.type = click.Choice(list(suite.presets))
    told.hidden = option.hidden or (name in suite.only and name not in suite.takes)
    return told
