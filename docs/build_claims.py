"""Write docs/claims.md and docs/claims_measured.md: the claims, and what was measured of each.

python docs/build_claims.py
"""

from __future__ import annotations

from pathlib import Path

from results.analysis.analysis import Analysis
from results.chapters.claims.chapter import WORDS
from results.chapters.claims.verdicts import Ruling, in_words, rulings
from results.page.markdown import escape_markdown
from results.records.load import load
from results.text.settings import machine_name

PAGE = Path(__file__).with_name("claims.md")
VALUES = Path(__file__).with_name("claims_measured.md")
REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "epyc-2-cores-claims"

HEAD = """\
# Claims, put to the test

<!-- Made from the reference records by `python docs/build_claims.py`; a test compares. -->

What introductions to transformers say of attention, each as one small seeded experiment with a
number, an interval and a verdict. A claim holds in a range that was fixed before it was measured;
the verdict is *supported* where the interval lies within it, *refuted* where it lies outside, and
*inconclusive* where it does neither. To test them on your machine:

```sh
attnbench run --suite claims --out claims
attnbench report claims
attnbench export claims --table claims --format json
```

`--claim ID` tests one, `--preset standard` takes more seeds and time, `attnbench list --claims`
says what is asked.
"""


VALUES_HEAD = """\
# Claims: what was measured

<!-- Made from the reference records by `python docs/build_claims.py`; a test compares. -->

Of each [claim](claims.md) what was asked, the value with its interval, and the range in which the
claim holds. What has no verdict behind it decides nothing.
"""


def pages() -> dict[Path, str]:
    """Return both pages."""
    run = load(REFERENCE)
    (machine,) = {str(m) for m in run.frame["machine"]}
    name = machine_name(run.machines.get(machine, {}))
    found = rulings(Analysis(run))
    where = f"These verdicts are of two cores of an {name}; each leads to its values."
    return {
        PAGE: "\n".join([HEAD, where, _table(found)]),
        VALUES: "\n".join([VALUES_HEAD, *map(_one, found)]),
    }


def _table(found: list[Ruling]) -> str:
    rows = [
        f"| [{r.claim.id}]({VALUES.name}#{r.claim.id}) | {r.claim.text} | {WORDS[r.verdict]} |"
        for r in found
    ]
    return "\n".join(["", "| id | claim | verdict |", "| :-- | :-- | :-- |", *rows, ""])


def _one(ruling: Ruling) -> str:
    claim = ruling.claim
    lines = [f"## {claim.id}", "", f"{claim.text} **{WORDS[ruling.verdict].capitalize()}.**", ""]
    if claim.note:
        lines += [claim.note, ""]
    for answer in ruling.answers:
        word = f": {WORDS[answer.verdict]}" if answer.question.decides else ""
        said, value = (escape_markdown(t) for t in (answer.question.says, in_words(answer.value)))
        wanted = escape_markdown(answer.question.wanted)
        lines.append(f"- {said}: **{value}**; expected {wanted}{word}")
    if ruling.verdict == "not_run":
        lines += ["", f"Not run: {ruling.reason}."]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
