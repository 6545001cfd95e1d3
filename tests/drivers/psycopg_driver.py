"""psycopg 3 on its own libpq. Connects by libpq's PG* environment; exits non-zero with the reason on a wrong result.
With the argument `logins`: one login for each line of standard input, see run.sh."""

import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg

# It warns about the pipeline that is meant to fail.
logging.getLogger("psycopg").setLevel(logging.ERROR)

TABLE = "driver_psycopg3"
CONNECTIONS = 6


def want(what, got, expected):
    if got != expected:
        raise SystemExit(f"psycopg3: {what}: got {got!r}, want {expected!r}")


def parameters(conn):
    row = conn.execute("SELECT %s::int + %s::int, %s::text, %s::bytea", (40, 2, "it's œ", b"\x00\xff")).fetchone()
    want("parameters", row, (42, "it's œ", b"\x00\xff"))
    row = conn.cursor(binary=True).execute("SELECT %b::int8, %b::float8", (1 << 40, 0.1)).fetchone()
    want("binary parameters", row, (1 << 40, 0.1))


def transactions(conn):
    with conn.transaction():
        conn.execute(f"INSERT INTO {TABLE} VALUES (1, 'kept')")
        try:
            with conn.transaction():
                conn.execute("SELECT 1/0")
        except psycopg.errors.DivisionByZero:
            pass
    try:
        with conn.transaction():
            conn.execute(f"INSERT INTO {TABLE} VALUES (2, 'lost')")
            raise KeyError("roll back")
    except KeyError:
        pass
    want("commit and rollback", conn.execute(f"SELECT array_agg(note) FROM {TABLE}").fetchone(), (["kept"],))


def prepared_loop(k):
    """Every connection names its statements alike (_pg3_0, ...), each with another text."""
    pids = set()
    with psycopg.connect(autocommit=True, application_name=f"loop {k}") as conn:
        for i in range(40):
            row = conn.execute(f"SELECT %s::int * {k}, pg_backend_pid()", (i,), prepare=True).fetchone()
            want(f"prepared loop {k}", row[0], i * k)
            pids.add(row[1])
            name = conn.execute("SHOW application_name", prepare=True).fetchone()[0]
            want("application_name", name, f"loop {k}")
    return pids


def pipeline(conn):
    with conn.pipeline() as pipe:
        cursors = [conn.execute("SELECT %s::int", (i,), prepare=True) for i in range(100)]
        pipe.sync()
        want("pipeline", [c.fetchone()[0] for c in cursors], list(range(100)))
    try:
        with conn.pipeline():
            conn.execute("SELECT 1")
            conn.execute("SELECT 1/0")
            conn.execute("SELECT 2")
        raise SystemExit("psycopg3: the error in the pipeline was lost")
    except psycopg.errors.DivisionByZero:
        pass
    want("after a failed pipeline", conn.execute("SELECT 3").fetchone(), (3,))


def copy(conn):
    with conn.cursor() as cur:
        with cur.copy(f"COPY {TABLE} FROM STDIN") as into:
            for i in range(100, 1100):
                into.write_row((i, "row"))
        with cur.copy(f"COPY (SELECT id FROM {TABLE} WHERE note = 'row' ORDER BY id) TO STDOUT") as out:
            want("copy out", [int(r[0]) for r in out.rows()], list(range(100, 1100)))
        try:
            with cur.copy(f"COPY {TABLE} FROM STDIN") as into:
                into.write_row((100, "duplicate"))
            raise SystemExit("psycopg3: a COPY of a duplicate key succeeded")
        except psycopg.errors.UniqueViolation:
            pass


def cancel(conn):
    timer = threading.Timer(0.5, lambda: conn.cancel_safe(timeout=10))
    started = time.monotonic()
    timer.start()
    try:
        conn.execute("SELECT pg_sleep(60)")
        raise SystemExit("psycopg3: pg_sleep was not cancelled")
    except psycopg.errors.QueryCanceled:
        want("cancelled in time", time.monotonic() - started < 20, True)
    timer.join()
    want("after the cancel", conn.execute("SELECT 1").fetchone(), (1,))


def main():
    with psycopg.connect(autocommit=True) as conn:
        want("TLS", conn.pgconn.ssl_in_use, True)
        with conn.transaction():
            conn.execute("SET LOCAL client_min_messages = warning")
            conn.execute(f"DROP TABLE IF EXISTS {TABLE}")
            conn.execute(f"CREATE TABLE {TABLE} (id int PRIMARY KEY, note text)")
        parameters(conn)
        transactions(conn)
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            pids = set().union(*threads.map(prepared_loop, range(1, CONNECTIONS + 1)))
        pipeline(conn)
        copy(conn)
        cancel(conn)
        conn.execute(f"DROP TABLE {TABLE}")
    print(f"ok psycopg {psycopg.__version__} libpq {psycopg.pq.version()}: {len(pids)} servers")


def login(words):
    try:
        with psycopg.connect(words) as conn:
            return "ok", conn.execute("SELECT current_user").fetchone()[0]
    except psycopg.Error as refused:
        return "no", refused.sqlstate or "-", " ".join(str(refused).split())


def logins():
    for line in sys.stdin:
        words = line.rstrip("\n").split("\t")[-1]
        print(*login(words), sep="\t", flush=True)


logins() if sys.argv[1:] == ["logins"] else main()
