"""One sequence over several processes: each holds a part of the tokens, and its output.

    torchrun --nproc-per-node 4 examples/context_parallel.py --backend performer

Without torchrun it is one process. On a machine with GPUs each takes one (NCCL), else they share
the cores (gloo). What the processes exchange is printed beside the formula of the backend.
"""

import argparse
import os

import torch
import torch.distributed as dist

import attention
from attention.context_parallel import ContextParallel, split


def main() -> None:
    """Run a training step over a sequence that no process holds whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="longformer")
    parser.add_argument("--seq-len", type=int, default=2048, help="of the whole sequence")
    given = parser.parse_args()

    if torch.cuda.is_available():
        device, engine = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))), "nccl"
        torch.cuda.set_device(device)
    else:
        device, engine = torch.device("cpu"), "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(engine)
    else:  # not started by torchrun: one process alone
        dist.init_process_group(engine, store=dist.HashStore(), rank=0, world_size=1)

    torch.manual_seed(0)  # equal inputs and equal parameters everywhere
    options = {"seq_len": given.seq_len} if given.backend == "linformer" else {}
    module = attention.build(given.backend, num_heads=8, head_dim=64, **options).to(device)
    layer = ContextParallel(module)

    whole = torch.randn(3, 1, 8, given.seq_len, 64, device=device)
    q, k, v = (split(x).requires_grad_() for x in whole)
    out = layer(q, k, v)
    forward = layer.received
    out.square().mean().backward()

    with torch.no_grad():
        away = (out - split(module(*whole))).abs().max()
    rank, size = dist.get_rank(), dist.get_world_size()
    print(
        f"rank {rank} of {size}: {q.shape[2]} of {given.seq_len} tokens, received "
        f"{forward:,} B forward and {layer.received - forward:,} B backward; "
        f"at most {away:.1e} from one device",
        flush=True,
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
