"""What nearly every loop of a server stands on."""

from dataclasses import dataclass

from orqestra.clock import Clock
from orqestra.engine.link import Link
from orqestra.engine.pg_clock import PostgresClock
from orqestra.engine.repairs import Repairs
from orqestra.queue.hints import Hints
from orqestra.store.database import Database


@dataclass(frozen=True, kw_only=True)
class Core:
    """The outside of one server: the truth, the hints and whether they serve, both clocks, its number, its repairs.

    `callers` is the database for what clients ask: however much of that waits for locks, it leaves connections to the
    loops that submit, claim and settle.
    """

    clock: Clock
    database: Database
    callers: Database
    hints: Hints
    link: Link
    pg_clock: PostgresClock
    server_id: int
    repairs: Repairs
