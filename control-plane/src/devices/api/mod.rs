//! Devices over HTTP.

mod claims;
mod devices;
mod enroll;
mod filters;
mod fleets;
mod view;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The routes of this domain.
pub fn router() -> OpenApiRouter<App> {
    fleets::router()
        .merge(claims::router())
        .merge(enroll::router())
        .merge(devices::router())
        .merge(filters::router())
}
