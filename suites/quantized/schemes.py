"""What a trained model's weights are kept in: float32, bfloat16, and integers by torchao.

Quantised are the weights of the blocks' linear layers; the embeddings, the logits, norms, biases
and what a backend learns by itself stay numbers of the products' dtype. Weight-only: products are
of floating-point activations.

int8: a scale for each row of a weight ``[out, in]``, symmetric. torchao's eager kernel turns the
whole weight into the dtype of the activations at each call, then multiplies: it saves bytes that
rest, no work. int4: 16 levels between the least and the greatest number of a group along the row,
which torch's packed kernels multiply as they are. On a GPU those take bfloat16 activations alone,
and on CPUs no others at speed: int4's products are bfloat16.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from attention.checks import check_choice
from models import TransformerModel
from suites.quantized.suite import WEIGHTS

GROUPS = (128, 64, 32)
"""Weights that share a scale and a zero in int4, the most first: torchao's own default is 128."""

CPU_ROWS = 16
"""torch's packed int4 product on a CPU takes weights of a multiple of so many rows."""

CUDA_CAPABILITY = (8, 0)
"""The least that torch's packed int4 product asks of a GPU."""

CPU_INT4 = (
    ("torchao.prototype.quantization.int4", "PrototypeInt4WeightOnlyConfig"),  # 0.18
    ("torchao.prototype.quantization.int4", "Int4WeightOnlyOpaqueTensorConfig"),  # 0.17
    ("torchao.prototype.int4_opaque_tensor", "Int4WeightOnlyOpaqueTensorConfig"),  # 0.15, 0.16
)
"""Where releases of torchao have int4 for CPUs, by module and name."""


@dataclass(frozen=True)
class Scheme:
    """A way to keep weights.

    Attributes:
        products: the dtype that activations and all other parameters have.
        tensor: class of a linear layer's weight after it; "" = torch's own.
        operator: of torch, that multiplies by it.
    """

    products: torch.dtype
    tensor: str = ""
    operator: str = "aten.linear"


_SCHEMES: Mapping[tuple[str, str], Scheme] = {
    **{(name, device): Scheme(getattr(torch, name))
       for name in ("float32", "bfloat16") for device in ("cpu", "cuda")},
    ("int8", "cpu"): Scheme(torch.float32, "Int8Tensor", "aten.mm"),
    ("int8", "cuda"): Scheme(torch.float32, "Int8Tensor", "aten.mm"),
    ("int4", "cpu"): Scheme(
        torch.bfloat16, "Int4OpaqueTensor", "aten._weight_int4pack_mm_for_cpu"
    ),
    ("int4", "cuda"): Scheme(
        torch.bfloat16, "Int4TilePackedTo4dTensor", "aten._weight_int4pack_mm"
    ),
}  # fmt: skip
"""By weights and device."""


def scheme_of(weights: str, device: str) -> Scheme:
    """Return a scheme.

    Raises:
        ValueError: if there is none of that name.
    """
    return _SCHEMES[check_choice("weights", weights, WEIGHTS), device]


def unsupported_reasons(weights: str, model: TransformerModel, device: str) -> list[str]:
    """Say why a model's weights cannot be kept so on a device; empty = they can.

    Raises:
        ValueError: if there is no such scheme.
        ImportError: if torchao is there and cannot be imported.
    """
    scheme = scheme_of(weights, device)
    if device == "cuda" and not torch.cuda.is_available():
        return ["device: torch sees no CUDA device here"]
    if not scheme.tensor:
        return []
    if torchao_version() is None:
        return [f"weights: {weights} needs torchao, which is not installed: pip install torchao"]
    shapes = {name: layer.weight.shape for name, layer in linears(model)}
    return _int4_reasons(shapes, device) if weights == "int4" else []


def _int4_reasons(shapes: Mapping[str, Sequence[int]], device: str) -> list[str]:
    reasons = []
    if not _group_size(width for _, width in shapes.values()):
        odd = next(name for name, (_, width) in shapes.items() if width % GROUPS[-1])
        reasons.append(
            f"weights: int4 has a scale for {', '.join(map(str, GROUPS[:-1]))} or {GROUPS[-1]} "
            f"weights of a row; {odd} has rows of {shapes[odd][1]}"
        )
    if device == "cpu":
        if _cpu_int4() is None:
            reasons.append(f"weights: torchao {torchao_version()} has no int4 for CPUs")
        odd_rows = [name for name, (rows, _) in shapes.items() if rows % CPU_ROWS]
        if odd_rows:
            reasons.append(
                f"weights: torch's int4 product on a CPU takes multiples of {CPU_ROWS} rows; "
                f"{odd_rows[0]} has {shapes[odd_rows[0]][0]}"
            )
    elif (here := torch.cuda.get_device_capability()) < CUDA_CAPABILITY:
        reasons.append(
            f"weights: torch's int4 product needs compute capability "
            f"{'.'.join(map(str, CUDA_CAPABILITY))}; this device has {'.'.join(map(str, here))}"
        )
    return reasons


