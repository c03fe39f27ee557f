"""Level ``model``, of transformers: a model built from a configuration file, random weights.

The file is read in `suites.arms.transformers_config`. The arm's backend is the model's
``attn_implementation`` (`attention.integrations.transformers`), so layers with a sliding window of
their own keep it.
Operations are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attention import registry
from attention.base import Attention, UnsupportedError
from attention.integrations import transformers as integration
from attention.integrations.transformers_masks import pattern_of
from models import IdentityAttention
from results.schema import IDENTITY, LSTM, Arm, Case, content_id
from suites.arms.build import Inputs, Mixer
from suites.arms.model import ModelCall
from suites.arms.transformers_config import config_of, count_of, naming, refusal, refusing

_HEADS = ("ForCausalLM", "ForMaskedLM", "LMHeadModel", "Model")
"""How the names of classes end whose output and loss are those of tokens, or hidden states."""


_OWN = "model: its attention is its own, and takes no function of others"


def build_model(arm: Arm, case: Case) -> tuple[Mixer, nn.Module]:
    """Build a model with an arm's backend in its layers; return a backend of its heads with it.

    Raises:
        ValueError: if an option is out of range.
        TypeError: if there is no such option.
        UnsupportedError: if the configuration cannot be measured, or the arm cannot serve it.
    """
    config, is_text = config_of(case)
    if arm.name == LSTM:
        raise UnsupportedError(f"backend: {LSTM} has no place in transformers' models")
    options = {} if arm.name == IDENTITY else _options(arm, case)
    cls = _class_of(config, is_text, case)
    # transformers refuses names with "sdpa" in them for classes that have not been tried with it.
    implementation = integration.PREFIX + content_id(arm.label)
    with naming(case, cls.__name__):
        mixer = _like_a_layers(arm.name, options, config)
        _use(implementation, arm.name, options)
        torch.manual_seed(case.seed)  # equal weights for all arms
        with refusing("transformers cannot build it"):
            try:
                model = cls._from_config(config, attn_implementation=implementation)
            except KeyError as error:  # it looks the name up among classes of its own
                if error.args == (implementation,):
                    raise UnsupportedError(_OWN) from None
                raise
        is_light = torch.empty(0).device.type == "meta"
        if not is_light:
            _check_layers(model, implementation)
            _use(implementation, arm.name, options)
        if not is_light and [*mixer.parameters(), *mixer.buffers()]:  # a part of the model
            integration.prepare(model, input_ids=torch.ones(1, 2, dtype=torch.int64))
    return mixer, model


def _check_layers(model: nn.Module, implementation: str) -> None:
    """Call a model once, on two tokens: do its layers take an attention function?

    Raises:
        UnsupportedError: if none does, they hand over what no backend takes, or the call fails.
    """
    seen: list[tuple[int, int]] = []

    def look(
        _module: nn.Module, query: Tensor, _key: Tensor, value: Tensor, _mask: Any, **_: Any
    ) -> tuple[Tensor, None]:
        seen.append((query.shape[3], value.shape[3]))
        shape = (query.shape[0], query.shape[2], query.shape[1], value.shape[3])
        return query.new_zeros(shape), None

    _register(implementation, look)
    with refusing("it cannot be called with token ids and an attention function"):
        integration.prepare(model, input_ids=torch.ones(1, 2, dtype=torch.int64))
    if not seen:
        raise UnsupportedError(_OWN)
    for of_queries, of_values in seen:
        if of_queries != of_values:
            raise UnsupportedError(
                f"head_dim: heads of queries are {of_queries} wide and those of values "
                f"{of_values}; backends take equal ones"
            )


def _options(arm: Arm, case: Case) -> dict[str, Any]:
    for name in integration.MODELS_OWN:
        if name in arm.options:
            raise TypeError(f"{name}: it is a property of the model, not an option of {arm.name}")
    defaults = {"seq_len": case.seq_len, "seed": case.seed}
    accepted = registry.get(arm.name).options()
    return {**{n: x for n, x in defaults.items() if n in accepted}, **arm.options}


def _like_a_layers(name: str, options: Mapping[str, Any], config: Any) -> Attention:
    """Build a backend as the layers do: what is declared of it holds for theirs."""
    heads = count_of(config, "num_attention_heads")
    width = heads and (count_of(config, "head_dim") or count_of(config, "hidden_size") // heads)
    if not width:
        raise UnsupportedError("model: its configuration has no attention heads")
    shape: dict[str, Any] = {"num_heads": heads, "head_dim": width}
    if name == IDENTITY:
        return IdentityAttention(**shape)
    with torch.device("cpu"):  # a small thing, and some draw numbers
        return registry.build(name, **shape, **options)


def _use(implementation: str, name: str, options: Mapping[str, Any]) -> None:
    """Put an arm into the layers of the models that are built for it."""
    is_floor = name == IDENTITY
    _register(
        implementation, _identity if is_floor else integration.attention_function(name, **options)
    )


def _register(implementation: str, function: integration.Forward) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(implementation, function)
    AttentionMaskInterface.register(implementation, pattern_of)


def _identity(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: Any, **_: Any
) -> tuple[Tensor, None]:
    """Return the values: the floor, a layer without attention."""
    floor = IdentityAttention(num_heads=query.shape[1], head_dim=query.shape[3])
    out: Tensor = floor(query, key, value)
    return out.transpose(1, 2).contiguous(), None


def _class_of(config: Any, is_text: bool, case: Case) -> Any:
    """Return the model's class: the configuration's first architecture, else the bare model.

    Of the text model of a file it is the one with a head for the next token, if the architecture
    generates and there is one.

    Raises:
        UnsupportedError: if transformers has none, or its output is another.
    """
    import transformers

    named = (config.architectures or [""])[0]
    with naming(case, named or type(config).__name__):
        cls = getattr(transformers, named, None) if isinstance(named, str) and named else None
        if named and not isinstance(cls, type):
            raise UnsupportedError(
                f"architectures: transformers {transformers.__version__} has no class {named}"
            )
        if named and not is_text:
            if not named.endswith(_HEADS):
                raise UnsupportedError(
                    f"architectures: expected a class of {', '.join(f'…{end}' for end in _HEADS)}"
                )
            return cls
        generates = named.endswith(("ForConditionalGeneration", "ForCausalLM"))
        if generates and type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            return transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        if type(config) not in transformers.MODEL_MAPPING:
            raise UnsupportedError("model: transformers has no model of this configuration alone")
        bare = transformers.MODEL_MAPPING[type(config)]
        return bare[0] if isinstance(bare, tuple) else bare


def draw_ids(case: Case) -> Inputs:
    """Draw the ids of a case: ``[B, N]``."""
    generator = torch.Generator().manual_seed(case.seed)
    config, _ = config_of(case)
    ids = torch.randint(config.vocab_size, (case.batch, case.seq_len), generator=generator)
    return Inputs((ids.to(case.device),), None)


class TransformersModel(ModelCall):
    """A model of transformers: its logits or hidden states, or a step with its loss and AdamW.

    The loss is the model's own with the ids as labels; of a bare model the mean square of its
    hidden states.
    """

    def __init__(self, mixer: Mixer, module: nn.Module, inputs: Inputs, case: Case) -> None:
        self._declared = mixer
        super().__init__(mixer, module, inputs, case)

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
            raise refusal(UnsupportedError(_OWN), self.case, type(self.module).__name__)
        return super().gate()

    def call(self) -> None:
        """Compute the logits, or take a step."""
        try:
            super().call()
        except UnsupportedError as error:
            raise refusal(error, self.case, type(self.module).__name__) from None

    def _forward(self) -> Tensor:
        return _first(self.run(input_ids=self.inputs.tensors[0]))

    def _loss(self) -> Tensor:
        (ids,), model = self.inputs.tensors, self.run
        if getattr(self.module, "base_model", self.module) is self.module:
            return _first(model(input_ids=ids)).float().square().mean()
        loss: Tensor = model(input_ids=ids, labels=ids).loss  # type: ignore[attr-defined]
        return loss

    def _watched(self) -> Tensor:
        """Return the token embedding: ids have no gradient, and its own comes through all."""
        module: Any = self.module
        weight: Tensor = module.get_input_embeddings().weight
        return weight


def _first(out: Any) -> Tensor:
    """Return the logits of an output, or its hidden states."""
    output: Tensor = out.logits if "logits" in out else out.last_hidden_state
    return output
