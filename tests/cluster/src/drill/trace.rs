//! Why statements failed: each one with what its client was told, what PostgreSQL wrote about its session into its log,
//! whether its rows are there, and the rule under which the answer is right. Opens no connection.

use std::collections::BTreeSet;
use std::time::Instant;

use super::journal::{Attempt, IN_DOUBT, Kind, Port, Standing};
use super::server_log::Entry;

/// What became of one attempt that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In one line.
    pub line: String,
    /// PostgreSQL said that it had rolled back a statement that could have been sent once more, and it was not.
    pub could_be_repeated: bool,
}

/// What the reports explain failures from.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    /// What the servers wrote since the event began.
    pub(super) log: &'a [Entry],
    /// Rows that are there now.
    pub(super) present: &'a BTreeSet<i64>,
    /// When the event began.
    pub(super) began: Instant,
}

impl Evidence<'_> {
    /// Explains one attempt.
    pub(super) fn explain(&self, attempt: &Attempt, standing: Standing) -> Failure {
        let server = self.server_words(&attempt.rows);
        let reason = reason(attempt, standing, &server);
        let millis = |at: Instant| at.saturating_duration_since(self.began).as_millis();
        let what = match (attempt.port, attempt.kind) {
            (Port::Read, _) => "read".to_owned(),
            (Port::Write, Kind::Single) if attempt.rows.is_empty() => "newcomer's read".to_owned(),
            (Port::Write, Kind::Single) => format!("single INSERT of {:?}", attempt.rows),
            (Port::Write, Kind::Transaction) => format!("transaction of {:?}", attempt.rows),
        };
        let there = attempt.rows.iter().filter(|row| self.present.contains(row)).count();
        let said = match &server {
            ServerWords::NeverSaw => "no server's log has it".to_owned(),
            ServerWords::Nothing(node) => format!("{node} had it and said nothing"),
            ServerWords::Said(node, words) => format!("{node} said: {}", words.join(" / ")),
        };
        let line = format!(
            "{what} of client {}, from +{} ms to +{} ms: {} ({}); {said}; {there} of {} rows are there; {}",
            attempt.client,
            millis(attempt.open_since),
            millis(attempt.ended),
            attempt.outcome.code(),
            attempt.words,
            attempt.rows.len(),
            reason.told(),
        );
        Failure { line, could_be_repeated: reason == Reason::CouldBeRepeated }
    }

    /// What the server that was last asked for one of these rows said about that session from then on.
    fn server_words(&self, rows: &[i64]) -> ServerWords {
        let asked = |entry: &Entry| entry.asks_for_row().is_some_and(|row| rows.contains(&row));
        let last =
            self.log.iter().enumerate().filter(|(_, entry)| asked(entry)).max_by_key(|(_, entry)| entry.at);
        let Some((at, asked)) = last else { return ServerWords::NeverSaw };
        let behind = self.log.iter().skip(at + 1);
        let of_session = behind.filter(|entry| entry.pid == asked.pid && entry.node == asked.node);
        let mut words = Vec::new();
        let mut in_trouble = false;
        for entry in of_session {
            // Another statement of the same session is another client's story.
            if entry.asks_for_row().is_some() {
                break;
            }
            in_trouble = entry.is_trouble() || (in_trouble && entry.level == "DETAIL");
            if in_trouble {
                words.push(format!("{}: {}", entry.level, entry.text));
            }
        }
        match words.is_empty() {
            true => ServerWords::Nothing(asked.node.clone()),
            false => ServerWords::Said(asked.node.clone(), words),
        }
    }
}

/// What a server wrote into its log about the session that had a statement.
#[derive(Debug, PartialEq, Eq)]
enum ServerWords {
    /// No server has logged the statement.
    NeverSaw,
    /// This one has, and nothing else about the session.
    Nothing(String),
    /// This one has, and this.
    Said(String, Vec<String>),
}

