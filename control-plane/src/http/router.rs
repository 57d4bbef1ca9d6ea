//! The routes of all domains.

use axum::Router;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// Everything that the process serves over HTTP.
pub fn router(app: &App) -> Router {
    let api = OpenApiRouter::new().merge(crate::access::router());
    let (router, _openapi) = OpenApiRouter::new().nest("/api/v1", api).split_for_parts();
    router.layer(axum::middleware::from_fn_with_state(app.clone(), identify)).with_state(app.clone())
}

/// Finds out who makes the request.
async fn identify(
    axum::extract::State(app): axum::extract::State<App>,
    mut request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Result<axum::response::Response, super::Problem> {
    let secret = request
        .headers()
        .get(axum::http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .and_then(crate::access::TokenSecret::parse);
    if let Some(secret) = secret {
        if let Some(caller) = app.access.caller(&app.db, &secret, app.clock.now_us()).await? {
            request.extensions_mut().insert(caller);
        }
    }
    Ok(next.run(request).await)
}
