"""The command `attnbench`: a thin group; what is heavy is imported inside the commands.

Exit codes: 0 done, 1 not done, 2 misuse (one line that says what is accepted), 130 after Ctrl-C,
143 after SIGTERM, 129 after SIGHUP (a closed terminal).
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from results.metrics import COMPARED
from results.schema import ALLOCATORS, DEVICES, DTYPES, MATMUL_PRECISIONS, SPEED_MODES
from suites.error.suite import input_names
from suites.names import tasks
from suites.parameters import PLUGIN, Length, Parsed, one_of
from suites.parsing import parse_threshold
from suites.terminal.completion import RunFolder, backend_or_path
from suites.terminal.confirm_options import check_confirm, confirm_options
from suites.terminal.export_options import check_export, export_options
from suites.terminal.group import (
    HELP_NAMES,
    NotComparedError,
    OneLineGroup,
    message_of,
    misuse,
)
from suites.terminal.run_group import RunGroup, load_plugin
from suites.terminal.stream import Stream

if TYPE_CHECKING:
    from results.comparison.changes import Comparison
    from results.recommendation.question import Question
    from results.records.load import Run


FOLDERS = RunFolder()
FOLDER = click.Path(file_okay=False, path_type=Path)
ANY_PATH = click.Path(path_type=Path)
WIDTH = 100
"""Columns of what a run ends with where no terminal says how wide it is."""
COUNT = click.IntRange(1, 2**53)
SETTING_HELP = "Choose among the results' settings"


IN_ORDER_OF_USE = (
    "doctor", "run", "report", "recommend", "compare", "list", "check", "export", "merge",
)  # fmt: skip
HELP = {"help_option_names": HELP_NAMES, "max_content_width": 100}


@click.group("attnbench", cls=OneLineGroup, order=IN_ORDER_OF_USE, context_settings=HELP)
@click.version_option(package_name="attnbench")
def main() -> None:
    """Measure attention: which one to use, at your length, on your hardware, at what cost."""


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all that is declared.")
@click.option("--peers", "of_peers", is_flag=True, help="List the peers of suite peers.")
@click.option("--models", "of_models", is_flag=True, help="List the models of level model.")
@click.option("--tasks", "of_tasks", is_flag=True, help="List the tasks of suite quality.")
@click.option("--claims", "of_claims", is_flag=True, help="List the claims of suite claims.")
@click.pass_context
def list_backends(ctx: click.Context, /, as_json: bool, **kinds: bool) -> None:
    """List the backends: family, what they support, whether they run here and why not."""
    from suites.quality.rows import usual_rows
    from suites.terminal import listing

    chosen = [name.removeprefix("of_") for name, is_asked in kinds.items() if is_asked]
    if len(chosen) > 1:
        first, second = sorted(chosen)[:2]
        raise click.UsageError(f"--{first}: beside --{second} there is no one list; give one", ctx)
    kind = chosen[0] if chosen else "backends"
    declared, broken_plugins = _declared(kind)
    listing.broken(broken_plugins)
    write = partial(listing.task, rows_of=usual_rows) if kind == "tasks" else listing.WRITERS[kind]
    listing.show(declared, write, as_json=as_json)


def _declared(kind: str) -> tuple[list[dict[str, Any]], Mapping[str, str]]:
    """Return what all of a kind declare, and the plug-ins that failed to load, with the reason."""
    if kind == "models":
        from models import catalogue as models

        return models.catalogue(), {}
    if kind == "claims":
        from results.chapters.claims import catalogue as claims

        return claims.describe(), {}
    if kind == "peers":
        from suites.peers import registry as peers

        return peers.catalogue(), peers.broken_plugins()
    if kind == "tasks":
        from suites.tasks import registry as tasks

        return tasks.describe(), tasks.broken_plugins()
    from attention import registry

    return registry.catalogue(), registry.broken_plugins()


@main.command(cls=RunGroup)
@click.pass_context
def run(
    ctx: click.Context,
    /,
    preset: str | None,
    plugins: tuple[Path, ...],
    resume: bool,
    out: Path | None,
    cluster: str | None,
    cluster_kind: str | None,
    within_s: float | None,
    no_report: bool,
    **chosen: Any,
) -> None:
    """Measure a sweep, each case in a process of its own; Ctrl-C keeps what is done.

    SUITE is what is measured, speed where none is named; `attnbench run SUITE --help` has its
    options.

    A case that fails, crashes, runs out of memory or time gets its status and reason, and the
    sweep goes on. The exit code is 0 when the sweep completes, whatever its statuses.
    """
    from suites import registry
    from suites.engine.driver import run_sweep
    from suites.engine.measuring import measuring, without_place
    from suites.plan import plan_sweep
    from suites.terminal.progress import Console, closing
    from suites.terminal.stream import open_standard

    open_standard()
    named = preset or registry.find(chosen["suite"]).run_name or chosen["suite"]
    console = Console(colour=False if os.environ.get("NO_COLOR") else None)
    command = ("attnbench", *without_place(ctx.obj or ()))
    if cluster_kind is not None and cluster is None:
        raise click.UsageError(f"--cluster-kind: only with --cluster; got {cluster_kind}", ctx)
    if within_s is not None and cluster is not None:
        raise click.UsageError("--budget: not with --cluster, whose machines share a sweep", ctx)
    try:
        plan = plan_sweep(preset, **chosen)
    except ValueError as error:
        raise click.UsageError(f"--{error}", ctx) from None
    with measuring(ctx, out, named, failed="the sweep cannot go on", end=console.end) as folder:
        if cluster is None:
            summary = run_sweep(
                plan, folder, progress=console, plugins=plugins, resume=resume,
                command=command, within_s=within_s,
            )  # fmt: skip
        else:
            from suites.cluster.sweep import run_on_cluster

            summary = run_on_cluster(
                plan, folder, address=cluster, kind=cluster_kind, progress=console,
                plugins=plugins, resume=resume, command=command,
                threads_chosen=bool(chosen["threads"]),
            )  # fmt: skip
    place, table = ("", "") if no_report else _reported(summary.folder, plugins)
    Stream(sys.stdout).write(f"{closing(summary, place)}\n{table}")


def _reported(folder: Path, plugins: Sequence[Path]) -> tuple[str, str]:
    """Write the report of a run; return where it lies, and what a terminal shows of it.

    Where nothing can be reported both are empty, and standard error says why: the run is done.
    """
    from results.chapters.loading import PluginError
    from results.records.load import NoRunError
    from results.report import write_ending

    width = shutil.get_terminal_size((WIDTH, 0)).columns
    try:
        page, text = write_ending(folder, [p for p in plugins if p.is_dir()], width)
    except (NoRunError, PluginError, OSError) as error:
        click.echo(f"no report: {message_of(error)}", err=True)
        return "", ""
    return str(page), text


def _say(notes: Sequence[str], errors: Stream) -> None:
    """Print what is to be kept in mind of records; the report has what does not stand here."""
    from results.text.notes import capped, grouped

    for note in capped(grouped(notes), "at the top of attnbench report"):
        errors.write(f"note: {note}\n")


@main.command()
@click.argument("folders", metavar="DIR…", nargs=-1, required=True, type=FOLDERS)
@click.option(
    "--format",
    "formats",
    type=click.Choice(["html", "md"]),
    multiple=True,
    help="Repeatable. Default: both.",
)
@click.option(
    "--out",
    type=ANY_PATH,
    help="A folder, or with one format the file. Default: DIR; several need it.",
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="A suite's folder, whose chapter.py shows results of its kinds. Repeatable.",
)
@click.pass_context
def report(
    ctx: click.Context,
    /,
    folders: tuple[Path, ...],
    formats: tuple[str, ...],
    out: Path | None,
    plugins: tuple[Path, ...],
) -> None:
    """Write the report: which attention from which length on, and at what cost."""
    from results.analysis.analysis import Analysis
    from results.records.load import load
    from results.report import write_report

    if out is None and len(folders) > 1:
        raise click.UsageError("--out: name the folder for the report of several runs", ctx)
    with misuse(ctx):
        loaded = load(*folders)
        _say(loaded.incomplete, Stream(sys.stderr))
        for path in write_report(
            folders,
            formats=formats or ("html", "md"),
            out=out,
            analysis=Analysis(loaded),
            plugins=plugins,
        ):
            click.echo(path)


@main.command()
@click.argument("base", type=FOLDERS)
@click.argument("new", type=FOLDERS)
@click.option(
    "--metric",
    type=click.Choice(COMPARED),
    default="latency",
    show_default=True,
    help="What is compared.",
)
@click.option(
    "--threshold",
    "thresholds",
    type=Parsed("[BACKEND=]PERCENT", parse_threshold),
    multiple=True,
    help="A smaller change does not matter, of all backends or of one: sdpa=5%. Repeatable. "
    "Default: 3.",
)
@click.option(
    "--only",
    metavar="NAME=VALUE,…",
    multiple=True,
    help="Judge these cases alone: backend=sdpa, mode=forward, seq-len=512,1024 and so on, in the "
    "words of run's options. Repeatable: a case must be of all. The others still tell what two "
    "runs differ by.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["worse", "inconclusive"]),
    default="worse",
    show_default=True,
    help="inconclusive = exit with 1 also where the runs cannot tell whether a case became worse.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--markdown", "as_markdown", is_flag=True, help="Print Markdown, for a pull request."
)
@click.option(
    "--html",
    metavar="FILE",
    type=ANY_PATH,
    help="Write a page of its own too: both runs side by side, with every metric.",
)
@click.option(
    "--confirm",
    is_flag=True,
    help="Measure the cases that may have become worse again, both versions in alternation; only "
    "what that confirms is a regression.",
)
@confirm_options
@click.pass_context
def compare(
    ctx: click.Context,
    /,
    base: Path,
    new: Path,
    metric: str,
    thresholds: tuple[tuple[str, float], ...],
    only: tuple[str, ...],
    fail_on: str,
    as_json: bool,
    as_markdown: bool,
    html: Path | None,
    confirm: bool,
    base_from: Path | None,
    **options: Any,
) -> None:
    """Compare two runs by case and by backend: slower, faster, no change or inconclusive.

    The exit code is 1 if a case or a whole backend became worse (with --fail-on inconclusive also
    if one may have), else 0; 2 on misuse, 3 if something could not be read or measured. Verdicts
    hold over the whole table: false alarms are accounted for.
    """
    from results.analysis.selection import parse
    from results.comparison import text as changes_text
    from results.comparison.compare import compare as compared
    from results.comparison.verdicts import THRESHOLD
    from results.records.load import load
    from suites.terminal import listing
    from suites.terminal.output import Page
    from suites.terminal.stream import open_standard

    open_standard()
    errors = Stream(sys.stderr)

    if as_json and as_markdown:
        raise click.UsageError("--json: beside --markdown there is no one form; give one", ctx)
    if html is not None and (html.suffix != ".html" or html.is_dir()):
        raise click.UsageError(f"--html: expected a file that ends in .html, got {html}", ctx)
    check_confirm(ctx, confirm, base_from, options)
    of_backends: dict[str, float] = {}
    for backend, threshold in thresholds:
        if backend in of_backends:
            whose = backend or "all backends"
            raise click.UsageError(f"--threshold: given twice for {whose}", ctx)
        of_backends[backend] = threshold
    try:
        selection = parse(only)
    except ValueError as error:
        raise click.UsageError(f"--only: {error}", ctx) from None
    with misuse(ctx, NotComparedError):
        runs = [load(base), load(new)]
        for name, run in zip(("BASE", "NEW"), runs, strict=True):
            # What is incomplete stands in the comparison.
            _say([f"{name}: {warning}" for warning in run.warnings], errors)
        found = compared(
            *runs, metric=metric, threshold=of_backends.pop("", THRESHOLD),
            thresholds=of_backends, only=selection,
        )  # fmt: skip
    if base_from is not None:
        found = _confirmed(ctx, found, runs, errors, base_from=base_from, **options)
    page = Page()
    if page.is_live and not as_json and not as_markdown:
        listing.comparison(page, changes_text.parts(found), is_regression=found.is_regression)
    else:
        write = (
            changes_text.as_json if as_json else
            changes_text.markdown if as_markdown else changes_text.text
        )  # fmt: skip
        page.write(write(found))
    if html is not None:
        from results.comparison.page import comparison_page
        from results.records.atomic_write import write_text

        with misuse(ctx, NotComparedError):
            html.parent.mkdir(parents=True, exist_ok=True)
            write_text(html, comparison_page(runs[0], runs[1], found, selection))
        errors.write(f"The page lies in {html}\n")
    is_open = fail_on == "inconclusive" and bool(found.undecided)
    ctx.exit(1 if found.is_regression or is_open else 0)


def _confirmed(
    ctx: click.Context,
    found: Comparison,
    runs: Sequence[Run],
    errors: Stream,
    *,
    max_pairs: int,
    out: Path | None,
    **settings: Any,
) -> Comparison:
    """Return the comparison as pairs of processes settle it; tell the way on standard error."""
    from results.comparison.confirmation import Confirmation
    from results.comparison.pairing import plugins_of
    from results.schema import Case
    from suites.engine.confirm import NAMES, Finished, run_pairs
    from suites.engine.measuring import measuring

    for path in settings["plugins"]:
        if path.is_dir():
            load_plugin(ctx, path)
    with misuse(ctx):
        confirmation = Confirmation(found, max_pairs=max_pairs)
    wanted = set(confirmation.undecided)
    cases = [Case.from_json(r["case"]) for r in runs[1].records if r["case"]["id"] in wanted]
    finished = {
        name: Finished(set(run.frame["machine"]), set(run.frame["commit"]), plugins_of(run))
        for name, run in zip(NAMES, runs, strict=True)
    }
    with measuring(
        ctx, out, "confirm", failed="the pairs cannot be measured",
        error_type=NotComparedError,
    ) as folder:  # fmt: skip
        run_pairs(
            confirmation, cases, folder, finished=finished,
            tell=lambda line: errors.write(f"{line}\n"), **settings,
        )  # fmt: skip
    return confirmation.result()


@main.command()
@click.argument("folders", metavar="[DIR…]", nargs=-1, type=FOLDERS)
@click.option(
    "--seq-len",
    type=Length(2**53),
    required=True,
    help="Tokens: 4096, 16k; with --mode decode of the context.",
)
@click.option(
    "--mode",
    type=click.Choice(SPEED_MODES),
    help="Default: forward; with --use decode that.",
)
@click.option(
    "--use",
    type=click.Choice(["swap", "finetune", "scratch", "decode"]),
    help="swap = into a trained model as it is; finetune = into one that is trained on; scratch = "
    "in a model trained with it; decode = token by token. Default: any.",
)
@click.option(
    "--device", type=click.Choice(DEVICES), default="cpu", show_default=True, help="Where."
)
@click.option("--causal", "is_causal", is_flag=True, help="Causal attention; decode always is.")
@click.option(
    "--max-error",
    type=float,
    help="The largest relative L2 distance from exact softmax attention, as 0.1.",
)
@click.option("--min-recall", type=float, help="The least accuracy of a recall task, as 0.9.")
@click.option(
    "--max-memory",
    metavar="SIZE",
    help="The most memory above the inputs, with --mode decode of the state: 4GB, 4GiB, 500MB.",
)
@click.option(
    "--error-inputs",
    metavar="NAME:key=value",
    shell_complete=one_of(input_names),
    help="Inputs of suite error on which the error counts. Default: those of a trained model, "
    "else random ones.",
)
@click.option(
    "--recall-task",
    metavar="NAME:key=value",
    shell_complete=one_of(tasks),
    help="The task whose accuracy counts. Default: any recall.",
)
@click.option("--dtype", type=click.Choice(DTYPES), help=f"{SETTING_HELP}: of the inputs.")
@click.option("--batch", type=COUNT, metavar="N", help=f"{SETTING_HELP}: sequences at a time.")
@click.option("--num-heads", type=COUNT, metavar="N", help=f"{SETTING_HELP}: heads.")
@click.option("--head-dim", type=COUNT, metavar="N", help=f"{SETTING_HELP}: width of a head.")
@click.option("--threads", type=COUNT, metavar="N", help=f"{SETTING_HELP}: of the CPU.")
@click.option(
    "--allocator", type=click.Choice(ALLOCATORS), help=f"{SETTING_HELP}: the C allocator's policy."
)
@click.option(
    "--matmul-precision",
    type=click.Choice(MATMUL_PRECISIONS),
    help=f"{SETTING_HELP}: of float32 products.",
)
@click.option(
    "--compile", "compiled", type=click.Choice(["off", "on"]), help=f"{SETTING_HELP}: compiled."
)
@click.option(
    "--measure",
    is_flag=True,
    help="Measure what is missing on this machine first: the time of every backend at this "
    "length, and the quality of those of which none is known.",
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=PLUGIN,
    help="With --measure: a Python file that registers backends. Repeatable.",
)
@click.option(
    "--out", type=FOLDER, help="With --measure: a new folder. Default: a new one in runs/."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def recommend(
    ctx: click.Context,
    /,
    folders: tuple[Path, ...],
    compiled: str | None,
    measure: bool,
    plugins: tuple[Path, ...],
    out: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Say which attention to use: the fastest exact one, and the fastest of the others.

    Times are of the runs in DIR, without one of the results that ship with attnbench; between
    two measured lengths they are interpolated, beyond them predicted, and said to be. A method
    that computes something else is an answer only if it is known to learn what exact attention
    does, or to be near it on a trained model's inputs. The exit code is 0 if there is an answer,
    1 if there is none, and 2 on misuse.
    """
    from results import recommend as recommended
    from results.recommendation.as_json import as_json as json_of
    from results.recommendation.commands import plugins_of
    from results.recommendation.question import SETTINGS, checked
    from results.recommendation.text import text
    from results.records.load import load
    from results.records.reference_runs import reference_folders
    from suites.terminal.output import Page
    from suites.terminal.stream import open_standard

    open_standard()
    reference = not folders and not measure
    asked["compile"] = None if compiled is None else compiled == "on"
    if not measure and out is not None:
        raise click.UsageError("--out: goes with --measure", ctx)
    try:
        question = checked(
            **{name: value for name, value in asked.items() if name not in SETTINGS},
            setting={name: value for name, value in asked.items() if name in SETTINGS},
        )
    except (ValueError, TypeError) as error:
        name, _, message = str(error).partition(":")
        raise click.UsageError(f"--{name.replace('_', '-')}:{message}", ctx) from None
    if measure:
        folders = _measured_for(question, folders, plugins, out, asked)
    with misuse(ctx):
        run = load(*(folders or reference_folders()))
        if not reference:  # what is incomplete stands in the answer
            _say(run.warnings, Stream(sys.stderr))
        answer = recommended(run.frame, **asked)
        prompt = None
        if question.mode == "decode":  # before it generates, a model reads its prompt
            of_prompt = {"mode": "forward", "use": None, "is_causal": True, "max_memory": None}
            prompt = recommended(run.frame, **{**asked, **of_prompt})
    page = Page()
    page.write(
        json_of(
            answer,
            machines=run.machines,
            reference=reference,
            folders=run.folders,
            incomplete=run.incomplete,
            prompt=prompt,
        )
        if as_json
        else page.emphasised(
            text(
                answer, machines=run.machines, reference=reference, incomplete=run.incomplete,
                plugins=plugins or plugins_of(begun.command for begun in run.begun),
                folders=folders, is_measured=measure, days=run.days, prompt=prompt,
            ),
            ("Question: ", "Answer, exact: ", "Answer, not exact: ", "Answer: "),
        )
    )  # fmt: skip
    ctx.exit(0 if answer.exact or answer.other else 1)


