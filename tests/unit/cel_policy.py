"""A ValidatingAdmissionPolicy evaluated offline, by CEL's own implementation, as an API server does it.

It knows no types of Kubernetes and no cost limits: the cluster tier has a real API server say the last word.
"""

from collections.abc import Mapping
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings

Object = Mapping[str, Any]

_ENVIRONMENT = cel.NewEnv(
    variables=dict.fromkeys(("object", "oldObject", "request", "variables"), cel.Type.DYN),
    # The API server has these libraries too.
    extensions=[ext_optional.ExtOptional(), ext_strings.ExtStrings()],
)


class EvaluationError(Exception):
    """An expression has no value; the API server takes that for a denial."""


class Policy:
    """A policy, its expressions compiled.

    Args:
        document: the ValidatingAdmissionPolicy.

    Raises:
        Exception: an expression is not CEL.
    """

    def __init__(self, document: Object) -> None:
        spec = document["spec"]
        assert spec["failurePolicy"] == "Fail"
        self._conditions = [_ENVIRONMENT.compile(c["expression"]) for c in spec.get("matchConditions", ())]
        self._variables = {v["name"]: _ENVIRONMENT.compile(v["expression"]) for v in spec.get("variables", ())}
        self._validations = [
            (
                _ENVIRONMENT.compile(v["expression"]),
                v.get("message", ""),
                _ENVIRONMENT.compile(v["messageExpression"]) if "messageExpression" in v else None,
            )
            for v in spec["validations"]
        ]

    def denials(self, request: Object, new: Object | None, old: Object | None) -> list[str]:
        """Why a request is denied; nothing when it is not, or when it does not concern the policy."""
        data = {"object": new, "oldObject": old, "request": request, "variables": {}}
        if not all(_value(condition, data) for condition in self._conditions):
            return []
        for name, expression in self._variables.items():
            # A variable without a value denies only where it is used.
            try:
                data["variables"] |= {name: _value(expression, data)}
            except EvaluationError:
                continue
        return [_words(v, data) for v in self._validations if not _holds(v[0], data)]


def _value(expression: cel.Expression, data: Object) -> Any:
    value = expression.eval(data=dict(data))
    if value.type() == cel.Type.ERROR:
        raise EvaluationError(str(value.value()))
    return value.plain_value()


def _holds(expression: cel.Expression, data: Object) -> bool:
    try:
        return _value(expression, data) is True
    except EvaluationError:
        return False


def _words(validation: tuple[cel.Expression, str, cel.Expression | None], data: Object) -> str:
    _, message, expression = validation
    try:
        return str(_value(expression, data)) if expression else message
    except EvaluationError:
        return message or "no value"
