//! Who gets a server connection: limits, waiting queue, age, pause, epochs and balancing over replicas.
//! Knows nothing of bytes on the wire and owns no connection; it only counts and decides.

mod answers;
mod dice;
mod ids;
mod ledger;
mod limits;
mod members;
mod pool;
mod private;
mod queue;
mod rebalance;
#[cfg(test)]
mod tests;

pub use answers::{Checkout, PoolCounts, PoolSums, ServerFacts, ServerState, Settled};
pub use dice::Dice;
pub use ids::{ClientId, MemberId, ServerId};
pub use limits::{Limits, PoolKind, Target};
pub use pool::Pool;
pub use private::PrivateRoom;
