//! What is said on a monitor connection: the login, empty queries, the question for the position in the log, and one to a
//! primary for its timeline and identity. Owns no deadline.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::Instant;
use weir_config::ChannelBinding;
use weir_discovery::{MonitorReport, Vitals};
use weir_protocol::backend::read;
use weir_protocol::frame;
use weir_protocol::frontend;
use weir_protocol::tag::FromServer;
use weir_session::server_login::{Fence, LoginFailure, ServerCredential, ServerLogin, ServerStep};

use super::link::Link;
use crate::derive::Deriver;
use crate::entropy::SystemEntropy;
use weir_worker::Entropy;

/// A logged-in connection.
pub(super) struct Session {
    link: Link,
    buffer: Vec<u8>,
    /// As last reported; `None`: the server (before PostgreSQL 14) does not report it.
    in_hot_standby: Option<bool>,
    /// Asked once for each time a standby became a primary: a primary never changes its timeline inside a session.
    identity: Option<Identity>,
    /// When its position in the log was last asked for.
    measured: Option<Instant>,
}

/// Which primary it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    timeline: u32,
    system_identifier: u64,
    /// Microseconds since 1970.
    started: u64,
}

/// Rows of a query, as text.
type Rows = Vec<Vec<Option<String>>>;

impl Session {
    pub(super) async fn log_in(
        mut link: Link,
        database: &str,
        credential: ServerCredential,
        wish: ChannelBinding,
        deriver: &RefCell<Deriver>,
    ) -> Result<Self, LoginFailure> {
        let broken = |why: String| LoginFailure::Malformed(why);
        let mut out = Vec::new();
        let mut login = ServerLogin::start(
            database,
            &[("application_name", NAME)],
            credential,
            &nonce(),
            Fence::None,
            &mut out,
        );
        login.bind(link.end_point().filter(|_| wish != ChannelBinding::Disable));
        if wish == ChannelBinding::Require {
            login.insist_on_binding();
        }
        let mut arrived = Vec::new();
        loop {
            link.write(&out).await.map_err(|error| broken(error.to_string()))?;
            out.clear();
            arrived.clear();
            if !link.read(&mut arrived).await.map_err(|error| broken(error.to_string()))? {
                return Err(broken("the connection ended during login".to_owned()));
            }
            match login.received(&arrived, &mut out) {
                ServerStep::Wait => {}
                ServerStep::Derive(derivation) => {
                    let asked = deriver.borrow_mut().derive(derivation);
                    let derived = asked.await;
                    login.derived(derived.map_err(|error| broken(error.to_string()))?, &mut out);
                }
                ServerStep::Ready(ready) => {
                    let in_hot_standby = ready.in_hot_standby;
                    return Ok(Self {
                        link,
                        buffer: ready.rest,
                        in_hot_standby,
                        identity: None,
                        measured: None,
                    });
                }
                ServerStep::Failed(failure) => return Err(failure),
            }
        }
    }

    /// Asks for the role, and a primary for its identity.
    ///
    /// # Errors
    /// How the connection ended.
    pub(super) async fn ping(&mut self) -> Result<MonitorReport, String> {
        let began = Instant::now();
        let measures = self.measured.is_none_or(|last| began.duration_since(last) >= MEASURED_EVERY);
        let rows = self.query(if measures { POSITION } else { "" }).await?;
        let vitals = Vitals { location: position(&rows), round_trip: Some(began.elapsed()) };
        if measures {
            self.measured = Some(began);
        }
        let in_hot_standby = match self.in_hot_standby {
            // It is reported with the ReadyForQuery behind any query, the empty one included.
            Some(in_hot_standby) => in_hot_standby,
            None => {
                let rows = self.query(IN_RECOVERY).await?;
                let Some(answer) = rows.first().and_then(|row| row.first()?.as_deref()) else {
                    let why = "it does not say whether it is in recovery".to_owned();
                    return Ok(MonitorReport::RoleUnknown { why });
                };
                answer != "f"
            }
        };
        if in_hot_standby {
            self.identity = None;
        } else if self.identity.is_none() {
            self.identity = self.query(IDENTITY).await?.first().and_then(|row| identity(row));
        }
        let identity = self.identity;
        Ok(MonitorReport::Answered {
            in_hot_standby,
            timeline: identity.map(|identity| identity.timeline),
            system_identifier: identity.map(|identity| identity.system_identifier),
            started: identity.map(|identity| identity.started),
            vitals,
        })
    }

