"""The few calls to the Kubernetes API that katanode makes, and their failures as one kind of error.

The `kubernetes` package finds the server, the certificates and the token; requests and answers stay plain JSON, since
server-side apply and watches of single objects need no models.
"""

import contextlib
import json
import os
import random
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import OpenApiException
from kubernetes.config import ConfigException, load_incluster_config, new_client_from_config
from urllib3.util.ssl_ import create_urllib3_context

from agent.errors import KatanodeError, bounded
from agent.reasons import Reason

Json = dict[str, Any]

_TIMEOUT = (5.0, 20.0)
"""Seconds to connect and to wait for an answer."""
_WATCH_SECONDS = 300
"""After which the server ends a watch, and a new one finds out what a silent connection hid."""

_KINDS = {
    "apply": "application/apply-patch+yaml",
    "json": "application/json-patch+json",
}


class ApiError(Exception):
    """The API did not do what it was asked.

    Attributes:
        status: the HTTP status; 0 when there was no answer.
        reason: the API's own word for it ("Conflict", "Forbidden", …).
        message: the API's sentence, or what the network said.
        causes: field and message of each conflict.
        retry_after: seconds that the server asked to wait; 0 when it did not.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        causes: Sequence[tuple[str, str]] = (),
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = bounded(message, 600)
        self.causes = tuple(causes)
        self.retry_after = retry_after

    def as_error(self) -> KatanodeError:
        """The same for people."""
        reason = Reason.CLUSTER_FORBIDDEN if self.status in {401, 403} else Reason.CLUSTER_UNREACHABLE
        return KatanodeError(reason, "the Kubernetes API does not do what it is asked", evidence=str(self))


class Api:
    """A connection to the API.

    Args:
        connect: makes a client with fresh credentials; called again when the server says that they are not good.
    """

    def __init__(self, connect: Callable[[], ApiClient]) -> None:
        self._connect = connect
        self._client = self._connected()

    @classmethod
    def from_surroundings(cls) -> Self:
        """The API as a pod or as a user reaches it: the service account's token, or KUBECONFIG.

        Raises:
            KatanodeError: `CLUSTER_CONFIG_INVALID`.
        """
        try:
            return cls(_client)
        except (ConfigException, OSError, ValueError, TypeError, OpenApiException, yaml.YAMLError) as error:
            raise KatanodeError(
                Reason.CLUSTER_CONFIG_INVALID,
                "the configuration for the Kubernetes API cannot be used",
                evidence=str(error),
            ) from error

    def _connected(self) -> ApiClient:
        client = self._connect()
        _take_old_authorities(client)
        return client

    def get(self, path: str, **query: object) -> Json:
        """Reads an object or a list.

        Raises:
            ApiError: it could not be read.
        """
        return self._json("GET", path, query)

    def create(self, path: str, body: Json) -> Json:
        """Creates an object in the collection `path`.

        Raises:
            ApiError: it was not created, or the answer was lost.
        """
        return self._json("POST", path, {}, body, "application/json")

    def update(self, path: str, body: Json) -> Json:
        """Replaces an object; its resourceVersion says which state of it was seen.

        Raises:
            ApiError: 409 when it was changed meanwhile.
        """
        return self._json("PUT", path, {}, body, "application/json")

    def apply(self, path: str, body: Json, *, manager: str, force: bool = False) -> Json:
        """Server-side apply.

        Raises:
            ApiError: 409 with causes when another manager owns a field, unless `force`.
        """
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return self._json("PATCH", path, query, body, _KINDS["apply"])

    def json_patch(self, path: str, operations: Sequence[Json], *, manager: str) -> Json:
        """A JSON patch, whose `test` operations guard what was read.

        Raises:
            ApiError: 422 when a test does not hold any more.
        """
        return self._json("PATCH", path, {"fieldManager": manager}, list(operations), _KINDS["json"])

    @contextlib.contextmanager
    def watch(
        self, path: str, version: str, *, seconds: int = 0, **query: object
    ) -> Iterator[Iterator[tuple[str, Json]]]:
        """Watches a collection from a resourceVersion on; gives the events' types and objects.

        The iteration ends when the server or the network ends it, which is normal; after `seconds` if they are given.

        Raises:
            ApiError: 410 when that version is gone; what a request can fail with.
        """
        seconds = seconds or _WATCH_SECONDS + random.randint(0, _WATCH_SECONDS // 2)  # noqa: S311 - no secret
        query |= {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": seconds,
        }
        response = self._request("GET", path, query, timeout=(_TIMEOUT[0], seconds + _TIMEOUT[1]))
        try:
            yield _events(response)
        finally:
            response.close()

    def close(self) -> None:
        """Closes the connections that no request holds."""
        self._client.rest_client.pool_manager.clear()

    def _json(
        self, method: str, path: str, query: Mapping[str, object], body: object = None, content: str = ""
    ) -> Json:
        response = self._request(method, path, query, body, content)
        try:
            made = json.loads(response.data)
        except (ValueError, urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, "BadAnswer", f"{method} {path}: {error}") from error
        if not isinstance(made, dict):
            raise ApiError(0, "BadAnswer", f"{method} {path}: not an object")
        return made

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: object = None,
        content: str = "",
        timeout: tuple[float, float] = _TIMEOUT,
    ) -> urllib3.BaseHTTPResponse:
        response = self._send(method, path, query, body, content, timeout)
        if response.status == 401:
            # The kubelet rotates tokens, and a client may hold the old one for up to a minute.
            response.close()
            with contextlib.suppress(ConfigException, OSError):
                self._client = self._connected()
            response = self._send(method, path, query, body, content, timeout)
        if response.status >= 300:
            raise _refusal(response)
        return response

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: object,
        content: str,
        timeout: tuple[float, float],
    ) -> urllib3.BaseHTTPResponse:
        client = self._client
        headers = {"Accept": "application/json", "User-Agent": "katanode"}
        if content:
            headers["Content-Type"] = content
        url = client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            return client.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=timeout[0], read=timeout[1]),
                retries=False,
                preload_content=False,
            )
        except (OpenApiException, ConfigException, urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{method} {path}: {error}") from error


def is_older(item: Mapping[str, Any], than: Mapping[str, Any]) -> bool:
    """Whether this is an older state of the same object.

    By resourceVersion, which Kubernetes lets clients compare since 1.35 and which always was etcd's revision.
    """
    versions = [str(known["metadata"].get("resourceVersion", "")) for known in (item, than)]
    same = item["metadata"].get("uid") == than["metadata"].get("uid")
    return same and all(version.isdigit() for version in versions) and int(versions[0]) < int(versions[1])


def _client() -> ApiClient:
    client: ApiClient
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        configuration = Configuration()
        load_incluster_config(client_configuration=configuration)
        client = ApiClient(configuration)
    else:
        client = new_client_from_config(persist_config=False)
    return client


def _take_old_authorities(client: ApiClient) -> None:
    """Lets a client verify a server's certificate as kubectl does.

    From 3.13 on Python refuses authorities without a key usage or a key identifier, which many a cluster has.
    """
    context = create_urllib3_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    client.rest_client.pool_manager.connection_pool_kw["ssl_context"] = context


def _refusal(response: urllib3.BaseHTTPResponse) -> ApiError:
    """The error in an answer, which is a `Status` object when the API server itself gave it."""
    try:
        data = response.data
    except (urllib3.exceptions.HTTPError, OSError):
        data = b""
    try:
        said = json.loads(data)
    except ValueError:
        said = {}
    said = said if isinstance(said, dict) else {}
    details = said.get("details") or {}
    causes = [(str(c.get("field", "")), str(c.get("message", ""))) for c in details.get("causes") or ()]
    wait = response.headers.get("Retry-After") or details.get("retryAfterSeconds") or 0
    try:
        seconds = min(max(float(wait), 0.0), 300.0)
    except (TypeError, ValueError):
        seconds = 0.0
    words = str(said.get("message") or data[:300].decode("utf-8", "replace"))
    return ApiError(response.status, str(said.get("reason") or response.reason), words, causes, seconds)


def _events(response: urllib3.BaseHTTPResponse) -> Iterator[tuple[str, Json]]:
    rest = b""
    try:
        for chunk in response.stream(65536, decode_content=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for text in filter(None, lines):
                event = json.loads(text)
                kind, item = str(event["type"]), event["object"]
                if kind == "ERROR":
                    raise ApiError(int(item.get("code") or 0), str(item.get("reason")), str(item.get("message")))
                yield kind, item
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ApiError(0, "BadAnswer", f"a watch sent what is no event: {error}") from error
    except (urllib3.exceptions.HTTPError, OSError):
        return  # ended by the network: like a watch that ended by itself
