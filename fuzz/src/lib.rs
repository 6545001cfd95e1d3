//! The functions that a fuzzer calls, one for each thing that a stranger can hand to weir. Each takes any bytes, and
//! panics if weir breaks a promise. Knows no fuzzer: `scripts/fuzz.sh` brings one, and `tests/corpus.rs` calls them with
//! the inputs that were worth keeping.

mod cluster;
mod files;
mod frames;
mod logins;
mod scram;

/// A target: its name, which is also the name of its corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("startup", logins::startup),
    ("client_login", logins::client),
    ("server_login", logins::server),
    ("scram_server", scram::server_role),
    ("scram_client", scram::client_role),
    ("frames", frames::cut),
    ("hba", files::hba),
    ("ident", files::ident),
    ("userlist", files::user_list),
    ("ini", files::ini),
    ("toml", files::toml),
    ("cluster", cluster::answers),
];
