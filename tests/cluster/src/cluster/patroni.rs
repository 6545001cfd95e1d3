//! Which Patroni is run, and its configuration file for one node. Starts nothing but the making of a venv.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use super::{ClusterOptions, Layout, Node};
use crate::drill::LOG_PREFIX;
use crate::http;
use crate::postgres::{QUICK_SETTINGS, ServerTls};
use crate::process;
use crate::run_dir::RunDir;
use crate::schema;
use crate::wait::{Limit, until};

/// Where Patroni comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patroni {
    /// The distribution's package (Debian 12: 3.0.2).
    Packaged,
    /// This version from PyPI, in a venv that is kept for the next time, for example `4.1.5`.
    Venv(String),
}

impl Patroni {
    /// The newest version 4 that the tests are run with.
    #[must_use]
    pub fn four() -> Self {
        Self::Venv("4.1.5".to_owned())
    }

    /// The program to start; makes the venv if it is not there yet.
    ///
    /// # Errors
    /// Not installed, or pip failed; the text holds the end of its log.
    pub async fn program(&self, run_dir: &RunDir) -> Result<PathBuf> {
        match self {
            Self::Packaged => {
                let path = PathBuf::from("/usr/bin/patroni");
                ensure!(path.exists(), "Patroni's package is not installed");
                Ok(path)
            }
            Self::Venv(version) => venv(version, run_dir).await,
        }
    }
}

/// Patroni's configuration of one node. JSON is YAML.
pub(super) fn configuration(
    options: &ClusterOptions,
    layout: &Layout,
    node: &Node,
    bin_dir: &Path,
    callback: Option<&Path>,
) -> String {
    let timing = options.timing;
    let login = |login: crate::sql::Login<'_>| json!({"username": login.user, "password": login.password});
    let (parameters, local) = (parameters(options), local_parameters(options, node));
    let (mut api, control) = rest_api(layout, node);
    if let Some((username, password)) = &options.api_login {
        api["authentication"] = json!({"username": username, "password": password});
    }
    json!({
        "scope": options.scope,
        "name": node.name,
        "restapi": api,
        "ctl": control,
        "etcd3": {"host": layout.etcd.to_string()},
        "bootstrap": {
            "dcs": {
                "ttl": timing.ttl,
                "loop_wait": timing.loop_wait,
                "retry_timeout": timing.retry_timeout,
                "maximum_lag_on_failover": 1_048_576,
                "synchronous_mode": options.synchronous,
                "postgresql": {"use_pg_rewind": true, "use_slots": true, "parameters": parameters},
            },
            "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, {"auth": "scram-sha-256"}, "no-sync"],
        },
        "postgresql": {
            "listen": node.postgres.to_string(),
            "connect_address": node.postgres.to_string(),
            "data_dir": node.folder.join("data"),
            "bin_dir": bin_dir,
            "pgpass": node.folder.join("pgpass"),
            "authentication": {
                "superuser": login(schema::SUPERUSER),
                "replication": login(schema::REPLICATOR),
                "rewind": login(schema::REWIND),
            },
            "parameters": local,
            "pg_hba": hba(options),
            "basebackup": [{"checkpoint": "fast"}, "no-sync"],
            "callbacks": callback.map_or_else(|| json!({}), |script| json!({"on_role_change": script})),
        },
        "watchdog": {"mode": "off"},
    })
    .to_string()
}

/// PostgreSQL's settings, the same on all nodes.
fn parameters(options: &ClusterOptions) -> Value {
    let audit: &[(&str, &str)] = &[
        ("log_line_prefix", LOG_PREFIX),
        ("log_statement", "mod"),
        ("log_connections", "on"),
        ("log_disconnections", "on"),
    ];
    let quick = [
        ("max_connections", "200"),
        // A standby that came before its slot was made tries again soon.
        ("wal_retrieve_retry_interval", "500ms"),
        ("wal_keep_size", "128MB"),
    ];
    let audit = if options.audited { audit } else { &[] };
    QUICK_SETTINGS.iter().chain(&quick).chain(audit).map(|&(name, value)| (name, json!(value))).collect()
}

