//! Snapshots: the rows agree with each other and with what happens.

use weir_admin::snapshot::{PoolRow, Snapshot};
use weir_worker::{Order, Role};

use crate::settings::{PASSWORD, leaderless};
use crate::world::World;

/// Panics if the rows contradict each other.
pub(crate) fn agree(rows: &Snapshot) {
    for pool in &rows.pools {
        let servers = |states: &[&str]| {
            let own = rows.servers.iter().filter(|row| {
                row.database == pool.database && row.user == pool.user && row.role == pool.role
            });
            own.filter(|row| states.contains(&row.state)).count()
        };
        let clients = |states: &[&str]| {
            let own = rows.clients.iter().filter(|row| {
                row.database == pool.database && row.user == pool.user && row.role == pool.role
            });
            own.filter(|row| states.contains(&row.state)).count()
        };
        let PoolRow { sv_active, sv_idle, sv_tested, sv_login, sv_being_canceled, cl_active, .. } = *pool;
        assert_eq!(servers(&["idle"]), sv_idle as usize, "{pool:?}");
        assert_eq!(servers(&["new"]), sv_login as usize, "{pool:?}");
        assert_eq!(servers(&["being_canceled"]), sv_being_canceled as usize, "{pool:?}");
        assert_eq!(servers(&["active"]), sv_active as usize, "{pool:?}");
        assert_eq!(servers(&["tested"]), sv_tested as usize, "{pool:?}");
        assert_eq!(clients(&["active", "idle"]), cl_active as usize, "{pool:?}");
        assert!(clients(&["waiting"]) <= pool.cl_waiting as usize, "{pool:?}");
    }
    for server in &rows.servers {
        let Some(client) = server.link else { continue };
        let linked = rows.clients.iter().find(|row| row.id == client).expect("a link leads to a client");
        assert_eq!(linked.link, Some(server.id));
    }
    for client in &rows.clients {
        let Some(server) = client.link else { continue };
        let linked = rows.servers.iter().find(|row| row.id == server).expect("a link leads to a server");
        assert_eq!(linked.link, Some(client.id));
    }
}

#[test]
fn rows_follow_what_happens() {
    let mut world = World::new();
    let [open, busy, waits, _idle] = world.clients();
    world.query(open, "begin");
    world.query(busy, "sleep 1");
    world.query(waits, "select 1");
    world.connect(Role::Read);
    let rows = world.snapshot();
    agree(&rows);
    let [pool] = &rows.pools[..] else { panic!("one pool") };
    assert_eq!((pool.cl_active, pool.cl_waiting, pool.sv_active, pool.sv_idle), (3, 1, 2, 0));
    assert_eq!(rows.totals.login_clients, 1);
    assert_eq!(rows.totals.logins_accepted, 4);
    world.cancels_held = true;
    world.cancel(busy);
    world.wake("sleep 1");
    let rows = world.snapshot();
    agree(&rows);
    let pool = &rows.pools[0];
    assert_eq!((pool.sv_active, pool.sv_being_canceled, pool.sv_active_cancel), (1, 1, 1));
}

#[test]
fn a_lookup_is_no_client_in_any_table() {
    let mut world = World::configured(|config| config.limits.max_client_conn = 1);
    world.dials_held = true;
    let client = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    let rows = world.snapshot();
    agree(&rows);
    assert_eq!(rows.clients.len(), 1);
    assert_eq!(rows.totals.login_clients, 1);
    world.dials_held = false;
    world.run();
    assert_eq!(world.heard(client), ["ready I"]);
}

#[test]
fn holds_and_pauses_are_shown() {
    let mut world = World::new();
    let client = world.client();
    world.adopt(leaderless(&[]));
    world.query(client, "select 1");
    let rows = world.snapshot();
    agree(&rows);
    assert!(rows.pools[0].held);
    assert_eq!(rows.clients[0].state, "waiting");
    world.order(Order::Pause(None));
    assert!(world.snapshot().pools[0].paused);
}

#[test]
fn console_clients_are_shown_until_they_leave() {
    let mut world = World::new();
    let client = world.hello_with(Role::Write, &[("user", "admin"), ("database", "weir")], PASSWORD);
    world.run();
    world.query(client, "SHOW POOLS");
    assert_eq!(world.snapshot().clients[0].user, "admin");
    world.vanish(client);
    assert!(world.snapshot().clients.is_empty());
}

#[test]
fn what_a_session_has_done_is_counted_before_it_ends() {
    let mut world = World::configured(|config| config.pool.mode = weir_config::PoolMode::Session);
    let client = world.client();
    world.ask(client, "select 1");
    world.ask(client, "select 2");
    assert_eq!(world.snapshot().pools[0].stats.queries, 2);
    world.vanish(client);
    assert_eq!(world.snapshot().pools[0].stats.queries, 2, "and once only");
}

#[test]
fn links_lead_from_a_client_to_its_server_and_back() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "begin");
    let seen = world.snapshot();
    assert_eq!(seen.clients[0].link, Some(seen.servers[0].id));
    assert_eq!(seen.servers[0].link, Some(seen.clients[0].id));
    assert_ne!(seen.servers[0].id, seen.clients[0].id, "no two connections share a number");
}