/// Why an answer is right, by weir's rules for lost requests; or that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// Open transaction, nothing sent that could end it.
    RolledBack,
    /// A COMMIT was under way.
    Committing,
    /// Committed on the old leader, and said so by a warning.
    CommittedLocally,
    /// The server ended, or stood still, without saying what became of it.
    NoWord,
    /// The server said that it had rolled it back.
    CouldBeRepeated,
    /// None of these.
    NotPermitted,
}

impl Reason {
    fn told(self) -> &'static str {
        match self {
            Self::RolledBack => {
                "permitted: its transaction was open, nothing had been sent that could end it"
            }
            Self::Committing => "permitted: its COMMIT was under way, and nobody can know",
            Self::CommittedLocally => {
                "permitted: PostgreSQL had committed it locally and said so by a WARNING, so it may not be repeated"
            }
            Self::NoWord => "permitted: it was sent, and PostgreSQL never said what became of it",
            Self::CouldBeRepeated => {
                "NOT PERMITTED: PostgreSQL said that it rolled it back, so it could have been sent once more"
            }
            Self::NotPermitted => "NOT PERMITTED",
        }
    }
}

fn reason(attempt: &Attempt, standing: Standing, server: &ServerWords) -> Reason {
    match standing {
        Standing::Open if attempt.outcome.code() == IN_DOUBT => Reason::Committing,
        Standing::Open => Reason::RolledBack,
        Standing::InFlight => match server {
            ServerWords::NeverSaw | ServerWords::Nothing(_) => Reason::NoWord,
            ServerWords::Said(_, words) if words.iter().any(|word| word.contains(LOCALLY)) => {
                Reason::CommittedLocally
            }
            ServerWords::Said(_, words) if words.iter().any(|word| word.contains(SHUTDOWN)) => {
                Reason::CouldBeRepeated
            }
            ServerWords::Said(..) => Reason::NoWord,
        },
        Standing::Done | Standing::Gone | Standing::Failed => Reason::NotPermitted,
    }
}

/// PostgreSQL's WARNING at the end of a session that waits for a synchronous standby.
const LOCALLY: &str = "WARNING: canceling the wait for synchronous replication";
/// Its FATAL 57P01: the statement under way is rolled back.
const SHUTDOWN: &str = "FATAL: terminating connection due to administrator command";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Instant, UNIX_EPOCH};

    use super::{Entry, Evidence};
    use crate::drill::journal::{Attempt, Kind, Outcome, Port, Standing};

    fn entry(level: &str, text: &str) -> Entry {
        let (level, text) = (level.to_owned(), text.to_owned());
        Entry { node: "n1".to_owned(), at: UNIX_EPOCH, pid: 7, is_client: true, level, text }
    }

    #[test]
    fn a_reason_follows_from_what_the_server_said() {
        let ask = entry("LOG", "statement: INSERT INTO public.drill (id, writer, part) VALUES (5, 'w1', 0)");
        let warning =
            entry("WARNING", "canceling the wait for synchronous replication and terminating connection");
        let fatal = entry("FATAL", "terminating connection due to administrator command");
        let now = Instant::now();
        let attempt = Attempt {
            client: 1,
            port: Port::Write,
            kind: Kind::Single,
            open_since: now,
            ended: now,
            rows: vec![5],
            outcome: Outcome::Failed("08007".to_owned()),
            words: "ERROR: x".to_owned(),
        };
        let explained = |log: &[Entry]| {
            Evidence { log, present: &BTreeSet::from([5]), began: now }.explain(&attempt, Standing::InFlight)
        };
        let locally = explained(&[ask.clone(), warning, fatal.clone()]);
        assert!(locally.line.contains("committed it locally") && !locally.could_be_repeated, "{locally:?}");
        assert!(locally.line.contains("1 of 1 rows are there"), "{locally:?}");
        assert!(explained(&[ask.clone(), fatal.clone()]).could_be_repeated);
        assert!(explained(std::slice::from_ref(&ask)).line.contains("n1 had it and said nothing"));
        assert!(explained(std::slice::from_ref(&fatal)).line.contains("no server's log has it"));
        // What it says after the next statement is about that one.
        assert!(!explained(&[ask.clone(), ask.clone(), ask]).could_be_repeated);
    }
}
