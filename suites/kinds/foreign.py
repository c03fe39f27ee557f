"""Level ``model``, of transformers: a model built from a configuration file, random weights.

A case names it ``hf-TYPE:config=sha256-…``, the type being the configuration's ``model_type`` and
the file known by its content. The arm's backend is its ``attn_implementation``
(`attention.integrations.transformers`), so layers with a sliding window of their own keep it.
Dropout is off, since what is dropped could not be checked, and there is no cache. Operations are
not counted.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attention import registry
from attention.base import Attention, UnsupportedError
from attention.integrations import transformers as integration
from attention.integrations.hf_masks import pattern_of
from models import IdentityAttention
from results.schema import IDENTITY, LSTM, Arm, Case
from suites import files
from suites.kinds.arms import Inputs, Mixer
from suites.kinds.contestant import Contestant
from suites.parsing import parse_backend

PREFIX = "hf-"
"""Of the names of such models."""

_HEADS = ("ForCausalLM", "ForMaskedLM", "LMHeadModel", "Model")
"""How the names of classes end whose output and loss are those of tokens, or hidden states."""

_ROOM = ("max_position_embeddings", "n_positions")

_files: ContextVar[Mapping[str, Path]] = ContextVar("files")


def is_foreign(model: str) -> bool:
    """Whether a case's model is one of transformers."""
    return model.startswith(PREFIX)


@contextmanager
def files_given(given: Mapping[str, str | Path]) -> Iterator[None]:
    """Say where the content of configurations lies, by its name, for what runs inside."""
    token = _files.set({name: Path(path) for name, path in given.items()})
    try:
        yield
    finally:
        _files.reset(token)


def read_config(model: str) -> dict[str, Any]:
    """Return the configuration that a case's model names.

    Raises:
        ValueError: if its file was not given, has changed, or is no configuration.
    """
    named = parse_backend(model)
    if set(named.options) != {"config"}:
        raise ValueError(f"model: expected {PREFIX}TYPE:config=sha256-…, got {model}")
    name = str(named.options["config"])
    path = files.find("model", name, _files.get({}))
    files.check_unchanged("model", name, files.file_digest(path), path)
    found = files.read_hf_config(path)
    if f"{PREFIX}{found['model_type']}" != named.name:
        raise ValueError(f"model: the file is of type {found['model_type']}, got {named.name}")
    return found


def config_of(case: Case) -> Any:
    """Return transformers' configuration of a case: without dropout and cache.

    Raises:
        ValueError: if transformers does not know its type, or it reads no token ids.
        UnsupportedError: if transformers is not there, or what the case asks is not measured.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UnsupportedError(
            "model: it needs the package transformers: pip install transformers"
        )
    from transformers import AutoConfig

    given = read_config(case.model)
    kind = given.pop("model_type")
    given = {name: 0.0 if _is_dropout(name, x) else x for name, x in given.items()}
    given |= {"use_cache": False}
    try:
        config = AutoConfig.for_model(kind, **given)
    except Exception as error:
        raise ValueError(f"model: transformers refuses the configuration: {error}") from None
    for name, value in config.to_dict().items():
        if _is_dropout(name, value):
            setattr(config, name, 0.0)
    if getattr(config, "is_encoder_decoder", False) or not getattr(config, "vocab_size", 0):
        raise ValueError(f"model: expected one stack that reads token ids, got {kind}")
    named = (config.architectures or [""])[0]
    if named and not named.endswith(_HEADS):
        raise ValueError(
            f"model: expected a first architecture in {', '.join(f'…{end}' for end in _HEADS)}, "
            f"got {named}"
        )
    if reasons := _unsupported(case, config):
        raise UnsupportedError("; ".join(reasons))
    return config


def _is_dropout(name: str, value: Any) -> bool:
    return "drop" in name and isinstance(value, float)


def _unsupported(case: Case, config: Any) -> list[str]:
    reasons = []
    if case.mode == "decode":
        reasons.append("mode: of transformers' models forward and training are measured")
    if case.compile:
        reasons.append("compile: transformers' models run as they are; accepted is off")
    if case.checkpointing:
        reasons.append("checkpointing: of our own models alone; accepted is off")
    for name in _ROOM:
        room = getattr(config, name, None)
        if room is not None and case.seq_len > room:
            reasons.append(f"seq_len: {name} of the configuration is {room}; got {case.seq_len}")
            break
    return reasons


def build_model(arm: Arm, case: Case) -> tuple[Mixer, nn.Module]:
    """Build a model with an arm's backend in its layers; return a backend of its heads with it.

    Raises:
        ValueError: if the configuration or an option is out of range.
        TypeError: if there is no such option.
        UnsupportedError: if the arm cannot serve the model.
    """
    config = config_of(case)
    if arm.name == LSTM:
        raise UnsupportedError(f"backend: {LSTM} has no place in transformers' models")
    options = {} if arm.name == IDENTITY else _options(arm, case)
    mixer = _like_a_layers(arm.name, options, config)
    implementation = _registered(arm.name, options)
    torch.manual_seed(case.seed)  # equal weights for all arms
    model = _class_of(config)._from_config(config, attn_implementation=implementation)
    is_light = torch.empty(0).device.type == "meta"
    if not is_light and next(mixer.parameters(), None) is not None:
        integration.prepare(model, input_ids=torch.ones(1, 2, dtype=torch.int64))
    return mixer, model


def _options(arm: Arm, case: Case) -> dict[str, Any]:
    for name in integration.MODELS_OWN:
        if name in arm.options:
            raise TypeError(f"{name}: it is a property of the model, not an option of {arm.name}")
    defaults = {"seq_len": case.seq_len, "seed": case.seed}
    accepted = registry.get(arm.name).options()
    return {**{n: x for n, x in defaults.items() if n in accepted}, **arm.options}


def _like_a_layers(name: str, options: Mapping[str, Any], config: Any) -> Attention:
    """Build a backend as the layers do: what is declared of it holds for theirs."""
    heads = config.num_attention_heads
    own = getattr(config, "head_dim", None)
    shape = {"num_heads": heads, "head_dim": own or config.hidden_size // heads}
    if name == IDENTITY:
        return IdentityAttention(**shape)
    return registry.build(name, **shape, **options)


def _registered(name: str, options: Mapping[str, Any]) -> str:
    """Make an arm an ``attn_implementation``, and return its name."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if name != IDENTITY:
        integration.register(**{name: options})
        return integration.PREFIX + name
    AttentionInterface.register(integration.PREFIX + IDENTITY, _identity)
    AttentionMaskInterface.register(integration.PREFIX + IDENTITY, pattern_of)
    return integration.PREFIX + IDENTITY


