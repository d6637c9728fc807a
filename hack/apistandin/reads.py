"""Gets and lists.

From ``k8s.io/apiserver/pkg/endpoints/handlers/get.go`` and ``pkg/storage`` (v1.36).
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from hack.apistandin import errors, selectors
from hack.apistandin.store import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hack.apistandin.kinds import Kind, Target
    from hack.apistandin.store import Store


def revision(text: str) -> int:
    """A resourceVersion.

    Raises:
        ApiError: 500 without a reason, as a real server has it: no number.
    """
    if not text:
        return 0
    if not text.isascii() or not text.isdecimal():
        why = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise errors.unexplained(f"resourceVersion: {why}")
    return int(text)


def not_before(store: Store, wanted: int) -> None:
    """Refuse a resourceVersion from the future (a real server waits 3 s for it first).

    Raises:
        ApiError: 504.
    """
    if wanted > store.revision:
        words = f"Too large resource version: {wanted}, current: {store.revision}"
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        details = {"causes": [cause], "retryAfterSeconds": 1}
        raise errors.ApiError(504, "Timeout", f"Timeout: {words}", details, {"Retry-After": "1"})


def get(store: Store, target: Target, query: Mapping[str, str]) -> bytes:
    """One object as JSON.

    Raises:
        ApiError: 404, or a resourceVersion from the future.
    """
    not_before(store, revision(query.get("resourceVersion", "")))
    stored = store.get(target.kind, target.namespace, target.name)
    if stored is None:
        raise errors.not_found(target.kind.group, target.kind.plural, target.name)
    return encode(target.kind, stored)


def list_objects(store: Store, target: Target, query: Mapping[str, str]) -> bytes:
    """A list as JSON; with a limit, in pages that show one revision.

    Raises:
        ApiError: 400 for selectors and tokens, 410 for a revision that is forgotten, 504 for one from the future.
    """
    kind = target.kind
    selector = selectors.parse(kind, query.get("labelSelector", ""), query.get("fieldSelector", ""))
    wanted = revision(query.get("resourceVersion", ""))
    not_before(store, wanted)
    start: tuple[str, str] | None = None
    at: int | None = wanted if query.get("resourceVersionMatch") == "Exact" else None
    if query.get("continue"):
        at, start = _continued(query["continue"])
        if at < store.revision and not _known(store, kind, at):
            raise errors.expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new"
                " list without the continue parameter, or use the continue token in this response to retrieve the"
                " remainder of the results. Continuing with the provided token results in an inconsistent list -"
                " objects that were created, modified, or deleted between the time the first chunk was returned and"
                " now may show up in the list."
            )
    shown = store.revision if at is None else at
    found = [stored for stored in store.list(kind, target.namespace, at) if selector.matches(kind, stored)]
    if start is not None:
        found = [stored for stored in found if _key(stored) > start]
    limit = int(query.get("limit") or 0)
    meta: dict[str, Any] = {"resourceVersion": str(shown)}
    if limit and len(found) > limit:
        meta["continue"] = _token(shown, _key(found[limit - 1]))
        if not selector.labels and not selector.fields:
            meta["remainingItemCount"] = len(found) - limit
        found = found[:limit]
    items = [kind.from_hub(stored) for stored in found]
    body = {"kind": f"{kind.kind}List", "apiVersion": kind.version, "metadata": meta, "items": items}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _key(stored: Mapping[str, Any]) -> tuple[str, str]:
    meta = stored["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _known(store: Store, kind: Kind, at: int) -> bool:
    try:
        store.list(kind, "", at)
    except errors.ApiError:
        return False
    return True


def _token(at: int, key: tuple[str, str]) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": at, "start": list(key)})
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _continued(token: str) -> tuple[int, tuple[str, str]]:
    try:
        text = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, name = text["start"]
        return int(text["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError):
        raise errors.bad_request("invalid continue token: continue key is not valid") from None
