"""What a process really loads: import-linter reads the source, these ask the interpreter."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "pandas", "asv", "asv_runner", "matplotlib"}


def loaded_by(statement: str, cwd: Path) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    return {name.partition(".")[0] for name in json.loads(printed(code, cwd).splitlines()[-1])}


def modules_of(package: str) -> list[str]:
    folder = ROOT / package
    assert folder.is_dir()
    return [m.name for m in pkgutil.iter_modules([str(folder)], f"{package}.")]


@pytest.mark.parametrize(
    "name", ["sweep", "peer_rows", "driver", "launch", "journal", "options", "progress"]
)
def test_the_drivers_process_loads_no_torch(name: str, tmp_path: Path) -> None:
    assert "torch" not in loaded_by(f"import suites.{name}", tmp_path)


def test_results_load_no_torch_and_nothing_that_measures(tmp_path: Path) -> None:
    names = modules_of("results")
    assert len(names) > 5
    loaded = loaded_by(f"import {', '.join(names)}", tmp_path)
    assert not loaded & {"torch", "asv", "asv_runner", "attention", "models", "suites", "cli"}


def test_the_schema_is_the_lowest_floor(tmp_path: Path) -> None:
    before = loaded_by("pass", tmp_path)
    extra = loaded_by("import results.schema", tmp_path) - before
    assert extra - set(sys.stdlib_module_names) == {"results"}


def test_the_command_starts_without_anything_heavy(tmp_path: Path) -> None:
    assert not loaded_by("import cli", tmp_path) & HEAVY


def test_backends_load_neither_asv_nor_pandas(tmp_path: Path) -> None:
    loaded = loaded_by("import attention, models; attention.names()", tmp_path)
    assert "torch" in loaded
    assert not loaded & {"asv", "asv_runner", "pandas", "click", "rich", "suites", "results"}


def test_a_name_in_attention_is_the_class_it_says() -> None:
    import attention

    for name in attention.names():
        cls = attention.get(name)
        assert getattr(attention, cls.__name__) is cls
    with pytest.raises(AttributeError, match="NoSuchAttention"):
        _ = attention.NoSuchAttention


def printed(code: str, cwd: Path) -> str:
    """Return what a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# One of several will do: what else the machine does can only add to a time.


@pytest.mark.serial
def test_help_answers_at_once(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("attnbench")
    assert script.exists()

    def taken() -> float:
        start = time.perf_counter()
        subprocess.run([script, "--help"], cwd=tmp_path, check=True, capture_output=True)
        return time.perf_counter() - start

    assert any(taken() < 0.5 for _ in range(7))


@pytest.mark.serial
def test_importing_attention_costs_little_beyond_torch(tmp_path: Path) -> None:
    code = (
        "import time, torch\nstart = time.perf_counter()\n"
        "import attention\nprint(time.perf_counter() - start)"
    )
    assert any(float(printed(code, tmp_path)) < 0.2 for _ in range(5))


def test_building_a_case_lightly_leaves_the_compiler_alone(tmp_path):
    """Numbers drawn on the meta device would import it: seconds of every preflight."""
    code = (
        "import sys\n"
        "from results.schema import Arm, Case\n"
        "from suites.arms.levels import build_light\n"
        "for level in ('attention', 'layer'):\n"
        "    case = Case(kind='speed', level=level, mode='forward', arms=(Arm('linformer'),),\n"
        "        batch=1, num_heads=2, num_kv_heads=2, head_dim=8, seq_len=64, key_len=64,\n"
        "        device='cpu', dtype='float32', is_causal=False, threads=1, allocator='default',\n"
        "        compile=False, seed=0)\n"
        "    _, module = build_light(case.arms[0], case)\n"
        "    assert all(p.is_meta for p in module.parameters())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    assert printed(code, tmp_path).strip() == "False"
