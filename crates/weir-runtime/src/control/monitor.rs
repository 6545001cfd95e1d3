//! One monitor for each member: a task that holds one connection to the member's PostgreSQL, pings it when asked, and
//! tells at once when it ends. Owns the deadlines; what the connection says is read in [`session`].

mod link;
mod session;

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use weir_auth::StoredSecret;
use weir_config::{Config, Patroni, Upstream};
use weir_discovery::{Address, Event, MonitorReport};
use weir_protocol::message;
use weir_session::server_login::{LoginFailure, ServerCredential, ServerSecret};

use super::state::Control;
use crate::dial::Dialer;
use link::Link;
use session::Session;
use weir_worker::{DialError, Encryption};

/// The follower's end of one monitor.
pub(super) struct MonitorHandle {
    pings: mpsc::Sender<()>,
}

impl MonitorHandle {
    /// Asks for one report. Discovery waits for each before it asks again, so there is always room.
    pub(super) fn ping(&self) {
        if self.pings.try_send(()).is_err() {
            tracing::debug!("a ping found its monitor busy");
        }
    }

    /// False once the task has ended; a new one has to be started.
    pub(super) fn is_alive(&self) -> bool {
        !self.pings.is_closed()
    }
}

/// Starts the task. It ends when nobody has asked for [`IDLE_MAX`].
pub(super) fn start(
    control: Rc<Control>,
    place: (String, Address),
    events: mpsc::Sender<Event>,
) -> MonitorHandle {
    let (pings, asked) = mpsc::channel(2);
    let (member, address) = place;
    spawn_local(Monitor { control, member, address, events }.run(asked));
    MonitorHandle { pings }
}

/// Who the monitor is towards PostgreSQL; `None`: no user is configured, so there is no monitor.
pub(super) fn credential(config: &Config, patroni: &Patroni) -> Option<ServerCredential> {
    let user = patroni.monitor_user.as_ref().or(config.auth.user.as_ref())?;
    let own = patroni.monitor_password.as_ref().filter(|_| patroni.monitor_user.is_some());
    let secret = match (own, config.auth.users.get(user)) {
        (Some(password), _) | (None, Some(StoredSecret::Plain(password))) => {
            Some(ServerSecret::password(password.clone()))
        }
        (None, Some(StoredSecret::Md5(stored))) => Some(ServerSecret::Md5(stored.clone())),
        // A verifier opens no door. PostgreSQL may still let the user in without a secret.
        (None, Some(StoredSecret::Scram(_)) | None) => None,
    };
    Some(ServerCredential { user: user.clone(), secret })
}

struct Monitor {
    control: Rc<Control>,
    member: String,
    address: Address,
    events: mpsc::Sender<Event>,
}

impl Monitor {
    async fn run(self, mut asked: mpsc::Receiver<()>) {
        let mut session: Option<Session> = None;
        loop {
            let word = match session.as_mut() {
                None => timeout(IDLE_MAX, asked.recv()).await.ok().flatten().map(Ok),
                Some(open) => tokio::select! {
                    biased;
                    why = open.until_it_ends() => Some(Err(why)),
                    word = timeout(IDLE_MAX, asked.recv()) => word.ok().flatten().map(Ok),
                },
            };
            let report = match word {
                None => break,
                Some(Err(why)) => {
                    session = None;
                    MonitorReport::Lost { why }
                }
                Some(Ok(())) => self.look(&mut session).await,
            };
            let event = Event::Monitor { member: self.member.clone(), address: self.address.clone(), report };
            if self.events.send(event).await.is_err() {
                break;
            }
        }
        if let Some(open) = session {
            open.say_goodbye();
        }
    }

    /// Pings, or opens the connection first if there is none.
    async fn look(&self, session: &mut Option<Session>) -> MonitorReport {
        let Some(mut open) = session.take() else {
            return self.look_anew(session, OPEN_TIME_MAX).await;
        };
        // A server that is slow answers one of the two; a host that has vanished answers neither, and is found out within
        // two seconds of the last ping that it answered.
        let answer = {
            let mut ping = pin!(open.ping());
            let second = tokio::select! {
                biased;
                answer = &mut ping => Ok(answer),
                report = self.look_again(session) => Err(report),
            };
            match second {
                Ok(answer) => answer,
                // It lives and has no room for another connection: the one that there is may be answered yet.
                Err(report @ MonitorReport::RoleUnknown { .. }) => {
                    match timeout(SECOND_LOOK_TIME_MAX, ping).await {
                        Ok(answer) => answer,
                        Err(_) => return report,
                    }
                }
                Err(report) => return report,
            }
        };
        match answer {
            Ok(report) => {
                *session = Some(open);
                report
            }
            Err(why) => MonitorReport::Lost { why },
        }
    }

