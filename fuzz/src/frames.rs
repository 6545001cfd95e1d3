//! Cutting a stream into messages, and reading each of them as every message that it could be.

use weir_protocol::{backend, frame, frontend, sql};

/// Both directions of the wire.
pub(crate) fn cut(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        match frame::peek(rest, LIMIT) {
            Ok(Some(header)) => {
                assert!(header.total > header.body_bytes() && header.total <= LIMIT as usize + 1);
                // What is there so far decides nothing: a shorter look says the same, or that it needs more.
                assert_eq!(frame::peek(&rest[..frame::HEADER_BYTES], LIMIT), Ok(Some(header)));
                let Some((message, behind)) = rest.split_at_checked(header.total) else { break };
                read(&message[frame::HEADER_BYTES..]);
                rest = behind;
            }
            Ok(None) => {
                assert!(rest.len() < frame::HEADER_BYTES);
                break;
            }
            Err(bad) => {
                assert!(!bad.to_string().is_empty());
                break;
            }
        }
    }
}

/// A body as each message that it could be: a reader gives parts of it, or refuses.
fn read(body: &[u8]) {
    let within = |part: &[u8]| assert!(part.len() <= body.len());
    let _ = frontend::read::query(body).map(|text| {
        within(text);
        let _ = (sql::classify(text), sql::classify_prefix(text), sql::lone_begin(text));
    });
    let _ = frontend::read::parse(body);
    let _ = frontend::read::describe(body);
    let _ = frontend::read::close(body);
    let _ = frontend::read::execute(body);
    let _ = frontend::read::bind_names(body);
    let _ = frontend::read::password(body).map(within);
    let _ = frontend::read::sasl_initial_response(body).map(|(name, first)| {
        within(name);
        first.into_iter().for_each(within);
    });
    let _ = backend::read::authentication(body);
    let _ = backend::read::report(body).map(|report| {
        report.fields().for_each(|(_, value)| within(value));
        report.to_report()
    });
    let _ = backend::read::parameter_status(body);
    let _ = backend::read::backend_key_data(body);
    let _ = backend::read::ready_status(body);
    let _ = backend::read::data_row(body).map(|row| row.into_iter().flatten().for_each(within));
    let _ = backend::read::command_tag(body).map(within);
    let _ = backend::read::parameter_description(body);
    let _ = backend::read::row_description(body);
    let _ = backend::read::notification(body);
    let _ = backend::read::negotiate_protocol_version(body);
}

const LIMIT: u32 = 1 << 20;
