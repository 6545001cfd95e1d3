//! How clients have to show who they are: methods, HBA rules, certificates, system users.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_auth::{HbaRules, IdentMaps, StoredSecret, Surroundings, md5};
use weir_config::{AuthMethod, Config};
use weir_worker::{Accepted, ConnId, Encrypted, Role, UnixPeer};

use crate::settings::PASSWORD;
use crate::world::{Who, World, echo};

fn by_tcp(address: &str) -> Accepted {
    let peer: SocketAddr = format!("{address}:4711").parse().unwrap();
    Accepted { role: Role::Write, peer: Some(peer), local: None, unix: None }
}

fn by_unix_socket(uid: u32, is_own: bool) -> Accepted {
    let unix = UnixPeer { uid, pid: 7, port: 6432, is_own };
    Accepted { role: Role::Write, peer: None, local: None, unix: Some(unix) }
}

fn log_in(world: &mut World, from: Accepted, user: &str, database: &str, password: &str) -> Who {
    let who = world.connect_from(from);
    world.shell.speakers[who].start(&[("user", user), ("database", database)], password);
    world.run();
    who
}

/// A world with this method, in which `old` has an md5 secret.
fn world(method: AuthMethod, change: impl FnOnce(&mut Config)) -> World {
    World::configured(|config| {
        config.auth.method = method;
        config.auth.file = Some("userlist.txt".into());
        let hash = StoredSecret::parse(&md5::stored(b"old", PASSWORD.as_bytes())).unwrap();
        config.auth.users.insert("old".to_owned(), hash);
        config.auth.users.insert("typed".to_owned(), StoredSecret::Plain(PASSWORD.into()));
        change(config);
    })
}

/// No other files.
struct Nothing;

impl Surroundings for Nothing {
    fn read(&self, _file: &Path) -> Result<String, Option<String>> {
        Err(None)
    }

    fn list(&self, _folder: &Path) -> Result<Vec<PathBuf>, String> {
        Err(String::new())
    }

    fn networks(&self) -> Result<Vec<(IpAddr, IpAddr)>, String> {
        Err(String::new())
    }

    fn tells_groups(&self) -> bool {
        true
    }
}

fn rules(config: &mut Config, hba: &str, ident: &str) {
    config.auth.ident = IdentMaps::parse(Path::new("ident.conf"), ident, &Nothing).unwrap();
    config.auth.hba = HbaRules::parse(Path::new("hba.conf"), hba, &config.auth.ident, &Nothing).unwrap();
    config.auth.system_users.insert(1000, "ann".to_owned());
}

#[track_caller]
fn is_in(world: &mut World, who: Who, asked: &[&str]) {
    let heard = world.heard(who);
    assert_eq!(heard, ["ready I"], "{}", world.error(who));
    let steps: Vec<_> = world.shell.speakers[who].asked.iter().filter(|step| !step.is_empty()).collect();
    assert_eq!(steps, asked.iter().collect::<Vec<_>>());
}

#[track_caller]
fn is_out(world: &mut World, who: Who, code: &str, message: &str) {
    assert_eq!(world.heard(who), [format!("FATAL {code}")]);
    assert!(world.error(who).starts_with(message), "{}", world.error(who));
    assert!(!world.is_open(who));
}

/// Whatever spelling PostgreSQL would take for a true value.
#[test]
fn replication_is_judged_by_its_own_rules() {
    for (value, gets_in) in
        [("t", false), ("tru", false), ("y", false), ("on", false), ("1", false), ("off", true)]
    {
        let mut world = world(AuthMethod::Hba, |config| {
            rules(config, "host replication all all reject\nhost all all all scram-sha-256\n", "");
        });
        let who = world.connect_from(by_tcp("10.0.0.1"));
        let parameters = [("user", "app"), ("database", "mrg"), ("replication", value)];
        world.shell.speakers[who].start(&parameters, PASSWORD);
        world.run();
        if gets_in {
            is_in(&mut world, who, &["scram"]);
        } else {
            is_out(&mut world, who, "28000", "login rejected");
        }
    }
}

