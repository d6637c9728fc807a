"""Label and field selectors.

Grammar and errors of ``k8s.io/apimachinery/pkg/labels/selector.go`` and ``pkg/fields/selector.go``; the fields that
can be selected are those of each kind's strategy (v1.36).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hack.apistandin import errors, kinds

if TYPE_CHECKING:
    from hack.apistandin.kinds import Kind, Object

_SET = re.compile(
    r"\s*(!?)\s*([A-Za-z0-9][-A-Za-z0-9_./]*)\s*(?:(==|=|!=)\s*([-A-Za-z0-9_.]*)|(in|notin)\s*\(([^)]*)\))?\s*"
)


class LabelTerm(NamedTuple):
    """One requirement: `key` `operator` `values`; operators are in, notin, exists, missing."""

    key: str
    operator: str
    values: tuple[str, ...]

    def holds(self, labels: dict[str, str]) -> bool:
        """Whether these labels meet it; like a real server, notin also holds where the label is missing."""
        match self.operator:
            case "exists":
                return self.key in labels
            case "missing":
                return self.key not in labels
            case "in":
                return labels.get(self.key) in self.values
        return labels.get(self.key) not in self.values


class Selector(NamedTuple):
    """Which objects are meant.

    Attributes:
        labels: requirements, all of which must hold.
        fields: path, whether equal is meant, and the value.
    """

    labels: tuple[LabelTerm, ...] = ()
    fields: tuple[tuple[str, bool, str], ...] = ()

    def matches(self, kind: Kind, stored: Object) -> bool:
        """Whether a stored object is meant."""
        labels = stored["metadata"].get("labels", {})
        return all(term.holds(labels) for term in self.labels) and all(
            (_field(kind, stored, path) == value) == equal for path, equal, value in self.fields
        )

    @property
    def name(self) -> str:
        """The one name that can match; "" when there may be several."""
        return next((value for path, equal, value in self.fields if path == "metadata.name" and equal), "")


def parse(kind: Kind, label_selector: str, field_selector: str) -> Selector:
    """The selector of a request.

    Raises:
        ApiError: 400: not parsed, or not a field that can be selected.
    """
    return Selector(_labels(label_selector), _fields(kind, field_selector))


def _labels(text: str) -> tuple[LabelTerm, ...]:
    terms = []
    rest = text
    while rest.strip():
        found = _SET.match(rest)
        if found is None:
            raise errors.bad_request(f"found '{rest.strip()[:1]}', expected: identifier after ','")
        negated, key, operator, value, within, listed = found.groups()
        rest = rest[found.end() :]
        if rest and not rest.startswith(","):
            raise errors.bad_request(f"found '{rest[:1]}', expected: ',' or 'end of string'")
        if rest == ",":
            raise errors.bad_request("found '', expected: identifier after ','")
        rest = rest[1:]
        if within:
            terms.append(LabelTerm(key, within, tuple(one.strip() for one in listed.split(","))))
        elif operator:
            terms.append(LabelTerm(key, "notin" if operator == "!=" else "in", (value,)))
        else:
            terms.append(LabelTerm(key, "missing" if negated else "exists", ()))
    return tuple(terms)


def _fields(kind: Kind, text: str) -> tuple[tuple[str, bool, str], ...]:
    terms = []
    for part in filter(None, text.split(",")):
        path, operator, value = re.fullmatch(r"([^=!]*)(==|!=|=)?(.*)", part).groups()  # type: ignore[union-attr]
        if operator is None:
            raise errors.bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        if path not in _selectable(kind):
            raise errors.bad_request(f"field label not supported: {path}")
        terms.append((path, operator != "!=", value))
    return tuple(terms)


_EVENT_FIELDS = {
    "involvedObject.kind": "involvedObject.kind",
    "involvedObject.namespace": "involvedObject.namespace",
    "involvedObject.name": "involvedObject.name",
    "involvedObject.uid": "involvedObject.uid",
    "regarding.kind": "involvedObject.kind",
    "regarding.namespace": "involvedObject.namespace",
    "regarding.name": "involvedObject.name",
    "regarding.uid": "involvedObject.uid",
    "reason": "reason",
    "reportingComponent": "reportingComponent",
    "reportingController": "reportingComponent",
    "type": "type",
}
_POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
)


def _selectable(kind: Kind) -> dict[str, str]:
    """The stored paths of the fields that can be selected."""
    paths = {"metadata.name": "metadata.name"}
    if kind.namespaced:
        paths["metadata.namespace"] = "metadata.namespace"
    if kind is kinds.NODES:
        paths["spec.unschedulable"] = "spec.unschedulable"
    elif kind is kinds.PODS:
        paths |= {path: path for path in _POD_FIELDS}
    elif kind is kinds.NAMESPACES:
        paths["status.phase"] = "status.phase"
    elif kind.storage == "events":
        paths |= _EVENT_FIELDS
    return paths


def _field(kind: Kind, stored: Object, path: str) -> str:
    value: object = stored
    for name in _selectable(kind)[path].split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if path in ("spec.unschedulable", "spec.hostNetwork"):
        return "true" if value else "false"
    return "" if value is None else str(value)
