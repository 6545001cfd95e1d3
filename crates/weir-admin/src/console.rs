//! The console's language, which is PgBouncer's with a few words of weir's own. Owns the grammar and who may say what;
//! refuses to know how a command is carried out.

use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;

use words::{BadWord, Word};

mod words;

/// Longest command text in bytes; nothing that makes sense comes near.
pub const COMMAND_BYTES_MAX: usize = 4096;

/// What a console user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Nothing.
    Empty,
    /// A table: see [`crate::tables::show`].
    Show(Table),
    /// How to use the console: see [`crate::reply::help`].
    Help,
    /// A setting that drivers ask PostgreSQL for, answered with a constant: see [`crate::reply::setting`].
    ShowSetting(Setting),
    /// Read the configuration again.
    Reload,
    /// Disconnect from the servers of a database (or all) as transactions end, and let clients wait.
    Pause(Option<String>),
    /// Undo `Pause`.
    Resume(Option<String>),
    /// Replace the server connections of a database (or all) as transactions end.
    Reconnect(Option<String>),
    /// End the process.
    Shutdown(Shutdown),
    /// Follow this member although its timeline or identity was refused.
    AcceptLeader(String),
}

/// How patient SHUTDOWN is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Now.
    AtOnce,
    /// When every client is at a transaction boundary (session mode: when it has left).
    WaitForServers,
    /// When the last client has left.
    WaitForClients,
}

/// The tables of SHOW.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// One row per (database, user), as PgBouncer has it: the write and the read pool summed.
    Pools,
    /// One row per (database, user, role).
    PoolsByRole,
    /// One row per client connection.
    Clients,
    /// One row per server connection.
    Servers,
    /// One row per client-facing database name.
    Databases,
    /// One row per user.
    Users,
    /// Sums and averages per database.
    Stats,
    /// Sums per database.
    StatsTotals,
    /// Averages per database.
    StatsAverages,
    /// Sums and averages of the process.
    Totals,
    /// Counts of objects.
    Lists,
    /// Settings.
    Config,
    /// Version.
    Version,
    /// Whether paused.
    State,
    /// One row per cluster member.
    Members,
    /// One row per failover since start.
    Failovers,
    /// PgBouncer's peers; weir has none.
    Peers,
    /// PgBouncer's pools of peers; weir has none.
    PeerPools,
    /// PgBouncer's DNS cache; weir keeps none.
    DnsHosts,
    /// PgBouncer's DNS zones; weir keeps none.
    DnsZones,
}

/// Settings that drivers ask for by `SHOW name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `client_encoding`
    ClientEncoding,
    /// `default_transaction_isolation`
    DefaultTransactionIsolation,
    /// `standard_conforming_strings`
    StandardConformingStrings,
    /// `datestyle`
    DateStyle,
    /// `timezone`
    TimeZone,
}

/// What a console user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Everything (`admin_users`).
    Admin,
    /// Only look (`stats_users`).
    Stats,
}

impl Rights {
    /// Refuses (42501) what the user may not do.
    pub fn allow(self, command: &Command) -> Result<(), Report> {
        match (self, command.is_harmless()) {
            (Self::Admin, _) | (Self::Stats, true) => Ok(()),
            (Self::Stats, false) => {
                Err(Report::error(SqlState::INSUFFICIENT_PRIVILEGE, "this command is for admin users")
                    .hint("stats_users may only SHOW."))
            }
        }
    }
}

impl Command {
    /// The command tag for CommandComplete.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Empty => "",
            Self::Show(_) | Self::Help | Self::ShowSetting(_) => "SHOW",
            Self::Reload => "RELOAD",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Reconnect(_) => "RECONNECT",
            Self::Shutdown(_) => "SHUTDOWN",
            Self::AcceptLeader(_) => "ACCEPT LEADER",
        }
    }

    fn is_harmless(&self) -> bool {
        match self {
            Self::Empty | Self::Show(_) | Self::Help | Self::ShowSetting(_) => true,
            Self::Reload
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Reconnect(_)
            | Self::Shutdown(_)
            | Self::AcceptLeader(_) => false,
        }
    }
}

/// Reads one command. Keywords in any case, names as typed or quoted, a semicolon at the end if you like. Errors are
/// ERRORs for the client: 42601 for what is no command, 0A000 for PgBouncer's commands that weir has not, 22021 for
/// text that is not UTF-8, 54000 for text that is too long.
pub fn parse(sql: &[u8]) -> Result<Command, Report> {
    if sql.len() > COMMAND_BYTES_MAX {
        let message = format!("console commands have at most {COMMAND_BYTES_MAX} bytes");
        return Err(Report::error(SqlState::PROGRAM_LIMIT_EXCEEDED, message));
    }
    let text = std::str::from_utf8(sql).map_err(|_| {
        Report::error(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "console commands have to be valid UTF-8")
    })?;
    let words = words::cut(text).map_err(|bad| match bad {
        BadWord::Unterminated => syntax_error("unterminated quoted name"),
        BadWord::EndlessComment => syntax_error("unterminated comment"),
        BadWord::SecondCommand => syntax_error("the console takes one command at a time"),
    })?;
    let mut words = words.into_iter();
    let command = command(&mut words)?;
    match words.next() {
        None => Ok(command),
        Some(extra) => Err(unexpected(&extra.into_name())),
    }
}

