//! The lines of PostgreSQL's authentication files cut into fields (manual, "The pg_hba.conf File"): white space between
//! fields, commas within one, double quotes, comments, and a backslash at the end of a line. Knows no field's meaning.

/// A word of a field. One that begins with a quote is only a name, never a keyword.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) quoted: bool,
}

impl Token {
    /// Whether this is the keyword.
    pub(crate) fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }
}

/// A line with something on it: its number, counted from 1, and its fields. No field is empty.
pub(crate) type Line = (usize, Vec<Vec<Token>>);

/// Cuts a text. The second list has the lines whose last quote is not closed.
pub(crate) fn lines(text: &str) -> (Vec<Line>, Vec<usize>) {
    let (mut found, mut open) = (Vec::new(), Vec::new());
    // A byte order mark is an editor's.
    let mut physical = text.trim_start_matches('\u{feff}').lines().enumerate();
    while let Some((at, first)) = physical.next() {
        let mut logical = first.to_owned();
        while let Some(shorter) = logical.strip_suffix('\\') {
            logical = shorter.to_owned();
            let Some((_, next)) = physical.next() else { break };
            logical.push_str(next);
        }
        match fields(&logical) {
            Some(fields) if fields.is_empty() => {}
            Some(fields) => found.push((at + 1, fields)),
            None => open.push(at + 1),
        }
    }
    (found, open)
}

/// The fields of one line; `None` if a quote is not closed.
fn fields(line: &str) -> Option<Vec<Vec<Token>>> {
    let mut fields: Vec<Vec<Token>> = Vec::new();
    let mut rest = line.chars().peekable();
    // A comma ties the next word to the same field, white space or not.
    let mut tied = false;
    loop {
        while rest.next_if(|letter| letter.is_whitespace()).is_some() {}
        let Some(&letter) = rest.peek() else { return Some(fields) };
        match letter {
            '#' => return Some(fields),
            ',' => {
                rest.next();
                tied = !fields.is_empty();
                continue;
            }
            _ => {}
        }
        let mut token = Token { text: String::new(), quoted: letter == '"' };
        while let Some(letter) =
            rest.next_if(|letter| !letter.is_whitespace() && !matches!(letter, ',' | '#'))
        {
            if letter != '"' {
                token.text.push(letter);
                continue;
            }
            loop {
                match rest.next()? {
                    '"' if rest.next_if_eq(&'"').is_some() => token.text.push('"'),
                    '"' => break,
                    within => token.text.push(within),
                }
            }
        }
        match fields.last_mut() {
            Some(field) if tied => field.push(token),
            Some(_) | None => fields.push(vec![token]),
        }
        tied = false;
    }
}
