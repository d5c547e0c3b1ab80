"""procrastinate: thirty coroutines on ten connections; it has no batches to take or complete."""

import asyncio
import time

import procrastinate

from part import PAYLOAD, Counter, latencies, take_part, told


def app_of(url, handler):
    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=url, min_size=2, max_size=10)
    )

    @app.task(name="noop", queue="bench")
    async def noop(payload):
        handler()

    return app, noop


async def fill(url, n):
    app, noop = app_of(url, None)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for start in range(0, n, 1_000):
            jobs = [{"payload": PAYLOAD}] * min(1_000, n - start)
            await noop.batch_defer_async(*jobs)


def worker(app):
    return asyncio.create_task(
        app.run_worker_async(concurrency=30, install_signal_handlers=False)
    )


async def end(running):
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def work(url, n):
    app, _ = app_of(url, Counter(n).count)
    async with app.open_async():
        running = worker(app)
        await told()
        await end(running)


async def latency(url, n):
    starts = asyncio.Queue()
    app, noop = app_of(url, lambda: starts.put_nowait(time.perf_counter()))
    async with app.open_async():
        running = worker(app)
        await latencies(n, lambda: noop.defer_async(payload=PAYLOAD), starts)
        await end(running)


take_part({"fill": fill, "work": work, "latency": latency})
