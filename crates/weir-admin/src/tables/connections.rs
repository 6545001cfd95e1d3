//! SHOW CLIENTS, SHOW SERVERS and SHOW SOCKETS. Which role a client has is told by the port it came to (`local_port`), and which a
//! server connection has by the client it is linked to; SHOW POOLS_BY_ROLE counts both.

use std::net::SocketAddr;

use weir_protocol::backend::Column;

use super::cell::Cell;
use super::{ConsoleView, clock};
use crate::snapshot::{Buffered, ClientRow, ServerRow};

/// Both tables have the same columns.
pub(super) const COLUMNS: [Column<'static>; 21] = [
    Column::text("type"),
    Column::text("user"),
    Column::text("database"),
    Column::text("replication"),
    Column::text("state"),
    Column::text("addr"),
    Column::int4("port"),
    Column::text("local_addr"),
    Column::int4("local_port"),
    Column::text("connect_time"),
    Column::text("request_time"),
    Column::int4("wait"),
    Column::int4("wait_us"),
    Column::int4("close_needed"),
    Column::text("ptr"),
    Column::text("link"),
    Column::int4("remote_pid"),
    Column::text("tls"),
    Column::text("application_name"),
    Column::int4("prepared_statements"),
    Column::int4("id"),
];

/// SHOW SOCKETS has these behind the others. weir's connections hold no buffer of their own between two turns, so
/// positions in it are 0: what is kept is `pkt_avail` (received, and not yet dealt with) and `send_avail` (not yet taken
/// by the kernel).
pub(super) const COLUMNS_SOCKETS: [Column<'static>; 28] = {
    let mut columns = [Column::int4(""); 28];
    let mut at = 0;
    while at < COLUMNS.len() {
        columns[at] = COLUMNS[at];
        at += 1;
    }
    let names = ["recv_pos", "pkt_pos", "pkt_remain", "send_pos", "send_remain", "pkt_avail", "send_avail"];
    let mut next = 0;
    while next < names.len() {
        columns[at + next] = Column::int4(names[next]);
        next += 1;
    }
    columns
};

/// Servers, then clients, as PgBouncer has them; `active` leaves out those that rest.
pub(super) fn sockets(view: &ConsoleView<'_>, active: bool) -> Vec<[Cell; 28]> {
    let rests = |state: &str, buffered: Buffered| state == "idle" && buffered == Buffered::default();
    let mut rows = Vec::new();
    for server in &view.snapshot.servers {
        if !active || !rests(server.state, server.buffered) {
            rows.push(with_buffers(self::server(server, view), server.buffered));
        }
    }
    for client in &view.snapshot.clients {
        if !active || !rests(client.state, client.buffered) {
            rows.push(with_buffers(self::client(client, view), client.buffered));
        }
    }
    rows
}

fn with_buffers(row: [Cell; 21], buffered: Buffered) -> [Cell; 28] {
    let mut cells = row.into_iter();
    std::array::from_fn(|at| match at {
        26 => Cell::from(buffered.incoming),
        27 => Cell::from(buffered.outgoing),
        _ => cells.next().unwrap_or_else(|| Cell::from(0_u32)),
    })
}

pub(super) fn clients(view: &ConsoleView<'_>) -> Vec<[Cell; 21]> {
    let mut clients: Vec<&ClientRow> = view.snapshot.clients.iter().collect();
    clients.sort_by_key(|client| client.id);
    clients.into_iter().map(|client| self::client(client, view)).collect()
}

pub(super) fn servers(view: &ConsoleView<'_>) -> Vec<[Cell; 21]> {
    let mut servers: Vec<&ServerRow> = view.snapshot.servers.iter().collect();
    servers.sort_by_key(|server| server.id);
    servers.into_iter().map(|server| self::server(server, view)).collect()
}

fn client(client: &ClientRow, view: &ConsoleView<'_>) -> [Cell; 21] {
    let (addr, port) = address(client.peer, client.unix_port);
    let (local_addr, local_port) = address(client.local, client.unix_port);
    [
        Cell::from("C"),
        Cell::from(&client.user),
        Cell::from(&client.database),
        Cell::from(client.replication),
        Cell::from(client.state),
        addr,
        port,
        local_addr,
        local_port,
        Cell::from(clock::before(view.wall, client.connected_for)),
        Cell::from(clock::before(view.wall, client.request_age)),
        Cell::from(client.wait.as_secs()),
        Cell::from(client.wait.subsec_micros()),
        Cell::flag(false),
        Cell::from(client_pointer(client.id)),
        Cell::from(client.link.map(server_pointer).unwrap_or_default()),
        Cell::from(client.remote_pid), // only known of processes on the same machine
        Cell::from(&client.tls),
        Cell::from(&client.application_name),
        Cell::from(client.prepared_statements),
        Cell::from(client.id),
    ]
}

fn server(server: &ServerRow, view: &ConsoleView<'_>) -> [Cell; 21] {
    let is_unix = server.host.starts_with(['/', '@']);
    let (local_addr, local_port) = address(server.local, if is_unix { server.port } else { 0 });
    [
        Cell::from("S"),
        Cell::from(&server.user),
        Cell::from(&server.database),
        Cell::from(server.replication),
        Cell::from(server.state),
        Cell::from(if is_unix { UNIX } else { &server.host }),
        Cell::from(server.port),
        local_addr,
        local_port,
        Cell::from(clock::before(view.wall, server.connected_for)),
        Cell::from(clock::before(view.wall, server.request_age)),
        Cell::from(0_u32),
        Cell::from(0_u32),
        Cell::flag(server.close_needed),
        Cell::from(server_pointer(server.id)),
        Cell::from(server.link.map(client_pointer).unwrap_or_default()),
        Cell::from(server.remote_pid),
        Cell::from(&server.tls),
        Cell::from(&server.application_name),
        Cell::from(server.prepared_statements),
        Cell::from(server.id),
    ]
}

fn address(address: Option<SocketAddr>, unix_port: u16) -> (Cell, Cell) {
    match address {
        Some(address) => (Cell::from(address.ip().to_canonical().to_string()), Cell::from(address.port())),
        None => (Cell::from(UNIX), Cell::from(unix_port)),
    }
}

/// PgBouncer prints memory addresses; all that matters is that `link` of one row is `ptr` of the other, and that the log
/// has the same.
fn client_pointer(id: u64) -> String {
    format!("{id:#x}")
}

fn server_pointer(id: u64) -> String {
    format!("{id:#x}")
}

const UNIX: &str = "unix";