// covers: auth_type
#[test]
fn each_method_asks_in_its_own_way() {
    for (method, user, asked) in [
        (AuthMethod::ScramSha256, "typed", &["scram"][..]),
        (AuthMethod::Md5, "typed", &["md5"]),
        (AuthMethod::Md5, "old", &["md5"]),
        (AuthMethod::Md5, "app", &["scram"]),
        (AuthMethod::Plain, "typed", &["plain"]),
        (AuthMethod::Plain, "old", &["plain"]),
        (AuthMethod::Plain, "app", &["plain"]),
        (AuthMethod::Trust, "typed", &[]),
    ] {
        let mut world = world(method, |_| {});
        let who = log_in(&mut world, by_tcp("10.0.0.1"), user, "pgbouncer", PASSWORD);
        // The proof is good, but only some may use the console: it needs no PostgreSQL that knows these users.
        assert_eq!(world.heard(who), ["FATAL 28000"], "{method:?} {user}");
        let steps: Vec<_> = world.shell.speakers[who].asked.iter().filter(|step| !step.is_empty()).collect();
        assert_eq!(steps, asked.iter().collect::<Vec<_>>(), "{method:?} {user}");
        if method != AuthMethod::Trust {
            let who = log_in(&mut world, by_tcp("10.0.0.1"), user, "mrg", "guess");
            is_out(&mut world, who, "28P01", "password authentication failed for user");
        }
    }
}

// covers: scram_iterations
#[test]
fn verifiers_that_are_made_for_a_password_have_the_configured_iterations() {
    for iterations in [4096, 5000] {
        let mut world = world(AuthMethod::ScramSha256, |config| config.auth.scram_iterations = iterations);
        for (user, expected) in [("typed", iterations), ("app", 16)] {
            let who = log_in(&mut world, by_tcp("10.0.0.1"), user, "pgbouncer", PASSWORD);
            assert_eq!(world.heard(who), ["FATAL 28000"], "the proof is good");
            let challenge = &world.shell.speakers[who].challenge;
            assert!(challenge.ends_with(&format!(",i={expected}")), "{user}: {challenge}");
        }
    }
}

#[test]
fn trust_wants_to_know_the_user() {
    let mut world = world(AuthMethod::Trust, |config| config.auth.user = None);
    let who = log_in(&mut world, by_tcp("10.0.0.1"), "nobody", "mrg", "");
    is_out(&mut world, who, "28000", "\"trust\" authentication failed");
}

#[test]
fn a_user_without_a_secret_is_a_user() {
    for (method, user, code) in [
        (AuthMethod::Trust, "bare", None),
        (AuthMethod::Trust, "nobody", Some("28000")),
        (AuthMethod::ScramSha256, "bare", Some("28P01")),
        (AuthMethod::Md5, "bare", Some("28P01")),
        (AuthMethod::Plain, "bare", Some("28P01")),
    ] {
        let mut world = world(method, |_| {});
        for member in &mut world.members {
            member.shadow.insert("bare".to_owned(), "none".to_owned());
            member.users.insert("bare".to_owned(), None);
        }
        let who = log_in(&mut world, by_tcp("10.0.0.1"), user, "mrg", "");
        match code {
            None => is_in(&mut world, who, &[]),
            Some(code) => assert_eq!(world.heard(who), [format!("FATAL {code}")], "{method:?}"),
        }
    }
}

#[test]
fn any_needs_a_user_of_the_database() {
    let mut world = world(AuthMethod::Any, |config| {
        let own = weir_config::Database {
            user: Some("app".to_owned()),
            password: Some(PASSWORD.into()),
            dbname: Some("mrg".to_owned()),
            ..weir_config::Database::default()
        };
        config.databases.insert("shared".to_owned(), own);
    });
    let who = log_in(&mut world, by_tcp("10.0.0.1"), "whoever", "shared", "");
    is_in(&mut world, who, &[]);
    assert_eq!(world.ask(who, "select 1"), echo("select 1"));
    let who = log_in(&mut world, by_tcp("10.0.0.1"), "whoever", "mrg", "");
    is_out(&mut world, who, "08P01", "bouncer config error");
    let who = log_in(&mut world, by_tcp("10.0.0.1"), "whoever", "pgbouncer", "");
    is_in(&mut world, who, &[]);
}

#[test]
fn rules_decide_by_address_database_and_user() {
    let mut world = world(AuthMethod::Hba, |config| {
        rules(config, "host all typed 10.1.0.0/16 md5\nhost mrg app 10.0.0.0/8 scram-sha-256\n", "");
    });
    let who = log_in(&mut world, by_tcp("10.1.2.3"), "app", "mrg", PASSWORD);
    is_in(&mut world, who, &["scram"]);
    let who = log_in(&mut world, by_tcp("10.1.2.3"), "typed", "mrg", "guess");
    is_out(&mut world, who, "28P01", "password");
    for (from, user, database) in
        [("10.2.0.1", "typed", "mrg"), ("192.168.0.1", "app", "mrg"), ("10.0.0.1", "app", "other")]
    {
        let who = log_in(&mut world, by_tcp(from), user, database, PASSWORD);
        is_out(&mut world, who, "28000", "login rejected");
    }
}

