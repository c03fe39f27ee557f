"""That a run goes on as it began: with the plug-ins and the code that its records are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suites.content_names import check_unchanged, content_name, file_digest
from suites.engine.journal import Journal
from suites.engine.session import MisuseError
from suites.plugin_folder import folder_digest
from suites.processes.launcher import LaunchError


def check_plugins(journal: Journal, told: Mapping[str, Any]) -> list[str]:
    """Check that a run goes on with the plug-ins that it began with, in equal versions.

    Args:
        journal: open.
        told: what `ask_about` gave.

    Returns:
        A sentence where there are others besides, or some are gone: what is measured now stands
        apart then.

    Raises:
        MisuseError: if the run holds another version of one.
    """
    now: Mapping[str, str] = told["environment"].get("plugins", {})
    used = {record["environment"] for record in journal.records}
    notices: dict[str, None] = {}
    for held in (journal.environments[a] for a in used if a in journal.environments):
        before = held.get("plugins")
        before = before if isinstance(before, dict) else {}
        for name in before.keys() & now.keys():
            if before[name] != now[name]:
                raise MisuseError(
                    f"--resume: the run in {journal.folder} was measured with {name} of "
                    f"{before[name]}, and now it is of {now[name]}: two versions would be mixed; "
                    "use the one that it began with, or another folder (--out)"
                )
        if other := sorted(before.keys() ^ now.keys()):
            notices[
                f"--resume: the run has results with and without the plug-in of "
                f"{', '.join(other)}: reports show them separately, as two environments"
            ] = None
    return list(notices)


def other_commits(journal: Journal, commit: str) -> list[str]:
    """Say in a sentence that a run goes on with another commit than it has records of."""
    before = dict.fromkeys(str(r["commit"]) for r in journal.records if r.get("commit"))
    others = [known for known in before if known != commit]
    if not others:
        return []
    return [
        f"--resume: the run has results of commit {', '.join(others)}, and now it is {commit}: "
        "reports show cases measured by both separately"
    ]


class PluginFiles:
    """The files and folders of a sweep's plug-ins, which must stay as they were when it began.

    Every case imports them anew, so that an edit would be measured from the next case on.

    Args:
        paths: of the files and folders.

    Raises:
        MisuseError: if one cannot be read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        try:
            self._names = {path.resolve(): content_name(_digest(path)) for path in paths}
        except ValueError as error:
            raise MisuseError(f"--plugin: {error}") from None

    @property
    def paths(self) -> list[str]:
        """Where they lie."""
        return [str(path) for path in self._names]

    def check(self) -> None:
        """Check that none has changed.

        Raises:
            LaunchError: naming the first that has.
        """
        for path, name in self._names.items():
            try:
                check_unchanged("--plugin", name, _digest(path), path)
            except ValueError as error:
                raise LaunchError(str(error)) from None


def _digest(path: Path) -> str:
    return folder_digest(path) if path.is_dir() else file_digest(path)
