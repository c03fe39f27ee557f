"""Write docs/claims.md: the claims, and what the reference records say of them.

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
REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "epyc-2-cores-claims"

HEAD = """\
# Claims about attention, tested

<!-- Made from the reference records by `python docs/build_claims.py`; a test compares. -->

What introductions to transformers say about attention, each tested by a small seeded experiment.
The range in which a claim holds was fixed before it was measured. The verdict is *supported* where
the 95 % interval is inside the range, *refuted* where it is outside, else *inconclusive*. To test
them on your machine:

```sh
attnbench run --suite claims --out claims
attnbench report claims
attnbench export claims --table claims --format json
```

`--claim ID` tests one, `--preset standard` takes more seeds and time, `attnbench list --claims`
shows the questions.
"""


def text() -> str:
    """Return the page."""
    run = load(REFERENCE)
    (machine,) = {str(m) for m in run.frame["machine"]}
    name = machine_name(run.machines.get(machine, {}))
    found = rulings(Analysis(run))
    parts = [HEAD, f"The figures below are of two cores of an {name}.", _table(found)]
    parts += [_one(ruling) for ruling in found]
    return "\n".join(parts)


def _table(found: list[Ruling]) -> str:
    rows = [
        f"| [{r.claim.id}](#{r.claim.id}) | {r.claim.text} | {WORDS[r.verdict]} |" for r in found
    ]
    return "\n".join(["", "| id | claim | verdict |", "| :-- | :-- | :-- |", *rows, ""])


def _one(ruling: Ruling) -> str:
    claim = ruling.claim
    lines = [f"## {claim.id}", "", f"{claim.text} **{WORDS[ruling.verdict].capitalize()}.**", ""]
    if claim.note:
        lines += [claim.note, ""]
    lines += ["| asked | value | expected | answer |", "| :-- | --: | --: | :-- |"]
    for answer in ruling.answers:
        word = WORDS[answer.verdict] if answer.question.decides else "–"
        cells = (answer.question.says, in_words(answer.value), answer.question.wanted, word)
        lines.append(f"| {' | '.join(str(escape_markdown(c)) for c in cells)} |")
    if ruling.verdict == "not_run":
        lines += ["", f"Not run: {ruling.reason}."]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
