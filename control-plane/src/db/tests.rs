//! Migrations, leases and transactions on a real database.

use std::time::Duration;

use super::lease::Lease;
use super::{Db, Dialect, Migration, migrations};
use crate::testing::{START_US, database_url};

const SECOND_US: i64 = 1_000_000;

/// An empty database, its URL, and the folder that it may be in.
async fn empty() -> (Db, String, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = database_url(folder.path()).await;
    (Db::connect(&url, 4).await.expect("a database"), url, folder)
}

const ONE: Migration =
    Migration { version: 1, name: "core", sql: include_str!("../../migrations/0001_core.sql") };
const TWO: Migration =
    Migration { version: 2, name: "two", sql: "create table two (a bigint not null, b blob);" };

#[tokio::test]
async fn migrations_run_once_and_in_order() {
    let (db, _, _folder) = empty().await;
    db.migrate(&[ONE], START_US).await.expect("migrated");
    db.migrate(&[ONE, TWO], START_US + 1).await.expect("migrated");
    db.migrate(&[ONE, TWO], START_US + 2).await.expect("nothing to do");
    let rows: Vec<(i64, String, i64)> =
        sqlx::query_as("select version, name, applied_us from schema_migrations order by version")
            .fetch_all(db.read())
            .await
            .expect("rows");
    assert_eq!(rows, [(1, "core".to_owned(), START_US), (2, "two".to_owned(), START_US + 1)]);
}

#[tokio::test]
async fn all_migrations_of_this_program_run() {
    let (db, _, _folder) = empty().await;
    db.migrate(migrations(), START_US).await.expect("migrated");
    let versions: Vec<i64> = migrations().iter().map(|step| step.version).collect();
    let mut sorted = versions.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(versions, sorted, "versions grow");
}

#[tokio::test]
async fn a_newer_database_and_a_changed_step_are_refused() {
    let (db, _, _folder) = empty().await;
    db.migrate(&[ONE, TWO], START_US).await.expect("migrated");
    let newer = db.migrate(&[ONE], START_US).await.expect_err("newer");
    assert_eq!(
        newer.to_string(),
        "the database has schema version 2, this program knows versions up to 1; start the newer program, or restore a \
         backup that was made before the upgrade"
    );
    let other = Migration { sql: "create table other (a bigint);", ..TWO };
    let changed = db.migrate(&[ONE, other], START_US).await.expect_err("changed");
    assert!(changed.to_string().starts_with("migration 2 (two) ran with another text"), "{changed}");
}

#[tokio::test]
async fn a_failing_step_leaves_nothing_behind() {
    let (db, _, _folder) = empty().await;
    let broken =
        Migration { version: 3, name: "broken", sql: "create table three (a bigint); create tabel x;" };
    let error = db.migrate(&[ONE, TWO, broken], START_US).await.expect_err("broken");
    assert!(error.to_string().starts_with("migration 3 (broken): database:"), "{error}");
    db.migrate(&[ONE, TWO], START_US).await.expect("as if nothing had happened");
}

