//! Compilations over HTTP.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use object_store::ObjectStoreExt as _;
use sha2::{Digest as _, Sha256};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::job::{CompilationView, Job, Status};
use super::{path, store};
use crate::access::{Action, Caller, Resource, authorize};
use crate::app::App;
use crate::http::{Json, Page, PageQuery, Path, Problem, Query};
use crate::limits;
use crate::models::store::{self as models, Lineage};
use crate::models::store_problem;

/// What stands at the fifth byte of a TensorFlow Lite model.
const TFLITE: &[u8] = b"TFL3";

/// The routes of compilations.
pub(in crate::models) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

/// Takes a TensorFlow Lite model in, to be compiled. One that waits already is not taken twice.
pub(in crate::models) async fn enqueue(
    app: &App,
    caller: &Caller,
    model: &str,
    source: Bytes,
    mut lineage: Lineage,
) -> Result<Response, Problem> {
    if source.get(4..8) != Some(TFLITE) {
        let detail = "this is no TensorFlow Lite model: its identifier TFL3 is missing";
        return Err(Problem::unprocessable("body", detail));
    }
    let digest = hex::encode(Sha256::digest(&source));
    if !lineage.source.is_empty() && lineage.source != digest {
        let detail = format!("the body's SHA-256 is {digest}");
        return Err(Problem::unprocessable("source", detail));
    }
    lineage.source = digest;
    let job = Job {
        id: app.ids.next(),
        model: model.to_owned(),
        status: Status::Queued,
        format: "tflite".to_owned(),
        size: i64::try_from(source.len()).unwrap_or(i64::MAX),
        lineage,
        attempts: 0,
        step: String::new(),
        message: String::new(),
        version: None,
        created_us: app.clock.now_us(),
        created_by: caller.principal.id.clone(),
        changed_us: app.clock.now_us(),
    };
    // First the bytes, then the row: whoever takes it finds its source.
    let object = path(&job.id);
    app.artifacts.put(&object, source.into()).await.map_err(|error| store_problem(&job.id, &error))?;
    let inserted = insert(app, &job).await;
    if inserted.as_ref().map_or(true, |there| there.id != job.id)
        && let Err(error) = app.artifacts.delete(&object).await
    {
        tracing::warn!(%error, id = job.id, "a source that nobody compiles stays in the object store");
    }
    let job = inserted?;
    app.models.came.notify_one();
    let ahead = ahead(app, &job).await?;
    let location = format!("/api/v1/models/{model}/compilations/{}", job.id);
    let view = Json(CompilationView::new(job, ahead));
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], view).into_response())
}

/// The job, or the one that waits already with the same source.
async fn insert(app: &App, job: &Job) -> Result<Job, Problem> {
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    if !models::lock(tx, &job.model).await? {
        return Err(Problem::not_found("model", &job.model));
    }
    if let Some(there) = store::same(tx, &job.model, &job.lineage).await? {
        return Ok(there);
    }
    if store::waiting(tx).await?.len() >= limits::COMPILATIONS {
        let detail = format!("{} models wait to be compiled already", limits::COMPILATIONS);
        return Err(Problem::unavailable(detail));
    }
    store::insert(tx, job).await?;
    transaction.commit().await?;
    Ok(job.clone())
}

/// How many are compiled before this one.
async fn ahead(app: &App, job: &Job) -> Result<i64, Problem> {
    if job.status != Status::Queued {
        return Ok(0);
    }
    let waiting = store::waiting(&mut *app.db.read().acquire().await?).await?;
    let before = waiting.iter().filter(|id| **id < job.id).count();
    Ok(i64::try_from(before).unwrap_or(i64::MAX))
}

/// Lists what the server compiles for a model, or has compiled in the last 30 days, the newest first.
#[utoipa::path(get, path = "/models/{name}/compilations", operation_id = "list_compilations", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), PageQuery),
    responses((status = 200, body = Page<CompilationView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<CompilationView>>, Problem> {
    authorize(&caller, Action::Read, Resource::Model(&name))?;
    let limit = page.limit()?;
    let before = page.after::<String>()?;
    let mut db = app.db.read().acquire().await?;
    if models::get(&mut db, &name).await?.is_none() {
        return Err(Problem::not_found("model", &name));
    }
    let jobs = store::list(&mut db, &name, before, limit + 1).await?;
    let waiting = store::waiting(&mut db).await?;
    let page = Page::new(jobs, limit, |job| job.id.clone());
    Ok(Json(page.map(|job| {
        let ahead = waiting.iter().filter(|id| **id < job.id).count();
        CompilationView::new(job, i64::try_from(ahead).unwrap_or(i64::MAX))
    })))
}

/// Shows how far a compilation is, and what became of it.
#[utoipa::path(get, path = "/models/{name}/compilations/{id}", operation_id = "get_compilation", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), ("id" = String, Path, min_length = 1, max_length = 64)),
    responses((status = 200, body = CompilationView)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((name, id)): Path<(String, String)>,
) -> Result<Json<CompilationView>, Problem> {
    authorize(&caller, Action::Read, Resource::Model(&name))?;
    let found = store::get(&mut *app.db.read().acquire().await?, &id).await?;
    let job = found.filter(|job| job.model == name).ok_or_else(|| Problem::not_found("compilation", &id))?;
    let ahead = ahead(&app, &job).await?;
    Ok(Json(CompilationView::new(job, ahead)))
}
