"""Queries, keys and values of a model trained here: ``inputs`` of the name ``trained``.

They are those of one text, of every layer, kept in a file of their own beside the records: the
first case that needs them has the model trained, the others read the file. A training that was
interrupted goes on from its checkpoint, as those of kind task do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attention.checks import check_int
from models import TransformerModel
from results.schema import Arm, Case, content_id
from suites.arms.model import compared_stack
from suites.error.inputs import DRAWN, QKV, Distribution, Drawn, build_distribution
from suites.error.suite import TRAINED
from suites.tasks.base import Batch
from suites.training import checkpoint
from suites.training.prepare import prepare, signature
from suites.training.prepare import train as train_model
from suites.training.trainer import logits_of


@dataclass(frozen=True)
class TrainedSpec:
    """Which model's tensors are meant: it has these and no others.

    Attributes:
        num_layers: L.
        num_heads: H, of queries, keys and values.
        head_dim: D.
        seq_len: N, of the text that they are taken on.
        is_causal: whether the model sees the past alone.
        seed: of its weights and its data.
    """

    num_layers: int
    num_heads: int
    head_dim: int
    seq_len: int
    is_causal: bool
    seed: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of each tensor: ``[L, H, N, D]``."""
        return (self.num_layers, self.num_heads, self.seq_len, self.head_dim)


Make = Callable[[TrainedSpec], QKV]
"""Trains a model; returns q, k and v ``[L, H, N, D]`` of every layer, floating-point."""


STEPS, BATCH, RATE = 200, 4, 0.002
"""Of the training: sequences of the length that the tensors are taken at."""


def training_case(spec: TrainedSpec) -> Case:
    """Return the training as a case of kind task: a byte-level language model, exact attention.

    On the standard library's sources: the next byte if it is causal, else hidden ones. One thread
    is said whatever the case has: how many there are makes no other model.
    """
    shape = {
        "d_model": spec.num_heads * spec.head_dim, "num_layers": spec.num_layers,
        "num_heads": spec.num_heads, "positions": "rotary",
    }  # fmt: skip
    return Case(
        kind="task", level="model", mode="training", arms=(Arm("sdpa"),), batch=BATCH,
        num_heads=0, num_kv_heads=0, head_dim=0, seq_len=spec.seq_len, key_len=spec.seq_len,
        device="cpu", dtype="float32", is_causal=spec.is_causal, threads=1,
        allocator="default", compile=False, seed=spec.seed, task="language",
        model=Arm("decoder" if spec.is_causal else "encoder", shape).label,
        training=Arm("steps", {"amount": STEPS, "lr": RATE}).label,
    )  # fmt: skip


def train(spec: TrainedSpec, store: Path | None = None) -> QKV:
    """Train the model, or go on with it; return what it had in its layers.

    The tensors are those of the first window of the test split, as they went into the attention:
    positions (rotary) are in them.

    Args:
        spec: which model.
        store: where its checkpoint lies; ``None`` = nothing is kept.
    """
    setup = prepare(training_case(spec), {})
    trainer = train_model(setup, store)
    window = setup.task.batch(1, seed=0, index=0, split="test")
    return layers_of(trainer.model, window)