def _measured_for(
    question: Question,
    folders: tuple[Path, ...],
    plugins: tuple[Path, ...],
    out: Path | None,
    asked: Mapping[str, Any],
) -> tuple[Path, ...]:
    """Measure the times that a question needs, and the quality of those of which none is known.

    Returns:
        The folders that answer it: what was measured, then those that were named.
    """
    from results import recommend as recommended
    from results.recommendation.commands import quality_words, speed_words
    from results.records.load import load
    from suites.engine.measuring import RUNS

    place = out or RUNS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-recommend"
    found = (place / "speed", *folders)
    _sweep(speed_words(question, found[0], plugins))
    ranking = recommended(load(*found).frame, **asked).ranking
    unknown = [c for c in ranking.candidates if c.quality.verdict == "unknown"] if ranking else []
    if unknown:
        found = (*found, place / "quality")
        _sweep(quality_words(question, unknown, found[-1], plugins))
    return found


def _sweep(words: Sequence[str]) -> None:
    """Run a sweep as if it had been typed; one that is stopped stops this command, too.

    What it prints goes to standard error: the answer alone is this command's output.
    """
    command = [*words, "--no-report"]
    Stream(sys.stderr).write(f"$ {shlex.join(['attnbench', *command])}\n")
    with redirect_stdout(sys.stderr):
        code = main.main(command, "attnbench", standalone_mode=False)
    if isinstance(code, int) and code:
        raise click.exceptions.Exit(code)


