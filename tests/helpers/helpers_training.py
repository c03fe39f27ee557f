"""What the tests of trainings share: the smallest cases, and a training brought to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from results.schema import Case
from suites.parsing import parse_backend
from suites.training.prepare import prepare, train
from suites.training.trainer import Trainer

SHAPE = "d_model=16,num_heads=2,num_layers=2,positions=sinusoidal,tied=false"

LISTOPS = {"task": "listops:max_depth=3,max_len=24", "seq_len": 24}
"""The smallest task with padding and self-pretraining."""


def training(arm: str = "sdpa", training: str = "steps:amount=4", **changes: Any) -> Case:
    """Return a case of kind task that is trained in a blink; its model is a bidirectional one."""
    values: dict[str, Any] = {
        "kind": "task", "level": "model", "mode": "training", "arms": (parse_backend(arm),),
        "batch": 4, "num_heads": 0, "num_kv_heads": 0, "head_dim": 0, "seq_len": 32,
        "device": "cpu", "dtype": "float32", "is_causal": False, "threads": 1,
        "allocator": "default", "compile": False, "seed": 0, "task": "recall",
        "training": training,
    }  # fmt: skip
    values.update(changes)
    values.setdefault("key_len", values["seq_len"])
    architecture = "decoder" if values["is_causal"] else "encoder"
    values.setdefault("model", f"{architecture}:{SHAPE}")
    return Case(**values)


def trained(case: Case, store: Path | None = None, **more: Any) -> Trainer:
    """Train a case."""
    return train(prepare(case, {}), store, **more)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return the weights of a trained model, by name."""
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def assert_same(first: Trainer, second: Trainer) -> None:
    """Hold two trainings against each other: every bit of weights and curve, but for the time."""
    left, right = weights(first), weights(second)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    assert (first.curve.step, first.curve.loss) == (second.curve.step, second.curve.loss)
    assert (first.curve.width, first.spent.steps) == (second.curve.width, second.spent.steps)


class StoppedError(Exception):
    """A test's own interruption."""


def stopping_at(step: int, error: type[BaseException] = StoppedError) -> Callable[[str], None]:
    """Return a listener that raises when it hears of a step; use with `every_step`."""

    def tell(line: str) -> None:
        if line.startswith(f"step {step},"):
            raise error

    return tell


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: the same bits every time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
