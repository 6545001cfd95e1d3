//! A configuration as weir.toml would say it: for people who leave PgBouncer's file behind.

use std::fmt::Write;

use crate::expand::escape;
use crate::key::Family;
use crate::keys::KEYS;
use crate::settings::{Item, Settings};
use crate::value::Value;
use crate::{Files, Problems, Source, ini, load, read_settings};

/// The text of a weir.toml that means the same as this file, with its secrets. What both kinds of file take for granted
/// is left out. File names stay as they are written: relative ones are relative to weir.toml's directory then.
///
/// # Errors
/// Everything that is wrong with the file: only what can be started is converted.
pub fn to_toml(source: Source<'_>, files: &dyn Files) -> Result<String, Problems> {
    load(Some(source), &[], files)?;
    // Variables of a weir.toml stay what they are; a file of PgBouncer's has none, whatever it looks like.
    let settings = if ini::is_ini(source.path, source.text) {
        let mut settings = read_settings(source, files, &mut Vec::new(), &mut Vec::new());
        settings.items.values_mut().for_each(|item| escape_variables(&mut item.value));
        settings
    } else {
        Settings::from_toml(source.path, source.text, None, &mut Vec::new())
    };
    Ok(render(&settings))
}

fn render(settings: &Settings) -> String {
    let mut out = String::new();
    let mut open = "";
    for key in KEYS {
        let (section, name) = key.section_and_name();
        let Some(Item { value, .. }) = settings.items.get(key.path) else { continue };
        if key.default.value().as_ref() == Some(value) {
            continue;
        }
        if section != open {
            heading(&mut out, section);
            open = section;
        }
        assign(&mut out, name, value);
    }
    for family in Family::ALL {
        for name in settings.named.get(&family).into_iter().flat_map(|sections| sections.keys()) {
            heading(&mut out, &format!("{}.{}", family.name(), quoted_key(name)));
            for key in family.keys() {
                if let Some(item) = settings.items.get(&format!("{}.{name}.{key}", family.name())) {
                    assign(&mut out, key, &item.value);
                }
            }
        }
    }
    out
}

fn escape_variables(value: &mut Value) {
    match value {
        Value::Text(text) => *text = escape(text),
        Value::Words(words) => words.iter_mut().for_each(|word| *word = escape(word)),
        Value::Number(_) | Value::Truth(_) | Value::Other(_) => {}
    }
}

fn heading(out: &mut String, section: &str) {
    let blank = if out.is_empty() { "" } else { "\n" };
    // Writing to a string cannot fail; the same holds below.
    let _ = writeln!(out, "{blank}[{section}]");
}

fn assign(out: &mut String, name: &str, value: &Value) {
    let written = match value {
        Value::Text(text) => quoted(text),
        Value::Number(number) => number.to_string(),
        Value::Truth(truth) => truth.to_string(),
        Value::Words(words) => {
            format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
        }
        // No setting takes one, so a good configuration has none.
        Value::Other(_) => return,
    };
    let _ = writeln!(out, "{name} = {written}");
}

fn quoted_key(name: &str) -> String {
    let is_bare =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// A basic string of TOML 1.0.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
