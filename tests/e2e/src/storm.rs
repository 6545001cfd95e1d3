//! Many clients that log in at once, as cheaply on this side as can be: the keys of a password are derived once for each salt,
//! so that what is measured is the other side. Holds no opinion on what comes out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::line::Line;
use crate::wire::{self, PROTOCOL_3_0};

/// Who logs in, where.
#[derive(Debug)]
pub struct Storm {
    /// The pooler.
    pub address: SocketAddr,
    /// Database.
    pub database: String,
    /// Users, taken in turn.
    pub users: Vec<String>,
    /// Everybody's password.
    pub password: String,
    /// TLS in every connection, with a handshake of its own.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    keys: Mutex<HashMap<(Vec<u8>, u32), Keys>>,
}

/// What a password is for one salt (RFC 5802 section 3).
#[derive(Debug, Clone)]
struct Keys {
    client: Vec<u8>,
    stored: Vec<u8>,
}

/// Clients that are in.
#[derive(Debug)]
pub struct Arrived {
    /// Their names and connections; dropping these ends them.
    pub clients: Vec<(String, Line)>,
    /// From the first connection to the last ReadyForQuery.
    pub took: Duration,
}

impl Storm {
    /// Nobody has come yet.
    #[must_use]
    pub fn new(address: SocketAddr, database: &str, users: Vec<String>, password: &str) -> Self {
        let (database, password) = (database.to_owned(), password.to_owned());
        Self { address, database, users, password, tls: None, keys: Mutex::default() }
    }

    /// All of `count` clients log in at the same time.
    ///
    /// # Errors
    /// One of them is refused, or not in within [`PATIENCE`].
    pub async fn rage(self: &Arc<Self>, count: usize) -> Result<Arrived> {
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for user in self.users.iter().cycle().take(count).cloned() {
            let storm = Arc::clone(self);
            clients.spawn(async move {
                let login = timeout(PATIENCE, storm.log_in(&user)).await.context("not in yet");
                let line = login.and_then(|outcome| outcome).with_context(|| user.clone())?;
                Ok((user, line))
            });
        }
        let clients: Vec<Result<_>> = clients.join_all().await;
        let took = began.elapsed();
        Ok(Arrived { clients: clients.into_iter().collect::<Result<_>>()?, took })
    }

    async fn log_in(&self, user: &str) -> Result<Line> {
        let mut line = Line::open(self.address, self.tls.clone()).await?;
        line.send(&wire::startup(PROTOCOL_3_0, &[("user", user), ("database", &self.database)])).await?;
        // Unique enough: two clients with one nonce would not meet.
        let nonce = format!("storm{}", line.number());
        loop {
            let (tag, body) = line.read().await?;
            match tag {
                b'R' => {
                    if let Some(answer) = self.answer(user, &nonce, &body)? {
                        line.send(&answer).await?;
                    }
                }
                b'Z' => return Ok(line),
                b'E' => bail!("refused: {}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
    }

    /// The answer to an authentication request, if it wants one.
    fn answer(&self, user: &str, nonce: &str, body: &[u8]) -> Result<Option<Vec<u8>>> {
        let (code, rest) = body.split_first_chunk::<4>().context("a short request")?;
        Ok(match u32::from_be_bytes(*code) {
            AUTHENTICATION_OK | AUTHENTICATION_SASL_FINAL => None,
            AUTHENTICATION_MD5 => {
                let salt = rest.try_into().context("a short salt")?;
                let hash = postgres_protocol::authentication::md5_hash(
                    user.as_bytes(),
                    self.password.as_bytes(),
                    salt,
                );
                Some(wire::message(b'p', &wire::strings(&[&hash])))
            }
            AUTHENTICATION_SASL => {
                let first = format!("n,,n=,r={nonce}");
                let length = wire::length_word(first.len());
                let body = [b"SCRAM-SHA-256\0".as_slice(), &length, first.as_bytes()].concat();
                Some(wire::message(b'p', &body))
            }
            AUTHENTICATION_SASL_CONTINUE => {
                let proof = self.prove(nonce, std::str::from_utf8(rest)?)?;
                Some(wire::message(b'p', proof.as_bytes()))
            }
            other => bail!("authentication request {other}"),
        })
    }

    /// The client-final-message.
    fn prove(&self, nonce: &str, challenge: &str) -> Result<String> {
        let part = |name: &str| {
            challenge
                .split(',')
                .find_map(|part| part.strip_prefix(name))
                .with_context(|| challenge.to_owned())
        };
        let bare = format!("c=biws,r={}", part("r=")?);
        let keys = self.keys(STANDARD.decode(part("s=")?)?, part("i=")?.parse()?)?;
        let message = format!("n=,r={nonce},{challenge},{bare}");
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &keys.stored), message.as_bytes());
        let proof: Vec<u8> = keys.client.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        Ok(format!("{bare},p={}", STANDARD.encode(proof)))
    }

    fn keys(&self, salt: Vec<u8>, iterations: u32) -> Result<Keys> {
        let mut known = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = known.get(&(salt.clone(), iterations)) {
            return Ok(keys.clone());
        }
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        let rounds = NonZeroU32::new(iterations).context("no iterations")?;
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, self.password.as_bytes(), &mut salted);
        let client = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salted), b"Client Key").as_ref().to_vec();
        let stored = digest::digest(&digest::SHA256, &client).as_ref().to_vec();
        let keys = Keys { client, stored };
        known.insert((salt, iterations), keys.clone());
        Ok(keys)
    }
}

/// How long one client waits to be let in.
pub const PATIENCE: Duration = Duration::from_secs(120);

const AUTHENTICATION_OK: u32 = 0;
const AUTHENTICATION_MD5: u32 = 5;
const AUTHENTICATION_SASL: u32 = 10;
const AUTHENTICATION_SASL_CONTINUE: u32 = 11;
const AUTHENTICATION_SASL_FINAL: u32 = 12;
