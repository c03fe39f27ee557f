"""The backends of a transformers model as parts of its attention layers.

A layer that dispatches its attention gets a submodule ``attnbench`` that holds its backend, so
that what the backend holds (random features, projections) is copied, saved, loaded, moved and
trained with the model. Models that are made after `register` get theirs while they are made, by
torch's own hook for the registration of modules; the others by `prepare` or `choose`.

Layers differ: a backend that draws takes its seed plus the number of its layer among the attention
layers of the model, in the order of its modules. Nothing is drawn from torch's global generators.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from attention import registry
from attention.backends.longformer import LongformerAttention
from attention.base import Attention

PREFIX = "attnbench_"
"""Of the names that transformers knows the backends by."""

CHOSEN = PREFIX + "chosen"
"""The implementation of a model whose layers have what `choose` gave them."""

NAME = "attnbench"
"""Of the submodule of a layer."""

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "num_head")
_DIMS = ("head_dim", "attention_head_size", "head_size")
"""What attention layers call their heads and the size of one."""

options: dict[str, dict[str, Any]] = {}
"""What `register` was given, by backend."""


class Held(nn.Module):
    """The backend of one attention layer.

    Args:
        name: of the backend.
        given: its options, but for those that the model decides.
        num_heads: H.
        head_dim: D.
        number: of the layer in its model.
        like: a parameter of the layer: of the device and dtype that are wanted.
    """

    own: Attention

    def __init__(
        self,
        name: str,
        given: Mapping[str, Any],
        *,
        num_heads: int,
        head_dim: int,
        number: int,
        like: Tensor | None,
    ) -> None:
        super().__init__()
        self.name, self.given = name, dict(given)
        self.num_heads, self.head_dim = num_heads, head_dim
        self.text = text_of(given)
        self.number = number
        self.band: LongformerAttention | None = None
        self._build(like)

    def _build(self, like: Tensor | None) -> None:
        given = dict(self.given)
        if "seed" in registry.get(self.name).options():
            given["seed"] = (given.get("seed") or 0) + self.number
        on_meta = like is not None and like.is_meta
        with torch.device("meta" if on_meta else "cpu"), _own_stream(self.number):
            own = registry.build(
                self.name, num_heads=self.num_heads, head_dim=self.head_dim, **given
            )
        self.own = own if like is None else own.to(like.device, like.dtype)
        self._unfilled = on_meta
        self._untouched: tuple[Any, ...] | None = self._versions()

    def _versions(self) -> tuple[Any, ...]:
        return tuple((id(x), x._version) for x in self.tensors())

    def tensors(self) -> list[Tensor]:
        """Return what the backend holds."""
        return [*self.own.parameters(), *self.own.buffers()]

    @property
    def is_drawn(self) -> bool:
        """Whether layers differ in it: it holds tensors, or its pattern has a seed."""
        return bool(self.tensors()) or "seed" in self.own.options()

    def count_as(self, number: int) -> None:
        """Take a number, and draw by it; not once it was called, loaded or moved."""
        if number == self.number or self._versions() != self._untouched:
            return
        self.number = number
        if self.is_drawn:
            self._build(next(iter(self.tensors()), None))

    def in_use(self) -> Attention:
        """Return the backend, for a call."""
        if self._untouched is not None and not torch.compiler.is_compiling():
            self._untouched = None
        return self.own

    @property
    def _is_hf_initialized(self) -> bool:
        """Whether transformers has filled it; it asks this of every module, and sets it."""
        return not self._unfilled

    @_is_hf_initialized.setter
    def _is_hf_initialized(self, _value: bool) -> None:
        """Draw what a checkpoint did not hold: transformers leaves that as it finds memory."""
        held = {**dict(self.own.named_parameters()), **dict(self.own.named_buffers())}
        if not self._unfilled or any(x.is_meta for x in held.values()):
            return
        self._unfilled = False
        missing = [n for n, x in held.items() if not getattr(x, "_is_hf_initialized", False)]
        if missing:
            _warn_of_missing(self, missing)
            with _own_stream(self.number):
                for part in self.own.modules():
                    fill: Any = getattr(part, "reset_parameters", None)
                    if fill is not None:
                        fill()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load; a checkpoint without any of this, from before or of another model, leaves it."""
        own = self.own.state_dict(prefix=f"{prefix}own.")
        if own and not any(name.startswith(prefix) for name in state_dict):
            _warn_of_missing(self, [name.removeprefix(f"{prefix}own.") for name in own])
            state_dict.update(own)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """Show the number."""
        return f"number={self.number}"


