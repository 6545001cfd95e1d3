//! Who gets a server connection: limits, waiting queue, age, pause, epochs and balancing over replicas.
//! Knows nothing of bytes on the wire and owns no connection; it only counts and decides.

mod answers;
mod caps;
mod choice;
mod dials;
mod dice;
mod holds;
mod ids;
mod ledger;
mod limits;
mod members;
mod pool;
mod private;
mod queue;
mod rebalance;
mod share;
#[cfg(test)]
mod tests;

pub use answers::{Checkout, DialFailure, NextDial, PoolCounts, PoolSums, ServerFacts, ServerState, Settled};
pub use caps::Caps;
pub use dice::Dice;
pub use ids::{CapId, ClientId, MemberId, PoolId, ServerId};
pub use limits::{Balance, Limits, PoolKind, Target};
pub use pool::Pool;
pub use private::PrivateRoom;
