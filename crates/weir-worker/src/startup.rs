//! What a startup packet asks for beside user and database: run-time parameters and `options`, less what the
//! configuration says to ignore. Owns that choice; refuses to know how parameters reach a server connection.

use weir_config::model::SessionSettings;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::{Startup, parse_options};
use weir_session::settings::{Settings, is_tracked_always};

/// Run-time parameters of a startup packet, `options` taken apart. `peer` is where the client comes from; `defaults` hold
/// unless the client asks for something else.
pub(crate) fn startup_settings(
    startup: &Startup,
    rules: &SessionSettings,
    peer: &str,
    defaults: &[(String, String)],
) -> Result<Settings, Report> {
    refuse_replication(startup)?;
    let mut pairs = defaults.to_vec();
    pairs.extend(options(startup, rules)?);
    pairs.extend(startup.parameters.iter().filter(|(name, _)| !is_ignored(rules, name)).cloned());
    if rules.application_name_add_host {
        let default = defaults.iter().find(|(name, _)| name == APPLICATION_NAME);
        let default = default.map_or(NAMELESS_APPLICATION, |(_, value)| value);
        let name = startup.parameter(APPLICATION_NAME).unwrap_or(default);
        pairs.push((APPLICATION_NAME.to_owned(), format!("{name} - {peer}")));
    }
    let all = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let settings = Settings::from_startup(all);
    match settings.refused() {
        None => Ok(settings),
        Some(name) => Err(Report::fatal(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("startup parameter \"{name}\" cannot follow a client to a pooled server connection"),
        )
        .hint(
            "Leave it out of the connection string, set it for the role with ALTER ROLE ... SET, or name it in ignore_startup_parameters.",
        )),
    }
}

/// What `options` sets. With `options` ignored only the parameters count that always follow a client, as in PgBouncer.
fn options(startup: &Startup, rules: &SessionSettings) -> Result<Vec<(String, String)>, Report> {
    let Some(options) = startup.parameter("options") else { return Ok(Vec::new()) };
    let all_ignored = is_ignored(rules, "options");
    match parse_options(options) {
        Ok(mut pairs) => {
            pairs.retain(|(name, _)| is_followed(rules, name) || !(all_ignored || is_ignored(rules, name)));
            Ok(pairs)
        }
        Err(_) if all_ignored => Ok(Vec::new()),
        Err(bad) => Err(Report::fatal(bad.sqlstate(), bad.to_string())),
    }
}

/// PgBouncer takes a parameter that it tracks even when it is to be ignored.
fn is_ignored(rules: &SessionSettings, name: &str) -> bool {
    let listed = |list: &[String]| list.iter().any(|other| other.eq_ignore_ascii_case(name));
    listed(&rules.ignore_startup_parameters) && !is_followed(rules, name)
}

fn is_followed(rules: &SessionSettings, name: &str) -> bool {
    is_tracked_always(name)
        || rules.track_extra_parameters.iter().any(|other| other.eq_ignore_ascii_case(name))
}

fn refuse_replication(startup: &Startup) -> Result<(), Report> {
    match startup.parameter("replication") {
        Some(value) if !matches!(value.to_ascii_lowercase().as_str(), "false" | "off" | "no" | "0") => {
            Err(Report::fatal(SqlState::FEATURE_NOT_SUPPORTED, "replication connections cannot be pooled")
                .hint("Connect to the PostgreSQL server directly."))
        }
        Some(_) | None => Ok(()),
    }
}

const APPLICATION_NAME: &str = "application_name";

/// What PgBouncer calls a client that gives itself no name, when the address is to stand behind it.
const NAMELESS_APPLICATION: &str = "app";
