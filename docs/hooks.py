"""What mkdocs is told beyond docs/: pages of the root, and the files that pages link to.

The site is made of the files that are read in the repository too, and a link that works there
works here. README.md is no page of it: docs/index.md is the first. A file outside docs/ that a
page links to becomes a page where it is source text, and is copied where not; a folder becomes a
list of its files.

mkdocs calls the functions ``on_…``; `mkdocs.yml` names this file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages of the root, to their place on the site."""

FILES = "files"
"""The site's folder for files outside docs/."""

SHOWN = {".py": "python", ".toml": "toml", ".yml": "yaml", ".cff": "yaml", "": "text"}
"""Suffixes of files that are shown as a page, to their language; others are copied."""

LINK = re.compile(r'(\]\(|\b(?:src|srcset|href)=")(?![a-z]+:|#|/)([^)\s"#]+)')
"""A link within the repository, in Markdown or HTML; its file is the second group."""

PICTURE = re.compile(
    r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)">\s*'
    r'<img alt="([^"]*)" src="([^"]+)">\s*</picture>'
)

UNIT = re.compile(r"(?<=\d) (?=(?:%|[mµn]?s|[KMGT]?i?B)(?![^\W_]))")
"""Where a cell of a table is not broken: between a number and its unit."""

OPTION = re.compile(r"`(--[^`\n]{1,24})`")
"""An option within a sentence, which is not broken behind its hyphens."""

FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)

ROW = re.compile(r"^\|.*$", re.MULTILINE)

COMMENT = re.compile(r"^<!--.*?-->$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages and, as far as pages link to them, files outside docs/."""
    for name, place in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))
    linked = {
        target
        for file in files.documentation_pages()
        for target in _targets(file.content_string, source(file.src_uri))
        if place_of(target) not in files.src_uris
    }
    for target in sorted(linked):
        _add(target, files, config)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the site, show the picture of the page's colours, drop comments."""
    here = page.file.src_uri

    def mend(text: str) -> str:
        text = PICTURE.sub(r"![\2](\3#only-light)![\2](\1#only-dark)", COMMENT.sub("\n", text))
        text = ROW.sub(lambda row: UNIT.sub("\N{NO-BREAK SPACE}", row[0]), text)
        text = OPTION.sub(r"`\1`{ .option }", text)
        return LINK.sub(lambda found: found[1] + _relative(found[2], here, files), text)

    return _outside_fences(markdown, mend)


def source(place: str) -> str:
    """Return where in the repository a page of the site comes from."""
    for name, page in PAGES.items():
        if place == page:
            return name
    if place.startswith(f"{FILES}/"):
        return place.removeprefix(f"{FILES}/").removesuffix(".md")
    return f"docs/{place}"


def place_of(target: str) -> str:
    """Return the place on the site of a path of the repository."""
    if target in PAGES:
        return PAGES[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    path = ROOT / target
    if path.is_dir():
        return f"{FILES}/{target}/index.md"
    return f"{FILES}/{target}.md" if path.suffix in SHOWN else f"{FILES}/{target}"


def _targets(text: str, of: str) -> Iterator[str]:
    """Return what a page links to, as paths of the repository; what is not there is left out."""
    for _, link in LINK.findall(FENCE.sub("", text)):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(of), link))
        if not target.startswith("..") and (ROOT / target).exists():
            yield target


def _relative(link: str, here: str, files: Files) -> str:
    """Return a link as the site has it; one that leads nowhere stays, and mkdocs complains."""
    for target in _targets(f"]({link}", source(here)):
        place = place_of(target)
        if place in files.src_uris:
            return posixpath.relpath(place, posixpath.dirname(here) or ".")
    return link


def _outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Change a text but for its blocks of code."""
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def _add(target: str, files: Files, config: MkDocsConfig) -> None:
    """Add a file or folder of the repository to the site."""
    path, place = ROOT / target, place_of(target)
    if place in files.src_uris:
        return
    if path.is_dir():
        inside = [p for p in sorted(path.iterdir()) if not _is_left_out(p)]
        for one in inside:
            _add(f"{target}/{one.name}", files, config)
        rows = [f"- [{p.name}{'/' * p.is_dir()}]({p.name})" for p in inside]
        about = path / "README.md"
        head = about.read_text() if about.exists() else f"# {target}/\n"
        given = {"content": "\n".join([head, "Files:", "", *rows, ""])}
    elif path.suffix in SHOWN:
        shown = f"```{SHOWN[path.suffix]}\n{path.read_text()}```"
        given = {"content": f"# {target}\n\n{shown}\n"}
    else:
        given = {"abs_src_path": str(path)}
    level = InclusionLevel.NOT_IN_NAV
    files.append(File.generated(config, place, inclusion=level, **given))


def _is_left_out(path: Path) -> bool:
    """Say whether a file of a folder is not shown: made by tools, or told in the folder's page."""
    made = path.name.startswith((".", "__")) or path.suffix == ".egg-info"
    return made or path.is_symlink() or path.name == "README.md"
