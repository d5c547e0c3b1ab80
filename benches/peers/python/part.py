"""What every program here does: `fill` a queue with n jobs, `work` on as many, or print the
`latency` of n, in milliseconds from an enqueue's commit to its handler's start."""

import asyncio
import random
import sys
import time

PAYLOAD = "0123456789" * 7 + "01234567890"


class Counter:
    """Says when the first job and the last one ran."""

    def __init__(self, n):
        self.n, self.ran = n, 0

    def count(self):
        if self.ran == 0:
            print("first", flush=True)
        self.ran += 1
        if self.ran == self.n:
            print("ran", flush=True)


async def told():
    """Waits for the word to end."""
    await asyncio.to_thread(sys.stdin.readline)


async def latencies(n, enqueue, starts):
    """Enqueues one job after the other; `starts` is a queue of the handlers' start times."""
    for _ in range(n):
        await asyncio.sleep(random.uniform(0.04, 0.12))
        await enqueue()
        committed = time.perf_counter()
        began = await starts.get()
        print(max(0.0, (began - committed) * 1000), flush=True)


def take_part(parts):
    what, url, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
    import uvloop

    uvloop.run(parts[what](url, n))
