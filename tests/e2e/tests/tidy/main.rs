//! House rules that no compiler checks: documented and short files, short functions, tests that neither sleep nor
//! are skipped, and pure crates that stay pure. Reads the sources as text; knows nothing of what they do.

mod crates;
mod sources;
