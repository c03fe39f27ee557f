"""Majority: which of two letters is more frequent?"""

import torch

from suites.tasks.base import IGNORED, Batch, Form, Split, Task, generator, of_split
from suites.tasks.drawing import integers
from suites.tasks.registry import register

ASK = 0


@register("majority")
class Majority(Task):
    """Letters 1 and 2 at random; behind them the more frequent one is asked.

    Args:
        seq_len: N, tokens: even, so that the letters before the last token have a majority.
        form: causal or bidirectional; the sequences are the same.
    """

    summary = "which of two letters is more frequent?"
    paper = "none"

    def __init__(self, *, seq_len: int, form: Form) -> None:
        super().__init__(seq_len=seq_len, form=form)
        if seq_len % 2 or seq_len < 16:
            raise ValueError(f"seq_len: expected an even number from 16, got {seq_len}")
        self.vocab_size = 3
        self.chance = 0.5

    def batch(self, size: int, *, seed: int, index: int, split: Split) -> Batch:
        """Return a batch; see `Task.batch`."""
        rng = generator(seed, index, split)
        letters, *_ = of_split(
            split, size, lambda count: (1 + integers(rng, 2, count, self.seq_len - 1),)
        )
        ids = torch.full((size, self.seq_len), ASK)
        ids[:, :-1] = torch.from_numpy(letters)
        labels = torch.full_like(ids, IGNORED)
        labels[:, -1] = 1 + (2 * (ids == 2).sum(dim=1) > self.seq_len - 1).long()
        return Batch(ids, labels)
