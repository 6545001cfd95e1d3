//! SHOW CONFIG: the settings in force, under the names that the configuration file has for them.

use std::time::Duration;

use super::table::{Meaning, Notation, SETTINGS, Section, Setting};
use crate::key::{Key, TakesEffect};
use crate::keys::{KEYS, ONCE};
use crate::model::{Config, Dialect};
use crate::quantity::{parse_bytes, parse_duration};

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRow {
    /// Its name: PgBouncer's if the file is PgBouncer's, else weir.toml's such as `pool.size`.
    pub key: String,
    /// Its value, without secrets.
    pub value: String,
    /// What holds if it is not written.
    pub default: String,
    /// Whether a reload or SET can change it.
    pub changeable: bool,
}

/// Every setting in force: PgBouncer's in the order of their names and then weir's own, or weir.toml's in its order.
#[must_use]
pub fn config_rows(config: &Config) -> Vec<ConfigRow> {
    match config.dialect {
        Dialect::Weir => KEYS
            .iter()
            .map(|key| ConfigRow {
                key: key.path.to_owned(),
                value: (key.show)(config),
                default: key.default.shown(),
                changeable: key.takes_effect == TakesEffect::AtReload,
            })
            .collect(),
        Dialect::PgBouncer => {
            let mut settings: Vec<_> = SETTINGS.iter().collect();
            settings.sort_by_key(|setting| (setting.section == Section::Weir, setting.name));
            settings.into_iter().map(|setting| row(config, setting)).collect()
        }
    }
}

fn row(config: &Config, setting: &Setting) -> ConfigRow {
    let (value, changeable) = match setting.meaning {
        Meaning::Is(path, notation) => {
            let key = Key::find(path);
            let shown = key.map(|key| (key.show)(config)).unwrap_or_default();
            (written(&shown, notation), is_changeable(setting))
        }
        Meaning::Joint => (joint(config, setting.name), is_changeable(setting)),
        Meaning::Inert(_) | Meaning::Only(..) => (setting.default.to_owned(), false),
    };
    ConfigRow { key: setting.name.to_owned(), value, default: setting.default.to_owned(), changeable }
}

/// Whether a reload or SET can change it.
pub(super) fn is_changeable(setting: &Setting) -> bool {
    match setting.meaning {
        Meaning::Is(path, _) => Key::find(path).is_some_and(|key| key.takes_effect == TakesEffect::AtReload),
        Meaning::Joint => matches!(setting.name, "verbose" | "log_level"),
        Meaning::Inert(_) | Meaning::Only(..) => false,
    }
}

fn joint(config: &Config, name: &str) -> String {
    match name {
        "listen_addr" => {
            let hosts: Vec<_> = config.listen.write.iter().map(|address| address.ip().to_string()).collect();
            if hosts == ["0.0.0.0", "::"] { "*".to_owned() } else { hosts.join(",") }
        }
        "listen_port" => config.listen.port.to_string(),
        "read_listen_port" => config.listen.read_port.unwrap_or_default().to_string(),
        "verbose" => match config.log.level.as_str() {
            "debug" => "1".to_owned(),
            "trace" => "2".to_owned(),
            _ => "0".to_owned(),
        },
        "log_level" => config.log.level.clone(),
        _ => String::new(),
    }
}

/// What weir.toml would say, in PgBouncer's notation.
fn written(shown: &str, notation: Notation) -> String {
    let duration = || match shown {
        "0" | ONCE => Some(Duration::ZERO),
        _ => parse_duration(shown),
    };
    let converted = match notation {
        Notation::Truth => Some(if shown == "true" { "1" } else { "0" }.to_owned()),
        Notation::Seconds | Notation::Bounded | Notation::Lifetime | Notation::Defer | Notation::Patience => {
            duration().map(|duration| duration.as_secs_f64().to_string())
        }
        Notation::Millis => duration().map(|duration| duration.as_millis().to_string()),
        Notation::Size => parse_bytes(shown).map(|bytes| bytes.to_string()),
        Notation::Text | Notation::TextOrEmpty | Notation::Word | Notation::Words | Notation::Number => None,
    };
    converted.unwrap_or_else(|| shown.to_owned())
}
