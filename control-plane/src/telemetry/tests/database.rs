//! A fresh database for each test.

use crate::db::{Db, migrations};

/// A database that is deleted with the value.
pub(super) struct Database {
    pub(super) db: Db,
    pub(super) url: String,
    _folder: Option<tempfile::TempDir>,
}

impl Database {
    /// SQLite in a file.
    pub(super) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}?mode=rwc", folder.path().join("t.sqlite").display());
        let db = Db::connect(&url, 4).await.expect("a database");
        db.migrate(migrations(), 0).await.expect("the schema");
        Database { db, url, _folder: Some(folder) }
    }

    /// A database of its own on the PostgreSQL server that `DUNLIN_TEST_POSTGRES` names (its URL ends in a database to
    /// connect to).
    pub(super) async fn postgres() -> Self {
        let base = std::env::var("DUNLIN_TEST_POSTGRES").expect(
            "DUNLIN_TEST_POSTGRES must hold the URL of a PostgreSQL server for tests; `cargo xtask test` starts one",
        );
        let admin = Db::connect(&base, 1).await.expect("a server");
        let name = format!("telemetry_{}", uuid::Uuid::now_v7().simple());
        let create = sqlx::AssertSqlSafe(format!("create database {name}"));
        sqlx::raw_sql(create).execute(admin.write()).await.expect("a database");
        admin.close().await;
        let (server, _) = base.rsplit_once('/').expect("the URL ends in a database's name");
        let url = format!("{server}/{name}");
        let db = Db::connect(&url, 8).await.expect("a database");
        db.migrate(migrations(), 0).await.expect("the schema");
        Database { db, url, _folder: None }
    }

    /// Another process' connections to the same database.
    pub(super) async fn again(&self) -> Db {
        Db::connect(&self.url, 4).await.expect("a database")
    }
}

/// Makes two tests of one: on SQLite, and on PostgreSQL (ignored unless asked for, as it needs a server).
macro_rules! on_both {
    ($($(#[doc = $doc:literal])* async fn $name:ident($database:ident: Database) $body:block)*) => {
        $(mod $name {
            use super::*;

            $(#[doc = $doc])*
            async fn test($database: Database) $body

            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                test(Database::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs PostgreSQL; see DUNLIN_TEST_POSTGRES"]
            async fn postgres() {
                test(Database::postgres().await).await;
            }
        })*
    };
}

pub(super) use on_both;
