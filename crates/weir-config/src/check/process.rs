//! `[process]` and `[log]`: what the process does with itself, and where it writes what.

use super::{YEAR, millis};
use crate::model::{Log, Process, Syslog};
use crate::problem::Wrong;
use crate::reader::Reader;
use crate::value::{LOG_FORMATS, SYSLOG_FACILITIES, Value, duration, log_level, text, truth, word};

pub(super) fn check_process(reader: &mut Reader<'_>) -> Process {
    Process { user: reader.optional("process.user", text), pid_file: reader.path("process.pid_file") }
}

pub(super) fn check_log(reader: &mut Reader<'_>) -> Log {
    let ident = reader.required("log.syslog_ident", text);
    let facility = reader.required("log.syslog_facility", facility);
    Log {
        format: reader.required("log.format", word(LOG_FORMATS)),
        level: reader.required("log.level", log_level),
        file: reader.path("log.file"),
        syslog: reader.required("log.syslog", truth).then_some(Syslog { ident, facility }),
        connections: reader.required("log.connections", truth),
        disconnections: reader.required("log.disconnections", truth),
        pooler_errors: reader.required("log.pooler_errors", truth),
        stats: reader.required("log.stats", truth),
        stats_period: reader.required("log.stats_period", duration(millis(100)..=YEAR)),
    }
}

fn facility(value: &Value) -> Result<String, Wrong> {
    let facility = text(value)?;
    if SYSLOG_FACILITIES.contains(&facility.as_str()) {
        return Ok(facility);
    }
    let remedy = format!("write one of {}", SYSLOG_FACILITIES.join(", "));
    Err(Wrong::new(format!("{facility:?} is not a facility of syslog"), remedy))
}
