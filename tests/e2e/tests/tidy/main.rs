//! House rules that no compiler checks: documented and short files, short functions, tests that neither sleep nor
//! are skipped, pure crates that stay pure, and settings that are tried. Reads the sources as text; knows nothing of
//! what they do.

mod crates;
mod settings;
mod sources;
