//! Where a turn's output goes. The worker merges what is written here into one write per connection.

/// The two connections of a pairing, as places to append whole or partial messages to.
pub trait Wires {
    /// Appends to what the client receives.
    fn to_client(&mut self, fill: impl FnOnce(&mut Vec<u8>));
    /// Appends to what the server receives. Never called while no server connection is attached.
    fn to_server(&mut self, fill: impl FnOnce(&mut Vec<u8>));
}
