// What every program here does: `fill` a queue with n jobs, `work` on as many, or print the
// `latency` of n, in milliseconds from an enqueue's commit to its handler's start.

export const PAYLOAD = { payload: "0123456789".repeat(7) + "01234567890" };

const [what, url, count] = process.argv.slice(2);
const n = Number(count);

// Says when the first job and the last one ran, and waits for the word to end.
export function counter() {
  let ran = 0;
  return (by = 1) => {
    if (ran === 0) process.stdout.write("first\n");
    ran += by;
    if (ran >= n && ran - by < n) process.stdout.write("ran\n");
  };
}

export const told = () => new Promise((resolve) => process.stdin.once("data", resolve));

// Enqueues one job after the other on an idle worker; `started` resolves when its handler starts.
export async function latencies(enqueue, next) {
  for (let i = 0; i < n; i++) {
    await new Promise((resolve) => setTimeout(resolve, 40 + Math.random() * 80));
    const started = next();
    await enqueue();
    const committed = performance.now();
    process.stdout.write(`${Math.max(0, (await started) - committed)}\n`);
  }
}

export async function takePart(parts) {
  await parts[what](url, n);
  process.exit(0);
}
