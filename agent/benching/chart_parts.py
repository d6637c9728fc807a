"""What the chart is drawn with: text, bars, axes and the style sheet. Pure, and the same for the same figures."""

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from agent.errors import bounded

WIDTH = 880
LEFT = 150
RIGHT = 560
"""Bars go from LEFT to RIGHT; handlers' names stand before them, figures behind."""

_NAME_LIMIT = 18

COLOURS = {
    # component or part: light, dark; told apart also by lightness, for those who see no hues
    "vmm": ("#1f5fa8", "#82b8f2"),
    "virtiofsd": ("#b87400", "#e5b44f"),
    "shim": ("#6a3d8f", "#c39be0"),
    "pause": ("#5f9e7a", "#8fd6ae"),
    "other": ("#8a929b", "#767f88"),
    "bar": ("#1f5fa8", "#82b8f2"),
}


def _style() -> str:
    light = "".join(f".{name}{{fill:{colours[0]}}}" for name, colours in COLOURS.items())
    dark = "".join(f".{name}{{fill:{colours[1]}}}" for name, colours in COLOURS.items())
    return (
        'text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-size:13px;'
        "fill:#1c2024}.h{font-size:15px;font-weight:600}.t{font-size:18px;font-weight:600}"
        ".d{fill:#5a626b;font-size:12px}.bg{fill:#fff}.g{stroke:#dadde1}.w{stroke:#1c2024;stroke-width:2}"
        f"{light}"
        "@media(prefers-color-scheme:dark){text{fill:#e4e7ea}.d{fill:#9ba4ae}.bg{fill:#121517}.g{stroke:#32383e}"
        f".w{{stroke:#e4e7ea}}{dark}}}"
    )


STYLE = _style()
"""No custom properties: not every renderer of SVG has them."""


def clean(words: str, limit: int = 400) -> str:
    """Text that is not ours, fit for XML: its control characters are made visible, its markup stays text.

    Args:
        words: the text.
        limit: characters that are kept.
    """
    return escape(bounded(words, limit))


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text; `y` is its base line."""
    attributes = f' class="{kind}"' if kind else ""
    attributes += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{clean(words)}</text>'


def label(y: float, name: str) -> str:
    """A handler's name before its bar; a long one is cut, and whole when pointed at."""
    if len(name) <= _NAME_LIMIT:
        return text(LEFT - 10, y, name, anchor="end")
    cut = text(LEFT - 10, y, f"{name[: _NAME_LIMIT - 1]}…", anchor="end")
    return cut.replace("</text>", f"<title>{clean(name)}</title></text>")


def bar(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A bar; never so thin that it is not seen."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" class="{kind}"/>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def ticks(highest: float) -> Sequence[float]:
    """Round numbers from 0 to the first one that is not below `highest`: four to eight of them."""
    step = 1e-6
    for power in range(-6, 16):
        for factor in (1, 2, 5):
            step = factor * 10.0**power
            if step * 6 >= highest:
                return [step * n for n in range(_count(highest, step) + 1)]
    return [0.0, step]


def _count(highest: float, step: float) -> int:
    return max(1, -int(-highest / step // 1)) if highest > 0 else 1


class Axis:
    """A horizontal scale from 0.

    Args:
        highest: the largest value that is drawn.
    """

    def __init__(self, highest: float) -> None:
        self._ticks = ticks(highest)

    def at(self, value: float) -> float:
        """Where a value is."""
        return LEFT + (RIGHT - LEFT) * value / self._ticks[-1]

    def grid(self, top: float, bottom: float) -> Iterator[str]:
        """Its lines, and the numbers below them."""
        for tick in self._ticks:
            x = self.at(tick)
            yield line(x, top, x, bottom, "g")
            yield text(x, bottom + 15, f"{tick:g}", "d", "middle")
