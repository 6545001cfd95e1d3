//! The log: one line for each event, as text in the shape of PgBouncer's log or as JSON. Knows no
//! event; what is logged is everybody's own business.

use std::fmt::{self, Write};
use std::process;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::{Layer, reload};
use weir_config::{Log, LogFormat};

use sinks::Sinks;

mod sinks;

/// Changes a log that is already being written.
pub(crate) struct LogHandle {
    level: reload::Handle<Targets, Registry>,
    sinks: Sinks,
}

impl LogHandle {
    /// Uses another level and other files from now on.
    pub(crate) fn change(&self, log: &Log) {
        if self.level.reload(filter(&log.level)).is_err() {
            tracing::warn!("the log is gone, its level stays");
        }
        if let Err(why) = self.sinks.change(log) {
            tracing::warn!("the log stays where it is: {why}");
        }
    }

    /// Opens the log file anew: it may have been moved away.
    pub(crate) fn reopen(&self) {
        if let Err(why) = self.sinks.reopen() {
            tracing::warn!("the log stays where it is: {why}");
        }
    }
}

/// Starts the log. Called once.
///
/// # Errors
/// The log file cannot be opened; in words for people.
pub(crate) fn start(log: &Log, standard_error: bool) -> Result<LogHandle, String> {
    let (filter, level) = reload::Layer::new(filter(&log.level));
    let sinks = Sinks::open(log, standard_error)?;
    let layer = tracing_subscriber::fmt::layer().with_writer(sinks.clone()).with_ansi(false);
    let lines = match log.format {
        LogFormat::Text => layer.event_format(TextLine).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let subscriber = Registry::default().with(lines.with_filter(filter));
    // It fails only if a log was started before, and then that one goes on.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(LogHandle { level, sinks })
}

/// The level was checked with the rest of the configuration.
fn filter(level: &str) -> Targets {
    level.parse().unwrap_or_else(|_| Targets::new().with_default(Level::INFO))
}

/// `2026-11-21 01:23:45.678 UTC [4711] LOG message key=value`
struct TextLine;

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        write!(out, "{} [{}] {} ", now()?, process::id(), level_word(*metadata.level()))?;
        if *metadata.level() >= Level::DEBUG {
            write!(out, "{}: ", metadata.target())?;
        }
        let mut line = String::new();
        for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            line.push_str(span.name());
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>().filter(|f| !f.is_empty()) {
                write!(line, "{{{fields}}}")?;
            }
            line.push_str(": ");
        }
        context.field_format().format_fields(Writer::new(&mut line), event)?;
        write_on_one_line(&mut out, &line)?;
        out.write_char('\n')
    }
}

/// Milliseconds are enough for people; machines read the JSON.
fn now() -> Result<String, fmt::Error> {
    let mut rfc3339 = String::new();
    SystemTime.format_time(&mut Writer::new(&mut rfc3339))?;
    let (date, time) = rfc3339.split_once('T').ok_or(fmt::Error)?;
    Ok(format!("{date} {} UTC", time.get(..12).unwrap_or(time)))
}

/// PgBouncer's words, so that what watches its log can watch weir's.
fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "LOG",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "NOISE",
    }
}

/// A name that a client made up must not start a line of its own.
fn write_on_one_line(out: &mut impl Write, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(out, "{}", c.escape_default())?;
        } else {
            out.write_char(c)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Lines are readable, and nobody can forge one.

    use super::{now, write_on_one_line};

    #[test]
    fn control_characters_stay_in_their_line() {
        let mut out = String::new();
        assert_eq!(write_on_one_line(&mut out, "user \u{e9}\n2026 LOG \u{1b}[31mfine"), Ok(()));
        assert_eq!(out, "user \u{e9}\\n2026 LOG \\u{1b}[31mfine");
    }

    #[test]
    fn the_time_has_pgbouncer_s_shape() {
        let now = now().unwrap_or_default();
        let shape: String = now.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00.000 UTC");
    }
}
