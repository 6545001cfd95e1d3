//! Console commands, reloads and ways to end, as a worker hears of them.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;
use weir_admin::snapshot::{Buffered, ClientRow, PoolRow, ServerRow};
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
        assert!(matches!(next(&mut worker).await, Order::Pause(Some(_))), "as PgBouncer has it");
        assert!(answer(&mut worker).await.contains("PAUSE"));
        say(&control, "RESUME mrg", true);
        assert!(matches!(next(&mut worker).await, Order::Resume(Some(_))));
        assert!(answer(&mut worker).await.contains("RESUME"));
        say(&control, "RESUME", true);
        assert!(matches!(next(&mut worker).await, Order::Resume(None)));
        assert!(answer(&mut worker).await.contains("pooler is not paused/suspended"));
        say(&control, "PAUSE", true);
        assert!(matches!(next(&mut worker).await, Order::Pause(None)));
        assert!(answer(&mut worker).await.contains("PAUSE"));
        for sql in ["PAUSE", "PAUSE mrg", "SUSPEND"] {
            say(&control, sql, true);
            assert!(answer(&mut worker).await.contains("already suspended/paused"), "{sql}");
        }
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

// covers: shutdown_timeout
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
fn the_ways_to_end_differ_in_what_they_wait_for() {
    on_control_thread(async {
        let (control, mut worker) = control(plain(), None);
        say(&control, "SHUTDOWN WAIT_FOR_CLIENTS", true);
        assert!(matches!(next(&mut worker).await, Order::WaitForClients));
        assert!(answer(&mut worker).await.contains("SHUTDOWN"));
        say(&control, "SHUTDOWN WAIT_FOR_SERVERS", true);
        assert!(answer(&mut worker).await.contains("already shutting down"));
        control.drained(0);
        control.ended().await;
    });
    on_control_thread(async {
        let (control, mut worker) = control(plain(), None);
        say(&control, "SHUTDOWN WAIT_FOR_SERVERS", true);
        assert!(matches!(next(&mut worker).await, Order::WaitForServers));
        assert!(answer(&mut worker).await.contains("SHUTDOWN"));
        say(&control, "RESUME", true);
        assert!(answer(&mut worker).await.contains("shutting down"));
    });
}

#[test]
fn sigterm_waits_for_clients_where_nothing_bounds_the_wait() {
    on_control_thread(async {
        let mut config = plain();
        config.limits.shutdown_timeout = None;
        let (control, mut worker) = control(config, None);
        shutdown::terminate(&control, "SIGTERM");
        assert!(matches!(next(&mut worker).await, Order::WaitForClients));
    });
    on_control_thread(async {
        let (control, mut worker) = control(plain(), None);
        shutdown::terminate(&control, "SIGTERM");
        assert!(matches!(next(&mut worker).await, Order::Resume(None)));
        assert!(matches!(next(&mut worker).await, Order::Drain));
    });
}

#[test]
fn kill_disable_and_their_kin_are_orders() {
    on_control_thread(async {
        let (control, mut worker) = control(plain(), None);
        worker.snapshot.borrow_mut().pools =
            vec![PoolRow { database: "mrg".to_owned(), ..PoolRow::default() }];
        say(&control, "DISABLE mrg", true);
        assert!(matches!(next(&mut worker).await, Order::Disable(name, true) if name == "mrg"));
        assert!(answer(&mut worker).await.contains("DISABLE"));
        say(&control, "ENABLE mrg", true);
        assert!(matches!(next(&mut worker).await, Order::Disable(_, false)));
        assert!(answer(&mut worker).await.contains("ENABLE"));
        say(&control, "KILL_CLIENT 8", true);
        assert!(answer(&mut worker).await.contains("client not found"));
        for (sql, said) in [
            ("KILL msg", "no such database: msg"),
            ("KILL pgbouncer", "cannot kill admin db: pgbouncer"),
            ("ENABLE pgbouncer", "cannot disable admin db: pgbouncer"),
            ("WAIT_CLOSE pgbouncer", "cannot wait in admin db: pgbouncer"),
            ("RESUME mrg", "database mrg is not paused"),
        ] {
            say(&control, sql, true);
            let told = loop {
                if let Order::ConsoleReply(_, bytes) = next(&mut worker).await {
                    break String::from_utf8_lossy(&bytes).into_owned();
                }
            };
            assert!(told.contains(said), "{sql}: {told}");
        }
        say(&control, "KILL mrg", true);
        assert!(matches!(next(&mut worker).await, Order::Pause(Some(_))));
        assert!(matches!(next(&mut worker).await, Order::Kill(Some(name)) if name == "mrg"));
        assert!(answer(&mut worker).await.contains("KILL"));
        assert!(control.paused.borrow().holds_for("mrg"));
    });
}

