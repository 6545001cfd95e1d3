//! An independent implementation reads what we build and we read what it builds. Its decoders are only shown frames that
//! are whole and cut exactly, because they may panic or read on otherwise. Owns no opinion on malformed input.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use bytes::{Bytes, BytesMut};
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::extendedquery as ext;
use pgwire::messages::startup as login;
use pgwire::messages::{
    DecodeContext, Message, ProtocolVersion as Version, data, response, simplequery, terminate,
};
use weir_protocol::backend::Column;
use weir_protocol::backend::read::{Authentication, ColumnFields};
use weir_protocol::frontend::TargetKind;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::{BackendKey, FirstPacket, ProtocolVersion, SecretKey, first_packet};
use weir_protocol::{backend, frame, frontend};

fn context() -> DecodeContext {
    let mut context = DecodeContext::new(Version::PROTOCOL3_2);
    context.awaiting_frontend_ssl = false;
    context.awaiting_frontend_startup = false;
    context
}

/// What the peer reads from the one message that we build.
#[track_caller]
fn peer_reads<M: Message>(build: impl FnOnce(&mut Vec<u8>)) -> M {
    let mut out = Vec::new();
    build(&mut out);
    let mut buffer = BytesMut::from(&out[..]);
    let message = M::decode(&mut buffer, &context()).unwrap().unwrap();
    assert!(buffer.is_empty(), "the peer left {} bytes", buffer.len());
    message
}

/// The bytes that the peer builds, whole.
fn peer_builds(message: &impl Message) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    message.encode(&mut buffer).unwrap();
    buffer.to_vec()
}

/// The body of the one tagged message that the peer builds.
#[track_caller]
fn peer_body(message: &impl Message) -> Vec<u8> {
    let whole = peer_builds(message);
    let header = frame::peek(&whole, frame::MESSAGE_BYTES_MAX).unwrap().unwrap();
    assert_eq!(header.total, whole.len());
    whole[frame::HEADER_BYTES..].to_vec()
}

/// Both build the same bytes, and the peer reads ours as its own message.
#[track_caller]
fn same<M: Message + PartialEq + std::fmt::Debug>(theirs: M, build: impl Fn(&mut Vec<u8>)) {
    let mut ours = Vec::new();
    build(&mut ours);
    assert_eq!(ours, peer_builds(&theirs));
    assert_eq!(peer_reads::<M>(build), theirs);
}

#[test]
fn first_packets_agree() {
    let mut theirs = login::Startup::new();
    theirs.parameters.insert("application_name".into(), "a b".into());
    theirs.parameters.insert("user".into(), "änn".into());
    let parameters = [("application_name", "a b"), ("user", "änn")];
    same(theirs, |out| frontend::startup(ProtocolVersion::V3_0, &parameters, out));

    let mut theirs = login::Startup::new();
    theirs.protocol_number_minor = 2;
    theirs.parameters.insert("user".into(), "ann".into());
    let packet = peer_builds(&theirs);
    let (FirstPacket::Startup(ours), used) = first_packet(&packet).unwrap().unwrap() else {
        panic!("not a startup")
    };
    assert_eq!((ours.version, ours.user(), used), (ProtocolVersion::V3_2, "ann", packet.len()));

    assert_eq!(first_packet(&peer_builds(&login::SslRequest::new())), Ok(Some((FirstPacket::Ssl, 8))));
    assert_eq!(first_packet(&peer_builds(&login::GssEncRequest::new())), Ok(Some((FirstPacket::GssEnc, 8))));
    same(login::SslRequest::new(), frontend::ssl_request);
    same(login::GssEncRequest::new(), frontend::gssenc_request);
}

#[test]
fn cancel_requests_agree() {
    for length in [4, 32, 256] {
        let secret = vec![9; length];
        let theirs = CancelRequest::new(77, login::SecretKey::Bytes(Bytes::from(secret.clone())));
        let packet = peer_builds(&theirs);
        let key = BackendKey { pid: 77, secret: SecretKey::new(&secret).unwrap() };
        assert_eq!(first_packet(&packet), Ok(Some((FirstPacket::Cancel(key), packet.len()))));
        same(theirs, |out| frontend::cancel_request(77, &secret, out));
    }
}

