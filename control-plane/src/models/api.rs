//! Models over HTTP.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use dunlin_protocol::limits::MAX_RELEASE;
use dunlin_protocol::{Release, Signed};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ModelVersion;
use super::aliases;
use super::compile::{self, CompilationView};
use super::delivery::deliver;
use super::publish::{add_version, put_artifact};
use super::release::{self, ReleaseRefused};
use super::store::{self, Lineage, Model, Version};
use super::view::{BaselineView, ModelView, ReleaseView, VersionView};
use crate::access::{Action, Caller, Resource, Subject, audit, authorize};
use crate::app::App;
use crate::clock::SECOND_US;
use crate::devices::{check_name, is_value};
use crate::http::{
    ClientAddress, ETag, Json, Page, PageQuery, Path, Preconditions, Problem, Query, Tagged, octets,
};
use crate::limits;
use crate::trust::{KeySet, newest_root};

/// The routes of this domain.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, change))
        .routes(routes!(upload, list_versions))
        .routes(routes!(get_version))
        .routes(routes!(get_artifact))
        .routes(routes!(fetch_artifact))
        .routes(routes!(get_baseline))
        .routes(routes!(put_release, get_release))
        .routes(routes!(get_report))
        .merge(aliases::router())
        .merge(compile::router())
}

/// A model to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateModel {
    /// Its name, for ever.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    name: String,
    /// What it is.
    #[serde(default)]
    #[schema(max_length = 1024)]
    description: String,
}

/// Changes of a model.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeModel {
    /// What it is.
    #[schema(max_length = 1024)]
    description: String,
}

fn check_description(text: &str) -> Result<(), Problem> {
    if text.chars().count() <= limits::DESCRIPTION_CHARS && !text.contains('\0') {
        return Ok(());
    }
    let detail = format!("at most {} characters are expected", limits::DESCRIPTION_CHARS);
    Err(Problem::unprocessable("/description", detail))
}

fn no_model(name: &str) -> Problem {
    Problem::not_found("model", name)
}

/// Makes a model, without versions yet.
#[utoipa::path(post, path = "/models", operation_id = "create_model", tag = "models", request_body = CreateModel,
    responses((status = 201, body = ModelView, headers(("location" = String, description = "The model's path")))))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<CreateModel>,
) -> Result<(StatusCode, [(HeaderName, String); 2], Json<ModelView>), Problem> {
    authorize(&caller, Action::PublishModels, Resource::Model(&body.name))?;
    check_name("/name", &body.name)?;
    check_description(&body.description)?;
    let model = Model {
        name: body.name,
        description: body.description,
        latest: 0,
        revision: 1,
        created_us: app.clock.now_us(),
        created_by: caller.principal.id.clone(),
    };
    let exists = || Problem::conflict(format!("there is a model {:?} already", model.name)).field("/name");
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    async {
        if store::get(tx, &model.name).await?.is_some() {
            return Err(exists());
        }
        if store::count(tx).await? >= limits::MODELS {
            return Err(Problem::conflict(format!("there are {} models already", limits::MODELS)));
        }
        store::insert(tx, &model).await.map_err(|error| match error.is_unique_violation() {
            true => exists(),
            false => error.into(),
        })?;
        let after = serde_json::json!({ "description": model.description });
        let subject = Subject::of_model("model", &model.name, &model.name);
        audit(&app, tx, &caller, "model.create", subject, None, Some(after)).await?;
        Ok::<_, Problem>(())
    }
    .await?;
    transaction.commit().await?;
    let headers = [
        (header::LOCATION, format!("/api/v1/models/{}", model.name)),
        (header::ETAG, ETag::revision(model.revision).as_str().to_owned()),
    ];
    Ok((StatusCode::CREATED, headers, Json(model.into())))
}

