//! Enrolment keys in the database.

use std::collections::BTreeSet;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::placeholders;
use crate::db::DbError;

/// An enrolment key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) id: String,
    pub(crate) fleet: String,
    pub(crate) name: String,
    pub(crate) created_us: i64,
    pub(crate) created_by: String,
    pub(crate) expires_us: Option<i64>,
    pub(crate) use_limit: Option<i64>,
    pub(crate) used: i64,
    pub(crate) revoked_us: Option<i64>,
    /// Serial numbers that may enrol; empty: any.
    pub(crate) serials: BTreeSet<String>,
    /// Hardware classes that may enrol; empty: any.
    pub(crate) hardware: BTreeSet<String>,
}

const COLUMNS: &str = "id, fleet, name, created_us, created_by, expires_us, use_limit, used, revoked_us";

fn from_row(row: &AnyRow) -> Result<Claim, DbError> {
    Ok(Claim {
        id: row.try_get("id")?,
        fleet: row.try_get("fleet")?,
        name: row.try_get("name")?,
        created_us: row.try_get("created_us")?,
        created_by: row.try_get("created_by")?,
        expires_us: row.try_get("expires_us")?,
        use_limit: row.try_get("use_limit")?,
        used: row.try_get("used")?,
        revoked_us: row.try_get("revoked_us")?,
        serials: BTreeSet::new(),
        hardware: BTreeSet::new(),
    })
}

async fn with_allowed(db: &mut AnyConnection, mut claims: Vec<Claim>) -> Result<Vec<Claim>, DbError> {
    for chunk in claims.chunks_mut(super::CHUNK) {
        let sql = format!(
            "select claim, kind, value from claim_allows where claim in ({})",
            placeholders(0, chunk.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        for claim in chunk.iter() {
            query = query.bind(claim.id.clone());
        }
        for row in query.fetch_all(&mut *db).await? {
            let (id, kind, value): (String, String, String) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let Some(claim) = chunk.iter_mut().find(|claim| claim.id == id) else { continue };
            match kind.as_str() {
                "serial" => claim.serials.insert(value),
                _ => claim.hardware.insert(value),
            };
        }
    }
    Ok(claims)
}

pub(crate) async fn insert(db: &mut AnyConnection, claim: &Claim, digest: &str) -> Result<(), DbError> {
    sqlx::query(
        "insert into claims (id, fleet, name, digest, created_us, created_by, expires_us, use_limit, used) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, 0)",
    )
    .bind(&claim.id)
    .bind(&claim.fleet)
    .bind(&claim.name)
    .bind(digest)
    .bind(claim.created_us)
    .bind(&claim.created_by)
    .bind(claim.expires_us)
    .bind(claim.use_limit)
    .execute(&mut *db)
    .await?;
    let serials = claim.serials.iter().map(|serial| ("serial", serial));
    let allowed: Vec<_> = serials.chain(claim.hardware.iter().map(|class| ("hardware", class))).collect();
    for chunk in allowed.chunks(super::CHUNK) {
        let rows: Vec<String> =
            (0..chunk.len()).map(|index| format!("($1, ${}, ${})", 2 * index + 2, 2 * index + 3)).collect();
        let sql = format!("insert into claim_allows (claim, kind, value) values {}", rows.join(", "));
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false).bind(claim.id.clone());
        for (kind, value) in chunk {
            query = query.bind((*kind).to_owned()).bind((*value).clone());
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

pub(crate) async fn list(
    db: &mut AnyConnection,
    fleet: &str,
    before: Option<String>,
    limit: i64,
) -> Result<Vec<Claim>, DbError> {
    // Ids sort by time: the newest first.
    let older = if before.is_some() { " and id < $3" } else { "" };
    let sql = format!("select {COLUMNS} from claims where fleet = $1{older} order by id desc limit $2");
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(fleet.to_owned()).bind(limit);
    if let Some(before) = before {
        query = query.bind(before);
    }
    let claims = query.fetch_all(&mut *db).await?.iter().map(from_row).collect::<Result<_, _>>()?;
    with_allowed(db, claims).await
}

pub(crate) async fn get(db: &mut AnyConnection, id: &str) -> Result<Option<Claim>, DbError> {
    let sql = format!("select {COLUMNS} from claims where id = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(&mut *db).await?;
    let claims = row.as_ref().map(from_row).transpose()?.into_iter().collect();
    Ok(with_allowed(db, claims).await?.pop())
}

/// The key with this secret, and its row locked, so that two devices do not take its last use both.
pub(crate) async fn lock_by_digest(db: &mut AnyConnection, digest: &str) -> Result<Option<Claim>, DbError> {
    let sql = format!("update claims set used = used where digest = $1 returning {COLUMNS}");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(digest).fetch_optional(&mut *db).await?;
    let claims = row.as_ref().map(from_row).transpose()?.into_iter().collect();
    Ok(with_allowed(db, claims).await?.pop())
}

pub(crate) async fn count_use(db: &mut AnyConnection, id: &str) -> Result<(), DbError> {
    sqlx::query("update claims set used = used + 1 where id = $1").bind(id).execute(db).await?;
    Ok(())
}

pub(crate) async fn revoke(db: &mut AnyConnection, id: &str, now_us: i64) -> Result<(), DbError> {
    sqlx::query("update claims set revoked_us = $1 where id = $2 and revoked_us is null")
        .bind(now_us)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

pub(crate) async fn count(db: &mut AnyConnection, fleet: &str) -> Result<i64, DbError> {
    let row = sqlx::query("select count(*) from claims where fleet = $1 and revoked_us is null")
        .bind(fleet)
        .fetch_one(db)
        .await?;
    Ok(row.try_get(0)?)
}
