//! Models in the database.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::ModelVersion;
use crate::access::Visible;
use crate::db::DbError;

/// A model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// The number of its newest version; 0 without versions.
    pub latest: i64,
    /// Grows with every change.
    pub revision: i64,
    /// When it was made.
    pub created_us: i64,
    /// By whom.
    pub created_by: String,
}

/// A version of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The model's name.
    pub model: String,
    /// The number, from 1.
    pub version: i64,
    /// The artifact's digest in hex.
    pub digest: String,
    /// The artifact's length in bytes.
    pub size: i64,
    /// What the artifact says about itself, as JSON.
    pub manifest_json: String,
    /// Whether it has a baseline.
    pub has_baseline: bool,
    /// When it was uploaded.
    pub created_us: i64,
    /// By whom.
    pub created_by: String,
    /// What the model's owners signed about it, with the signatures.
    pub release: Option<Vec<u8>>,
    /// Where it comes from.
    pub lineage: Lineage,
    /// What the compiler did, as JSON, if the server compiled it.
    pub report_json: Option<String>,
}

/// Where a version comes from, as whoever published it says; what they do not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The experiment's run.
    pub run: String,
    /// SHA-256 of the data set, in hex.
    pub dataset: String,
    /// SHA-256 of the source, in hex.
    pub source: String,
}

const MODEL: &str = "select name, description, next_version, revision, created_us, created_by from models";
const VERSION: &str = "select v.model, v.version, v.digest, v.size, v.manifest_json, v.has_baseline, v.created_us, \
                       v.created_by, v.run, v.dataset, v.source, v.report_json, r.message from model_versions v \
                       left join model_releases r on r.model = v.model and r.version = v.version";

fn model_from_row(row: &AnyRow) -> Result<Model, DbError> {
    Ok(Model {
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        latest: row.try_get::<i64, _>("next_version")? - 1,
        revision: row.try_get("revision")?,
        created_us: row.try_get("created_us")?,
        created_by: row.try_get("created_by")?,
    })
}

fn version_from_row(row: &AnyRow) -> Result<Version, DbError> {
    Ok(Version {
        model: row.try_get("model")?,
        version: row.try_get("version")?,
        digest: row.try_get("digest")?,
        size: row.try_get("size")?,
        manifest_json: row.try_get("manifest_json")?,
        has_baseline: row.try_get::<i64, _>("has_baseline")? != 0,
        created_us: row.try_get("created_us")?,
        created_by: row.try_get("created_by")?,
        release: row.try_get("message")?,
        lineage: Lineage {
            run: row.try_get("run")?,
            dataset: row.try_get("dataset")?,
            source: row.try_get("source")?,
        },
        report_json: Some(row.try_get::<String, _>("report_json")?).filter(|report| !report.is_empty()),
    })
}

