"""transformers models with our backends under torch.compile, torch.export and torch.jit.trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers_transformers import build, config_of, hidden, inputs, real, transformers
from torch import Tensor

from attention.checks import UnsupportedError
from attention.integrations import transformers as ours

pytestmark = pytest.mark.slow

OPTIONS: dict[str, dict[str, Any]] = {
    "performer": {"num_features": 16}, "linformer": {"seq_len": 64, "rank": 8},
    "bigbird": {"block_size": 4}, "longformer": {"window": 5},
}  # fmt: skip


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    pytest.importorskip("transformers", reason="needs the extra 'peers'")
    torch._dynamo.reset()
    ours.register(**OPTIONS)
    yield
    torch._dynamo.reset()


def compiled(model: Any, *, fullgraph: bool) -> Any:
    return torch.compile(model, backend="aot_eager", fullgraph=fullgraph)


@pytest.mark.parametrize(
    ("kind", "backend", "padded"),
    [
        ("Bert", "sdpa", "right"), ("Llama", "full", "left"), ("Llama", "sdpa", None),
        ("Bart", "full", "right"),
    ],
)  # fmt: skip
def test_exact_backends_are_one_graph(kind: str, backend: str, padded: str | None) -> None:
    model = build(kind, f"attnbench_{backend}")
    given = inputs(padded or "")
    if padded is None:
        del given["attention_mask"]
    with torch.no_grad():
        expected = hidden(model, given)
        actual = hidden(compiled(model, fullgraph=True), given)
    if padded:
        expected, actual = real(expected, given), real(actual, given)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "backend"),
    [("Llama", "performer"), ("Bert", "bigbird"), ("Mistral", "sdpa")],
)
def test_others_run_between_graphs(kind: str, backend: str) -> None:
    """So do the windows of models, which are served over their band."""
    model, given = build(kind, f"attnbench_{backend}", num_hidden_layers=1), inputs("right")
    with torch.no_grad():
        expected = hidden(model, given)
        actual = hidden(compiled(model, fullgraph=False), given)
    torch.testing.assert_close(real(actual, given), real(expected, given), atol=1e-4, rtol=1e-4)


def test_a_training_step_is_compiled() -> None:
    grads = []
    for wrap in (lambda model: model, lambda model: compiled(model, fullgraph=True)):
        model = build("Llama", "attnbench_full", num_hidden_layers=1).train()
        hidden(wrap(model), inputs("right")).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for got, want in zip(grads[1], grads[0], strict=True):
        torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-3)


def test_a_graph_cannot_tell_whether_rows_are_packed() -> None:
    model = build("Llama", "attnbench_full", num_hidden_layers=1)
    given = {"input_ids": inputs()["input_ids"], "use_cache": False}
    with torch.no_grad():
        expected = hidden(model, given)
        with pytest.raises(Exception, match="give attention_mask"):
            hidden(compiled(model, fullgraph=True), given)
        torch.compiler.reset()
        # Where the graph breaks at the mask, that has its numbers: one document a row.
        torch.testing.assert_close(hidden(compiled(model, fullgraph=False), given), expected)


@pytest.mark.parametrize(
    ("kind", "backend"),
    [("Llama", "full"), ("Llama", "sdpa"), ("Llama", "longformer"), ("Gemma3Text", "sdpa")],
)
def test_a_static_cache_is_compiled_once_for_all_steps(kind: str, backend: str) -> None:
    graphs: list[Any] = []

    def keep(graph: Any, _example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    config = transformers.CompileConfig(backend=keep, fullgraph=True, mode=None)
    config._compile_all_devices = True  # by itself it compiles on accelerators alone
    name = "Gemma3ForCausalLM" if kind == "Gemma3Text" else f"{kind}ForCausalLM"
    given = {name: x[:, :20] for name, x in inputs("left").items()}
    torch.manual_seed(0)
    model = getattr(transformers, name)._from_config(
        config_of(kind, eos_token_id=None), attn_implementation=f"attnbench_{backend}"
    ).eval()  # fmt: skip
    made = [
        model.generate(
            **given, max_new_tokens=12, do_sample=False, cache_implementation=cache, **how
        )
        for cache, how in (("dynamic", {}), ("static", {"compile_config": config}))
    ]
    assert torch.equal(made[0], made[1])
    assert 1 <= len(graphs) <= 2, "of eleven steps"


def exported(model: Any, given: dict[str, Tensor]) -> Any:
    with torch.no_grad():
        return torch.export.export(model, (), given).module()


@pytest.mark.parametrize("backend", ["full", "sdpa"])
def test_an_exported_model_serves_other_masks(backend: str) -> None:
    model = build("Bert", f"attnbench_{backend}")
    graph = exported(model, inputs())
    for padded in ("left", "right"):
        given = inputs(padded)
        with torch.no_grad():
            expected, actual = hidden(model, given), hidden(graph, given)
        torch.testing.assert_close(
            real(actual, given), real(expected, given), atol=1e-4, rtol=1e-4
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_no_graph_holds_says_so() -> None:
    model = build("Bert", "attnbench_longformer")
    with pytest.raises(UnsupportedError, match=r"torch.export: longformer .* accepted: full"):
        exported(model, inputs())
    with pytest.raises(UnsupportedError, match=r"torch.jit.trace: .* accepted are torch.export"):
        torch.jit.trace(build("Bert", "attnbench_full"), tuple(inputs().values()), strict=False)
