"""What each level is built of: one place that knows a model from a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attention.base import Attention, UnsupportedError
from models import TransformerModel
from results.schema import Arm, Case
from suites.arms import build as arms
from suites.arms import model, transformers_model
from suites.arms.arm import ArmRunner
from suites.arms.build import Mixer
from suites.arms.decode import Stepper
from suites.arms.transformers_config import is_transformers

Built = tuple[Mixer, nn.Module]
"""A mixer, and the module it is in."""


def build(arm: Arm, case: Case) -> Built:
    """Build an arm at the case's level; errors as in `build_attention` and `build_model`."""
    if is_transformers(case.model):
        return transformers_model.build_model(arm, case)
    if case.level == "model":
        return model.build_model(arm, case)
    mixer = arms.build_mixer(arm, case)
    return mixer, arms.build_module(mixer, case)


_DRAWS = (
    Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_,
)  # fmt: skip


class _Undrawn(TorchFunctionMode):
    """Draws no numbers: on the meta device that imports torch's compiler, which takes long."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        drawn = (args or tuple((kwargs or {}).values()) or (None,))[0]
        if func in _DRAWS and isinstance(drawn, Tensor) and drawn.is_meta:
            return drawn
        return func(*args, **(kwargs or {}))


def build_light(arm: Arm, case: Case) -> Built:
    """Build an arm without its numbers, if its constructor can do without them."""
    try:
        with torch.device("meta"), _Undrawn():
            return build(arm, case)
    except UnsupportedError:
        raise
    except Exception:  # what the constructor says about real tensors decides
        return build(arm, case)


def placed(built: Built, case: Case) -> Built:
    """Bring an arm to its device, into its dtype and mode."""
    mixer, module = built
    return mixer, module.to(case.device, arms.dtype_of(case)).train(case.mode == "training")


def unsupported_reasons(mixer: Mixer, case: Case) -> list[str]:
    """Say why a mixer cannot serve a case; empty = it can."""
    if is_transformers(case.model):
        assert isinstance(mixer, Attention)  # its layers say the rest, by themselves
        return mixer.unavailable_reasons(case.device)
    if case.level == "model":
        return model.unsupported_reasons(mixer, case)
    return arms.unsupported_reasons(mixer, case)


def runners_of(built: Sequence[Built], case: Case) -> list[ArmRunner]:
    """Make the arms ready to be called, on inputs that they share."""
    if is_transformers(case.model):
        ids = transformers_model.draw_ids(case)
        cls = transformers_model.TransformersModel
        return [cls(mixer, module, ids, case) for mixer, module in built]
    inputs = model.draw_ids(case) if case.level == "model" else arms.draw_inputs(case)
    if case.mode == "decode":
        return [Stepper(mixer, module, inputs, case) for mixer, module in built]
    if case.level == "model":
        return [
            model.WholeModel(mixer, cast("TransformerModel", module), inputs, case)
            for mixer, module in built
        ]
    return [ArmRunner(mixer, module, inputs, case) for mixer, module in built]


def cost_of(mixer: Mixer, module: nn.Module, case: Case) -> dict[str, int] | None:
    """Return the cost of a call, as the record holds it; ``None`` where it is not counted."""
    if is_transformers(case.model):
        return None
    if case.level == "model":
        return model.cost_of(mixer, cast("TransformerModel", module), case)
    return arms.cost_of(mixer, case)