pub(super) async fn get(db: &mut AnyConnection, name: &str) -> Result<Option<Model>, DbError> {
    let sql = format!("{MODEL} where name = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(name).fetch_optional(db).await?;
    row.as_ref().map(model_from_row).transpose()
}

pub(super) async fn list(
    db: &mut AnyConnection,
    visible: Visible<'_>,
    after: Option<String>,
    limit: i64,
) -> Result<Vec<Model>, DbError> {
    let only = match visible {
        Visible::All => "",
        Visible::Only(_) => " and name = $3",
        Visible::Nothing => return Ok(Vec::new()),
    };
    let sql = format!("{MODEL} where name > $1{only} order by name limit $2");
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(after.unwrap_or_default()).bind(limit);
    if let Visible::Only(name) = visible {
        query = query.bind(name.to_owned());
    }
    query.fetch_all(db).await?.iter().map(model_from_row).collect()
}

pub(super) async fn count(db: &mut AnyConnection) -> Result<i64, DbError> {
    Ok(sqlx::query("select count(*) from models").fetch_one(db).await?.try_get(0)?)
}

pub(super) async fn insert(db: &mut AnyConnection, model: &Model) -> Result<(), DbError> {
    sqlx::query(
        "insert into models (name, description, next_version, revision, created_us, created_by) \
         values ($1, $2, 1, $3, $4, $5)",
    )
    .bind(&model.name)
    .bind(&model.description)
    .bind(model.revision)
    .bind(model.created_us)
    .bind(&model.created_by)
    .execute(db)
    .await?;
    Ok(())
}

/// Writes the description with the next revision; false when the revision is not `revision` any more.
pub(super) async fn describe(
    db: &mut AnyConnection,
    name: &str,
    revision: i64,
    description: &str,
) -> Result<bool, DbError> {
    let done = sqlx::query(
        "update models set description = $1, revision = revision + 1 where name = $2 and revision = $3",
    )
    .bind(description)
    .bind(name)
    .bind(revision)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The number of the next version, which no other upload gets, and the model's row locked; `None` when there is no
/// such model.
pub(super) async fn next_version(db: &mut AnyConnection, name: &str) -> Result<Option<i64>, DbError> {
    let row = sqlx::query(
        "update models set next_version = next_version + 1 where name = $1 returning next_version",
    )
    .bind(name)
    .fetch_optional(db)
    .await?;
    row.map(|row| Ok(row.try_get::<i64, _>(0)? - 1)).transpose()
}

pub(super) async fn insert_version(db: &mut AnyConnection, version: &Version) -> Result<(), DbError> {
    sqlx::query(
        "insert into model_versions (model, version, digest, size, manifest_json, has_baseline, created_us, \
         created_by, run, dataset, source, report_json) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(&version.model)
    .bind(version.version)
    .bind(&version.digest)
    .bind(version.size)
    .bind(&version.manifest_json)
    .bind(i64::from(version.has_baseline))
    .bind(version.created_us)
    .bind(&version.created_by)
    .bind(&version.lineage.run)
    .bind(&version.lineage.dataset)
    .bind(&version.lineage.source)
    .bind(version.report_json.as_deref().unwrap_or_default())
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn version(
    db: &mut AnyConnection,
    model: &str,
    version: i64,
) -> Result<Option<Version>, DbError> {
    let sql = format!("{VERSION} where v.model = $1 and v.version = $2");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(model).bind(version).fetch_optional(db).await?;
    row.as_ref().map(version_from_row).transpose()
}

/// Versions of a model, the newest first, those below `before`.
pub(super) async fn versions(
    db: &mut AnyConnection,
    model: &str,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Version>, DbError> {
    let sql = format!("{VERSION} where v.model = $1 and v.version < $2 order by v.version desc limit $3");
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(model)
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(db)
        .await?;
    rows.iter().map(version_from_row).collect()
}

pub(super) async fn by_digest(db: &mut AnyConnection, digest: &str) -> Result<Option<ModelVersion>, DbError> {
    let row = sqlx::query("select model, version from model_versions where digest = $1")
        .bind(digest)
        .fetch_optional(db)
        .await?;
    row.map(|row| Ok(ModelVersion { model: row.try_get(0)?, version: row.try_get(1)? })).transpose()
}

/// The length of the artifact with this digest, if a version has it.
pub(super) async fn size(db: &mut AnyConnection, digest: &str) -> Result<Option<i64>, DbError> {
    let row = sqlx::query("select size from model_versions where digest = $1")
        .bind(digest)
        .fetch_optional(db)
        .await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// Gives back the number that [`next_version`] has just taken; the model's row is still locked.
pub(super) async fn give_back(db: &mut AnyConnection, name: &str) -> Result<(), DbError> {
    sqlx::query("update models set next_version = next_version - 1 where name = $1")
        .bind(name)
        .execute(db)
        .await?;
    Ok(())
}

/// Locks the model until the end of the transaction; false when there is no such model.
pub(super) async fn lock(db: &mut AnyConnection, name: &str) -> Result<bool, DbError> {
    let done = sqlx::query("update models set next_version = next_version where name = $1")
        .bind(name)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes a version's release; versions below `lowest` are withdrawn by it.
pub(super) async fn set_release(
    db: &mut AnyConnection,
    version: &Version,
    message: &[u8],
    lowest: i64,
    now_us: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "insert into model_releases (model, version, message, lowest, changed_us) values ($1, $2, $3, $4, $5) \
         on conflict (model, version) do update set message = excluded.message, lowest = excluded.lowest, \
         changed_us = excluded.changed_us",
    )
    .bind(version.model.clone())
    .bind(version.version)
    .bind(message.to_vec())
    .bind(lowest)
    .bind(now_us)
    .execute(db)
    .await?;
    Ok(())
}

/// The releases of the model that withdraw the version, if enough keys have signed them.
pub(super) async fn withdrawing(
    db: &mut AnyConnection,
    model: &str,
    version: i64,
) -> Result<Vec<Vec<u8>>, DbError> {
    let rows = sqlx::query("select message from model_releases where model = $1 and lowest > $2")
        .bind(model)
        .bind(version)
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
