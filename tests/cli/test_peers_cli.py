"""Suite peers from the command: which cases it measures, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import main
from results.schema import RECORDS

pytestmark = pytest.mark.usefixtures("in_process", "without_roofs")

TINY = (
    "peers", "--seq-len", "64", "--launches", "1", "--num-heads", "2", "--head-dim",
    "8", "--threads", "1",
)  # fmt: skip


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["run", *arguments])


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / RECORDS).read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [record for record in found if record["case"]["kind"] == "peer"]


@pytest.mark.slow
def test_run_measures_the_peers_that_are_named(tmp_path: Path):
    out = tmp_path / "run"
    modes = ("--mode", "training")
    done = run(*TINY, *modes, "--peers", "torch-sdpa,natten", "--out", str(out))
    assert done.exit_code == 0, done.output
    found = {
        (r["case"]["arms"][1]["name"], r["case"]["mode"], r["case"]["allocator"]): r
        for r in records(out)
    }
    assert len(found) == 2 * 2
    for (name, _, _), record in found.items():
        assert record["status"] == ("ok" if name == "peer:torch-sdpa" else "unsupported")
    assert "natten runs on cuda" in found["peer:natten", "training", "default"]["reason"]
    assert "sdpa and torch-sdpa training N=64" in done.output
    written = CliRunner().invoke(main, ["report", str(out), "--format", "md"])
    assert written.exit_code == 0, written.output
    assert "## Other libraries" in (out / "report.md").read_text()


@pytest.mark.slow
def test_peer_from_a_file_is_measured(tmp_path: Path):
    """With the options of our side given."""
    file = tmp_path / "my_peer.py"
    source = Path(__file__).parents[2] / "suites/peers/libraries/torch_flex_attention.py"
    shutil.copy(source, file)
    text = file.read_text().replace('"torch-flex-attention"', '"mine"')
    file.write_text(text.replace("torch.compile(flex_attention)", "flex_attention"))
    done = run(
        *TINY, "--peers", "mine", "--plugin", str(file), "--backend", "longformer:window=4",
        "--mode", "forward", "--allocator", "default", "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (record,) = records(tmp_path / "run")
    assert record["status"] == "ok", record["reason"]
    ours, theirs = record["case"]["arms"]
    assert (ours["options"], theirs["name"]) == ({"window": 4}, "peer:mine")
    assert record["arms"][1]["gate"]["relative_l2"] < 1e-5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--peers", "linformer"), "--peers: only with suite peers; got suite speed"),
        (("peers", "--level", "layer"), "--level: set by the peer"),
        (("peers", "--profile"), "--profile: only with suite speed; got suite peers"),
        ((*TINY, "--peers", "nobody"), "--peers: no peer 'nobody'; there are flash-attn"),
        ((*TINY, "--backend", "full"), "--backend: full is no peer's counterpart; expected one"),
    ],
)
def test_misuse_is_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str):
    done = run(*arguments, "--out", str(tmp_path / "run"))
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "run").exists()


def test_broken_plugin_is_named_before_the_peer_it_should_bring(tmp_path: Path):
    file = tmp_path / "broken.py"
    file.write_text("import no_such_module_anywhere\n")
    out = tmp_path / "run"
    done = run(*TINY, "--peers", "mine", "--plugin", str(file), "--out", str(out))
    assert done.exit_code == 2
    assert "--plugin: path:" in done.output
    assert "no_such_module_anywhere" in done.output


def test_list_says_what_stands_beside_what_and_what_is_missing():
    shown = CliRunner().invoke(main, ["list", "--peers"])
    assert shown.exit_code == 0, shown.output
    assert "torch-sdpa  (beside sdpa)" in shown.output
    assert "transformers-longformer  (beside longformer:window=256)" in shown.output
    assert "cpu: device: natten runs on cuda, not cpu" in shown.output
    told = json.loads(CliRunner().invoke(main, ["list", "--peers", "--json"]).output)
    by_name = {one["name"]: one for one in told}
    assert by_name["torch-sdpa"]["unavailable"]["cpu"] == []
    assert by_name["linformer"]["num_projections"] == 4
    assert by_name["local-attention"]["difference"]
