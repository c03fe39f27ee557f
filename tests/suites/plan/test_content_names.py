"""Names of content: what a case says in place of a path."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from suites.content_names import corpus_name, file_digest, find, folder_name, is_content_name

NAMES = ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "listops"
    made.mkdir()
    for name in NAMES:
        (made / name).write_text(f"Source\tTarget\n{name}\t1\n")
    return made


def test_a_name_says_what_is_read_and_not_where(folder: Path, tmp_path: Path) -> None:
    name = folder_name(folder)
    assert is_content_name(name)
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    (copy / "notes.txt").write_text("does not count")
    for part in reversed(NAMES):
        (copy / part).write_bytes((folder / part).read_bytes())
    assert folder_name(copy) == name
    assert find("data", name, {name: copy}) == copy
    (copy / "basic_val.tsv").rename(copy / "basic_valid.tsv")
    assert folder_name(copy) != name
    content = (folder / "basic_val.tsv").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert file_digest(folder / "basic_val.tsv") == digest
    assert corpus_name(folder / "basic_val.tsv") == f"sha256-{digest[:12]}"


def test_what_is_no_file_or_no_folder_has_no_name(folder: Path, tmp_path: Path) -> None:
    for call, path, message in (
        (corpus_name, folder, "^listops: expected a file, got a folder"),
        (corpus_name, tmp_path / "gone", "^gone: expected a file, got nothing there"),
        (
            folder_name,
            folder / "basic_val.tsv",
            r"^basic_val.tsv: expected a folder .*got a file",
        ),
        (folder_name, tmp_path / "gone", "^gone: expected a folder .*, got nothing there"),
        (folder_name, tmp_path, "expected .tsv files in this folder, got none"),
    ):
        with pytest.raises(ValueError, match=message):
            call(path)
    assert not is_content_name("sha256-0123456789AB")
    assert not is_content_name("sha256-0123456789ab\n")


def test_the_drivers_part_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, suites.content_names\nprint({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
