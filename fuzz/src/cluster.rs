//! What Patroni's REST APIs answer: whatever stands in it, discovery reads it or refuses it, and goes on asking.

use std::time::{Duration, Instant};

use weir_discovery::{
    Answer, ApiUrl, Discovery, Event, MonitorReport, ReadFallback, ReadPolicy, Request, Settings, Vitals,
};

/// A member's bytes, then the cluster's, with a line of `--` between them; every API says the same for three seconds.
pub(crate) fn answers(bytes: &[u8]) {
    let cut = bytes.windows(SEAM.len()).position(|window| window == SEAM);
    let (member, cluster) = match cut {
        Some(at) => (&bytes[..at], &bytes[at + SEAM.len()..]),
        None => (bytes, bytes),
    };
    let start = Instant::now();
    let mut discovery = Discovery::new(start, settings());
    for turn in 0..TURNS {
        let now = start + TURN * turn;
        discovery.tell_time(now, CALENDAR + TURN * turn);
        let mut rounds = 0;
        while discovery.deadline(now) <= now {
            for request in discovery.due(now) {
                discovery.step(now, answer(request, member, cluster));
            }
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "it asks without end");
        }
        let _ = discovery.members(now);
        discovery.notes().for_each(drop);
    }
}

fn answer(request: Request, member: &[u8], cluster: &[u8]) -> Event {
    let said = |body: &[u8], status| Ok(Answer { status, body: body.to_vec() });
    match request {
        Request::Primary { url } => {
            let status = if url.port().is_multiple_of(2) { 200 } else { 503 };
            Event::Polled { result: said(member, status), url }
        }
        Request::Cluster { url } => Event::Cluster { result: said(cluster, 200), url },
        Request::Ping { member, address } => {
            let report = MonitorReport::Answered {
                in_hot_standby: address.port.is_multiple_of(2),
                timeline: Some(u32::from(address.port)),
                system_identifier: Some(7),
                started: Some(1),
                vitals: Vitals::default(),
            };
            Event::Monitor { member, address, report }
        }
    }
}

fn settings() -> Settings {
    let seed = |url: &str| url.parse::<ApiUrl>().expect("it is a URL");
    Settings {
        seeds: vec![seed("http://a:8008"), seed("http://b:8009")],
        scope: None,
        max_lag_bytes: 1 << 24,
        fallback: ReadFallback::Wait,
        policy: ReadPolicy::Weighted,
        poll_interval: Duration::from_secs(1),
        monitor: true,
    }
}

const SEAM: &[u8] = b"\n--\n";

const TURN: Duration = Duration::from_millis(100);
const TURNS: u32 = 30;

/// What one answer brings up may be asked at once: the members behind `/cluster`.
const ROUNDS_MAX: u32 = 8;

/// 2001-09-09 01:46:40 UTC.
const CALENDAR: Duration = Duration::from_secs(1_000_000_000);
