"""Put what the reference sweeps measured into README.md and docs: performance.md, quality.md.

python docs/build_measured.py
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from results.analysis.analysis import Analysis
from results.analysis.series import points
from results.analysis.warm_up import MARK, NOTE
from results.chapters.context_parallel.chapter import context_part
from results.chapters.error.rows import error_chapters
from results.chapters.error.tables import error_tables
from results.chapters.peers.rows import comparisons, peer_chapters
from results.chapters.peers.tables import peer_tables
from results.chapters.quality.overview import overview
from results.chapters.quality.rows import chapters_of_tasks
from results.chapters.quality.tables import quality_tables
from results.chapters.quantized.chapter import quantized_part
from results.chapters.settings.tables import axis_tables
from results.chapters.speed import figures
from results.chapters.speed.rows import Chapter, chapters
from results.chapters.speed.sentences import summarise
from results.chapters.speed.tables import tables
from results.figures.svg import drawn
from results.page.blocks import TableView
from results.page.markdown import escape_markdown
from results.records.frames import as_rows
from results.records.load import Run, load
from results.schema import ALLOCATORS, CALL_MODES
from results.text import numbers
from results.text.settings import machine_name

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
QUALITY = ROOT / "docs" / "quality.md"
CONTEXT = ROOT / "docs" / "context_parallel.md"
CLUSTER = ROOT / "docs" / "cluster.md"
CLUSTER_COST = ROOT / "results" / "reference" / "cluster"
"""What tests/programs/measure_cluster.py has measured."""
REFERENCE = ROOT / "results" / "reference" / "epyc-2-cores"
BESIDE = {
    name: REFERENCE.with_name(f"{REFERENCE.name}-{name}")
    for name in (
        "profile",
        "peers",
        "scaling",
        "million",
        "settings",
        "compile",
        "decode",
        "decode-block",
        "models",
    )
}
"""Further sweeps on that machine, each by a command that docs/performance.md names."""

XEON = {
    name: REFERENCE.with_name(f"xeon-2-cores-{name}")
    for name in ("context", "threads", "short", "short-causal")
}
"""What another machine measured: over ranks, on one thread and two, and sdpa at short lengths."""

OF_QUALITY = {
    "tasks": ("quality",),
    "text": ("text",),
    "errors": ("error", "error-512-2048"),
    "quantized": ("quantized",),
}
"""By a place in docs/quality.md, the sweeps that fill it."""
GOALS = {
    (backend, peer, causal, mode): aims
    for backend, peer, causal, *both in (
        ("longformer", "transformers-longformer", False, (5.5, 2.8), (4.5, 2)),
        ("longformer", "local-attention", False, (2.4, 1.9), (1.6, 1.3)),
        ("bigbird", "transformers-bigbird", False,
         (6, 2.7), (4, 2)),
        ("linformer", "linformer", False, (1.6, 1.4), (1.5, 1.3)),
        ("linformer", "linformer-layer", False, (1.5, 1.4), (1.5, 1.4)),
        ("performer", "performer-pytorch", False, (3.8, 1.4), (2, 1.3)),
        ("performer", "performer-pytorch", True, (27, 25), (10, 10)),
    )
    for mode, aims in zip(CALL_MODES, both, strict=True)
} | {("longformer", "torch-flex-attention", False, "forward"): (1.2, 1.2)}  # fmt: skip
"""What was aimed at: how many times as long a peer takes, by allocator."""
FRACTIONS = {
    (backend, causal, mode): aim
    for backend, causal, *both in (
        ("longformer", False, 0.7, 0.55),
        ("bigbird", False, 0.7, 0.55),
        ("linformer", False, 0.8, 0.6),
        ("performer", False, 0.7, 0.55),
        ("performer", True, 0.6, 0.45),
    )
    for mode, aim in zip(CALL_MODES, both, strict=True)
}
"""What was aimed at: the share of the limit."""
FRACTION_LENGTHS = (4096, 8192)
FIGURES = ROOT / "docs" / "figures"
LENGTHS = ("512", "1,024", "2,048", "4,096", "8,192")
"""Columns of the README's table: as many as a page is wide."""


@cache
def loaded(*folders: Path) -> Run:
    """Read run folders, once each."""
    return load(*folders)


_CHAPTERS: dict[int, list[Chapter]] = {}
"""By the identity of a run that `loaded` keeps."""


