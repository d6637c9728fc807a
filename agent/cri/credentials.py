"""Credentials in any text, known by the word before them or by their own shape: nobody is shown them.

Every rule works on one line and is linear in its length, since logs hold what tenants write. Where a rule cannot tell
where a credential ends it takes too much rather than too little.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

MARK = "[masked]"
"""What stands in a credential's place."""

_WORDS = (
    r"(?:(?<!by)(?<!com)(?<!to )pass(?!ed\b|es\b|ing\b|[-_ ]?thr|ive|age|fd)"
    r"|auth(?!or(?!i[sz])|entic(?!at))"
    r"|token(?!i[sz])|secret|credential|cookie|bearer|[a-z]_pwd"
    r"|(?:api|access|account|encryption|private|shared|signing|storage)[-_ ]?keys?(?![a-z]))"
)
"""Words that stand before credentials; `passed`, `passthrough`, `author` and their like are none of them."""
_WORD = re.compile(_WORDS, re.IGNORECASE)
_STEMS = ("pass", "auth", "token", "secret", "credential", "cookie", "bearer", "_pwd", "key")
"""One of them is in each of the words: a look that costs a fiftieth of theirs."""

_QUOTED = r"(?P<quote>\\*(?:\"{3}|'{3}|[\"']))(?P<quoted>.*?)(?:(?<!\\)(?P=quote)|$)"
_GROUP = r"(?P<group>\[(?!masked\])[^\]]*\]?|\{[^{}]*\})"
_BARE = r"(?P<bare>(?!\[masked\]|[{\[\"'\\])(?:(?!\\*[\"'](?:[\s,}\]):]|$))\S)+)"
_ASSIGNED = re.compile(
    rf"(?P<name>{_WORDS}[\w.-]{{0,60}}\\*[\"']?\s{{0,8}}(?::=|=>|={{1,2}}|:)\s{{0,8}})(?:{_QUOTED}|{_GROUP}|{_BARE})",
    re.IGNORECASE,
)
_WHOLE_LINE = re.compile(
    rf"^(?P<lead>[\s#>-]{{0,80}}[\"']?[\w.-]{{0,60}}?{_WORDS}[\w.-]{{0,60}}[\"']?\s{{0,8}}[:=]\s{{0,8}})[^\s\"'\[{{].*\s.*$"
    r"|(?P<phrase>(?:passw(?:or)?d|passphrase|authorization|cookie)[\"']?:\s{0,8})(?!\[masked\])[^\s\"'\[{\\].*$",
    re.IGNORECASE,
)
"""An assignment whose value is words without quotes, alone on its line, or of a name that is always a credential's."""
_FLAG = re.compile(
    rf"(?P<flag>(?<!\S)(?:\\*[\"'])?--?[\w-]{{0,40}}?{_WORDS}[\w-]{{0,40}}(?:[\"',\\\s]{{1,8}}))(?!-|\[masked\])[^\s\"',]+",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"(?P<flag>(?<!\S)(?:-u|--user|--proxy-user)[\"',\s=]{1,6})[^\s\"',:]{1,80}:[^\s\"',]+")

_INNOCENT = {"true", "false", "null", "none", "nil", "<nil>", "", "…"}

_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    # Who is written into an address: RFC 3986, 3.2.1. The second is a password with a slash in it, and no port.
    (re.compile(r"(?<=://)(?!\[masked\]@)[^\s/?#\"'<>]{1,400}@"), f"{MARK}@"),
    (re.compile(r"(?<=://)[^\s/@:\"'\[]{1,200}:(?!\d{1,5}(?:/|$))[^\s\"'<>]{1,400}@"), f"{MARK}@"),
    (re.compile(r"(?<![\w/@.+:-])[\w.+-]{1,64}:[^\s:@/\"']{1,200}@(?!sha\d)(?=[\w.-])"), f"{MARK}@"),
    # JSON Web Tokens, and the tokens of those whose registries and clusters nodes talk to, by their makers' prefixes.
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"), MARK),
    (re.compile(r"\b(?:gh[a-z]_|github_pat_|glpat-|dckr_[a-z]+_|npm_|xox[a-z]-|hvs\.|sk-)[\w-]{16,}"), MARK),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), MARK),
    (re.compile(r"\bAGE-SECRET-KEY-1[0-9A-Z]+"), MARK),
    (re.compile(r"(?<![\w.-])[a-z0-9]{6}\.[a-z0-9]{16}(?![\w.-])"), MARK),  # kubeadm's bootstrap tokens
    (re.compile(r"\bK10[0-9a-f]{20,}::\S+"), MARK),  # k3s
)
_SCHEME = re.compile(r"(?P<scheme>\b(?:basic|bearer|negotiate|digest)\s{1,4})(?P<value>[\w+/=.~-]{6,})", re.IGNORECASE)
_SIGNED = re.compile(
    r"(?P<name>[?&;](?:x-(?:amz|goog|ms)-)?(?:sig|signature|security-token)=)[^&\s\"']+", re.IGNORECASE
)
_LONG = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")