fn command(words: &mut impl Iterator<Item = Word>) -> Result<Command, Report> {
    let Some(verb) = words.next() else { return Ok(Command::Empty) };
    let verb = keyword(verb)?;
    match verb.as_str() {
        "SHOW" | "SELECT" => show(words),
        "RELOAD" => Ok(Command::Reload),
        "PAUSE" => Ok(Command::Pause(words.next().map(Word::into_name))),
        "RESUME" => Ok(Command::Resume(words.next().map(Word::into_name))),
        "RECONNECT" => Ok(Command::Reconnect(words.next().map(Word::into_name))),
        "SHUTDOWN" => shutdown(words),
        "ACCEPT" => accept(words),
        "KILL" | "KILL_CLIENT" | "DISABLE" | "ENABLE" | "SUSPEND" | "SET" | "WAIT_CLOSE" | "SWITCHOVER" => {
            Err(not_there(&verb))
        }
        _ => Err(unexpected(&verb)),
    }
}

fn show(words: &mut impl Iterator<Item = Word>) -> Result<Command, Report> {
    let what = words.next().ok_or_else(|| syntax_error("SHOW what?"))?;
    let what = keyword(what)?;
    if what == "HELP" {
        return Ok(Command::Help);
    }
    let table = TABLES.iter().find(|(name, _)| *name == what).map(|&(_, table)| Command::Show(table));
    let setting = || SETTINGS.iter().find(|(name, _)| *name == what).map(|&(_, it)| Command::ShowSetting(it));
    match table.or_else(setting) {
        Some(command) => Ok(command),
        None if NOT_SHOWN.contains(&what.as_str()) => Err(not_there(&format!("SHOW {what}"))),
        None => Err(unexpected(&what)),
    }
}

fn shutdown(words: &mut impl Iterator<Item = Word>) -> Result<Command, Report> {
    let Some(how) = words.next() else { return Ok(Command::Shutdown(Shutdown::AtOnce)) };
    let how = keyword(how)?;
    match how.as_str() {
        "WAIT_FOR_SERVERS" => Ok(Command::Shutdown(Shutdown::WaitForServers)),
        "WAIT_FOR_CLIENTS" => Ok(Command::Shutdown(Shutdown::WaitForClients)),
        _ => Err(unexpected(&how)),
    }
}

fn accept(words: &mut impl Iterator<Item = Word>) -> Result<Command, Report> {
    let usage = || syntax_error("ACCEPT LEADER needs the name of a member");
    let leader = keyword(words.next().ok_or_else(usage)?)?;
    if leader != "LEADER" {
        return Err(unexpected(&leader));
    }
    words.next().map(|member| Command::AcceptLeader(member.into_name())).ok_or_else(usage)
}

fn keyword(word: Word) -> Result<String, Report> {
    match word {
        Word::Bare(text) => Ok(text.to_ascii_uppercase()),
        Word::Quoted(text) => Err(unexpected(&text)),
    }
}

fn unexpected(word: &str) -> Report {
    let shown: String =
        word.chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect();
    syntax_error(&format!("the console does not understand \"{shown}\""))
}

fn syntax_error(message: &str) -> Report {
    Report::error(SqlState::SYNTAX_ERROR, message).hint("Use SHOW HELP to see the commands.")
}

fn not_there(what: &str) -> Report {
    Report::error(SqlState::FEATURE_NOT_SUPPORTED, format!("weir does not support {what} yet"))
        .hint("Use SHOW HELP to see the commands.")
}

/// How much of a word an error repeats.
const SHOWN_CHARS_MAX: usize = 64;

const TABLES: [(&str, Table); 20] = [
    ("POOLS", Table::Pools),
    ("POOLS_BY_ROLE", Table::PoolsByRole),
    ("CLIENTS", Table::Clients),
    ("SERVERS", Table::Servers),
    ("DATABASES", Table::Databases),
    ("USERS", Table::Users),
    ("STATS", Table::Stats),
    ("STATS_TOTALS", Table::StatsTotals),
    ("STATS_AVERAGES", Table::StatsAverages),
    ("TOTALS", Table::Totals),
    ("LISTS", Table::Lists),
    ("CONFIG", Table::Config),
    ("VERSION", Table::Version),
    ("STATE", Table::State),
    ("MEMBERS", Table::Members),
    ("FAILOVERS", Table::Failovers),
    ("PEERS", Table::Peers),
    ("PEER_POOLS", Table::PeerPools),
    ("DNS_HOSTS", Table::DnsHosts),
    ("DNS_ZONES", Table::DnsZones),
];

const SETTINGS: [(&str, Setting); 5] = [
    ("CLIENT_ENCODING", Setting::ClientEncoding),
    ("DEFAULT_TRANSACTION_ISOLATION", Setting::DefaultTransactionIsolation),
    ("STANDARD_CONFORMING_STRINGS", Setting::StandardConformingStrings),
    ("DATESTYLE", Setting::DateStyle),
    ("TIMEZONE", Setting::TimeZone),
];

/// Tables of PgBouncer's about its own insides.
const NOT_SHOWN: [&str; 4] = ["FDS", "SOCKETS", "ACTIVE_SOCKETS", "MEM"];

#[cfg(test)]
mod tests;
