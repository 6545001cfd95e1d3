//! From a REST API and a PostgreSQL to the topology that a worker is told.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_discovery::{Leadership, Monitor, ReadFallback, ReadPolicy, SessionEvidence, Topology};
use weir_protocol::sqlstate::SqlState;
use weir_worker::Order;

use super::fakes::{
    Mood, PASSWORD, Postgres, Worker, config, control, http, patroni, plain, rest, silent_rest,
};
use super::on_control_thread;
use crate::control::follow::settings;
use crate::control::state::now;

/// A cluster of one member with this PostgreSQL, leading as long as `leads` says so.
async fn cluster(postgres: &Postgres, leads: Rc<RefCell<bool>>) -> std::net::SocketAddr {
    counted_cluster(postgres, leads, Rc::default()).await
}

/// The same; `polls` counts how often the member was asked whether it leads.
async fn counted_cluster(
    postgres: &Postgres,
    leads: Rc<RefCell<bool>>,
    polls: Rc<Cell<u32>>,
) -> std::net::SocketAddr {
    let port = postgres.address.port();
    let own = Rc::new(RefCell::new(String::new()));
    let api = Rc::clone(&own);
    let address = rest(move |path| {
        if path == "/cluster" {
            let api = api.borrow();
            return http(
                200,
                &format!(
                    r#"{{"members": [{{"name": "n1", "role": "leader", "state": "running", "host": "127.0.0.1",
                    "port": {port}, "api_url": "http://{api}/patroni", "timeline": 5}}], "scope": "s"}}"#
                ),
            );
        }
        polls.set(polls.get() + 1);
        let status = if *leads.borrow() { 200 } else { 503 };
        http(
            status,
            r#"{"state": "running", "role": "master", "timeline": 5, "xlog": {"location": 1},
            "database_system_identifier": "7710409261021857494", "patroni": {"version": "3.0.2", "scope": "s"}}"#,
        )
    })
    .await;
    *own.borrow_mut() = address.to_string();
    address
}

/// Lets the other tasks run until this holds.
async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it never came true");
}

/// The next topology that fits.
async fn told(worker: &mut Worker, fits: impl Fn(&Topology) -> bool) -> Arc<Topology> {
    loop {
        if let Order::Adopt(topology) = worker.orders.recv().await.unwrap()
            && fits(&topology)
        {
            return topology;
        }
    }
}

fn is_led(topology: &Topology) -> bool {
    matches!(topology.leader, Leadership::Led { degraded: None, .. })
}

fn is_held(topology: &Topology) -> bool {
    matches!(topology.leader, Leadership::Leaderless { .. })
}

#[test]
fn one_plain_server_is_told_at_once() {
    on_control_thread(async {
        let (_control, mut worker) = control(plain(), None);
        let topology = told(&mut worker, |_| true).await;
        let Leadership::Led { epoch: None, address, .. } = &topology.leader else { panic!("{topology:?}") };
        assert_eq!(address.to_string(), "127.0.0.1:5432");
    });
}

#[test]
fn a_leader_is_followed_lost_and_followed_again() {
    on_control_thread(async {
        let postgres = Postgres::start(true).await;
        let leads = Rc::new(RefCell::new(true));
        let seed = cluster(&postgres, Rc::clone(&leads)).await;
        let (control, mut worker) = control(patroni(seed), None);
        told(&mut worker, |t| t.members.iter().any(|m| m.monitor == Monitor::Standby) || is_held(t)).await;
        postgres.in_hot_standby.set(false);
        let promoted = Instant::now();
        let topology = told(&mut worker, is_led).await;
        assert!(promoted.elapsed() < Duration::from_secs(5));
        let Leadership::Led { member, epoch: Some(epoch), epoch_number: 1, .. } = &topology.leader else {
            panic!("{topology:?}")
        };
        assert_eq!((member.as_str(), epoch.timeline), ("n1", 5));
        assert_eq!(epoch.system_identifier, 7_710_409_261_021_857_494);
        *leads.borrow_mut() = false;
        told(&mut worker, is_held).await;
        *leads.borrow_mut() = true;
        let topology = told(&mut worker, is_led).await;
        let Leadership::Led { epoch_number: 1, .. } = topology.leader else { panic!("{topology:?}") };
        assert!(control.topology(now()).members[0].is_leader);
        assert_eq!(postgres.logins.get(), 1, "one monitor connection all the time");
    });
}

#[test]
fn a_connection_that_ends_is_looked_at_again_at_once() {
    on_control_thread(async {
        let postgres = Postgres::start(false).await;
        let seed = cluster(&postgres, Rc::new(RefCell::new(true))).await;
        let (control, mut worker) = control(patroni(seed), None);
        told(&mut worker, is_led).await;
        // The connection alone: the leader is kept.
        postgres.drop_connections();
        until(|| postgres.logins.get() >= 2).await;
        assert!(!is_held(&control.topology(now())));
        // The server: it is lost at once.
        *postgres.mood.borrow_mut() = Mood::Refusing(SqlState::CANNOT_CONNECT_NOW);
        postgres.drop_connections();
        let topology = told(&mut worker, is_held).await;
        let Leadership::Leaderless { why } = &topology.leader else { panic!("{topology:?}") };
        assert!(why.contains("refuses connections"), "{why}");
        *postgres.mood.borrow_mut() = Mood::Friendly;
        told(&mut worker, is_led).await;
    });
}

