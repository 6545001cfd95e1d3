//! A model of a PostgreSQL backend that answers as PostgreSQL does, without data: SELECT gives back its own text. Owns the
//! protocol's rules (skipping to Sync, aborted blocks, the life of statements and portals); refuses to know SQL.

use std::collections::HashMap;

use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::frontend::{self, TargetKind};

use crate::words::said;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tx {
    Idle,
    Open,
    Failed,
}

#[derive(Debug, Clone)]
pub(crate) struct Postgres {
    pub(crate) tx: Tx,
    /// Drops everything up to the next Sync.
    pub(crate) skipping: bool,
    pub(crate) statements: HashMap<String, String>,
    pub(crate) portals: HashMap<String, String>,
    pub(crate) copying: bool,
    copy_is_simple: bool,
    /// Rows of the transaction that is open.
    rows: Vec<u32>,
    /// Rows committed since somebody looked.
    pub(crate) committed: Vec<u32>,
    input: Vec<u8>,
    pub(crate) output: Vec<u8>,
}

type Outcome = Result<(), &'static str>;

impl Postgres {
    pub(crate) fn new() -> Self {
        Self {
            tx: Tx::Idle,
            skipping: false,
            statements: HashMap::new(),
            portals: HashMap::new(),
            copying: false,
            copy_is_simple: false,
            rows: Vec::new(),
            committed: Vec::new(),
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Ok(Some(header)) = frame::peek(&self.input, MESSAGE_BYTES_MAX) {
            if self.input.len() < header.total {
                return;
            }
            let frame: Vec<u8> = self.input.drain(..header.total).collect();
            self.message(header.tag, &frame[HEADER_BYTES..]);
        }
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if self.copying {
            return self.copy_message(tag);
        }
        if self.skipping && tag != b'S' {
            return;
        }
        let outcome = match tag {
            b'Q' => return self.query(&text(frontend::read::query(body).expect("a query"))),
            b'P' => self.parse(body),
            b'B' => self.bind(body),
            b'D' => self.describe(body),
            b'E' => self.execute(&text(frontend::read::execute(body).expect("an Execute").portal)),
            b'C' => self.close(body),
            b'S' => {
                self.skipping = false;
                return self.ready();
            }
            // Flush, and what is left of a COPY that has failed.
            b'H' | b'd' | b'c' | b'f' => Ok(()),
            other => panic!("unknown message {other}"),
        };
        if let Err(code) = outcome {
            self.fail(code);
            self.skipping = true;
        }
    }

    fn say(&mut self, what: &str) {
        self.output.extend(said(what));
    }

    fn fail(&mut self, code: &str) {
        self.say(&format!("E:{code}"));
        self.rows.clear();
        if self.tx == Tx::Open {
            self.tx = Tx::Failed;
        }
    }

    fn ready(&mut self) {
        if self.tx == Tx::Idle {
            self.portals.clear();
            self.committed.append(&mut self.rows);
        }
        let status = match self.tx {
            Tx::Idle => "Z:I",
            Tx::Open => "Z:T",
            Tx::Failed => "Z:E",
        };
        self.say(status);
    }

    fn query(&mut self, sql: &str) {
        self.statements.remove("");
        self.portals.remove("");
        if let Err(code) = self.run(sql, true) {
            self.fail(code);
        }
        if !self.copying {
            self.ready();
        }
    }

    fn refuses(&self, sql: &str) -> bool {
        self.tx == Tx::Failed && !matches!(sql, "COMMIT" | "ROLLBACK")
    }

    fn run(&mut self, sql: &str, simple: bool) -> Outcome {
        if sql.starts_with("bad") {
            return Err("42601");
        }
        if sql.is_empty() {
            self.say("I");
            return Ok(());
        }
        if self.refuses(sql) {
            return Err("25P02");
        }
        match sql {
            "fail" => return Err("22012"),
            "BEGIN" => {
                self.tx = Tx::Open;
                self.say("C:BEGIN");
            }
            "COMMIT" | "ROLLBACK" => {
                if self.tx != Tx::Failed && sql == "COMMIT" {
                    self.committed.append(&mut self.rows);
                }
                self.rows.clear();
                let tag = if self.tx == Tx::Failed { "C:ROLLBACK".to_owned() } else { format!("C:{sql}") };
                self.tx = Tx::Idle;
                self.portals.clear();
                self.say(&tag);
            }
            "DEALLOCATE ALL" => {
                self.statements.retain(|name, _| name.is_empty());
                self.say("C:DEALLOCATE ALL");
            }
            "COPY IN" => {
                self.say("G");
                self.copying = true;
                self.copy_is_simple = simple;
            }
            "COPY OUT" => self.say("H  d:1  c  C:COPY 1"),
            sql if sql.starts_with("insert ") => {
                self.rows.extend(sql["insert ".len()..].parse::<u32>());
                if simple && self.tx == Tx::Idle {
                    // Committed before PostgreSQL says so.
                    self.committed.append(&mut self.rows);
                }
                self.say("C:INSERT 0 1");
            }
            sql => {
                if simple {
                    self.say("T:a");
                }
                self.say(&format!("D:{sql}  C:SELECT 1"));
            }
        }
        Ok(())
    }

    fn copy_message(&mut self, tag: u8) {
        match tag {
            b'd' | b'H' | b'S' => return,
            b'c' => self.say("C:COPY 1"),
            b'f' => self.fail("57014"),
            _ => self.fail("08P01"),
        }
        self.copying = false;
        if self.copy_is_simple {
            self.ready();
        } else {
            self.skipping = tag != b'c';
        }
    }

    fn parse(&mut self, body: &[u8]) -> Outcome {
        let parse = frontend::read::parse(body).expect("a Parse");
        let (name, sql) = (text(parse.name), text(parse.sql));
        if name.is_empty() {
            self.statements.remove("");
        }
        if sql.starts_with("bad") {
            return Err("42601");
        }
        if self.refuses(&sql) {
            return Err("25P02");
        }
        if self.statements.contains_key(&name) {
            return Err("42P05");
        }
        self.statements.insert(name, sql);
        self.say("1");
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<String, &'static str> {
        self.statements.get(&text(name)).cloned().ok_or("26000")
    }

    fn bind(&mut self, body: &[u8]) -> Outcome {
        let names = frontend::read::bind_names(body).expect("a Bind").expect("whole");
        let sql = self.statement(names.statement)?;
        if self.refuses(&sql) {
            return Err("25P02");
        }
        let portal = text(names.portal);
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            return Err("42P03");
        }
        self.portals.insert(portal, sql);
        self.say("2");
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Outcome {
        let (kind, name) = frontend::read::describe(body).expect("a Describe");
        match kind {
            TargetKind::Statement => {
                let sql = self.statement(name)?;
                if self.refuses(&sql) {
                    return Err("25P02");
                }
                self.say("t");
            }
            TargetKind::Portal => _ = self.portals.get(&text(name)).ok_or("34000")?,
        }
        self.say("n");
        Ok(())
    }

    fn execute(&mut self, portal: &str) -> Outcome {
        let sql = self.portals.get(portal).cloned().ok_or("34000")?;
        self.run(&sql, false)
    }

    fn close(&mut self, body: &[u8]) -> Outcome {
        let (kind, name) = frontend::read::close(body).expect("a Close");
        match kind {
            TargetKind::Statement => self.statements.remove(&text(name)),
            TargetKind::Portal => self.portals.remove(&text(name)),
        };
        self.say("3");
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
