//! PgBouncer's settings in weir.toml's terms, with PgBouncer's defaults where they differ. What values may be is
//! decided by the checks that both kinds of file share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use super::lines::IniLine;
use super::named;
use super::table::{Meaning, Notation, SETTINGS, Section, Setting, find};
use crate::key::Key;
use crate::model::Dialect;
use crate::problem::{Place, Problem, Wrong};
use crate::settings::{Item, Settings};
use crate::suggest::nearest;
use crate::value::Value;

/// Puts what the lines say in place; of a repeated key the last line holds.
pub(crate) fn translate(
    path: &Path,
    lines: &[IniLine],
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> Settings {
    let settings = Settings { dialect: Dialect::PgBouncer, ..Settings::default() };
    let mut translator = Translator {
        file: Place::File(path.to_owned()),
        settings,
        given: BTreeMap::new(),
        problems,
        warnings,
    };
    for line in lines {
        translator.sort(line);
    }
    translator.general();
    translator.doors();
    translator.level();
    named::translate(&mut translator, lines);
    translator.settings
}

pub(super) struct Translator<'a> {
    /// Where what is not written stands.
    pub(super) file: Place,
    pub(super) settings: Settings,
    /// What is written in `[pgbouncer]` and `[weir]`.
    given: BTreeMap<&'static str, &'a IniLine>,
    problems: &'a mut Vec<Problem>,
    pub(super) warnings: &'a mut Vec<String>,
}

impl<'a> Translator<'a> {
    fn sort(&mut self, line: &'a IniLine) {
        let section = match line.section.as_str() {
            "pgbouncer" => Section::PgBouncer,
            "weir" => Section::Weir,
            "databases" | "users" | "peers" => return,
            other => {
                let remedy = match nearest(other, super::SECTIONS.into_iter()) {
                    Some(meant) => format!("did you mean [{meant}]?"),
                    None => "the sections are [databases], [users], [pgbouncer], [peers], [weir]".to_owned(),
                };
                let wrong = Wrong::new(format!("there is no section [{other}]"), remedy);
                self.complain(&line.place, &line.key, wrong);
                return;
            }
        };
        match find(section, &line.key) {
            Some(setting) => {
                self.given.insert(setting.name, line);
            }
            None => self.unknown(section, line),
        }
    }

