//! `${NAME}` in the strings of weir.toml: what the environment says under that name. Knows no setting and asks the
//! environment through its caller.

use weir_auth::Secret;

use crate::problem::Wrong;

/// A variable that stands in a value.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    name: String,
    value: Secret,
}

/// A string with every `${NAME}` replaced by what `look_up` says. `$${` is a plain `${`; any other dollar sign is itself,
/// because SQL is full of them. What a variable says is not looked through again. `variables` collects what was found.
///
/// # Errors
/// The first variable that is not set, and what only looks like one.
pub(crate) fn expand(
    text: &str,
    look_up: impl Fn(&str) -> Result<String, String>,
    variables: &mut Vec<Variable>,
) -> Result<String, Wrong> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(OPEN) {
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str(OPEN);
            rest = behind;
            continue;
        }
        let (name, behind) =
            behind.split_once('}').filter(|(name, _)| is_name(name)).ok_or_else(malformed)?;
        let value = look_up(name).map_err(|why| {
            let remedy = format!("set it in the environment that weir is started in, or write $${{{name}}} for these characters themselves");
            Wrong::new(format!("the environment variable {name} {why}"), remedy)
        })?;
        expanded.push_str(before);
        expanded.push_str(&value);
        variables.push(Variable { name: name.to_owned(), value: value.into() });
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// The string that [`expand`] turns into this one.
pub(crate) fn escape(text: &str) -> String {
    text.replace(OPEN, "$${")
}

/// A complaint that shows variables by their names, as they are written, and not what they say: it may be a secret that
/// stands in the wrong place.
pub(crate) fn conceal(what: &str, variables: &[Variable]) -> String {
    variables.iter().fold(what.to_owned(), |what, Variable { name, value }| {
        let value = String::from_utf8_lossy(value.expose());
        if value.is_empty() {
            return what;
        }
        let shown = format!("${{{name}}}");
        // Complaints quote in this way.
        what.replace(&*value, &shown).replace(&value.escape_debug().to_string(), &shown)
    })
}

/// As shells allow it.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn malformed() -> Wrong {
    Wrong::new(
        "has a ${ that begins no variable",
        "write ${NAME} with letters, digits and _, or $${ for these characters themselves",
    )
}

const OPEN: &str = "${";

#[cfg(test)]
mod tests {
    //! What is a variable and what is not, and that complaints keep what it says to themselves.

    use super::{conceal, escape, expand};

    fn look_up(name: &str) -> Result<String, String> {
        match name {
            "PW" => Ok("hun${ter}2".to_owned()),
            "A_1" => Ok("a\"b".to_owned()),
            "EMPTY" => Ok(String::new()),
            _ => Err("is not set".to_owned()),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let found = expand(text, look_up, &mut Vec::new());
        assert_eq!(found.as_deref().map_err(|wrong| wrong.what.as_str()), expected, "{text}");
    }

    #[test]
    fn variables_are_filled_in_and_other_dollars_stay() {
        check("", Ok(""));
        check("${PW}", Ok("hun${ter}2"));
        check("a${EMPTY}b${A_1}${PW}c", Ok("aba\"bhun${ter}2c"));
        check("select $1, $$x$$, $x$", Ok("select $1, $$x$$, $x$"));
        check("$${PW}", Ok("${PW}"));
        check("$$${PW}", Ok("$${PW}"));
        check("${${PW}}", Err("has a ${ that begins no variable"));
        check("${NO}", Err("the environment variable NO is not set"));
        for text in ["${", "${}", "${PW", "${1}", "${PW:-x}", "${ PW }", "${P\u{fc}}"] {
            check(text, Err("has a ${ that begins no variable"));
        }
    }

    #[test]
    fn what_is_escaped_comes_back() {
        for text in ["", "${PW}", "$${", "$1 $$ ${", "a$"] {
            assert_eq!(expand(&escape(text), look_up, &mut Vec::new()).as_deref().ok(), Some(text));
        }
    }

    #[test]
    fn complaints_name_variables_by_their_names() {
        let mut variables = Vec::new();
        let _ = expand("${PW} ${A_1} ${EMPTY}", look_up, &mut variables);
        let what = format!("{:?} is not known, nor is a\"b: hun${{ter}}2", "x a\"b");
        assert_eq!(conceal(&what, &variables), "\"x ${A_1}\" is not known, nor is ${A_1}: ${PW}");
    }
}
