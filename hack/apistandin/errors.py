"""The server's refusals, in the words of a real one.

Code, reason, details and wording are those of ``k8s.io/apimachinery/pkg/api/errors/errors.go`` (v1.36) and of
``k8s.io/apiserver/pkg/endpoints/handlers/negotiation/errors.go``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OPTIMISTIC_LOCK = "the object has been modified; please apply your changes to the latest version and try again"


class ApiError(Exception):
    """An answer that is not a success.

    Args:
        code: the HTTP status.
        reason: the machine's word for it; "" where a real server has none.
        message: the sentence.
        details: ``details`` of the Status object; None leaves it out.
        headers: of the answer.
        plain: whether the answer is the bare sentence instead of a Status object.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        plain: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.plain = plain
        self.headers = dict(headers or {})
        self.status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.status["message"] = message
        if reason:
            self.status["reason"] = reason
        if details is not None:
            self.status["details"] = {key: value for key, value in details.items() if value not in ("", None)}
        self.status["code"] = code


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field (``field.Error`` of apimachinery).

    Attributes:
        field: its path, in dots.
        kind: the cause's reason.
        body: the sentence without the path.
    """

    field: str
    kind: str
    body: str

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"


def invalid_value(field: str, value: object, detail: str) -> FieldError:
    """A value that may not be."""
    shown = json.dumps(value, ensure_ascii=False) if value is not None else "null"
    return FieldError(field, "FieldValueInvalid", f"Invalid value: {shown}: {detail}")


def required(field: str, detail: str = "") -> FieldError:
    """A value that must be."""
    return FieldError(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def not_supported(field: str, value: object, supported: Iterable[str]) -> FieldError:
    """A value outside of an enumeration."""
    listed = ", ".join(json.dumps(one) for one in supported)
    return FieldError(
        field, "FieldValueNotSupported", f"Unsupported value: {json.dumps(value)}: supported values: {listed}"
    )


def duplicate(field: str, value: object, detail: str = "") -> FieldError:
    """A value that stands twice."""
    body = f"Duplicate value: {json.dumps(value, separators=(',', ':'))}"
    return FieldError(field, "FieldValueDuplicate", f"{body}: {detail}" if detail else body)


def forbidden_value(field: str, detail: str) -> FieldError:
    """A field that may not be set or changed."""
    return FieldError(field, "FieldValueForbidden", f"Forbidden: {detail}")


def bad_request(message: str) -> ApiError:
    """400: not understood."""
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    """401: no token, or one that is not known."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(group: str, plural: str, name: str, why: str) -> ApiError:
    """403 (``NewForbidden``); ``why`` is who may not do what."""
    resource = f"{plural}.{group}" if group else plural
    what = f'{resource} "{name}" is forbidden: {why}' if name else f"{resource} is forbidden: {why}"
    return ApiError(403, "Forbidden", what, {"name": name, "group": group, "kind": plural})


def not_found(group: str, plural: str, name: str) -> ApiError:
    """404 of an object."""
    resource = f"{plural}.{group}" if group else plural
    return ApiError(404, "NotFound", f'{resource} "{name}" not found', {"name": name, "group": group, "kind": plural})


def no_such_path() -> ApiError:
    """404 of a resource that the server does not have."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(group: str, plural: str, name: str) -> ApiError:
    """409 of a create."""
    resource = f"{plural}.{group}" if group else plural
    message = f'{resource} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, {"name": name, "group": group, "kind": plural})


def conflict(group: str, plural: str, name: str, why: str) -> ApiError:
    """409 of an update: another resourceVersion, another uid."""
    resource = f"{plural}.{group}" if group else plural
    message = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return ApiError(409, "Conflict", message, {"name": name, "group": group, "kind": plural})


def apply_conflict(causes: Sequence[Mapping[str, str]], message: str) -> ApiError:
    """409 of a server-side apply: fields that others own (``NewApplyConflict``)."""
    return ApiError(409, "Conflict", message, {"causes": list(causes)})


def invalid(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    """422 with one cause a field (``NewInvalid``); equal messages are said once (``ToAggregate``)."""
    shown = f"{kind}.{group}" if group else kind
    messages = list(dict.fromkeys(str(error) for error in errors))
    said = messages[0] if len(messages) == 1 else "[" + ", ".join(messages) + "]"
    causes = [{"reason": error.kind, "message": error.body, "field": error.field} for error in errors]
    details = {"name": name, "group": group, "kind": kind, "causes": causes}
    return ApiError(422, "Invalid", f'{shown} "{name}" is invalid: {said}', details)


def rejected_patch() -> ApiError:
    """422 of a JSON patch that does not apply; a real server keeps the cause to itself."""
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {})


def expired(message: str) -> ApiError:
    """410: a resourceVersion that the server no longer has."""
    return ApiError(410, "Expired", message)


def unsupported_media(accepted: Iterable[str]) -> ApiError:
    """415."""
    listed = ", ".join(accepted)
    message = f"the body of the request was in an unknown format - accepted media types include: {listed}"
    return ApiError(415, "UnsupportedMediaType", message)


def not_acceptable(accepted: Iterable[str]) -> ApiError:
    """406."""
    message = f"406: Not Acceptable\n\nAvailable representations: {', '.join(accepted)}"
    return ApiError(406, "NotAcceptable", message, {})


def method_not_allowed() -> ApiError:
    """405."""
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def too_large(limit: int) -> ApiError:
    """413."""
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def too_many(retry_after: int) -> ApiError:
    """429, as API priority and fairness says it: no Status object (``server/filters/priority-and-fairness.go``)."""
    message = "Too many requests, please try again later."
    details = {"retryAfterSeconds": retry_after}
    return ApiError(429, "TooManyRequests", message, details, {"Retry-After": str(retry_after)}, plain=True)


def unexplained(message: str) -> ApiError:
    """500 without a reason: an error that no handler turned into a Status (``ErrorToAPIStatus``)."""
    return ApiError(500, "", message)


def server_error(code: int, message: str = "") -> ApiError:
    """A 5xx such as a server or a load balancer before it gives in bad times."""
    words = {
        500: ("InternalError", "Internal error occurred: the stand-in was told to fail"),
        502: ("", "Bad Gateway"),
        503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504: ("Timeout", "Timeout: request did not complete within the allotted timeout"),
    }
    reason, said = words.get(code, ("InternalError", "an error on the server has prevented the request"))
    # A 502 is no API server's own: it is what stands before it that says so.
    return ApiError(code, reason, message or said, plain=code == 502)
