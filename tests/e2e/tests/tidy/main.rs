//! House rules that no compiler checks: documented and short files, short functions, tests that neither sleep nor
//! are skipped, pure crates that stay pure, settings that are tried, and planted bugs that still fit. Reads the
//! sources as text; knows nothing of what they do.

mod bugs;
mod crates;
mod settings;
mod sources;
