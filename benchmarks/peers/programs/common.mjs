// What the two Python modules beside this file do, for Node: counter.py and producer.py have the contract.
import fs from "node:fs";
import path from "node:path";

// Node has no shared memory for this, so the page is written by a timer: the runner sees a job so much later.
const WRITE_MS = 5;

export const now = () => Number(process.hrtime.bigint()) / 1e9;

let jobs = 0;
let written = 0;
let descriptor = null;
const page = Buffer.alloc(16);

function write() {
  if (jobs !== written) {
    written = jobs;
    page.writeBigUInt64LE(BigInt(written), 0);
    fs.writeSync(descriptor, page, 0, page.length, 0);
  }
}

export function count() {
  if (descriptor === null) {
    descriptor = fs.openSync(path.join(process.env.COUNTS, String(process.pid)), "w");
    page.writeDoubleLE(now(), 8);
    setInterval(write, WRITE_MS).unref();
    process.on("exit", write);
  }
  jobs += 1;
}

export function order() {
  const asked = JSON.parse(process.argv[3]);
  return { jobs: asked.jobs, payload: "x".repeat(asked.payload_bytes) };
}

export function tell(beganAt) {
  process.stdout.write(`${JSON.stringify({ began_at: beganAt, ended_at: now() })}\n`);
}

// Submits all jobs in batches from a few callers at once; `submit` takes the size of a batch.
export async function inBatches(total, size, callers, submit) {
  let left = total;
  const caller = async () => {
    while (left > 0) {
      const batch = Math.min(size, left);
      left -= batch;
      await submit(batch);
    }
  };
  await Promise.all(Array.from({ length: callers }, caller));
}

export function main(verbs) {
  verbs[process.argv[2]]().catch((error) => {
    console.error(error);
    process.exit(1);
  });
}
