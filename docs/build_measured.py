"""Put what the reference sweeps measured into README.md and the pages of docs/ that have marks.

python docs/build_measured.py
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from measured_answer import answer, figure  # noqa: E402
from measured_findings import findings  # noqa: E402
from measured_tables import (  # noqa: E402
    beside,
    by_dtype,
    by_kernel,
    chaptered,
    fill,
    from_chapters,
    limits,
    loaded,
    markdown_rows,
    noted,
    on_machine,
    peaks,
    ran,
    some_columns,
    titled,
    titles,
    views_of,
    whole,
    with_notes,
    with_rows,
    without,
)

from results.analysis.analysis import Analysis  # noqa: E402
from results.analysis.series import points  # noqa: E402
from results.chapters.context_parallel.chapter import context_part  # noqa: E402
from results.chapters.error.rows import error_chapters  # noqa: E402
from results.chapters.error.tables import error_tables  # noqa: E402
from results.chapters.peers.rows import peer_chapters  # noqa: E402
from results.chapters.peers.tables import peer_tables  # noqa: E402
from results.chapters.quality.overview import overview  # noqa: E402
from results.chapters.quality.rows import chapters_of_tasks  # noqa: E402
from results.chapters.quality.tables import quality_tables  # noqa: E402
from results.chapters.quantized.chapter import quantized_part  # noqa: E402
from results.chapters.settings.tables import axis_tables  # noqa: E402
from results.chapters.speed import figures  # noqa: E402
from results.figures.svg import drawn  # noqa: E402
from results.page.markdown import escape_markdown  # noqa: E402
from results.records.load import Run  # noqa: E402
from results.text import numbers  # noqa: E402
from results.text.settings import machine_name  # noqa: E402

DOCS = ROOT / "docs"
FIGURES = DOCS / "figures"
RUNS = ROOT / "results" / "reference"
CLUSTER = RUNS / "cluster"
"""What tests/programs/measure_cluster.py has measured."""

LENGTHS = ("512", "1,024", "2,048", "4,096", "8,192")
"""Columns of the tables by length: as many as a page is wide."""

EXPONENTS, CROSSOVERS = "Exponents of time", "From which length on"
WORTH, PARTS = "What the attention is worth", "Where the time goes"
"""How the titles of a chapter's tables begin."""
COMPARED = ("products, of peak", "exponentials, of peak")
"""Columns of the parts of a call that say how fast two of them ran."""

BASELINE = "sdpa"


def epyc(*names: str) -> Run:
    """Return sweeps of the machine that most pages are of; without a name the first one."""
    return loaded(*(RUNS / "epyc-2-cores" / name for name in names or ("speed",)))


def xeon(*names: str) -> Run:
    """Return sweeps of another machine."""
    return loaded(*(RUNS / "xeon-2-cores" / name for name in names))


def the_answer() -> str:
    """Return the answer in three sentences."""
    folders = (RUNS / "epyc-2-cores" / name for name in ("speed", "text", "error"))
    return answer(*folders)


def draw() -> None:
    """Draw the figure of time against length, for light pages and dark ones."""
    (chapter,) = chaptered(epyc())
    made = drawn(partial(figures.FIGURES["time"], chapter), inline=False, pngs=True)
    assert made is not None
    assert made.pngs is not None
    (FIGURES / "time-light.png").write_bytes(made.pngs.light)
    (FIGURES / "time-dark.png").write_bytes(made.pngs.dark)


def readme(text: str) -> str:
    """Return README.md with what was measured."""
    text = fill(text, "figure", figure("docs/figures"))
    return fill(text, "answer", the_answer())


def home(text: str) -> str:
    """Return docs/index.md with what was measured."""
    text = fill(text, "figure", figure("figures"))
    return fill(text, "answer", the_answer())


def surprises(text: str) -> str:
    """Return docs/findings.md with what was measured."""
    return fill(text, "findings", findings(epyc))


