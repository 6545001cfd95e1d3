//! The table: what each client has under way when PostgreSQL dies, and what it has to hear. Owns no way of dying.
//!
//! What stands in a statement's way is `gate()`, an advisory lock that is gone after each death: a statement that is sent
//! once more gets through. `replicated()` makes a commit wait for a standby that does not exist.

use weir_cluster::schema;
use weir_e2e::wire;

/// A database of the same PostgreSQL in session pooling.
pub(crate) const SESSIONS: &str = "sessions";

/// What the client hears, as codes of errors, tags of commands and status: `08007 I`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hears {
    /// The same, however PostgreSQL dies.
    Always(&'static str),
    /// It was sent once more if that is right, and is in doubt otherwise.
    Again(&'static str),
    /// FATAL 57P01 with a DETAIL that ends like this, and the end: its session died.
    Over(&'static str),
}

/// One situation.
pub(crate) struct Situation {
    pub(crate) what: &'static str,
    pub(crate) database: &'static str,
    /// Sent in front, one after the other, each answered without an error.
    pub(crate) before: Vec<Vec<u8>>,
    /// Under way when PostgreSQL dies.
    pub(crate) request: Vec<u8>,
    /// The message of its reply that the client has to have heard before that; none if 0.
    pub(crate) begun: u8,
    /// Sent after the death, if the request alone gets no answer.
    pub(crate) after: Vec<u8>,
    pub(crate) hears: Hears,
    /// Rows that it leaves behind, when it is in doubt (or failed) and when it was sent once more.
    pub(crate) rows: (u8, u8),
}

impl Situation {
    fn new(what: &'static str, request: Vec<u8>, hears: Hears) -> Self {
        Self {
            what,
            database: schema::DATABASE,
            before: Vec::new(),
            request,
            begun: 0,
            after: Vec::new(),
            hears,
            rows: (0, 0),
        }
    }

    /// A row that is there only if the request was sent once more.
    fn again(what: &'static str, request: Vec<u8>, hears: &'static str) -> Self {
        Self { rows: (0, 1), ..Self::new(what, request, Hears::Again(hears)) }
    }

    fn after(mut self, requests: &[&str]) -> Self {
        self.before = requests.iter().map(|sql| wire::query(sql)).collect();
        self
    }

    /// The client has heard the beginning of the reply.
    fn begun(self, tag: u8) -> Self {
        Self { begun: tag, ..self }
    }

    /// It leaves this row behind, however PostgreSQL dies.
    fn leaving_a_row(self) -> Self {
        Self { rows: (1, 1), ..self }
    }
}

/// A notice takes what is in front of it with it to the client.
const BEGINS: &str = "SELECT announced_gate()";

fn batch(sql: &str) -> Vec<u8> {
    [work(sql), wire::sync()].concat()
}

/// A batch without its Sync.
fn work(sql: &str) -> Vec<u8> {
    [wire::parse("", sql), wire::bind("", "", &[]), wire::execute("", 0)].concat()
}

/// All of them. `function` is the number of `called()`.
pub(crate) fn all(function: u32) -> impl Iterator<Item = Situation> {
    let call = call(function);
    let outside = outside().into_iter().chain(outside_in_pieces()).chain(pipelines(&call));
    outside.chain(inside()).chain(inside_in_pieces(&call)).chain(sessions(&call)).chain(pinned())
}

/// A FunctionCall of a function with one argument, in text.
fn call(function: u32) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    // No formats, one argument of three bytes, a result in text.
    body.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 3]);
    body.extend_from_slice(b"NNN");
    body.extend_from_slice(&[0, 0]);
    wire::message(b'F', &body)
}

const INSERT: &str = "INSERT INTO facts SELECT NNN FROM gate()";
const OPEN: [&str; 2] = ["BEGIN", "INSERT INTO facts VALUES (NNN)"];
/// Its COMMIT waits at the gate.
const LATE: [&str; 2] = ["BEGIN", "INSERT INTO late VALUES (NNN)"];

/// A COPY, and a row of it.
fn copy_in(sql: &str) -> Vec<u8> {
    [wire::query(sql), wire::message(b'd', b"NNN\n")].concat()
}

