//! The files in `configs/`: they load, the annotated one names every setting, and the defaults it shows are the real ones.

use std::collections::BTreeMap;

use super::{load_text, shown};
use crate::{CERTIFICATE_KEYS, DATABASE_KEYS, Fallback, KEYS, Loaded, PEER_KEYS, USER_KEYS};

const ANNOTATED: &str = include_str!("../../../../configs/weir.toml");
const MINIMAL: &str = include_str!("../../../../configs/minimal.toml");

/// The assignments of the annotated file, commented out or not: path, and the value as written.
fn assignments() -> BTreeMap<String, String> {
    let mut section = String::new();
    let mut found = BTreeMap::new();
    for line in ANNOTATED.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
        }
        // Prose has a space behind the "#".
        if let Some((name, value)) = line.trim_start_matches('#').split_once(" = ")
            && !name.contains(' ')
        {
            let repeated = found.insert(format!("{section}{name}"), value.to_owned());
            assert_eq!(repeated, None, "{section}{name} stands there twice");
        }
    }
    found
}

#[test]
fn both_files_load_and_mean_the_same() {
    let (annotated, minimal) = (load_text(ANNOTATED).unwrap(), load_text(MINIMAL).unwrap());
    assert_eq!(shown(&annotated), shown(&minimal), "the annotated file changes no default");
    assert_eq!(annotated.warnings, Vec::<String>::new());
}

#[test]
fn the_annotated_file_names_every_setting_and_no_other() {
    let written = assignments();
    let mut known: Vec<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    known.extend(DATABASE_KEYS.iter().map(|key| format!("databases.reports.{key}")));
    known.extend(USER_KEYS.iter().map(|key| format!("users.batch.{key}")));
    known.extend(PEER_KEYS.iter().map(|key| format!("peers.1.{key}")));
    known.extend(CERTIFICATE_KEYS.iter().map(|key| format!("certificates.shop.{key}")));
    known.sort();
    assert_eq!(written.into_keys().collect::<Vec<_>>(), known);
}

#[test]
fn the_defaults_it_shows_are_the_real_ones() {
    let written = assignments();
    for key in KEYS {
        if let Some(default) = key.default.as_toml() {
            assert_eq!(written[key.path], default, "{}", key.path);
        }
    }
}

#[test]
fn the_table_s_defaults_are_what_holds_when_nothing_is_written() {
    let Loaded { config, .. } = load_text(MINIMAL).unwrap();
    let only_with_a_user = |path: &str| path == "auth.query";
    for key in KEYS.iter().filter(|key| key.default != Fallback::Absent && !only_with_a_user(key.path)) {
        assert_eq!((key.show)(&config), key.default.shown(), "{}", key.path);
    }
}

#[test]
fn every_example_in_it_is_right() {
    let uncommented: Vec<_> = ANNOTATED
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') && setting.contains(" = ") => setting,
            Some(_) | None => line,
        })
        // Settings that exclude others.
        .filter(|line| {
            !["url = ", "password = ", "monitor_password = ", "callback_token = "]
                .iter()
                .any(|key| line.starts_with(key))
        })
        .collect();
    let loaded = load_text(&uncommented.join("\n")).unwrap();
    assert_eq!(loaded.config.databases["reports"].dbname.as_deref(), Some("reports_v2"));
}

#[test]
fn every_word_has_a_name() {
    use crate::value::{
        AUTH_METHODS, LOAD_BALANCES, LOG_FORMATS, POOL_MODES, READ_FALLBACKS, READ_POLICIES, STATE_POLICIES,
        TLS_MODES,
    };
    // One line per enum: the tables are found by value, and a missing variant would show as an empty name.
    assert_eq!(TLS_MODES.len(), crate::TlsMode::VerifyFull as usize + 1);
    assert_eq!(POOL_MODES.len(), crate::PoolMode::Statement as usize + 1);
    assert_eq!(AUTH_METHODS.len(), crate::AuthMethod::Hba as usize + 1);
    assert_eq!(READ_FALLBACKS.len(), crate::ReadFallback::Error as usize + 1);
    assert_eq!(READ_POLICIES.len(), crate::ReadPolicy::Nearest as usize + 1);
    assert_eq!(STATE_POLICIES.len(), crate::StatePolicy::Forget as usize + 1);
    assert_eq!(LOAD_BALANCES.len(), crate::LoadBalance::Disable as usize + 1);
    assert_eq!(LOG_FORMATS.len(), crate::LogFormat::Json as usize + 1);
}
