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

    /// Whether the database could not be reached in time, or cannot write now (disk full, read-only after a fail-over):
    /// the same request may succeed later, and had no effect this time.
    pub fn is_unavailable(&self) -> bool {
        match self {
            DbError::Sqlx(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) => true,
            DbError::Sqlx(sqlx::Error::Database(_)) => match self.code() {
                // I/O error, disk full, the file cannot be opened.
                Some(Code::Sqlite(code)) => matches!(code, 10 | 13 | 14),
                // Connection exceptions, insufficient resources (disk, memory, connections), shutting down or starting
                // up, read-only.
                Some(Code::Postgres(code)) => {
                    code.starts_with("08")
                        || code.starts_with("53")
                        || ["57P01", "57P02", "57P03", "25006"].contains(&code.as_str())
                }
                None => false,
            },
            DbError::Sqlx(_) | DbError::Url => false,
        }
    }

    /// Why the database is not available, for those who wait for it: nothing about the installation but what helps.
    pub fn reason(&self) -> &'static str {
        match self.code() {
            Some(Code::Sqlite(13)) => "the disk of the database is full",
            Some(Code::Postgres(code)) if code == "53100" => "the disk of the database is full",
            _ => "the database is not available",
        }
    }

    /// Whether the database gave way to another transaction (deadlock, serialization, busy): the same transaction is
    /// likely to succeed when it is run again, and had no effect this time.
    pub fn is_conflict(&self) -> bool {
        match self.code() {
            // Busy, locked.
            Some(Code::Sqlite(code)) => matches!(code, 5 | 6),
            // Serialization failure, deadlock, lock not available.
            Some(Code::Postgres(code)) => ["40001", "40P01", "55P03"].contains(&code.as_str()),
            None => false,
        }
    }

    fn code(&self) -> Option<Code> {
        let DbError::Sqlx(sqlx::Error::Database(error)) = self else { return None };
        let code = error.code()?;
        Some(match code.parse::<u32>() {
            // PostgreSQL's codes have five characters, SQLite's at most four.
            Ok(number) if code.len() < 5 => Code::Sqlite(number & 0xff),
            _ => Code::Postgres(code.into_owned()),
        })
    }

    fn kind(&self) -> Option<ErrorKind> {
        match self {
            DbError::Sqlx(sqlx::Error::Database(error)) => Some(error.kind()),
            DbError::Sqlx(_) | DbError::Url => None,
        }
    }
}

/// A database's own number for what went wrong.
enum Code {
    /// SQLite's primary result code: the low byte of the extended one.
    Sqlite(u32),
    /// PostgreSQL's five characters (SQLSTATE).
    Postgres(String),
}
