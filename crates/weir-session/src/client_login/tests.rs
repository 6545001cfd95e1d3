//! Client logins, step by step.