fn outside() -> Vec<Situation> {
    let (always, insert) = (Hears::Always, INSERT);
    let with = "WITH a AS (INSERT INTO facts SELECT NNN FROM gate() RETURNING 1) SELECT FROM a";
    let named = [wire::bind("", "s", &[]), wire::execute("", 0), wire::sync()].concat();
    vec![
        Situation::again("simple", wire::query(insert), "INSERT 0 1 I"),
        Situation::again("WITH", wire::query(with), "SELECT 1 I"),
        Situation::again("extended", batch(insert), "INSERT 0 1 I"),
        Situation {
            before: vec![[wire::parse("s", insert), wire::sync()].concat()],
            ..Situation::again("named", named, "INSERT 0 1 I")
        },
        Situation::new("read", wire::query("SELECT FROM gate()"), Hears::Again("SELECT 1 I")),
        Situation { begun: b'N', ..Situation::new("rows begun", wire::query(BEGINS), always("08007 I")) },
        Situation::new(
            "several",
            wire::query("INSERT INTO facts VALUES (NNN); SELECT gate()"),
            always("08007 I"),
        ),
        Situation::new(
            "DO",
            wire::query("DO 'BEGIN PERFORM gate(); INSERT INTO facts VALUES (NNN); END'"),
            always("08007 I"),
        ),
        Situation::new("EXPLAIN", wire::query(&format!("EXPLAIN ANALYZE {insert}")), always("08007 I")),
        // The procedure has committed its row.
        Situation {
            rows: (1, 1),
            ..Situation::new("CALL", wire::query("CALL commits(NNN)"), always("08007 I"))
        },
        Situation::new("two Executes", [work(insert), batch("SELECT gate()")].concat(), always("08007 I")),
        Situation {
            after: wire::sync(),
            ..Situation::new("flushed", [work(insert), wire::flush()].concat(), always("08007 I"))
        },
    ]
}

fn outside_in_pieces() -> Vec<Situation> {
    let always = Hears::Always;
    vec![
        Situation::new("COPY in", copy_in("COPY facts FROM STDIN"), always("08007 I")).begun(b'G'),
        Situation {
            after: wire::sync(),
            ..Situation::new(
                "COPY in, extended",
                [work("COPY facts FROM STDIN"), wire::flush(), wire::message(b'd', b"NNN\n")].concat(),
                always("08007 I"),
            )
        }
        .begun(b'G'),
        // Its end is committed, as far as the gate.
        Situation::new(
            "COPY in, ended",
            [copy_in("COPY late FROM STDIN"), wire::message(b'c', b"")].concat(),
            always("08007 I"),
        ),
        Situation {
            begun: b'N',
            ..Situation::new(
                "COPY out",
                wire::query(&format!("COPY ({BEGINS}) TO STDOUT")),
                always("08007 I"),
            )
        },
        // Committed already, while waiting for the standby.
        Situation {
            rows: (1, 1),
            ..Situation::new(
                "replicated",
                wire::query("INSERT INTO facts SELECT NNN FROM replicated()"),
                always("08007 I"),
            )
        },
        Situation {
            rows: (1, 1),
            ..Situation::new(
                "replicated, extended",
                batch("INSERT INTO facts SELECT NNN FROM replicated()"),
                always("08007 I"),
            )
        },
    ]
}

fn inside() -> Vec<Situation> {
    let (always, insert, open, late) = (Hears::Always, INSERT, OPEN, LATE);
    let replicated = ["BEGIN", "INSERT INTO facts SELECT NNN FROM replicated()"];
    vec![
        Situation { after: wire::query("SELECT 1"), ..Situation::new("idle", Vec::new(), always("40001 E")) }
            .after(&open),
        Situation {
            after: batch("SELECT 1"),
            ..Situation::new("idle, extended", Vec::new(), always("40001 E"))
        }
        .after(&open),
        Situation {
            after: wire::query("COMMIT"),
            ..Situation::new("idle, COMMIT", Vec::new(), always("40001 I"))
        }
        .after(&open),
        Situation {
            after: batch("COMMIT"),
            ..Situation::new("idle, COMMIT, extended", Vec::new(), always("40001 I"))
        }
        .after(&open),
        Situation {
            after: wire::query("ROLLBACK"),
            ..Situation::new("idle, ROLLBACK", Vec::new(), always("ROLLBACK I"))
        }
        .after(&open),
        Situation::new("statement", wire::query(insert), always("40001 E")).after(&["BEGIN"]),
        Situation::new("statement, extended", batch(insert), always("40001 E")).after(&["BEGIN"]),
        Situation::new("COMMIT", wire::query("COMMIT"), always("08007 I")).after(&late),
        Situation::new("COMMIT, extended", batch("COMMIT"), always("08007 I")).after(&late),
        Situation::new("string with COMMIT", wire::query(&format!("{insert}; COMMIT")), always("08007 E"))
            .after(&["BEGIN"]),
        Situation {
            rows: (1, 1),
            ..Situation::new("COMMIT, replicated", wire::query("COMMIT"), always("08007 I"))
        }
        .after(&replicated),
        Situation {
            rows: (1, 1),
            ..Situation::new("COMMIT, replicated, extended", batch("COMMIT"), always("08007 I"))
        }
        .after(&replicated),
    ]
}

