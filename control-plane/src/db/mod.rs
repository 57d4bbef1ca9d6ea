//! The database: SQLite or PostgreSQL behind one set of SQL texts.
//!
//! Rules for SQL in this crate:
//! - placeholders are `$1`, `$2`, …; times are `BIGINT` microseconds UTC; booleans are `BIGINT` 0 or 1; JSON and ids are
//!   `TEXT`; bytes are `BLOB` (on PostgreSQL a domain over `bytea`); real numbers are `DOUBLE PRECISION`;
//! - bind `i64`, never smaller integers, and `Option<String>` rather than untyped NULLs: PostgreSQL checks types;
//! - `sqlx::QueryBuilder` writes `?`, which PostgreSQL does not know: number placeholders by hand;
//! - `sum` and `avg` of integers are `NUMERIC` on PostgreSQL: write `cast(sum(n) as bigint)`;
//! - several writing statements go through [`Db::begin`], a single one through [`Db::write`], reads through
//!   [`Db::read`]. On SQLite there is exactly one write connection: a transaction must not wait for anything but the
//!   database, and never ask [`Db::write`] for a second connection;
//! - PostgreSQL works at its default level (read committed): a decision that rests on what was read in the
//!   transaction locks it (`update … returning`, `insert … on conflict … returning`), and rows are locked in the order
//!   of their keys. What is left are deadlocks, told by [`DbError::is_conflict`]: background work tries again, HTTP
//!   answers 503 with `Retry-After`.

mod error;
pub mod lease;
mod migrate;
#[cfg(test)]
mod tests;

use std::str::FromStr as _;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{Any, AnyPool, Connection as _, Transaction};

pub use error::DbError;
pub use migrate::{MigrateError, Migration, migrations};

use crate::limits;

/// A transaction under way.
pub type Tx = Transaction<'static, Any>;

/// Which database is behind the pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// One file, one process at a time writes.
    Sqlite,
    /// A server, shared by several processes.
    Postgres,
}

/// The database's connections.
#[derive(Clone, Debug)]
pub struct Db {
    dialect: Dialect,
    read: AnyPool,
    write: AnyPool,
}

impl Db {
    /// Connects; `url` begins with `sqlite:` or `postgres:`.
    ///
    /// # Errors
    /// When the URL names another kind of database or nothing answers there. The error never holds the URL's password.
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self, DbError> {
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of(url)?;
        let options = AnyConnectOptions::from_str(url).map_err(|_| DbError::Url)?;
        match dialect {
            Dialect::Sqlite => {
                let write = pool(1).after_connect(|connection, _| {
                    Box::pin(async move {
                        // FULL: what was acknowledged survives a loss of power, not only the end of the process.
                        sqlx::raw_sql("pragma journal_mode = wal; pragma synchronous = full; pragma busy_timeout = 10000; \
                                       pragma foreign_keys = on;")
                            .execute(connection)
                            .await
                            .map(|_| ())
                    })
                });
                // When a commit fails (disk full) SQLite may have undone the transaction by itself. The driver's own
                // attempt then fails and leaves it open in the driver's books, and no other could ever begin.
                let write = write.before_acquire(|connection, _| {
                    Box::pin(async move { Ok(!connection.is_in_transaction()) })
                });
                let read = pool(limits::SQLITE_READERS).after_connect(|connection, _| {
                    Box::pin(async move {
                        sqlx::raw_sql("pragma busy_timeout = 10000; pragma query_only = on;")
                            .execute(connection)
                            .await
                            .map(|_| ())
                    })
                });
                let write = write.connect_with(options.clone()).await?;
                Ok(Db { dialect, read: read.connect_with(options).await?, write })
            }
            Dialect::Postgres => {
                let both = pool(max_connections).connect_with(options).await?;
                Ok(Db { dialect, read: both.clone(), write: both })
            }
        }
    }

    /// Which database this is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Connections for reading.
    pub fn read(&self) -> &AnyPool {
        &self.read
    }

    /// Connections for a single writing statement. Several statements belong into [`Db::begin`].
    pub fn write(&self) -> &AnyPool {
        &self.write
    }

    /// Begins a transaction that may write. Dropping it without [`Transaction::commit`] undoes it.
    ///
    /// # Errors
    /// When the database cannot be reached or stays locked.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        let statement = match self.dialect {
            // A deferred transaction that turns from reading to writing can fail at once, without waiting.
            Dialect::Sqlite => "begin immediate",
            Dialect::Postgres => "begin",
        };
        Ok(self.write.begin_with(statement).await?)
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ping(&self) -> Result<(), DbError> {
        sqlx::query("select 1").execute(&self.read).await?;
        Ok(())
    }

    /// Closes all connections, after what is under way.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

impl Dialect {
    fn of(url: &str) -> Result<Self, DbError> {
        match url.split(':').next() {
            Some("sqlite") => Ok(Dialect::Sqlite),
            Some("postgres" | "postgresql") => Ok(Dialect::Postgres),
            _ => Err(DbError::Url),
        }
    }
}

fn pool(connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new().max_connections(connections).acquire_timeout(limits::DATABASE_ACQUIRE)
}