def performance(text: str) -> str:
    """Return docs/performance.md with what was measured."""
    (chapter,) = chaptered(epyc())
    (machine,) = epyc().machines.values()
    text = fill(text, "answer", the_answer())
    text = fill(text, "where", f"{machine_name(machine)}, {chapter.title}")
    for mode in ("forward", "training"):
        shown = [
            f"{view.title}:\n\n{some_columns(view, LENGTHS)}"
            for view in views_of(chapter, *titles(mode))
        ]
        text = fill(text, mode, "\n\n".join(shown))
    (crossed,) = views_of(chapter, CROSSOVERS)
    rows = [[*row[:2], *row[3:5]] for row in ran(crossed) if row[2] == BASELINE]
    rows = [row for row in rows if row[0] != "full"]
    head = [*crossed.head[:2], *crossed.head[3:5]]
    text = fill(text, "crossovers", markdown_rows(head, rows, 2))
    text = fill(text, "peaks", peaks(chapter))
    return fill(text, "limits", limits(chapter))


def long_sequences(text: str) -> str:
    """Return docs/performance_long.md with what was measured."""
    text = fill(text, "scaling", from_chapters(epyc("scaling"), EXPONENTS))
    million = [title for mode in ("forward", "training") for title in titles(mode)]
    return fill(text, "million", from_chapters(epyc("million"), *million))


def decoding(text: str) -> str:
    """Return docs/performance_decoding.md with what was measured."""
    steps = titles("decode")
    text = fill(text, "decode", from_chapters(epyc("decode"), *steps, EXPONENTS, CROSSOVERS))
    return fill(text, "decode-block", from_chapters(epyc("decode-block"), *steps))


def models(text: str) -> str:
    """Return docs/performance_models.md with what was measured."""
    plain = from_chapters(epyc("models"), WORTH)
    return fill(text, "models", f"{plain}\n\n{titled(axis_tables(points(epyc('models'))))}")


def settings(text: str) -> str:
    """Return docs/performance_settings.md with what was measured."""
    text = fill(text, "dtypes", by_dtype(epyc("settings")))
    by_threads, by_precision = axis_tables(points(epyc("settings")))
    some = [
        with_rows(by_threads, "setting", "float32, products at highest"),
        with_rows(by_precision, "setting", "2 threads"),
    ]
    text = fill(text, "settings", titled(some))
    text = fill(text, "compile", titled(axis_tables(points(epyc("compile"))), of_speed=True))
    text = fill(text, "compiled", by_kernel(epyc("compiled")))
    threads = titled(axis_tables(points(xeon("threads"))))
    return fill(text, "threads", f"{on_machine(xeon('threads'))}\n\n{threads}")


def peers(text: str) -> str:
    """Return docs/performance_peers.md with what was measured."""
    text = fill(text, "peers", beside(epyc("peers")))
    run = xeon("short", "short-causal")
    views = [view for chapter in peer_chapters(run) for view in peer_tables(chapter)]
    views = [view for view in views if any(row[5].text != numbers.NONE for row in view.rows)]
    return fill(text, "short", f"{on_machine(run)}\n\n{titled(views)}")


def kernels(text: str) -> str:
    """Return docs/kernels.md with what was measured."""
    chapter = next(
        c for c in chaptered(epyc("profile"))
        if c.setting["dtype"] == "float32" and not c.setting["is_causal"]
    )  # fmt: skip
    (parts,) = views_of(chapter, PARTS)
    return fill(text, "profile", whole(without(parts, "tokens", *COMPARED)))


def quality(text: str) -> str:
    """Return docs/quality.md with what was measured."""
    tasks = overview(chapters_of_tasks(epyc("quality")))
    text = fill(text, "answer", the_answer().splitlines()[-1].removeprefix("- "))
    return fill(text, "tasks", with_notes([without(view, "full", "xformers") for view in tasks]))


