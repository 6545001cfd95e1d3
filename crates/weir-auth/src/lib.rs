//! Login secrets and SCRAM. Knows no sockets and no config files.

/// placeholder until the owner writes it
#[derive(Clone, Debug)]
pub struct Secret;
/// placeholder until the owner writes it
#[derive(Clone, Debug, Default)]
pub struct UserList;