#[test]
fn a_frozen_server_is_lost_within_the_deadlines() {
    on_control_thread(async {
        let postgres = Postgres::start(false).await;
        let seed = cluster(&postgres, Rc::new(RefCell::new(true))).await;
        let (_control, mut worker) = control(patroni(seed), None);
        told(&mut worker, is_led).await;
        *postgres.mood.borrow_mut() = Mood::Frozen;
        let began = Instant::now();
        postgres.drop_connections();
        told(&mut worker, is_held).await;
        assert!(began.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn a_server_that_does_not_want_the_monitor_is_alive() {
    on_control_thread(async {
        for code in [SqlState::TOO_MANY_CONNECTIONS, SqlState::INVALID_PASSWORD] {
            let postgres = Postgres::start(false).await;
            *postgres.mood.borrow_mut() = Mood::Refusing(code);
            let seed = cluster(&postgres, Rc::new(RefCell::new(true))).await;
            let (control, mut worker) = control(patroni(seed), None);
            told(&mut worker, is_led).await;
            let members = control.topology(now()).members;
            let Monitor::RoleUnknown(why) = &members[0].monitor else { panic!("{members:?}") };
            assert!(why.contains(code.as_str()), "{why}");
        }
    });
}

#[test]
fn evidence_is_taken_as_a_hint_only() {
    on_control_thread(async {
        let postgres = Postgres::start(false).await;
        let polls = Rc::new(Cell::new(0));
        let seed = counted_cluster(&postgres, Rc::new(RefCell::new(true)), Rc::clone(&polls)).await;
        let (control, mut worker) = control(patroni(seed), None);
        let topology = told(&mut worker, is_led).await;
        let Leadership::Led { address, .. } = &topology.leader else { panic!("{topology:?}") };
        for _ in 0..5_000 {
            control.evidence(SessionEvidence::Fatal { address: address.clone(), code: *b"57P01" });
        }
        let before = polls.get();
        until(|| polls.get() >= before + 2).await;
        assert!(is_led(&control.topology(now())));
    });
}

// covers: patroni_urls patroni_scope max_lag read_fallback read_policy poll_interval
#[test]
fn discovery_is_told_what_the_configuration_says() {
    let config = config(
        "[patroni]\nurls = [\"http://127.0.0.1:1\", \"http://127.0.0.1:2\"]\nscope = \"x\"\nmax_lag = \"5kB\"\n\
         read_fallback = \"wait\"\nread_policy = \"nearest\"\npoll_interval = \"7s\"",
    );
    let weir_config::Upstream::Patroni(patroni) = &config.upstream else { panic!("no cluster") };
    let told = settings(&config, patroni);
    let seeds: Vec<String> = told.seeds.iter().map(ToString::to_string).collect();
    assert_eq!(seeds, ["http://127.0.0.1:1", "http://127.0.0.1:2"]);
    assert_eq!((told.scope.as_deref(), told.max_lag_bytes), (Some("x"), 5 << 10));
    assert_eq!((told.fallback, told.poll_interval), (ReadFallback::Wait, Duration::from_secs(7)));
    assert_eq!(told.policy, ReadPolicy::Nearest);
}

// covers: poll_timeout
#[test]
fn who_does_not_answer_in_time_is_asked_again() {
    on_control_thread(async {
        let asked: Rc<RefCell<Vec<Instant>>> = Rc::default();
        let silent = silent_rest(Rc::clone(&asked)).await;
        let hasty = format!("[patroni]\nurls = [\"http://{silent}\"]\npoll_timeout = \"50ms\"");
        let (_control, _worker) = control(config(&hasty), None);
        until(|| asked.borrow().len() >= 6).await;
        let asked = asked.borrow();
        let shortest = asked.windows(2).map(|pair| pair[1] - pair[0]).min();
        // With what holds by default nobody would be asked twice within a second.
        assert!(shortest.unwrap() < Duration::from_millis(900), "{asked:?}");
    });
}

// covers: monitor_user monitor_password_file monitor_database
#[test]
fn the_monitor_logs_in_as_configured() {
    on_control_thread(async {
        let postgres = Postgres::start(false).await;
        *postgres.mood.borrow_mut() = Mood::Asking(PASSWORD);
        let seed = cluster(&postgres, Rc::new(RefCell::new(true))).await;
        let config = config(&format!(
            "[patroni]\nurls = [\"http://{seed}\"]\nmonitor_user = \"watcher\"\nmonitor_database = \"watched\"\n\
             monitor_password_file = \"monitor.password\""
        ));
        let (control, mut worker) = control(config, None);
        told(&mut worker, is_led).await;
        assert!(matches!(control.topology(now()).members[0].monitor, Monitor::Primary { .. }));
        let startup = postgres.startup.borrow();
        for pair in [&b"user\0watcher\0"[..], b"database\0watched\0"] {
            assert!(startup.windows(pair.len()).any(|part| part == pair), "{startup:?}");
        }
    });
}
