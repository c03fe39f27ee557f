"""A rank of `test_context_parallel`: hold every case against one device, and write what was found.

    python context_ranks.py RANK RANKS FOLDER

Each case runs on the first 1, 2, ... ranks, in float64, over spans that the case gives for each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

import attention
from attention.context_parallel import ContextParallel, split

H, D, N, B = 4, 8, 37, 2
RANKS = 4


class Ask(NamedTuple):
    """One case."""

    backend: str
    options: Mapping[str, Any] = MappingProxyType({})
    is_causal: bool = False
    masked: bool = False
    kv_heads: int = H
    globals_at: tuple[tuple[int, ...], ...] = ()
    projected: bool = False
    uneven: bool = False
    tokens: int = N


CASES: dict[str, Ask] = {}
for causal in (False, True):
    for masked in (False, True):
        end = ("-causal" if causal else "") + ("-masked" if masked else "")
        same: dict[str, Any] = {"is_causal": causal, "masked": masked}
        CASES |= {
            f"full{end}": Ask("full", **same),
            f"sdpa{end}": Ask("sdpa", kv_heads=2, uneven=True, **same),
            f"sdpa-equal{end}": Ask("sdpa", tokens=36, **same),
            f"performer{end}": Ask("performer", {"num_features": 16, "seed": 0}, **same),
            f"performer-relu{end}": Ask(
                "performer", {"num_features": 16, "features": "relu", "seed": 0}, kv_heads=2,
                uneven=True, **same,
            ),
            f"longformer{end}": Ask("longformer", {"window": 3}, **same),
            f"longformer-far{end}": Ask("longformer", {"window": 14}, uneven=True, **same),
            f"longformer-dilated{end}": Ask(
                "longformer", {"window": 3, "dilation": [1, 1, 2, 3]}, uneven=True, **same
            ),
            f"longformer-global{end}": Ask(
                "longformer", {"window": 3}, kv_heads=2, globals_at=((0, 20), (5, 19, 36)), **same
            ),
            f"longformer-global-dilated{end}": Ask(
                "longformer", {"window": 2, "dilation": 2}, globals_at=((0, 1, 30), ()),
                uneven=True, projected=True, **same,
            ),
        }  # fmt: skip
        if not causal:
            size = {"seq_len": 40, "rank": 6}
            CASES |= {
                f"linformer{end}": Ask("linformer", size, kv_heads=2, uneven=True, **same),
                f"linformer-heads{end}": Ask("linformer", {**size, "sharing": "none"}, **same),
                f"linformer-one{end}": Ask("linformer", {**size, "sharing": "key_value"}, **same),
                f"linformer-pool{end}": Ask("linformer", {**size, "method": "mean_pool"}, **same),
            }

for causal in (False, True):
    CASES[f"sdpa-equal-grouped{'-causal' if causal else ''}"] = Ask(
        "sdpa", {"scale": 0.2}, kv_heads=2, tokens=36, is_causal=causal
    )

UNEVEN = {1: (37,), 2: (30, 7), 3: (1, 30, 6), 4: (3, 20, 1, 13)}


def spans_of(ask: Ask, ranks: int) -> list[tuple[int, int]]:
    """Return the spans of a case's ranks."""
    lengths = (
        UNEVEN[ranks] if ask.uneven else [len(x) for x in torch.arange(ask.tokens).chunk(ranks)]
    )
    ends = torch.tensor(lengths).cumsum(0).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def compare(ask: Ask, ranks: int, rank: int, group: dist.ProcessGroup) -> dict[str, Any]:
    """Return the largest differences from one device, and the bytes counted and foretold."""
    torch.manual_seed(0)
    n = ask.tokens
    shapes = [(B, h, n, D) for h in (H, ask.kv_heads, ask.kv_heads)]
    tensors = [torch.randn(s, dtype=torch.float64) for s in shapes]
    projected = [torch.randn(s, dtype=torch.float64) for s in shapes] if ask.projected else []
    weight = torch.randn(B, H, n, D, dtype=torch.float64)
    options = {"num_heads": H, "head_dim": D, **ask.options}
    torch.manual_seed(1)
    module = attention.build(ask.backend, **options).double()
    inputs: dict[str, Tensor] = {}
    if ask.masked:
        inputs["key_padding_mask"] = torch.arange(n) < torch.tensor([[n], [23]])
        inputs["key_padding_mask"][0, 7:9] = False
    if ask.globals_at:
        mask = torch.zeros(B, n, dtype=torch.bool)
        for row, at in enumerate(ask.globals_at):
            mask[row, list(at)] = True
        inputs["global_mask"] = mask

    def run(call: Any, cut: slice) -> tuple[Tensor, list[Tensor]]:
        leaves = [x[:, :, cut].clone() for x in (*tensors, *projected)]
        if ask.masked and call is not module:  # over ranks as on one device it leaves no trace
            padding = ~inputs["key_padding_mask"][:, None, cut, None]
            for x in leaves[1:3] if module.supports.cross else leaves:
                x.masked_fill_(padding, float("nan"))
        leaves = [x.requires_grad_() for x in leaves]
        given: dict[str, Any] = {name: x[:, cut] for name, x in inputs.items()}
        if projected:
            given["global_qkv"] = tuple(leaves[3:])
        out = call(*leaves[:3], is_causal=ask.is_causal, **given)
        module.zero_grad()
        if ask.masked:  # at a padded query it is unspecified
            out = out * inputs["key_padding_mask"][:, None, cut, None]
        (out * weight[:, :, cut]).sum().backward()
        return out.detach(), [x.grad for x in leaves]

    whole, grads = run(module, slice(None))
    parameters = [p.grad.clone() for p in module.parameters()]
    cut = slice(*spans_of(ask, ranks)[rank])
    layer = ContextParallel(module, group)
    layer(*(x[:, :, cut] for x in tensors), is_causal=ask.is_causal,
          **{name: x[:, cut] for name, x in inputs.items()})  # fmt: skip
    received = layer.received
    out, own = run(layer, cut)
    found = {"out": away(out, whole, cut)}
    for name, mine, full in zip("qkvabc", own, grads, strict=False):
        found[f"grad_{name}"] = away(mine, full, cut)
    for index, (p, full) in enumerate(zip(module.parameters(), parameters, strict=True)):
        dist.all_reduce(p.grad, group=group)
        found[f"parameter_{index}"] = away(p.grad, full)
    problem = attention.Problem.of(
        tensors[0], tensors[1], is_causal=ask.is_causal, key_padding=ask.masked
    )
    foretold = module.exchange_bytes(problem, spans_of(ask, ranks), rank)
    return {
        "away": found, "received": received, "foretold": foretold, "kernel": module.kernel,
        "both_passes": layer.received,
    }  # fmt: skip


