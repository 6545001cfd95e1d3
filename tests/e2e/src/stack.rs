//! One PostgreSQL with weir in front of it, configured line by line. Dropping it ends both and leaves nothing.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_postgres::Client;
use weir_cluster::sql::{self, Login};
use weir_cluster::wait::{Limit, until};
use weir_cluster::weir::user_list;
use weir_cluster::{Authority, Cluster, Postgres, PostgresOptions, RunDir, Weir, WeirOptions, http, schema};

use crate::wire::{PATIENCE, Wire};

/// May do everything on the console.
pub const ADMIN: Login<'static> = Login { user: "boss", password: "boss password", database: "pgbouncer" };
/// Name in the certificate `client.crt` that comes with [`Setup::client_tls`].
pub const CERTIFIED: &str = "certified@example.com";
/// May only look.
pub const STATS: Login<'static> =
    Login { user: "viewer", password: "viewer password", database: "pgbouncer" };

/// What to start. The user list holds the application, the superuser, [`ADMIN`] and [`STATS`] unless changed.
#[derive(Debug, Clone)]
pub struct Setup {
    postgres: PostgresOptions,
    settings: Vec<(String, String)>,
    users: Vec<(String, String)>,
    client_tls: Option<String>,
    files: Vec<(String, String)>,
    env: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// weir's defaults.
    #[must_use]
    pub fn new() -> Self {
        let users = [schema::APP, schema::SUPERUSER, ADMIN, STATS];
        Self {
            postgres: PostgresOptions::default(),
            settings: Vec::new(),
            users: users.map(|login| (login.user.to_owned(), login.password.to_owned())).to_vec(),
            client_tls: None,
            files: Vec::new(),
            env: Vec::new(),
        }
        .set("auth", &format!("admin_users = [\"{}\"]", ADMIN.user))
        .set("auth", &format!("stats_users = [\"{}\"]", STATS.user))
    }

    /// Adds a line to a section of weir.toml; `""` is the top of the file.
    #[must_use]
    pub fn set(mut self, section: &str, line: &str) -> Self {
        self.settings.push((section.to_owned(), line.to_owned()));
        self
    }

    /// The size of every pool.
    #[must_use]
    pub fn pool_size(self, size: u32) -> Self {
        self.set("pool", &format!("size = {size}"))
    }

    /// The mode of every pool.
    #[must_use]
    pub fn mode(self, mode: &str) -> Self {
        self.set("pool", &format!("mode = \"{mode}\""))
    }

    /// Adds somebody to the user list.
    #[must_use]
    pub fn user(mut self, login: Login<'_>) -> Self {
        self.users.push((login.user.to_owned(), login.password.to_owned()));
        self
    }

    /// Replaces the user list.
    #[must_use]
    pub fn users(mut self, users: &[(&str, &str)]) -> Self {
        self.users = users.iter().map(|(name, secret)| ((*name).to_owned(), (*secret).to_owned())).collect();
        self
    }

