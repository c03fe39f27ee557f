"""A run folder whose every text is hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import synthetic
import synthetic_quality as made

from results.schema import RECORDS


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]


def rewrite(folder: Path, *records: Any) -> Path:
    content = b"".join(
        (r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records
    )
    (folder / RECORDS).write_bytes(content)
    return folder


MARKS = (
    "<script>document.title='run'</script>", '"><img src=x onerror="document.title=\'run\'">',
    "' onmouseover='document.title=1' x='", "javascript:document.title='run'",
    "</style></title></svg><script>document.title='run'</script>", "a|b", "`x`", "a\nb\r\nc",
    "\x1b[31mred\x1b]0;title\x07", "\u202eevil\u2066", "../../x", "/etc/passwd", "", "😀👩‍👩‍👧",
    "<a href=javascript:document.title=1>x</a>", "{{ 7 * 191 }}", "x" * 100_000,
    "![a](javascript:b)", "<iframe src=data:text/html,x>", "\ud800\x00",
)  # fmt: skip


def studies(mark: str) -> list[dict[str, Any]]:
    """Return records of every other chapter of a report, in which all names are hostile."""
    facts = {"corpus": mark, "sha256": mark, "zlib": "x", "xz": None, mark: mark}
    learners = {mark: made.Learner(name=mark), "sdpa": made.Learner(fails=("failed", mark))}
    families = {
        mark: made.Family(mark, (1, 2), 1.0, 0.5, 1e-8, {mark: mark}),
        "longformer": made.Family("window", (10**15, 1), 1e6, 0.1, 1e-8),
    }
    records = [
        *made.task_records(
            learners, task=f"text{mark}:x={mark}", trainings=(f"{mark}:amount={mark}",),
            model=mark, quality={"facts": facts, "task": {mark: mark}},
        ),
        *made.task_records({mark: made.Learner(name=mark)}, group=mark, seeds=(0,)),
        *made.quantized_records({mark: (4.0, 1e-2, 0.1, 2.1), "int8": ("failed", mark)}),
        *made.error_records(families, inputs={mark: 1.0, "b": 1e-9}, lengths=(512, 1024)),
        *made.error_records(
            families, inputs={"c": 1.0}, lengths=(512,),
            fails=dict.fromkeys(families, ("failed", mark)),
        ),
        *synthetic.sentinels([1.0, 1.0, 1.2, 1.2], run=mark),
    ]  # fmt: skip
    for record in records:
        record["conditions"] = synthetic.conditions(throttled=9, gpu_throttled=[mark])
    return records


def hostile_run(folder: Path) -> Path:
    laws = {
        mark: synthetic.Law(
            1e-5, 1.0, options={mark: mark}, extra={"kernel": mark, "fixed_size": {mark: 1e6}},
            fails={2048: ("failed", mark)},
        )
        for mark in MARKS
    }  # fmt: skip
    environment = {"torch": MARKS[0], "python": MARKS[1], "flags": list(MARKS), MARKS[2]: MARKS[3]}
    synthetic.write_run(
        folder, laws, lengths=(512, 1024, 2048), launches=1, modes=("forward",), run=MARKS[0],
        machine={"cpu": MARKS[4], "gpu": None, **{m: m for m in MARKS}}, commit=MARKS[0],
        environment=environment, started=MARKS[0], case={"model": MARKS[0], "level": "model"},
    )  # fmt: skip
    pairs = {
        mark: synthetic.Beside(mark, (0.1, 1 << 20), (0.2, 1 << 21), claim=mark)
        for mark in MARKS[:8]
    }
    beside = synthetic.write_peer_run(folder / "peers", pairs, launches=1)
    rewrite(folder, *lines(folder), *lines(beside), *studies(MARKS[0]), b"{<script>")
    return folder