#[tokio::test]
async fn processes_that_start_together_migrate_once() {
    let (db, url, _folder) = empty().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let url = url.clone();
        tasks.spawn(async move {
            let db = Db::connect(&url, 2).await.expect("a database");
            db.migrate(migrations(), START_US).await.expect("migrated");
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("no panic");
    }
    let count: i64 = sqlx::query_scalar("select count(*) from schema_migrations")
        .fetch_one(db.read())
        .await
        .expect("a count");
    assert_eq!(count, migrations().len() as i64);
}

#[tokio::test]
async fn a_lease_is_held_by_one_and_taken_over_when_it_ends() {
    let (db, _, _folder) = empty().await;
    db.migrate(migrations(), START_US).await.expect("migrated");
    let length = Duration::from_secs(10);
    let (a, b) = (Lease::new("work", "a", length), Lease::new("work", "b", length));
    let at = |second: i64| START_US + second * SECOND_US;
    assert!(a.acquire(&db, at(0)).await.expect("asked"));
    assert!(!b.acquire(&db, at(9)).await.expect("asked"));
    assert!(a.acquire(&db, at(9)).await.expect("renewed"));
    assert!(!b.acquire(&db, at(18)).await.expect("asked"));
    assert!(b.acquire(&db, at(19)).await.expect("taken over"), "ten seconds after the last renewal");
    assert!(!a.acquire(&db, at(20)).await.expect("asked"));
    a.release(&db).await.expect("not its own");
    assert!(!a.acquire(&db, at(20)).await.expect("asked"));
    b.release(&db).await.expect("released");
    assert!(a.acquire(&db, at(20)).await.expect("asked"), "at once after a release");
    let other = Lease::new("other work", "b", length);
    assert!(other.acquire(&db, at(20)).await.expect("asked"));
    // The clock goes back by a minute, and a has died: b need not wait for that minute.
    assert!(b.acquire(&db, at(-40)).await.expect("taken over"));
    assert!(!a.acquire(&db, at(-35)).await.expect("asked"));
}

#[tokio::test]
async fn every_type_goes_there_and_back() {
    let (db, _, _folder) = empty().await;
    let step = Migration {
        version: 1,
        name: "types",
        sql: "create table types (i bigint, t text, d double precision, b blob);",
    };
    db.migrate(&[step], START_US).await.expect("migrated");
    type Row = (Option<i64>, Option<String>, Option<f64>, Option<Vec<u8>>);
    let rows: [Row; 2] = [
        (Some(i64::MIN), Some("é\u{1F426}'\"".to_owned()), Some(0.1), Some(vec![0, 255])),
        (None, None, None, None),
    ];
    for (i, t, d, b) in &rows {
        sqlx::query("insert into types (i, t, d, b) values ($1, $2, $3, $4)")
            .bind(*i)
            .bind(t.clone())
            .bind(*d)
            .bind(b.clone())
            .execute(db.write())
            .await
            .expect("inserted");
    }
    let read: Vec<Row> =
        sqlx::query_as("select i, t, d, b from types order by i").fetch_all(db.read()).await.expect("rows");
    for row in &rows {
        assert!(read.contains(row), "{read:?}");
    }
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing_behind_and_writers_wait_for_one_another() {
    let (db, _, _folder) = empty().await;
    db.migrate(&[ONE, TWO], START_US).await.expect("migrated");
    let count = async || -> i64 {
        sqlx::query_scalar("select count(*) from two").fetch_one(db.read()).await.expect("a count")
    };
    let mut tx = db.begin().await.expect("begun");
    sqlx::query("insert into two (a) values (1)").execute(&mut *tx).await.expect("inserted");
    drop(tx);
    assert_eq!(count().await, 0);
    let mut tasks = tokio::task::JoinSet::new();
    for a in 0..8_i64 {
        let db = db.clone();
        tasks.spawn(async move {
            let mut tx = db.begin().await.expect("begun");
            sqlx::query("insert into two (a) values ($1)").bind(a).execute(&mut *tx).await.expect("inserted");
            tokio::task::yield_now().await;
            tx.commit().await.expect("committed");
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("no panic");
    }
    assert_eq!(count().await, 8);
}

#[tokio::test]
async fn errors_know_their_kind() {
    let (db, _, _folder) = empty().await;
    db.migrate(&[ONE], START_US).await.expect("migrated");
    let insert = async || {
        let result = sqlx::query("insert into leases (name, holder, expires_us) values ('a', 'b', 1)")
            .execute(db.write())
            .await;
        result.map_err(super::DbError::from)
    };
    insert().await.expect("the first");
    let again = insert().await.expect_err("the second");
    assert!(again.is_unique_violation() && !again.is_foreign_key_violation(), "{again}");
    assert!(!again.is_unavailable() && !again.is_conflict(), "{again}");
    db.close().await;
    let closed = insert().await.expect_err("closed");
    assert!(closed.is_unavailable(), "{closed}");
    for url in ["mysql://user:secret@host/name", "secret", ""] {
        let error = Db::connect(url, 1).await.expect_err("no such database");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert!(matches!(db.dialect(), Dialect::Sqlite | Dialect::Postgres));
}
