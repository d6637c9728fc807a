"""The stand-in as tests use it: a server in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hack.apistandin import kinds
from hack.apistandin.access import ADMIN_TOKEN, Rule, User
from hack.apistandin.listening import Listening
from hack.apistandin.server import Server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterable

    from hack.apistandin.faults import Faults
    from hack.apistandin.journal import Journal

T = TypeVar("T")
_BY_PLURAL = {kind.plural: kind for kind in kinds.KINDS if kind.hub}


class ApiStandin:
    """An API server of this process, alive from `start` to `close`; also a context manager.

    Any thread may call its methods.

    Args:
        port: of the API; 0 takes a free one.
        namespaces: that are there from the start, besides default and the kube- ones.
        history: how many changes of each kind a watch can go back.
        tls: the API's certificate; plain HTTP without one.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        namespaces: Iterable[str] = ("katanode",),
        history: int = 5000,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._server = Server(namespaces, history)
        self._scheme = "https" if tls else "http"
        self._listening = Listening(self._server, port=port, tls=tls)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="apistandin", daemon=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def start(self) -> Self:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        self._thread.start()
        self._wait(self._listening.start())
        return self

    def close(self) -> None:
        """End all connections and the thread."""
        self._wait(self._listening.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    def _inside(self, what: Callable[[], T]) -> T:
        """Do it in the server's thread."""

        async def do() -> T:
            return what()

        return self._wait(do())

    @property
    def url(self) -> str:
        """Of the API."""
        return f"{self._scheme}://127.0.0.1:{self._listening.port}"

    @property
    def port(self) -> int:
        """Of the API."""
        return self._listening.port

    @property
    def control_url(self) -> str:
        """Of control; it answers during an absence too."""
        return f"http://127.0.0.1:{self._listening.control_port}"

    @property
    def admin_token(self) -> str:
        """A token that may do all."""
        return ADMIN_TOKEN

    @property
    def faults(self) -> Faults:
        """What goes wrong."""
        return self._server.faults

    @property
    def journal(self) -> Journal:
        """What was asked and written."""
        return self._server.journal

    @property
    def open_watches(self) -> int:
        """How many watches are open."""
        return len(self._server.watches)

    @property
    def revision(self) -> int:
        """The resourceVersion of the last write."""
        return self._server.store.revision

    def add_token(self, token: str, name: str, *, node: str = "", rules: Iterable[Rule] = ()) -> None:
        """Let a token stand for a user."""
        self._server.tokens.add(token, User(name, node=node, rules=tuple(rules)))

    def rotate_token(self, old: str, new: str) -> None:
        """Give a token's user a new one; the old one gets 401."""
        self._server.tokens.rotate(old, new)

    def revoke_token(self, token: str) -> None:
        """Forget a token."""
        self._server.tokens.revoke(token)

    def create(self, plural: str, made: dict[str, Any], namespace: str = "") -> dict[str, Any]:
        """Create an object as nobody's write; it comes back as stored.

        Raises:
            ApiError: as over HTTP.
        """
        return self._inside(lambda: self._server.seed(_BY_PLURAL[plural], made, namespace))

    def add_node(self, name: str, *, ready: bool = True, **labels: str) -> dict[str, Any]:
        """Create a Node as a kubelet has it once it is ready: without the taint that new ones get.

        Args:
            name: the Node's.
            ready: its Ready condition.
            labels: more of them than the usual three.
        """
        usual = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        time = "2026-01-01T00:00:00Z"
        condition = {"type": "Ready", "status": "True" if ready else "False", "reason": "KubeletReady"}
        condition |= {"lastHeartbeatTime": time, "lastTransitionTime": time}
        node = {"metadata": {"name": name, "labels": usual | labels}, "status": {"conditions": [condition]}}

        def add() -> dict[str, Any]:
            stored = self._server.seed(kinds.NODES, node)
            return self._server.store.put(kinds.NODES, {**stored, "spec": {}})

        return self._inside(add)

    def put(self, plural: str, made: dict[str, Any]) -> dict[str, Any]:
        """Replace an object as nobody's write; it comes back as stored."""
        return self._inside(lambda: self._server.store.put(_BY_PLURAL[plural], made))

    def get(self, plural: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        """The object as stored, or None."""
        return self._inside(lambda: self._server.store.get(_BY_PLURAL[plural], namespace, name))

    def list(self, plural: str, namespace: str = "") -> list[dict[str, Any]]:
        """The objects as stored."""
        return self._inside(lambda: self._server.store.list(_BY_PLURAL[plural], namespace))

    def compact(self, plural: str | None = None) -> None:
        """Forget the history: watches from before now get 410."""
        kind = None if plural is None else _BY_PLURAL[plural]
        self._inside(lambda: self._server.store.compact(kind))

    def drop_watches(self, resource: str = "", user: str = "", node: str = "") -> int:
        """Reset the connections of watches; how many there were."""
        return self._to_watches(self._listening.drop, resource, user, node)

    def expire_watches(self, resource: str = "", user: str = "", node: str = "") -> int:
        """End watches with an ERROR event 410; how many there were."""
        return self._to_watches(self._server.watches.expire, resource, user, node)

    def finish_watches(self, resource: str = "", user: str = "", node: str = "") -> int:
        """End watches as a timeout does; how many there were."""
        return self._to_watches(self._server.watches.finish, resource, user, node)

    def _to_watches(self, do: Callable[[Any], None], resource: str, user: str, node: str) -> int:
        def act() -> int:
            chosen = self._server.watches.chosen(resource, user, node)
            do(chosen)
            return len(chosen)

        return self._inside(act)

    def absent(self) -> None:
        """Refuse connections and reset those that are open; the objects stay."""
        self._wait(self._listening.absent())

    def present(self) -> None:
        """Accept connections again, on the same port."""
        self._wait(self._listening.present())
