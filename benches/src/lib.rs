//! A whole worker with one client and a PostgreSQL that reads from a script, for measuring what one round trip costs
//! without sockets. Owns the script and the conversation; measures nothing itself.

mod postgres;
mod world;

pub use world::{Conversation, World};

use weir_protocol::frontend::{self, TargetKind};

/// A conversation that most of an application's day consists of.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it is called in results.
    pub name: &'static str,
    /// Sent once, before anything is measured.
    pub preparation: fn(&mut Vec<u8>),
    /// Sent again and again.
    pub request: fn(&mut Vec<u8>),
    /// Rows that PostgreSQL answers with.
    pub rows: usize,
}

/// What is measured.
pub const CASES: [Case; 5] = [
    Case { name: "simple", preparation: nothing, request: simple, rows: 1 },
    Case { name: "extended_unnamed", preparation: nothing, request: extended, rows: 1 },
    Case { name: "prepared", preparation: prepare, request: execute_prepared, rows: 1 },
    Case { name: "in_transaction", preparation: begin, request: simple, rows: 1 },
    Case { name: "simple_1000_rows", preparation: nothing, request: simple, rows: 1000 },
];

/// Texts for the lexer: what it is called in results, and the text.
pub const TEXTS: [(&str, &str); 6] = [
    ("begin", "BEGIN"),
    ("short_select", SELECT),
    ("update", "UPDATE pgbench_accounts SET abalance = abalance + -4711 WHERE aid = 123456;"),
    ("long_select", LONG_SELECT),
    (
        "commented_insert",
        "/* route=/orders/17, trace=00-0af7651916cd43dd8448eb211c80319c-01 */ INSERT INTO orders (id, note) VALUES (17, 'it''s; here') RETURNING id",
    ),
    (
        "several",
        "SET LOCAL statement_timeout = '5s'; SELECT id FROM jobs WHERE state = 'new' FOR UPDATE SKIP LOCKED; COMMIT",
    ),
];

const SELECT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 123456";
const SELECT_PARAMETER: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";

/// Some 600 bytes, as a mapper of objects to tables writes them.
const LONG_SELECT: &str = r#"SELECT "o"."id", "o"."customer_id", "o"."state", "o"."placed_at", "o"."shipped_at", "o"."total_cents",
 "o"."currency", "c"."id" AS "c_id", "c"."name" AS "c_name", "c"."mail" AS "c_mail", count("i"."id") AS "items",
 sum("i"."price_cents" * "i"."quantity") AS "sum_cents" FROM "shop"."orders" AS "o" INNER JOIN "shop"."customers" AS "c"
 ON "c"."id" = "o"."customer_id" LEFT OUTER JOIN "shop"."items" AS "i" ON "i"."order_id" = "o"."id" WHERE "o"."state" IN
 ('paid', 'packed') AND "o"."placed_at" >= '2026-01-01 00:00:00+00' GROUP BY "o"."id", "c"."id" ORDER BY
 "o"."placed_at" DESC LIMIT 50 OFFSET 100"#;

const STATEMENT: &[u8] = b"S_1";

fn nothing(_out: &mut Vec<u8>) {}

fn simple(out: &mut Vec<u8>) {
    frontend::query(SELECT.as_bytes(), out);
}

fn extended(out: &mut Vec<u8>) {
    frontend::parse(b"", SELECT_PARAMETER.as_bytes(), &[0, 0], out);
    frontend::bind_text(b"", b"", &[Some(b"123456")], out);
    frontend::describe(TargetKind::Portal, b"", out);
    frontend::execute(b"", 0, out);
    frontend::sync(out);
}

fn prepare(out: &mut Vec<u8>) {
    frontend::parse(STATEMENT, SELECT_PARAMETER.as_bytes(), &[0, 0], out);
    frontend::describe_statement(STATEMENT, out);
    frontend::sync(out);
}

fn execute_prepared(out: &mut Vec<u8>) {
    frontend::bind_text(b"", STATEMENT, &[Some(b"123456")], out);
    frontend::execute(b"", 0, out);
    frontend::sync(out);
}

fn begin(out: &mut Vec<u8>) {
    frontend::query(b"BEGIN", out);
}
