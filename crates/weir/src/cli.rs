//! The command line: what can be typed, and which setting each option stands for. Checks no value; options go through
//! the same checks as the file.

use std::path::PathBuf;

use weir_config::{Override, Value};

/// What was typed. Has no `Debug`: a URL may hold a password.
#[derive(clap::Parser)]
#[command(
    version,
    about = "A PostgreSQL connection pooler that follows a Patroni cluster.",
    arg_required_else_help = true,
    after_help = EXAMPLES
)]
pub(crate) struct Cli {
    /// Configuration file (weir.toml or pgbouncer.ini); options given beside it overrule it
    #[arg(value_name = "CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Check a configuration file, say what is wrong with it, and end
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) check_config: Option<PathBuf>,

    /// Print a pgbouncer.ini as weir.toml, with its secrets, and end
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "check_config"])]
    pub(crate) convert: Option<PathBuf>,

    /// Take over from the running process, which goes on until its clients have left
    #[arg(short = 'R', long)]
    pub(crate) reboot: bool,

    #[command(flatten)]
    pub(crate) process: ProcessOptions,
    #[command(flatten)]
    upstream: UpstreamOptions,
    #[command(flatten)]
    listen: ListenOptions,
    #[command(flatten)]
    login: LoginOptions,
    #[command(flatten)]
    pool: PoolOptions,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    log: LogOptions,
}

#[derive(clap::Args)]
#[command(next_help_heading = "The process, as with PgBouncer")]
pub(crate) struct ProcessOptions {
    /// Run in the background; needs a pid file in the configuration
    #[arg(short = 'd', long)]
    pub(crate) daemon: bool,

    /// Do not write the log to standard error
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,

    /// Write more to the log; may be given several times
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    verbose: u8,

    /// Run as this user, if started as root
    #[arg(short = 'u', long, value_name = "NAME")]
    user: Option<String>,

    /// Set for the process that --daemon starts
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

#[derive(clap::Args)]
#[command(next_help_heading = "What to connect to")]
struct UpstreamOptions {
    /// One PostgreSQL server: postgres://user:password@host:port/?sslmode=require
    #[arg(long, value_name = "URL", conflicts_with = "patroni")]
    upstream: Option<String>,

    /// A cluster, by Patroni's REST API of some members: http://n1:8008,http://n2:8008
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    patroni: Option<Vec<String>>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Where to listen")]
struct ListenOptions {
    /// Always the leader [default: 127.0.0.1:6432]
    #[arg(long, value_name = "ADDR:PORT")]
    write_listen: Option<String>,

    /// Healthy replicas [default: 127.0.0.1:6433]
    #[arg(long, value_name = "ADDR:PORT")]
    read_listen: Option<String>,

    /// Metrics and health [default: 127.0.0.1:9632]
    #[arg(long, value_name = "ADDR:PORT")]
    http_listen: Option<String>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Login")]
struct LoginOptions {
    /// User list in PgBouncer's format: one "name" "secret" per line
    #[arg(long, value_name = "FILE")]
    auth_file: Option<String>,

    /// User who looks up the secrets of all users that are not in the list
    #[arg(long, value_name = "NAME")]
    auth_user: Option<String>,

    /// File with the password of the auth user on its first line
    #[arg(long, value_name = "FILE")]
    auth_password_file: Option<String>,

    /// SELECT with $1 that returns name and secret of a user, run as the auth user
    #[arg(long, value_name = "SQL")]
    auth_query: Option<String>,

    /// How clients log in; "trust" lets anybody in, for tests [default: scram-sha-256]
    #[arg(long, value_name = "scram-sha-256|trust")]
    auth_type: Option<String>,

    /// User who may do everything on the console; may be given several times
    #[arg(long, value_name = "NAME")]
    admin_user: Vec<String>,

    /// User who may only SHOW on the console; may be given several times
    #[arg(long, value_name = "NAME")]
    stats_user: Vec<String>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Pools")]
struct PoolOptions {
    /// When a server connection is released [default: transaction]
    #[arg(long, value_name = "session|transaction|statement")]
    pool_mode: Option<String>,

