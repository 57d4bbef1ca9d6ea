//! What can go wrong with the database.

use sqlx::error::ErrorKind;

/// A failure of the database. Holds no statement's values and no password.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The URL cannot be used.
    #[error("the database URL must be sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME")]
    Url,
    /// The database's answer, or that there was none.
    #[error("database: {0}")]
    Sqlx(#[from] sqlx::Error),
}

impl DbError {
    /// Whether a row with the same key is there already.
    pub fn is_unique_violation(&self) -> bool {
        self.kind() == Some(ErrorKind::UniqueViolation)
    }

    /// Whether a row that is referred to is missing, or one that is still referred to would go.
    pub fn is_foreign_key_violation(&self) -> bool {
        self.kind() == Some(ErrorKind::ForeignKeyViolation)
    }

    /// Whether the database could not be reached in time: the same request may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            DbError::Sqlx(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) => true,
            // PostgreSQL: connection exceptions, too many connections, shutting down or starting up.
            DbError::Sqlx(sqlx::Error::Database(error)) => error.code().is_some_and(|code| {
                code.starts_with("08") || ["53300", "57P01", "57P02", "57P03"].contains(&code.as_ref())
            }),
            DbError::Sqlx(_) | DbError::Url => false,
        }
    }

    /// Whether the database gave way to another transaction (deadlock, serialization, busy): the same transaction is
    /// likely to succeed when it is run again, and had no effect this time.
    pub fn is_conflict(&self) -> bool {
        match self {
            // PostgreSQL: serialization failure, deadlock. SQLite: busy, busy snapshot.
            DbError::Sqlx(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| ["40001", "40P01", "5", "517"].contains(&code.as_ref()))
            }
            DbError::Sqlx(_) | DbError::Url => false,
        }
    }

    fn kind(&self) -> Option<ErrorKind> {
        match self {
            DbError::Sqlx(sqlx::Error::Database(error)) => Some(error.kind()),
            DbError::Sqlx(_) | DbError::Url => None,
        }
    }
}
