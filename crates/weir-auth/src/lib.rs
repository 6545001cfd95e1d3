//! Login secrets: what a user list holds, how a secret is shown to be known (SCRAM-SHA-256 in both roles, md5),
//! types that cannot be printed by accident, and who may log in from where (HBA, identity maps).
//!
//! Knows no sockets, no PostgreSQL messages, no config files (text is handed in), no clock and no dice: nonces and
//! salts are arguments.

pub mod basic;
pub mod md5;
pub mod scram;

mod elsewhere;
mod hba;
mod ident;
mod pattern;
mod secret;
mod stored;
mod userlist;

pub use elsewhere::{Authority, Directory, Entry, LdapEncryption, PAM_SERVICE, filter_for};
pub use hba::{
    CertificateDemand, HbaMethod, HbaProblem, HbaRule, HbaRules, Judgement, Surroundings, Visitor,
};
pub use ident::IdentMaps;
pub use secret::Secret;
pub use stored::StoredSecret;
pub use userlist::{UserList, UserListProblem};