    fn unknown(&mut self, section: Section, line: &IniLine) {
        let (other, written) = match section {
            Section::PgBouncer => (Section::Weir, "[weir]"),
            Section::Weir => (Section::PgBouncer, "[pgbouncer]"),
        };
        let remedy = if find(other, &line.key).is_some() {
            format!("write it in {written}")
        } else {
            let known = SETTINGS.iter().filter(|setting| setting.section == section);
            match nearest(&line.key, known.map(|setting| setting.name)) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => "see PgBouncer's manual, or configs/pgbouncer.ini for [weir]".to_owned(),
            }
        };
        self.complain(&line.place, &line.key, Wrong::new("there is no such setting", remedy));
    }

    fn general(&mut self) {
        let mut inert = Vec::new();
        for setting in SETTINGS {
            match setting.meaning {
                Meaning::Is(path, notation) => self.take(setting, path, notation),
                Meaning::Joint => {}
                Meaning::Inert(why) if self.given.contains_key(setting.name) => {
                    inert.push(format!("{} ({why})", setting.name));
                }
                Meaning::Inert(_) => {}
                Meaning::Only(allowed, what) => self.refuse_other(setting, allowed, what),
            }
        }
        if !inert.is_empty() {
            self.warnings.push(format!("these settings have no meaning in weir: {}", inert.join(", ")));
        }
    }

    fn refuse_other(&mut self, setting: &Setting, allowed: &str, what: &str) {
        if let Some(line) = self.given.get(setting.name).copied().filter(|line| line.value != allowed) {
            self.complain(&line.place, setting.name, Wrong::new(what, "leave it out"));
        }
    }

    fn take(&mut self, setting: &Setting, path: &'static str, notation: Notation) {
        let default = notation.read(setting.default).unwrap_or_default();
        let given = self.given.get(setting.name).copied();
        let value = match given.map(|line| notation.read(&line.value)).transpose() {
            Ok(value) => value.flatten(),
            Err(wrong) => {
                let place = given.map_or_else(|| self.file.clone(), |line| line.place.clone());
                self.complain(&place, setting.name, wrong);
                return;
            }
        };
        let ours = Key::find(path).and_then(|key| key.default.value());
        // An empty list is nothing where nothing else would be there either.
        let is_something = |value: &Value| ours.is_some() || *value != Value::Words(Vec::new());
        match (value.filter(is_something), default.filter(is_something)) {
            (Some(value), _) => {
                let place = given.map_or_else(|| self.file.clone(), |line| line.place.clone());
                self.insert(path, setting.name, place, value);
            }
            (None, Some(default)) if ours.as_ref() != Some(&default) => {
                self.insert(path, setting.name, self.file.clone(), default);
            }
            (None, _) => {}
        }
    }

    /// `listen_addr` holds for both doors, and the ports for their Unix sockets, too.
    fn doors(&mut self) {
        let hosts = self.given.get("listen_addr").map_or("", |line| &line.value);
        let hosts: Vec<_> = hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
        let place = self.place_of("listen_addr");
        let doors = [
            ("listen_port", "listen.write", "listen.port"),
            ("read_listen_port", "listen.read", "listen.read_port"),
        ];
        for (name, addresses, port_path) in doors {
            let port = match self.port(name) {
                Ok(port) => port,
                Err(wrong) => {
                    self.complain(&self.place_of(name), name, wrong);
                    continue;
                }
            };
            let words = port.map(|port| hosts.iter().flat_map(|host| addresses_of(host, port)).collect());
            self.insert(addresses, "listen_addr", place.clone(), Value::Words(words.unwrap_or_default()));
            if let Some(port) = port {
                self.insert(port_path, name, self.place_of(name), Value::Number(port.into()));
            }
        }
    }

    fn port(&self, name: &'static str) -> Result<Option<u16>, Wrong> {
        let written = match self.given.get(name) {
            Some(line) => line.value.as_str(),
            None => {
                SETTINGS.iter().find(|setting| setting.name == name).map_or("", |setting| setting.default)
            }
        };
        let wrong = || Wrong::new(format!("{written:?} is not a port"), "write a number from 1 to 65535");
        match written.parse() {
            Ok(0) if name == "read_listen_port" => Ok(None),
            Ok(port @ 1..) => Ok(Some(port)),
            Ok(0) | Err(_) => Err(wrong()),
        }
    }

    /// `verbose` makes PgBouncer's log longer step by step; `log_level` says it weir's way.
    fn level(&mut self) {
        if let Some(line) = self.given.get("log_level").copied().filter(|line| !line.value.is_empty()) {
            self.insert("log.level", "log_level", line.place.clone(), Value::Text(line.value.clone()));
            return;
        }
        let Some(line) = self.given.get("verbose").copied() else { return };
        match line.value.parse::<u32>() {
            Ok(verbose) => {
                let level = Value::Text(level_of(verbose).to_owned());
                self.insert("log.level", "verbose", line.place.clone(), level);
            }
            Err(_) => {
                let what = format!("{:?} is not a number", line.value);
                self.complain(&line.place, "verbose", Wrong::new(what, "write a number from 0 to 3"));
            }
        }
    }

    pub(super) fn given(&self, name: &str) -> Option<&'a IniLine> {
        self.given.get(name).copied()
    }

    fn place_of(&self, name: &str) -> Place {
        self.given(name).map_or_else(|| self.file.clone(), |line| line.place.clone())
    }

    pub(super) fn insert(&mut self, path: &str, written: &str, place: Place, value: Value) {
        let mut item = Item::new(place, value);
        item.written = Some(written.to_owned());
        self.settings.items.insert(path.to_owned(), item);
    }

    pub(super) fn complain(&mut self, place: &Place, key: &str, wrong: Wrong) {
        self.problems.push(Problem { place: place.clone(), key: key.to_owned(), wrong });
    }
}

/// `*` is every address of both families, as for PgBouncer.
fn addresses_of(host: &str, port: u16) -> Vec<String> {
    if host == "*" {
        return vec![format!("0.0.0.0:{port}"), format!("[::]:{port}")];
    }
    let is_v6 = host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
    vec![if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") }]
}

/// The level that a number of `-v` asks for.
pub(super) fn level_of(verbose: u32) -> &'static str {
    match verbose {
        0 => "info",
        1 => "debug",
        2.. => "trace",
    }
}
