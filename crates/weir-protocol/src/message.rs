//! What an ErrorResponse or NoticeResponse says, apart from its bytes ("Error and Notice Message Fields"). Owns severity
//! and the texts that weir writes; refuses to know when to say them.

use std::fmt;

use crate::sqlstate::SqlState;

/// How bad it is. The words are never translated on the wire in the field that carries them here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The request failed; the connection goes on.
    Error,
    /// The connection ends.
    Fatal,
    /// All connections of the server end.
    Panic,
    /// Something the user should look at.
    Warning,
    /// A remark.
    Notice,
    /// Detail for developers.
    Debug,
    /// A remark the user asked for.
    Info,
    /// A line of the server's log.
    Log,
}

impl Severity {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Panic => "PANIC",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Log => "LOG",
        }
    }

    /// Reads the word; translated words (only possible before PostgreSQL 9.6) are `None`.
    pub fn parse(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str().as_bytes() == word)
    }

    /// True when the sender closes the connection behind the message.
    pub const fn ends_connection(self) -> bool {
        matches!(self, Self::Fatal | Self::Panic)
    }

    const ALL: [Self; 8] = [
        Self::Error,
        Self::Fatal,
        Self::Panic,
        Self::Warning,
        Self::Notice,
        Self::Debug,
        Self::Info,
        Self::Log,
    ];
}

/// An error or notice that weir says in its own name. Its texts go to the client: no secrets, no addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How bad it is.
    pub severity: Severity,
    /// The code that programs look at.
    pub code: SqlState,
    /// One line for people.
    pub message: String,
    /// More about this case.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Report {
    /// A report without detail and hint.
    pub fn new(severity: Severity, code: SqlState, message: impl Into<String>) -> Self {
        Self { severity, code, message: message.into(), detail: None, hint: None }
    }

    /// A failed request.
    pub fn error(code: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// The end of the connection.
    pub fn fatal(code: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, code, message)
    }

    /// A warning.
    pub fn warning(code: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// A remark.
    pub fn notice(message: impl Into<String>) -> Self {
        Self::new(Severity::Notice, SqlState::SUCCESSFUL_COMPLETION, message)
    }

    /// Adds the DETAIL line.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the HINT line.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same report with another severity.
    #[must_use]
    pub fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.severity.as_str(), self.message, self.code)?;
        match &self.detail {
            Some(detail) => write!(f, "; {detail}"),
            None => Ok(()),
        }
    }
}
