//! What the PostgreSQL servers of a cluster wrote into their logs themselves: which writes reached them and when, who logged
//! in, what they said about sessions that ended. Survives `pg_rewind`, which takes back an old leader's rows. Knows the
//! format that [`ClusterOptions::audited`](crate::ClusterOptions) asks for; judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::schema;

/// Where every node's log ended at some moment.
#[derive(Debug)]
pub(super) struct Mark {
    nodes: Vec<(String, PathBuf, u64)>,
}

/// One line of a server's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Whose log.
    pub(super) node: String,
    /// By the server's clock, which is the drill's.
    pub(super) at: SystemTime,
    /// The server process, which is the session.
    pub(super) pid: u32,
    /// Whether it is a session of the drill's clients.
    pub(super) is_client: bool,
    /// LOG, WARNING, FATAL, DETAIL, …
    pub(super) level: String,
    /// The message.
    pub(super) text: String,
}

/// Logins of clients to one server in a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Logins {
    /// All.
    pub all: usize,
    /// The most that were under way at once.
    pub at_once: usize,
    /// The most of these sessions that were there at once.
    pub sessions_at_once: usize,
}

impl Mark {
    /// As of now.
    pub(super) fn now(cluster: &Cluster) -> Result<Self> {
        let mark = |name: &String| {
            let path = cluster.run_dir().log(name);
            let length = std::fs::metadata(&path).with_context(|| path.display().to_string())?.len();
            anyhow::Ok((name.clone(), path, length))
        };
        let nodes = cluster.nodes.iter().map(|node| mark(&node.name)).collect::<Result<_>>()?;
        Ok(Self { nodes })
    }

    /// Everything that PostgreSQL has logged since, node by node in its order.
    pub(super) fn since(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (node, path, length) in &self.nodes {
            let mut file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
            file.seek(SeekFrom::Start(*length))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let text = String::from_utf8_lossy(&bytes);
            entries.extend(text.lines().filter_map(|line| Entry::parse(node, line)));
        }
        Ok(entries)
    }
}

impl Entry {
    /// A line by [`PREFIX`]; `None` for Patroni's own and for continuations.
    fn parse(node: &str, line: &str) -> Option<Self> {
        let (at, rest) = line.split_once(" [")?;
        let at = UNIX_EPOCH + Duration::from_secs_f64(at.parse().ok().filter(|at| *at > 0.0)?);
        let (pid, rest) = rest.split_once("] ")?;
        let (head, text) = rest.split_once(":  ")?;
        let (who, level) = head.rsplit_once(' ').unwrap_or(("", head));
        Some(Self {
            node: node.to_owned(),
            at,
            pid: pid.parse().ok()?,
            is_client: who.split('@').next() == Some(schema::APP.user),
            level: level.to_owned(),
            text: text.to_owned(),
        })
    }

    /// The row that a client asked this server to write: of a simple statement, or by the parameters of a prepared one.
    pub(super) fn asks_for_row(&self) -> Option<i64> {
        if !self.is_client {
            return None;
        }
        let number = match self.level.as_str() {
            "LOG" => {
                self.text.strip_prefix("statement: INSERT INTO public.drill ")?.split_once("VALUES (")?.1
            }
            "DETAIL" => self.text.split_once("arameters: $1 = '")?.1,
            _ => return None,
        };
        let digits = number.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(number.len());
        number[..digits].parse().ok()
    }

    /// Whether the server says something about the end of a statement or a session.
    pub(super) fn is_trouble(&self) -> bool {
        matches!(self.level.as_str(), "WARNING" | "ERROR" | "FATAL" | "PANIC")
    }
}

/// Rows that clients asked a server other than `leader` to write after `moment`.
pub(super) fn rows_elsewhere(entries: &[Entry], leader: &str, moment: SystemTime) -> BTreeSet<i64> {
    let late = entries.iter().filter(|entry| entry.node != leader && entry.at > moment);
    late.filter_map(Entry::asks_for_row).collect()
}

