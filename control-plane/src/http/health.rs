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

/// The routes outside of the API.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
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

/// Says whether the process can work: the database answers, the way to the devices is open, and it is not stopping.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "health", security(()),
    responses((status = 200, body = Health), (status = 503, description = "Not now", body = Problem,
        content_type = "application/problem+json")))]
async fn readyz(State(app): State<App>) -> Result<Json<Health>, Problem> {
    if app.shutdown.is_cancelled() {
        return Err(Problem::unavailable("the process is stopping"));
    }
    if app.bus().is_none() {
        return Err(Problem::unavailable("the way to the devices is not open yet"));
    }
    app.db.ping().await?;
    Ok(Json(Health { status: "ok" }))
}

/// Numbers for Prometheus, in OpenMetrics' text format. Give the scraper a token with the role viewer.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "health",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
async fn metrics(State(app): State<App>, caller: Caller) -> Result<impl IntoResponse, Problem> {
    authorize(&caller, Action::Read, Resource::Installation)?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], app.metrics.encode(&app)))
}