def chaptered(run: Run) -> list[Chapter]:
    """Return the chapters of a loaded run, made once."""
    if id(run) not in _CHAPTERS:
        _CHAPTERS[id(run)] = chapters(Analysis(run))
    return _CHAPTERS[id(run)]


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the marks of `name`."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- /measured: {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    assert pattern.search(text), f"no marks for {name}"
    if MARK in content and NOTE not in content:
        content += f"\n\n{NOTE}"
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def table(view: TableView) -> str:
    """Write the columns of `LENGTHS` as Markdown."""
    keep = [0, *(view.head.index(n) for n in LENGTHS)]
    rows = [[f"{row[i].text} {row[i].small}".strip() for i in keep] for row in view.rows]
    return markdown_rows([view.head[i] for i in keep], rows, 1)


def whole(view: TableView) -> str:
    """Write a table as Markdown, its columns without any content left out."""
    rows = [[f"{c.text} {c.small}".strip() for c in row] for row in view.rows]
    keep = [i for i in range(len(view.head)) if any(row[i] != numbers.NONE for row in rows)]
    head = [view.head[i] for i in keep]
    return markdown_rows(head, [[row[i] for i in keep] for row in rows], view.text_columns)


def titled(views: list[TableView]) -> str:
    """Write tables under their titles."""
    return "\n\n".join(f"{view.title}:\n\n{whole(view)}" for view in views)


def with_notes(views: list[TableView]) -> str:
    """Write tables under their titles, and below them what is to be known of them."""
    notes = dict.fromkeys(escape_markdown(note) for view in views for note in view.notes)
    said = "\n".join(f"- {note}" for note in notes)
    return "\n\n".join(part for part in (titled(views), said) if part)


def by_peer(run: Run) -> str:
    """Write the tables of the suite peers that have numbers."""
    return titled(
        [
            view
            for chapter in peer_chapters(run)
            for view in peer_tables(chapter)
            if any(row[5].text != numbers.NONE for row in view.rows)
        ]
    )


def beside(run: Run) -> str:
    """Write how many times as long each peer takes as our counterpart, a row a pair."""
    rows = comparisons(run)
    rows = rows[rows["status"] == "ok"]
    columns = [(mode, allocator) for mode in CALL_MODES for allocator in ALLOCATORS]
    written = []
    pairs = rows.groupby(["backend", "peer", "is_causal"], sort=False)
    for (backend, peer, causal), part in pairs:
        found = {(r["mode"], r["allocator"]): r for r in as_rows(part)}
        cells = [f"{backend}, causal" if causal else backend, peer]
        for at in columns:
            row = found.get(at)
            alone = row is not None and math.isfinite(row["attention_ratio"])
            ratio = row["attention_ratio" if alone else "ratio"] if row is not None else math.nan
            cells.append(f"{ratio:.2f}" if math.isfinite(ratio) else numbers.NONE)
        written.append(cells)
    return markdown_rows(["ours", "beside", *(f"{m}, {a}" for m, a in columns)], written, 2)


def from_chapters(run: Run, *wanted: str) -> str:
    """Write the tables of these titles, setting by setting."""
    parts = []
    for chapter in chaptered(run):
        views = [view for view in tables(chapter) if view.title in wanted]
        parts.append(f"**{chapter.title}**\n\n{titled(views)}")
    return "\n\n".join(parts)


def by_dtype(run: Run) -> str:
    """Write each backend's time and memory in bfloat16 beside float32, on all threads."""
    rows = points(run)
    rows = rows[(rows["threads"] == rows["threads"].max()) & ~rows["compile"]]
    rows = rows[rows["matmul_precision"] == "highest"]
    keys = ["backend", "mode", "is_causal", "seq_len"]
    wide = rows.pivot_table("value", keys, ["metric", "dtype"], sort=False)
    written = []
    for (backend, mode, causal, length), row in wide.iterrows():
        time, memory = row["latency"], row["peak_memory"]
        cells = [
            f"{backend}, causal" if causal else backend,
            mode,
            numbers.tokens(length),
            numbers.seconds(time["float32"]),
            numbers.seconds(time["bfloat16"]),
            f"{time['float32'] / time['bfloat16']:.2f} ×",
            f"{memory['bfloat16'] / memory['float32']:.2f} ×",
        ]
        written.append(cells)
    head = ["backend", "mode", "tokens", "float32", "bfloat16", "as fast", "memory"]
    return markdown_rows(head, written, 2)


def figure(chapter: Chapter, name: str, alt: str, *, write: bool) -> str:
    """Draw a figure, for light pages and dark ones, and return what shows it."""
    if write:
        FIGURES.mkdir(exist_ok=True)
        made = drawn(partial(figures.FIGURES[name], chapter), inline=False, pngs=True)
        assert made is not None
        assert made.pngs is not None
        (FIGURES / f"{name}-light.png").write_bytes(made.pngs.light)
        (FIGURES / f"{name}-dark.png").write_bytes(made.pngs.dark)
    return (
        "<picture>\n"
        f'<source media="(prefers-color-scheme: dark)" srcset="docs/figures/{name}-dark.png">\n'
        f'<img alt="{alt}" src="docs/figures/{name}-light.png">\n'
        "</picture>"
    )