@main.command()
@click.argument("folders", metavar="DIR…", nargs=-1, required=True, type=FOLDERS)
@click.option("--out", type=FOLDER, required=True, help="A new folder.")
@click.pass_context
def merge(ctx: click.Context, /, folders: tuple[Path, ...], out: Path) -> None:
    """Join runs, or the shards of one, into a new folder; duplicates are dropped."""
    from results.records.merge import merge as join

    with misuse(ctx):
        merged = join(folders, out)
    _say(merged.warnings, Stream(sys.stderr))
    click.echo(f"{merged.num_records} results in {merged.folder}")


@main.command()
@click.argument("folders", metavar="DIR…", nargs=-1, required=True, type=FOLDERS)
@export_options
@click.pass_context
def export(
    ctx: click.Context,
    /,
    folders: tuple[Path, ...],
    table: str | None,
    form: str,
    out: Path | None,
    delimiter: str,
    decimal: str,
) -> None:
    """Write a table for other programs, or asv's files."""
    from results.records.load import load

    check_export(ctx, len(folders), table=table, form=form, out=out,
                 delimiter=delimiter, decimal=decimal)  # fmt: skip
    with misuse(ctx):
        loaded = load(*folders)
        _say(loaded.notes, Stream(sys.stderr))
        if form == "asv":
            from results.export.asv import export_asv, unmarked

            _say(unmarked(loaded), Stream(sys.stderr))
            click.echo(export_asv(loaded, out or folders[0]))
            return
        from results.export.tables import export_table

        text = export_table(
            loaded, table or "cases", form, out,
            delimiter="\t" if delimiter == "tab" else delimiter, decimal=decimal,
        )  # fmt: skip
    click.echo(out if text is None else text, nl=text is None)


