"""A trigger for test databases that refuses what `model/lifecycle.py` does not allow.

It is built from the tables there and knows nothing of the statements it watches: whatever writes a row,
however it is written, a step that the lifecycle does not have fails with SQLSTATE OQ001.
"""

from collections.abc import Iterable

from orqestra.model.lifecycle import BORN, RUN_TRANSITIONS, TERMINAL, TRANSITIONS, Event, State, sources

SQLSTATE = "OQ001"

# What the last attempt left; a job that has ended keeps it until an operator retries it.
RESULT_COLUMNS = (
    *("attempt", "finished_at", "exit_code", "exit_signal", "reason", "error"),
    *("stdout", "stderr", "stdout_bytes", "stderr_bytes", "truncated"),
)


def job_trigger() -> str:
    """Return the SQL of `forbid_bad_transition` on `jobs`."""
    edges = sorted({(source, target) for (source, _), target in TRANSITIONS.items()})
    births = ", ".join(f"('{state}', {fence})" for state, fence in BORN.items())
    new_result, old_result = (", ".join(f"{row}.{column}" for column in RESULT_COLUMNS) for row in ("NEW", "OLD"))
    return f"""
CREATE FUNCTION forbid_bad_transition() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_claim CONSTANT boolean := OLD.state IN {_list(sources(Event.CLAIMED))}
                                 AND NEW.state = '{State.RUNNING}';
    problem text;
BEGIN
    problem := CASE
        WHEN NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN ({_pairs(edges)})
            THEN 'the lifecycle has no such step'
        WHEN NEW.fence <> OLD.fence + is_claim::integer
            THEN format('the fence rises by one with a claim and only there, not from %s to %s',
                        OLD.fence, NEW.fence)
        WHEN is_claim AND OLD.cancel_requested_at IS NOT NULL
            THEN 'nothing cancelled is claimed'
        WHEN OLD.state = '{State.RUNNING}' AND NEW.state <> OLD.state
             AND (NEW.state = '{State.CANCELLED}') <> (OLD.cancel_requested_at IS NOT NULL)
            THEN 'out of running, a job ends cancelled if that was asked for and only then'
        WHEN OLD.state IN {_list(TERMINAL)} AND NEW.state = OLD.state
             AND ({new_result}) IS DISTINCT FROM ({old_result})
            THEN 'a result is written once'
    END;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'job % from % to %: %', OLD.id, OLD.state, NEW.state, problem
            USING ERRCODE = '{SQLSTATE}';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER forbid_bad_transition BEFORE UPDATE ON jobs
    FOR EACH ROW EXECUTE FUNCTION forbid_bad_transition();

CREATE FUNCTION forbid_bad_birth() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.state, NEW.fence) NOT IN ({births}) THEN
        RAISE EXCEPTION 'job % is born % with fence %', NEW.id, NEW.state, NEW.fence
            USING ERRCODE = '{SQLSTATE}';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER forbid_bad_birth BEFORE INSERT ON jobs
    FOR EACH ROW EXECUTE FUNCTION forbid_bad_birth();
"""


def run_trigger() -> str:
    """Return the SQL of `forbid_bad_run_transition` on `workflow_runs`."""
    return f"""
CREATE FUNCTION forbid_bad_run_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN ({_pairs(sorted(RUN_TRANSITIONS))}) THEN
        RAISE EXCEPTION 'run % from % to %: the lifecycle has no such step', OLD.id, OLD.state, NEW.state
            USING ERRCODE = '{SQLSTATE}';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER forbid_bad_run_transition BEFORE UPDATE ON workflow_runs
    FOR EACH ROW EXECUTE FUNCTION forbid_bad_run_transition();
"""


def _list(states: Iterable[str]) -> str:
    return "(" + ", ".join(f"'{state}'" for state in sorted(states)) + ")"


def _pairs(edges: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"('{source}', '{target}')" for source, target in edges)
