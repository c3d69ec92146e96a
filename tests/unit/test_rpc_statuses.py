"""Errors as statuses and trailers: every error of the tree has its place, and a promise is made only where it holds."""

import grpc
import pytest

from orqestra.model import errors
from orqestra.rpc.roles import ROLES
from orqestra.rpc.server import SERVICES
from orqestra.rpc.statuses import status_of, trailers_of

Code = grpc.StatusCode

RAISED = [
    (errors.InvalidInput("queue", "'a b'; letters are allowed"), Code.INVALID_ARGUMENT, True),
    (errors.InvalidDefinition("a.yaml", 3, "no steps"), Code.INVALID_ARGUMENT, True),
    (errors.NotFound("job", 7), Code.NOT_FOUND, True),
    (errors.Refused("it runs"), Code.FAILED_PRECONDITION, True),
    (errors.Overloaded("too much", retry_after_ms=200), Code.RESOURCE_EXHAUSTED, True),
    (errors.StorageUnavailable("away"), Code.UNAVAILABLE, True),
    (errors.Unavailable("away"), Code.UNAVAILABLE, False),
    (errors.OutcomeUnknown("cut off"), Code.UNAVAILABLE, False),
    (errors.HintsUnavailable("away"), Code.UNAVAILABLE, False),
    (errors.MaybeStored("cut off"), Code.ABORTED, False),
    (errors.OrqestraError("odd"), Code.INTERNAL, False),
]


@pytest.mark.parametrize(("error", "status", "certainly_not_stored"), RAISED, ids=lambda value: type(value).__name__)
def test_each_error_has_its_status_and_trailers(
    error: errors.OrqestraError, status: grpc.StatusCode, *, certainly_not_stored: bool
) -> None:
    trailers = dict(trailers_of(error))

    assert status_of(error) is status
    assert trailers["orqestra-code"] == error.code
    assert trailers.get("orqestra-stored") == ("no" if certainly_not_stored else None)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (errors.Overloaded("too much", retry_after_ms=200), "200"),
        (errors.Unavailable("away"), "1000"),
        (errors.StorageUnavailable("away", retry_after_ms=5), "5"),
        (errors.MaybeStored("cut off"), None),
        (errors.NotFound("job", 7), None),
    ],
)
def test_only_what_may_pass_by_itself_has_a_retry_hint(error: errors.OrqestraError, hint: str | None) -> None:
    assert dict(trailers_of(error)).get("orqestra-retry-after-ms") == hint


def test_a_field_with_strange_letters_fits_a_trailer() -> None:
    trailers = dict(trailers_of(errors.InvalidInput("labels.ü", "no")))

    assert trailers["orqestra-field"].isascii()


def test_every_rpc_has_a_role() -> None:
    rpcs = {f"/{service.full_name}/{method}" for service in SERVICES for method in service.methods_by_name}

    assert rpcs == set(ROLES)