    /// Server connections for each database, user and port [default: 20]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pool_size: Option<i64>,

    /// Client connections at once [default: 1000]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_client_conn: Option<i64>,

    /// Threads that carry client traffic; this version supports one [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    workers: Option<i64>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "TLS")]
struct TlsOptions {
    /// Towards clients: disable, prefer, require, verify-full, ... [default: disable]
    #[arg(long, value_name = "MODE")]
    client_tls: Option<String>,

    /// Certificate chain shown to clients (PEM)
    #[arg(long, value_name = "FILE")]
    client_tls_cert: Option<String>,

    /// Its private key (PEM)
    #[arg(long, value_name = "FILE")]
    client_tls_key: Option<String>,

    /// Authorities that sign client certificates (PEM)
    #[arg(long, value_name = "FILE")]
    client_tls_ca: Option<String>,

    /// Towards PostgreSQL: the same modes, names as in libpq [default: prefer]
    #[arg(long, value_name = "MODE")]
    server_tls: Option<String>,

    /// Authorities that sign the servers' certificates (PEM)
    #[arg(long, value_name = "FILE")]
    server_tls_ca: Option<String>,

    /// weir's own certificate for servers that ask for one (PEM)
    #[arg(long, value_name = "FILE")]
    server_tls_cert: Option<String>,

    /// Its private key (PEM)
    #[arg(long, value_name = "FILE")]
    server_tls_key: Option<String>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Log")]
struct LogOptions {
    /// Shape of the log on standard error [default: text]
    #[arg(long, value_name = "text|json")]
    log_format: Option<String>,