    /// Waits for the end of an idle connection and says how it came. May be cancelled and called again.
    pub(super) async fn until_it_ends(&mut self) -> String {
        loop {
            match self.message().await {
                Ok((tag, body)) => {
                    if let Err(why) = self.note(tag, &body) {
                        return why;
                    }
                }
                Err(why) => return why,
            }
        }
    }

    /// Says Terminate, so that PostgreSQL logs no lost connection.
    pub(super) fn say_goodbye(self) {
        let mut out = Vec::new();
        frontend::terminate(&mut out);
        self.link.close_with(&out);
    }

    /// One simple query. An ERROR gives no rows: the next ping asks again.
    async fn query(&mut self, sql: &str) -> Result<Rows, String> {
        let mut out = Vec::new();
        frontend::query(sql.as_bytes(), &mut out);
        self.link.write(&out).await.map_err(|error| error.to_string())?;
        let mut rows = Rows::new();
        loop {
            let (tag, body) = self.message().await?;
            if tag == FromServer::ReadyForQuery {
                return Ok(rows);
            }
            if tag == FromServer::DataRow && rows.len() < ROWS_MAX {
                let row = read::data_row(&body).map_err(|bad| bad.to_string())?;
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                rows.push(row.into_iter().map(|value| value.map(text)).collect());
            }
            self.note(tag, &body)?;
        }
    }

    /// Takes in what may come at any time.
    fn note(&mut self, tag: FromServer, body: &[u8]) -> Result<(), String> {
        if tag == FromServer::ParameterStatus {
            let (name, value) = read::parameter_status(body).map_err(|bad| bad.to_string())?;
            if name == b"in_hot_standby" {
                self.in_hot_standby = Some(value == b"on");
            }
        }
        if tag == FromServer::ErrorResponse {
            let report = read::report(body).map_err(|bad| bad.to_string())?;
            if report.ends_connection() {
                return Err(report.to_report().to_string());
            }
            tracing::debug!("monitor: {}", report.to_report());
        }
        Ok(())
    }

    /// The next whole message. Loses nothing when it is cancelled.
    async fn message(&mut self) -> Result<(FromServer, Vec<u8>), String> {
        loop {
            if let Some(header) =
                frame::peek(&self.buffer, MESSAGE_BYTES_MAX).map_err(|bad| bad.to_string())?
                && self.buffer.len() >= header.total
            {
                let message: Vec<u8> = self.buffer.drain(..header.total).collect();
                let tag = FromServer::of(header.tag).ok_or("the server sent an unknown message")?;
                let body = message.get(frame::HEADER_BYTES..).unwrap_or_default();
                return Ok((tag, body.to_vec()));
            }
            match self.link.read(&mut self.buffer).await {
                Ok(true) => {}
                Ok(false) => return Err("the connection ended".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// Reads the answer to [`POSITION`].
fn position(rows: &Rows) -> Option<u64> {
    rows.first()?.first()?.as_ref()?.parse().ok()
}

/// Reads the answer to [`IDENTITY`].
fn identity(row: &[Option<String>]) -> Option<Identity> {
    let [Some(timeline), Some(system), Some(started)] = row else { return None };
    Some(Identity {
        timeline: u32::from_str_radix(timeline, 16).ok()?,
        // PostgreSQL has no unsigned type: the number comes as a bigint.
        system_identifier: system.parse::<i64>().ok()?.cast_unsigned(),
        started: started.parse::<i64>().ok()?.cast_unsigned(),
    })
}

fn nonce() -> String {
    let mut bytes = [0; 18];
    SystemEntropy::new().fill(&mut bytes);
    weir_auth::scram::nonce(bytes)
}

const NAME: &str = "weir monitor";

/// How far a primary has written, or a standby replayed; everybody may ask. One question for both, because a promotion may come
/// in between. Half a second is often enough: promotions are looked out for by empty queries in between.
const POSITION: &str = "SELECT pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() \
    THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, '0/0')";

const MEASURED_EVERY: Duration = Duration::from_millis(500);

const IN_RECOVERY: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// Everybody may call these. The timeline comes from the name of the file being written, because
/// `pg_control_checkpoint()` shows the old one for seconds after a promotion.
const IDENTITY: &str = "SELECT pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8), \
    system_identifier, \
    (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8 \
    FROM pg_catalog.pg_control_system()";

/// Nothing that a monitor asks has a longer answer.
const MESSAGE_BYTES_MAX: u32 = 64 * 1024;

const ROWS_MAX: usize = 8;