/// Lists models by name.
#[utoipa::path(get, path = "/models", operation_id = "list_models", tag = "models", params(PageQuery),
    responses((status = 200, body = Page<ModelView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<ModelView>>, Problem> {
    authorize(&caller, Action::Read, Resource::Listing)?;
    let limit = page.limit()?;
    let after = page.after()?;
    let mut db = app.db.read().acquire().await?;
    let models = store::list(&mut db, caller.models(), after, limit + 1).await?;
    Ok(Json(Page::new(models, limit, |model| model.name.clone()).map(ModelView::from)))
}

/// Shows a model.
#[utoipa::path(get, path = "/models/{name}", operation_id = "get_model", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64)), responses((status = 200, body = ModelView)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Tagged<ModelView>, Problem> {
    authorize(&caller, Action::Read, Resource::Model(&name))?;
    let mut db = app.db.read().acquire().await?;
    let model = store::get(&mut db, &name).await?.ok_or_else(|| no_model(&name))?;
    // The newest version changes without a new revision: the tag is for changes only.
    Ok(Tagged::new(ETag::revision(model.revision), model.into()))
}

/// Changes a model's description.
#[utoipa::path(patch, path = "/models/{name}", operation_id = "change_model", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64)), request_body = ChangeModel,
    responses((status = 200, body = ModelView)))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    preconditions: Preconditions,
    Json(body): Json<ChangeModel>,
) -> Result<Tagged<ModelView>, Problem> {
    authorize(&caller, Action::PublishModels, Resource::Model(&name))?;
    check_description(&body.description)?;
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let model = async {
        let mut model = store::get(tx, &name).await?.ok_or_else(|| no_model(&name))?;
        preconditions.require(&ETag::revision(model.revision))?;
        if model.description == body.description {
            return Ok(model);
        }
        if !store::describe(tx, &name, model.revision, &body.description).await? {
            return Err(Problem::precondition_failed());
        }
        let before = serde_json::json!({ "description": model.description });
        let after = serde_json::json!({ "description": body.description });
        let subject = Subject::of_model("model", &name, &name);
        audit(&app, tx, &caller, "model.change", subject, Some(before), Some(after)).await?;
        model.description.clone_from(&body.description);
        model.revision += 1;
        Ok::<_, Problem>(model)
    }
    .await?;
    transaction.commit().await?;
    Ok(Tagged::new(ETag::revision(model.revision), model.into()))
}

/// What is uploaded, and where it comes from.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct UploadQuery {
    /// What the body is: an artifact, or a model that the server compiles.
    #[serde(default)]
    #[param(inline)]
    format: SourceFormat,
    /// The experiment's run that the model comes from.
    #[serde(default)]
    #[param(max_length = 256)]
    run: String,
    /// SHA-256 of the data set that it was trained with, in hex.
    #[serde(default)]
    #[param(max_length = 64, pattern = "^([0-9a-f]{64})?$")]
    dataset: String,
    /// SHA-256 of what an artifact was compiled from, in hex. Of a model that the server compiles it is known.
    #[serde(default)]
    #[param(max_length = 64, pattern = "^([0-9a-f]{64})?$")]
    source: String,
}

/// What a body can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SourceFormat {
    /// A .dunlin artifact.
    #[default]
    Dunlin,
    /// A TensorFlow Lite model.
    Tflite,
}

impl UploadQuery {
    fn lineage(&self) -> Result<Lineage, Problem> {
        if !is_value(&self.run) {
            let detail = format!("at most {} characters are expected", limits::VALUE_CHARS);
            return Err(Problem::unprocessable("run", detail));
        }
        for (field, digest) in [("dataset", &self.dataset), ("source", &self.source)] {
            let is_hex = digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if !is_hex || ![0, 64].contains(&digest.len()) {
                let detail = "a SHA-256 has 64 hexadecimal digits in lower case";
                return Err(Problem::unprocessable(field, detail));
            }
        }
        let UploadQuery { run, dataset, source, .. } = self;
        Ok(Lineage { run: run.clone(), dataset: dataset.clone(), source: source.clone() })
    }
}

