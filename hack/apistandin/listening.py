"""The sockets: one for the API, which can go away and come back, and one for control, which stays."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from aiohttp import web

from hack.apistandin.control import Control
from hack.apistandin.server import reset

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from hack.apistandin.server import Server
    from hack.apistandin.watches import Watch

_BACKLOG = 4096


class Listening:
    """Both listeners of one server, in one event loop.

    Args:
        server: what answers.
        host: the address of both.
        port: of the API; 0 takes a free one, which is kept.
        control_port: of control; 0 takes a free one.
        tls: the API's certificate; plain HTTP without one. Control is plain in any case.

    Attributes:
        port: of the API.
        control_port: of control.
    """

    def __init__(
        self,
        server: Server,
        host: str = "127.0.0.1",
        port: int = 0,
        control_port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._server = server
        self._tls = tls
        self._host = host
        self.port = port
        self.control_port = control_port
        self._runner: web.AppRunner | None = None
        self._control: web.AppRunner | None = None
        self._site: web.BaseSite | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: a port is taken.
        """
        app = web.Application(client_max_size=0)
        control = Control(self._server, self)
        app.add_routes(control.routes())
        app.router.add_route("*", "/{rest:.*}", self._server.handle)
        # A watch whose client has gone is to end at once, not at its next event.
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=3600, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        await self.present()
        own = web.Application()
        own.add_routes(control.routes())
        self._control = web.AppRunner(own, access_log=None, shutdown_timeout=0.1)
        await self._control.setup()
        bound = _bound(self._host, self.control_port)
        self.control_port = bound.getsockname()[1]
        await web.SockSite(self._control, bound, backlog=128).start()

    async def present(self) -> None:
        """Accept connections again."""
        if self._site is None and self._runner is not None:
            bound = _bound(self._host, self.port)
            self.port = bound.getsockname()[1]
            self._site = web.SockSite(self._runner, bound, backlog=_BACKLOG, ssl_context=self._tls)
            await self._site.start()

    async def absent(self) -> None:
        """Refuse connections and reset those that are open; the objects stay."""
        site, self._site = self._site, None
        if site is not None:
            await site.stop()
        if self._runner is not None and self._runner.server is not None:
            for connection in list(self._runner.server.connections):
                transport = connection.transport
                if transport is not None:
                    transport.abort()

    def absent_soon(self, seconds: float | None = None) -> None:
        """Go away once the answer to whoever asked is out, and come back after `seconds`; None stays away."""

        async def go() -> None:
            await asyncio.sleep(0.05)
            await self.absent()
            if seconds is not None:
                await asyncio.sleep(seconds)
                await self.present()

        task = asyncio.get_running_loop().create_task(go())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def drop(self, watches: Iterable[Watch]) -> None:
        """Reset the connections of watches."""
        for watch in watches:
            if watch.request is not None:
                reset(watch.request)

    async def stop(self) -> None:
        """Close both, with all connections."""
        for task in list(self._tasks):
            task.cancel()
        await self.absent()
        for runner in (self._runner, self._control):
            if runner is not None:
                await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # The port of an absence is taken again while old connections still linger.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound
