"""The one error tree. Outcomes (a lost race, a stale result) are return values and not here.

    OrqestraError
    ├── InvalidInput            a field of a request, named, with the value and what is allowed
    │   └── InvalidDefinition   a workflow file, with its line
    ├── NotFound                no such job, run or workflow
    ├── Refused                 the state does not allow it (cancel of a finished job ...)
    ├── Overloaded              too much is waiting; nothing was stored; try again
    ├── Unavailable             a service that is needed is away
    │   ├── StorageUnavailable  Postgres is away; nothing was stored
    │   ├── OutcomeUnknown      the connection was lost while a statement ran
    │   └── HintsUnavailable    Redis is away; dispatch goes on from Postgres
    ├── MaybeStored             the connection was lost during COMMIT: it may have been stored
    ├── StartFailed             an embedded service, or a process that we start, did not come up
    ├── MigrationFailed         a migration did not apply; the schema is what it was before it
    ├── SchemaMismatch          the database's schema is not the one this version knows
    └── BadSettings             a setting, named, with the value and what is allowed

Each has a stable `code`, which the doors (`rpc`, `http`, `cli`) map to their own status in one table each.
"""

from typing import ClassVar


class OrqestraError(Exception):
    """Any error that Orqestra itself raises. The message says what happened, to what, and what to do."""

    code: ClassVar[str] = "error"


class InvalidInput(OrqestraError):
    """A value was refused: `field` names it, the message tells the value and what is allowed."""

    code = "invalid_input"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class InvalidDefinition(InvalidInput):
    """A workflow file was refused; `line` counts from 1 (0: the file as a whole)."""

    code = "invalid_definition"

    def __init__(self, source: str, line: int, problem: str) -> None:
        super().__init__(f"{source}:{line}" if line else source, problem)
        self.source = source
        self.line = line


class NotFound(OrqestraError):
    """There is no such job, run or workflow."""

    code = "not_found"

    def __init__(self, kind: str, name: object) -> None:
        super().__init__(f"no {kind} {name}")
        self.kind = kind
        self.name = name


class Refused(OrqestraError):
    """The thing exists, but its state does not allow what was asked."""

    code = "refused"


class Overloaded(OrqestraError):
    """Too much is waiting already; nothing was stored. Try again after `retry_after_ms`."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_ms: int) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Unavailable(OrqestraError):
    """A service that is needed is away. Try again after `retry_after_ms`."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class StorageUnavailable(Unavailable):
    """Postgres is away and what was asked was certainly not stored."""

    code = "storage_unavailable"


class OutcomeUnknown(Unavailable):
    """The connection to Postgres was lost while a statement ran: it may or may not have taken effect."""

    code = "outcome_unknown"


class HintsUnavailable(Unavailable):
    """Redis is away or cannot be written: dispatch goes on from Postgres, slower."""

    code = "hints_unavailable"


class MaybeStored(OrqestraError):
    """The connection to Postgres was lost while it committed: the jobs may have been stored.

    Only raised for submits without an idempotency key; those with one are run again.
    """

    code = "maybe_stored"


class StartFailed(OrqestraError):
    """A process that we start did not come up, or may not be started; the message tells what was found."""

    code = "start_failed"


class MigrationFailed(OrqestraError):
    """A migration did not apply: the message names the file, the line and what Postgres said. It was rolled back."""

    code = "migration_failed"


class SchemaMismatch(OrqestraError):
    """The database's schema is older or newer than this version knows; the message has the command that mends it."""

    code = "schema_mismatch"


class BadSettings(OrqestraError):
    """A setting was refused: the message names the variable, its value and what is allowed."""

    code = "bad_settings"