def _identity(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: Any, **_: Any
) -> tuple[Tensor, None]:
    """Return the values: the floor, a layer without attention."""
    floor = IdentityAttention(num_heads=query.shape[1], head_dim=query.shape[3])
    out: Tensor = floor(query, key, value)
    return out.transpose(1, 2).contiguous(), None


def _class_of(config: Any) -> Any:
    """Return the model's class: the configuration's first architecture, else the bare model."""
    import transformers

    named = (config.architectures or [""])[0]
    if named:
        found = getattr(transformers, named, None)
        if found is None:
            raise ValueError(
                f"model: transformers has no class {named}, which `architectures` names"
            )
        return found
    return transformers.MODEL_MAPPING[type(config)]


def draw_ids(case: Case) -> Inputs:
    """Draw the ids of a case: ``[B, N]``."""
    generator = torch.Generator().manual_seed(case.seed)
    ids = torch.randint(
        config_of(case).vocab_size, (case.batch, case.seq_len), generator=generator
    )
    return Inputs((ids.to(case.device),), None)


class ForeignModel(Contestant):
    """A model of transformers: its logits or hidden states, or a step with its loss and AdamW.

    The loss is the model's own with the ids as labels; of a bare model the mean square of its
    hidden states. The learning rate is 0, so that every step does the same work. Arguments as of
    `Contestant`.
    """

    def __init__(self, mixer: Mixer, module: nn.Module, inputs: Inputs, case: Case) -> None:
        self._declared = mixer
        super().__init__(mixer, module, inputs, case)
        self.optimizer: torch.optim.Optimizer | None = None
        if case.mode == "training":
            self.leaves = list(module.parameters())
            self.optimizer = torch.optim.AdamW(self.leaves, lr=0.0)

    @property
    def mixer(self) -> Mixer:
        """The first layer's backend; before a call one that is like it."""
        called = integration.backends(self.module)
        return called[0] if called else self._declared

    @mixer.setter
    def mixer(self, _: Mixer) -> None:
        pass  # by the base's constructor: it is in `_declared`

    def gate(self) -> dict[str, Any] | None:
        """Hold the first layer's output against its formula; see the base.

        Raises:
            UnsupportedError: if no layer called a backend: the model has an attention of its own.
            WrongOutputError: if it is off.
        """
        is_floor = isinstance(self._declared, IdentityAttention)
        if not is_floor and not integration.backends(self.module):
            raise UnsupportedError("model: it has an attention of its own, which ran instead")
        return super().gate()

    def call(self) -> None:
        """Compute the logits, or take a step."""
        (ids,) = self.inputs.tensors
        model: Any = self.run
        if self.optimizer is None:
            self.output = _first(model(input_ids=ids))
            return
        if hasattr(self.module, "base_model") and self.module.base_model is not self.module:
            loss = model(input_ids=ids, labels=ids).loss
        else:
            loss = _first(model(input_ids=ids)).float().square().mean()
        loss.backward()
        self.optimizer.step()
        self.output = loss

    def _watched(self) -> Tensor:
        """Return the token embedding: ids have no gradient, and its own comes through all."""
        module: Any = self.module
        weight: Tensor = module.get_input_embeddings().weight
        return weight


def _first(out: Any) -> Tensor:
    """Return the logits of an output, or its hidden states."""
    found: Tensor = out.logits if "logits" in out else out.last_hidden_state
    return found
