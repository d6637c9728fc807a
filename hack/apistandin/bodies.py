"""Bodies and options of requests: content types, parsing, field validation."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from hack.apistandin import errors
from hack.apistandin.decoding import DecodeError, decode
from hack.apistandin.errors import required

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hack.apistandin.kinds import Kind, Object

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
PATCH_TYPES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE, APPLY)
ACCEPTED = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
STREAMED = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
BODY_LIMIT = 3 * 1024 * 1024
MANAGER_LIMIT = 128


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # whichever there is
    """YAML as the server reads it: what looks like a date is a string."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in _Loader.yaml_implicit_resolvers.items()
}


@dataclass(slots=True)
class Options:
    """The parameters of a write.

    Attributes:
        manager: the field manager's name.
        force: of an apply.
        dry_run: nothing is stored.
        validation: Ignore, Warn or Strict, for fields that the schema does not have.
        warnings: for the answer's Warning headers.
    """

    manager: str
    force: bool
    dry_run: bool
    validation: str
    warnings: list[str] = field(default_factory=list)


def options(query: Mapping[str, str], user_agent: str, what: str, *, apply: bool = False) -> Options:
    """The parameters of a create, an update or a patch (``pkg/apis/meta/v1/validation/validation.go``).

    Args:
        query: of the URL.
        user_agent: the manager when none is named: what is before its first slash.
        what: CreateOptions, UpdateOptions or PatchOptions.
        apply: whether it is a server-side apply, which must name its manager and alone may force.

    Raises:
        ApiError: 400 or 422.
    """
    manager = query.get("fieldManager", "")
    force = query.get("force")
    found = []
    if apply and not manager:
        found.append(required("fieldManager", "is required for apply patch"))
    if force is not None and not apply and what == "PatchOptions":
        found.append(errors.forbidden_value("force", "may not be specified for non-apply patch"))
    if len(manager) > MANAGER_LIMIT:
        body = f"Too long: may not be more than {MANAGER_LIMIT} bytes"
        found.append(errors.FieldError("fieldManager", "FieldValueTooLong", body))
    found += [
        errors.invalid_value("fieldManager", manager, f"invalid character U+{ord(c):04X} (at position {i})")
        for i, c in enumerate(manager)
        if not c.isprintable()
    ]
    if query.get("dryRun", "All") != "All":
        found.append(errors.not_supported("dryRun", [query["dryRun"]], ["All"]))
    validation = query.get("fieldValidation", "") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        found.append(errors.not_supported("fieldValidation", validation, ["", "Ignore", "Strict", "Warn"]))
    if found:
        raise errors.invalid("meta.k8s.io", what, "", found)
    name = manager or "".join(c for c in user_agent.split("/", maxsplit=1)[0] if c.isprintable())[:MANAGER_LIMIT]
    return Options(name, force in ("true", "1"), "dryRun" in query, validation)


def media_type(content_type: str) -> str:
    """The content type without its parameters."""
    return content_type.split(";", maxsplit=1)[0].strip()


def loads(body: bytes, content_type: str) -> Any:
    """The JSON or YAML of a create or update.

    Raises:
        ApiError: 415 for another content type; ValueError for what does not parse.
    """
    kind = media_type(content_type) or "application/json"
    if kind == "application/json":
        return json.loads(body)
    if kind == "application/yaml":
        return load_yaml(body)
    raise errors.unsupported_media(ACCEPTED)


def load_yaml(body: bytes) -> Any:
    """YAML; most clients send JSON, which is YAML and is read faster.

    Raises:
        ValueError: it does not parse.
    """
    try:
        return json.loads(body)
    except ValueError:
        pass
    try:
        return yaml.load(body, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"yaml: {error}") from None


def whole_object(kind: Kind, body: bytes, content_type: str, chosen: Options) -> Object:
    """The object that a create or an update carries, decoded, in the request's version.

    Raises:
        ApiError: 400: not parsed, another kind, a wrong type, or an unknown field when validation is strict.
    """
    try:
        raw = loads(body, content_type)
    except ValueError as error:
        words = f"couldn't get version/kind; json parse error: {error}"
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type {kind.kind}): {words}"
        ) from None
    if not isinstance(raw, dict):
        words = "json: cannot unmarshal into Go value of type struct"
        raise errors.bad_request(f"the object provided is unrecognized (must be of type {kind.kind}): {words}")
    version, name = raw.get("apiVersion") or kind.version, raw.get("kind") or kind.kind
    if (version, name) != (kind.version, kind.kind):
        short = version.rpartition("/")[2]
        why = f"converting (v1.{name}) to (core.{kind.kind}): unknown conversion"
        if short != "v1":
            why = f'no kind "{name}" is registered for version "{version}" in scheme "pkg/runtime/scheme.go:111"'
        raise errors.bad_request(f'{name} in version "{short}" cannot be handled as a {kind.kind}: {why}')
    try:
        unknown: list[str] = []
        made: Object = decode(untyped(raw), kind.type, "", unknown)
        note_unknown(unknown, chosen)
    except DecodeError as error:
        words = f'{kind.kind} in version "v1" cannot be handled as a {kind.kind}: {error}'
        raise errors.bad_request(words) from None
    return made


def note_unknown(unknown: list[str], chosen: Options, where: str = "") -> None:
    """Warn of unknown fields, or refuse them; `where` says in what.

    Raises:
        DecodeError: validation is strict.
    """
    words = [f'{where}unknown field "{path}"' for path in unknown]
    if words and chosen.validation == "Strict":
        raise DecodeError(f"strict decoding error: {', '.join(words)}")
    if chosen.validation == "Warn":
        chosen.warnings += words


def untyped(raw: Object) -> Object:
    """The object without apiVersion and kind."""
    return {name: value for name, value in raw.items() if name not in ("apiVersion", "kind")}
