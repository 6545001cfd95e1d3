//! What a client reads when it is not let in: PostgreSQL's words and codes, none of which tells whether a user exists.

use weir_auth::scram::ScramError;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::{BadStartup, ProtocolVersion};

/// PostgreSQL's words for a client that did not prove itself, whatever the reason: they do not say whether the user
/// exists.
#[must_use]
pub fn wrong_password(user: &str) -> Report {
    Report::fatal(SqlState::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""))
}

/// What a client reads when its SCRAM exchange failed, with PostgreSQL's codes (auth-scram.c).
pub(super) fn refusal(error: &ScramError, user: &str) -> Report {
    match error {
        ScramError::WrongProof => wrong_password(user),
        ScramError::Malformed(why) => violation("malformed SCRAM message").detail(sentence(why)),
        ScramError::UnsupportedBinding | ScramError::BindingMismatch | ScramError::NonceMismatch => {
            violation(error.to_string())
        }
        ScramError::AuthorizationIdentity | ScramError::MandatoryExtension => {
            Report::fatal(SqlState::FEATURE_NOT_SUPPORTED, error.to_string())
        }
        ScramError::BindingDowngraded => Report::fatal(SqlState::INVALID_AUTHORIZATION, error.to_string())
            .detail("The client believes that weir does not support channel binding, but weir offered it."),
        ScramError::UnusableNonce
        | ScramError::Iterations(_)
        | ScramError::WrongServerProof
        | ScramError::RefusedByServer => Report::fatal(SqlState::INTERNAL_ERROR, error.to_string()),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

pub(super) fn violation(message: impl Into<String>) -> Report {
    Report::fatal(SqlState::PROTOCOL_VIOLATION, message)
}

pub(super) fn unencrypted(request: &str) -> Report {
    violation(format!("received unencrypted data after {request} request")).detail(
        "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
    )
}

pub(super) fn not_encrypted() -> Report {
    Report::fatal(SqlState::INVALID_AUTHORIZATION, "SSL required")
        .hint("Connect with sslmode=require, or a stricter mode.")
}

/// A request for encryption where PostgreSQL takes only a startup packet: there it is a version that does not exist.
pub(super) fn negotiated_before(minor: u16) -> Report {
    BadStartup::UnsupportedVersion(ProtocolVersion { major: 1234, minor }).report()
}
