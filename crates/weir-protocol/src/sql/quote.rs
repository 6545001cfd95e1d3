//! Quotes text for statements that weir writes. Owns the two kinds of quotes; refuses to know which settings exist.

/// Appends `text` as a string constant, in the `E''` form when it holds a backslash, so that the value does not depend
/// on `standard_conforming_strings`. Text behind a NUL, which SQL cannot carry, is left out.
///
/// The connection's `client_encoding` must be one in which no byte of a longer character looks like ASCII: all but SJIS,
/// SHIFT_JIS_2004, BIG5, GBK, GB18030, UHC and JOHAB, where a backslash could hide in one.
pub fn quote_literal(text: &str, out: &mut Vec<u8>) {
    let text = text.split('\0').next().unwrap_or_default();
    if text.contains('\\') {
        out.push(b'E');
    }
    out.push(b'\'');
    for byte in text.bytes() {
        if matches!(byte, b'\'' | b'\\') {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'\'');
}

/// Appends a setting's name in double quotes. A name like `myapp.user` is two identifiers with a dot between.
pub fn quote_identifier(name: &str, out: &mut Vec<u8>) {
    let name = name.split('\0').next().unwrap_or_default();
    for (index, part) in name.split('.').enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        out.push(b'"');
        for byte in part.bytes() {
            if byte == b'"' {
                out.push(byte);
            }
            out.push(byte);
        }
        out.push(b'"');
    }
}

/// Appends a name that is one identifier, dots and all, in double quotes.
pub fn quote_name(name: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in name.split('\0').next().unwrap_or_default().bytes() {
        if byte == b'"' {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'"');
}