#[test]
fn authentication_agrees() {
    use login::Authentication as Theirs;
    let bytes = |bytes: &'static [u8]| Bytes::from_static(bytes);
    let read = |theirs: &Theirs, ours: Authentication<'_>| {
        assert_eq!(backend::read::authentication(&peer_body(theirs)), Ok(ours));
    };
    read(&Theirs::Ok, Authentication::Ok);
    read(&Theirs::CleartextPassword, Authentication::Cleartext);
    read(&Theirs::KerberosV5, Authentication::Unsupported(2));
    read(&Theirs::MD5Password(b"salt".to_vec()), Authentication::Md5(*b"salt"));
    let names = vec!["SCRAM-SHA-256-PLUS".to_owned(), "SCRAM-SHA-256".to_owned()];
    let expected = vec![&b"SCRAM-SHA-256-PLUS"[..], b"SCRAM-SHA-256"];
    read(&Theirs::SASL(names.clone()), Authentication::Sasl(expected));
    read(&Theirs::SASLContinue(bytes(b"r=1")), Authentication::SaslContinue(b"r=1"));
    read(&Theirs::SASLFinal(bytes(b"v=1")), Authentication::SaslFinal(b"v=1"));

    same(Theirs::Ok, backend::authentication_ok);
    same(Theirs::CleartextPassword, backend::authentication_cleartext);
    same(Theirs::MD5Password(b"salt".to_vec()), |out| backend::authentication_md5(*b"salt", out));
    let offered = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
    same(Theirs::SASL(names), |out| backend::authentication_sasl(&offered, out));
    same(Theirs::SASLContinue(bytes(b"r=1")), |out| backend::authentication_sasl_continue(b"r=1", out));
    same(Theirs::SASLFinal(bytes(b"v=1")), |out| backend::authentication_sasl_final(b"v=1", out));
}