/// PostgreSQL's settings on one node.
fn local_parameters(options: &ClusterOptions, node: &Node) -> Value {
    let mut local = json!({
        "unix_socket_directories": node.folder,
        // PostgreSQL logs where Patroni does: into the node's one file.
        "logging_collector": "off",
    });
    if options.tls != ServerTls::Off {
        local["ssl"] = json!("on");
        local["ssl_cert_file"] = json!(node.folder.join("server.crt"));
        local["ssl_key_file"] = json!(node.folder.join("server.key"));
    }
    local
}

/// `restapi`, and `ctl`, with which the nodes ask each other.
fn rest_api(layout: &Layout, node: &Node) -> (Value, Value) {
    let mut api = json!({"listen": node.api.to_string(), "connect_address": node.api.to_string()});
    let Some(folder) = &layout.https else { return (api, json!({})) };
    let [own, key] = ["api.crt", "api.key"].map(|name| node.folder.join(name));
    let authority = folder.join(http::AUTHORITY);
    api["certfile"] = json!(own);
    api["keyfile"] = json!(key);
    api["cafile"] = json!(authority);
    api["verify_client"] = json!("required");
    (api, json!({"certfile": own, "keyfile": key, "cacert": authority}))
}

fn hba(options: &ClusterOptions) -> Vec<String> {
    let mut lines = options.hba.clone();
    lines.push("local all all scram-sha-256".to_owned());
    // Patroni and the tools come without TLS; everyone else may be made to use it.
    for login in [schema::SUPERUSER, schema::REWIND] {
        lines.push(format!("host all {} all scram-sha-256", login.user));
    }
    lines.push(format!("host replication {} all scram-sha-256", schema::REPLICATOR.user));
    let kind = if options.tls == ServerTls::Required { "hostssl" } else { "host" };
    lines.push(format!("{kind} all all all scram-sha-256"));
    lines
}

/// A venv with this version of Patroni, kept outside the run so that the download happens once.
async fn venv(version: &str, run_dir: &RunDir) -> Result<PathBuf> {
    let own = rustix::process::getuid().as_raw();
    let folder = PathBuf::from(format!("/var/tmp/weir-patroni-{version}-{own}"));
    let program = folder.join("bin/patroni");
    let done = folder.join("installed");
    if let Err(problem) = fs::DirBuilder::new().mode(0o755).create(&folder) {
        ensure!(
            problem.kind() == std::io::ErrorKind::AlreadyExists,
            "making {}: {problem}",
            folder.display()
        );
    }
    // Anybody may create names there; only a folder of our own is safe to run programs from.
    let found = fs::symlink_metadata(&folder)?;
    ensure!(found.is_dir() && found.uid() == own, "{} belongs to somebody else", folder.display());
    let _lock = lock(&folder).await?;
    if done.exists() {
        return Ok(program);
    }
    let log = run_dir.log("venv");
    // The system's Python: one under the caller's home could not be run by the nodes' account.
    let mut make = Command::new("/usr/bin/python3");
    make.args(["-m", "venv"]).arg(&folder);
    process::run(make, run_dir.path(), &log, Duration::from_secs(120)).await.context("making a venv")?;
    let mut install = Command::new(folder.join("bin/pip"));
    install.args(["install", "--quiet", &format!("patroni[etcd3]=={version}"), "psycopg[binary]"]);
    process::run(install, run_dir.path(), &log, Duration::from_secs(300))
        .await
        .context("installing Patroni")?;
    fs::write(done, version)?;
    Ok(program)
}

/// Tests of several processes may want the same venv at once; the lock goes with the returned file.
async fn lock(folder: &Path) -> Result<fs::File> {
    let file = fs::File::create(folder.join("lock")).context("making a lock file")?;
    until("another run to make the venv", Limit::slow(Duration::from_secs(400)), async || {
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()
    })
    .await?;
    Ok(file)
}