    /// error, warn, info, debug, trace; or info,weir_discovery=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Cli {
    /// The options that were given, each with the setting it stands for.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        let Self {
            config: _,
            check_config: _,
            convert: _,
            reboot: _,
            process,
            upstream,
            listen,
            login,
            pool,
            tls,
            log,
        } = self;
        let level = match process.verbose {
            0 => None,
            1 => Some("debug".to_owned()),
            2.. => Some("trace".to_owned()),
        };
        [
            text("-u", "process.user", process.user.as_ref()),
            text("-v", "log.level", level.as_ref()),
            text("--upstream", "upstream.url", upstream.upstream.as_ref()),
            words("--patroni", "patroni.urls", upstream.patroni.as_deref().unwrap_or_default()),
            text("--write-listen", "listen.write", listen.write_listen.as_ref()),
            text("--read-listen", "listen.read", listen.read_listen.as_ref()),
            text("--http-listen", "listen.http", listen.http_listen.as_ref()),
            text("--auth-file", "auth.file", login.auth_file.as_ref()),
            text("--auth-user", "auth.user", login.auth_user.as_ref()),
            text("--auth-password-file", "auth.password_file", login.auth_password_file.as_ref()),
            text("--auth-query", "auth.query", login.auth_query.as_ref()),
            text("--auth-type", "auth.type", login.auth_type.as_ref()),
            words("--admin-user", "auth.admin_users", &login.admin_user),
            words("--stats-user", "auth.stats_users", &login.stats_user),
            text("--pool-mode", "pool.mode", pool.pool_mode.as_ref()),
            number("--pool-size", "pool.size", pool.pool_size),
            number("--max-client-conn", "limits.max_client_conn", pool.max_client_conn),
            number("--workers", "workers", pool.workers),
            text("--client-tls", "client_tls.mode", tls.client_tls.as_ref()),
            text("--client-tls-cert", "client_tls.cert_file", tls.client_tls_cert.as_ref()),
            text("--client-tls-key", "client_tls.key_file", tls.client_tls_key.as_ref()),
            text("--client-tls-ca", "client_tls.ca_file", tls.client_tls_ca.as_ref()),
            text("--server-tls", "server_tls.mode", tls.server_tls.as_ref()),
            text("--server-tls-ca", "server_tls.ca_file", tls.server_tls_ca.as_ref()),
            text("--server-tls-cert", "server_tls.cert_file", tls.server_tls_cert.as_ref()),
            text("--server-tls-key", "server_tls.key_file", tls.server_tls_key.as_ref()),
            text("--log-format", "log.format", log.log_format.as_ref()),
            text("--log-level", "log.level", log.log_level.as_ref()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn text(option: &'static str, key: &'static str, given: Option<&String>) -> Option<Override> {
    given.map(|text| Override { option, key, value: Value::Text(text.clone()) })
}

fn number(option: &'static str, key: &'static str, given: Option<i64>) -> Option<Override> {
    given.map(|number| Override { option, key, value: Value::Number(number) })
}

fn words(option: &'static str, key: &'static str, given: &[String]) -> Option<Override> {
    (!given.is_empty()).then(|| Override { option, key, value: Value::Words(given.to_vec()) })
}

const EXAMPLES: &str = "\
The user in the URL of --upstream looks up the secrets of all other users. Other users of this
machine can see the command line: a password is better kept in a user list or a configuration file.

Examples:
  weir weir.toml
  weir --patroni http://n1:8008,http://n2:8008 --auth-file userlist.txt
  weir --upstream postgres://postgres:secret@127.0.0.1:5432
  weir --check-config weir.toml";

#[cfg(test)]
mod tests {
    //! Every option reaches a setting that exists.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use clap::{CommandFactory, Parser};
    use weir_config::KEYS;

    use super::Cli;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_that_can_be_typed_becomes_a_setting_that_exists() {
        let command = Cli::command();
        let options: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
        let own = ["check-config", "convert", "reboot", "help", "version", "daemon", "quiet", "detached"];
        let short = [("user", "-u"), ("verbose", "-v")];
        for option in options.into_iter().filter(|option| !own.contains(option)) {
            let takes_value = option != "verbose";
            let typed = if takes_value { format!("--{option}=1") } else { format!("--{option}") };
            let said = short.iter().find(|(long, _)| *long == option).map(|(_, short)| (*short).to_owned());
            let cli =
                Cli::try_parse_from(["weir", &typed]).unwrap_or_else(|error| panic!("{option}: {error}"));
            let overrides = cli.overrides();
            assert_eq!(overrides.len(), 1, "--{option}");
            assert_eq!(overrides[0].option, said.unwrap_or_else(|| format!("--{option}")));
            assert!(KEYS.iter().any(|key| key.path == overrides[0].key), "--{option}");
        }
    }

    #[test]
    fn the_defaults_in_the_help_are_the_real_ones() {
        let mut command = Cli::command();
        let help = command.render_long_help().to_string();
        for (option, key) in [
            ("write-listen", "listen.write"),
            ("read-listen", "listen.read"),
            ("http-listen", "listen.http"),
            ("auth-type", "auth.type"),
            ("pool-mode", "pool.mode"),
            ("pool-size", "pool.size"),
            ("max-client-conn", "limits.max_client_conn"),
            ("workers", "workers"),
            ("client-tls", "client_tls.mode"),
            ("server-tls", "server_tls.mode"),
            ("log-format", "log.format"),
            ("log-level", "log.level"),
        ] {
            let default = KEYS.iter().find(|known| known.path == key).unwrap().default.shown();
            let (_, after) = help.split_once(&format!("--{option} <")).unwrap();
            let text =
                after.split("\n      --").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(&format!("[default: {default}]")), "--{option}: {text}");
        }
    }

    #[test]
    fn lists_and_repetitions_are_kept() {
        let typed = ["weir", "--patroni", "http://a,http://b", "--admin-user", "x", "--admin-user", "y"];
        let overrides = Cli::try_parse_from(typed).unwrap().overrides();
        let words = |index: usize| match &overrides[index].value {
            weir_config::Value::Words(words) => words.clone(),
            weir_config::Value::Text(_)
            | weir_config::Value::Number(_)
            | weir_config::Value::Truth(_)
            | weir_config::Value::Other(_) => {
                vec![]
            }
        };
        assert_eq!(
            (words(0), words(1)),
            (vec!["http://a".to_owned(), "http://b".to_owned()], vec!["x".to_owned(), "y".to_owned()])
        );
    }

    #[test]
    fn two_upstreams_are_refused() {
        assert!(
            Cli::try_parse_from(["weir", "--patroni", "http://a", "--upstream", "postgres://b"]).is_err()
        );
    }
}
