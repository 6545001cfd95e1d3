//! Every way to be asked x every kind of stored secret x every way to connect x every driver, with real PostgreSQL behind
//! weir: who gets in, as whom, and with which SQLSTATE everybody else does not.

mod expect;
mod people;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use weir_cluster::{Postgres, PostgresOptions, RunDir, ServerTls, schema};
use weir_e2e::logins::{DRIVERS, Driver, How, Try};
use weir_e2e::stack::{CERTIFIED, Front, Setup};

use expect::{Gate, check, expected};
use people::{Method, PASSWORD, Person, SHARED};

/// One PostgreSQL and the weirs in front of it.
struct World {
    people: Vec<Person>,
    gates: Vec<(Gate, Option<Method>, Front)>,
    sockets: RunDir,
    // Ends last.
    _postgres: Postgres,
}

impl World {
    async fn start() -> Result<Self> {
        let people = Person::all();
        let postgres = start_postgres(&people).await?;
        let sockets = RunDir::create("sockets")?;
        let rules = rules(&people, &own_name().await?);
        let setup = || gate(&people, &sockets).set("client_tls", "ca_file = \"authority.crt\"");
        let by_rules = setup()
            .client_tls("prefer")
            .set("auth", "type = \"hba\"")
            .set("auth", "hba_file = \"hba.conf\"")
            .set("auth", "ident_file = \"ident.conf\"")
            .file("hba.conf", &rules.hba)
            .file("ident.conf", &rules.ident)
            .start_beside(&postgres)
            .await?;
        let mut gates = vec![(Gate::Rules, None, by_rules)];
        for (kind, method, name, tls) in [
            (Gate::TlsOnly, Method::Scram, "scram-sha-256", "require"),
            (Gate::Method, Method::Md5, "md5", "prefer"),
            (Gate::Method, Method::Plain, "plain", "allow"),
            (Gate::Method, Method::Trust, "trust", "prefer"),
        ] {
            let front = setup().client_tls(tls).set("auth", &format!("type = \"{name}\""));
            gates.push((kind, Some(method), front.start_beside(&postgres).await?));
        }
        Ok(Self { people, gates, sockets, _postgres: postgres })
    }

    /// All cells of the table that this driver can try at these gates, right and wrong passwords.
    fn cells(&self, driver: &Driver, gates: &[&(Gate, Option<Method>, Front)]) -> Vec<(Cell<'_>, Try)> {
        let mut cells = Vec::new();
        for (gate, method, front) in gates {
            for person in self.people.iter().filter(|person| method.is_none_or(|only| only == person.method))
            {
                for how in How::ALL.into_iter().filter(|how| driver.can(*how)) {
                    let cell = |knows| Cell { gate: *gate, person, how, knows_password: knows };
                    let ways = [cell(true), cell(false)];
                    cells.extend(
                        ways.into_iter()
                            .filter(Cell::is_telling)
                            .map(|cell| (cell, self.attempt(cell, front))),
                    );
                }
            }
        }
        cells
    }

    fn attempt(&self, cell: Cell<'_>, front: &Front) -> Try {
        let Cell { person, how, knows_password, gate: _ } = cell;
        Try {
            how,
            folder: front.folder().to_owned(),
            sockets: self.sockets.path().to_owned(),
            port: front.weir.write().port(),
            user: person.name.clone(),
            password: if knows_password { PASSWORD } else { "guess" }.to_owned(),
            database: if person.kind.is_shared() { "shared" } else { schema::DATABASE }.to_owned(),
        }
    }
}

/// One login of the table.
#[derive(Debug, Clone, Copy)]
struct Cell<'a> {
    gate: Gate,
    person: &'a Person,
    how: How,
    knows_password: bool,
}

impl Cell<'_> {
    /// Whether its end says something that no other cell does.
    fn is_telling(&self) -> bool {
        let Self { gate: _, person, how, knows_password } = *self;
        // What a user is asked for whom nobody knows depends on what others have, and when a driver gives up on itself.
        let is_open = how == How::Bound && person.method != Method::Scram && !person.kind.is_known();
        // A guess fails the same way however it travels.
        let is_worth = matches!(how, How::Plain | How::Tls) && person.method.wants_password();
        !is_open && (knows_password || is_worth)
    }
}

