//! The console's language, which is PgBouncer's with a few words of weir's own. Owns the grammar and who may say what;
//! refuses to know how a command is carried out.

use std::borrow::Cow;

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
    /// Refuse new clients of a database.
    Disable(String),
    /// Undo `Disable`.
    Enable(String),
    /// Close all clients and server connections of a database (or all) at once, and pause it.
    Kill(Option<String>),
    /// Close one client at once, and its server connection; the number is the `id` of SHOW CLIENTS.
    KillClient(u64),
    /// Let what is under way leave weir's buffers, and read nothing more.
    Suspend,
    /// Answer when the server connections of a database (or all) that are to be replaced are gone.
    WaitClose(Option<String>),
    /// Change a setting until the next reload or the end.
    Set {
        /// Name of the setting.
        key: String,
        /// Its new value, as a configuration file would have it, without quotes.
        value: String,
    },
    /// End the process.
    Shutdown(Shutdown),
    /// Follow this member although its timeline or identity was refused.
    AcceptLeader(String),
    /// Let this member lead, or one that Patroni chooses, when transactions have ended.
    Switchover(Option<String>),
}

/// How patient SHUTDOWN is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Now.
    AtOnce,
    /// When no server connection is in use any more: transactions have ended, in session mode clients have left.
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
    /// Other weir processes that cancel requests are forwarded to.
    Peers,
    /// Cancel requests under way to them.
    PeerPools,
    /// Client and server connections with what is in their buffers.
    Sockets,
    /// The same without those that rest.
    ActiveSockets,
    /// PgBouncer's descriptors for a takeover; weir hands over none.
    Fds,
    /// PgBouncer's caches of its own allocator; weir has none.
    Mem,
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
                Err(Report::error(SqlState::INSUFFICIENT_PRIVILEGE, "admin access needed")
                    .hint("stats_users may only SHOW."))
            }
        }
    }
}

impl Command {
    /// The command tag for CommandComplete.
    pub fn tag(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Empty => "",
            Self::Show(_) | Self::Help | Self::ShowSetting(_) => "SHOW",
            Self::Reload => "RELOAD",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Reconnect(_) => "RECONNECT",
            Self::Disable(_) => "DISABLE",
            Self::Enable(_) => "ENABLE",
            Self::Kill(_) => "KILL",
            Self::KillClient(_) => "KILL_CLIENT",
            Self::Suspend => "SUSPEND",
            Self::WaitClose(_) => "WAIT_CLOSE",
            // PgBouncer repeats what was set.
            Self::Set { key, value } => return Cow::Owned(format!("SET {key}={value}")),
            Self::Shutdown(_) => "SHUTDOWN",
            Self::AcceptLeader(_) => "ACCEPT LEADER",
            Self::Switchover(_) => "SWITCHOVER",
        })
    }

    /// What stats users may do: look, but not at descriptors, which come with secrets in PgBouncer.
    fn is_harmless(&self) -> bool {
        match self {
            Self::Show(table) => *table != Table::Fds,
            Self::Empty | Self::Help | Self::ShowSetting(_) => true,
            Self::Reload
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Reconnect(_)
            | Self::Disable(_)
            | Self::Enable(_)
            | Self::Kill(_)
            | Self::KillClient(_)
            | Self::Suspend
            | Self::WaitClose(_)
            | Self::Set { .. }
            | Self::Shutdown(_)
            | Self::AcceptLeader(_)
            | Self::Switchover(_) => false,
        }
    }
}

/// Reads one command. Keywords in any case, names as typed or quoted, a semicolon at the end if you like. Errors are
/// ERRORs for the client in PgBouncer's words: 42601 for what is no command, 22021 for text that
/// is not UTF-8, 54000 for text that is too long.
pub fn parse(sql: &[u8]) -> Result<Command, Report> {
    if sql.len() > COMMAND_BYTES_MAX {
        let message = format!("console commands have at most {COMMAND_BYTES_MAX} bytes");
        return Err(Report::error(SqlState::PROGRAM_LIMIT_EXCEEDED, message));
    }
    let text = std::str::from_utf8(sql).map_err(|_| {
        Report::error(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "console commands have to be valid UTF-8")
    })?;
    whole(text).map_err(|bad| match bad {
        Bad::Syntax(why) => invalid(text, why),
        Bad::Said(report) => *report,
    })
}