    /// What a new connection says while a ping on the old one stays unanswered.
    async fn look_again(&self, session: &mut Option<Session>) -> MonitorReport {
        sleep(PING_PATIENCE).await;
        self.look_anew(session, SECOND_LOOK_TIME_MAX).await
    }

    /// Opens a connection and pings on it.
    async fn look_anew(&self, session: &mut Option<Session>, time_max: Duration) -> MonitorReport {
        let look = async {
            let mut open = self.open().await?;
            let report = open.ping().await.map_err(|why| MonitorReport::Lost { why })?;
            Ok((open, report))
        };
        match timeout(time_max, look).await {
            Ok(Ok((open, report))) => {
                *session = Some(open);
                report
            }
            Ok(Err(report)) => report,
            Err(_) => MonitorReport::Silent,
        }
    }

    async fn open(&self) -> Result<Session, MonitorReport> {
        let config = self.control.config();
        let dialer = Dialer {
            tls: Arc::clone(&self.control.tls.borrow()),
            encryption: Encryption::default(),
            tcp: config.tcp.clone(),
            resolver: Rc::clone(&self.control.resolver),
        };
        let Upstream::Patroni(patroni) = &config.upstream else {
            return Err(unreachable("is no member of a cluster"));
        };
        let Some(credential) = credential(&config, patroni) else {
            return Err(MonitorReport::RoleUnknown { why: "no monitor user is configured".to_owned() });
        };
        let link = Link::dial(&self.address, &dialer).await.map_err(not_dialed)?;
        let (database, wish) = (&patroni.monitor_database, config.server_tls.channel_binding);
        Session::log_in(link, database, credential, wish, &self.control.deriver).await.map_err(not_let_in)
    }
}

fn not_dialed(error: DialError) -> MonitorReport {
    match error {
        DialError::Refused(_) | DialError::NoAddress(_) => {
            unreachable(&format!("cannot be reached: {error}"))
        }
        DialError::TimedOut => MonitorReport::Silent,
        // Somebody is there; that we cannot agree on TLS says nothing about its role.
        DialError::Tls(why) | DialError::Untrusted(why) => MonitorReport::RoleUnknown { why },
    }
}

/// Whoever is refused has met a living PostgreSQL that only does not want the monitor: too many connections, no such user,
/// database or password, a database without connections, a login trigger that objects. Unless it says that it is itself in
/// trouble: starting, stopping or recovering (57), its files or memory out of order (58, XX).
fn not_let_in(failure: LoginFailure) -> MonitorReport {
    match &failure {
        LoginFailure::Refused(message::Report { code, .. }) => {
            if ["57", "58", "XX"].iter().any(|class| code.as_str().starts_with(class)) {
                unreachable(&format!("refuses connections: {failure}"))
            } else {
                MonitorReport::RoleUnknown { why: failure.to_string() }
            }
        }
        LoginFailure::Unbound(_) | LoginFailure::Malformed(_) => {
            unreachable(&format!("cannot be logged in to: {failure}"))
        }
        LoginFailure::NoCredential { .. }
        | LoginFailure::NotPrimary
        | LoginFailure::NotReplica
        | LoginFailure::WrongTimeline { .. }
        | LoginFailure::WrongSystem { .. } => MonitorReport::RoleUnknown { why: failure.to_string() },
    }
}

/// `why` is the rest of a sentence about the server.
fn unreachable(why: &str) -> MonitorReport {
    MonitorReport::Unreachable { why: why.to_owned() }
}

/// A ping that is not answered within this gets company: a new connection is tried beside it.
const PING_PATIENCE: Duration = Duration::from_millis(300);

/// For the new connection, from dialing it to the answer. With [`PING_PATIENCE`] and a ping a second: two seconds.
const SECOND_LOOK_TIME_MAX: Duration = Duration::from_millis(700);

/// Dial, TLS, login and ping together, where nothing was connected before.
const OPEN_TIME_MAX: Duration = Duration::from_secs(2);

/// A member that discovery has not asked about for this long has left the cluster.
const IDLE_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use weir_discovery::MonitorReport;
    use weir_protocol::message::Report;
    use weir_protocol::sqlstate::SqlState;
    use weir_session::server_login::LoginFailure;

    use super::not_let_in;

    #[test]
    fn a_refusal_is_a_sign_of_life_unless_it_tells_of_trouble() {
        let says = |code: &str| {
            let code = SqlState::parse(code.as_bytes()).expect("it is a code");
            not_let_in(LoginFailure::Refused(Report::fatal(code, "no")))
        };
        for alive in ["53300", "28P01", "28000", "3D000", "42501", "55000", "P0001", "53200"] {
            assert!(matches!(says(alive), MonitorReport::RoleUnknown { .. }), "{alive}");
        }
        for dead in ["57P01", "57P03", "58P01", "XX000"] {
            assert!(matches!(says(dead), MonitorReport::Unreachable { .. }), "{dead}");
        }
    }
}
