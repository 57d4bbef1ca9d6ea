//! Aliases over HTTP.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store::{self, Alias};
use crate::access::{Action, Caller, Resource, Subject, audit, authorize};
use crate::app::App;
use crate::devices::check_name;
use crate::http::{ETag, Json, Page, PageQuery, Path, Preconditions, Problem, Query, Tagged};
use crate::limits;
use crate::models::store as models;
use crate::time::Timestamp;

/// The routes of aliases.
pub(in crate::models) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, put, remove))
}

/// A name for a version of a model.
#[derive(Debug, Serialize, ToSchema)]
struct AliasView {
    /// The name.
    alias: String,
    /// The version that it names now.
    #[schema(minimum = 1)]
    version: i64,
    /// Since when.
    changed: Timestamp,
    /// The principal that said so.
    changed_by: String,
}

impl From<Alias> for AliasView {
    fn from(alias: Alias) -> Self {
        AliasView {
            alias: alias.alias,
            version: alias.version,
            changed: Timestamp(alias.changed_us),
            changed_by: alias.changed_by,
        }
    }
}

/// The version that an alias shall name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutAlias {
    /// The version.
    #[schema(minimum = 1)]
    version: i64,
}

fn missing(name: &str, alias: &str) -> Problem {
    Problem::not_found("alias", &format!("{name}@{alias}"))
}

fn to_json(alias: &Alias) -> serde_json::Value {
    serde_json::json!({ "version": alias.version })
}

/// Lists a model's aliases by name.
#[utoipa::path(get, path = "/models/{name}/aliases", operation_id = "list_aliases", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), PageQuery),
    responses((status = 200, body = Page<AliasView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<AliasView>>, Problem> {
    authorize(&caller, Action::Read, Resource::Model(&name))?;
    let limit = page.limit()?;
    let after = page.after::<String>()?.unwrap_or_default();
    let mut db = app.db.read().acquire().await?;
    if models::get(&mut db, &name).await?.is_none() {
        return Err(Problem::not_found("model", &name));
    }
    let mut aliases = store::of_model(&mut db, &name).await?;
    aliases.retain(|alias| alias.alias > after);
    Ok(Json(Page::new(aliases, limit, |alias| alias.alias.clone()).map(AliasView::from)))
}

/// Shows which version an alias names.
#[utoipa::path(get, path = "/models/{name}/aliases/{alias}", operation_id = "get_alias", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), ("alias" = String, Path, min_length = 1, max_length = 64)),
    responses((status = 200, body = AliasView)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((name, alias)): Path<(String, String)>,
    preconditions: Preconditions,
) -> Result<Tagged<AliasView>, Problem> {
    authorize(&caller, Action::Read, Resource::Model(&name))?;
    let mut db = app.db.read().acquire().await?;
    let found = store::get(&mut db, &name, &alias).await?.ok_or_else(|| missing(&name, &alias))?;
    Ok(Tagged::get(&preconditions, ETag::revision(found.revision), found.into()))
}

/// Makes an alias name a version. One that is not there yet has the tag `"0"`.
#[utoipa::path(put, path = "/models/{name}/aliases/{alias}", operation_id = "put_alias", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64),
        ("alias" = String, Path, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")),
    request_body = PutAlias, responses((status = 200, body = AliasView)))]
async fn put(
    State(app): State<App>,
    caller: Caller,
    Path((name, alias)): Path<(String, String)>,
    preconditions: Preconditions,
    Json(body): Json<PutAlias>,
) -> Result<Tagged<AliasView>, Problem> {
    authorize(&caller, Action::PublishModels, Resource::Model(&name))?;
    check_name("alias", &alias)?;
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let after = async {
        if !models::lock(tx, &name).await? {
            return Err(Problem::not_found("model", &name));
        }
        let there = store::of_model(tx, &name).await?;
        let before = there.iter().find(|there| there.alias == alias);
        let revision = before.map_or(0, |before| before.revision);
        preconditions.require(&ETag::revision(revision))?;
        if models::version(tx, &name, body.version).await?.is_none() {
            let detail = format!("there is no version {} of the model {name:?}", body.version);
            return Err(Problem::unprocessable("/version", detail));
        }
        if let Some(before) = before.filter(|before| before.version == body.version) {
            return Ok(before.clone());
        }
        if before.is_none() && there.len() >= limits::ALIASES {
            return Err(Problem::conflict(format!("the model has {} aliases already", limits::ALIASES)));
        }
        let after = Alias {
            alias: alias.clone(),
            version: body.version,
            revision: revision + 1,
            changed_us: app.clock.now_us(),
            changed_by: caller.principal.id.clone(),
        };
        store::put(tx, &name, &after).await?;
        let id = format!("{name}@{alias}");
        let subject = Subject::of_model("alias", &id, &name);
        audit(&app, tx, &caller, "model.alias", subject, before.map(to_json), Some(to_json(&after))).await?;
        Ok::<_, Problem>(after)
    }
    .await?;
    transaction.commit().await?;
    Ok(Tagged::new(ETag::revision(after.revision), after.into()))
}

/// Removes an alias. The version stays.
#[utoipa::path(delete, path = "/models/{name}/aliases/{alias}", operation_id = "delete_alias", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), ("alias" = String, Path, min_length = 1, max_length = 64)),
    responses((status = 204, description = "It is gone")))]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path((name, alias)): Path<(String, String)>,
    preconditions: Preconditions,
) -> Result<StatusCode, Problem> {
    authorize(&caller, Action::PublishModels, Resource::Model(&name))?;
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    async {
        if !models::lock(tx, &name).await? {
            return Err(Problem::not_found("model", &name));
        }
        let before = store::get(tx, &name, &alias).await?.ok_or_else(|| missing(&name, &alias))?;
        preconditions.check(&ETag::revision(before.revision))?;
        store::delete(tx, &name, &alias).await?;
        let id = format!("{name}@{alias}");
        let subject = Subject::of_model("alias", &id, &name);
        audit(&app, tx, &caller, "model.delete_alias", subject, Some(to_json(&before)), None).await?;
        Ok::<_, Problem>(())
    }
    .await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
