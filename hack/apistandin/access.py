"""Who a token is, and what its user may do.

The check is RBAC's without roles: each user carries its rules. Wording from
``k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`` (v1.36).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hack.apistandin import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hack.apistandin.kinds import Kind

ADMIN_TOKEN = "admin"


@dataclass(frozen=True, slots=True)
class Rule:
    """What is allowed; "*" in any but the last two stands for all.

    Attributes:
        verbs: get, list, watch, create, update, patch, delete, deletecollection.
        groups: "" is core.
        resources: plural, or plural/subresource.
        names: of objects; empty for all. As in RBAC, they never allow a create, and a list or watch only with
            fieldSelector metadata.name.
        namespaces: empty for all and for cluster scope.
    """

    verbs: tuple[str, ...]
    groups: tuple[str, ...]
    resources: tuple[str, ...]
    names: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()

    def allows(self, verb: str, kind: Kind, subresource: str, namespace: str, name: str) -> bool:
        """Whether it covers this request."""
        resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
        return (
            _in(verb, self.verbs)
            and _in(kind.group, self.groups)
            and _in(resource, self.resources)
            and (not self.names or (bool(name) and name in self.names))
            and (not self.namespaces or namespace in self.namespaces)
        )


def _in(what: str, allowed: tuple[str, ...]) -> bool:
    return what in allowed or "*" in allowed


EVERYTHING = Rule(("*",), ("*",), ("*",))


@dataclass(frozen=True, slots=True)
class User:
    """Whom a token stands for.

    Attributes:
        name: the user's.
        groups: the user's.
        node: of the token's pod; "" without one.
        rules: what is allowed.
    """

    name: str
    groups: tuple[str, ...] = ("system:authenticated",)
    node: str = ""
    rules: tuple[Rule, ...] = ()

    def may(self, verb: str, kind: Kind, subresource: str, namespace: str, name: str) -> bool:
        """Whether a rule allows this request."""
        return any(rule.allows(verb, kind, subresource, namespace, name) for rule in self.rules)

    def check(self, verb: str, kind: Kind, subresource: str, namespace: str, name: str) -> None:
        """Refuse what no rule allows.

        Raises:
            ApiError: 403.
        """
        if not self.may(verb, kind, subresource, namespace, name):
            raise errors.forbidden(kind.group, kind.plural, name, self.cannot(verb, kind, subresource, namespace))

    def cannot(self, verb: str, kind: Kind, subresource: str, namespace: str) -> str:
        """The sentence that says so."""
        resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
        what = f'User "{self.name}" cannot {verb} resource "{resource}" in API group "{kind.group}"'
        text = f'{what} in the namespace "{namespace}"' if namespace else f"{what} at the cluster scope"
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class Tokens:
    """The table of tokens. `ADMIN_TOKEN` may do all."""

    def __init__(self) -> None:
        self._users = {ADMIN_TOKEN: User("kubernetes-admin", ("system:masters",), rules=(EVERYTHING,))}

    def add(self, token: str, user: User) -> None:
        """Let `token` stand for `user`."""
        self._users[token] = user

    def revoke(self, token: str) -> None:
        """Forget a token: it gets 401 from now on."""
        self._users.pop(token, None)

    def rotate(self, old: str, new: str) -> None:
        """Give the old token's user a new one; the old one gets 401 from now on."""
        self._users[new] = self._users.pop(old)

    def user(self, authorization: str) -> User:
        """The user of an Authorization header.

        Raises:
            ApiError: 401.
        """
        scheme, _, token = authorization.partition(" ")
        found = self._users.get(token.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise errors.unauthorized()
        return found


def user_from(text: Mapping[str, Any]) -> User:
    """A user out of JSON: name, groups, node, rules (each with the fields of `Rule`)."""

    def words(value: Iterable[str] | None, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        return default if value is None else tuple(value)

    rules = tuple(
        Rule(
            words(rule["verbs"]),
            words(rule.get("groups"), ("",)),
            words(rule["resources"]),
            words(rule.get("names")),
            words(rule.get("namespaces")),
        )
        for rule in text.get("rules", ())
    )
    return User(text["name"], words(text.get("groups"), ("system:authenticated",)), text.get("node", ""), rules)