    /// A setting of postgresql.conf.
    #[must_use]
    pub fn postgres(mut self, name: &str, value: &str) -> Self {
        self.postgres.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Changes how PostgreSQL is started.
    #[must_use]
    pub fn postgres_options(mut self, change: impl FnOnce(&mut PostgresOptions)) -> Self {
        change(&mut self.postgres);
        self
    }

    /// A file beside weir.toml.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// An environment variable of weir's.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// TLS towards clients in this mode, with a certificate for `localhost`.
    #[must_use]
    pub fn client_tls(mut self, mode: &str) -> Self {
        self.client_tls = Some(mode.to_owned());
        self
    }

    /// Starts PostgreSQL, then weir, and waits until it is ready.
    ///
    /// # Errors
    /// One of them does not come up.
    pub async fn start(self) -> Result<Stack> {
        let postgres = Postgres::start(self.postgres.clone()).await?;
        self.start_before(postgres).await
    }

    /// Starts weir in front of a PostgreSQL that runs already.
    ///
    /// # Errors
    /// weir does not come up.
    pub async fn start_before(self, postgres: Postgres) -> Result<Stack> {
        let Front { weir, folder, authority } = self.start_beside(&postgres).await?;
        Ok(Stack { weir, postgres, folder, authority })
    }

    /// Starts weir in front of a PostgreSQL that others may have in common with it.
    ///
    /// # Errors
    /// weir does not come up.
    pub async fn start_beside(self, postgres: &Postgres) -> Result<Front> {
        let upstream = format!("url = \"postgres://{}\"", postgres.address());
        self.set("upstream", &upstream).launch().await
    }

    /// Starts weir in front of a Patroni cluster.
    ///
    /// # Errors
    /// weir does not come up.
    pub async fn start_before_cluster(self, cluster: &Cluster) -> Result<Front> {
        let urls = cluster.patroni_urls().replace(',', "\", \"");
        let mut setup = self.set("patroni", &format!("urls = [\"{urls}\"]"));
        if let Some(folder) = &cluster.https {
            for (key, name) in [("cert_file", http::CERTIFICATE), ("key_file", http::KEY)] {
                setup = setup.set("patroni", &format!("{key} = \"{}\"", folder.join(name).display()));
            }
            let authority = fs::read_to_string(folder.join(http::AUTHORITY))?;
            setup = setup.set("patroni", "ca_file = \"patroni.crt\"").file("patroni.crt", &authority);
        }
        setup.launch().await
    }

    /// Starts weir in front of a cluster of which one REST API is at this URL.
    ///
    /// # Errors
    /// weir does not come up.
    pub async fn start_following(self, url: &str) -> Result<Front> {
        self.set("patroni", &format!("urls = [\"{url}\"]")).launch().await
    }

    async fn launch(mut self) -> Result<Front> {
        let folder = RunDir::create("stack")?;
        let mut authority = None;
        if let Some(mode) = self.client_tls.clone() {
            authority = Some(write_certificates(&folder)?);
            self = self.set("client_tls", &format!("mode = \"{mode}\""));
            self = self
                .set("client_tls", "cert_file = \"weir.crt\"")
                .set("client_tls", "key_file = \"weir.key\"");
        }
        let mut options = WeirOptions::on_free_ports()?;
        options.pass_listen = false;
        options.env.clone_from(&self.env);
        for (name, address) in [("write", options.write), ("read", options.read), ("http", options.http)] {
            self = self.set("listen", &format!("{name} = \"{address}\""));
        }
        self = self.set("auth", "file = \"userlist.txt\"");
        folder.write("userlist.txt", &user_list(&self.users))?;
        for (name, text) in &self.files {
            let inside = Path::new(name).parent().unwrap_or(Path::new(""));
            fs::create_dir_all(folder.path().join(inside))?;
            folder.write(name, text)?;
        }
        let config = folder.write("weir.toml", &self.render())?;
        let weir = Weir::start(options.args([config.display().to_string()])).await?;
        Ok(Front { weir, folder, authority })
    }

    fn render(&self) -> String {
        let mut sections: Vec<&str> = self.settings.iter().map(|(section, _)| section.as_str()).collect();
        sections.sort_unstable();
        sections.dedup();
        let mut out = String::new();
        for section in sections {
            if !section.is_empty() {
                let _ = writeln!(out, "[{section}]");
            }
            for (_, line) in self.settings.iter().filter(|(of, _)| of == section) {
                let _ = writeln!(out, "{line}");
            }
        }
        out
    }
}

fn write_certificates(folder: &RunDir) -> Result<PathBuf> {
    let authority = Authority::new()?;
    let own = authority.issue("localhost", &[IpAddr::V4(Ipv4Addr::LOCALHOST)])?;
    folder.write("weir.crt", &own.certificate_pem)?;
    folder.write("weir.key", &own.key_pem)?;
    let client = authority.issue(CERTIFIED, &[])?;
    folder.write("client.crt", &client.certificate_pem)?;
    folder.write("client.key", &client.key_pem)?;
    folder.write("authority.crt", &authority.certificate_pem())
}

/// weir alone, in front of something that is owned elsewhere.
#[derive(Debug)]
pub struct Front {
    /// weir. Declared first, so that it ends first.
    pub weir: Weir,
    folder: RunDir,
    authority: Option<PathBuf>,
}

impl Front {
    /// The folder of weir.toml, userlist.txt and the certificates.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A running pair.
#[derive(Debug)]
pub struct Stack {
    /// weir. Declared first, so that it ends first.
    pub weir: Weir,
    /// What it pools for.
    pub postgres: Postgres,
    folder: RunDir,
    authority: Option<PathBuf>,
}

impl Stack {
    /// The write port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.weir.write()
    }

    /// The certificate to check weir's against, with [`Setup::client_tls`].
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// The folder of weir.toml and userlist.txt.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The application over the write port, by tokio-postgres.
    ///
    /// # Errors
    /// The login is refused.
    pub async fn client(&self) -> Result<Client> {
        sql::connect(self.address(), schema::APP).await
    }

    /// The application over the write port, message by message.
    ///
    /// # Errors
    /// The login is refused.
    pub async fn wire(&self) -> Result<Wire> {
        Wire::login(self.address(), schema::APP).await
    }

    /// The application with startup parameters.
    ///
    /// # Errors
    /// The login is refused.
    pub async fn wire_with(&self, parameters: &[(&str, &str)]) -> Result<Wire> {
        Wire::login_with(self.address(), schema::APP, crate::wire::PROTOCOL_3_0, parameters).await
    }

    /// A console command as [`ADMIN`]; rows as text.
    ///
    /// # Errors
    /// The command fails.
    pub async fn console(&self, command: &str) -> Result<Vec<Vec<Option<String>>>> {
        sql::rows(self.address(), ADMIN, command).await
    }

    /// The rows of a SHOW as (column, value) pairs.
    ///
    /// # Errors
    /// The command fails.
    pub async fn show(&self, what: &str) -> Result<Vec<Vec<(String, String)>>> {
        let client = sql::connect(self.address(), ADMIN).await?;
        let messages = client.simple_query(&format!("SHOW {what}")).await?;
        let mut rows = Vec::new();
        for message in messages {
            let tokio_postgres::SimpleQueryMessage::Row(row) = message else { continue };
            let names = row.columns().iter().map(|column| column.name().to_owned());
            let cells =
                names.enumerate().map(|(at, name)| (name, row.get(at).unwrap_or_default().to_owned()));
            rows.push(cells.collect());
        }
        Ok(rows)
    }

