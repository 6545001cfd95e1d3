//! Console commands, reloads and ways to end, as a worker hears of them.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;
use weir_admin::snapshot::PoolRow;
use weir_pool::ClientId;
use weir_worker::{ConsoleRequest, Order};

use super::fakes::{Worker, config, control, plain};
use super::on_control_thread;
use crate::control::state::Control;
use crate::control::{console, reload, shutdown};

fn say(control: &Rc<Control>, sql: &str, admin: bool) {
    let request = ConsoleRequest { client: ClientId(3), sql: sql.as_bytes().to_vec(), admin };
    console::execute(control, 0, request);
}

/// The next order that is no topology.
async fn next(worker: &mut Worker) -> Order {
    loop {
        let order = worker.orders.recv().await.unwrap();
        if !matches!(order, Order::Adopt(_)) {
            return order;
        }
    }
}

/// The answer's bytes as readable text.
async fn answer(worker: &mut Worker) -> String {
    loop {
        if let Order::ConsoleReply(ClientId(3), bytes) = next(worker).await {
            assert_eq!(bytes.last_chunk(), Some(b"\0\0\0\x05I"), "ReadyForQuery is the end");
            return String::from_utf8_lossy(&bytes).into_owned();
        }
    }
}

#[test]
fn tables_and_errors_are_answered() {
    on_control_thread(async {
        let (control, mut worker) = control(plain(), None);
        for table in ["MEMBERS", "POOLS", "CONFIG", "FAILOVERS", "STATS", "DATABASES", "VERSION"] {
            say(&control, &format!("show {table};"), false);
            assert!(answer(&mut worker).await.contains("SHOW"), "{table}");
        }
        say(&control, "", false);
        assert!(answer(&mut worker).await.starts_with('I'));
        say(&control, "nonsense", true);
        assert!(answer(&mut worker).await.contains("42601"));
        say(&control, "RELOAD", false);
        assert!(answer(&mut worker).await.contains("42501"), "stats users may only look");
        say(&control, "ACCEPT LEADER n1", true);
        assert!(answer(&mut worker).await.contains("0A000"), "no cluster is followed");
        worker.snapshot.borrow_mut().pools =
            vec![PoolRow { database: "mrg".to_owned(), ..PoolRow::default() }];
        say(&control, "RECONNECT mrg", true);
        assert!(matches!(next(&mut worker).await, Order::Reconnect(Some(name)) if name == "mrg"));
        assert!(answer(&mut worker).await.contains("RECONNECT"));
    });
}

#[test]
fn nothing_is_done_to_an_unknown_database() {
    on_control_thread(async {
        let text = "[upstream]\nurl = \"postgres://127.0.0.1:5432\"\n[databases.listed]\npool_size = 1";
        let (control, mut worker) = control(config(text), None);
        for verb in ["PAUSE", "RESUME", "RECONNECT"] {
            say(&control, &format!("{verb} msg"), true);
            let Order::ConsoleReply(_, bytes) = next(&mut worker).await else { panic!("{verb} is an order") };
            let told = String::from_utf8_lossy(&bytes).into_owned();
            assert!(told.contains("3D000") && told.contains("no such database: msg"), "{told}");
        }
        assert!(control.paused.borrow().databases.is_empty());
        say(&control, "PAUSE listed", true);
        assert!(matches!(next(&mut worker).await, Order::Pause(Some(name)) if name == "listed"));
        assert!(answer(&mut worker).await.contains("PAUSE"));
    });
}

#[test]
fn pause_answers_when_all_is_quiet() {
    on_control_thread(async {
        let (control, mut worker) = control(plain(), None);
        let busy = PoolRow { database: "mrg".to_owned(), sv_active: 1, ..PoolRow::default() };
        worker.snapshot.borrow_mut().pools = vec![busy];
        say(&control, "PAUSE mrg", true);
        assert!(matches!(next(&mut worker).await, Order::Pause(Some(name)) if name == "mrg"));
        let early = timeout(Duration::from_millis(200), next(&mut worker)).await;
        assert!(early.is_err(), "one transaction is still open");
        worker.snapshot.borrow_mut().pools[0].sv_active = 0;
        assert!(answer(&mut worker).await.contains("PAUSE"));
        say(&control, "PAUSE mrg", true);
        assert!(answer(&mut worker).await.contains("already paused"));
        say(&control, "RESUME mrg", true);
        assert!(matches!(next(&mut worker).await, Order::Resume(Some(_))));
        assert!(answer(&mut worker).await.contains("RESUME"));
        say(&control, "RESUME", true);
        assert!(answer(&mut worker).await.contains("not paused"));
    });
}

#[test]
fn resume_frees_a_pause_that_still_waits() {
    on_control_thread(async {
        let (control, mut worker) = control(plain(), None);
        worker.snapshot.borrow_mut().pools = vec![PoolRow { sv_active: 1, ..PoolRow::default() }];
        say(&control, "PAUSE", true);
        assert!(matches!(next(&mut worker).await, Order::Pause(None)));
        say(&control, "RESUME", true);
        assert!(matches!(next(&mut worker).await, Order::Resume(None)));
        assert!(answer(&mut worker).await.contains("RESUME"));
        assert!(answer(&mut worker).await.contains("RESUME came before"));
    });
}

#[test]
fn a_reload_is_all_or_nothing() {
    on_control_thread(async {
        let mut tries = 0;
        let read = move || {
            tries += 1;
            match tries {
                1 => Err("test.toml:1: something is wrong".to_owned()),
                _ => Ok(config("[upstream]\nurl = \"postgres://127.0.0.1:5432\"\n[pool]\nsize = 7")),
            }
        };
        let (control, mut worker) = control(plain(), Some(Box::new(read)));
        say(&control, "RELOAD", true);
        let told = answer(&mut worker).await;
        assert!(told.contains("F0000") && told.contains("something is wrong"), "{told}");
        assert_ne!(control.config().pool.size.get(), 7);
        say(&control, "RELOAD", true);
        assert!(matches!(next(&mut worker).await, Order::Configure(new) if new.pool.size.get() == 7));
        assert!(answer(&mut worker).await.contains("RELOAD"));
        assert_eq!(control.config().pool.size.get(), 7);
    });
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    on_control_thread(async {
        let (control, _worker) = control(plain(), None);
        assert!(reload::reload(&control).is_err());
    });
}

#[test]
fn a_drain_ends_with_the_last_client() {
    on_control_thread(async {
        let (control, mut worker) = control(plain(), None);
        control.drained(0);
        shutdown::drain(&control, "a test");
        assert!(matches!(next(&mut worker).await, Order::Resume(None)));
        assert!(matches!(next(&mut worker).await, Order::Drain));
        shutdown::drain(&control, "a test");
        assert!(timeout(Duration::from_millis(50), control.ended()).await.is_err(), "clients are left");
        control.drained(0);
        control.ended().await;
    });
}

#[test]
fn a_drain_ends_when_patience_does() {
    on_control_thread(async {
        let impatient =
            config("[upstream]\nurl = \"postgres://127.0.0.1:5432\"\n[limits]\nshutdown_timeout = \"1s\"");
        let (control, _worker) = control(impatient, None);
        say(&control, "SHUTDOWN WAIT_FOR_SERVERS", true);
        control.ended().await;
    });
}

#[test]
fn shutdown_does_not_wait() {
    on_control_thread(async {
        let (control, _worker) = control(plain(), None);
        say(&control, "SHUTDOWN", true);
        control.ended().await;
    });
}
