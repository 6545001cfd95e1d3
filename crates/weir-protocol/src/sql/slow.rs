//! The plain way to classify a text, token by token to the end of every statement, and the property that the quick way
//! gives the same answers. Owns no examples; those are in the tables beside it.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn classify_slowly(sql: &[u8]) -> Classified {
    let mut lexer = Lexer::new(sql);
    let mut kinds = Vec::new();
    let mut statement = Vec::new();
    let mut depth = 0u32;
    for token in &mut lexer {
        match token {
            Token::Semicolon if depth == 0 => {
                kinds.extend(kind(&statement));
                statement.clear();
                continue;
            }
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            Token::Word(_) | Token::Quoted | Token::Text | Token::Semicolon | Token::Comma | Token::Other => {
            }
        }
        statement.push(token);
    }
    kinds.extend(kind(&statement));
    let doubtful = lexer.doubtful();
    Classified {
        statements: match kinds.len() {
            _ if doubtful => Count::Several,
            0 => Count::Zero,
            1 => Count::One,
            _ => Count::Several,
        },
        first: kinds.first().map_or(Keyword::Other, |(keyword, _)| *keyword),
        ends_transaction: kinds.iter().any(|(keyword, _)| keyword.ends_transaction()),
        ending: kinds.first().and_then(|(_, ending)| *ending),
        doubtful,
        // There is one way only to find these.
        marks: classify(sql).marks,
    }
}

/// The kind of a whole statement, and how it ends the transaction; `None` for no tokens at all.
fn kind(statement: &[Token<'_>]) -> Option<(Keyword, Option<Ending>)> {
    let behind = statement.iter().position(|token| *token != Token::Open).unwrap_or(statement.len());
    let (open, tokens) = statement.split_at(behind);
    let keyword = match tokens {
        [Token::Word(word), rest @ ..] => Keyword::of_word(word).followed_by(rest),
        _ => Keyword::Other,
    };
    let keyword = if open.is_empty() || keyword.is_query() { keyword } else { Keyword::Other };
    let behind = tokens.get(1..).unwrap_or_default();
    let ending = keyword.ends_transaction().then(|| keyword::ending(behind));
    (!statement.is_empty()).then_some((keyword, ending))
}

/// Pieces that mean something to the lexer, with some bytes between them that may change what they mean.
fn sql_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec());
    vec(prop_oneof![9 => piece, 1 => vec(any::<u8>(), 1..3)], 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn skipping_to_the_end_of_a_statement_changes_no_answer(sql in sql_like()) {
        prop_assert_eq!(classify(&sql), classify_slowly(&sql));
    }
}

#[test]
fn a_mark_is_found_wherever_it_is() {
    for byte in 0..=255u8 {
        let marked = b"'\"$;()-/".contains(&byte);
        for at in 0..20 {
            let mut text = *b"SELECT a.b+c,d*e, 42";
            text[at] = byte;
            let sought = text.iter().position(|byte| b"'\"$;()-/".contains(byte));
            assert_eq!(lexer::next_mark(&text), sought, "{byte} at {at}");
            assert_eq!(sought.is_some(), marked);
        }
    }
}

#[rustfmt::skip]
const PIECES: &[&str] = &[
    "'", "''", "\"", "$$", "$", "$a$", "$1", "/*", "*/", "--", "-", "/", "*", "\n", "\r", " ", "\t", ";", "(", ")", "\\",
    "E", "e", "E'", "_", "1", "23", "x1", ",", "ä", "\0", "SELECT ", "BEGIN", "COMMIT", " WORK ", "TRANSACTION", " TO ",
    " AND ", "NO", "CHAIN", "PREPARE ", "PREPARED", "START ", "ROLLBACK", "ABORT", "END", " AS ", "DEALLOCATE", "anAlYze",
    "a_long_identifier", " = 12345 + x.y , ", "S\u{c5}LECT", "[nd",
];