/// Uploads an artifact as the model's next version. The same artifact again gives the version that it already has,
/// with status 200. A model in another format is compiled in the background: the answer says where to look for it.
#[utoipa::path(post, path = "/models/{name}/versions", operation_id = "upload_version", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), UploadQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "A .dunlin artifact, or a model"),
    responses((status = 202, body = CompilationView, description = "It is going to be compiled",
            headers(("location" = String, description = "The compilation's path"))),
        (status = 201, body = VersionView, headers(("location" = String, description = "The version's path"))),
        (status = 200, body = VersionView, description = "The model has this artifact already")))]
async fn upload(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    authorize(&caller, Action::PublishModels, Resource::Model(&name))?;
    let lineage = query.lineage()?;
    let _permit = app
        .models
        .uploads
        .try_acquire()
        .map_err(|_| Problem::unavailable("too many artifacts are being uploaded"))?;
    let mut db = app.db.read().acquire().await?;
    if store::get(&mut db, &name).await?.is_none() {
        return Err(no_model(&name));
    }
    // A connection must not wait for a slow upload.
    drop(db);
    let body = octets(&headers, body, app.config.http_artifact_size.0).await?;
    if query.format == SourceFormat::Tflite {
        return compile::enqueue(&app, &caller, &name, body, lineage).await;
    }
    let version = put_artifact(&app, &name, &caller.principal.id, body, lineage, None).await?;
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let (version, is_new) = add_version(&app, tx, &caller, &version).await?;
    let keys = release_keys(tx).await?;
    let aliases = aliases::of_model(tx, &name).await?;
    transaction.commit().await?;
    let found = ModelVersion { model: version.model.clone(), version: version.version };
    app.models.remember(&version.digest, &found);
    let location = format!("/api/v1/models/{name}/versions/{}", version.version);
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [(header::LOCATION, location)], Json(VersionView::new(version, &keys, &aliases)))
        .into_response())
}

/// Lists a model's versions, the newest first.
#[utoipa::path(get, path = "/models/{name}/versions", operation_id = "list_versions", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), PageQuery),
    responses((status = 200, body = Page<VersionView>)))]
async fn list_versions(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<VersionView>>, Problem> {
    authorize(&caller, Action::Read, Resource::Model(&name))?;
    let limit = page.limit()?;
    let before = page.after()?;
    let mut db = app.db.read().acquire().await?;
    if store::get(&mut db, &name).await?.is_none() {
        return Err(no_model(&name));
    }
    let versions = store::versions(&mut db, &name, before, limit + 1).await?;
    let keys = release_keys(&mut db).await?;
    let aliases = aliases::of_model(&mut db, &name).await?;
    let page = Page::new(versions, limit, |version| version.version);
    Ok(Json(page.map(|version| VersionView::new(version, &keys, &aliases))))
}

/// The release keys that devices believe; none without a root.
async fn release_keys(db: &mut sqlx::AnyConnection) -> Result<KeySet, Problem> {
    Ok(newest_root(db).await?.map(|root| root.release_keys()).unwrap_or_default())
}

async fn find(app: &App, caller: &Caller, name: &str, number: &str) -> Result<Version, Problem> {
    authorize(caller, Action::Read, Resource::Model(name))?;
    let missing = || Problem::not_found("version", &format!("{name}/{number}"));
    let version: i64 = number.parse().map_err(|_| missing())?;
    let mut db = app.db.read().acquire().await?;
    store::version(&mut db, name, version).await?.ok_or_else(missing)
}

/// An artifact never changes: its digest is its tag.
fn tagged(version: &Version, mut response: Response) -> Response {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{}\"", version.digest)) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

/// Shows a version.
#[utoipa::path(get, path = "/models/{name}/versions/{version}", operation_id = "get_version", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), ("version" = i64, Path, minimum = 1)),
    responses((status = 200, body = VersionView)))]
async fn get_version(
    State(app): State<App>,
    caller: Caller,
    Path((name, number)): Path<(String, String)>,
) -> Result<Json<VersionView>, Problem> {
    let version = find(&app, &caller, &name, &number).await?;
    let mut db = app.db.read().acquire().await?;
    let keys = release_keys(&mut db).await?;
    let aliases = aliases::of_model(&mut db, &name).await?;
    Ok(Json(VersionView::new(version, &keys, &aliases)))
}