_BEGIN = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----.*?(?P<end>-----END [A-Z0-9 ]{0,60}-----|$)"
)
_END = re.compile(r"-----END [A-Z0-9 ]{0,60}-----")
_KEY_LINES = 300
"""Lines that a private key may have; an RSA key of 16384 bits has 200. Who only writes its first line hides no more."""


def is_secret(text: str) -> bool:
    """Whether a text may hold a credential, by the words in it."""
    return _may_be_secret(text) and _WORD.search(text) is not None


def without(lines: Iterable[str]) -> list[str]:
    """Lines of any text fit to be shown: as many as there were, with a mark in each credential's place."""
    shown = []
    inside = 0
    for line in lines:
        ends = inside and _END.search(line)
        if inside:
            shown.append(MARK)
            inside = 0 if ends else inside - 1
            continue
        begins = _BEGIN.search(line)
        if begins:
            inside = 0 if begins["end"] else _KEY_LINES
            line = _BEGIN.sub(MARK, line)  # noqa: PLW2901 - one line, made fit step by step
        shown.append(_line(line))
    return shown


def assigned(line: str) -> Iterator[str]:
    """The values that stand behind words for credentials in a line, without their quotes."""
    for match in _ASSIGNED.finditer(line):
        value = match["quoted"] or match["bare"]
        if value and value.lower() not in _INNOCENT:
            yield value


def hidden_tree(value: object, *, secret: bool = False) -> tuple[object, int]:
    """A tree as JSON or TOML have it, fit to be shown, and how many of its values hold a mark now.

    Args:
        value: the tree.
        secret: whether a name above it is one of a credential.
    """
    match value:
        case dict():
            made = {name: hidden_tree(item, secret=secret or names_secret(str(name))) for name, item in value.items()}
            return {name: item for name, (item, _) in made.items()}, sum(count for _, count in made.values())
        case list():
            # A program's arguments: the value of a flag is the one behind it.
            behind = [False, *(isinstance(item, str) and _takes_secret(item) for item in value[:-1])]
            items = [hidden_tree(item, secret=secret or flagged) for item, flagged in zip(value, behind, strict=False)]
            return [item for item, _ in items], sum(count for _, count in items)
        case str() if secret:
            return (value, 0) if value.lower() in _INNOCENT or value == MARK else (MARK, 1)
        case str():
            shown = "\n".join(without(value.split("\n")))
            return shown, int(shown != value)
        case int() | float() if secret and not isinstance(value, bool):
            return MARK, 1
        case _:
            return value, 0


def names_secret(name: str) -> bool:
    """Whether what has this name is a credential: by its words, or as the headers and environments of programs."""
    return is_secret(name) or re.fullmatch(r"(?i)headers?|env|environment|key", name) is not None


def _may_be_secret(text: str) -> bool:
    folded = text.lower()
    return any(stem in folded for stem in _STEMS)


def _takes_secret(argument: str) -> bool:
    return argument.startswith("-") and "=" not in argument and is_secret(argument)


def _line(line: str) -> str:
    for pattern, shown in _SHAPES:
        line = pattern.sub(shown, line)
    line = _SCHEME.sub(_scheme, line)
    line = _SIGNED.sub(rf"\g<name>{MARK}", line)
    if _may_be_secret(line):
        line = _WHOLE_LINE.sub(lambda m: f"{m['lead'] or m['phrase']}{MARK}", line)
        line = _ASSIGNED.sub(_assigned, line)
        line = _FLAG.sub(rf"\g<flag>{MARK}", line)
    line = _LOGIN.sub(rf"\g<flag>{MARK}", line)
    return _LONG.sub(lambda m: MARK if _is_random(m[0]) else m[0], line)


def _assigned(match: re.Match[str]) -> str:
    if match["quote"] is not None:
        if match["quoted"].lower() in _INNOCENT or match["quoted"] == MARK:
            return match[0]
        closed = match[0].endswith(match["quote"]) and len(match[0]) > len(match["name"]) + len(match["quote"])
        return f"{match['name']}{match['quote']}{MARK}{match['quote'] if closed else ''}"
    if (match["bare"] or match["group"]).lower().rstrip(",;)}]") in _INNOCENT or match["group"] in {"[]", "{}"}:
        return match[0]
    return f"{match['name']}{MARK}"


def _scheme(match: re.Match[str]) -> str:
    # "basic authentication" is prose: what a scheme is given looks like no word.
    value = match["value"]
    plain = value.rstrip(".").isalpha() and value[1:].lower() == value[1:]
    return match[0] if plain else f"{match['scheme']}{MARK}"


def _is_random(text: str) -> bool:
    """Whether a long run of letters is base64 of something: neither a digest in hexadecimal nor a path nor a name."""
    kinds = [sum(map(kind, text)) for kind in (str.isupper, str.islower, str.isdigit)]
    mixed = min(kinds) >= 3
    changes = sum(a.isupper() != b.isupper() for a, b in pairwise(text))
    return mixed and changes >= len(text) // 8