#[test]
fn login_answers_of_clients_agree() {
    same(login::Password::new("geheim".into()), |out| frontend::password(b"geheim", out));
    assert_eq!(
        frontend::read::password(&peer_body(&login::Password::new("geheim".into()))),
        Ok(&b"geheim"[..])
    );
    let first =
        login::SASLInitialResponse::new("SCRAM-SHA-256".into(), Some(Bytes::from_static(b"n,,n=,r=x")));
    let body = peer_body(&first);
    let expected = (&b"SCRAM-SHA-256"[..], Some(&b"n,,n=,r=x"[..]));
    assert_eq!(frontend::read::sasl_initial_response(&body), Ok(expected));
    same(first, |out| frontend::sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=x", out));
    let empty = login::SASLInitialResponse::new("X".into(), None);
    assert_eq!(frontend::read::sasl_initial_response(&peer_body(&empty)), Ok((&b"X"[..], None)));
    same(login::SASLResponse::new(Bytes::from_static(b"c=biws")), |out| {
        frontend::sasl_response(b"c=biws", out)
    });
}

#[test]
fn what_ends_a_login_agrees() {
    let status = || login::ParameterStatus::new("in_hot_standby".into(), "off".into());
    let body = peer_body(&status());
    assert_eq!(backend::read::parameter_status(&body), Ok((&b"in_hot_standby"[..], &b"off"[..])));
    same(status(), |out| backend::parameter_status(b"in_hot_standby", b"off", out));

    for length in [4, 32, 256] {
        let secret = vec![3; length];
        let theirs = login::BackendKeyData::new(5, login::SecretKey::Bytes(Bytes::from(secret.clone())));
        assert_eq!(backend::read::backend_key_data(&peer_body(&theirs)), Ok((5, &secret[..])));
        same(theirs, |out| backend::backend_key_data(5, &secret, out));
    }

    let theirs = login::NegotiateProtocolVersion::new(196_610, vec!["_pq_.a".into(), "_pq_.b".into()]);
    let expected = (ProtocolVersion::V3_2, vec![&b"_pq_.a"[..], b"_pq_.b"]);
    assert_eq!(backend::read::negotiate_protocol_version(&peer_body(&theirs)), Ok(expected));
    let options = ["_pq_.a".to_owned(), "_pq_.b".to_owned()];
    same(theirs, |out| backend::negotiate_protocol_version(2, &options, out));

    use response::TransactionStatus::{Error, Idle, Transaction};
    for (status, byte) in [(Idle, b'I'), (Transaction, b'T'), (Error, b'E')] {
        let theirs = response::ReadyForQuery::new(status);
        assert_eq!(backend::read::ready_status(&peer_body(&theirs)), Ok(byte));
        same(theirs, |out| backend::ready_for_query(byte, out));
    }
}

#[test]
fn errors_and_notices_agree() {
    let report = Report::error(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, "in doubt").detail("d").hint("h");
    let fields = [('S', "ERROR"), ('V', "ERROR"), ('C', "08007"), ('M', "in doubt"), ('D', "d"), ('H', "h")];
    let fields = || fields.iter().map(|(field, text)| (*field as u8, (*text).to_owned())).collect();
    let theirs = response::ErrorResponse::new(fields());
    assert_eq!(backend::read::report(&peer_body(&theirs)).unwrap().to_report(), report);
    same(theirs, |out| backend::error(&report, out));
    same(response::NoticeResponse::new(fields()), |out| backend::notice(&report, out));

    let theirs = response::NotificationResponse::new(9, "channel".into(), "payload".into());
    let ours = peer_body(&theirs);
    let ours = backend::read::notification(&ours).unwrap();
    assert_eq!((ours.pid, ours.channel, ours.payload), (9, &b"channel"[..], &b"payload"[..]));
}

#[test]
fn rows_agree() {
    let field = |name: &str, oid, size| data::FieldDescription::new(name.into(), 0, 0, oid, size, -1, 0);
    let theirs = data::RowDescription::new(vec![field("a", 25, -1), field("b", 20, 8)]);
    let body = peer_body(&theirs);
    let ours = backend::read::row_description(&body).unwrap();
    let column = |name, type_oid, type_len| ColumnFields {
        name,
        table_oid: 0,
        attribute: 0,
        type_oid,
        type_len,
        type_modifier: u32::MAX,
        format: 0,
    };
    assert_eq!(ours, [column(b"a", 25, -1), column(b"b", 20, 8)]);
    same(theirs, |out| backend::row_description(&[Column::text("a"), Column::int8("b")], out));

    let row = BytesMut::from(&b"\0\0\0\x01x\xff\xff\xff\xff\0\0\0\0"[..]);
    let theirs = data::DataRow::new(row, 3);
    let values = [Some(&b"x"[..]), None, Some(b"")];
    assert_eq!(backend::read::data_row(&peer_body(&theirs)).unwrap(), values);
    same(theirs, |out| backend::data_row(&values, out));

    let theirs = data::ParameterDescription::new(vec![23, 25]);
    assert_eq!(backend::read::parameter_description(&peer_body(&theirs)), Ok(vec![23, 25]));
    same(theirs, |out| backend::parameter_description(&[23, 25], out));

    let theirs = response::CommandComplete::new("INSERT 0 1".into());
    assert_eq!(backend::read::command_tag(&peer_body(&theirs)), Ok(&b"INSERT 0 1"[..]));
    same(theirs, |out| backend::command_complete("INSERT 0 1", out));
}

#[test]
fn replies_without_a_body_agree() {
    same(ext::ParseComplete::new(), backend::parse_complete);
    same(ext::BindComplete::new(), backend::bind_complete);
    same(ext::CloseComplete::new(), backend::close_complete);
    same(ext::PortalSuspended::new(), backend::portal_suspended);
    same(data::NoData::new(), backend::no_data);
    same(response::EmptyQueryResponse::new(), backend::empty_query_response);
    same(ext::Sync::new(), frontend::sync);
    same(ext::Flush::new(), frontend::flush);
    same(terminate::Terminate::new(), frontend::terminate);
}

#[test]
fn queries_agree() {
    let theirs = simplequery::Query::new("SELECT 'ä'".into());
    assert_eq!(frontend::read::query(&peer_body(&theirs)), Ok("SELECT 'ä'".as_bytes()));
    same(theirs, |out| frontend::query("SELECT 'ä'".as_bytes(), out));

    let theirs = ext::Parse::new(Some("s".into()), "SELECT $1".into(), vec![23]);
    let body = peer_body(&theirs);
    let ours = frontend::read::parse(&body).unwrap();
    assert_eq!(
        (ours.name, ours.sql, ours.types_raw),
        (&b"s"[..], &b"SELECT $1"[..], &b"\0\x01\0\0\0\x17"[..])
    );
    same(theirs, |out| frontend::parse(b"s", b"SELECT $1", b"\0\x01\0\0\0\x17", out));
    let unnamed = ext::Parse::new(None, "SELECT 1".into(), vec![]);
    same(unnamed, |out| frontend::parse(b"", b"SELECT 1", frontend::NO_TYPES, out));

    let values = vec![Some(Bytes::from_static(b"17")), None];
    let theirs = ext::Bind::new(Some("p".into()), Some("s".into()), vec![], values, vec![]);
    let body = peer_body(&theirs);
    let names = frontend::read::bind_names(&body).unwrap().unwrap();
    assert_eq!((names.portal, names.statement, names.end), (&b"p"[..], &b"s"[..], 4));
    same(theirs, |out| frontend::bind_text(b"p", b"s", &[Some(b"17"), None], out));

    let theirs = ext::Execute::new(Some("p".into()), 100);
    let body = peer_body(&theirs);
    let ours = frontend::read::execute(&body).unwrap();
    assert_eq!((ours.portal, ours.row_limit), (&b"p"[..], 100));
    same(theirs, |out| frontend::execute(b"p", 100, out));
}

#[test]
fn describe_and_close_agree() {
    for (kind, byte) in [(TargetKind::Statement, b'S'), (TargetKind::Portal, b'P')] {
        let theirs = ext::Describe::new(byte, Some("x".into()));
        assert_eq!(frontend::read::describe(&peer_body(&theirs)), Ok((kind, &b"x"[..])));
        same(theirs, |out| frontend::describe(kind, b"x", out));
        let theirs = ext::Close::new(byte, Some("x".into()));
        assert_eq!(frontend::read::close(&peer_body(&theirs)), Ok((kind, &b"x"[..])));
        same(theirs, |out| frontend::close(kind, b"x", out));
    }
}
