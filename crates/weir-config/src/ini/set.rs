//! `SET key = value` on the console: one setting on top of what the file says, under PgBouncer's name, its name in
//! `[weir]`, or weir.toml's.

use super::rows::is_changeable;
use super::table::{Meaning, SETTINGS, Section, Setting, find};
use super::translate::level_of;
use crate::key::{Fallback, Key, TakesEffect};
use crate::keys::KEYS;
use crate::problem::{Place, Problem, Wrong};
use crate::settings::{Item, Settings};
use crate::suggest::nearest;
use crate::value::Value;

/// Puts the value in place. What it may be is decided by the checks that follow.
///
/// # Errors
/// There is no such setting, or it cannot change while weir runs, or the value is in no notation of it.
pub(crate) fn set(settings: &mut Settings, key: &str, text: &str) -> Result<(), Problem> {
    let setting = find(Section::PgBouncer, key).or_else(|| find(Section::Weir, key));
    let changed = match (setting, Key::find(key)) {
        (Some(setting), _) => by_their_name(setting, text),
        (None, Some(ours)) => by_our_name(ours, text),
        (None, None) => Err(unknown(key)),
    };
    let (path, value) =
        changed.map_err(|wrong| Problem { place: Place::Option(SET), key: String::new(), wrong })?;
    let mut item = Item::new(Place::Option(SET), value);
    item.written = Some(key.to_owned());
    settings.items.insert(path.to_owned(), item);
    Ok(())
}

fn by_their_name(setting: &Setting, text: &str) -> Result<(&'static str, Value), Wrong> {
    if !is_changeable(setting) {
        return Err(fixed());
    }
    match setting.meaning {
        Meaning::Is(path, notation) => {
            let value = notation.read(text)?.or(notation.read(setting.default)?);
            let none = || Wrong::new("has no empty value", "write a value");
            value.map(|value| (path, value)).ok_or_else(none)
        }
        Meaning::Joint if setting.name == "verbose" => {
            let number = || Wrong::new(format!("{text:?} is not a number"), "write a number from 0 to 3");
            let level = level_of(text.parse().map_err(|_| number())?);
            Ok(("log.level", Value::Text(level.to_owned())))
        }
        Meaning::Joint => Ok(("log.level", Value::Text(text.to_owned()))),
        Meaning::Inert(_) | Meaning::Only(..) => Err(fixed()),
    }
}

fn by_our_name(key: &Key, text: &str) -> Result<(&'static str, Value), Wrong> {
    if key.takes_effect == TakesEffect::AtRestart {
        return Err(fixed());
    }
    if key.is_secret() {
        return Err(Wrong::new("a password cannot be set here", "change the file and RELOAD"));
    }
    let value = match key.default {
        Fallback::Truth(_) => match text {
            "true" | "1" => Value::Truth(true),
            "false" | "0" => Value::Truth(false),
            _ => return Err(Wrong::new(format!("{text:?} is neither yes nor no"), "write true or false")),
        },
        Fallback::Number(_) => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Number),
        Fallback::Words(_) => {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            Value::Words(words.map(str::to_owned).collect())
        }
        Fallback::Absent | Fallback::Text(_) => Value::Text(text.to_owned()),
    };
    Ok((key.path, value))
}

fn fixed() -> Wrong {
    Wrong::new("it cannot be changed while weir runs", "change the file and start weir again")
}

fn unknown(key: &str) -> Wrong {
    let known = SETTINGS.iter().map(|setting| setting.name).chain(KEYS.iter().map(|key| key.path));
    let remedy = match nearest(key, known) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => "see SHOW CONFIG".to_owned(),
    };
    Wrong::new("there is no such setting", remedy)
}

const SET: &str = "SET";
