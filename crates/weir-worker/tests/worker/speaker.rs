//! A client made of memory: logs in by SCRAM on its own, and renders what it hears as short lines ("row a", "ready I",
//! "ERROR 40001"). Knows nothing of weir.

use std::collections::{BTreeMap, VecDeque};

use weir_auth::md5;
use weir_auth::scram::client::{self, Final, First};
use weir_auth::scram::{ChannelBinding, Credential, Mechanism};
use weir_protocol::backend::read::{self, Authentication};
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::frontend;
use weir_protocol::startup::ProtocolVersion;
use weir_protocol::tag::FromServer;
use weir_worker::ConnId;

/// One client.
#[derive(Debug)]
pub(crate) struct Speaker {
    pub(crate) conn: ConnId,
    /// The connection stands.
    pub(crate) open: bool,
    /// weir asked not to be given its bytes.
    pub(crate) stopped: bool,
    /// Pieces on their way to weir.
    pub(crate) outgoing: VecDeque<Vec<u8>>,
    /// What it heard since it was asked last.
    pub(crate) heard: Vec<String>,
    /// Message, DETAIL and HINT of the last error.
    pub(crate) last_error: String,
    pub(crate) key: Option<(u32, Vec<u8>)>,
    /// Values it was told at login.
    pub(crate) told: BTreeMap<String, String>,
    pub(crate) logged_in: bool,
    /// Sent right behind the last login message.
    pub(crate) behind_login: Vec<u8>,
    /// How it was asked to prove who it is, with nothing for the steps in between.
    pub(crate) asked: Vec<&'static str>,
    /// What weir answered to the first message of SCRAM: nonce, salt, iterations.
    pub(crate) challenge: String,
    inbox: Vec<u8>,
    user: String,
    password: String,
    first: Option<First>,
    last: Option<Final>,
}

impl Speaker {
    pub(crate) fn new(conn: ConnId) -> Self {
        Self {
            conn,
            open: true,
            stopped: false,
            outgoing: VecDeque::new(),
            heard: Vec::new(),
            last_error: String::new(),
            key: None,
            told: BTreeMap::new(),
            logged_in: false,
            behind_login: Vec::new(),
            asked: Vec::new(),
            challenge: String::new(),
            inbox: Vec::new(),
            user: String::new(),
            password: String::new(),
            first: None,
            last: None,
        }
    }

    /// Says hello; the rest of the login happens by itself.
    pub(crate) fn start(&mut self, parameters: &[(&str, &str)], password: &str) {
        password.clone_into(&mut self.password);
        let user = parameters.iter().find(|(name, _)| *name == "user");
        self.user = user.map(|(_, user)| (*user).to_owned()).unwrap_or_default();
        let mut out = Vec::new();
        frontend::startup(ProtocolVersion::V3_0, parameters, &mut out);
        self.outgoing.push_back(out);
    }

    /// The single byte that answers a request for TLS is no message.
    pub(crate) fn forget_inbox(&mut self) {
        self.inbox.clear();
    }

    /// Bytes from weir.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.inbox.extend_from_slice(bytes);
        while let Some(header) = frame::peek(&self.inbox, MESSAGE_BYTES_MAX).unwrap() {
            if self.inbox.len() < header.total {
                return;
            }
            let message: Vec<u8> = self.inbox.drain(..header.total).collect();
            let tag = FromServer::of(header.tag).expect("weir sends messages that exist");
            self.hear(tag, &message[HEADER_BYTES..]);
        }
    }

    fn hear(&mut self, tag: FromServer, body: &[u8]) {
        let line = match tag {
            FromServer::Authentication => return self.prove(body),
            FromServer::BackendKeyData => {
                let (pid, secret) = read::backend_key_data(body).unwrap();
                self.key = Some((pid, secret.to_vec()));
                return;
            }
            FromServer::ParameterStatus => {
                let (name, value) = read::parameter_status(body).unwrap();
                let (name, value) = (text(name), text(value));
                let line = format!("param {name}={value}");
                self.told.insert(name, value);
                if !self.logged_in {
                    return;
                }
                line
            }
            FromServer::ReadyForQuery => {
                self.logged_in = true;
                format!("ready {}", char::from(read::ready_status(body).unwrap()))
            }
            FromServer::ErrorResponse | FromServer::NoticeResponse => {
                let fields = read::report(body).unwrap();
                let part = |part: Option<&[u8]>| part.map(text).unwrap_or_default();
                self.last_error =
                    format!("{}|{}|{}", text(fields.message), part(fields.detail), part(fields.hint));
                format!("{} {}", text(fields.severity), text(fields.code))
            }
            FromServer::DataRow => {
                let values = read::data_row(body).unwrap();
                let values: Vec<String> = values.iter().map(|value| text(value.unwrap_or(b"NULL"))).collect();
                format!("row {}", values.join(","))
            }
            FromServer::CommandComplete => text(read::command_tag(body).unwrap()),
            FromServer::RowDescription => return,
            FromServer::ParseComplete
            | FromServer::BindComplete
            | FromServer::CloseComplete
            | FromServer::NoData
            | FromServer::EmptyQueryResponse
            | FromServer::PortalSuspended
            | FromServer::ParameterDescription
            | FromServer::CopyInResponse
            | FromServer::CopyOutResponse
            | FromServer::CopyBothResponse
            | FromServer::CopyData
            | FromServer::CopyDone
            | FromServer::FunctionCallResponse
            | FromServer::NotificationResponse
            | FromServer::NegotiateProtocolVersion => format!("{tag:?}"),
        };
        self.heard.push(line);
    }

    fn prove(&mut self, body: &[u8]) {
        let none = ChannelBinding::NotSupported;
        let mut out = Vec::new();
        let request = read::authentication(body).unwrap();
        self.asked.push(match &request {
            Authentication::Cleartext => "plain",
            Authentication::Md5(_) => "md5",
            Authentication::Sasl(_) => "scram",
            Authentication::Ok
            | Authentication::SaslContinue(_)
            | Authentication::SaslFinal(_)
            | Authentication::Unsupported(_) => "",
        });
        match request {
            Authentication::Ok => return,
            Authentication::Sasl(_) => {
                let nonce = format!("client-nonce-{:?}", self.conn).replace([' ', ','], "");
                let (first, message) = client::first(&nonce, &none, Mechanism::Sha256).unwrap();
                self.first = Some(first);
                frontend::sasl_initial_response(Mechanism::Sha256.name(), &message, &mut out);
            }
            Authentication::SaslContinue(challenge) => {
                self.challenge = text(challenge);
                let credential =
                    Credential::Password { password: self.password.as_str().into(), derived: None };
                let (last, message) = self.first.take().unwrap().respond(challenge, &credential).unwrap();
                self.last = Some(last);
                frontend::sasl_response(&message, &mut out);
                out.append(&mut self.behind_login);
            }
            Authentication::SaslFinal(outcome) => {
                self.last.take().unwrap().verify(outcome).expect("weir proves that it knows the verifier");
                return;
            }
            Authentication::Cleartext => frontend::password(self.password.as_bytes(), &mut out),
            Authentication::Md5(salt) => {
                let stored = md5::stored(self.user.as_bytes(), self.password.as_bytes());
                frontend::password(md5::response(&stored, salt).as_bytes(), &mut out);
            }
            Authentication::Unsupported(method) => panic!("weir asks for method {method}"),
        }
        self.outgoing.push_back(out);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