#[test]
fn the_system_user_counts_on_a_unix_socket() {
    let mut world = world(AuthMethod::Hba, |config| {
        rules(config, "local mrg app peer map=ops\nlocal all all peer\n", "ops ann app\n");
        // Nobody reveals a key that opens the server.
        config.auth.users.insert("app".to_owned(), StoredSecret::Plain(PASSWORD.into()));
    });
    let who = log_in(&mut world, by_unix_socket(1000, false), "app", "mrg", "");
    is_in(&mut world, who, &[]);
    assert_eq!(world.ask(who, "select 1"), echo("select 1"));
    for (uid, user) in [(1001, "app"), (1000, "typed")] {
        let who = log_in(&mut world, by_unix_socket(uid, false), user, "mrg", "");
        is_out(&mut world, who, "28000", "unix socket login rejected");
    }
}

#[test]
fn certificates_let_their_names_in() {
    let mut world = world(AuthMethod::Hba, |config| {
        let hba = "hostssl all app 10.0.0.0/8 cert\nhostssl all typed 10.0.0.0/8 cert map=mail\n";
        rules(config, hba, "mail /^(.*)@example.com$ \\1\n");
        config.client_tls.mode = weir_config::TlsMode::Allow;
    });
    let mut enter = |user: &str, name: Option<&str>| {
        let who = world.connect_from(by_tcp("10.0.0.1"));
        let ConnId::Client(id) = world.shell.speakers[who].conn else { panic!("a client") };
        let common_name = name.map(str::to_owned);
        let shown = Encrypted { common_name, names_protocol: true, ..Encrypted::default() };
        world.turn(|worker, now, effects| worker.tls_established(now, id, shown, effects));
        world.shell.speakers[who].start(&[("user", user), ("database", "pgbouncer")], "");
        world.run();
        assert!(world.shell.speakers[who].asked.is_empty());
        world.error(who).split('|').next().unwrap_or_default().to_owned()
    };
    // The console's refusal comes after the proof.
    let in_it_is = "not allowed";
    assert!(enter("app", Some("app")).starts_with(in_it_is));
    assert!(enter("typed", Some("typed@example.com")).starts_with(in_it_is));
    assert_eq!(enter("typed", Some("app@example.com")), "TLS certificate name mismatch");
    assert_eq!(enter("app", Some("typed")), "TLS certificate name mismatch");
    assert_eq!(enter("app", None), "TLS client certificate required");
}

#[test]
fn whoever_runs_weir_administrates_it() {
    let mut world = world(AuthMethod::ScramSha256, |_| {});
    let who = log_in(&mut world, by_unix_socket(33, true), "pgbouncer", "pgbouncer", "");
    is_in(&mut world, who, &[]);
    for (from, user) in [
        (by_unix_socket(33, false), "pgbouncer"),
        (by_tcp("127.0.0.1"), "pgbouncer"),
        (by_unix_socket(33, true), "nobody"),
    ] {
        let who = log_in(&mut world, from, user, "pgbouncer", "guess");
        is_out(&mut world, who, "28P01", "password");
    }
}

#[test]
fn tls_is_asked_of_tcp_clients_only() {
    let mut world =
        world(AuthMethod::ScramSha256, |config| config.client_tls.mode = weir_config::TlsMode::Require);
    let who = log_in(&mut world, by_unix_socket(33, false), "app", "mrg", PASSWORD);
    is_in(&mut world, who, &["scram"]);
    let who = log_in(&mut world, by_tcp("127.0.0.1"), "app", "mrg", PASSWORD);
    is_out(&mut world, who, "28000", "SSL required");
}

/// The world of a rule about groups; `app` belongs to these.
fn grouped(hba: &str, ident: &str, groups: &[&str], change: impl FnOnce(&mut Config)) -> World {
    let mut world = world(AuthMethod::Hba, |config| {
        rules(config, hba, ident);
        change(config);
    });
    set_groups(&mut world, groups);
    world
}

fn set_groups(world: &mut World, groups: &[&str]) {
    for member in &mut world.members {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        member.groups.insert("app".to_owned(), groups);
    }
}

fn questions(world: &mut World) -> usize {
    world.ran().iter().filter(|sql| sql.contains("pg_auth_members")).count()
}

