"""asyncpg: binary protocol, named statements with its own cache. Connects by PG* environment.
With the argument `logins`: one login for each line of standard input, see run.sh."""

import asyncio
import os
import ssl
import sys

import asyncpg

TABLE = "driver_asyncpg"
CONNECTIONS = 6


def want(what, got, expected):
    if got != expected:
        raise SystemExit(f"asyncpg: {what}: got {got!r}, want {expected!r}")


def tls():
    context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    context.check_hostname = os.environ["PGSSLMODE"] == "verify-full"
    return context


async def parameters(pool):
    row = await pool.fetchrow("SELECT $1::int + $2::int, $3::text, $4::bytea, $5::jsonb", 40, 2, "it's œ", b"\x00\xff", "[1]")
    want("parameters", tuple(row), (42, "it's œ", b"\x00\xff", "[1]"))


async def transactions(pool):
    async with pool.acquire() as conn:
        async with conn.transaction():
            await conn.execute(f"INSERT INTO {TABLE} VALUES ($1, $2)", 1, "kept")
            try:
                async with conn.transaction():
                    await conn.execute("SELECT 1/0")
            except asyncpg.DivisionByZeroError:
                pass
        try:
            async with conn.transaction():
                await conn.execute(f"INSERT INTO {TABLE} VALUES ($1, $2)", 2, "lost")
                raise KeyError("roll back")
        except KeyError:
            pass
    want("commit and rollback", await pool.fetchval(f"SELECT array_agg(note) FROM {TABLE}"), ["kept"])


async def prepared_loop(pool, k):
    pids = set()
    async with pool.acquire() as conn:
        statement = await conn.prepare(f"SELECT $1::int * {k}, pg_backend_pid()")
        for i in range(40):
            row = await statement.fetchrow(i)
            want(f"prepared loop {k}", row[0], i * k)
            pids.add(row[1])
            want("cached statement", await conn.fetchval(f"SELECT $1::text || '{k}'", "x"), f"x{k}")
    return pids


async def cursor(pool):
    async with pool.acquire() as conn, conn.transaction():
        rows = [r[0] async for r in conn.cursor("SELECT generate_series(1, $1)", 250)]
        want("cursor", rows, list(range(1, 251)))


async def copy(pool):
    records = [(i, "row") for i in range(100, 1100)]
    async with pool.acquire() as conn:
        await conn.copy_records_to_table(TABLE, records=records)
        lines = []

        async def collect(data):
            lines.append(data)

        await conn.copy_from_query(f"SELECT id FROM {TABLE} WHERE id >= 100 ORDER BY id", output=collect)
        want("copy out", b"".join(lines).split(), [str(i).encode() for i, _ in records])
        try:
            await conn.copy_records_to_table(TABLE, records=records[:1])
            raise SystemExit("asyncpg: a COPY of a duplicate key succeeded")
        except asyncpg.UniqueViolationError:
            pass
        want("after a failed COPY", await conn.fetchval("SELECT 1"), 1)


async def cancel(pool):
    async with pool.acquire() as conn:
        try:
            await conn.execute("SELECT pg_sleep(60)", timeout=0.5)
            raise SystemExit("asyncpg: pg_sleep was not cancelled")
        except asyncio.TimeoutError:
            pass
        want("after the cancel", await asyncio.wait_for(conn.fetchval("SELECT 1"), 20), 1)
    left = await pool.fetchval("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'")
    want("sleepers left on the server", left, 0)


async def main():
    async with asyncpg.create_pool(min_size=CONNECTIONS, max_size=CONNECTIONS, ssl=tls()) as pool:
        async with pool.acquire() as conn, conn.transaction():
            await conn.execute("SET LOCAL client_min_messages = warning")
            await conn.execute(f"DROP TABLE IF EXISTS {TABLE}")
            await conn.execute(f"CREATE TABLE {TABLE} (id int PRIMARY KEY, note text)")
        await parameters(pool)
        await transactions(pool)
        pids = set().union(*await asyncio.gather(*(prepared_loop(pool, k) for k in range(1, CONNECTIONS + 1))))
        await cursor(pool)
        await copy(pool)
        await cancel(pool)
        await pool.execute(f"DROP TABLE {TABLE}")
    print(f"ok asyncpg {asyncpg.__version__}: {len(pids)} servers")


def login_tls(how, folder):
    if how in ("plain", "unix"):
        return {"ssl": False}
    context = ssl.create_default_context(cafile=f"{folder}/authority.crt")
    if how == "tls":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if how == "certificate":
        context.load_cert_chain(f"{folder}/client.crt", f"{folder}/client.key")
    if how == "direct":
        context.set_alpn_protocols(["postgresql"])
    return {"ssl": context, "direct_tls": how == "direct"}


async def login(how, folder, host, port, user, password, database):
    try:
        conn = await asyncpg.connect(
            host=host, port=port, user=user, password=password, database=database, timeout=20, **login_tls(how, folder)
        )
        try:
            return "ok", await conn.fetchval("SELECT current_user")
        finally:
            await conn.close()
    except asyncpg.PostgresError as refused:
        return "no", refused.sqlstate, " ".join(str(refused).split())
    except (OSError, asyncpg.InterfaceError) as failed:
        return "no", "-", " ".join(repr(failed).split())


async def logins():
    for line in sys.stdin:
        print(*await login(*line.split("\t")[:7]), sep="\t", flush=True)


asyncio.run(logins() if sys.argv[1:] == ["logins"] else main())