def layers_of(model: TransformerModel, window: Batch) -> QKV:
    """Return q, k and v ``[L, H, N, D]`` of every layer of a model's only stack, on one window."""
    seen: list[tuple[Tensor, ...]] = []

    def record(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = {**dict(zip("qkv", args, strict=False)), **kwargs}
        seen.append(tuple(named[name][0] for name in "qkv"))

    blocks: list[Any] = list(compared_stack(model).blocks)
    handles = [
        block.attention.attention.register_forward_pre_hook(record, with_kwargs=True)
        for block in blocks
    ]
    try:
        with torch.no_grad():
            logits_of(model, window)
    finally:
        for handle in handles:
            handle.remove()
    q, k, v = (torch.stack(parts) for parts in zip(*seen, strict=True))
    return q, k, v


class Trained(Distribution):
    """Queries, keys and values of one layer of a trained model, at its leading tokens.

    Their logits deviate as training left them. The case must have the model's heads.

    Args:
        layer: which layer, from 0; ``None`` = the last.
    """

    name = "trained"

    def __init__(self, *, layer: int | None = None) -> None:
        self.layer = TRAINED.num_layers - 1
        if layer is not None:
            self.layer = check_int("layer", layer, minimum=0)
        if self.layer >= TRAINED.num_layers:
            raise ValueError(f"layer: expected at most {TRAINED.num_layers - 1}, got {layer}")

    def check(self, case: Case) -> None:
        """Check that the case has the heads of the model and one sequence."""
        accepted = {
            "batch": 1, "num_heads": TRAINED.num_heads, "num_kv_heads": TRAINED.num_heads,
            "head_dim": TRAINED.head_dim,
        }  # fmt: skip
        for name, value in accepted.items():
            if (given := getattr(case, name)) != value:
                raise ValueError(f"inputs: trained has {name} {value}, got {given}")

    def unsupported_reasons(self, case: Case) -> list[str]:
        """Say that the model's text is not as long."""
        if case.seq_len <= TRAINED.seq_len:
            return []
        return [
            f"seq_len: inputs trained are those of a text of {TRAINED.seq_len} tokens; "
            f"got {case.seq_len}"
        ]


ALL: Mapping[str, type[Distribution]] = {**DRAWN, Trained.name: Trained}
"""What a case's ``inputs`` may name."""


def distribution_of(case: Case) -> Distribution:
    """Read and check the distribution of a case of kind error.

    Raises:
        ValueError: if there is none of that name, or it does not fit the case.
        TypeError: if it has no such option.
    """
    distribution = build_distribution(case.inputs, ALL)
    distribution.check(case)
    return distribution


def draw_qkv(case: Case, store: Path | None = None) -> QKV:
    """Draw the q, k and v of a case of kind error, under its seed; on the CPU.

    Args:
        case: of kind error.
        store: the folder where trained tensors are kept; ``None`` = they are not.
    """
    distribution = distribution_of(case)
    if isinstance(distribution, Drawn):
        return distribution.draw(case, torch.Generator().manual_seed(case.seed))
    assert isinstance(distribution, Trained)
    q, k, v = (x[distribution.layer, :, : case.seq_len] for x in trained_tensors(case, store))
    return q[None].float(), k[None].float(), v[None].float()


def spec_of(case: Case) -> TrainedSpec:
    """Return which model a case's inputs are of: its causality and its seed."""
    return TrainedSpec(**asdict(TRAINED), is_causal=case.is_causal, seed=case.seed)


def told_of(case: Case) -> dict[str, Any] | None:
    """Say what the model of a case's inputs has learnt; ``None`` if they are of no model.

    Returns:
        ``task``, ``training``, ``batch`` and ``model`` as of kind task, and the text's ``facts``.
    """
    if not isinstance(distribution_of(case), Trained):
        return None
    learnt = training_case(spec_of(case))
    return {
        "task": learnt.task, "training": learnt.training, "batch": learnt.batch,
        "model": learnt.model, "facts": prepare(learnt, {}, light=True).task.facts,
    }  # fmt: skip


def trained_tensors(case: Case, store: Path | None, *, make: Make | None = None) -> QKV:
    """Return what a trained model had in its layers: q, k and v ``[L, H, N, D]``.

    Args:
        case: gives causality and seed of the model.
        store: where they are read if they are there, and kept if they are not.
        make: trains; ``None`` = `train`, which keeps its checkpoints in `store` too.

    Raises:
        ValueError: if the tensors are not of the shape that is asked for.
        OSError: if they cannot be kept.
    """
    spec = spec_of(case)
    if store is None:
        return _checked(make(spec) if make else train(spec), spec, "the trainer")
    file = store / f"trained-{content_id(asdict(spec))}.pt"
    signed = signature(prepare(training_case(spec), {}, light=True))
    if held := checkpoint.read(file, signature=signed):
        return _checked((held["q"], held["k"], held["v"]), spec, file.name)
    made = _checked(make(spec) if make else train(spec, store), spec, "the trainer")
    named = zip("qkv", (x.detach().cpu() for x in made), strict=True)
    checkpoint.keep(file, dict(named), signature=signed)
    return made


def _checked(tensors: tuple[Tensor, Tensor, Tensor], spec: TrainedSpec, source: str) -> QKV:
    for name, x in zip("qkv", tensors, strict=True):
        if tuple(x.shape) != spec.shape:
            raise ValueError(
                f"inputs: {source} has {name} of shape {tuple(x.shape)}, expected {spec.shape}"
            )
    q, k, v = (x.detach() for x in tensors)
    return q, k, v
