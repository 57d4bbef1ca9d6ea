//! Migrations: forward only, run at start, one process at a time.

use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::{Db, DbError, Dialect, Tx};

/// A step of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number; they run in this order.
    pub version: i64,
    /// What it is about.
    pub name: &'static str,
    /// Statements, separated by semicolons at the ends of lines.
    pub sql: &'static str,
}

/// What a step has to say in one database's own words: triggers have no common syntax.
fn own_words(name: &str, dialect: Dialect) -> &'static str {
    match (name, dialect) {
        ("core", Dialect::Sqlite) => include_str!("../../migrations/0001_core.sqlite.sql"),
        ("core", Dialect::Postgres) => include_str!("../../migrations/0001_core.postgres.sql"),
        _ => "",
    }
}

/// Every migration of this program, oldest first.
pub fn migrations() -> &'static [Migration] {
    &[
        Migration { version: 1, name: "core", sql: include_str!("../../migrations/0001_core.sql") },
        Migration { version: 2, name: "devices", sql: include_str!("../../migrations/0002_devices.sql") },
        Migration { version: 3, name: "telemetry", sql: include_str!("../../migrations/0003_telemetry.sql") },
        Migration { version: 4, name: "models", sql: include_str!("../../migrations/0004_models.sql") },
        Migration {
            version: 5,
            name: "credentials",
            sql: include_str!("../../migrations/0005_credentials.sql"),
        },
        Migration { version: 6, name: "trust", sql: include_str!("../../migrations/0006_trust.sql") },
        Migration {
            version: 7,
            name: "publishing",
            sql: include_str!("../../migrations/0007_publishing.sql"),
        },
    ]
}

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database was used by a newer program.
    #[error(
        "the database has schema version {found}, this program knows versions up to {known}; start the newer program, \
         or restore a backup that was made before the upgrade"
    )]
    Newer {
        /// The database's version.
        found: i64,
        /// The newest version of this program.
        known: i64,
    },
    /// A step that already ran has another text now.
    #[error(
        "migration {version} ({name}) ran with another text than this program's; the program and the database do not belong together"
    )]
    Changed {
        /// The step's number.
        version: i64,
        /// Its name.
        name: &'static str,
    },
    /// A statement failed; nothing of this start's migrations was kept.
    #[error("migration {version} ({name}): {source}")]
    Failed {
        /// The step's number.
        version: i64,
        /// Its name.
        name: &'static str,
        /// What the database said.
        source: DbError,
    },
    /// The database failed outside of a step.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<sqlx::Error> for MigrateError {
    fn from(error: sqlx::Error) -> Self {
        MigrateError::Db(error.into())
    }
}

/// The key of the lock under which PostgreSQL migrates: the bytes "dunlin" as a number.
const LOCK: i64 = 0x6475_6e6c_696e;

impl Db {
    /// Brings the schema up to date. Processes that start together wait for one another. All steps run in one
    /// transaction: either all of them are kept, or none.
    ///
    /// # Errors
    /// When the database is newer than this program, or a statement fails.
    pub async fn migrate(&self, steps: &[Migration], now_us: i64) -> Result<(), MigrateError> {
        let mut tx = self.begin().await?;
        if self.dialect() == Dialect::Postgres {
            sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
            sqlx::raw_sql(
                "do $$ begin if to_regtype('blob') is null then create domain blob as bytea; end if; end $$",
            )
            .execute(&mut *tx)
            .await?;
        }
        sqlx::raw_sql(
            "create table if not exists schema_migrations (version bigint primary key, name text not null, \
             digest text not null, applied_us bigint not null)",
        )
        .execute(&mut *tx)
        .await?;
        let rows = sqlx::query("select version, digest from schema_migrations order by version")
            .fetch_all(&mut *tx)
            .await?;
        let mut done = Vec::with_capacity(rows.len());
        for row in rows {
            done.push((row.try_get::<i64, _>(0)?, row.try_get::<String, _>(1)?));
        }
        let known = steps.iter().map(|step| step.version).max().unwrap_or(0);
        if let Some((found, _)) = done.iter().find(|(version, _)| *version > known) {
            return Err(MigrateError::Newer { found: *found, known });
        }
        for step in steps {
            let digest = hex::encode(Sha256::digest(step.sql.as_bytes()));
            match done.iter().find(|(version, _)| *version == step.version) {
                Some((_, applied)) if *applied == digest => {}
                Some(_) => return Err(MigrateError::Changed { version: step.version, name: step.name }),
                None => apply(&mut tx, self.dialect(), step, &digest, now_us).await?,
            }
        }
        tx.commit().await?;
        Ok(())
    }
}

async fn apply(
    tx: &mut Tx,
    dialect: Dialect,
    step: &Migration,
    digest: &str,
    now_us: i64,
) -> Result<(), MigrateError> {
    let failed = |source: sqlx::Error| MigrateError::Failed {
        version: step.version,
        name: step.name,
        source: source.into(),
    };
    for sql in [step.sql, own_words(step.name, dialect)].into_iter().filter(|sql| !sql.is_empty()) {
        sqlx::raw_sql(sql).execute(&mut **tx).await.map_err(failed)?;
    }
    sqlx::query("insert into schema_migrations (version, name, digest, applied_us) values ($1, $2, $3, $4)")
        .bind(step.version)
        .bind(step.name)
        .bind(digest)
        .bind(now_us)
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
    tracing::info!(version = step.version, name = step.name, "migrated");
    Ok(())
}
