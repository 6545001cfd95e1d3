//! What a pool answers, as plain values.

use std::time::Instant;

use crate::{ClientId, MemberId, PoolId, ServerId, Target};

/// What a client gets when it asks for a server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Checkout {
    /// This one, now.
    Granted(ServerId),
    /// Its turn comes with a [`Settled::Grant`]. Ask [`Pool::next_dial`](crate::Pool::next_dial) whether to dial.
    Queued,
    /// Too many wait already; the pool has not taken note of the client.
    QueueFull,
    /// Nobody can be reached, and the pool fails fast; it has not taken note of the client.
    Failing,
}

/// What a pool that may want one more server connection asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum NextDial {
    /// Nothing.
    Nothing,
    /// To dial this target and say so by [`Pool::dial_started`](crate::Pool::dial_started), then to ask again.
    Dial(Target),
    /// To close this unused connection of another pool, which holds a slot under a limit that both share
    /// ([`Pool::discard`](crate::Pool::discard) on that pool). The pool stands in line for the slot: the caller asks
    /// [`Caps::next_turn`](crate::Caps::next_turn) next.
    Evict(PoolId, ServerId),
}

/// Why a dial or a login did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailure {
    /// It was refused, or nobody is there.
    Refused,
    /// The server does not let this user in, and will not a moment later: others are better for a while.
    NotLetIn,
    /// The server asked to come again soon (57P03): nobody has to fail for it.
    NotYet,
}

/// What becomes of a server connection that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Settled {
    /// It belongs to this client now, which waits no longer.
    Grant(ClientId),
    /// It stays open, unused.
    Idle,
    /// The caller closes it; the pool has forgotten it already.
    Retire,
}

/// Where a server connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// In dialing or login.
    Dialing,
    /// Nobody uses it.
    Idle,
    /// This client uses it.
    Active(ClientId),
    /// Its client has let go of it, but it is not at rest yet. Counts as active.
    Parted,
    /// Nobody uses it; the caller finds out whether it still works ([`Pool::next_test`](crate::Pool::next_test)).
    Tested,
    /// One client has it for itself until it closes ([`PrivateRoom`](crate::PrivateRoom)). Counts as active.
    Private,
}

/// One server connection, for SHOW SERVERS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerFacts {
    /// Where it stands.
    pub state: ServerState,
    /// Where it goes.
    pub member: MemberId,
    /// Epoch of the member when it was dialled.
    pub epoch: u64,
    /// When its dial began.
    pub created: Instant,
    /// When it was last given out or given back; before that, when its dial began.
    pub last_used: Instant,
    /// It closes when it is given back.
    pub retire: bool,
}

/// How many of what there are now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Server connections in use.
    pub active: u32,
    /// Server connections nobody uses.
    pub idle: u32,
    /// Server connections in dialing or login.
    pub dialing: u32,
    /// Server connections that are being tested.
    pub tested: u32,
    /// Clients that wait.
    pub waiting: u32,
}

/// Sums since the pool was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolSums {
    /// Times a server connection was given to a client.
    pub assignments: u64,
    /// Microseconds that clients waited before they were given one.
    pub wait_micros: u64,
    /// Clients turned away because too many waited.
    pub refused: u64,
    /// Clients that waited too long ([`Pool::overdue`](crate::Pool::overdue)).
    pub overdue: u64,
    /// Server connections whose login succeeded.
    pub opened: u64,
    /// Of those, how many are gone.
    pub closed: u64,
    /// Dials and server logins that failed.
    pub dial_failures: u64,
}
