"""What a user would write in place of pgbraid: asyncpg, one upsert from unnest for 1000 sorted rows.

Usage: PGPASSWORD=... python3 asyncpg_unnest.py PORT KEYS SECONDS. Prints one JSON object.
"""

import asyncio
import json
import random
import sys
import time

import asyncpg

PORT, KEYS, SECONDS = (int(argument) for argument in sys.argv[1:4])
BATCH = min(1000, KEYS)
CONNECTIONS = 2
UPSERT = """insert into public.feed (id, c1, c2)
    select * from unnest($1::int8[], $2::int4[], $3::int4[])
    on conflict (id) do update set c1 = excluded.c1, c2 = excluded.c2"""


def batch():
    keys = sorted(random.sample(range(KEYS), BATCH))
    c1 = random.choices(range(1000), k=BATCH)
    c2 = random.choices(range(1, 10001), k=BATCH)
    return keys, c1, c2


async def write(statement, batches, end, times):
    while time.perf_counter() < end:
        since = time.perf_counter()
        await statement.fetch(*random.choice(batches))
        times.append(time.perf_counter() - since)


async def main():
    # Made beforehand: making them is not what is measured.
    batches = [batch() for _ in range(2000)]
    connections = [
        await asyncpg.connect(host="127.0.0.1", port=PORT, user="pgbraid", database="pgbraid")
        for _ in range(CONNECTIONS)
    ]
    statements = [await connection.prepare(UPSERT) for connection in connections]
    for statement in statements:
        await statement.fetch(*batches[0])
    times = []
    cpu, start = time.process_time(), time.perf_counter()
    writers = (write(statement, batches, start + SECONDS, times) for statement in statements)
    await asyncio.gather(*writers)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    for connection in connections:
        await connection.close()
    times.sort()
    rows = len(times) * BATCH
    print(json.dumps({
        "rows": rows,
        "rows_per_second": rows / seconds,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[len(times) * 99 // 100] * 1000,
        "cpu_ns_per_row": cpu * 1e9 / rows,
    }))


asyncio.run(main())