/// Downloads a version's artifact, or a range of it.
#[utoipa::path(get, path = "/models/{name}/versions/{version}/artifact", operation_id = "get_artifact", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), ("version" = i64, Path, minimum = 1)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>, description = "A range"),
        (status = 304, description = "The caller has it"), (status = 416, description = "The range begins behind its end")))]
async fn get_artifact(
    State(app): State<App>,
    caller: Caller,
    Path((name, number)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let version = find(&app, &caller, &name, &number).await?;
    let permit = app.models.downloads.begin()?;
    let size = version.size.unsigned_abs();
    let mut response = deliver(&app, &version.digest, size, &headers, permit).await?;
    let file = format!("attachment; filename=\"{name}-{}.dunlin\"", version.version);
    if let Ok(value) = HeaderValue::from_str(&file) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// A device's permission to fetch an artifact.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TicketQuery {
    /// The device that it was given to.
    #[param(max_length = 64)]
    device: String,
    /// Until when it is good, in seconds since 1970; 0: for ever.
    #[param(minimum = 0)]
    until: u64,
    /// That the server gave it.
    #[param(max_length = 64)]
    ticket: String,
}

/// Downloads an artifact, or a range of it. No access token is needed: a device's desired state holds the address with a
/// ticket in it.
#[utoipa::path(get, path = "/artifacts/{digest}", operation_id = "fetch_artifact", tag = "models", security(()),
    params(("digest" = String, Path, min_length = 64, max_length = 64, pattern = "^[0-9a-f]{64}$"), TicketQuery),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>, description = "A range"),
        (status = 304, description = "The caller has it"), (status = 416, description = "The range begins behind its end")))]
async fn fetch_artifact(
    State(app): State<App>,
    Extension(address): Extension<ClientAddress>,
    Path(digest): Path<String>,
    Query(query): Query<TicketQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let now_us = app.clock.now_us();
    let TicketQuery { device, until, ticket } = query;
    let is_good = app.trust.director()?.is_ticket(&ticket, &digest, &device, until);
    let is_late = until != 0 && (now_us / SECOND_US).unsigned_abs() > until;
    let entry = app.devices.directory.get(&device).filter(|entry| !entry.blocked);
    if !is_good || is_late || entry.is_none() {
        // Tickets cannot be guessed faster than an address may send requests.
        app.http.stranger(address.0, now_us)?;
        let detail = "the ticket is wrong or its time is over, or the device is unknown or blocked; the device's desired \
                      state has a good one";
        return Err(Problem::forbidden(detail));
    }
    let permit = app.models.downloads.begin_by(&device, now_us)?;
    let size = store::size(&mut *app.db.read().acquire().await?, &digest).await?;
    let size = size.ok_or_else(|| Problem::not_found("artifact", &digest))?.unsigned_abs();
    deliver(&app, &digest, size, &headers, permit).await
}

/// Shows a version's baseline: the calibration data in the bins that devices count into. 404 when the artifact was
/// compiled without `--calibrate`.
#[utoipa::path(get, path = "/models/{name}/versions/{version}/baseline", operation_id = "get_baseline", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), ("version" = i64, Path, minimum = 1)),
    responses((status = 200, body = BaselineView)))]
async fn get_baseline(
    State(app): State<App>,
    caller: Caller,
    Path((name, number)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let version = find(&app, &caller, &name, &number).await?;
    let missing = || Problem::not_found("baseline in the artifact of version", &format!("{name}/{number}"));
    if !version.has_baseline {
        return Err(missing());
    }
    let bytes = super::artifact(&app, &version.digest).await?;
    let artifact = bytes.parse().map_err(|error| Problem::internal(&error))?;
    let baseline = artifact.baseline().ok_or_else(missing)?;
    Ok(tagged(&version, Json(BaselineView::of(&baseline)).into_response()))
}

/// Shows what the compiler did. 404 when the artifact was uploaded.
#[utoipa::path(get, path = "/models/{name}/versions/{version}/report", operation_id = "get_report", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), ("version" = i64, Path, minimum = 1)),
    responses((status = 200, body = serde_json::Value)))]
