"""How well a trained model does on the test split: accuracy by group, loss, bits a byte."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from models import TransformerModel
from suites.tasks.base import IGNORED, Task
from suites.training.trainer import logits_of, on_device

TEST_LABELS, TEST_SEQUENCES = 4096, 512
"""The test ends when there are so many labels, and at least so many sequences or the last one."""

TEST_BYTES = 2**20
"""Of text all windows of the test split are asked, up to so many bytes."""


@dataclass
class Score:
    """What a model got right.

    Attributes:
        labels: that were asked.
        correct: of them.
        nats: cross-entropy of all labels together.
        groups: by group, the labels and those correct.
    """

    labels: int = 0
    correct: int = 0
    nats: float = 0.0
    groups: dict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    @property
    def accuracy(self) -> float:
        """Share of the labels that are met."""
        return self.correct / self.labels

    @property
    def loss(self) -> float:
        """Nats a label."""
        return self.nats / self.labels

    @property
    def bits(self) -> float:
        """Bits a label."""
        return self.loss / math.log(2)

    def groups_json(self, name: str) -> dict[str, Any] | None:
        """Return the groups as the record holds them; ``None`` where there are none."""
        if not self.groups:
            return None
        values = sorted(self.groups)
        return {
            "name": name,
            "values": values,
            "count": [self.groups[v][0] for v in values],
            "correct": [self.groups[v][1] for v in values],
        }


def evaluate(
    model: TransformerModel,
    task: Task,
    *,
    batch: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
    sequences: int | None = None,
    labels: int = TEST_LABELS,
) -> Score:
    """Ask a model the test split; all models are asked the same.

    Args:
        model: trained, on its device.
        task: gives the test split.
        batch: sequences at a time.
        seed: of the test batches.
        dtype: of the products, by autocast.
        sequences: at least so many, where the split has them; ``None`` = `TEST_SEQUENCES`, of text
            all windows up to `TEST_BYTES`.
        labels: at least so many.

    Raises:
        ValueError: if the test split asks nothing.
    """
    if sequences is None:
        of_text = max(TEST_SEQUENCES, TEST_BYTES // task.seq_len)
        sequences = of_text if task.metric == "bits_per_byte" else TEST_SEQUENCES
    device = next(model.parameters()).device
    score, seen = Score(), 0
    model.eval()
    with torch.inference_mode(), torch.autocast(
        device.type, dtype, enabled=dtype != torch.float32
    ):  # fmt: skip
        for one in task.test_batches(batch, max(sequences, labels), seed=seed):
            _add(score, model, on_device(one, device))
            seen += len(one.ids)
            if seen >= sequences and score.labels >= labels:
                break
    if not score.labels:
        raise ValueError(f"task: the test split of {task.name} asks nothing")
    return score


def _add(score: Score, model: TransformerModel, one: Any) -> None:
    logits = logits_of(model, one)
    asked = one.labels != IGNORED
    answers, wanted = logits[asked], one.labels[asked]
    right = answers.argmax(-1) == wanted
    score.labels += int(asked.sum())
    score.correct += int(right.sum())
    score.nats += float(F.cross_entropy(answers.double(), wanted, reduction="sum"))
    if one.groups is not None:
        for group, met in zip(one.groups[asked].tolist(), right.tolist(), strict=True):
            score.groups[group][0] += 1
            score.groups[group][1] += met