/// Several Syncs are unanswered.
fn pipelines(call: &[u8]) -> Vec<Situation> {
    let (always, other) = (Hears::Always, "INSERT INTO facts VALUES (NNN + 500)");
    let both = "08007 I 08007 I";
    vec![
        Situation::new("pipeline", [batch(INSERT), batch(other)].concat(), always(both)),
        Situation::new("simple ones", [wire::query(INSERT), wire::query(other)].concat(), always(both)),
        Situation::new(
            "three of all kinds",
            [batch(INSERT), wire::query(other), call.to_vec()].concat(),
            always("08007 I 08007 I 08007 I"),
        ),
        // The first one is answered, and its row stays.
        Situation::new("half answered", [batch(other), batch(INSERT)].concat(), always("08007 I"))
            .begun(b'Z')
            .leaving_a_row(),
        Situation::new("a whole transaction", transaction("COMMIT"), always("08007 I 08007 I")).after(&OPEN),
        Situation::new("a whole one rolled back", transaction("ROLLBACK"), always("40001 E 40001 E"))
            .after(&OPEN),
        Situation::new("inside", [batch(INSERT), batch("SELECT 1")].concat(), always("40001 E 40001 E"))
            .after(&OPEN),
        Situation::new("function call", call.to_vec(), always("08007 I")),
    ]
}

/// Work and an end, in a batch each.
fn transaction(end: &str) -> Vec<u8> {
    [batch(INSERT), batch(end)].concat()
}

fn inside_in_pieces(call: &[u8]) -> Vec<Situation> {
    let always = Hears::Always;
    let copy_out = format!("COPY ({BEGINS}) TO STDOUT");
    vec![
        Situation::new("COPY in inside", copy_in("COPY facts FROM STDIN"), always("40001 E"))
            .after(&OPEN[..1])
            .begun(b'G'),
        Situation::new("COPY out inside", wire::query(&copy_out), always("40001 E")).after(&OPEN).begun(b'N'),
        Situation::new("function call inside", call.to_vec(), always("40001 E")).after(&OPEN),
    ]
}

const IDLE: Hears = Hears::Over("what the session had set up there is gone.");
const ROLLED_BACK: Hears = Hears::Over("Its transaction was rolled back.");
const IN_DOUBT: Hears = Hears::Over("What it had under way may or may not have been carried out.");

/// Session pooling: whoever has run something goes with its server connection.
fn sessions(call: &[u8]) -> Vec<Situation> {
    let replicated = "INSERT INTO facts SELECT NNN FROM replicated()";
    let rows = vec![
        Situation {
            after: wire::query("SELECT 1"),
            ..Situation::new("nothing has run", Vec::new(), Hears::Always("SELECT 1 I"))
        },
        Situation::new("at rest", Vec::new(), IDLE).after(&["SELECT 1"]),
        Situation::new("first statement", wire::query(INSERT), IN_DOUBT),
        Situation::new("extended", batch(INSERT), IN_DOUBT).after(&["SELECT 1"]),
        Situation::new("function call", call.to_vec(), IN_DOUBT),
        Situation::new("COPY in", copy_in("COPY facts FROM STDIN"), IN_DOUBT).begun(b'G'),
        Situation::new("committed while it waits", wire::query(replicated), IN_DOUBT).leaving_a_row(),
        Situation::new("at rest in a transaction", Vec::new(), ROLLED_BACK).after(&OPEN),
        Situation::new("statement in a transaction", wire::query(INSERT), ROLLED_BACK).after(&["BEGIN"]),
        Situation::new("COMMIT", wire::query("COMMIT"), IN_DOUBT).after(&LATE),
        Situation::new("pipeline", transaction("COMMIT"), IN_DOUBT).after(&["BEGIN"]),
    ];
    rows.into_iter().map(|row| Situation { database: SESSIONS, ..row }).collect()
}

/// Transaction pooling, and tied to its server connection by what cannot follow it.
fn pinned() -> Vec<Situation> {
    let (listen, lock) = ("LISTEN news", "SELECT pg_advisory_lock(1000 + NNN)");
    let table = "CREATE TEMPORARY TABLE own (id int)";
    vec![
        Situation::new("listens", Vec::new(), IDLE).after(&[listen]),
        Situation::new("has locked", wire::query(INSERT), IN_DOUBT).after(&[lock]),
        Situation::new("has a table", batch(INSERT), IN_DOUBT).after(&[table, "SELECT 1"]),
        Situation::new("listens, in a transaction", Vec::new(), ROLLED_BACK)
            .after(&[listen, OPEN[0], OPEN[1]]),
        Situation::new("has locked, COMMIT", wire::query("COMMIT"), IN_DOUBT)
            .after(&[lock, LATE[0], LATE[1]]),
        // Nothing is there before it is committed.
        Situation {
            after: wire::query("SELECT 1"),
            ..Situation::new("is about to listen", Vec::new(), Hears::Always("40001 E"))
        }
        .after(&["BEGIN", listen]),
        // What has gone again ties nobody.
        Situation::again("listened", wire::query(INSERT), "INSERT 0 1 I").after(&[
            listen,
            "UNLISTEN news",
            "SELECT 1",
        ]),
    ]
}
