"""The small parts of the status page: foreign text made fit for HTML; times and lengths of time for people."""

from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from agent.errors import EVIDENCE_LIMIT, bounded
from agent.reasons import CATALOGUE

_NAME_LIMIT = 300  # characters of what should be a name or a sentence
_TEXT_LIMIT = EVIDENCE_LIMIT + 100  # what was bounded before passes unchanged, its mark of the cut included
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def text(foreign: object) -> str:
    """Foreign text: bounded, control and direction characters made visible, escaped."""
    return escape(bounded(str(foreign), _TEXT_LIMIT))


def name(foreign: object) -> str:
    """Foreign text that should be short and of one line."""
    line = " ".join(str(foreign)[: _NAME_LIMIT + 1].split())
    return text(line if len(line) <= _NAME_LIMIT else f"{line[: _NAME_LIMIT - 1]}…")


def prose(foreign: object) -> str:
    """Sentences; what stands in backticks in them is a command or a name."""
    parts = text(foreign).split("`")
    if len(parts) % 2 == 0:  # a backtick without its fellow is only a backtick
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if odd % 2 else part for odd, part in enumerate(parts))


def code(reason: str, *, link: bool = False) -> str:
    """A reason's code, as a link to its finding if the page has one."""
    shown = f"<code>{name(reason)}</code>"
    return f'<a href="#{quote(reason)}">{shown}</a>' if link and reason in CATALOGUE else shown


def evidence(foreign: object) -> str:
    """What was seen, with its lines as they were; nothing if it is empty."""
    return f"<pre>{text(foreign)}</pre>\n" if foreign else ""


def remedy(foreign: object) -> str:
    """What to do; nothing if it is empty."""
    return f'<p class="remedy">{prose(foreign)}</p>\n' if foreign else ""


def plural(number: int, word: str) -> str:
    """A number of things: "1 check", "2 checks"."""
    return f"{number} {word}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """A length of time for people, in its two largest units: "0.4 s", "3 min 5 s", "2 d 4 h"."""
    tenths = round(max(seconds, 0.0) * 10)
    if tenths < 100:
        return f"{tenths / 10:g} s"
    rest = round(seconds)
    parts: list[tuple[int, str]] = []
    for size, unit in _UNITS:
        number, rest = divmod(rest, size)
        if number or parts:
            parts.append((number, unit))
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number)


def relative(when: float, now: float) -> str:
    """A moment as seen from another: "3 min 5 s ago", "in 12 s", "just now"; both in Unix seconds."""
    away = round(abs(now - when))
    if away < 1:
        return "just now"
    return f"{duration(away)} ago" if when < now else f"in {duration(away)}"


def absolute(when: float) -> str:
    """A moment in Unix seconds as UTC."""
    iso = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f'<time class="small dim" datetime="{iso}">{iso}</time>'


def moment(when: float, now: float) -> str:
    """A moment both ways."""
    return f"{relative(when, now)} {absolute(when)}"


def icon(colour: str) -> str:
    """A dot of the state's colour for the browser's tab, where many nodes' pages may be open; a data address."""
    dot = f'<circle cx="1" cy="1" r="1" fill="{colour}"/>'
    picture = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 2">{dot}</svg>'
    return f"data:image/svg+xml,{quote(picture)}"
