"""What a server refuses about an object's content, with the sentences of a real one.

From ``k8s.io/apimachinery/pkg/api/validation/objectmeta.go``, ``pkg/util/validation/validation.go`` and
``pkg/api/validate/content`` (v1.36).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hack.apistandin.errors import FieldError, forbidden_value, invalid_value, required

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    r" '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    " an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_NAME_PART_WORDS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    " character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is"
    " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_CONFIG_KEY_WORDS = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or"
    " 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
SUBDOMAIN_LIMIT = 253
LABEL_LIMIT = 63
ANNOTATIONS_LIMIT = 256 * 1024


def _too_long(limit: int) -> str:
    return f"must be no more than {limit} characters"


def subdomain(text: str) -> list[str]:
    """What is wrong with a DNS subdomain."""
    wrong = [_too_long(SUBDOMAIN_LIMIT)] if len(text) > SUBDOMAIN_LIMIT else []
    return wrong if re.fullmatch(_SUBDOMAIN, text) else [*wrong, _SUBDOMAIN_WORDS]


def dns_label(text: str) -> list[str]:
    """What is wrong with a DNS label."""
    if "." in text:
        return ["must not contain dots"]
    wrong = [_too_long(LABEL_LIMIT)] if len(text) > LABEL_LIMIT else []
    return wrong if re.fullmatch(_LABEL, text) else [*wrong, _LABEL_WORDS]


def qualified_name(text: str) -> list[str]:
    """What is wrong with a label's or taint's key."""
    prefix, slash, name = text.rpartition("/")
    wrong = []
    if slash:
        wrong = [f"prefix part {why}" for why in subdomain(prefix)] if prefix else ["prefix part must be non-empty"]
    if not name:
        wrong.append("name part must be non-empty")
    elif len(name) > LABEL_LIMIT:
        wrong.append(f"name part {_too_long(LABEL_LIMIT)}")
    return wrong if re.fullmatch(_QUALIFIED, name) else [*wrong, _NAME_PART_WORDS]


def label_value(text: str) -> list[str]:
    """What is wrong with a label's value."""
    wrong = [_too_long(LABEL_LIMIT)] if len(text) > LABEL_LIMIT else []
    return wrong if re.fullmatch(f"({_QUALIFIED})?", text) else [*wrong, _VALUE_WORDS]


def config_key(text: str) -> list[str]:
    """What is wrong with a ConfigMap's key."""
    return [] if re.fullmatch("[-._a-zA-Z0-9]+", text) else [_CONFIG_KEY_WORDS]


def metadata(meta: Mapping[str, Any], *, namespaced: bool, label_name: bool = False) -> list[FieldError]:
    """What is wrong with an object's metadata.

    Args:
        meta: the metadata.
        namespaced: whether a namespace belongs there.
        label_name: whether the name must be a DNS label.
    """
    found: list[FieldError] = []
    name = meta.get("name", "")
    if not name:
        found.append(required("metadata.name", "name or generateName is required"))
    else:
        check = dns_label if label_name else subdomain
        found += [invalid_value("metadata.name", name, why) for why in check(name)]
    if not namespaced and meta.get("namespace"):
        found.append(forbidden_value("metadata.namespace", "not allowed on this type"))
    return found + _maps(meta)


def _maps(meta: Mapping[str, Any]) -> list[FieldError]:
    found: list[FieldError] = []
    for key, value in meta.get("labels", {}).items():
        found += [invalid_value("metadata.labels", key, why) for why in qualified_name(key)]
        found += [invalid_value("metadata.labels", value, why) for why in label_value(value)]
    size = 0
    for key, value in meta.get("annotations", {}).items():
        # Keys are compared in lower case: they may be mixed.
        found += [invalid_value("metadata.annotations", key, why) for why in qualified_name(key.lower())]
        size += len(key) + len(value)
    if size > ANNOTATIONS_LIMIT:
        body = f"Too long: may not be more than {ANNOTATIONS_LIMIT} bytes"
        found.append(FieldError("metadata.annotations", "FieldValueTooLong", body))
    for finalizer in meta.get("finalizers", []):
        found += [invalid_value("metadata.finalizers", finalizer, why) for why in qualified_name(finalizer)]
    return found


def metadata_update(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """What may not change, and what is wrong with what did."""
    found = [
        invalid_value(f"metadata.{name}", new.get(name), "field is immutable")
        for name in (
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        )
        if new.get(name) != old.get(name)
    ]
    added = [name for name in new.get("finalizers", []) if name not in old.get("finalizers", [])]
    if "deletionTimestamp" in old and added:
        listed = "[]string{" + ", ".join(f'"{name}"' for name in added) + "}"
        words = f"no new finalizers can be added if the object is being deleted, found new finalizers {listed}"
        found.insert(0, forbidden_value("metadata.finalizers", words))
    return found + _maps(new)
