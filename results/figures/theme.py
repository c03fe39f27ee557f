"""How figures look: one colour and marker per backend, in every figure, light and dark.

The colours of the seven differ in lightness as well as hue, and no two share a marker, so that
they can be told apart without colour vision and in grey print.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.collections import Collection
from matplotlib.colors import to_rgb, to_rgba_array
from matplotlib.figure import Figure

_NAMED = {
    "full": ("#5b616b", "#a9b0bb", "o"),
    "sdpa": ("#0072b2", "#56a9e8", "s"),
    "xformers": ("#882255", "#d873ae", "P"),
    "longformer": ("#c65400", "#f08a3c", "^"),
    "bigbird": ("#a87600", "#e6b333", "D"),
    "linformer": ("#00805d", "#2fc798", "v"),
    "performer": ("#7e44bb", "#b690ee", "X"),
    "identity": ("#8c8f94", "#85898f", "d"),
}  # fmt: skip
_OTHERS = (
    ("#1c8aa3", "#5fcbe0", "<"),
    ("#c2356b", "#ff86ae", ">"),
    ("#5f6d00", "#bccb3f", "p"),
    ("#7a4a21", "#c79a70", "h"),
    ("#3d4db3", "#8f9cf5", "*"),
)
PARTS = {
    "products": ("#332288", "#8577e6"),
    "fused": ("#88ccee", "#88ccee"),
    "exponentials": ("#cc6677", "#cc6677"),
    "copies": ("#ddcc77", "#ddcc77"),
    "passes": ("#44aa99", "#44aa99"),
    "compiled": ("#aa4499", "#aa4499"),
    "between": ("#c3c6cb", "#565c66"),
}
"""Parts of a call: Tol's muted scheme, told apart without colour vision; no backend's colours."""

_DASHES: tuple[tuple[float, ...] | str, ...] = ("", (4, 1.5), (1, 1), (5, 1, 1, 1), (7, 2))


@dataclass(frozen=True)
class Theme:
    """Colours of everything that is not a series.

    Attributes:
        ink: text and axes.
        grid: grid lines.
        paper: the background; ``none`` = transparent.
    """

    ink: str
    grid: str
    paper: str


INK = "#1b1e23"
"""Of text and axes, as figures are drawn."""

LIGHT = Theme(ink=INK, grid="#dfe2e6", paper="#ffffff")
DARK = Theme(ink="#e4e6ea", grid="#363b43", paper="#15181d")
PAGE = Theme(ink=INK, grid=LIGHT.grid, paper="none")
"""For a page that maps the light colours to its own (see `css_variables`)."""


@dataclass(frozen=True)
class Look:
    """The colour, marker and dash pattern of one series.

    `css_variables` has the colour's counterpart on dark paper.
    """

    light: str
    marker: str
    dashes: tuple[float, ...] | str


def looks(series: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Look]:
    """Return a look for every (backend, options): one colour a backend, one dash a variant."""
    wanted = sorted(set(series))
    strangers = [b for b in dict.fromkeys(b for b, _ in wanted) if b not in _NAMED]
    base = dict(_NAMED)
    for index, backend in enumerate(strangers):
        base[backend] = _OTHERS[index % len(_OTHERS)]
    result: dict[tuple[str, str], Look] = {}
    for backend in dict.fromkeys(b for b, _ in wanted):
        light, _, marker = base[backend]
        variants = [o for b, o in wanted if b == backend]
        for index, options in enumerate(variants):
            result[backend, options] = Look(light, marker, _DASHES[index % len(_DASHES)])
    return result


@functools.cache
def css_variables() -> Mapping[str, tuple[str, str, str]]:
    """Return the colours a page maps: hex in the figure → (variable, light, dark)."""
    mapped = {
        INK: ("--ink", INK, DARK.ink),
        LIGHT.grid: ("--grid", LIGHT.grid, DARK.grid),
    }
    for index, (light, dark, _) in enumerate([*_NAMED.values(), *_OTHERS]):
        mapped[light] = (f"--s{index}", light, dark)
    for index, (light, dark) in enumerate(PARTS.values()):
        mapped[light] = (f"--p{index}", light, dark)
    return mapped


_COLOURED = (
    "color", "facecolor", "edgecolor", "markerfacecolor", "markerfacecoloralt", "markeredgecolor",
)  # fmt: skip
"""What of an artist has a colour, as its methods are named."""


def recolour(figure: Figure, colours: Mapping[str, str]) -> None:
    """Give everything in a figure that has one of some colours another; opacities stay.

    Args:
        figure: is changed.
        colours: as hex, the old to the new.
    """
    known = {to_rgb(old): to_rgb(new) for old, new in colours.items()}
    for artist in figure.findobj():
        for name in _COLOURED:
            own = getattr(artist, f"get_{name}", None)
            change = getattr(artist, f"set_{name}", None)
            if own is None or change is None:
                continue
            before = to_rgba_array(own())
            after = [(*known.get(tuple(rgb), tuple(rgb)), alpha) for *rgb, alpha in before]
            if after and not np.array_equal(after, before):
                change(after if isinstance(artist, Collection) else after[0])


@contextlib.contextmanager
def styled(theme: Theme, *, salt: str = "attnbench") -> Iterator[None]:
    """Draw within this style.

    Args:
        theme: light, dark, or for a page.
        salt: makes the ids of an SVG differ from those of the others on its page.
    """
    rc: Any = {
        "text.color": theme.ink, "axes.labelcolor": theme.ink, "axes.edgecolor": theme.ink,
        "axes.titlecolor": theme.ink, "xtick.color": theme.ink, "ytick.color": theme.ink,
        "grid.color": theme.grid, "figure.facecolor": theme.paper, "axes.facecolor": "none",
        "savefig.facecolor": theme.paper, "legend.frameon": False, "axes.grid": True,
        "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11,
        "axes.titleweight": "bold", "axes.titlelocation": "left", "font.size": 9.5,
        "axes.labelsize": 9.5, "legend.fontsize": 8.5, "xtick.labelsize": 9, "ytick.labelsize": 9,
        "lines.linewidth": 1.8, "lines.markersize": 6, "font.family": "DejaVu Sans",
        # What moves a title away from ticks on top looks at every tick, and there are none.
        "axes.titley": 1.0,
        "svg.fonttype": "none", "svg.hashsalt": salt, "text.parse_math": False,
        "axes.unicode_minus": True, "figure.constrained_layout.h_pad": 0.08,
        "axes.linewidth": 0.8, "grid.linewidth": 0.7, "xtick.major.width": 0.8,
        "ytick.major.width": 0.8, "xtick.minor.size": 0, "ytick.minor.size": 0,
    }  # fmt: skip
    with sns.axes_style("ticks"), mpl.rc_context(rc), warnings.catch_warnings():
        # A backend's name may hold letters that the font lacks; the page's font will have them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield
