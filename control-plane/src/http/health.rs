//! Health, readiness, and numbers for Prometheus.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Json;
use super::problem::Problem;
use crate::access::{Action, Caller, Resource, authorize};
use crate::app::App;
use crate::db::Dialect;
use crate::time::Timestamp;

/// The routes outside of the API.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// The routes inside of the API.
pub(super) fn api_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(status))
}

/// A sign of life.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always `ok`; a process that is not well answers with a problem.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Says that the process runs.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "health", security(()),
    responses((status = 200, body = Health)))]
async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Says whether the process can work: the database answers and takes what devices report, the way to the devices is
/// open, and it is not stopping.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "health", security(()),
    responses((status = 200, body = Health), (status = 503, description = "Not now", body = Problem,
        content_type = "application/problem+json")))]
async fn readyz(State(app): State<App>) -> Result<Json<Health>, Problem> {
    if app.shutdown.is_cancelled() {
        return Err(Problem::unavailable("the process is stopping"));
    }
    match app.bus() {
        None => return Err(Problem::unavailable("the way to the devices is not open yet")),
        Some(bus) if !bus.is_ready() => {
            return Err(Problem::unavailable("the MQTT broker cannot be reached"));
        }
        Some(_) => {}
    }
    app.db.ping().await?;
    if let Some(reason) = app.telemetry.obstacle.reason() {
        return Err(Problem::unavailable(format!(
            "{reason}: what devices report cannot be stored; they keep it meanwhile"
        )));
    }
    Ok(Json(Health { status: "ok" }))
}

/// What a server process is and does now, and how many devices are connected to all of them.
#[derive(Debug, Serialize, ToSchema)]
struct Status {
    /// The program's version.
    version: &'static str,
    /// The process' id among others, as in leases.
    process: String,
    /// When the process started.
    started: Timestamp,
    /// The process' time.
    now: Timestamp,
    /// `sqlite` or `postgres`.
    database: &'static str,
    /// `embedded` or `external`.
    broker: &'static str,
    /// Devices that the caller sees and that are connected, whichever process they are connected to; with an external
    /// broker, which does not tell, those that were heard of in the last three minutes.
    #[schema(minimum = 0)]
    devices_connected: i64,
}

/// Says what the process that answers is and does now.
#[utoipa::path(get, path = "/status", operation_id = "status", tag = "health", responses((status = 200, body = Status)))]
async fn status(State(app): State<App>, caller: Caller) -> Result<Json<Status>, Problem> {
    authorize(&caller, Action::Read, Resource::Listing)?;
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        process: app.process.clone(),
        started: Timestamp(app.started_us),
        now: Timestamp(app.clock.now_us()),
        database: match app.db.dialect() {
            Dialect::Sqlite => "sqlite",
            Dialect::Postgres => "postgres",
        },
        broker: if app.config.broker_url.is_some() { "external" } else { "embedded" },
        devices_connected: crate::devices::count_connected(&app, caller.fleets()).await?,
    }))
}

/// Numbers for Prometheus, in OpenMetrics' text format. Give the scraper a token with the role viewer.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "health",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
async fn metrics(State(app): State<App>, caller: Caller) -> Result<impl IntoResponse, Problem> {
    authorize(&caller, Action::Read, Resource::Installation)?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], app.metrics.encode(&app)))
}