/// Logins of clients to `node` that were let in after `moment`, and the sessions that came of them.
pub(super) fn logins(entries: &[Entry], node: &str, moment: SystemTime) -> Logins {
    let mut received = BTreeMap::new();
    let (mut under_way, mut sessions) = (Vec::new(), Vec::new());
    let mut open = BTreeSet::new();
    for entry in entries.iter().filter(|entry| entry.node == node && entry.at > moment) {
        if entry.text.starts_with("connection received: ") {
            received.insert(entry.pid, entry.at);
        } else if entry.is_client && entry.text.starts_with("connection authorized: ") {
            let began = received.remove(&entry.pid).unwrap_or(entry.at);
            under_way.extend([(began, 1), (entry.at, -1)]);
            sessions.push((entry.at, 1));
            open.insert(entry.pid);
        } else if entry.text.starts_with("disconnection: ") && open.remove(&entry.pid) {
            sessions.push((entry.at, -1));
        }
    }
    Logins { all: under_way.len() / 2, at_once: most(under_way), sessions_at_once: most(sessions) }
}

/// The highest sum of comings (1) and goings (-1) in the order of time.
fn most(mut changes: Vec<(SystemTime, i32)>) -> usize {
    // The log counts milliseconds: who goes in the same one goes first.
    changes.sort_unstable();
    let mut sum = 0;
    let sums = changes.into_iter().map(|(_, change)| {
        sum += change;
        sum
    });
    sums.max().and_then(|most| usize::try_from(most).ok()).unwrap_or(0)
}

/// `log_line_prefix`: seconds since 1970 with milliseconds, process, and for sessions user and database.
pub(crate) const PREFIX: &str = "%n [%p] %q%u@%d ";

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{Entry, Logins, logins, rows_elsewhere};

    const LOG: &str = "\
2026-11-21 17:00:00,123 INFO: no action. I am (n1), the leader with the lock
100.100 [7] LOG:  checkpoint starting: shutdown immediate
100.200 [8] [unknown]@[unknown] LOG:  connection received: host=127.0.0.1 port=1
100.210 [9] [unknown]@[unknown] LOG:  connection received: host=127.0.0.1 port=2
100.220 [8] app_user@mrg LOG:  connection authorized: user=app_user database=mrg
100.230 [9] app_user@mrg LOG:  connection authorized: user=app_user database=mrg
100.240 [8] app_user@mrg LOG:  statement: INSERT INTO public.drill (id, writer, part) VALUES (41, 'w1', 0)
100.250 [9] app_user@mrg LOG:  execute s1: INSERT INTO public.drill (id, writer) VALUES ($1, $2)
100.250 [9] app_user@mrg DETAIL:  parameters: $1 = '42', $2 = 'w2'
100.260 [5] postgres@mrg LOG:  statement: INSERT INTO public.drill (id, writer) VALUES (-3, 'watch')
100.270 [8] app_user@mrg FATAL:  terminating connection due to administrator command
100.280 [8] app_user@mrg LOG:  disconnection: session time: 0:00:00.080 user=app_user";

    #[test]
    fn writes_and_logins_are_found_in_a_log() {
        let entries: Vec<Entry> = LOG.lines().filter_map(|line| Entry::parse("n1", line)).collect();
        assert_eq!(entries.len(), 11);
        let start = UNIX_EPOCH + Duration::from_secs(100);
        let rows = |leader, moment| rows_elsewhere(&entries, leader, moment).into_iter().collect::<Vec<_>>();
        assert_eq!(rows("n2", start), [41, 42]);
        assert_eq!(rows("n2", start + Duration::from_millis(245)), [42]);
        assert!(rows("n1", start).is_empty());
        assert_eq!(entries.iter().filter(|entry| entry.is_trouble()).count(), 1);
        assert_eq!(logins(&entries, "n1", start), Logins { all: 2, at_once: 2, sessions_at_once: 2 });
        assert_eq!(logins(&entries, "n2", start), Logins::default());
    }
}
