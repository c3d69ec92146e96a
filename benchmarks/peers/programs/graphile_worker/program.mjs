// graphile-worker with the settings of its own performance page: batches in, a local queue, batches out.
import pg from "pg";
import { Logger, WorkerPreset, makeWorkerUtils, run } from "graphile-worker";
import { count, order, tell, now, inBatches, main } from "./common.mjs";

const BATCH = 1000;
const CALLERS = 4;
const CONCURRENT_JOBS = 24;
const LOCAL_QUEUE = 500;

// The address is in PGHOST and its like, which `pg` reads. Errors show where the pool is used.
function pool() {
  const made = new pg.Pool({ max: CONCURRENT_JOBS + 1 });
  made.on("error", console.error);
  made.on("connect", (client) => client.on("error", console.error));
  return made;
}

const quiet = { info() {}, debug() {}, warn: console.warn, error: console.error };

async function prepare() {
  const pgPool = pool();
  const utils = await makeWorkerUtils({ pgPool });
  await utils.migrate();
  await utils.release();
  await pgPool.end();
}

async function submit() {
  const { jobs, payload } = order();
  const pgPool = pool();
  const utils = await makeWorkerUtils({ pgPool });
  const beganAt = now();
  await inBatches(jobs, BATCH, CALLERS, (size) =>
    utils.addJobs(Array.from({ length: size }, () => ({ identifier: "noop", payload: { data: payload } }))),
  );
  tell(beganAt);
  await utils.release();
  await pgPool.end();
}

async function worker() {
  const runner = await run({
    pgPool: pool(),
    logger: new Logger(() => (level, message) => quiet[level in quiet ? level : "error"](message)),
    taskList: { noop: () => count() },
    preset: {
      extends: [WorkerPreset],
      worker: {
        concurrentJobs: CONCURRENT_JOBS,
        localQueue: { size: LOCAL_QUEUE },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  });
  await runner.promise;
}

main({ prepare, submit, worker });
