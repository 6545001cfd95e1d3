//! The tables of pools, and that rows which mean the same to a program that reads PgBouncer's tables are one row.

use std::collections::BTreeSet;

use super::*;

#[test]
fn pools_of_both_roles_are_summed() {
    let mut scene = Scene::new();
    scene.snapshot.pools = busy_pools();
    scene.check(
        Table::Pools,
        "\
database:s user:s cl_active:i cl_waiting:i cl_active_cancel_req:i cl_waiting_cancel_req:i sv_active:i \
sv_active_cancel:i sv_being_canceled:i sv_idle:i sv_used:i sv_tested:i sv_login:i maxwait:i maxwait_us:i pool_mode:s \
load_balance_hosts:s
mrg|app|13|22|31|0|44|66|55|77|0|99|88|2|345|transaction|~
mrg|zoe|0|0|0|0|0|0|0|0|0|0|0|0|0|transaction|~
other|app|0|0|0|0|0|0|0|0|0|0|0|0|0|transaction|~
SHOW",
    );
}

#[test]
fn pools_by_role() {
    let mut scene = Scene::new();
    scene.snapshot.pools = busy_pools();
    scene.check(
        Table::PoolsByRole,
        "\
database:s user:s cl_active:i cl_waiting:i cl_active_cancel_req:i cl_waiting_cancel_req:i sv_active:i \
sv_active_cancel:i sv_being_canceled:i sv_idle:i sv_used:i sv_tested:i sv_login:i maxwait:i maxwait_us:i pool_mode:s \
load_balance_hosts:s role:s held:s paused:s
mrg|app|3|2|1|0|4|6|5|7|0|9|8|2|345|transaction|~|write|no|no
mrg|app|10|20|30|0|40|60|50|70|0|90|80|1|0|transaction|~|read|yes|yes
mrg|zoe|0|0|0|0|0|0|0|0|0|0|0|0|0|transaction|~|write|no|no
other|app|0|0|0|0|0|0|0|0|0|0|0|0|0|transaction|~|read|no|no
SHOW",
    );
}

/// No two rows have the labels that exporters of PgBouncer's tables give to a row.
#[test]
fn exporters_see_each_label_once() {
    let mut scene = busy_minute();
    scene.snapshot.pools.extend(busy_pools());
    scene.snapshot.pools.extend(busy_pools()); // as another worker would have them
    for (table, labels) in
        [(Table::Pools, 2), (Table::Stats, 1), (Table::Databases, 1), (Table::Users, 1), (Table::Lists, 1)]
    {
        let shown = readable(&show(table, &scene.view()));
        let rows: Vec<Vec<&str>> =
            shown.lines().skip(1).map(|row| row.split('|').take(labels).collect()).collect();
        let different: BTreeSet<_> = rows.iter().collect();
        assert_eq!(different.len(), rows.len(), "{shown}");
    }
}

/// A database with both pools of one user and one of another, and a second database; every figure is different.
fn busy_pools() -> Vec<PoolRow> {
    let write = PoolRow {
        cl_active: 3,
        cl_waiting: 2,
        cl_active_cancel_req: 1,
        sv_active: 4,
        sv_being_canceled: 5,
        sv_active_cancel: 6,
        sv_idle: 7,
        sv_tested: 9,
        sv_login: 8,
        max_wait: Duration::from_micros(2_000_345),
        ..pool("app", "write")
    };
    let read = PoolRow {
        cl_active: 10,
        cl_waiting: 20,
        cl_active_cancel_req: 30,
        sv_active: 40,
        sv_being_canceled: 50,
        sv_active_cancel: 60,
        sv_idle: 70,
        sv_tested: 90,
        sv_login: 80,
        max_wait: Duration::from_secs(1),
        held: true,
        paused: true,
        ..pool("app", "read")
    };
    let other = PoolRow { database: "other".to_owned(), ..pool("app", "read") };
    vec![other, pool("zoe", "write"), read, write]
}
