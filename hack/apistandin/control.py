"""Control over HTTP: `/standin/...`, for those who are not in the server's process. No token is asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from hack.apistandin import access, kinds
from hack.apistandin.faults import Fault

if TYPE_CHECKING:
    from hack.apistandin.listening import Listening
    from hack.apistandin.server import Server


class Control:
    """The handlers.

    Args:
        server: what is controlled.
        listening: its sockets.
    """

    def __init__(self, server: Server, listening: Listening) -> None:
        self._server = server
        self._listening = listening

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.get("/standin/counters", self._counters),
            web.get("/standin/journal", self._journal),
            web.post("/standin/reset", self._reset),
            web.put("/standin/tokens/{token}", self._token),
            web.delete("/standin/tokens/{token}", self._revoke),
            web.post("/standin/tokens/{token}/rotate", self._rotate),
            web.get("/standin/faults", self._faults),
            web.post("/standin/faults", self._fault),
            web.delete("/standin/faults", self._clear),
            web.delete("/standin/faults/{number}", self._clear),
            web.post("/standin/watches/{how}", self._watches),
            web.post("/standin/compact", self._compact),
            web.post("/standin/absence", self._absence),
            web.post("/standin/presence", self._presence),
        ]

    async def _counters(self, _request: web.Request) -> web.Response:
        journal = self._server.journal
        return web.json_response(
            {
                "seconds": journal.seconds,
                "requests": journal.table(),
                "writes_per_node": journal.writes_per_node(),
                "open_watches": len(self._server.watches),
                "revision": self._server.store.revision,
            }
        )

    async def _journal(self, request: web.Request) -> web.Response:
        where = {name: value for name, value in request.query.items() if name != "whole"}
        whole = "whole" in request.query
        return web.json_response([write.as_json(whole=whole) for write in self._server.journal.writes(**where)])

    async def _reset(self, _request: web.Request) -> web.Response:
        self._server.journal.reset()
        return web.json_response({})

    async def _token(self, request: web.Request) -> web.Response:
        try:
            self._server.tokens.add(request.match_info["token"], access.user_from(await request.json()))
        except (ValueError, KeyError, TypeError) as error:
            return _wrong(error)
        return web.json_response({})

    async def _revoke(self, request: web.Request) -> web.Response:
        self._server.tokens.revoke(request.match_info["token"])
        return web.json_response({})

    async def _rotate(self, request: web.Request) -> web.Response:
        try:
            self._server.tokens.rotate(request.match_info["token"], (await request.json())["to"])
        except (ValueError, KeyError, TypeError) as error:
            return _wrong(error)
        return web.json_response({})

    async def _faults(self, _request: web.Request) -> web.Response:
        return web.json_response({number: str(fault) for number, fault in self._server.faults.standing_now().items()})

    async def _fault(self, request: web.Request) -> web.Response:
        try:
            number = self._server.faults.add(Fault(**await request.json()))
        except (ValueError, TypeError) as error:
            return _wrong(error)
        return web.json_response({"number": number})

    async def _clear(self, request: web.Request) -> web.Response:
        number = request.match_info.get("number")
        self._server.faults.clear(None if number is None else int(number))
        return web.json_response({})

    async def _watches(self, request: web.Request) -> web.Response:
        given = await _given(request)
        watches = self._server.watches
        chosen = watches.chosen(given.get("resource", ""), given.get("user", ""), given.get("node", ""))
        match request.match_info["how"]:
            case "drop":
                self._listening.drop(chosen)
            case "expire":
                watches.expire(chosen)
            case "finish":
                watches.finish(chosen)
            case how:
                return _wrong(ValueError(f"{how} is none of drop, expire, finish"))
        return web.json_response({"watches": len(chosen)})

    async def _compact(self, request: web.Request) -> web.Response:
        plural = (await _given(request)).get("resource")
        for kind in kinds.KINDS:
            if plural in (None, kind.plural):
                self._server.store.compact(kind)
        return web.json_response({})

    async def _absence(self, request: web.Request) -> web.Response:
        seconds = (await _given(request)).get("seconds")
        self._listening.absent_soon(seconds)
        return web.json_response({})

    async def _presence(self, _request: web.Request) -> web.Response:
        await self._listening.present()
        return web.json_response({})


async def _given(request: web.Request) -> dict[str, Any]:
    text = await request.text()
    return dict(json.loads(text)) if text else {}


def _wrong(error: Exception) -> web.Response:
    return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
