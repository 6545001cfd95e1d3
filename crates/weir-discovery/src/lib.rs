//! Who leads a Patroni cluster, who may serve reads, and when to hold: judged from answers and events that are
//! passed in, at times that are passed in. Knows no socket, no HTTP client, no pool and no clock.

mod topology;

pub use topology::{
    Address, Api, Epoch, Leadership, MemberView, Monitor, ReadFallback, ReadTarget, SessionEvidence, Topology,
};
