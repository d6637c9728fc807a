"""The HTTP side: who asks, what for, which fault it meets, and the answer."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from hack.apistandin import bodies, errors, kinds, reads
from hack.apistandin.access import Tokens, User
from hack.apistandin.deletes import Deleter
from hack.apistandin.faults import Asking, Faults, What
from hack.apistandin.journal import Asked, Journal, Write
from hack.apistandin.store import Store, encode
from hack.apistandin.watches import Watches
from hack.apistandin.writes import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hack.apistandin.kinds import Target
    from hack.apistandin.writing import Done

_WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_UNKNOWN = User("")
# SO_LINGER with a time of zero: closing sends RST instead of FIN.
_RESET = struct.pack("ii", 1, 0)


class Server:
    """All of a cluster's API that the stand-in has.

    Args:
        namespaces: that are there from the start, besides the usual four.
        history: how many changes of each kind a watch can go back.

    Attributes:
        store: the objects.
        tokens: who may ask.
        faults: what goes wrong.
        journal: what was asked and written.
        watches: that are open.
    """

    def __init__(self, namespaces: Iterable[str] = ("katanode",), history: int = 5000) -> None:
        self.store = Store(history)
        self.tokens = Tokens()
        self.faults = Faults()
        self.journal = Journal()
        self.watches = Watches(self.store, self.faults)
        for name in ("default", "kube-system", "kube-public", "kube-node-lease", *namespaces):
            self.seed(kinds.NAMESPACES, {"metadata": {"name": name}})

    def seed(self, kind: kinds.Kind, made: dict[str, Any], namespace: str = "") -> dict[str, Any]:
        """Create an object without asking over HTTP; it is not in the journal."""
        admin = User("standin", rules=())
        chosen = bodies.Options("standin", force=False, dry_run=False, validation="Ignore")
        target = kinds.Target(kind, namespace, "", "")
        return Writer(self.store, target, admin, chosen).create(json.dumps(made).encode(), "application/json").stored

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        target, user, verb, status = None, _UNKNOWN, request.method.lower(), 0
        try:
            if request.path in ("/healthz", "/readyz", "/livez"):
                return web.Response(text="ok")
            user = self.tokens.user(request.headers.get("Authorization", ""))
            if request.path == "/version":
                return web.json_response({"major": "1", "minor": "36", "gitVersion": "v1.36.0-standin"})
            target = kinds.target(request.path)
            verb, name = _verb(request, target)
            asking = _asking(request, target, user, verb, name)
            if (await self._before(request, asking)) is not None:
                return web.Response()
            user.check(verb, target.kind, target.subresource, target.namespace, name)
            _acceptable(request)
            if verb == "watch":
                status = 200
                return await self.watches.serve(request, target, request.query, asking)
            response = await self._answer(request, target, user, verb)
            if self.faults.hit(asking, What.LOST):
                reset(request)
            else:
                status = response.status
        except errors.ApiError as error:
            status = error.code
            response = _refusal(error)
        finally:
            resource = "" if target is None else _resource(target)
            self.journal.count(Asked(verb, resource, user.name, status))
        response.headers["Cache-Control"] = "no-cache, private"
        return response

    async def _before(self, request: web.Request, asking: Asking) -> bool | None:
        """What goes wrong before any work; True when the connection is gone."""
        slow = self.faults.hit(asking, What.SLOW)
        if slow is not None:
            await asyncio.sleep(slow.delay)
        fault = self.faults.hit(asking, What.STATUS, What.RESET)
        if fault is None:
            return None
        if fault.what is What.RESET:
            reset(request)
            return True
        if fault.code == 401:
            raise errors.unauthorized()
        if fault.code == 429:
            raise errors.too_many(1 if fault.retry_after is None else fault.retry_after)
        error = errors.server_error(fault.code)
        if fault.retry_after is not None:
            error.headers["Retry-After"] = str(fault.retry_after)
        raise error

    async def _answer(self, request: web.Request, target: Target, user: User, verb: str) -> web.Response:
        if verb == "get":
            return _ok(reads.get(self.store, target, request.query))
        if verb == "list":
            return _ok(reads.list_objects(self.store, target, request.query))
        body = await request.read()
        if len(body) > bodies.BODY_LIMIT:
            raise errors.too_large(bodies.BODY_LIMIT)
        content_type = request.headers.get("Content-Type", "")
        media = bodies.media_type(content_type)
        if verb == "patch" and media not in bodies.PATCH_TYPES:
            # A real server's router refuses before any handler sees it.
            raise errors.ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
        what = {"create": "CreateOptions", "patch": "PatchOptions"}.get(verb, "UpdateOptions")
        apply = media == bodies.APPLY and verb == "patch"
        chosen = bodies.options(request.query, request.headers.get("User-Agent", ""), what, apply=apply)
        writer = Writer(self.store, target, user, chosen)
        if verb == "deletecollection":
            return self._delete_all(request, target, user, chosen)
        match verb:
            case "create":
                done = writer.create(body, content_type)
            case "update":
                done = writer.update(body, content_type)
            case "patch":
                done = writer.patch(body, content_type)
            case _:
                done = _delete(Deleter(self.store, target, user, chosen), body, content_type, request)
        self._note(done, target, user, "apply" if apply else verb, chosen)
        headers = [("Warning", f"299 - {json.dumps(text)}") for text in dict.fromkeys(chosen.warnings)]
        wire = encode(target.kind, done.stored) if done.status is None else _json(done.status)
        response = _ok(wire, done.code)
        for name, value in headers:
            response.headers.add(name, value)
        return response

    def _delete_all(self, request: web.Request, target: Target, user: User, chosen: bodies.Options) -> web.Response:
        """DELETE of a collection."""
        wire = reads.list_objects(self.store, target, request.query)
        for item in json.loads(wire)["items"]:
            meta = item["metadata"]
            one = kinds.Target(target.kind, meta.get("namespace", ""), meta["name"], "")
            done = Deleter(self.store, one, user, chosen).delete({}, None)
            self._note(done, one, user, "delete", chosen)
        return _ok(wire)

    def _note(self, done: Done, target: Target, user: User, verb: str, chosen: bodies.Options) -> None:
        if chosen.dry_run:
            return
        meta = done.stored["metadata"]
        self.journal.note(
            Write(
                at=time.monotonic(),
                user=user.name,
                node=user.node,
                verb=verb,
                resource=_resource(target),
                namespace=meta.get("namespace", ""),
                name=meta["name"],
                manager=chosen.manager,
                revision=int(meta["resourceVersion"]),
                changed=done.changed,
                object=done.stored,
            )
        )


def reset(request: web.Request) -> None:
    """Reset a request's connection."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def _verb(request: web.Request, target: Target) -> tuple[str, str]:
    """The verb as authorization knows it, and the name that it is about.

    A list or watch with fieldSelector metadata.name is about that name (``endpoints/request/requestinfo.go``).

    Raises:
        ApiError: 405.
    """
    query, method = request.query, request.method
    if method == "GET":
        watching = query.get("watch") in ("true", "1")
        if target.name and not watching:
            return "get", target.name
        field = query.get("fieldSelector", "")
        name = field.removeprefix("metadata.name=") if field.startswith("metadata.name=") and "," not in field else ""
        return "watch" if watching else "list", name.removeprefix("=")
    if method == "DELETE" and not target.name and target.kind is not kinds.NAMESPACES:
        return "deletecollection", ""
    verb = _WRITES.get(method)
    if verb is None or (verb == "create") == bool(target.name) or (verb == "delete" and target.subresource):
        raise errors.method_not_allowed()
    return verb, target.name


