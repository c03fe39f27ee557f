"""Write docs/claims.md and the two pages beside it: the claims, and what was measured of each.

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
OF_COST, OF_BEHAVIOUR = (PAGE.with_name(f"claims_{of}.md") for of in ("cost", "behaviour"))
COSTS = (
    "attention-quadratic", "memory-quadratic", "ffn-linear", "sparse-nlogn", "low-rank-linear",
    "kernel-linear", "heads-cost", "head-dim", "rnn-sequential", "dot-vs-additive", "kv-cache",
    "decode-state", "quantization", "sequential-depth",
)  # fmt: skip
"""The claims that are of time and memory; the others are of what a model does and learns."""

REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "epyc-2-cores" / "claims"

HEAD = """\
# Claims about attention, tested

<!-- Made from the reference records by `python docs/build_claims.py`; a test compares. -->

What introductions to transformers say about attention, each tested by a small seeded experiment.
The range in which a claim holds was fixed before it was measured. The verdict is *supported* where
the 95 % interval is inside the range, *refuted* where it is outside, else *inconclusive*. To test
them on your machine:

```sh
attnbench run claims --out claims
attnbench report claims
attnbench export claims --table claims --format json
```

`--claim ID` tests one, `--preset standard` takes more seeds and time, `attnbench list --claims`
shows the questions.
"""


VALUES_HEAD = """\
# Claims of {of}

<!-- Made from the reference records by `python docs/build_claims.py`; a test compares. -->

Of each [claim](claims.md) what was asked, the value with its interval, and the range in which the
claim holds. *–*: tells more, and decides nothing.
"""


def pages() -> dict[Path, str]:
    """Return the pages."""
    run = load(REFERENCE)
    (machine,) = {str(m) for m in run.frame["machine"]}
    name = machine_name(run.machines.get(machine, {}))
    found = rulings(Analysis(run))
    where = f"These verdicts are of two cores of an {name}; each leads to its values."
    return {
        PAGE: "\n".join([HEAD, where, _table(found)]),
        OF_COST: _values("time and memory", [r for r in found if r.claim.id in COSTS]),
        OF_BEHAVIOUR: _values("behaviour", [r for r in found if r.claim.id not in COSTS]),
    }


def _values(of: str, found: list[Ruling]) -> str:
    return "\n".join([VALUES_HEAD.format(of=of), *map(_one, found)])


def _place(ruling: Ruling) -> str:
    """Return where the values of a claim stand."""
    page = OF_COST if ruling.claim.id in COSTS else OF_BEHAVIOUR
    return f"{page.name}#{ruling.claim.id}"


def _table(found: list[Ruling]) -> str:
    rows = [
        f"| [{r.claim.id}]({_place(r)}) | {r.claim.text} | {WORDS[r.verdict]} |" for r in found
    ]
    return "\n".join(["", "| id | claim | verdict |", "| :-- | :-- | :-- |", *rows, ""])


def _one(ruling: Ruling) -> str:
    claim = ruling.claim
    lines = [f"### {claim.id}", "", f"{claim.text} **{WORDS[ruling.verdict].capitalize()}.**", ""]
    if claim.note:
        lines += [claim.note, ""]
    lines += ["| question | value | expected | answer |", "| :-- | --: | --: | :-- |"]
    for answer in ruling.answers:
        word = WORDS[answer.verdict] if answer.question.decides else "–"
        cells = (answer.question.says, in_words(answer.value), answer.question.wanted, word)
        lines.append(f"| {' | '.join(str(escape_markdown(c)) for c in cells)} |")
    if ruling.verdict == "not_run":
        lines += ["", f"Not run: {ruling.reason}."]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
