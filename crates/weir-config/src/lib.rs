//! weir.toml and the command line, checked into one model that cannot be wrong.

pub mod model;

pub use model::*;
