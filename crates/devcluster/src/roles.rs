//! The role and the database that pgbraid works with on an instance.

use tokio_postgres::error::SqlState;

use crate::error::{DevClusterError, Result};
use crate::instance::{DevInstance, ROLE, SUPERUSER};

/// Makes the role `pgbraid` and its database, or what is missing of them. The role may log in and
/// replicate, but is no superuser: what works here works on a managed fleet.
pub(crate) async fn ensure(instance: &DevInstance) -> Result<()> {
    match instance.connect(ROLE, ROLE).await {
        Ok(_) => return Ok(()),
        Err(e) if is_about_role_or_database(&e) => {}
        Err(e) => return Err(e),
    }
    let client = instance.connect(SUPERUSER, SUPERUSER).await?;
    let row = client
        .query_one(
            "select exists (select from pg_roles where rolname = $1),
                    exists (select from pg_database where datname = $1)",
            &[&ROLE],
        )
        .await
        .map_err(|e| instance.postgres_error("cannot look for the role pgbraid", e))?;
    let (has_role, has_database): (bool, bool) = (row.get(0), row.get(1));
    // Our passwords are hexadecimal digits; utility statements take no parameters.
    let password = instance.password().as_str().replace('\'', "''");
    let verb = if has_role { "alter" } else { "create" };
    client
        .batch_execute(&format!(
            "{verb} role {ROLE} login replication password '{password}'; \
             alter role {ROLE} set search_path = public"
        ))
        .await
        .map_err(|e| instance.postgres_error("cannot make the role pgbraid", e))?;
    if !has_database {
        client
            .batch_execute(&format!("create database {ROLE} owner {ROLE}"))
            .await
            .map_err(|e| instance.postgres_error("cannot make the database pgbraid", e))?;
    }
    Ok(())
}

/// A missing role and a wrong password look alike from outside.
fn is_about_role_or_database(error: &DevClusterError) -> bool {
    let DevClusterError::Postgres { source, .. } = error else {
        return false;
    };
    source.code().is_some_and(|code| {
        [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
        ]
        .contains(code)
    })
}
