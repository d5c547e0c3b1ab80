"""pgqueuer: large batches."""

import asyncio
import time

import asyncpg
from pgqueuer import AsyncpgPoolDriver, PgQueuer, Queries

from part import PAYLOAD, Counter, latencies, take_part, told


async def open_driver(url):
    # asyncpg takes the host before the @ for the truth
    pool = await asyncpg.create_pool(url.replace("@localhost", "@"), min_size=2, max_size=10)
    return AsyncpgPoolDriver(pool)


async def fill(url, n):
    queries = Queries(await open_driver(url))
    await queries.install()
    for start in range(0, n, 10_000):
        k = min(10_000, n - start)
        await queries.enqueue(["noop"] * k, [PAYLOAD.encode()] * k, [0] * k)


async def work(url, n):
    pgq, counter = PgQueuer(await open_driver(url)), Counter(n)

    @pgq.entrypoint("noop")
    async def noop(job):
        counter.count()

    running = asyncio.create_task(pgq.run(batch_size=1000))
    await told()
    pgq.shutdown.set()
    await running


async def latency(url, n):
    driver, starts = await open_driver(url), asyncio.Queue()
    pgq, queries = PgQueuer(driver), Queries(driver)

    @pgq.entrypoint("noop")
    async def noop(job):
        starts.put_nowait(time.perf_counter())

    running = asyncio.create_task(pgq.run(batch_size=1000))
    await latencies(n, lambda: queries.enqueue("noop", PAYLOAD.encode()), starts)
    pgq.shutdown.set()
    await running


take_part({"fill": fill, "work": work, "latency": latency})
