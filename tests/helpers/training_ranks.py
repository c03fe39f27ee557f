"""A rank of `test_distributed`: train each case for two steps over two ranks; write what came out.

python training_ranks.py RANK RANKS FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models import TransformerModel, named_config

RANKS, STEPS, ROWS, LENGTH = 2, 2, 2, 12
OPTIONS: dict[str, dict[str, Any]] = {
    "longformer": {"window": 3}, "linformer": {"rank": 4}, "lstm": {},
}  # fmt: skip
CASES = [
    ("ddp", "lstm", False),
    ("ddp", "longformer", True),
    ("fsdp", "longformer", False),
    ("fsdp", "linformer", False),
]
"""How it is spread, the backend, and whether the first rank, and it alone, has global tokens."""


def build(name: str) -> TransformerModel:
    """Build the same model in every process."""
    torch.manual_seed(0)
    config = named_config("bert-base").scaled(
        num_layers=2, d_model=16, num_heads=2, d_ff=32, vocab_size=50, max_len=LENGTH,
        dropout_p=0.0, attention_dropout_p=0.0,
    )  # fmt: skip
    return TransformerModel(config, attention=name, attention_options=OPTIONS[name]).double()


def batch(rank: int, step: int, globals_there: bool) -> tuple[Tensor, Tensor]:
    """Return ids and global tokens of a rank."""
    ids = torch.randint(
        0, 50, (ROWS, LENGTH), generator=torch.Generator().manual_seed(RANKS * step + rank)
    )
    marked = torch.zeros_like(ids, dtype=torch.bool)
    marked[:, 0] = globals_there and rank == 0
    return ids, marked


def train(
    model: nn.Module, step_inputs: Callable[[int], tuple[Tensor, dict[str, Tensor]]]
) -> None:
    """Take the steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(STEPS):
        ids, more = step_inputs(step)
        optimizer.zero_grad()
        model(ids, **more).square().mean().backward()
        optimizer.step()


def alone(name: str, globals_there: bool) -> dict[str, Tensor]:
    """Train on the batches of all ranks in one process; return the parameters."""
    model = build(name)

    def inputs(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        of_ranks = [batch(rank, step, globals_there) for rank in range(RANKS)]
        ids, marked = (torch.cat(parts) for parts in zip(*of_ranks, strict=True))
        return ids, {"global_mask": marked} if globals_there else {}

    train(model, inputs)
    return {key: value.detach() for key, value in model.named_parameters()}


def spread(how: str, name: str, globals_there: bool) -> dict[str, Tensor]:
    """Train as one of the ranks; return the parameters, whole."""
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    model = build(name)
    if how == "fsdp":
        for stack in model._stacks:
            for block in stack.blocks:
                fully_shard(block)
        fully_shard(model)

    def inputs(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        ids, marked = batch(dist.get_rank(), step, globals_there)
        return ids, {"global_mask": marked} if bool(marked.any()) else {}

    train(DistributedDataParallel(model) if how == "ddp" else model, inputs)
    whole = {key: getattr(x, "full_tensor", x.detach)() for key, x in model.named_parameters()}
    return {key: value.detach() for key, value in whole.items()}


def main() -> None:
    """Run all cases."""
    rank, folder = int(sys.argv[1]), Path(sys.argv[3])
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=RANKS
    )
    found = {case: spread(*case) for case in CASES}
    torch.save(found, folder / f"found-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
