// pg-boss: large batches, fetched again at once while they come full, and woken by NOTIFY.
import { PgBoss } from "pg-boss";
import { PAYLOAD, counter, latencies, takePart, told } from "./part.mjs";

async function open(connectionString) {
  const boss = new PgBoss({ connectionString, max: 10, useListenNotify: true });
  boss.on("error", console.error);
  await boss.start();
  await boss.createQueue("noop", { notify: true });
  return boss;
}

const OPTIONS = {
  batchSize: 1000,
  localConcurrency: 4,
  pollingIntervalSeconds: 0.5,
  burstWhenBatchFull: true,
};

await takePart({
  async fill(connectionString, n) {
    const boss = await open(connectionString);
    for (let left = n; left > 0; left -= 10_000) {
      const jobs = Array.from({ length: Math.min(left, 10_000) });
      await boss.insert("noop", jobs.map(() => ({ data: PAYLOAD })));
    }
    await boss.stop();
  },
  async work(connectionString) {
    const boss = await open(connectionString);
    const count = counter();
    await boss.work("noop", OPTIONS, async (jobs) => count(jobs.length));
    await told();
    await boss.stop();
  },
  async latency(connectionString) {
    const boss = await open(connectionString);
    let started;
    const options = { ...OPTIONS, batchSize: 1, localConcurrency: 1 };
    await boss.work("noop", options, async () => started(performance.now()));
    const next = () => new Promise((resolve) => (started = resolve));
    await latencies(() => boss.send("noop", PAYLOAD), next);
    await boss.stop();
  },
});
