//! What the shell needs from the machine it serves, so that tests can put another machine in its place.
//! Decides nothing.

use std::time::Instant;

use weir_admin::snapshot::{Snapshot, UnfinishedRow};
use weir_auth::scram::DerivedKeys;
use weir_pool::ClientId;

use weir_worker::{
    Accepted, Asker, ConnId, DialError, Dialed, Effects, Encrypted, Order, ReferralTicket, Ticket, Verdict,
    Worker,
};

/// A pure machine that owns all decisions of one worker. Every call may ask for effects; the shell carries them out
/// before it makes the next call.
pub(crate) trait Machine: 'static {
    /// A client connected; its name from now on is the returned one.
    fn accept(&mut self, now: Instant, accepted: Accepted, effects: &mut Effects) -> ClientId;
    /// Bytes arrived, decrypted.
    fn received(&mut self, now: Instant, conn: ConnId, bytes: &[u8], effects: &mut Effects);
    /// The peer ended the connection or it failed. The shell has dropped it already.
    fn closed(&mut self, now: Instant, conn: ConnId, effects: &mut Effects);
    /// The handshake that [`weir_worker::Effect::StartTls`] asked for is through.
    fn tls_established(&mut self, now: Instant, client: ClientId, shown: Encrypted, effects: &mut Effects);
    /// TLS with a client, or the handshake, is over. Its end is told by [`Machine::closed`].
    fn tls_broken(&self, client: ClientId, why: &str);
    /// What became of [`weir_worker::Effect::Dial`].
    fn dialed(
        &mut self,
        now: Instant,
        conn: ConnId,
        result: Result<Dialed, DialError>,
        effects: &mut Effects,
    );
    /// What became of [`weir_worker::Effect::Derive`].
    fn derived(&mut self, now: Instant, ticket: Ticket, derived: &DerivedKeys, effects: &mut Effects);
    /// What became of [`weir_worker::Effect::Refer`].
    fn judged(&mut self, now: Instant, ticket: ReferralTicket, verdict: &Verdict, effects: &mut Effects);
    /// Control wants something.
    fn order(&mut self, now: Instant, order: Order, effects: &mut Effects);
    /// Time passes; called ten times a second.
    fn tick(&mut self, now: Instant, effects: &mut Effects);
    /// How things are.
    fn snapshot(&self, now: Instant) -> Snapshot;
    /// Who is in a transaction on the leader.
    fn unfinished(&self, now: Instant) -> Vec<UnfinishedRow>;
    /// What has become of whoever gave a console command.
    fn asker(&self, id: ClientId) -> Asker;
    /// A client of the console, which goes on while all others are suspended.
    fn is_console(&self, conn: ConnId) -> bool;
    /// A client that has not logged in yet.
    fn is_newcomer(&self, conn: ConnId) -> bool;
    /// After an order to end: nothing is left to wait for.
    fn is_drained(&self) -> bool;
    /// Whether a server connection goes to this host.
    fn is_using(&self, host: &str) -> bool;
    /// The connection that this one's bytes go to at the moment: a client's server, a server's client. The shell
    /// stops reading one while the other is slow to take what was written to it.
    fn partner(&self, conn: ConnId) -> Option<ConnId>;
}

impl Machine for Worker {
    fn accept(&mut self, now: Instant, accepted: Accepted, effects: &mut Effects) -> ClientId {
        Self::accept(self, now, accepted, effects)
    }

    fn received(&mut self, now: Instant, conn: ConnId, bytes: &[u8], effects: &mut Effects) {
        Self::received(self, now, conn, bytes, effects);
    }

    fn closed(&mut self, now: Instant, conn: ConnId, effects: &mut Effects) {
        Self::closed(self, now, conn, effects);
    }

    fn tls_established(&mut self, now: Instant, client: ClientId, shown: Encrypted, effects: &mut Effects) {
        Self::tls_established(self, now, client, shown, effects);
    }

    fn tls_broken(&self, client: ClientId, why: &str) {
        Self::tls_broken(self, client, why);
    }

    fn dialed(
        &mut self,
        now: Instant,
        conn: ConnId,
        result: Result<Dialed, DialError>,
        effects: &mut Effects,
    ) {
        Self::dialed(self, now, conn, result, effects);
    }

    fn derived(&mut self, now: Instant, ticket: Ticket, derived: &DerivedKeys, effects: &mut Effects) {
        Self::derived(self, now, ticket, derived, effects);
    }

    fn judged(&mut self, now: Instant, ticket: ReferralTicket, verdict: &Verdict, effects: &mut Effects) {
        Self::judged(self, now, ticket, verdict, effects);
    }

    fn order(&mut self, now: Instant, order: Order, effects: &mut Effects) {
        Self::order(self, now, order, effects);
    }

    fn tick(&mut self, now: Instant, effects: &mut Effects) {
        Self::tick(self, now, effects);
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        Self::snapshot(self, now)
    }

    fn unfinished(&self, now: Instant) -> Vec<UnfinishedRow> {
        Self::unfinished(self, now)
    }

    fn asker(&self, id: ClientId) -> Asker {
        Self::asker(self, id)
    }

    fn is_console(&self, conn: ConnId) -> bool {
        Self::is_console(self, conn)
    }

    fn is_newcomer(&self, conn: ConnId) -> bool {
        Self::is_newcomer(self, conn)
    }

    fn is_drained(&self) -> bool {
        Self::is_drained(self)
    }

    fn is_using(&self, host: &str) -> bool {
        Self::is_using(self, host)
    }

    fn partner(&self, conn: ConnId) -> Option<ConnId> {
        Self::partner(self, conn)
    }
}