/// The settings that all of them share.
fn gate(people: &[Person], sockets: &RunDir) -> Setup {
    let listed = people.iter().filter_map(|person| Some((person.name.as_str(), person.listed.as_deref()?)));
    let auth = (schema::AUTH.user, schema::AUTH.password);
    Setup::new()
        .users(&listed.chain([auth]).collect::<Vec<_>>())
        .pool_size(2)
        .set("listen", &format!("unix_dir = \"{}\"", sockets.path().display()))
        .set("server_tls", "mode = \"require\"")
        .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
        .set("auth", &format!("query = \"{}\"", schema::AUTH_QUERY))
        .set("databases.shared", &format!("dbname = \"{}\"", schema::DATABASE))
        .set("databases.shared", &format!("user = \"{SHARED}\""))
        .set("databases.shared", &format!("password = \"{PASSWORD}\""))
}

async fn start_postgres(people: &[Person]) -> Result<Postgres> {
    let options = PostgresOptions {
        tls: ServerTls::Required,
        // What is asked for is what is stored.
        hba: vec!["hostssl all all all md5".to_owned()],
        settings: vec![("max_connections".to_owned(), "400".to_owned())],
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start(options).await?;
    let mut script: String = people.iter().filter_map(Person::statement).collect();
    script.push_str(&format!("CREATE ROLE {SHARED} LOGIN PASSWORD '{PASSWORD}'"));
    postgres.superuser(&script).await?;
    Ok(postgres)
}

struct Rules {
    hba: String,
    ident: String,
}

fn rules(people: &[Person], own_name: &str) -> Rules {
    let names = |method: Method| {
        let names = people.iter().filter(|person| person.method == method).map(|person| person.name.as_str());
        names.collect::<Vec<_>>()
    };
    let mut hba = String::new();
    let mut ident = String::new();
    for (method, kind, asked) in [
        (Method::Scram, "all", "scram-sha-256"),
        (Method::Md5, "all", "md5"),
        (Method::Plain, "all", "password"),
        (Method::Trust, "all", "trust"),
        (Method::Cert, "hostssl", "cert map=certified"),
        (Method::Peer, "local", "peer map=operators"),
    ] {
        let users = names(method).join(",");
        if kind != "hostssl" {
            hba.push_str(&format!("local all {users} {asked}\n"));
        }
        if kind != "local" {
            let kind = if kind == "all" { "host" } else { kind };
            hba.push_str(&format!("{kind} all {users} 127.0.0.1/32 {asked}\n"));
        }
    }
    for name in names(Method::Cert) {
        ident.push_str(&format!("certified {CERTIFIED} {name}\n"));
    }
    for name in names(Method::Peer) {
        ident.push_str(&format!("operators {own_name} {name}\n"));
    }
    Rules { hba, ident }
}

async fn own_name() -> Result<String> {
    let id = Command::new("id").arg("-un").output().await?;
    Ok(String::from_utf8(id.stdout)?.trim().to_owned())
}

/// Tries the cells with one start of the driver's program and lists those that end otherwise than they have to.
async fn compare(
    world: &World,
    driver: &Driver,
    gates: &[&(Gate, Option<Method>, Front)],
) -> Result<Vec<String>> {
    let cells = world.cells(driver, gates);
    let tries: Vec<Try> = cells.iter().map(|(_, attempt)| attempt.clone()).collect();
    let answers = driver.log_in(&tries).await?;
    let mut wrong = Vec::new();
    for ((cell, attempt), answer) in cells.iter().zip(&answers) {
        let Cell { gate, person, how, knows_password } = *cell;
        if let Err(why) = check(answer, &expected(gate, person, how, knows_password)) {
            let password = if knows_password { "" } else { ", wrong password" };
            wrong.push(format!("{} at {gate:?}, {attempt}{password}: {why}", driver.name));
        }
    }
    Ok(wrong)
}

#[tokio::test]
async fn every_way_in_by_every_driver() -> Result<()> {
    let world = World::start().await?;
    let all: Vec<_> = world.gates.iter().collect();
    let rules = all.get(..1).context("no gate")?;
    // The methods are the same machine whoever chooses them; one driver shows that the choice arrives.
    let gates = |driver: &Driver| if driver.name == "psycopg" { all.as_slice() } else { rules };
    let runs = DRIVERS.iter().map(|driver| compare(&world, driver, gates(driver)));
    let mut wrong = Vec::new();
    for outcome in futures_util::future::join_all(runs).await {
        wrong.extend(outcome?);
    }
    ensure!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
