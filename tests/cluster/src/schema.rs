//! The roles, the database and the tables every started PostgreSQL has. Knows no processes.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::sql::{self, Login};

/// The database of the demo and the tests.
pub const DATABASE: &str = "mrg";

/// The application's login.
pub const APP: Login<'static> = Login { user: "app_user", password: "app_password", database: DATABASE };

/// The login that may look up other users' verifiers.
pub const AUTH: Login<'static> =
    Login { user: "weir_auth", password: "weir_auth_password", database: DATABASE };

/// The superuser's login.
pub const SUPERUSER: Login<'static> =
    Login { user: "postgres", password: "postgres_password", database: DATABASE };

/// The replication login of Patroni.
pub const REPLICATOR: Login<'static> =
    Login { user: "replicator", password: "replicator_password", database: "postgres" };

/// The login that pg_rewind uses.
pub const REWIND: Login<'static> =
    Login { user: "rewinder", password: "rewinder_password", database: "postgres" };

/// A name lookup that needs no superuser: for `--auth-query`.
pub const AUTH_QUERY: &str = "SELECT usename, passwd FROM public.user_lookup($1)";

/// Makes the roles, the database and its tables on a fresh server.
///
/// # Errors
/// No connection as the superuser, or a statement failed.
pub async fn load(server: SocketAddr) -> Result<()> {
    let client = sql::connect(server, Login { database: "postgres", ..SUPERUSER }).await?;
    for statement in cluster_statements() {
        client.simple_query(&statement).await.with_context(|| statement.clone())?;
    }
    sql::rows(server, SUPERUSER, &database_script()).await?;
    Ok(())
}

/// What is run in the database `postgres`, one statement each.
fn cluster_statements() -> Vec<String> {
    let role = |login: Login<'_>| format!("CREATE ROLE {} LOGIN PASSWORD '{}'", login.user, login.password);
    vec![
        role(APP),
        role(AUTH),
        // The query every pooler has as its default reads pg_shadow.
        format!("GRANT SELECT ON pg_catalog.pg_shadow TO {}", AUTH.user),
        format!("CREATE DATABASE {DATABASE} OWNER {}", APP.user),
    ]
}

/// What is run in [`DATABASE`] as the superuser, in one go.
fn database_script() -> String {
    format!(
        "GRANT SELECT ON pg_catalog.pg_shadow TO {auth};
         CREATE FUNCTION public.user_lookup(wanted text, OUT usename name, OUT passwd text)
             RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS
             $$ SELECT rolname, rolpassword FROM pg_authid WHERE rolname = wanted AND rolcanlogin
                AND (rolvaliduntil IS NULL OR rolvaliduntil > now()) $$;
         REVOKE ALL ON FUNCTION public.user_lookup(text) FROM PUBLIC;
         GRANT EXECUTE ON FUNCTION public.user_lookup(text) TO {auth};
         CREATE TABLE public.drill (
             id bigint PRIMARY KEY,
             writer text NOT NULL,
             part int NOT NULL DEFAULT 0,
             at timestamptz NOT NULL DEFAULT clock_timestamp());
         ALTER TABLE public.drill OWNER TO {app};",
        auth = AUTH.user,
        app = APP.user,
    )
}