def away(mine: Tensor, full: Tensor, cut: slice | None = None) -> float:
    """Return the largest difference from the tokens `cut`, relative to the largest value."""
    part = full if cut is None else full[:, :, cut]
    return float((mine - part).abs().max() / full.abs().max())


def disagree(group: dist.ProcessGroup, rank: int) -> list[str]:
    """Return what is said where the ranks call differently."""
    x = torch.randn(1, H, 3, D)
    layer = ContextParallel(attention.build("sdpa", num_heads=H, head_dim=D), group)
    said = []
    for given in (
        {"is_causal": rank == 0},
        {"key_padding_mask": None if rank else x[:, 0, :, 0] > 9},
    ):
        try:
            layer(x, x, x, **given)
        except ValueError as error:
            said.append(str(error))
    return said


def one_apart(group: dist.ProcessGroup, rank: int) -> list[str]:
    """Return what is said where one rank alone calls otherwise; the others could wait for it."""
    x = torch.randn(1, H, 3, D)
    sdpa = attention.build("sdpa", num_heads=H, head_dim=D)
    window = attention.build("longformer", num_heads=H, head_dim=D, window=3 + rank)
    wrong = torch.ones(1, 2 if rank == 2 else 3, dtype=torch.bool)
    asked: list[tuple[Any, Any, dict[str, Any]]] = [
        (sdpa, x, {"key_padding_mask": wrong}),
        (sdpa, x.clone().requires_grad_(rank == 1), {}),
        (sdpa, x.double() if rank == 3 else x, {}),
        (window, x, {}),
    ]
    said = []
    for module, given, more in asked:
        try:
            ContextParallel(module, group)(given, given, given, **more)
        except ValueError as error:
            said.append(str(error))
    return said


def dropped(group: dist.ProcessGroup) -> list[float]:
    """Return where the ranks dropped weights: the same tokens on each, one a rank."""
    torch.manual_seed(0)
    module = attention.build("sdpa", num_heads=H, head_dim=D, dropout_p=0.5)
    x = torch.ones(1, H, 8, D)
    out: list[float] = ContextParallel(module, group)(x, x, x)[0, :, :, 0].flatten().tolist()
    return out


def unequal(group: dist.ProcessGroup, rank: int) -> str:
    """Return what is said where the ranks drew different features."""
    x = torch.randn(1, H, 3, D)
    module = attention.build("performer", num_heads=H, head_dim=D, seed=min(rank, 1))
    try:
        ContextParallel(module, group)(x, x, x)
    except ValueError as error:
        return str(error)
    return ""


def half(group: dist.ProcessGroup, name: str, **options: Any) -> float:
    """Return how far bfloat16 over ranks is from bfloat16 on one device."""
    torch.manual_seed(0)
    x = (torch.randn(3, 1, H, 64, D) + 1.0).bfloat16()
    module = attention.build(name, num_heads=H, head_dim=D, **options)
    whole = module(*x)
    out = ContextParallel(module, group)(*(split(t, group=group) for t in x))
    return float((out - split(whole, group=group)).abs().max())


def twice(group: dist.ProcessGroup, name: str, **options: Any) -> str:
    """Return what is said where a second derivative is asked for."""
    q, k, v = (torch.randn(1, H, 3, D, requires_grad=True) for _ in range(3))
    out = ContextParallel(attention.build(name, num_heads=H, head_dim=D, **options), group)(
        q, k, v
    )
    try:
        grads = torch.autograd.grad(out.sum(), (q, k, v), create_graph=True)
        torch.autograd.grad(sum(x.square().sum() for x in grads), k)
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


def main(rank: int, ranks: int, folder: Path) -> None:
    """Run every case on every number of ranks."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=ranks
    )
    found: dict[str, Any] = {}
    groups = [dist.new_group(list(range(count))) for count in range(1, ranks + 1)]
    for count, group in enumerate(groups, start=1):
        if rank >= count:
            continue
        for name, ask in CASES.items():
            found[f"{name}-{count}"] = compare(ask, count, rank, group)
    found["one_apart"] = one_apart(groups[-1], rank)
    found["unequal"] = unequal(groups[-1], rank)
    found["disagree"] = disagree(groups[-1], rank)
    pooled = {"seq_len": 64, "rank": 2, "method": "mean_pool"}
    found["half"] = [half(groups[-1], "sdpa"), half(groups[-1], "performer", seed=0),
                     half(groups[-1], "longformer", window=8),
                     half(groups[-1], "linformer", **pooled)]  # fmt: skip
    found["dropped"] = dropped(groups[-1])
    found["twice"] = [twice(groups[-1], "sdpa"), twice(groups[-1], "full"),
                      twice(groups[-1], "performer", seed=0)]  # fmt: skip
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
