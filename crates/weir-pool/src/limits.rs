//! What a pool is told: its kind, its limits and where it may dial. Knows nothing of the present state.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::MemberId;

/// Which door a pool serves; decides how it lets go of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolKind {
    /// One target at most. A server connection of any other target closes at once, busy or not:
    /// a transaction left open on a frozen leader could otherwise commit after the thaw.
    Write,
    /// Any number of targets, balanced by load. A busy connection to a member that left ends its transaction first.
    Read,
    /// Fixed servers, dialled in turn; one that cannot be reached is passed over. Lets go of them as [`PoolKind::Read`].
    Turns,
    /// Fixed servers: the one that was dialled last is dialled again until that fails, then the next. Lets go of them as
    /// [`PoolKind::Read`].
    First,
}

/// How a pool chooses among members that could all serve a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// Of two drawn at random, by weight, the one that is less busy for its weight.
    #[default]
    FewerBusy,
    /// One after the other, each as often as its weight says.
    InTurn,
}

/// How much a pool may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Server connections at once, over all members, those in dialing or login included.
    pub size: NonZeroU32,
    /// More of them, once a client has waited for [`Limits::reserve_timeout`].
    pub reserve: u32,
    /// See [`Limits::reserve`]; `None`: the reserve stays closed.
    pub reserve_timeout: Option<Duration>,
    /// Server connections kept open, while [`Pool::keep_min`](crate::Pool::keep_min) says so.
    pub min_size: u32,
    /// The connection that has rested longest is given out, not the one used last.
    pub round_robin: bool,
    /// How a member is chosen.
    pub balance: Balance,
    /// After a failed dial or login of all members clients fail at once until this has passed, and nobody is dialed;
    /// `None`: clients wait, and members are dialed again after 50 ms to 1 s.
    pub login_retry: Option<Duration>,
    /// An idle server connection closes after this; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// A server connection older than this closes when nobody uses it; `None`: never. Closings keep a
    /// distance of `lifetime / size`, so that connections born together do not die together.
    pub lifetime: Option<Duration>,
    /// A connection that has rested this long is tested before a client gets it; `None`: never.
    pub test_after: Option<Duration>,
    /// Clients that may wait at once.
    pub waiting_max: u32,
    /// Server connections in dialing or login at once; 0 counts as 1.
    pub dials_at_once: u32,
}

/// Where a pool may dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// The PostgreSQL instance.
    pub member: MemberId,
    /// Which life of it. Opaque; a changed number makes connections of the old one unfit.
    pub epoch: u64,
}