async fn get_report(
    State(app): State<App>,
    caller: Caller,
    Path((name, number)): Path<(String, String)>,
) -> Result<Json<serde_json::Value>, Problem> {
    let version = find(&app, &caller, &name, &number).await?;
    let missing = || Problem::not_found("compiler's report of version", &format!("{name}/{number}"));
    let report = version.report_json.ok_or_else(missing)?;
    serde_json::from_str(&report).map(Json).map_err(|error| Problem::internal(&error))
}

/// Uploads what a model's owners have signed about a version. Every signature must be valid and by a release key of the
/// newest root. Signatures of a release that says the same are joined, so that several owners can sign one after another.
#[utoipa::path(put, path = "/models/{name}/versions/{version}/release", operation_id = "put_release", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), ("version" = i64, Path, minimum = 1)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "A signed release"),
    responses((status = 200, body = ReleaseView)))]
async fn put_release(
    State(app): State<App>,
    caller: Caller,
    Path((name, number)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ReleaseView>, Problem> {
    authorize(&caller, Action::PublishModels, Resource::Model(&name))?;
    let message = octets(&headers, body, MAX_RELEASE as u64).await?;
    let missing = || Problem::not_found("version", &format!("{name}/{number}"));
    let number: i64 = number.parse().map_err(|_| missing())?;
    let now_us = app.clock.now_us();
    let mut transaction = app.db.begin().await?;
    let tx = &mut transaction;
    let view = async {
        // Of two uploads at once the second one joins its signatures with the first one's.
        if !store::lock(tx, &name).await? {
            return Err(missing());
        }
        let version = store::version(tx, &name, number).await?.ok_or_else(missing)?;
        let keys = release_keys(tx).await?;
        let there = version.release.as_deref();
        let merged = release::merge(&message, there, &version, &keys, now_us).map_err(refused)?;
        let view = |message: &[u8]| {
            ReleaseView::new(message, &keys).ok_or_else(|| Problem::internal(&"a release cannot be read"))
        };
        if there == Some(merged.as_slice()) {
            return view(&merged);
        }
        let signed: Signed<'_, Release<'_>> =
            Signed::decode(&merged).map_err(|error| Problem::internal(&error))?;
        store::set_release(tx, &version, &merged, i64::from(signed.message.floor), now_us).await?;
        if release::is_complete(&signed, &keys) {
            // It goes along with the assignments.
            crate::devices::renew_assigned(tx, &name, number, now_us).await?;
        }
        let to_json = |message| view(message).map(|view| serde_json::json!(view));
        let (before, after) = (there.map(to_json).transpose()?, to_json(&merged)?);
        let id = format!("{name}/{number}");
        let subject = Subject::of_model("version", &id, &name);
        audit(&app, tx, &caller, "model.release", subject, before, Some(after)).await?;
        view(&merged)
    }
    .await?;
    transaction.commit().await?;
    Ok(Json(view))
}

fn refused(why: ReleaseRefused) -> Problem {
    let detail = format!("the release is refused: {why}");
    match why {
        ReleaseRefused::NoRoot | ReleaseRefused::Older | ReleaseRefused::Incomplete { .. } => {
            Problem::conflict(detail).field("body")
        }
        _ => Problem::unprocessable("body", detail),
    }
}

/// Downloads what a model's owners have signed about a version.
#[utoipa::path(get, path = "/models/{name}/versions/{version}/release", operation_id = "get_release", tag = "models",
    params(("name" = String, Path, min_length = 1, max_length = 64), ("version" = i64, Path, minimum = 1)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>)))]
async fn get_release(
    State(app): State<App>,
    caller: Caller,
    Path((name, number)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let version = find(&app, &caller, &name, &number).await?;
    let missing = || Problem::not_found("release of version", &format!("{name}/{number}"));
    let message = version.release.ok_or_else(missing)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], message).into_response())
}
