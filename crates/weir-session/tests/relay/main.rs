//! Scenes between clients, weir's sessions and server connections, played on byte vectors through the public interface.
//!
//! Each scene is played several times, with all bytes cut into pieces of another size: the outcome must not depend on how
//! they arrive. Owns what each side sees; refuses to know what the session keeps.

mod aborted;
mod copy;
mod deferred;
mod extended;
mod hostile;
mod losses;
mod lost;
mod parameters;
mod postgres;
mod prepared;
mod random;
mod recovery;
mod repeating;
mod simple;
mod stage;
mod state;
mod telling;
mod words;