def _resource(target: Target) -> str:
    return f"{target.kind.plural}/{target.subresource}" if target.subresource else target.kind.plural


def _asking(request: web.Request, target: Target, user: User, verb: str, name: str) -> Asking:
    verbs = {verb}
    if verb == "patch" and bodies.media_type(request.headers.get("Content-Type", "")) == bodies.APPLY:
        verbs.add("apply")
    return Asking(frozenset(verbs), _resource(target), user.name, user.node, name)


def _acceptable(request: web.Request) -> None:
    """Only JSON is spoken here.

    Raises:
        ApiError: 406.
    """
    accept = request.headers.get("Accept", "*/*")
    wanted = [part.split(";")[0].strip() for part in accept.split(",") if ";as=" not in part.replace(" ", "")]
    if not {"*/*", "application/*", "application/json"} & set(wanted):
        raise errors.not_acceptable((*bodies.ACCEPTED, *bodies.STREAMED))


def _refusal(error: errors.ApiError) -> web.Response:
    if error.plain:
        headers = {**error.headers, "X-Content-Type-Options": "nosniff"}
        return web.Response(status=error.code, text=f"{error}\n", headers=headers)
    body = _json(error.status)
    return web.Response(status=error.code, body=body, content_type="application/json", headers=error.headers)


def _delete(deleter: Deleter, body: bytes, content_type: str, request: web.Request) -> Done:
    try:
        given = bodies.loads(body, content_type) if body else {}
        given = given if isinstance(given, dict) else {}
    except ValueError as error:
        raise errors.bad_request(str(error)) from None
    grace = given.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
    return deleter.delete(given.get("preconditions") or {}, None if grace is None else int(grace))


def _ok(wire: bytes, code: int = 200) -> web.Response:
    return web.Response(status=code, body=wire, content_type="application/json")


def _json(what: object) -> bytes:
    return json.dumps(what, separators=(",", ":"), ensure_ascii=False).encode()
