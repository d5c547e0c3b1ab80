// graphile-worker, with the settings of its own page on performance.
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import { PAYLOAD, counter, latencies, takePart, told } from "./part.mjs";

const start = (connectionString, noop) =>
  run({
    preset: {
      worker: {
        connectionString,
        concurrentJobs: 24,
        maxPoolSize: 25,
        localQueue: { size: 500 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
        logger: new Logger(() => () => {}), // a line per job otherwise
      },
    },
    noHandleSignals: true,
    taskList: { noop },
  });

await takePart({
  async fill(connectionString, n) {
    const utils = await makeWorkerUtils({ connectionString });
    await utils.migrate();
    for (let left = n; left > 0; left -= 10_000) {
      const jobs = Array.from({ length: Math.min(left, 10_000) });
      await utils.addJobs(jobs.map(() => ({ identifier: "noop", payload: PAYLOAD })));
    }
    await utils.release();
  },
  async work(connectionString) {
    const count = counter();
    const runner = await start(connectionString, async () => count());
    await told();
    await runner.stop();
  },
  async latency(connectionString) {
    let started;
    const runner = await start(connectionString, async () => started(performance.now()));
    const next = () => new Promise((resolve) => (started = resolve));
    await latencies(() => runner.addJob("noop", PAYLOAD), next);
    await runner.stop();
  },
});
