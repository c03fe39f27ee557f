"""What a layer of each backend composes with: the probes behind the table of docs/import.md.

python composes.py RANK RANKS FOLDER        the columns of `DISTRIBUTED`, on one rank
"""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attention import UnsupportedError
from models import MultiheadAttention

BACKENDS = ("full", "sdpa", "longformer", "bigbird", "linformer", "performer")
WIDTH, TOKENS = 16, 12
OPTIONS = {
    "longformer": {"window": 2},
    "bigbird": {"block_size": 2, "num_random_blocks": 1},
    "linformer": {"seq_len": TOKENS, "rank": 4},
    "performer": {"num_features": 8, "seed": 0},
}


def layer_of(backend: str) -> MultiheadAttention:
    """Make the layer under test, always the same."""
    torch.manual_seed(0)
    return MultiheadAttention(
        d_model=WIDTH, num_heads=2, attention=backend, attention_options=OPTIONS.get(backend, {})
    )


def tokens(batch: int = 2) -> Tensor:
    """Draw the layer's input, ``[batch, TOKENS, WIDTH]``."""
    return torch.randn(batch, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def _is_near(actual: Tensor, expected: Tensor) -> bool:
    return torch.allclose(actual, expected, rtol=1e-4, atol=1e-5)


def _gradients(layer: torch.nn.Module, out: Tensor) -> dict[str, Tensor]:
    layer.zero_grad()
    out.square().sum().backward()
    return {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}


def _same_gradients(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(_is_near(one[n], other[n]) for n in one)


def compiles(backend: str) -> str:
    """Compile the layer as one graph; where that is refused, with breaks."""
    layer, x = layer_of(backend), tokens()
    expected = _gradients(layer, layer(x))
    for answer, whole in (("one graph", True), ("with graph breaks", False)):
        torch._dynamo.reset()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=whole)
        try:
            out = compiled(x)
        except torch._dynamo.exc.Unsupported:
            continue
        same = _same_gradients(_gradients(layer, out), expected)
        return answer if same and _is_near(out, layer(x)) else "wrong"
    return "no"


def exports(backend: str) -> str:
    """Export the layer for any batch and length, and call it at others."""
    layer = layer_of(backend).eval()
    shapes = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    try:
        program = torch.export.export(layer, (tokens(),), dynamic_shapes=shapes)
    except UnsupportedError:
        return "refused"
    x = tokens(3)[:, : TOKENS - 1]
    return "yes" if _is_near(program.module()(x), layer(x)) else "wrong"


def traces(backend: str) -> str:
    """Trace the layer by torch.jit."""
    layer, x = layer_of(backend).eval(), tokens()
    try:
        traced = torch.jit.trace(layer, x)
    except UnsupportedError:
        return "refused"
    return "yes" if _is_near(traced(x + 1), layer(x + 1)) else "wrong"


def takes_functions(backend: str) -> str:
    """Take a gradient an example by torch.func, with parameters that are given."""
    layer, x = layer_of(backend), tokens()
    given = {name: p.detach() for name, p in layer.named_parameters()}
    buffers = dict(layer.named_buffers())

    def loss(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        called = torch.func.functional_call(layer, {**parameters, **buffers}, (one[None],))
        return called.square().sum()

    each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(given, x)
    for row, one in enumerate(x):
        expected = _gradients(layer, layer(one[None]))
        if not all(_is_near(each[name][row], g) for name, g in expected.items()):
            return "wrong"
    return "yes"


def differentiates_twice(backend: str) -> str:
    """Penalise the gradient of the input, against differences of it."""
    layer, x = layer_of(backend).double(), tokens().double().requires_grad_()

    def penalty(y: Tensor, graph: bool) -> Tensor:
        (grad,) = torch.autograd.grad(layer(y).square().sum(), y, create_graph=graph)
        return grad.square().sum()

    try:
        (ours,) = torch.autograd.grad(penalty(x, True), x)
    except RuntimeError as error:
        return "refused" if "not implemented" in str(error) else "wrong"
    along = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    step = 1e-5
    ahead, behind = (_at(penalty, x, s * along) for s in (step, -step))
    slope = (ahead - behind) / (2 * step)
    return "yes" if torch.allclose((ours * along).sum(), slope, rtol=1e-5) else "wrong"


def _at(function: Callable[[Tensor, bool], Tensor], x: Tensor, step: Tensor) -> Tensor:
    return function((x.detach() + step).requires_grad_(), False)


def checkpoints(backend: str) -> str:
    """Compute the forward pass anew in the backward pass."""
    layer, x = layer_of(backend), tokens()
    expected = _gradients(layer, layer(x))
    again = _gradients(layer, checkpoint(layer, x, use_reentrant=False))
    return "yes" if _same_gradients(again, expected) else "wrong"


def autocasts(backend: str) -> str:
    """Train under autocast: bfloat16 out, float32 gradients near those of float32."""
    layer, x = layer_of(backend), tokens()
    expected = _gradients(layer, layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    found = _gradients(layer, out.float())
    ours, right = (torch.cat([g[n].flatten() for n in expected]) for g in (found, expected))
    near = (ours - right).norm() < 0.05 * right.norm()
    return "yes" if out.dtype == torch.bfloat16 and near else "wrong"


def is_made_on_meta(backend: str) -> str:
    """Make the layer on meta, ask it for shapes, then fill it as FSDP does."""
    with torch.device("meta"):
        layer = layer_of(backend)
    if layer(tokens().to("meta")).shape != tokens().shape:
        return "wrong"
    layer.to_empty(device="cpu")
    torch.manual_seed(0)
    for module in layer.modules():
        if [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            module.reset_parameters()
    layer.load_state_dict(layer_of(backend).state_dict())
    x = tokens()
    return "yes" if _is_near(layer(x), layer_of(backend)(x)) else "wrong"


def copies(backend: str) -> str:
    """Copy the layer by deepcopy, by pickle, and by its state dict."""
    layer, x = layer_of(backend), tokens()
    torch.manual_seed(1)
    options = {k: v for k, v in OPTIONS.get(backend, {}).items() if k != "seed"}
    loaded = MultiheadAttention(
        d_model=WIDTH, num_heads=2, attention=backend, attention_options=options
    )
    loaded.load_state_dict(layer.state_dict())
    others = (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded)
    return "yes" if all(torch.equal(other(x), layer(x)) for other in others) else "wrong"


PROBES: dict[str, Callable[[str], str]] = {
    "torch.compile": compiles,
    "torch.export": exports,
    "jit.trace": traces,
    "torch.func": takes_functions,
    "second derivatives": differentiates_twice,
    "checkpointing": checkpoints,
    "autocast": autocasts,
    "meta": is_made_on_meta,
    "deepcopy, pickle, state dict": copies,
}
DISTRIBUTED = ("DDP", "FSDP")


def over_ranks(wrapper: str, backend: str, rank: int, ranks: int) -> str:
    """Train three steps on a part of the batch each: the parameters of one device."""
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    alone, layer = layer_of(backend), layer_of(backend)
    together = DistributedDataParallel(layer) if wrapper == "DDP" else fully_shard(layer)
    optimizers = [torch.optim.SGD(m.parameters(), lr=1e-2) for m in (alone, together)]
    x = tokens(2 * ranks)
    for _ in range(3):
        for module, part, optimizer in (
            (alone, x, optimizers[0]), (together, x[2 * rank : 2 * rank + 2], optimizers[1]),
        ):  # fmt: skip
            optimizer.zero_grad()
            module(part).square().mean().backward()
            optimizer.step()
    found = [p.full_tensor() if wrapper == "FSDP" else p for p in layer.parameters()]
    same = all(_is_near(a, b) for a, b in zip(found, alone.parameters(), strict=True))
    return "yes" if same else "wrong"


def main(rank: int, ranks: int, folder: Path) -> None:
    """Write what each backend answers on this rank."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=ranks
    )
    found = {
        f"{wrapper} {backend}": over_ranks(wrapper, backend, rank, ranks)
        for wrapper in DISTRIBUTED
        for backend in BACKENDS
    }
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
