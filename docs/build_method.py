"""Put what `make verify-method` measured into docs/method.md and the pages beside it.

python docs/build_method.py
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "tests" / "programs")]

from method_tables import DETAILS, NONE, markdown  # noqa: E402
from verification import PROMISES, Measured  # noqa: E402
from verification.show import KEPT, promised, shown  # noqa: E402

PAGES = sorted((ROOT / "docs").glob("method*.md"))
VERIFIED = ROOT / "results" / "reference" / "method" / "verified.json"
MODULES = ROOT / "tests" / "programs" / "verification"
NOT_MEASURED = "Not measured yet."


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the marks of `name`."""
    begin, end = f"<!-- method: {name} -->", f"<!-- /method: {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    assert pattern.search(text), f"no marks for {name}"
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def promise(name: str) -> str:
    """Return what a module promises."""
    text = ast.get_docstring(ast.parse((MODULES / f"{name}.py").read_text())) or ""
    return f"`{name}`: {' '.join(text.split(chr(10) * 2)[0].split())}"


def rates(content: Mapping[str, Any], measured: Mapping[str, Measured]) -> str:
    """Write what each module promises and what came of it, and what it was measured on."""
    machine, environment = content["machine"], content["environment"]
    where = (
        f"{machine['cpu']}, {machine['cores']} cores, torch {environment['torch']}, Python "
        f"{environment['python']}; {content['measured'][:10]}, {content['scale']} form:"
    )
    rows = []
    for name in PROMISES:
        got = measured.get(name)
        if got is None:
            rows.append([promise(name), NONE, *[NONE] * 5, "not measured yet"])
            continue
        rows.append(
            [
                promise(name), got.figure or NONE, f"{got.tried:,}", f"{got.failed:,}",
                shown(got.rate, got.unit), shown(got.bound, got.unit), promised(got),
                KEPT[got.passed] + (f": {got.reason}" if got.passed is None else ""),
            ]
        )  # fmt: skip
    head = ("promise", "figure", "tried", "failed", "measured", "bound", "promised", "kept")
    return f"{where}\n\n{markdown(head, rows, 2)}"


def method(page: Path) -> str:
    """Return a page of the method with what was measured."""
    content = json.loads(VERIFIED.read_text())
    measured = {one["name"]: Measured(**one) for one in content["promises"]}
    text = page.read_text()
    for mark in re.findall(r"<!-- method: (\S+) -->", text):
        got = measured.get(mark.replace("-", "_"))
        if mark == "rates":
            text = fill(text, mark, rates(content, measured))
        elif got is None or not got.details:
            text = fill(text, mark, NOT_MEASURED)
        else:
            text = fill(text, mark, DETAILS[got.name](got.details))
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(method(page))