def limits(chapter: Chapter) -> str:
    """Write how near the limit each backend runs at the longest length that all have."""
    rows = chapter.limits[chapter.limits["fraction_of_limit"].notna()]
    longest = rows.groupby(["backend", "mode"])["seq_len"].max().min()
    lines = [
        f"At {numbers.tokens(longest)} tokens:",
        "",
        "| backend | mode | time | limit | bound by | share | by torch's | tiles | kernel "
        "| op/s |",
        "| :-- | :-- | --: | --: | :-- | --: | --: | --: | --: | --: |",
    ]
    for row in as_rows(rows[rows["seq_len"] == longest]):
        cells = [
            row["backend"],
            row["mode"],
            numbers.seconds(row["value"]),
            numbers.seconds(row["limit"]),
            row["bound"],
            *(
                numbers.percent(row[c])
                for c in (
                    "fraction_of_limit",
                    "fraction_of_torch",
                    "tile_efficiency",
                    "kernel_efficiency",
                )
            ),
            f"{row['achieved_rate'] / 1e9:,.0f}·10⁹",
        ]
        lines.append("| " + " | ".join(escape_markdown(str(c)) for c in cells) + " |")
    return "\n".join(lines)


def against_goals(run: Run) -> str:
    """Write the peers' ratios beside what was aimed at, a row a pair and mode."""
    rows = comparisons(run)
    rows = rows[rows["status"] == "ok"]
    lines = [
        "| ours | beside | mode | aim, default / retained | measured | met |",
        "| :-- | :-- | :-- | --: | --: | :-- |",
    ]
    for (backend, peer, causal, mode), aims in GOALS.items():
        part = rows[(rows["backend"] == backend) & (rows["peer"] == peer)]
        part = part[(part["is_causal"] == causal) & (part["mode"] == mode)]
        found = []
        for allocator in ALLOCATORS:
            (row,) = as_rows(part[part["allocator"] == allocator])
            alone = row["attention_ratio"]
            found.append(alone if math.isfinite(alone) else row["ratio"])
        met = ["yes" if ratio >= aim else "no" for ratio, aim in zip(found, aims, strict=True)]
        cells = [
            f"{backend}, causal" if causal else backend,
            peer,
            mode,
            " / ".join(f"{aim:g}" for aim in aims),
            " / ".join(f"{ratio:.2f}" for ratio in found),
            met[0] if len(set(met)) == 1 else " / ".join(met),
        ]
        lines.append("| " + " | ".join(escape_markdown(c) for c in cells) + " |")
    return "\n".join(lines)


def against_limits(*runs: Run) -> str:
    """Write the shares of the limit beside what was aimed at; of the first run that has each."""
    written = []
    shown = set[tuple[object, ...]]()
    for chapter in (c for run in runs for c in chaptered(run) if c.setting["dtype"] == "float32"):
        causal = bool(chapter.setting["is_causal"])
        for row in as_rows(chapter.limits):
            key = (row["backend"], causal, row["mode"])
            aim = FRACTIONS.get(key)
            if aim is None or row["options"] or row["seq_len"] not in FRACTION_LENGTHS:
                continue
            if (*key, row["seq_len"]) in shown:
                continue
            shown.add((*key, row["seq_len"]))
            cells = [
                f"{row['backend']}, causal" if causal else row["backend"],
                row["mode"],
                numbers.tokens(row["seq_len"]),
                numbers.percent(aim),
                numbers.percent(row["fraction_of_limit"]),
                numbers.percent(row["fraction_of_torch"]),
            ]
            written.append(cells)
    return markdown_rows(
        ["backend", "mode", "tokens", "aim", "share", "by torch's products"], written, 2
    )


def where_time_goes(run: Run) -> str:
    """Write, setting by setting, shares of the limit, parts of a call, and its products."""
    wanted = ("Where the time goes", "Matrix products by shape")
    parts, notes = [], dict[str, None]()
    for chapter in chaptered(run):
        views = [view for view in tables(chapter) if view.title in wanted]
        notes |= dict.fromkeys(escape_markdown(n) for view in views for n in view.notes)
        parts.append(f"**{chapter.title}**\n\n{limits(chapter)}\n\n{titled(views)}")
    return "\n\n".join([*parts, *notes])


