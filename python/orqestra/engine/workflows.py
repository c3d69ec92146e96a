"""Workflows: starts runs from the catalog. What follows a step is decided in `store/settling.py`."""

import asyncio

import orjson

from orqestra.engine.catalog import Catalog
from orqestra.engine.core import Core
from orqestra.engine.direct import DirectMatch
from orqestra.engine.lanes import Lanes
from orqestra.engine.relay import Relay
from orqestra.model.errors import MaybeStored, OutcomeUnknown
from orqestra.model.workflow import Definition, first_steps
from orqestra.store.database import retry_conflicts, until_known
from orqestra.store.submitting import Batch, PlacedJob, Stored


class Workflows:
    """The runs of workflows."""

    def __init__(self, core: Core, catalog: Catalog, lanes: Lanes, relay: Relay, direct: DirectMatch) -> None:
        self._database = core.callers
        self._catalog = catalog
        self._lanes = lanes
        self._relay = relay
        self._direct = direct
        self._triggering: set[asyncio.Task[int]] = set()

    async def trigger(self, name: str, key: str | None) -> int:
        """Store a run with its first steps in one transaction and return its id, the first one of the key.

        Raises:
            NotFound, InvalidDefinition: there is no such workflow, or its file is broken.
            MaybeStored: the connection broke during the commit and there is no key to ask again with.
        """
        definition = await asyncio.to_thread(self._catalog.get, name)
        for step in definition.steps:
            await self._lanes.find(step.job())
        # A caller who goes does not take it along: what would become of it then nobody knew.
        triggering = asyncio.create_task(self._trigger(definition, key), name=f"trigger {name}")
        self._triggering.add(triggering)
        triggering.add_done_callback(self._done)
        return await asyncio.shield(triggering)

    def _done(self, triggering: "asyncio.Task[int]") -> None:
        self._triggering.discard(triggering)
        if not triggering.cancelled():
            triggering.exception()

    async def _trigger(self, definition: Definition, key: str | None) -> int:
        run_id, stored = await self._store_until_known(definition, key)
        if stored is None:
            # The run is there already; if it is the commit of this very call, its hints were not handed over.
            self._relay.look_for_own()
        else:
            for row in stored.hints:
                self._relay.hand_over(*row)
        return run_id

    async def _store_until_known(self, definition: Definition, key: str | None) -> tuple[int, Stored | None]:
        try:
            if key is not None:
                return await until_known(lambda: self._store(definition, key))
            return await retry_conflicts(lambda: self._store(definition, key))
        except OutcomeUnknown as error:
            self._relay.look_for_own()
            again = "look before you trigger it again" if key is None else "with its key it is safe to trigger it again"
            raise MaybeStored(f"{error}; the run of {definition.name} may have been stored: {again}") from error

    async def _store(self, definition: Definition, key: str | None) -> tuple[int, Stored | None]:
        jobs = [(step, step.job()) for step in first_steps(definition)]
        lanes = [await self._lanes.find(job) for _, job in jobs]
        matching, run_id = self._direct.matching(), 0
        try:
            async with self._direct.storing(matching, self._database.transaction(planned_once=True)) as statements:
                row = await statements.fetch_one(
                    "add_run",
                    name=definition.name,
                    definition=orjson.dumps(definition.snapshot()).decode(),
                    key=key,
                )
                if row is None:
                    known = await statements.fetch_one("find_run_key", key=key)
                    assert known is not None
                    return known["id"], None
                run_id = row["id"]
                placed = [
                    PlacedJob(spec=job, lane_id=lane, run_id=run_id, step_key=step.key)
                    for (step, job), lane in zip(jobs, lanes, strict=True)
                ]
                return run_id, await matching.submit(statements, Batch.of(placed))
        except OutcomeUnknown:
            # Its steps are stored with it.
            if matching.found is None:
                raise
            return run_id, matching.found