/// Why a text is no command.
enum Bad {
    /// PgBouncer has one sentence for it all; this tells more.
    Syntax(&'static str),
    /// It has a sentence of its own.
    Said(Box<Report>),
}

fn whole(text: &str) -> Result<Command, Bad> {
    let words = words::cut(text).map_err(|bad| match bad {
        BadWord::Unterminated => Bad::Syntax("A quoted name has no end."),
        BadWord::EndlessComment => Bad::Syntax("A comment has no end."),
        BadWord::SecondCommand => Bad::Syntax("The console takes one command at a time."),
    })?;
    let mut words = words.into_iter();
    let command = command(&mut words)?;
    match words.next() {
        None => Ok(command),
        Some(_) => Err(Bad::Syntax("Something follows the command.")),
    }
}

fn command(words: &mut impl Iterator<Item = Word>) -> Result<Command, Bad> {
    let Some(verb) = words.next() else { return Ok(Command::Empty) };
    let verb = keyword(verb)?;
    let mut name = || words.next().map(Word::into_name);
    match verb.as_str() {
        "SHOW" | "SELECT" => show(words),
        "RELOAD" => Ok(Command::Reload),
        "PAUSE" => Ok(Command::Pause(name())),
        "RESUME" => Ok(Command::Resume(name())),
        "RECONNECT" => Ok(Command::Reconnect(name())),
        "DISABLE" => name().map(Command::Disable).ok_or_else(a_database),
        "ENABLE" => name().map(Command::Enable).ok_or_else(a_database),
        "KILL" => Ok(Command::Kill(name())),
        "KILL_CLIENT" => kill_client(name()),
        "SUSPEND" => Ok(Command::Suspend),
        "WAIT_CLOSE" => Ok(Command::WaitClose(name())),
        "SET" => set(words),
        "SHUTDOWN" => shutdown(words),
        "ACCEPT" => accept(words),
        "SWITCHOVER" => switchover(words),
        _ => Err(Bad::Syntax(USE_HELP)),
    }
}

fn show(words: &mut impl Iterator<Item = Word>) -> Result<Command, Bad> {
    let what = keyword(words.next().ok_or(Bad::Syntax(USE_HELP))?)?;
    if what == "HELP" {
        return Ok(Command::Help);
    }
    let table = TABLES.iter().find(|(name, _)| *name == what).map(|&(_, table)| Command::Show(table));
    let setting = || SETTINGS.iter().find(|(name, _)| *name == what).map(|&(_, it)| Command::ShowSetting(it));
    table.or_else(setting).ok_or(Bad::Syntax(USE_HELP))
}

fn said(report: Report) -> Bad {
    Bad::Said(Box::new(report))
}

fn a_database() -> Bad {
    said(Report::error(SqlState::SYNTAX_ERROR, "a database is required"))
}

fn kill_client(id: Option<String>) -> Result<Command, Bad> {
    let bad = || said(Report::error(SqlState::SYNTAX_ERROR, "invalid client pointer supplied"));
    id.and_then(|id| id.parse().ok()).map(Command::KillClient).ok_or_else(bad)
}

/// `SET key = value` or `SET key TO value`.
fn set(words: &mut impl Iterator<Item = Word>) -> Result<Command, Bad> {
    let usage = Bad::Syntax("It is SET key = value.");
    let (Some(Word::Bare(key)), Some(Word::Bare(to)), Some(value)) =
        (words.next(), words.next(), words.next())
    else {
        return Err(usage);
    };
    let is_set = to == "=" || to.eq_ignore_ascii_case("to");
    if is_set && key != "=" { Ok(Command::Set { key, value: value.into_name() }) } else { Err(usage) }
}

fn shutdown(words: &mut impl Iterator<Item = Word>) -> Result<Command, Bad> {
    let Some(how) = words.next() else { return Ok(Command::Shutdown(Shutdown::AtOnce)) };
    match keyword(how)?.as_str() {
        "WAIT_FOR_SERVERS" => Ok(Command::Shutdown(Shutdown::WaitForServers)),
        "WAIT_FOR_CLIENTS" => Ok(Command::Shutdown(Shutdown::WaitForClients)),
        _ => Err(Bad::Syntax("It is SHUTDOWN, SHUTDOWN WAIT_FOR_SERVERS or SHUTDOWN WAIT_FOR_CLIENTS.")),
    }
}

fn accept(words: &mut impl Iterator<Item = Word>) -> Result<Command, Bad> {
    let usage = || Bad::Syntax("It is ACCEPT LEADER member.");
    if keyword(words.next().ok_or_else(usage)?)? != "LEADER" {
        return Err(usage());
    }
    words.next().map(|member| Command::AcceptLeader(member.into_name())).ok_or_else(usage)
}

fn switchover(words: &mut impl Iterator<Item = Word>) -> Result<Command, Bad> {
    let usage = || Bad::Syntax("It is SWITCHOVER or SWITCHOVER TO member.");
    let Some(to) = words.next() else { return Ok(Command::Switchover(None)) };
    if keyword(to)? != "TO" {
        return Err(usage());
    }
    words.next().map(|member| Command::Switchover(Some(member.into_name()))).ok_or_else(usage)
}

fn keyword(word: Word) -> Result<String, Bad> {
    match word {
        Word::Bare(text) => Ok(text.to_ascii_uppercase()),
        Word::Quoted(_) => Err(Bad::Syntax("A quoted word is a name, not a command.")),
    }
}

/// PgBouncer's sentence, which repeats the text.
fn invalid(text: &str, why: &str) -> Report {
    let shown: String =
        text.chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect();
    Report::error(SqlState::SYNTAX_ERROR, format!("invalid command '{shown}', use SHOW HELP;")).hint(why)
}

/// How much of a command an error repeats.
const SHOWN_CHARS_MAX: usize = 100;

const USE_HELP: &str = "SHOW HELP lists the commands.";

const TABLES: [(&str, Table); 24] = [
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
    ("SOCKETS", Table::Sockets),
    ("ACTIVE_SOCKETS", Table::ActiveSockets),
    ("FDS", Table::Fds),
    ("MEM", Table::Mem),
];

const SETTINGS: [(&str, Setting); 5] = [
    ("CLIENT_ENCODING", Setting::ClientEncoding),
    ("DEFAULT_TRANSACTION_ISOLATION", Setting::DefaultTransactionIsolation),
    ("STANDARD_CONFORMING_STRINGS", Setting::StandardConformingStrings),
    ("DATESTYLE", Setting::DateStyle),
    ("TIMEZONE", Setting::TimeZone),
];

#[cfg(test)]
mod tests;
