"""Level ``model``, of transformers: a model built from a configuration file, random weights.

A case names it as `suites.content_names.hf_config_name` does, by the file's content. Of a file
with a ``text_config`` the text model is built. The arm's backend is its ``attn_implementation``
(`attention.integrations.transformers`), so layers with a sliding window of their own keep it.
Dropout is off, since what is dropped could not be checked, and there is no cache. Operations are
not counted.

What a configuration or its class cannot be is found out before anything is timed, and makes the
case unsupported, with the file and the class in the reason.
"""

from __future__ import annotations

import difflib
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
from attention.integrations.transformers_masks import pattern_of
from attention.plugins import said_of
from models import IdentityAttention
from results.schema import IDENTITY, LSTM, Arm, Case, content_id
from suites import content_names
from suites.arms.arm import Contestant
from suites.arms.build import Inputs, Mixer
from suites.measure.memory import is_out_of_memory

_HEADS = ("ForCausalLM", "ForMaskedLM", "LMHeadModel", "Model")
"""How the names of classes end whose output and loss are those of tokens, or hidden states."""

_ROOM = ("max_position_embeddings", "n_positions")

_files: ContextVar[Mapping[str, Path]] = ContextVar("files")


def is_foreign(model: str) -> bool:
    """Whether a case's model is one of transformers."""
    return model.startswith(content_names.HF_PREFIX)


@contextmanager
def files_given(given: Mapping[str, str | Path]) -> Iterator[None]:
    """Say where configurations lie, by the names of their models, for what runs inside."""
    token = _files.set({name: Path(path) for name, path in given.items()})
    try:
        yield
    finally:
        _files.reset(token)


def _file_of(model: str) -> Path:
    """Return where the configuration of a case's model lies.

    Raises:
        ValueError: if it was not given, or has changed.
    """
    given = _files.get({})
    if model not in given:
        named = ", ".join(sorted(filter(is_foreign, given))) or "none"
        raise ValueError(
            f"model: the configuration of {model} was not given with this command (--hf-config); "
            f"given: {named}"
        )
    path = given[model]
    if (now := content_names.hf_config_name(path)) != model:
        raise ValueError(
            f"model: {path.name} has changed: expected the content of {model}, got {now}; what a "
            "case reads must stay as it was"
        )
    return path


@contextmanager
def _naming(case: Case, what: str) -> Iterator[None]:
    """Name the configuration's file, and the class, in what is refused inside."""
    try:
        yield
    except UnsupportedError as error:
        raise _named(error, case, what) from None


def _named(error: UnsupportedError, case: Case, what: str) -> UnsupportedError:
    return UnsupportedError(f"{_file_of(case.model).name}, {what}: {error}")


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Take an error of transformers' own code as a refusal: what it says is `what`.

    Raises:
        UnsupportedError: for every error but of memory.
    """
    try:
        yield
    except UnsupportedError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UnsupportedError(f"{what}: {said_of(error)[:_LONGEST]}") from error


_LONGEST = 240

_OWN = "model: its attention is its own, and takes no function of others"


def config_of(case: Case) -> tuple[Any, bool]:
    """Return transformers' configuration of a case's model, without dropout and cache.

    With it comes whether it is that of a text model, out of one that reads more.

    Raises:
        ValueError: if its file was not given, or has changed.
        UnsupportedError: if transformers is not there or does not take it, it reads no token ids,
            or what the case asks is not measured.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UnsupportedError(
            "model: it needs the package transformers: pip install transformers"
        )
    given = content_names.read_hf_config(_file_of(case.model))
    kind = given["model_type"]
    with _naming(case, kind):
        config, is_text = _read(given)
    with _naming(case, type(config).__name__):
        if getattr(config, "is_encoder_decoder", False) or not _count(config, "vocab_size"):
            raise UnsupportedError("model: expected one stack that reads token ids")
        if reasons := _unsupported(case, config):
            raise UnsupportedError("; ".join(reasons))
    return config, is_text


def _read(given: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return the configuration that a file holds, and whether it is its ``text_config``.

    The ``architectures`` are those of the file.
    """
    import transformers

    kind, values = given["model_type"], {k: x for k, x in given.items() if k != "model_type"}
    if kind not in transformers.CONFIG_MAPPING:
        near = difflib.get_close_matches(kind, transformers.CONFIG_MAPPING, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        version = transformers.__version__
        raise UnsupportedError(f"model_type: transformers {version} has none of this name{hint}")
    if given.get("quantization_config"):
        raise UnsupportedError("quantization_config: weights are random and whole; leave it out")
    with _refusing("transformers refuses the configuration"):
        config = transformers.AutoConfig.for_model(kind, **values)
        text = getattr(config, "text_config", None)
        if text is not None:
            text.architectures = config.architectures
            config = text
        config.use_cache = False
        for name, dropped in config.to_dict().items():
            if _is_dropout(name, dropped):
                setattr(config, name, 0.0)
    return config, text is not None


def _count(config: Any, name: str) -> int:
    """Return a count of a configuration, 0 where it has none."""
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value > 0 else 0


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
        room = _count(config, name)
        if room and case.seq_len > room:
            reasons.append(f"seq_len: {name} of the configuration is {room}; got {case.seq_len}")
            break
    return reasons


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
    with _naming(case, cls.__name__):
        mixer = _like_a_layers(arm.name, options, config)
        _use(implementation, arm.name, options)
        torch.manual_seed(case.seed)  # equal weights for all arms
        with _refusing("transformers cannot build it"):
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
    with _refusing("it cannot be called with token ids and an attention function"):
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
    heads = _count(config, "num_attention_heads")
    width = heads and (_count(config, "head_dim") or _count(config, "hidden_size") // heads)
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
    with _naming(case, named or type(config).__name__):
        found = getattr(transformers, named, None) if isinstance(named, str) and named else None
        if named and not isinstance(found, type):
            raise UnsupportedError(
                f"architectures: transformers {transformers.__version__} has no class {named}"
            )
        if named and not is_text:
            if not named.endswith(_HEADS):
                raise UnsupportedError(
                    f"architectures: expected a class of {', '.join(f'…{end}' for end in _HEADS)}"
                )
            return found
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
            raise _named(UnsupportedError(_OWN), self.case, type(self.module).__name__)
        return super().gate()

    def call(self) -> None:
        """Compute the logits, or take a step."""
        (ids,) = self.inputs.tensors
        model: Any = self.run
        try:
            self._call(model, ids)
        except UnsupportedError as error:
            raise _named(error, self.case, type(self.module).__name__) from None

    def _call(self, model: Any, ids: Tensor) -> None:
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