def _group_size(widths: Iterable[int]) -> int | None:
    """Return the largest group that divides every row; ``None`` = none does."""
    every = list(widths)
    return next((size for size in GROUPS if all(w % size == 0 for w in every)), None)


def torchao_version() -> str | None:
    """Import torchao and return its version; ``None`` = it is not installed.

    Raises:
        ImportError: if it is there and cannot be imported.
    """
    try:
        return str(importlib.import_module("torchao").__version__)
    except ModuleNotFoundError as error:
        if error.name != "torchao":
            raise
        return None


def _cpu_int4() -> Any:
    """Return torchao's configuration of int4 for CPUs; ``None`` = this release has none."""
    for module, name in CPU_INT4:
        try:
            configuration = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError as error:
            if not module.startswith(error.name or "?"):
                raise
            continue
        if configuration is not None:
            return configuration
    return None


def linears(model: TransformerModel) -> Iterator[tuple[str, nn.Linear]]:
    """Walk the linear layers of the blocks, with their names: not that of the logits."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.startswith(("encoder.", "decoder.")):
            yield name, module


def keep(weights: str, model: TransformerModel, device: str) -> Scheme:
    """Turn a model's weights into those of a scheme, in place.

    Args:
        weights: the scheme; one that `unsupported_reasons` has nothing against.
        model: in float32, on the device.
        device: ``cpu`` or ``cuda``.

    Raises:
        RuntimeError: if a layer did not become what it should be.
    """
    scheme = scheme_of(weights, device)
    model.to(scheme.products)
    if scheme.tensor:
        from torchao.quantization import quantize_

        chosen = {name for name, _ in linears(model)}
        group = _group_size(layer.in_features for _, layer in linears(model))
        quantize_(model, _config(weights, device, group), lambda _module, name: name in chosen)
    expected = scheme.tensor or "Parameter"
    for name, layer in linears(model):
        if (held := type(layer.weight).__name__) != expected:
            raise RuntimeError(f"{name}: its weight in {weights} is a {held}, not a {expected}")
    return scheme


def _config(weights: str, device: str, group_size: int | None) -> Any:
    """Return torchao's configuration of a scheme.

    Its settings for torch's compiler are left alone: they would also lower the precision of every
    float32 product.
    """
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    if weights == "int8":
        return Int8WeightOnlyConfig(version=2, set_inductor_config=False)
    if device == "cpu":
        return _cpu_int4()(group_size=group_size, set_inductor_config=False)
    return Int4WeightOnlyConfig(
        group_size=group_size,
        int4_packing_format="tile_packed_to_4d",
        set_inductor_config=False,
        version=2,
    )


def kernel_of(scheme: Scheme, model: TransformerModel, ids: Sequence[Tensor]) -> str:
    """Call a model on ids and name what multiplied by the blocks' weights.

    Raises:
        RuntimeError: if it was not the scheme's operator in every layer that was called.
    """
    calls = 0

    def count(*_call: object) -> None:
        nonlocal calls
        calls += 1

    handles = [layer.register_forward_hook(count) for _, layer in linears(model)]
    try:
        with torch.inference_mode(), _Operators() as seen:
            model(*ids)
    finally:
        for handle in handles:
            handle.remove()
    if not 0 < calls <= (ran := seen.counts[scheme.operator]):
        raise RuntimeError(
            f"weights: {scheme.operator} ran {ran} times in {calls} calls of linear layers"
        )
    dtype = str(scheme.products).removeprefix("torch.")
    if not scheme.tensor:
        return f"{scheme.operator} {dtype}"
    weight: Any = next(layer.weight for _, layer in linears(model))
    is_cast = scheme.operator == "aten.mm"
    grouped = ", cast at each call" if is_cast else f", groups of {weight.block_size[-1]}"
    return f"{scheme.operator} {dtype} of {scheme.tensor}{grouped} (torchao {torchao_version()})"


class _Operators(TorchDispatchMode):
    """Counts the operators that run within it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of memory behind tensors, packed ones by their parts; shared ones once."""
    storages = {}
    for tensor in tensors:
        for part in _parts(tensor):
            storage = part.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from _parts(getattr(tensor, name))