def quality_text(text: str) -> str:
    """Return docs/quality_text.md with what was measured."""
    parts = [
        f"### {chapter.title}\n\n{titled(quality_tables(chapter))}"
        for chapter in chapters_of_tasks(epyc("text"))
    ]
    text = fill(text, "text", "\n\n".join(parts))
    part = quantized_part(Analysis(epyc("quantized")))
    assert part is not None
    return fill(text, "quantized", titled([view for s in part.sections for view in s.tables]))


def quality_error(text: str) -> str:
    """Return docs/quality_error.md with what was measured: trained inputs first."""
    chapters = error_chapters(epyc("error", "error-512-2048"))
    chapters.sort(key=lambda chapter: "trained" not in chapter.inputs)
    views = [without(error_tables(chapter)[0], "operations", "FLOPs") for chapter in chapters]
    return fill(text, "errors", titled(views))


def context(text: str) -> str:
    """Return docs/context_parallel.md with what was measured: times are of shared cores."""
    run = xeon("context")
    part = context_part(Analysis(run))
    assert part is not None
    (section,) = part.sections
    (machine,) = run.machines.values()
    told = [f"- {escape_markdown(s)}" for p in section.paragraphs for s in p.sentences]
    (sent,) = (view for view in section.tables if view.title == "Bytes exchanged")
    few = replace(sent, head=sent.head[:7], rows=[row[:7] for row in sent.rows])
    where = f"{machine_name(machine)}; {section.title}."
    return fill(text, "ranks", "\n".join([where, "", *told, "", with_notes([few])]))


def cluster(text: str) -> str:
    """Return docs/cluster.md with what a repetition costs there beyond its case."""
    cost, many = (
        json.loads((CLUSTER / f"{name}.json").read_text()) for name in ("overhead", "many")
    )
    rows = [
        [
            f"{row['machines']}" if row["machines"] else "this one, without Ray",
            numbers.tokens(row["launches"]),
            f"{1e3 * row['median_s']:.1f}",
            f"{1e3 * row['p95_s']:.1f}",
        ]
        for row in cost["rows"]
    ]
    head = ["machines", "repetitions", "median, ms", "95th of 100, ms"]
    where = (
        f"{machine_name(cost['machine'])}, {cost['machine']['cores']} cores, Ray {cost['ray']}."
    )
    text = fill(text, "overhead", f"{where}\n\n{markdown_rows(head, rows, 1)}")
    memory = [
        f"{one['mib']:.0f} MiB after {numbers.tokens(one['launches'])}" for one in many["memory"]
    ]
    each = 1e3 * many["seconds"] / many["launches"]
    told = (
        f"{machine_name(many['machine'])}: {numbers.tokens(many['launches'])} repetitions on "
        f"{many['machines']} machines took {each:.2f} ms each, {many['seconds']:.0f} s in all. "
        f"The driver's memory: {numbers.listing(memory)}."
    )
    return fill(text, "many", told)


PAGES = {
    ROOT / "README.md": readme,
    DOCS / "index.md": home,
    DOCS / "findings.md": surprises,
    DOCS / "performance.md": performance,
    DOCS / "performance_long.md": long_sequences,
    DOCS / "performance_decoding.md": decoding,
    DOCS / "performance_models.md": models,
    DOCS / "performance_settings.md": settings,
    DOCS / "performance_peers.md": peers,
    DOCS / "kernels.md": kernels,
    DOCS / "quality.md": quality,
    DOCS / "quality_text.md": quality_text,
    DOCS / "quality_error.md": quality_error,
    DOCS / "context_parallel.md": context,
    DOCS / "cluster.md": cluster,
}
"""Pages with marks, to what fills these."""


def built(page: Path) -> str:
    """Return a page with what was measured."""
    return noted(PAGES[page](page.read_text()))


if __name__ == "__main__":
    draw()
    for page in PAGES:
        page.write_text(built(page))
