"""A sliding window that is one: Mistral's layers over their band, beside transformers' own.

The model is built from a configuration, with random weights, once with transformers' ``sdpa``,
which masks N×N scores, and once with ``attnbench_sdpa``, which computes the band alone. Each is
measured in a process of its own. Needs the package transformers.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import MistralConfig, MistralModel

from attention.integrations.transformers import register
from suites.measure.memory import peak_memory

BACKENDS = ("sdpa", "attnbench_sdpa")


def build(implementation: str, window: int, length: int) -> MistralModel:
    """Build two layers of 512 channels, 8 heads and 2 of keys and values."""
    register()
    config = MistralConfig(
        vocab_size=1000,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        sliding_window=window,
        max_position_embeddings=length,
        use_cache=False,
    )
    torch.manual_seed(0)
    model: MistralModel = MistralModel._from_config(config, attn_implementation=implementation)
    return model.eval()


def ids(length: int) -> Tensor:
    """Draw one sequence."""
    return torch.randint(1000, (1, length), generator=torch.Generator().manual_seed(1))


def seconds(call: Callable[[], object], count: int = 3) -> float:
    """Time a call: the median of a few, after one."""
    call()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(implementation: str, window: int, length: int) -> None:
    """Print the time of the attention layers, of the model, and of a training step; memory."""
    model, tokens = build(implementation, window, length), ids(length)
    spent = [0.0]

    def start(*_: object) -> None:
        spent[0] -= time.perf_counter()

    def stop(*_: object) -> None:
        spent[0] += time.perf_counter()

    with torch.no_grad():
        whole = seconds(lambda: model(tokens))
        handles = []
        for layer in model.layers:
            handles.append(layer.self_attn.register_forward_pre_hook(start))
            handles.append(layer.self_attn.register_forward_hook(stop))
        model(tokens)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        peak = peak_memory(lambda: model(tokens), "cpu") / 2**20
    step = seconds(lambda: model(tokens).last_hidden_state.square().mean().backward(), 1)
    print(f"{implementation:<15} {spent[0]:9.2f} s {whole:9.2f} s {step:9.2f} s {peak:8.0f} MiB")


def main() -> None:
    """Compare the outputs, then measure each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--measure", choices=BACKENDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure, given.window, given.tokens)
        return
    tokens = ids(given.tokens)
    with torch.no_grad():
        outs = [build(b, given.window, given.tokens)(tokens).last_hidden_state for b in BACKENDS]
    print(f"{given.tokens} tokens, window {given.window}, 2 layers")
    print(f"largest difference of the outputs: {(outs[1] - outs[0]).abs().max():.1e}")
    print(f"{'':<15} {'attention':>11} {'model':>11} {'training':>11} {'memory':>12}", flush=True)
    for backend in BACKENDS:
        sizes = ["--tokens", str(given.tokens), "--window", str(given.window)]
        subprocess.run([sys.executable, __file__, *sizes, "--measure", backend], check=True)


if __name__ == "__main__":
    main()
