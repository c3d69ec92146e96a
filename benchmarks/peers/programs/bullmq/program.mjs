// BullMQ: bulk adds, one connection per process, many jobs at once in each worker, finished jobs removed.
import { Queue, Worker } from "bullmq";
import { count, order, tell, now, inBatches, main } from "./common.mjs";

const BATCH = 1000;
const CALLERS = 4;
const CONCURRENCY = 100;

const connection = { path: process.env.REDIS_SOCKET, maxRetriesPerRequest: null };

async function submit() {
  const { jobs, payload } = order();
  const queue = new Queue("noop", { connection });
  await queue.waitUntilReady();
  const beganAt = now();
  await inBatches(jobs, BATCH, CALLERS, (size) =>
    queue.addBulk(Array.from({ length: size }, () => ({ name: "noop", data: payload }))),
  );
  tell(beganAt);
  await queue.close();
}

async function worker() {
  const options = { connection, concurrency: CONCURRENCY, removeOnComplete: { count: 0 } };
  const bull = new Worker("noop", async () => count(), options);
  bull.on("error", console.error);
  process.once("SIGTERM", () => bull.close().then(() => process.exit(0)));
}

main({ submit, worker });