def _warn_of_missing(held: Held, names: list[str]) -> None:
    shown = ", ".join(n for n in names if n != "_extra_state")
    drawn = "by its seed and the number of each layer" if "seed" in held.own.options() else "anew"
    warnings.warn(
        f"{PREFIX}{held.name}: the checkpoint does not hold {shown}; drawn {drawn}", stacklevel=2
    )


@contextmanager
def _own_stream(number: int) -> Iterator[None]:
    """Draw from a stream of a layer's own, by torch's seed; the caller's generator stays."""
    generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed((torch.initial_seed() + number) % 2**63)
    try:
        yield
    finally:
        generator.set_state(before)


def text_of(given: Mapping[str, Any]) -> str:
    """Write options so that equal ones have equal texts."""
    return ", ".join(f"{name}={given[name]!r}" for name in sorted(given)) or "no options"


# -- attention layers of a model -----------------------------------------------------------------


_dispatching: dict[type, bool] = {}


def _dispatches(cls: type[nn.Module]) -> bool:
    """Whether a layer asks transformers for its attention function."""
    if cls in _dispatching:
        return _dispatching[cls]
    code = getattr(inspect.unwrap(getattr(cls, "forward", cls)), "__code__", None)
    asks = {"ALL_ATTENTION_FUNCTIONS", "get_interface"}
    _dispatching[cls] = code is not None and bool(asks & {*code.co_names})
    return _dispatching[cls]


def implementation(module: nn.Module) -> str:
    """Return the ``attn_implementation`` of a layer that dispatches, else an empty text."""
    if not _dispatches(type(module)):
        return ""
    return getattr(getattr(module, "config", None), "_attn_implementation", None) or ""


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a model that dispatch their attention, by name and in order."""
    return {name: module for name, module in model.named_modules() if _dispatches(type(module))}


def held_in(module: nn.Module) -> Held | None:
    """Return what a layer holds."""
    held = module._modules.get(NAME)
    return held if isinstance(held, Held) else None


def shape_of(module: nn.Module) -> tuple[int, int] | None:
    """Read H and D from a layer; ``None`` = it does not say."""
    config = getattr(module, "config", None)
    heads = [getattr(where, name, None) for where in (module, config) for name in _HEADS]
    dims = [getattr(module, name, None) for name in _DIMS]
    head = next((x for x in heads if isinstance(x, int)), None)
    dim = next((x for x in dims if isinstance(x, int)), None)
    return None if head is None or dim is None else (head, dim)


def attach(
    module: nn.Module,
    name: str,
    given: Mapping[str, Any],
    *,
    shape: tuple[int, int],
    number: int,
) -> Held:
    """Put a backend into a layer; one that is there already and the same stays."""
    held = held_in(module)
    num_heads, head_dim = shape
    wanted = (name, text_of(given), num_heads, head_dim)
    if held is not None and (held.name, held.text, held.num_heads, held.head_dim) == wanted:
        return held
    try:
        held = Held(
            name, given, num_heads=num_heads, head_dim=head_dim, number=number,
            like=next(module.parameters(), None),
        ).train(module.training)  # fmt: skip
    except TypeError as error:
        raise TypeError(f"{error}; give it by register({name}={{…}})") from None
    module.add_module(NAME, held)
    return held


def _on_registration(parent: nn.Module, name: str, child: nn.Module | None) -> None:
    """Attach the backend of an attention layer that becomes part of a model; count the layers."""
    if child is None or isinstance(child, Held):
        return
    chosen = implementation(child).removeprefix(PREFIX)
    if chosen in options and implementation(child) != chosen and held_in(child) is None:
        shape = shape_of(child)
        if shape is not None:
            attach(child, chosen, options[chosen], shape=shape, number=0)
    if not type(parent).__module__.startswith(("transformers", "torch.nn.modules.container")):
        return
    if not any(isinstance(x, Held) for x in child.modules()):
        return
    seen: dict[Held, None] = {}
    for module in (*parent.modules(), *child.modules()):
        if isinstance(module, Held):
            seen.setdefault(module)
    for number, held in enumerate(seen):
        held.count_as(number)


@functools.cache
def watch() -> None:
    """Attach backends to the models that are made from now on."""
    register_module_module_registration_hook(_on_registration)


def kind_of(name: str, module: nn.Module) -> str:
    """Return ``encoder``, ``decoder`` or ``cross``: what a layer is, by its name."""
    parts = name.lower().split(".")
    if any("cross" in part or part.startswith(("encoder_att", "encdec")) for part in parts):
        return "cross"
    for part in reversed(parts):
        for kind in ("encoder", "decoder"):
            if kind in part:
                return kind
    return "decoder" if getattr(module, "is_causal", False) else "encoder"
