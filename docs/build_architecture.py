"""Write what docs/architecture.md and architecture_rooms.md say of the import graph.

    python docs/build_architecture.py

A room is a package of a top-level package, or one of its modules; what it holds is the first line
of its docstring. The tests compare.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE, ROOMS_PAGE = (ROOT / "docs" / f"architecture{end}.md" for end in ("", "_rooms"))
PACKAGES = ("attention", "models", "suites", "results")
BEGIN, END = "<!-- generated: {} -->", "<!-- end -->"


def module_name(file: Path) -> str:
    """Return a file's dotted name."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Return the room of a module: the first two parts of its name."""
    return ".".join(module.split(".")[:2])


def imported_by(file: Path, modules: Iterable[str]) -> Iterator[str]:
    """Yield the project's modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [
                full if (full := f"{node.module}.{alias.name}") in modules else node.module
                for alias in node.names
            ]
        else:
            continue
        yield from (name for name in names if name in modules)


@cache
def rooms() -> dict[str, set[str]]:
    """Return every room with the rooms that it imports."""
    files = [f for package in PACKAGES for f in (ROOT / package).rglob("*.py")]
    modules = {module_name(f): f for f in files}
    graph: dict[str, set[str]] = {}
    for module, file in modules.items():
        if "." not in module:
            continue  # a package's front door imports what it offers
        room = graph.setdefault(room_of(module), set())
        room |= {room_of(name) for name in imported_by(file, modules) if "." in name}
    return {room: others - {room} for room, others in graph.items()}


def purpose(room: str) -> str:
    """Return the first line of a room's docstring."""
    place = ROOT.joinpath(*room.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").strip()


def floors(graph: Mapping[str, set[str]], package: str) -> list[list[str]]:
    """Return a package's rooms by floor: each imports those below it alone, the lowest is last."""
    own = {room: {o for o in graph[room] if o.startswith(f"{package}.")} for room in graph
           if room.startswith(f"{package}.")}  # fmt: skip
    height: dict[str, int] = {}

    def measure(room: str) -> int:
        if room not in height:
            height[room] = 1 + max((measure(other) for other in own[room]), default=-1)
        return height[room]

    for room in own:
        measure(room)
    return [sorted(r for r in own if height[r] == n) for n in range(max(height.values()), -1, -1)]


def picture(graph: Mapping[str, set[str]]) -> str:
    """Draw the floors of every package."""
    lines = []
    for package in reversed(PACKAGES):
        lines.append(f"{package}/")
        for row in floors(graph, package):
            names = "  ".join(room.removeprefix(f"{package}.") for room in row)
            lines += [f"  {line}" for line in _wrapped(names, 92)]
            lines.append("    ↓")
        lines[-1] = ""
    return "```text\n" + "\n".join(lines).rstrip() + "\n```"


def _wrapped(names: str, width: int) -> list[str]:
    lines = [""]
    for name in names.split("  "):
        if len(lines[-1]) + len(name) + 2 > width:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + name
    return lines


def table(graph: Mapping[str, set[str]], package: str) -> str:
    """Write a package's rooms: what each holds, and what it imports."""
    rows = ["| room | holds | imports |", "|---|---|---|"]
    for floor in floors(graph, package):
        for room in floor:
            others = ", ".join(sorted({_shown(other, package) for other in graph[room]}))
            rows.append(f"| `{room.removeprefix(f'{package}.')}` | {purpose(room)} | {others} |")
    return "\n".join(rows)


def _shown(room: str, package: str) -> str:
    """Name a room within its package; of others the package, of results its schema."""
    if room.startswith(f"{package}."):
        return f"`{room.removeprefix(f'{package}.')}`"
    return room if room == "results.schema" else room.split(".")[0]


def built() -> dict[Path, str]:
    """Return both pages with their generated parts made anew."""
    graph = rooms()
    return {
        PAGE: _filled(PAGE, {"floors": picture(graph)}),
        ROOMS_PAGE: _filled(ROOMS_PAGE, {name: table(graph, name) for name in PACKAGES}),
    }


def _filled(page: Path, parts: Mapping[str, str]) -> str:
    text = page.read_text("utf-8")
    for name, part in parts.items():
        begin = BEGIN.format(name)
        before, found, rest = text.partition(begin)
        if not found:
            raise ValueError(f"{page.name}: no part {name!r}")
        text = f"{before}{begin}\n\n{part}\n\n{END}{rest.partition(END)[2]}"
    return text


if __name__ == "__main__":
    for page, text in built().items():
        page.write_text(text, "utf-8")