    /// PostgreSQL's own connections of the application.
    ///
    /// # Errors
    /// The superuser cannot ask.
    pub async fn servers(&self) -> Result<Vec<u32>> {
        let sql =
            format!("SELECT pid FROM pg_stat_activity WHERE usename = '{}' ORDER BY pid", schema::APP.user);
        let rows = self.postgres.superuser(&sql).await?;
        rows.into_iter().flatten().flatten().map(|pid| Ok(pid.parse()?)).collect()
    }

    /// Waits until a query, run by the superuser directly on PostgreSQL, returns `wanted` as its only value.
    ///
    /// # Errors
    /// It does not within [`PATIENCE`].
    pub async fn until_postgres_says(&self, sql: &str, wanted: &str) -> Result<()> {
        let mut seen = String::new();
        let outcome = until(sql, Limit::quick(PATIENCE), async || {
            seen = match self.postgres.superuser(sql).await {
                Ok(rows) => rows.into_iter().flatten().flatten().next().unwrap_or_default(),
                Err(problem) => problem.to_string(),
            };
            (seen == wanted).then_some(())
        })
        .await;
        outcome.with_context(|| format!("wanted {wanted}, last saw {seen}"))
    }

    /// Waits until the application has `count` connections that are running a query containing `marker`.
    ///
    /// # Errors
    /// It does not within [`PATIENCE`].
    pub async fn until_running(&self, marker: &str, count: u32) -> Result<()> {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND state = 'active' AND query LIKE '%{marker}%'",
            schema::APP.user
        );
        self.until_postgres_says(&sql, &count.to_string()).await
    }

    /// Waits until a column of SHOW POOLS has this value for the application's write pool.
    ///
    /// # Errors
    /// It does not within [`PATIENCE`].
    pub async fn until_pool(&self, column: &str, wanted: &str) -> Result<()> {
        let mut seen = String::new();
        let outcome = until(&format!("{column} = {wanted}"), Limit::quick(PATIENCE), async || {
            seen = self.pool(column).await.unwrap_or_else(|problem| problem.to_string());
            (seen == wanted).then_some(())
        })
        .await;
        outcome.with_context(|| format!("last saw {seen}"))
    }

    /// A column of SHOW POOLS for the application's pools, summed over both ports where it is a number.
    ///
    /// # Errors
    /// The console fails or has no such pool.
    pub async fn pool(&self, column: &str) -> Result<String> {
        let rows = self.show("POOLS").await?;
        let value = |row: &Vec<(String, String)>, name: &str| {
            row.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let ours: Vec<String> = rows
            .iter()
            .filter(|row| value(row, "user").as_deref() == Some(schema::APP.user))
            .filter_map(|row| value(row, column))
            .collect();
        let numbers: Result<Vec<u64>, _> = ours.iter().map(|value| value.parse::<u64>()).collect();
        match numbers {
            Ok(numbers) if !numbers.is_empty() => Ok(numbers.iter().sum::<u64>().to_string()),
            Ok(_) => anyhow::bail!("SHOW POOLS has no pool of {}", schema::APP.user),
            Err(_) => ours.into_iter().next().context("SHOW POOLS has no such column"),
        }
    }

    /// Rewrites weir.toml: every line that starts with `from` becomes `to`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn edit_config(&self, from: &str, to: &str) -> Result<()> {
        let path = self.folder().join("weir.toml");
        let text = fs::read_to_string(&path)?;
        let edit = |line: &str| if line.starts_with(from) { to.to_owned() } else { line.to_owned() };
        let changed: Vec<String> = text.lines().map(edit).collect();
        fs::write(&path, changed.join("\n") + "\n")?;
        Ok(())
    }

    /// Starts another weir beside the first, with the same addresses: of this file in [`Stack::folder`], and with
    /// further arguments. Does not wait for it.
    ///
    /// # Errors
    /// The program is missing.
    pub fn another(&self, config: &str, args: &[&str]) -> Result<Weir> {
        let [write, read, http] = [self.weir.write(), self.weir.read(), self.weir.http()];
        let mut options = WeirOptions::on(write.ip(), write.port(), read.port(), http.port());
        options.pass_listen = false;
        let config = self.folder().join(config).display().to_string();
        Weir::spawn(options.args([config.as_str()]).args(args.iter().copied()))
    }

    /// Replaces the user list.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_users(&self, users: &[(&str, &str)]) -> Result<()> {
        let users: Vec<(String, String)> =
            users.iter().map(|(name, secret)| ((*name).to_owned(), (*secret).to_owned())).collect();
        fs::write(self.folder().join("userlist.txt"), user_list(&users))?;
        Ok(())
    }
}

/// How long a test gives weir to end.
pub const END_PATIENCE: Duration = Duration::from_secs(20);
