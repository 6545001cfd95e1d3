//! `[pool]`: what holds for every pool unless its database or its user says otherwise.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{MINUTE, YEAR, millis};
use crate::keys::{EMPTY_QUERY, ONCE};
use crate::model::{PoolSettings, UNLIMITED};
use crate::problem::Wrong;
use crate::reader::Reader;
use crate::value::{POOL_MODES, Value, count, duration, duration_or_never, text_or_empty, truth, word};

pub(super) fn check_pool(reader: &mut Reader<'_>) -> PoolSettings {
    let limit = || duration_or_never(millis(1)..=YEAR);
    PoolSettings {
        mode: reader.required("pool.mode", word(POOL_MODES)),
        size: reader.required("pool.size", pool_size),
        min_size: reader.required("pool.min_size", count(0..=POOL_SIZE_MAX)),
        reserve_size: reader.required("pool.reserve_size", count(0..=POOL_SIZE_MAX)),
        reserve_timeout: reader.required("pool.reserve_timeout", limit()),
        round_robin: reader.required("pool.round_robin", truth),
        query_wait_timeout: reader.required("pool.query_wait_timeout", limit()),
        query_wait_notify: reader.required("pool.query_wait_notify", limit()),
        server_login_retry: reader.required("pool.server_login_retry", duration(Duration::ZERO..=YEAR)),
        server_check_query: reader.required("pool.server_check_query", check_query),
        server_check_delay: reader.required("pool.server_check_delay", duration(Duration::ZERO..=YEAR)),
        server_reset_query_always: reader.required("pool.server_reset_query_always", truth),
        server_fast_close: reader.required("pool.server_fast_close", truth),
        defer_begin: reader.required("pool.defer_begin", truth),
        server_idle_timeout: reader.required("pool.server_idle_timeout", limit()),
        server_lifetime: reader.required("pool.server_lifetime", server_lifetime),
        server_connect_timeout: reader
            .required("pool.server_connect_timeout", duration(millis(10)..=MINUTE * 60)),
        server_reset_query: reader.required("pool.server_reset_query", query),
        max_prepared_statements: reader.required("pool.max_prepared_statements", count(0..=100_000)),
    }
}

/// Plain SQL, or nothing.
pub(super) fn query(value: &Value) -> Result<String, Wrong> {
    let query = text_or_empty(value)?;
    if query.contains('\0') {
        return Err(Wrong::new("holds a NUL character", "write plain SQL, such as \"DISCARD ALL\""));
    }
    Ok(query)
}

fn check_query(value: &Value) -> Result<Option<String>, Wrong> {
    Ok(match query(value)? {
        query if query == EMPTY_QUERY => Some(String::new()),
        query if query.is_empty() => None,
        query => Some(query),
    })
}

/// A duration, 0 for never, or the word for "once".
pub(super) fn server_lifetime(value: &Value) -> Result<Option<Duration>, Wrong> {
    if matches!(value, Value::Text(text) if text == ONCE) {
        return Ok(Some(Duration::ZERO));
    }
    duration_or_never(millis(1)..=YEAR)(value).map_err(|Wrong { what, remedy }| {
        Wrong::new(what, format!("{remedy}, or {ONCE:?} for a single client"))
    })
}

/// A number of server connections; 0 is no limit.
pub(super) fn pool_size(value: &Value) -> Result<NonZeroU32, Wrong> {
    count(0..=POOL_SIZE_MAX)(value).map(|size| NonZeroU32::new(size).unwrap_or(UNLIMITED))
}

/// PostgreSQL's own `max_connections` ends at 262143.
pub(super) const POOL_SIZE_MAX: u32 = 262_143;