@main.command()
@click.argument("backend", metavar="NAME|FILE.py|DIR", shell_complete=backend_or_path)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--timing/--no-timing",
    default=True,
    show_default=True,
    help="Also hold the measured exponent of time against the declared; needs a quiet machine.",
)
@click.pass_context
def check(ctx: click.Context, /, backend: str, as_json: bool, timing: bool) -> None:
    """Hold a backend against the contract, or a run against those that are shipped.

    The exit code is 1 if a check failed; it says what failed, with Python that fails in the same
    way. A file is imported and must register its backends. Of a run folder it is checked that its
    results are sound and name no path, user or machine, as those in results/reference do not.
    """
    from suites.terminal import listing

    if Path(backend).is_dir():
        from results.records.publishable import faults

        found = faults(Path(backend))
        if as_json:
            listing.print_json({"folder": backend, "faults": found})
        else:
            for fault in found:
                click.echo(fault)
            click.echo(f"{len(found)} fault{'s'[: len(found) != 1]}")
        ctx.exit(1 if found else 0)
    from attention import registry, testing

    with misuse(ctx):
        names = registry.load_file(backend) if backend.endswith(".py") else [backend]
        findings = [(name, f) for name in names for f in testing.check(name, measure=timing)]
    listing.broken(registry.broken_plugins())
    if as_json:
        listing.print_json([{"backend": name, **asdict(finding)} for name, finding in findings])
    else:
        listing.findings(findings)
    ctx.exit(1 if any(finding.status == "failed" for _, finding in findings) else 0)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Say what is here, what would disturb a measurement, and what to do about it."""
    from suites.machine.doctor import examine
    from suites.terminal import listing

    findings = examine()
    if as_json:
        listing.print_json([asdict(finding) for finding in findings])
        return
    listing.examined(findings)


if __name__ == "__main__":
    main()
