//! Whole answers of the console, ReadyForQuery included, as bytes. Owns their shape; the contents of tables come from
//! [`crate::tables`].

use weir_protocol::backend;
use weir_protocol::backend::Column;
use weir_protocol::message::Report;

use crate::console::{Setting, Table};
use crate::tables::{self, ConsoleView};

/// What a console client is told at login, besides AuthenticationOk and its key. Programs recognise a PgBouncer
/// console by its version, and weir answers to that name.
pub const LOGIN_PARAMETERS: [(&str, &str); 7] = [
    ("server_version", "1.25.2/bouncer"),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "GMT"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
];

/// A table.
pub fn show(table: Table, view: &ConsoleView<'_>) -> Vec<u8> {
    ready(tables::show(table, view))
}

/// How to use the console: a notice, as PgBouncer does, so that programs that read rows see none.
pub fn help() -> Vec<u8> {
    let mut out = Vec::new();
    backend::notice(&Report::notice("Console usage").detail(HELP), &mut out);
    backend::command_complete("SHOW", &mut out);
    ready(out)
}

/// The constant answer to `SHOW client_encoding` and the like.
pub fn setting(setting: Setting) -> Vec<u8> {
    let (name, value) = match setting {
        Setting::ClientEncoding => ("client_encoding", "UTF-8"),
        Setting::DefaultTransactionIsolation => ("default_transaction_isolation", "read committed"),
        Setting::StandardConformingStrings => ("standard_conforming_strings", "on"),
        Setting::DateStyle => ("datestyle", "ISO"),
        Setting::TimeZone => ("timezone", "GMT"),
    };
    let mut out = Vec::new();
    backend::row_description(&[Column::text(name)], &mut out);
    backend::data_row(&[Some(value.as_bytes())], &mut out);
    backend::command_complete("SHOW", &mut out);
    ready(out)
}

/// A command succeeded; `tag` is [`crate::console::Command::tag`].
pub fn done(tag: &str) -> Vec<u8> {
    let mut out = Vec::new();
    backend::command_complete(tag, &mut out);
    ready(out)
}

/// Something to know while a command is executed; its answer is still to come.
pub fn notice(report: &Report) -> Vec<u8> {
    let mut out = Vec::new();
    backend::notice(report, &mut out);
    out
}

/// There was no command.
pub fn empty() -> Vec<u8> {
    let mut out = Vec::new();
    backend::empty_query_response(&mut out);
    ready(out)
}

/// A command failed.
pub fn failed(report: &Report) -> Vec<u8> {
    let mut out = Vec::new();
    backend::error(report, &mut out);
    ready(out)
}

fn ready(mut out: Vec<u8>) -> Vec<u8> {
    backend::ready_for_query(b'I', &mut out);
    out
}

const HELP: &str = "
\tSHOW HELP | VERSION | STATE | CONFIG | LISTS
\tSHOW POOLS | POOLS_BY_ROLE | CLIENTS | SERVERS | DATABASES | USERS
\tSHOW STATS | STATS_TOTALS | STATS_AVERAGES | TOTALS
\tSHOW MEMBERS | FAILOVERS | PEERS | PEER_POOLS
\tSHOW SOCKETS | ACTIVE_SOCKETS | FDS | MEM | DNS_HOSTS | DNS_ZONES
\tSET key = value          change a setting until the next RELOAD
\tRELOAD                   read the configuration again
\tPAUSE [database]         let clients wait and disconnect from PostgreSQL as transactions end
\tRESUME [database]        undo PAUSE, SUSPEND or KILL
\tDISABLE database         refuse new clients
\tENABLE database          undo DISABLE
\tRECONNECT [database]     replace server connections as transactions end
\tWAIT_CLOSE [database]    wait until replaced server connections are gone
\tKILL [database]          close all clients and server connections, and pause
\tKILL_CLIENT id           close one client and its server connection
\tSUSPEND                  let buffers run empty and read nothing more
\tACCEPT LEADER member     follow a leader that weir refused (after a restore)
\tSWITCHOVER [TO member]   let another member lead, without a failing statement
\tSHUTDOWN                 end now
\tSHUTDOWN WAIT_FOR_SERVERS  end when transactions have ended
\tSHUTDOWN WAIT_FOR_CLIENTS  end when clients have left";

#[cfg(test)]
mod tests;
