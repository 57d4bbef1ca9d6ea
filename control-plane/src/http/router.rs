//! The routes of all domains, and what stands around them.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse as _;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use super::openapi::{Frame, complete};
use super::problem::Problem;
use super::{guard, health, idempotency, observe, sse};
use crate::app::App;
use crate::limits;

/// The routes of all domains, without what stands around them.
fn domains() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(crate::access::router())
        .merge(crate::devices::router())
        .merge(crate::models::router())
        .merge(crate::trust::router())
        .merge(crate::telemetry::router())
        .merge(sse::router())
        .merge(health::api_router())
}

/// The API's description.
pub fn openapi() -> utoipa::openapi::OpenApi {
    parts().1
}

fn parts() -> (Router<App>, utoipa::openapi::OpenApi) {
    let (router, mut openapi) = OpenApiRouter::with_openapi(Frame::openapi())
        .nest("/api/v1", domains())
        .merge(health::router())
        .merge(crate::devices::hooks_router())
        .split_for_parts();
    complete(&mut openapi);
    (router, openapi)
}

/// Everything that the process serves over HTTP.
pub fn router(app: &App) -> Router {
    let (api, openapi) = parts();
    // Swagger's page sets styles in its elements; scripts come from its own files only.
    let docs_policy = HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    let docs: Router<App> = SwaggerUi::new("/api/docs").url("/api/v1/openapi.json", openapi).into();
    let docs =
        docs.layer(SetResponseHeaderLayer::if_not_present(header::CONTENT_SECURITY_POLICY, docs_policy));
    Router::new()
        .merge(api)
        .merge(docs)
        .merge(crate::ui::router())
        .fallback(|| async { Problem::no_such_path() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        // From the inside out: what stands last sees a request first.
        .layer(DefaultBodyLimit::max(limits::JSON_BODY_BYTES))
        .layer(from_fn_with_state(app.clone(), idempotency::idempotency))
        .layer(from_fn_with_state(app.clone(), guard::identify))
        .layer(from_fn_with_state(app.clone(), guard::load))
        .layer(from_fn(guard::shape))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            Problem::internal(&"a handler panicked").into_response()
        }))
        .layer(from_fn_with_state(app.clone(), observe::observe))
        .with_state(app.clone())
}
