//! Who leads a Patroni cluster, who may serve reads, and when to hold: judged from answers and events that are
//! passed in, at times that are passed in. Knows no socket, no HTTP client, no pool and no clock.

mod cadence;
mod endpoint;
mod event;
mod journal;
mod judge;
mod lag;
mod machine;
mod member;
mod patroni;
mod planned;
mod read;
mod restart;
mod schedule;
mod shares;
mod slot;
mod switchover;
mod topology;
mod url;
mod views;

pub use event::{Event, MonitorReport, PollFailure, ReadPolicy, Request, Settings, Vitals};
pub use journal::{FAILOVERS_MAX, FailoverRecord, Note, STEPS_MAX, Succession};
pub use machine::Discovery;
pub use patroni::{ANSWER_BYTES_MAX, Answer, MEMBERS_MAX};
pub use planned::{Reign, SwitchoverPlan};
pub use switchover::{Outcome, Step, Switchover};
pub use topology::{
    Address, Api, Epoch, GivenUp, Lag, LagSource, Leadership, MemberView, Monitor, ReadFallback, ReadTarget,
    SessionEvidence, Topology,
};
pub use url::{ApiUrl, NotAnApiUrl};
