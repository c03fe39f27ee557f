"""The package in examples/third_party: found by its entry point, and tested by its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from attention.backends.sdpa import SDPAAttention
from attention.testing import contract

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "third_party"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder on the path with what an installer would put there, from its pyproject."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())
    target = tmp_path_factory.mktemp("site")
    for module in project["tool"]["setuptools"]["py-modules"]:
        (target / f"{module}.py").write_text((PACKAGE / f"{module}.py").read_text())
    name, version = (project["project"][key] for key in ("name", "version"))
    info = target / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project["project"]["entry-points"]
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in own.items())
            for group, own in groups.items()
        )
    )
    return {**os.environ, "PYTHONPATH": f"{target}{os.pathsep}{ROOT}"}


def call(environment: dict[str, str], *words: str) -> str:
    found = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_its_tests_pass(installed: dict[str, str]) -> None:
    told = call(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(PACKAGE / "tests"))
    assert " passed" in told
    assert "failed" not in told


def test_the_command_finds_it(installed: dict[str, str]) -> None:
    assert "cosformer  (" in call(installed, "-m", "cli", "list")


def test_the_helper_fails_and_skips_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    case = contract("sdpa")
    case("shapes")
    with pytest.raises(pytest.skip.Exception, match=r"."):
        contract("linformer")("future")
    right = SDPAAttention.attend
    monkeypatch.setattr(
        SDPAAttention, "attend",
        lambda self, *args, **more: torch.nan_to_num(right(self, *args, **more)) * 1.001,
    )  # fmt: skip
    with pytest.raises(pytest.fail.Exception, match=r"(?s)off.*import|import"):
        case("reference")
