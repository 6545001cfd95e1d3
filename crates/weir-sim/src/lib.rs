//! A simulator: whole weirs (the real worker and the real discovery) in front of a Patroni cluster made of memory, with
//! applications and a network, on virtual time, all from one seed. The same seed tells the same story.
//!
//! While a story goes on laws are checked, each where what it is about happens: see `laws`. They go by what the shell has
//! open and what PostgreSQL gets, not by what weir believes.
//!
//! | module | owns |
//! |---|---|
//! | `world`, `agenda`, `dice` | everything that exists, and the loop that makes it happen; virtual time; chance |
//! | `plan`, `faults` | what kind of story it is; what goes wrong, and when it is mended |
//! | `ending` | calm and drain, and the laws that hold there |
//! | `process`, `weir`, `restart`, `rest` | a weir and its shell of memory; its end and its next life; what it hears from REST APIs |
//! | `application`, `requests`, `copying`, `clients` | who connects, what is asked, and whether that is answered |
//! | `backend` with `statements` and `copy`, `server`, `database` | PostgreSQL: a session, the server, the data |
//! | `planned`, `schedule` | SWITCHOVER at the console; switchovers scheduled with Patroni, and calendars |
//! | `patroni`, `dcs`, `node` | Patroni's loop, the store, a machine |
//! | `wire`, `traffic` | the network |
//! | `ledger`, `laws` | what was written and what was said about it; what has to hold |

mod agenda;
mod application;
mod backend;
mod clients;
mod copying;
mod database;
mod dcs;
mod dice;
mod ending;
mod faults;
mod laws;
mod ledger;
mod node;
mod patroni;
mod plan;
mod planned;
mod process;
mod requests;
mod rest;
mod restart;
mod schedule;
mod server;
mod traffic;
mod weir;
mod wire;
mod world;

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use world::World;

/// What became of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Rows that applications asked for, and were told to be written, not written, or in doubt.
    pub rows: [usize; 4],
    /// Answers that applications received.
    pub answers: u64,
    /// Timeline of the last leader.
    pub timeline: u32,
    /// Connections that weir ended.
    pub cut_off: u32,
    /// Stands for all that happened, and when, to the last byte: the same for the same seed.
    pub history: u64,
}

/// Tells one story.
///
/// # Errors
/// The law that was broken, with the story up to there.
pub fn tell(seed: u64) -> Result<Summary, String> {
    let mut world = World::new(seed);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        world.plan_faults(QUIET, QUIET + STORM);
        world.run_until(QUIET);
        world.check_standby();
        world.run_until(QUIET + STORM);
        world.become_calm();
        world.drain();
        world.summary()
    }));
    outcome.map_err(|what| {
        let text = what.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| what.downcast_ref::<&str>().copied()).unwrap_or("a panic without a word");
        format!("seed {seed}: {text}\n{:?}\n{}", world.plan, world.story.join("\n"))
    })
}

/// Before the first fault everybody has found its place.
const QUIET: Duration = Duration::from_secs(3);

/// Faults happen within this.
const STORM: Duration = Duration::from_secs(25);
