//! Logins to PostgreSQL, step by step.
