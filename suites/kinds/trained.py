"""Queries, keys and values of a model trained here: ``inputs`` of the name ``trained``.

They are those of one text, of every layer, kept in a file of their own beside the records: the
first case that needs them has the model trained, the others read the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from attention.base import UnsupportedError
from attention.checks import check_int
from results.schema import Case, content_id
from suites.error_rows import TRAINED
from suites.kinds.inputs import DRAWN, QKV, Distribution, Drawn, build_distribution


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


def train(spec: TrainedSpec) -> QKV:
    """Train the model of `spec`.

    Raises:
        UnsupportedError: always: no trainer is connected.
    """
    raise UnsupportedError(
        f"inputs: trained: nothing trains a model of {spec.num_layers} layers here"
    )


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


def trained_tensors(case: Case, store: Path | None, *, make: Make | None = None) -> QKV:
    """Return what a trained model had in its layers: q, k and v ``[L, H, N, D]``.

    Args:
        case: gives causality and seed of the model.
        store: where they are read if they are there, and kept if they are not.
        make: trains; ``None`` = `train`.

    Raises:
        UnsupportedError: if nothing can train the model.
        ValueError: if the tensors are not of the shape that is asked for.
    """
    spec = TrainedSpec(**asdict(TRAINED), is_causal=case.is_causal, seed=case.seed)
    file = None if store is None else store / f"trained-{content_id(asdict(spec))}.pt"
    if file is not None and file.is_file():
        held = torch.load(file, weights_only=True)
        return _checked((held["q"], held["k"], held["v"]), spec, str(file))
    made = _checked((make or train)(spec), spec, "the trainer")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}.part")  # a killed case leaves no half file
        torch.save(dict(zip("qkv", (x.detach().cpu() for x in made), strict=True)), unfinished)
        unfinished.replace(file)
    return made


def _checked(tensors: tuple[Tensor, Tensor, Tensor], spec: TrainedSpec, source: str) -> QKV:
    for name, x in zip("qkv", tensors, strict=True):
        if tuple(x.shape) != spec.shape:
            raise ValueError(
                f"inputs: {source} has {name} of shape {tuple(x.shape)}, expected {spec.shape}"
            )
    q, k, v = (x.detach() for x in tensors)
    return q, k, v
