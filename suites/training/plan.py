"""What a training may spend, and how: read from a case's ``training``. No torch.

Three views are fair, each to another question: equal steps ask what an attention learns from the
same data, equal time what it learns on this machine, equal operations what it learns from the
same work. `Plan.view` says which of them ends the training.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from results.schema import Case
from suites.parsing import parse_backend

View = Literal["steps", "time", "operations"]

VIEWS: tuple[str, ...] = get_args(View)


@dataclass(frozen=True)
class Plan:
    """A training: its budget and its optimiser.

    Attributes:
        view: what is counted.
        amount: of steps; of seconds spent in steps; of operations, in steps of the same model
            with exact attention: what those compute may be spent.
        lr: the highest learning rate of AdamW.
        warmup: share of a phase in which the rate rises to it from `floor` of it, linearly.
        hold: share of a phase until which it stays there; then it falls along a cosine (Loshchilov
            and Hutter 2017, arXiv 1608.03983) to `floor` of itself. What recall needs is learnt
            all at once after a plateau, which a rate that falls from the start may not leave.
        floor: see `hold`.
        weight_decay: of matrices; biases, norms and embeddings have none.
        clip: the longest gradient, in L2.
        pretrain: share of the amount that is spent on the task's own inputs first.
    """

    view: View
    amount: float
    lr: float = 1e-3
    warmup: float = 0.05
    hold: float = 0.7
    floor: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    pretrain: float = 0.0

    def __post_init__(self) -> None:
        """Check every value."""
        if self.view not in VIEWS:
            raise ValueError(f"training: expected one of {', '.join(VIEWS)}, got {self.view!r}")
        for name, low, high in (
            ("amount", 0.0, math.inf),
            ("lr", 0.0, math.inf),
            ("clip", 0.0, math.inf),
        ):
            self._check(name, low, high, above=True)
        for name in ("warmup", "hold", "floor", "pretrain"):
            self._check(name, 0.0, 1.0)
        self._check("weight_decay", 0.0, math.inf)
        if self.view == "steps" and self.amount != int(self.amount):
            raise ValueError(f"amount: expected a whole number of steps, got {self.amount:g}")
        if self.pretrain == 1.0:
            raise ValueError("pretrain: expected less than 1, or nothing is left for the task")

    def _check(self, name: str, low: float, high: float, *, above: bool = False) -> None:
        value: Any = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name}: expected a number, got {value!r}")
        if not (low < value if above else low <= value) or not value <= high or value == math.inf:
            accepted = f"above {low:g}" if above else f"from {low:g}"
            accepted += f" to {high:g}" if high < math.inf else ""
            raise ValueError(f"{name}: expected a number {accepted}, got {value:g}")

    def rate(self, progress: float) -> float:
        """Return the learning rate at a share of the amount, from 0 to 1."""
        share = self.phase_share(progress)
        low = self.lr * self.floor
        if share < self.warmup:
            return low + (self.lr - low) * share / self.warmup
        start = max(self.warmup, self.hold)
        rest = max(0.0, share - start) / (1 - start) if start < 1 else 0.0
        return low + (self.lr - low) * (1 + math.cos(math.pi * min(1.0, rest))) / 2

    def phase_share(self, progress: float) -> float:
        """Return how much of its phase is done: pretraining, or what follows it."""
        if progress < self.pretrain:
            return progress / self.pretrain
        return (progress - self.pretrain) / (1 - self.pretrain)

    def pretrains(self, progress: float) -> bool:
        """Say whether a step at this share of the amount is one of pretraining."""
        return progress < self.pretrain


def plan_from(text: str) -> Plan:
    """Read ``steps:amount=400,lr=0.002``.

    Raises:
        ValueError: if a name, a value or the form is not accepted.
        TypeError: if a value has the wrong type, or an option does not exist.
    """
    arm = parse_backend(text)
    accepted = [field.name for field in fields(Plan) if field.name != "view"]
    for name in arm.options:
        if name not in accepted:
            near = difflib.get_close_matches(name, accepted, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise TypeError(f"training: no option {name!r}{hint}; accepted: {', '.join(accepted)}")
    if "amount" not in arm.options:
        raise TypeError(f"training: {arm.name} needs an amount; got {text!r}")
    view: Any = arm.name
    return Plan(view, **arm.options)


def training_of(case: Case) -> Case:
    """Return the case of kind task whose model a case of a training kind is about."""
    return replace(case, kind="task", weights="")
