"""The backend, the peer and the task in examples/plugins are real: they load, run, and learn."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import attention
from attention import registry
from attention.testing import check
from models import TransformerBlock
from results.schema import Case
from suites.peers import registry as peers
from suites.tasks import registry as tasks
from suites.worker.run import answer

PLUGINS = Path(__file__).parents[2] / "examples" / "plugins"


@pytest.fixture
def peer() -> Iterator[Path]:
    """The example's peer; forgotten afterwards."""
    file = PLUGINS / "my_peer.py"
    known = dict(peers._registry)
    yield file
    peers._registry.clear()
    peers._registry.update(known)


@pytest.fixture
def task() -> Iterator[Path]:
    """The example's task; forgotten afterwards."""
    file = PLUGINS / "my_task.py"
    tasks.names()  # else those of the package, imported meanwhile, would be forgotten too
    known = dict(tasks._registry)
    yield file
    tasks._registry.clear()
    tasks._registry.update(known)


@pytest.fixture
def taught(tmp_path: Path, registry_restored: None) -> Path:
    """A copy of the example's backend, which tests may change; forgotten afterwards."""
    return Path(shutil.copy(PLUGINS / "my_attention.py", tmp_path))


def test_the_example_keeps_the_whole_contract(taught: Path) -> None:
    assert registry.load_file(taught) == ["elu_linear"]
    findings = check("elu_linear")
    assert [f for f in findings if f.status == "failed"] == []
    skipped = {f.check for f in findings if f.status == "skipped"}
    assert skipped == {"exactness", "future", "state", "value_dim"}  # what it does not declare


def test_two_files_of_one_name_are_not_mistaken_for_one(taught: Path, tmp_path: Path) -> None:
    registry.load_file(taught)
    other = tmp_path / "elsewhere" / taught.name
    other.parent.mkdir()
    other.write_text(taught.read_text())
    with pytest.raises(ValueError, match="'elu_linear' is already registered by"):
        registry.load_file(other)


def test_a_file_that_breaks_midway_leaves_nothing_behind(taught: Path) -> None:
    taught.write_text(taught.read_text() + "\nraise RuntimeError('no more')\n")
    modules, known = set(sys.modules), dict(registry._registry)
    with pytest.raises(ValueError, match="failed to import: RuntimeError: no more"):
        registry.load_file(taught)
    assert (set(sys.modules), dict(registry._registry)) == (modules, known)


def test_the_example_works_by_name_in_a_block(taught: Path) -> None:
    registry.load_file(taught)
    assert attention.describe("elu_linear")["family"] == "kernel"
    block = TransformerBlock(d_model=32, num_heads=4, attention="elu_linear")
    x = torch.randn(2, 9, 32)
    torch.testing.assert_close(block(x)[:1], block(x[:1]))
    with pytest.raises(attention.UnsupportedError, match="one sum over all keys"):
        block(x, is_causal=True)


def test_the_contract_notices_when_the_example_is_broken(taught: Path) -> None:
    source = taught.read_text()
    broken = source.replace("k = k * key_padding_mask[:, None, :, None]", "pass")
    assert broken != source
    taught.write_text(broken)
    registry.load_file(taught)
    failed = {f.check: f for f in check("elu_linear") if f.status == "failed"}
    assert {"reference", "padding"} <= failed.keys()
    assert "torch.randn" in failed["padding"].how


@pytest.mark.parametrize("mode", ["forward", "training"])
def test_the_peer_computes_what_it_says(peer: Path, mode: str) -> None:
    arms = [{"name": "sdpa"}, {"name": "peer:torch-multihead"}, {"name": "projections"}]
    case = {
        "kind": "peer", "level": "layer", "mode": mode, "arms": arms, "batch": 2, "num_heads": 2,
        "num_kv_heads": 2, "head_dim": 8, "seq_len": 64, "key_len": 64, "device": "cpu",
        "dtype": "float32", "is_causal": False, "threads": torch.get_num_threads(),
        "allocator": "default", "compile": False, "seed": 0,
    }  # fmt: skip
    request = {"do": "case", "case": case, "budget_s": 0.01, "deadline_s": 60.0}
    record = answer({**request, "plugins": [str(peer)]})["record"]
    assert record["status"] == "ok", record["reason"]
    gate = record["arms"][1]["gate"]
    assert gate["relative_l2"] <= gate["budget"]
    assert ("gradient" in gate) == (mode == "training")


@pytest.mark.parametrize("is_causal", [True, False])
def test_the_task_is_learnt(task: Path, is_causal: bool) -> None:
    case = {
        "kind": "task", "level": "model", "mode": "training", "arms": [{"name": "sdpa"}],
        "batch": 32, "num_heads": 0, "num_kv_heads": 0, "head_dim": 0, "seq_len": 16,
        "key_len": 16, "device": "cpu", "dtype": "float32", "is_causal": is_causal,
        "threads": torch.get_num_threads(), "allocator": "default", "compile": False, "seed": 0,
        "task": "majority", "training": "steps:amount=40,lr=0.003",
        "model": f"{'decoder' if is_causal else 'encoder'}:d_model=32,num_layers=1",
    }  # fmt: skip
    request = {"do": "case", "case": Case.from_json(case).to_json(), "budget_s": 0.01}
    record = answer({**request, "deadline_s": 60.0, "plugins": [str(task)]})["record"]
    assert record["status"] == "ok", record["reason"]
    assert record["arms"][0]["metrics"]["accuracy"]["value"] > 0.85
    assert record["arms"][0]["quality"]["chance"] == 0.5
