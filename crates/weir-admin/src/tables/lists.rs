//! Short tables: SHOW LISTS, CONFIG, VERSION, STATE, and those of PgBouncer's that stay empty here.

use weir_protocol::backend::Column;

use super::cell::Cell;
use super::{ConsoleView, databases, pools};
use crate::snapshot::{DnsHostRow, DnsZoneRow, PeerPoolRow};

pub(super) const COLUMNS: [Column<'static>; 2] = [Column::text("list"), Column::int4("items")];
pub(super) const COLUMNS_CONFIG: [Column<'static>; 4] =
    [Column::text("key"), Column::text("value"), Column::text("default"), Column::text("changeable")];
pub(super) const COLUMNS_VERSION: [Column<'static>; 1] = [Column::text("version")];
pub(super) const COLUMNS_STATE: [Column<'static>; 2] = [Column::text("key"), Column::text("value")];
pub(super) const COLUMNS_PEERS: [Column<'static>; 4] =
    [Column::int4("peer_id"), Column::text("host"), Column::int4("port"), Column::int4("pool_size")];
pub(super) const COLUMNS_PEER_POOLS: [Column<'static>; 5] = [
    Column::int4("peer_id"),
    Column::int4("cl_active_cancel_req"),
    Column::int4("cl_waiting_cancel_req"),
    Column::int4("sv_active_cancel"),
    Column::int4("sv_login"),
];
pub(super) const COLUMNS_FDS: [Column<'static>; 15] = [
    Column::int4("fd"),
    Column::text("task"),
    Column::text("user"),
    Column::text("database"),
    Column::text("addr"),
    Column::int4("port"),
    Column::int8("cancel"),
    Column::int4("link"),
    Column::text("client_encoding"),
    Column::text("std_strings"),
    Column::text("datestyle"),
    Column::text("timezone"),
    Column::text("password"),
    Column::bytea("scram_client_key"),
    Column::bytea("scram_server_key"),
];
pub(super) const COLUMNS_MEM: [Column<'static>; 5] = [
    Column::text("name"),
    Column::int4("size"),
    Column::int4("used"),
    Column::int4("free"),
    Column::int4("memtotal"),
];
pub(super) const COLUMNS_DNS_HOSTS: [Column<'static>; 3] =
    [Column::text("hostname"), Column::int8("ttl"), Column::text("addrs")];
pub(super) const COLUMNS_DNS_ZONES: [Column<'static>; 3] =
    [Column::text("zonename"), Column::int8("serial"), Column::int4("count")];

pub(super) fn rows(view: &ConsoleView<'_>) -> Vec<[Cell; 2]> {
    let snapshot = view.snapshot;
    let items = [
        ("databases", databases::all(view).len()),
        ("users", databases::all_users(view).len()),
        ("peers", view.peers.len()),
        ("pools", pools::summed(&snapshot.pools).len()),
        ("peer_pools", view.snapshot.peers.len()),
        // Free ones are memory that PgBouncer keeps in reserve; weir keeps none. Used ones are all connections there
        // are, also those that are idle or log in.
        ("free_clients", 0),
        ("used_clients", snapshot.clients.len()),
        ("login_clients", usize::try_from(snapshot.totals.login_clients).unwrap_or(usize::MAX)),
        ("free_servers", 0),
        ("used_servers", snapshot.servers.len()),
        ("dns_names", snapshot.dns_hosts.len()),
        ("dns_zones", snapshot.dns_zones.len()),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ];
    items.into_iter().map(|(list, items)| [Cell::from(list), Cell::from(items)]).collect()
}

pub(super) fn config(view: &ConsoleView<'_>) -> Vec<[Cell; 4]> {
    let row = |row: &super::ConfigRow| {
        [Cell::from(&row.key), Cell::from(&row.value), Cell::from(&row.default), Cell::yes_no(row.changeable)]
    };
    view.config.iter().map(row).collect()
}

pub(super) fn version(view: &ConsoleView<'_>) -> [[Cell; 1]; 1] {
    [[Cell::from(format!("weir {} (PgBouncer 1.25.2)", view.version))]]
}

pub(super) fn state(view: &ConsoleView<'_>) -> [[Cell; 2]; 3] {
    let row = |key: &str, yes: bool| [Cell::from(key), Cell::yes_no(yes)];
    [
        row("active", !view.paused && !view.suspended),
        row("paused", view.paused),
        row("suspended", view.suspended),
    ]
}

pub(super) fn peers(view: &ConsoleView<'_>) -> Vec<[Cell; 4]> {
    let row = |peer: &super::PeerRow| {
        [
            Cell::from(u32::from(peer.id)),
            Cell::from(peer.host.as_ref()),
            Cell::from(peer.port),
            Cell::from(peer.pool_size),
        ]
    };
    view.peers.iter().map(row).collect()
}

pub(super) fn peer_pools(view: &ConsoleView<'_>) -> Vec<[Cell; 5]> {
    let row = |peer: &PeerPoolRow| {
        [
            Cell::from(u32::from(peer.peer_id)),
            Cell::from(peer.cl_active_cancel_req),
            Cell::from(peer.cl_waiting_cancel_req),
            Cell::from(peer.sv_active_cancel),
            Cell::from(peer.sv_login),
        ]
    };
    view.snapshot.peers.iter().map(row).collect()
}

pub(super) fn dns_hosts(view: &ConsoleView<'_>) -> Vec<[Cell; 3]> {
    let row = |host: &DnsHostRow| {
        let addresses: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
        [Cell::from(&host.name), Cell::from(host.ttl.as_secs()), Cell::from(addresses.join(","))]
    };
    view.snapshot.dns_hosts.iter().map(row).collect()
}

pub(super) fn dns_zones(view: &ConsoleView<'_>) -> Vec<[Cell; 3]> {
    let row = |zone: &DnsZoneRow| [Cell::from(&zone.name), Cell::from(zone.serial), Cell::from(zone.count)];
    view.snapshot.dns_zones.iter().map(row).collect()
}
