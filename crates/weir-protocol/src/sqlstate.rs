//! SQLSTATE codes ("PostgreSQL Error Codes"). Owns the five characters and the names of the codes that weir itself says
//! or looks for; refuses to know why somebody says one.

use std::fmt;

/// A five character error code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SqlState([u8; 5]);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)+) => {
        impl SqlState {
            $($(#[$doc])* pub const $name: Self = Self(*$code);)+

            /// Every code that has a name here.
            pub const NAMED: &[Self] = &[$(Self::$name,)+];
        }
    };
}

codes! {
    /// `successful_completion`
    SUCCESSFUL_COMPLETION = b"00000",
    /// `warning`
    WARNING = b"01000",
    /// `connection_exception`
    CONNECTION_EXCEPTION = b"08000",
    /// `sqlclient_unable_to_establish_sqlconnection`
    UNABLE_TO_CONNECT = b"08001",
    /// `connection_does_not_exist`
    CONNECTION_DOES_NOT_EXIST = b"08003",
    /// `sqlserver_rejected_establishment_of_sqlconnection`
    CONNECTION_REJECTED = b"08004",
    /// `connection_failure`
    CONNECTION_FAILURE = b"08006",
    /// `transaction_resolution_unknown`: nobody knows whether the transaction was committed.
    TRANSACTION_RESOLUTION_UNKNOWN = b"08007",
    /// `protocol_violation`
    PROTOCOL_VIOLATION = b"08P01",
    /// `feature_not_supported`; PostgreSQL also says it for a cached plan whose result type changed.
    FEATURE_NOT_SUPPORTED = b"0A000",
    /// `character_not_in_repertoire`: the bytes are not valid in the encoding.
    CHARACTER_NOT_IN_REPERTOIRE = b"22021",
    /// `invalid_parameter_value`
    INVALID_PARAMETER_VALUE = b"22023",
    /// `active_sql_transaction`: not allowed inside a transaction block.
    ACTIVE_SQL_TRANSACTION = b"25001",
    /// `read_only_sql_transaction`
    READ_ONLY_SQL_TRANSACTION = b"25006",
    /// `no_active_sql_transaction`
    NO_ACTIVE_SQL_TRANSACTION = b"25P01",
    /// `in_failed_sql_transaction`
    IN_FAILED_SQL_TRANSACTION = b"25P02",
    /// `idle_in_transaction_session_timeout`
    IDLE_IN_TRANSACTION_SESSION_TIMEOUT = b"25P03",
    /// `transaction_timeout`
    TRANSACTION_TIMEOUT = b"25P04",
    /// `invalid_sql_statement_name`: no prepared statement of that name.
    INVALID_SQL_STATEMENT_NAME = b"26000",
    /// `invalid_authorization_specification`
    INVALID_AUTHORIZATION = b"28000",
    /// `invalid_password`
    INVALID_PASSWORD = b"28P01",
    /// `invalid_cursor_name`: no portal of that name.
    INVALID_CURSOR_NAME = b"34000",
    /// `invalid_catalog_name`: no such database.
    INVALID_CATALOG_NAME = b"3D000",
    /// `serialization_failure`: the transaction was rolled back and may be run again.
    SERIALIZATION_FAILURE = b"40001",
    /// `syntax_error`
    SYNTAX_ERROR = b"42601",
    /// `insufficient_privilege`
    INSUFFICIENT_PRIVILEGE = b"42501",
    /// `undefined_object`
    UNDEFINED_OBJECT = b"42704",
    /// `duplicate_prepared_statement`
    DUPLICATE_PREPARED_STATEMENT = b"42P05",
    /// `insufficient_resources`
    INSUFFICIENT_RESOURCES = b"53000",
    /// `out_of_memory`
    OUT_OF_MEMORY = b"53200",
    /// `too_many_connections`
    TOO_MANY_CONNECTIONS = b"53300",
    /// `configuration_limit_exceeded`
    CONFIGURATION_LIMIT_EXCEEDED = b"53400",
    /// `program_limit_exceeded`
    PROGRAM_LIMIT_EXCEEDED = b"54000",
    /// `object_not_in_prerequisite_state`
    OBJECT_NOT_IN_PREREQUISITE_STATE = b"55000",
    /// `cant_change_runtime_param`
    CANT_CHANGE_RUNTIME_PARAM = b"55P02",
    /// `query_canceled`
    QUERY_CANCELED = b"57014",
    /// `admin_shutdown`
    ADMIN_SHUTDOWN = b"57P01",
    /// `crash_shutdown`
    CRASH_SHUTDOWN = b"57P02",
    /// `cannot_connect_now`: starting up, shutting down or in recovery.
    CANNOT_CONNECT_NOW = b"57P03",
    /// `database_dropped`
    DATABASE_DROPPED = b"57P04",
    /// `idle_session_timeout`
    IDLE_SESSION_TIMEOUT = b"57P05",
    /// `system_error`
    SYSTEM_ERROR = b"58000",
    /// `config_file_error`
    CONFIG_FILE_ERROR = b"F0000",
    /// `internal_error`
    INTERNAL_ERROR = b"XX000",
}

impl SqlState {
    /// Reads a code from the wire: five digits or upper case letters.
    pub fn parse(code: &[u8]) -> Option<Self> {
        let code: [u8; 5] = code.try_into().ok()?;
        let valid = code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        valid.then_some(Self(code))
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        // Both ways to make one admit ASCII only, so the fallback is never taken.
        str::from_utf8(&self.0).unwrap_or("XX000")
    }

    /// The code as bytes.
    pub const fn as_bytes(&self) -> &[u8; 5] {
        &self.0
    }

    /// True when the first two characters, the class, are these.
    pub fn is_class(&self, class: &[u8; 2]) -> bool {
        self.0.starts_with(class)
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({})", self.as_str())
    }
}
