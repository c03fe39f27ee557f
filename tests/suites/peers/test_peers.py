"""Peers: each installed one runs beside our counterpart, and what it claims is held against it."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attention
from attention.base import Attention
from attention.plugins import import_file
from results.schema import PEER, PROJECTIONS, SCHEMA, Arm, Case, check_record
from suites.benchmarks import PEER_ROWS
from suites.measure.clock import WATCHED_CALLS
from suites.peers import registry
from suites.peers.base import Built, Peer, Projections
from suites.peers.kind import agreement_budget, cost_beside
from suites.peers.projected import ProjectedAttention
from suites.worker.preflight import inspect_case, preflight
from suites.worker.run import answer

SMALL: dict[str, dict[str, Any]] = {
    "sdpa": {}, "longformer": {"window": 16}, "linformer": {"rank": 32},
    "bigbird": {"block_size": 16, "num_random_blocks": 2}, "performer": {"num_features": 32},
}  # fmt: skip
"""Options of our side that make sense at 256 tokens."""

INSTALLABLE = {
    "linformer": "linformer",
    "linformer-layer": "linformer",
    "local-attention": "local_attention",
    "nystrom-attention": "nystrom_attention",
    "performer-pytorch": "performer_pytorch",
    "transformers-bigbird": "transformers",
    "transformers-longformer": "transformers",
}
"""Peer to the module that must be there."""

CUDA_ONLY = ("flash-attn", "flash-attn-window", "flash-linear-attention", "natten")


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    threads = torch.get_num_threads()
    known = dict(registry._registry)
    yield
    torch.set_num_threads(threads)
    gc.unfreeze()
    registry._registry.clear()
    registry._registry.update(known)


def case(name: str, **changes: Any) -> Case:
    peer = registry.get(name)
    alone = (Arm(PROJECTIONS),) if peer.subtracts_projections else ()
    ours = Arm(peer.counterpart, SMALL[peer.counterpart])
    values: dict[str, Any] = {
        "kind": "peer", "level": "layer" if peer.num_projections else "attention",
        "mode": "forward",
        "arms": (ours, Arm(f"{PEER}{name}"), *alone), "batch": 2, "num_heads": 4,
        "num_kv_heads": 4, "head_dim": 16, "seq_len": 256, "key_len": 256, "device": "cpu",
        "dtype": "float32", "is_causal": False, "threads": 1, "allocator": "default",
        "compile": False, "seed": 0,
    }  # fmt: skip
    return Case(**{**values, **changes})


def record(of: Case, **more: Any) -> dict[str, Any]:
    request = {"do": "case", "case": of.to_json(), "budget_s": 0.01, "deadline_s": 120.0}
    found = dict(answer({**request, "plugins": [], **more})["record"])
    check_record(
        {
            "schema": SCHEMA, "measurement": 1, "run": "r", "machine": "m", "environment": "e",
            "case": of.to_json(), "launch": {"index": 0}, **json.loads(json.dumps(found)),
        }
    )  # fmt: skip
    return found


def need(name: str) -> None:
    if name in INSTALLABLE:
        pytest.importorskip(INSTALLABLE[name], reason=f"{name} is in the extra `peers`")
    if name == "torch-flex-attention" and inspect_case(case(name))["unsupported"]:
        pytest.skip("FlexAttention needs a C++ compiler on a CPU")


# -- every peer ----------------------------------------------------------------------------------


def claims() -> Iterator[Any]:
    """Yield peer, mode and causality; the one that compiles is slow."""
    for name in ("torch-sdpa", "torch-flex-attention", *INSTALLABLE):
        peer = registry.get(name)
        for mode in ("forward", "training"):
            for is_causal in (False, True):
                refused = name == "torch-flex-attention" and mode == "training"
                if not refused and (peer.causal or not is_causal):
                    marks = [pytest.mark.slow] * ("flex" in name)
                    yield pytest.param(name, mode, is_causal, marks=marks)


@pytest.mark.filterwarnings("ignore")  # a library's deprecations are its own
@pytest.mark.parametrize(("name", "mode", "is_causal"), list(claims()))
def test_peer_runs_and_computes_what_it_claims(name: str, mode: str, is_causal: bool):
    need(name)
    peer = registry.get(name)
    of = case(name, mode=mode, is_causal=is_causal)
    told = inspect_case(of)
    assert (told["misuse"], told["unsupported"]) == (None, [])
    found = record(of)
    assert found["status"] == "ok", found["reason"]
    ours, theirs, *alone = found["arms"]
    assert ours["gate"]["relative_l2"] <= ours["gate"]["budget"]
    assert ours["cost"] == told["cost"][0]
    assert len(alone) == peer.subtracts_projections
    lengths = {len(arm["metrics"]["latency"]["samples"]) for arm in found["arms"]}
    # In alternation; what is short goes on by itself until it has enough.
    assert len(lengths) == 1 or max(lengths) <= WATCHED_CALLS
    difference = theirs["metrics"]["output_difference"]["value"]
    assert theirs["peer"]["same_function"] is peer.same_function
    if peer.same_function:
        assert theirs["gate"]["relative_l2"] <= theirs["gate"]["budget"] < 1e-5
        assert difference < 1e-5
        assert ("gradient" in theirs["gate"]) == (mode == "training")
    else:
        assert theirs["gate"] is None
        assert difference > 1e-4  # else it should say that it is the same
        assert theirs["peer"]["difference"] == peer.difference
    assert theirs["kernel"].startswith(f"{peer.distribution} ")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_causal", [False, True])
def test_performer_pytorch_differs_by_its_epsilon_alone(
    is_causal: bool, monkeypatch: pytest.MonkeyPatch
):
    """Without the 1e-4 on every feature, its output is ours."""
    need("performer-pytorch")
    from performer_pytorch import performer_pytorch as library

    kernel = library.softmax_kernel
    monkeypatch.setattr(library, "softmax_kernel", lambda x, **kw: kernel(x, eps=0.0, **kw))
    causal = partial(library.causal_linear_attention_noncuda, eps=0.0)  # and 1e-6 on the sums
    monkeypatch.setattr(library, "causal_linear_attention_noncuda", causal)
    found = record(case("performer-pytorch", is_causal=is_causal))
    assert found["status"] == "ok", found["reason"]
    difference = found["arms"][1]["metrics"]["output_difference"]["value"]
    assert difference < 1e-5


@pytest.mark.parametrize("name", sorted(INSTALLABLE))
def test_missing_peer_is_unsupported_with_the_line_that_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    module = INSTALLABLE[name]
    for loaded in [m for m in sys.modules if m.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    of = case(name)
    (reason,) = inspect_case(of)["unsupported"]
    assert f"install it with: {registry.get(name).install}" in reason
    found = record(of)
    assert (found["status"], found["reason"]) == ("unsupported", reason)


@pytest.mark.parametrize("name", CUDA_ONLY)
def test_cuda_peers_say_so_on_a_cpu(name: str):
    (reason,) = inspect_case(case(name))["unsupported"]
    assert reason == f"device: {name} runs on cuda, not cpu"


@pytest.mark.parametrize("name", CUDA_ONLY)
def test_cuda_peers_name_their_install_line_where_they_are_missing(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    peer = registry.get(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for module in ("fla", "flash_attn", "natten"):
        monkeypatch.setitem(sys.modules, module, None)
    (reason,) = peer.unavailable_reasons("cuda")
    assert peer.install in reason


def test_flex_attention_has_no_backward_on_a_cpu():
    found = record(case("torch-flex-attention", mode="training"))
    assert found["status"] == "unsupported"
    assert "FlexAttention has no backward pass on a CPU" in found["reason"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("transformers-longformer", {"seq_len": 250, "key_len": 250}, "twice the window of 16"),
        ("transformers-bigbird", {"seq_len": 64, "key_len": 64}, "10 blocks at least"),
        ("local-attention", {"seq_len": 250, "key_len": 250}, "multiple of the window of 16"),
        ("linformer", {"is_causal": True}, "linformer has no causal form"),
        ("torch-sdpa", {"num_kv_heads": 2}, "num_kv_heads: peers are measured with as many"),
        ("torch-sdpa", {"key_len": 128}, "key_len: peers are measured in self-attention"),
    ],
)
def test_what_a_peer_does_not_accept_is_refused_with_the_reason(
    name: str, changes: dict[str, Any], reason: str
):
    need(name)
    found = record(case(name, **changes))
    assert found["status"] == "unsupported"
    assert reason in found["reason"]


# -- the claim is checked ------------------------------------------------------------------------


class _Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        return out[..., :-1] if self.factor == 0 else self.factor * out


def injected(factor: float) -> type[Peer]:
    class Injected(Peer):
        summary = project = "a stand-in"
        distribution = "no-such-distribution"
        install = "pip install nothing"
        counterpart = "sdpa"
        same_function = True

        def load(self) -> None:
            pass

        def build(self, ours: Attention, case: Case) -> Built:
            return Built(_Scaled(factor), kernel="scaled")

    return registry.register("injected")(Injected)


@pytest.mark.parametrize(
    ("factor", "status", "reason"),
    [
        (1.0, "ok", ""),
        (1.001, "failed", "output differs from that of sdpa"),
        (float("nan"), "failed", "NaN or infinity"),
        (0.0, "failed", "expected an output (2, 4, 256, 16), got (2, 4, 256, 15)"),
    ],
)
def test_wrong_output_is_never_given_a_speed(factor: float, status: str, reason: str):
    injected(factor)
    found = record(case("injected"))
    assert found["status"] == status
    assert reason in (found["reason"] or "")
    assert (found["arms"] == []) == (status != "ok")
    if status == "ok":
        assert found["arms"][1]["kernel"] == "no-such-distribution, version unknown: scaled"


def test_peer_that_leaves_its_claim_open_is_not_registered():
    cls = injected(1.0)
    cls.same_function = False
    with pytest.raises(ValueError, match="expected what differs, or same_function = True"):
        registry.register("injected")(cls)


def test_arms_of_another_form_are_misuse():
    of = case("torch-sdpa")
    for arms, said in (
        ((Arm("sdpa"),), "expected our backend and a peer"),
        ((Arm("sdpa"), Arm("longformer")), "expected peer:NAME beside our backend"),
        ((Arm("sdpa"), Arm("peer:torch-sdp")), "did you mean 'torch-sdpa'"),
        ((Arm("full"), Arm("peer:torch-sdpa")), "the counterpart of torch-sdpa is sdpa"),
        ((*of.arms, Arm(PROJECTIONS)), "expected sdpa, peer:torch-sdpa, options"),
    ):
        assert said in inspect_case(replace(of, arms=arms))["misuse"]
    assert "measured at level attention" in inspect_case(replace(of, level="layer"))["misuse"]


# -- equal weights -------------------------------------------------------------------------------


def test_projected_attention_is_the_layer_with_these_weights():
    parts = [nn.Linear(32, 32) for _ in range(4)]
    ours = attention.build("sdpa", num_heads=4, head_dim=8)
    layer = ProjectedAttention(Projections(*parts), ours)
    x = torch.randn(2, 9, 32)
    q, k, v = (part(x).unflatten(2, (4, 8)).transpose(1, 2) for part in parts[:3])
    expected = parts[3](ours(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x, is_causal=False), expected)
    with torch.no_grad():  # copies: a backward pass through one arm leaves the other alone
        parts[0].weight.add_(1.0)
    torch.testing.assert_close(layer(x, is_causal=False), expected)


def test_cost_of_our_arm_counts_the_peers_projections():
    ours = attention.build("sdpa", num_heads=4, head_dim=16)
    bare, projected = registry.get("torch-sdpa"), registry.get("linformer")
    inner = cost_beside(ours, case("torch-sdpa"), bare)
    of = case("linformer")
    layer = cost_beside(ours, of, projected)
    assert layer["pattern_ops"] - inner["pattern_ops"] == 2 * (2 * 256) * 4 * 64**2
    assert layer["bytes"] == 4 * (2 * (2 * 256) * 64 + 4 * 64**2)
    training = replace(of, mode="training")
    with_them, without = (cost_beside(ours, training, p)["pattern_ops"] for p in (projected, bare))
    assert with_them - without == 3 * (layer["pattern_ops"] - inner["pattern_ops"])


def test_a_whole_layer_is_counted_in_the_order_that_runs():
    of = case("linformer-layer")
    ours = attention.build("linformer", num_heads=4, head_dim=16, seq_len=256, rank=8)
    costs = [cost_beside(ours, of, registry.get(n)) for n in ("linformer", "linformer-layer")]
    saved = [2 * of.batch * 2 * 64 * n for n in (256 * (64 + 8), 8 * (256 + 64))]
    assert costs[0]["pattern_ops"] - costs[1]["pattern_ops"] == saved[0] - saved[1]


def test_agreement_is_a_matter_of_rounding():
    assert agreement_budget(torch.float64) < 1e-13 < agreement_budget(torch.float32) < 1e-5
    assert agreement_budget(torch.float16) < agreement_budget(torch.bfloat16) < 0.1


# -- where the names come from -------------------------------------------------------------------


@pytest.mark.slow
def test_preflight_tells_of_every_peer_without_importing_its_library(tmp_path: Path):
    told = preflight({"cases": []})["peers"]
    assert {row["peer"] for row in told} >= {*INSTALLABLE, *CUDA_ONLY, "torch-sdpa"}
    causal = [r["peer"] for r in told if r["is_causal"] and r["is_default"]]
    assert causal == ["flash-linear-attention", "performer-pytorch"]
    performer = next(r for r in told if r["peer"] == "performer-pytorch" and r["is_causal"])
    assert performer["seq_lens"] == {"forward": 4096, "training": 1024}
    json.dumps(told)
    code = (
        "import sys; from suites.peers import registry; registry.describe(); "
        f"print([m for m in {sorted(set(INSTALLABLE.values()))} if m in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_file_without_backend_or_peer_is_misuse(tmp_path: Path):
    file = tmp_path / "nothing.py"
    file.write_text("x = 1\n")
    with pytest.raises(ValueError, match="registers nothing; decorate its class"):
        import_file(file)


def test_two_classes_cannot_share_a_name():
    injected(1.0)
    with pytest.raises(ValueError, match="already registered by"):
        registry.register("torch-sdpa")(registry._registry["injected"])


def test_asv_rows_are_our_sides_of_the_suites_rows_each_once():
    def side(backend: str, options: dict[str, Any], level: str, is_causal: bool) -> str:
        return json.dumps([backend, options, level, is_causal], sort_keys=True)

    on_cpu = {
        row["peer"] + "-causal" * row["is_causal"]: side(
            row["counterpart"], row["options"],
            "layer" if row["peer"].endswith("-layer") else "attention", row["is_causal"],
        )
        for row in registry.describe()
        if row["is_default"] and "cpu" in row["devices"]
    }  # fmt: skip
    ours = {name: side(*row) for name, row in PEER_ROWS.items()}
    assert ours.items() <= on_cpu.items()
    assert sorted(ours.values()) == sorted(set(on_cpu.values()))
