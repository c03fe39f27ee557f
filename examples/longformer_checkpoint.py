"""Put our attention into transformers' own Longformer, and show what changes: time and memory.

The model is built from a configuration, with random weights: a checkpoint's would do the same,
``LongformerModel.from_pretrained(…)``. Needs the package transformers.
"""

import argparse
import subprocess
import sys
import time

import torch
from torch import Tensor
from transformers import LongformerConfig, LongformerModel

from attention.integrations.transformers import swap
from suites.measure.memory import peak_memory


def build(layers: int, length: int) -> LongformerModel:
    """Build a model of BERT-base's width, window 512, on which the seed alone has influence."""
    config = LongformerConfig(
        num_hidden_layers=layers,
        attention_window=512,
        max_position_embeddings=length + 2,
        sep_token_id=2,
    )
    torch.manual_seed(0)
    return LongformerModel(config).eval()


def call(model: LongformerModel, length: int) -> Tensor:
    """Encode one document whose first token is global: ``[1, N, 768]``."""
    ids = torch.randint(3, 30000, (1, length), generator=torch.Generator().manual_seed(1))
    is_global = torch.zeros_like(ids)
    is_global[:, 0] = 1
    with torch.no_grad():
        out: Tensor = model(ids, global_attention_mask=is_global).last_hidden_state
    return out


def measure(layers: int, length: int, swapped: bool) -> None:
    """Print median seconds of three calls, and the memory that a call adds at its peak."""
    model = build(layers, length)
    if swapped:
        swap(model)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call(model, length)
        times.append(time.perf_counter() - start)
    peak = peak_memory(lambda: call(model, length), "cpu") / 2**20
    print(f"{'swapped' if swapped else 'as it is':<9} {sorted(times)[1]:7.2f} s {peak:8.0f} MiB")


def main() -> None:
    """Compare the outputs, then measure each model in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--measure", choices=["theirs", "ours"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.layers, given.tokens, given.measure == "ours")
        return
    model = build(given.layers, given.tokens)
    before = call(model, given.tokens)
    after = call(swap(model), given.tokens)
    print(f"{given.layers} layers, {given.tokens} tokens, window 512, one global token")
    print(f"largest difference of the outputs: {(after - before).abs().max():.1e}")
    print(f"{'':<9} {'time':>9} {'memory':>12}")
    sys.stdout.flush()
    for who in ("theirs", "ours"):
        sizes = ["--layers", str(given.layers), "--tokens", str(given.tokens)]
        subprocess.run([sys.executable, __file__, *sizes, "--measure", who], check=True)


if __name__ == "__main__":
    main()