#[test]
fn wait_close_waits_for_replaced_connections() {
    on_control_thread(async {
        let (control, mut worker) = control(plain(), None);
        worker.snapshot.borrow_mut().servers = vec![server("mrg", true), server("other", false)];
        say(&control, "WAIT_CLOSE", true);
        assert!(timeout(Duration::from_millis(200), next(&mut worker)).await.is_err());
        worker.snapshot.borrow_mut().servers[0].close_needed = false;
        assert!(answer(&mut worker).await.contains("WAIT_CLOSE"));
    });
}

// covers: suspend_timeout
#[test]
fn suspend_answers_when_all_has_left_and_ends_with_its_console() {
    on_control_thread(async {
        let mut config = plain();
        config.limits.suspend_timeout = Duration::from_secs(7);
        let (control, mut worker) = control(config, None);
        let mut console = client(9, 3);
        worker.snapshot.borrow_mut().clients = vec![console.clone(), client(10, 4)];
        worker.snapshot.borrow_mut().clients[1].buffered.outgoing = 5;
        say(&control, "SUSPEND", true);
        assert!(matches!(next(&mut worker).await, Order::Suspend(patience) if patience.as_secs() == 7));
        assert!(timeout(Duration::from_millis(100), next(&mut worker)).await.is_err());
        worker.snapshot.borrow_mut().clients[1].buffered.outgoing = 0;
        assert!(answer(&mut worker).await.contains("SUSPEND"));
        assert!(control.paused.borrow().suspended);
        // Another client in the place of the console that did it.
        console.id = 11;
        worker.snapshot.borrow_mut().clients[0] = console;
        assert!(matches!(next(&mut worker).await, Order::Resume(None)));
        assert!(!control.paused.borrow().suspended);
    });
}

fn client(id: u64, slot: u32) -> ClientRow {
    ClientRow {
        id,
        user: String::new(),
        database: String::new(),
        role: "write",
        state: "active",
        peer: None,
        local: None,
        connected_for: Duration::ZERO,
        request_age: Duration::ZERO,
        wait: Duration::ZERO,
        link: None,
        tls: String::new(),
        application_name: String::new(),
        prepared_statements: 0,
        replication: "none",
        remote_pid: 0,
        unix_port: 0,
        slot,
        buffered: Buffered::default(),
    }
}

fn server(database: &str, close_needed: bool) -> ServerRow {
    ServerRow {
        id: 1,
        user: String::new(),
        database: database.to_owned(),
        role: "write",
        state: "active",
        host: String::new(),
        port: 5432,
        local: None,
        connected_for: Duration::ZERO,
        request_age: Duration::ZERO,
        close_needed,
        link: None,
        remote_pid: 0,
        tls: String::new(),
        application_name: String::new(),
        prepared_statements: 0,
        replication: "none",
        slot: 0,
        buffered: Buffered::default(),
    }
}

#[test]
fn shutdown_does_not_wait() {
    on_control_thread(async {
        let (control, _worker) = control(plain(), None);
        say(&control, "SHUTDOWN", true);
        control.ended().await;
    });
}