def peaks(chapter: Chapter) -> str:
    """Write the machine's peaks."""
    shown = {
        "matmul_rate": "matrix products, op/s",
        "torch_matmul_rate": "matrix products as torch runs them, op/s",
        "exp_rate": "exponentials, 1/s",
        "bandwidth": "bytes, B/s",
    }
    lines = ["| peak | measured |", "| :-- | --: |"]
    lines += [f"| {word} | {chapter.peaks[k] / 1e9:,.1f}·10⁹ |" for k, word in shown.items()]
    return "\n".join(lines)


def steps_table(run: Run) -> str:
    """Write time per token by context, and the state at the longest, a row a backend."""
    (chapter,) = chaptered(run)
    views = {view.title: view for view in tables(chapter)}
    times, states = views["Time per token, decode"], views["KV cache or recurrent state, decode"]
    longest = {row[0].text: row[-1].text for row in states.rows}
    rows = [
        [row[0].text, *(f"{c.text} {c.small}".strip() for c in row[2:]), longest[row[0].text]]
        for row in times.rows
        if not row[1].is_status
    ]
    head = ["backend", *times.head[2:], f"state at {states.head[-1]}"]
    return markdown_rows(head, rows, 1)


def models_table(run: Run) -> str:
    """Write what an attention is worth in BERT, at the longest length of each mode."""
    chapter = next(c for c in chaptered(run) if is_plain_bert(c))
    (view,) = (v for v in tables(chapter) if v.title.startswith("What the attention is worth"))
    by_mode: dict[str, dict[int, list[list[str]]]] = {}
    for row in view.rows:
        cells = [f"{c.text} {c.small}".strip() for c in row]
        length = int(row[2].text.replace(",", ""))
        by_mode.setdefault(row[1].text, {}).setdefault(length, []).append(cells)
    rows = [cells for lengths in by_mode.values() for cells in lengths[max(lengths)]]
    return markdown_rows(view.head, rows, 2)


def is_plain_bert(chapter: Chapter) -> bool:
    """Say whether a chapter is of BERT, neither compiled nor with checkpoints."""
    setting = chapter.setting
    named = str(setting["model"]).startswith("bert-base")
    return named and not setting["compile"] and not setting["checkpointing"]


def markdown_rows(head: list[str], rows: list[list[str]], text_columns: int) -> str:
    """Write a table as Markdown."""
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(" :-- " if i < text_columns else " --: " for i in range(len(head))) + "|",
    ]
    lines += ["| " + " | ".join(escape_markdown(c) for c in row) + " |" for row in rows]
    return "\n".join(lines)


def on_machine(run: Run) -> str:
    """Return where a run of one machine was measured."""
    (machine,) = run.machines.values()
    return f"On an {machine_name(machine)}, {machine['cores']} cores:"


def reference() -> tuple[Chapter, str]:
    """Return the reference sweep and where it was measured."""
    run = loaded(REFERENCE)
    (chapter,) = chaptered(run)
    (machine,) = run.machines.values()
    return chapter, f"{machine_name(machine)}, {chapter.title}"


def readme(*, write: bool = False) -> str:
    """Return README.md with what the reference says; with `write`, draw its figures too."""
    chapter, where = reference()
    views = {view.title: view for view in tables(chapter)}
    text = README.read_text()
    text = fill(text, "figure", figure(chapter, "time", "Time against length", write=write))
    shown = [
        f"Time per call, forward, with the 95 % interval between launches ({where}):",
        "",
        table(views["Time per call, forward"]),
        "",
        "Peak memory above the inputs, forward:",
        "",
        table(views["Peak memory above the inputs, forward"]),
    ]
    text = fill(text, "table", "\n".join(shown))
    text = fill(text, "decode", steps_table(loaded(BESIDE["decode"])))
    text = fill(text, "models", models_table(loaded(BESIDE["models"])))
    text = fill(text, "peers", beside(loaded(BESIDE["peers"])))
    sentences = [
        f"- {escape_markdown(sentence)}"
        for paragraph in summarise(chapter)
        if paragraph.heading == "Forward pass"
        for sentence in paragraph.sentences
    ]
    return fill(text, "summary", "\n".join(sentences))


