//! Who gets a server connection: limits, waiting queue, age, pause, epochs and balancing over replicas.
//! Knows nothing of bytes on the wire and owns no connection; it only counts and decides.

mod ids;

pub use ids::{ClientId, MemberId, ServerId};
