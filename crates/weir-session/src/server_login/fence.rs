//! What a server has to be before its connection is given out, how it is asked, and what its answer must be. A leader
//! that was frozen and thawed, or a member restored from elsewhere, must not receive writes.

use super::LoginFailure;

/// What a new connection has to prove about its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Nothing.
    None,
    /// That it is the primary, of this cluster, on this timeline, as far as these are known.
    Primary {
        /// The timeline that is followed.
        expect_timeline: Option<u32>,
        /// The cluster's system identifier.
        expect_system: Option<u64>,
    },
    /// That it is a standby.
    Replica,
}

/// What the server said of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) in_recovery: Option<bool>,
    pub(super) timeline: Option<u32>,
    pub(super) system_identifier: Option<u64>,
}

impl Fence {
    /// The query that decides, given what ParameterStatus already said; `None` when nothing needs to be asked. A walsender
    /// that is bound to no database takes no SQL, so every walsender is asked by a command of its own.
    pub(super) fn question(
        self,
        in_recovery: Option<bool>,
        walsender: bool,
    ) -> Result<Option<&'static str>, LoginFailure> {
        match (self, in_recovery) {
            (Self::None, _) | (Self::Replica, Some(true)) => Ok(None),
            (Self::Primary { .. }, Some(true)) => Err(LoginFailure::NotPrimary),
            (Self::Replica, Some(false)) => Err(LoginFailure::NotReplica),
            (Self::Primary { .. }, Some(false)) if walsender => Ok(Some(WALSENDER_QUESTION)),
            // Before PostgreSQL 14 a walsender does not tell which it is.
            (Self::Primary { .. }, None) if walsender => Err(LoginFailure::NotPrimary),
            (Self::Replica, None) if walsender => Err(LoginFailure::NotReplica),
            (Self::Primary { .. }, Some(false) | None) => Ok(Some(PRIMARY_QUESTION)),
            (Self::Replica, None) => Ok(Some(REPLICA_QUESTION)),
        }
    }

    /// Compares the answer with what is expected.
    pub(super) fn judge(self, answer: &Answer) -> Result<(), LoginFailure> {
        let (expect_timeline, expect_system) = match (self, answer.in_recovery) {
            (Self::None, _) | (Self::Replica, Some(true)) => return Ok(()),
            (Self::Replica, Some(false) | None) => return Err(LoginFailure::NotReplica),
            (Self::Primary { .. }, Some(true) | None) => return Err(LoginFailure::NotPrimary),
            (Self::Primary { expect_timeline, expect_system }, Some(false)) => {
                (expect_timeline, expect_system)
            }
        };
        let (Some(timeline), Some(system)) = (answer.timeline, answer.system_identifier) else {
            return Err(LoginFailure::Malformed("a primary without timeline or system identifier".into()));
        };
        match (expect_system, expect_timeline) {
            (Some(expected), _) if expected != system => {
                Err(LoginFailure::WrongSystem { seen: system, expected })
            }
            (_, Some(expected)) if expected != timeline => {
                Err(LoginFailure::WrongTimeline { seen: timeline, expected })
            }
            (_, _) => Ok(()),
        }
    }
}

impl Answer {
    /// Reads the row that answers one of the questions.
    pub(super) fn read(row: &[Option<&[u8]>]) -> Result<Self, LoginFailure> {
        let in_recovery = match row.first() {
            Some(Some(b"t")) => Some(true),
            Some(Some(b"f")) => Some(false),
            Some(_) | None => return Err(unreadable()),
        };
        let timeline = text(row.get(1)).map(|hex| u32::from_str_radix(hex, 16).map_err(|_| unreadable()));
        // PostgreSQL has no unsigned type: the number comes as a bigint.
        let system = text(row.get(2)).map(|number| number.parse::<i64>().map_err(|_| unreadable()));
        Ok(Self {
            in_recovery,
            timeline: timeline.transpose()?,
            system_identifier: system.transpose()?.map(i64::cast_unsigned),
        })
    }
}

impl Answer {
    /// Reads the row that answers IDENTIFY_SYSTEM, of a server that has said that it is the primary.
    pub(super) fn read_walsender(row: &[Option<&[u8]>]) -> Result<Self, LoginFailure> {
        let system = text(row.first()).and_then(|number| number.parse::<u64>().ok());
        let timeline = text(row.get(1)).and_then(|number| number.parse::<u32>().ok());
        match (system, timeline) {
            (Some(_), Some(_)) => Ok(Self { in_recovery: Some(false), timeline, system_identifier: system }),
            (_, _) => Err(unreadable()),
        }
    }
}

fn text<'a>(value: Option<&Option<&'a [u8]>>) -> Option<&'a str> {
    value.copied().flatten().map(|bytes| std::str::from_utf8(bytes).unwrap_or_default())
}

fn unreadable() -> LoginFailure {
    LoginFailure::Malformed("the answer to the fence's question cannot be read".into())
}

/// Everybody may call these. All names are qualified, since the user's search_path must not choose other functions.
/// `pg_control_checkpoint()` would still show the old timeline for seconds after a promotion, so the timeline is taken
/// from the name of the file that is being written; on a standby that function fails, hence the CASE.
const PRIMARY_QUESTION: &str = "SELECT r, \
    CASE WHEN r THEN NULL ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END, \
    (SELECT system_identifier FROM pg_catalog.pg_control_system()) \
    FROM pg_catalog.pg_is_in_recovery() AS r";

/// Gives system identifier, timeline, position and database (protocol chapter, "Streaming Replication Protocol").
const WALSENDER_QUESTION: &str = "IDENTIFY_SYSTEM";

const REPLICA_QUESTION: &str = "SELECT pg_catalog.pg_is_in_recovery()";