#[test]
fn postgresql_says_who_belongs_to_a_group() {
    let rule = "host all +staff all scram-sha-256\n";
    let mut world = grouped(rule, "", &["staff", "others"], |_| {});
    let who = log_in(&mut world, by_tcp("10.0.0.1"), "app", "mrg", PASSWORD);
    is_in(&mut world, who, &["scram"]);
    let who = log_in(&mut world, by_tcp("10.0.0.1"), "app", "mrg", PASSWORD);
    is_in(&mut world, who, &["scram"]);
    assert_eq!(questions(&mut world), 1, "the answer is good for a moment");
    let who = log_in(&mut world, by_tcp("10.0.0.1"), "typed", "mrg", PASSWORD);
    is_out(&mut world, who, "28000", "login rejected");
    // Whoever is taken out of the group is out in time, too.
    set_groups(&mut world, &["others"]);
    world.pass(Duration::from_millis(1100));
    let who = log_in(&mut world, by_tcp("10.0.0.1"), "app", "mrg", PASSWORD);
    is_out(&mut world, who, "28000", "login rejected");
}

#[test]
fn a_role_called_like_the_database_is_enough_for_samerole() {
    for (groups, gets_in) in [(&["mrg"][..], true), (&["other"], false)] {
        let mut world = grouped("host samerole all all scram-sha-256\n", "", groups, |_| {});
        let who = log_in(&mut world, by_tcp("10.0.0.1"), "app", "mrg", PASSWORD);
        if gets_in {
            is_in(&mut world, who, &["scram"]);
        } else {
            is_out(&mut world, who, "28000", "login rejected");
        }
    }
}

#[test]
fn a_group_that_cannot_be_asked_for_lets_nobody_in() {
    let rules = "host all +banned all reject\nhost all all all trust\n";
    // The console's users are asked about where auth_dbname says, and nowhere else.
    for (place, code) in [(None, "login rejected"), (Some("mrg"), "not allowed")] {
        let mut world = grouped(rules, "", &[], |config| config.auth.database = place.map(str::to_owned));
        let who = log_in(&mut world, by_tcp("10.0.0.1"), "app", "pgbouncer", PASSWORD);
        is_out(&mut world, who, "28000", code);
    }
    // PostgreSQL cannot say.
    let mut world = grouped(rules, "", &[], |_| {});
    world.member("n1").refusal = Some(weir_protocol::sqlstate::SqlState::INVALID_AUTHORIZATION);
    let who = log_in(&mut world, by_tcp("10.0.0.1"), "app", "mrg", PASSWORD);
    is_out(&mut world, who, "08006", "the user could not be looked up");
}

#[test]
fn a_map_may_let_a_group_in() {
    let hba = "local all all peer map=ops\n";
    for (groups, gets_in) in [(&["staff"][..], true), (&[], false)] {
        let mut world = grouped(hba, "ops ann +staff\n", groups, |config| {
            config.auth.users.insert("app".to_owned(), StoredSecret::Plain(PASSWORD.into()));
        });
        let who = log_in(&mut world, by_unix_socket(1000, false), "app", "mrg", "");
        if gets_in {
            is_in(&mut world, who, &[]);
        } else {
            is_out(&mut world, who, "28000", "unix socket login rejected");
        }
    }
}

#[test]
fn a_rule_may_want_a_certificate_beside_the_password() {
    let mut world = world(AuthMethod::Hba, |config| {
        let hba = "hostssl all app all scram-sha-256 clientcert=verify-full\n\
                   hostssl all typed all scram-sha-256 clientcert=verify-ca\n";
        rules(config, hba, "");
        config.client_tls.mode = weir_config::TlsMode::Allow;
    });
    for (user, name, refusal) in [
        ("app", Some("app"), None),
        ("app", Some("typed"), Some("TLS certificate name mismatch")),
        ("app", None, Some("TLS client certificate required")),
        ("typed", Some("app"), None),
        ("typed", None, Some("TLS client certificate required")),
    ] {
        let who = world.connect_from(by_tcp("10.0.0.1"));
        let ConnId::Client(id) = world.shell.speakers[who].conn else { panic!("a client") };
        let common_name = name.map(str::to_owned);
        let shown = Encrypted { common_name, names_protocol: true, ..Encrypted::default() };
        world.turn(|worker, now, effects| worker.tls_established(now, id, shown, effects));
        world.shell.speakers[who].start(&[("user", user), ("database", "pgbouncer")], PASSWORD);
        world.run();
        let error = world.error(who).split('|').next().unwrap_or_default().to_owned();
        // The console's refusal comes after the proof.
        assert!(error.starts_with(refusal.unwrap_or("not allowed")), "{user} {name:?}: {error}");
        let asked = world.shell.speakers[who].asked.contains(&"scram");
        assert_eq!(asked, refusal.is_none(), "{user} {name:?}");
    }
}