def performance() -> str:
    """Return docs/performance.md with what the reference says."""
    chapter, where = reference()
    text = fill(PERFORMANCE.read_text(), "where", where)
    text = fill(text, "peaks", peaks(chapter))
    text = fill(text, "limits", limits(chapter))
    runs = {name: loaded(folder) for name, folder in BESIDE.items()}
    text = fill(text, "profile", where_time_goes(runs["profile"]))
    text = fill(text, "goals", against_goals(runs["peers"]))
    text = fill(text, "shares", against_limits(loaded(REFERENCE), runs["profile"]))
    text = fill(text, "peers", by_peer(runs["peers"]))
    exponents = from_chapters(runs["scaling"], "Exponents of time and memory in the length")
    text = fill(text, "scaling", exponents)
    million = [
        f"{what}, {mode}"
        for what in ("Time per call", "Peak memory above the inputs")
        for mode in ("forward", "training")
    ]
    text = fill(text, "million", from_chapters(runs["million"], *million))
    text = fill(text, "dtypes", by_dtype(runs["settings"]))
    text = fill(text, "settings", titled(axis_tables(points(runs["settings"]))))
    threads = loaded(XEON["threads"])
    by_threads = titled(axis_tables(points(threads)))
    text = fill(text, "threads", f"{on_machine(threads)}\n\n{by_threads}")
    short = loaded(XEON["short"], XEON["short-causal"])
    text = fill(text, "short", f"{on_machine(short)}\n\n{by_peer(short)}")
    steps = [
        "Time per token, decode", "KV cache or recurrent state, decode",
        "Exponents of time and memory in the length", "From which length on a backend is faster",
    ]  # fmt: skip
    text = fill(text, "decode", from_chapters(runs["decode"], *steps))
    text = fill(text, "decode-block", from_chapters(runs["decode-block"], *steps[:2]))
    worth = "What the attention is worth in a model"
    plain = from_chapters(runs["models"], worth)
    axes = titled(axis_tables(points(runs["models"])))
    text = fill(text, "models", f"{plain}\n\n{axes}")
    return fill(text, "compile", titled(axis_tables(points(runs["compile"]))))


def quality() -> str:
    """Return docs/quality.md with what the reference says."""
    runs = {
        place: loaded(*(REFERENCE.with_name(f"{REFERENCE.name}-{name}") for name in names))
        for place, names in OF_QUALITY.items()
    }
    tasks = overview(chapters_of_tasks(runs["tasks"]))
    text = fill(QUALITY.read_text(), "tasks", with_notes(tasks))
    of_text = chapters_of_tasks(runs["text"])
    parts = [f"#### {c.title}\n\n{with_notes(quality_tables(c))}" for c in of_text]
    text = fill(text, "text", "\n\n".join(parts))
    by_inputs = [error_tables(c)[0] for c in error_chapters(runs["errors"])]
    text = fill(text, "errors", titled(by_inputs))
    part = quantized_part(Analysis(runs["quantized"]))
    assert part is not None
    return fill(text, "quantized", titled([view for s in part.sections for view in s.tables]))


def context() -> str:
    """Return docs/context_parallel.md with what the reference says: times are of shared cores."""
    run = loaded(XEON["context"])
    part = context_part(Analysis(run))
    assert part is not None
    (section,) = part.sections
    (machine,) = run.machines.values()
    told = [f"- {escape_markdown(s)}" for p in section.paragraphs for s in p.sentences]
    (sent,) = (view for view in section.tables if view.title == "Bytes exchanged")
    few = replace(sent, head=sent.head[:7], rows=[row[:7] for row in sent.rows])
    where = f"{machine_name(machine)}; {section.title}."
    text = "\n".join([where, "", *told, "", with_notes([few])])
    return fill(CONTEXT.read_text(), "ranks", text)


def cluster() -> str:
    """Return docs/cluster.md with what a launch costs there beyond its case."""
    text = CLUSTER.read_text()
    cost, many = (
        json.loads((CLUSTER_COST / f"{name}.json").read_text()) for name in ("overhead", "many")
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
    head = ["machines", "launches", "median, ms", "95th of 100, ms"]
    where = (
        f"{machine_name(cost['machine'])}, {cost['machine']['cores']} cores, Ray {cost['ray']}."
    )
    text = fill(text, "overhead", f"{where}\n\n{markdown_rows(head, rows, 1)}")
    memory = [
        f"{one['mib']:.0f} MiB after {numbers.tokens(one['launches'])}" for one in many["memory"]
    ]
    each = 1e3 * many["seconds"] / many["launches"]
    told = (
        f"{machine_name(many['machine'])}: {numbers.tokens(many['launches'])} launches on "
        f"{many['machines']} machines took {each:.2f} ms each, {many['seconds']:.0f} s in all. "
        f"The driver's memory: {numbers.listing(memory)}."
    )
    return fill(text, "many", told)


if __name__ == "__main__":
    CONTEXT.write_text(context())
    CLUSTER.write_text(cluster())
    README.write_text(readme(write=True))
    PERFORMANCE.write_text(performance())
    QUALITY.write_text(quality())
