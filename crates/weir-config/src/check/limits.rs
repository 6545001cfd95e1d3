//! `[limits]`, `[session]`, `[tcp]`, `[dns]`: process-wide limits and clocks, session state, sockets, name lookups.

use std::time::Duration;

use super::{CONNECTIONS_MAX, DAY, MINUTE, YEAR, millis};
use crate::keys::FOREVER;
use crate::model::{Dns, Limits, SessionSettings, Tcp};
use crate::problem::Wrong;
use crate::reader::Reader;
use crate::value::{
    BOUND_STATE_POLICIES, STATE_POLICIES, Value, bytes, count, duration, duration_or_never, truth, word,
    words,
};

pub(super) fn check_limits(reader: &mut Reader<'_>) -> Limits {
    let retry_bytes_max = reader.required("limits.retry_bytes_max", bytes(16 << 20));
    let limit = || duration_or_never(millis(1)..=YEAR);
    let connections = || count(0..=CONNECTIONS_MAX);
    Limits {
        max_client_conn: reader.required("limits.max_client_conn", count(1..=CONNECTIONS_MAX)),
        max_db_connections: reader.required("limits.max_db_connections", connections()),
        max_db_client_connections: reader.required("limits.max_db_client_connections", connections()),
        max_user_connections: reader.required("limits.max_user_connections", connections()),
        max_user_client_connections: reader.required("limits.max_user_client_connections", connections()),
        max_host_connections: reader.required("limits.max_host_connections", connections()),
        query_timeout: reader.required("limits.query_timeout", limit()),
        client_idle_timeout: reader.required("limits.client_idle_timeout", limit()),
        idle_transaction_timeout: reader.required("limits.idle_transaction_timeout", limit()),
        transaction_timeout: reader.required("limits.transaction_timeout", limit()),
        autodb_idle_timeout: reader.required("limits.autodb_idle_timeout", limit()),
        suspend_timeout: reader.required("limits.suspend_timeout", duration(millis(100)..=MINUTE * 60)),
        client_login_timeout: reader.required("limits.client_login_timeout", duration(millis(100)..=DAY)),
        cancel_wait_timeout: reader.required("limits.cancel_wait_timeout", duration(millis(100)..=DAY)),
        retry_bytes_max: usize::try_from(retry_bytes_max).unwrap_or(usize::MAX),
        max_packet_size: reader.required("limits.max_packet_size", packet_size),
        shutdown_timeout: reader.required("limits.shutdown_timeout", patience),
    }
}

pub(super) fn check_session(reader: &mut Reader<'_>) -> SessionSettings {
    SessionSettings {
        ignore_startup_parameters: reader.required("session.ignore_startup_parameters", words),
        track_extra_parameters: reader.required("session.track_extra_parameters", words),
        application_name_add_host: reader.required("session.application_name_add_host", truth),
        disable_simple_protocol: reader.required("session.disable_simple_protocol", truth),
        on_set: reader.required("session.on_set", word(STATE_POLICIES)),
        on_prepare: reader.required("session.on_prepare", word(STATE_POLICIES)),
        on_listen: reader.required("session.on_listen", word(BOUND_STATE_POLICIES)),
        on_advisory_lock: reader.required("session.on_advisory_lock", word(BOUND_STATE_POLICIES)),
        on_temporary_table: reader.required("session.on_temporary_table", word(BOUND_STATE_POLICIES)),
        on_hold_cursor: reader.required("session.on_hold_cursor", word(BOUND_STATE_POLICIES)),
    }
}

pub(super) fn check_tcp(reader: &mut Reader<'_>) -> Tcp {
    let seconds = || duration(Duration::ZERO..=Duration::from_secs(32_767));
    Tcp {
        keepalive: reader.required("tcp.keepalive", truth),
        keepalive_count: reader.required("tcp.keepalive_count", count(0..=127)),
        keepalive_idle: reader.required("tcp.keepalive_idle", seconds()),
        keepalive_interval: reader.required("tcp.keepalive_interval", seconds()),
        user_timeout: reader.required("tcp.user_timeout", duration(Duration::ZERO..=DAY)),
        socket_buffer: u32::try_from(reader.required("tcp.socket_buffer", bytes(1 << 30)))
            .unwrap_or(u32::MAX),
    }
}

pub(super) fn check_dns(reader: &mut Reader<'_>) -> Dns {
    let ttl = || duration(Duration::ZERO..=DAY);
    Dns {
        max_ttl: reader.required("dns.max_ttl", ttl()),
        nxdomain_ttl: reader.required("dns.nxdomain_ttl", ttl()),
        zone_check_period: reader.required("dns.zone_check_period", duration_or_never(millis(100)..=DAY)),
        resolv_conf: reader.path("dns.resolv_conf"),
    }
}

fn packet_size(value: &Value) -> Result<u32, Wrong> {
    let size = bytes(u64::from(i32::MAX.unsigned_abs()))(value)?;
    u32::try_from(size).ok().filter(|size| *size >= PACKET_BYTES_MIN).ok_or_else(|| {
        Wrong::new(
            format!("{size} is out of range"),
            format!("write a size of {PACKET_BYTES_MIN} bytes or more"),
        )
    })
}

/// A duration, or the word for "no end".
fn patience(value: &Value) -> Result<Option<Duration>, Wrong> {
    if matches!(value, Value::Text(text) if text == FOREVER) {
        return Ok(None);
    }
    duration(Duration::ZERO..=YEAR)(value)
        .map(Some)
        .map_err(|Wrong { what, remedy }| Wrong::new(what, format!("{remedy}, or {FOREVER:?}")))
}

/// Less than a login needs would let nobody in.
const PACKET_BYTES_MIN: u32 = 1024;
