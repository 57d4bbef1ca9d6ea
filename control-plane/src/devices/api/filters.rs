//! Filters over HTTP: the check that editors call while somebody types.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::filter::{Filter, FilterError};
use super::super::store::devices as store;
use crate::access::{Action, Caller, Resource, authorize};
use crate::app::App;
use crate::http::{Json, Problem};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(check))
}

/// A filter to be checked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CheckFilter {
    /// The filter, as in `tags.region == "eu" and running.kws < 3`.
    #[schema(max_length = 4096)]
    filter: String,
}

/// What a filter means, or what is wrong with it.
#[derive(Debug, Serialize, ToSchema)]
struct CheckedFilter {
    /// Whether it can be used.
    valid: bool,
    /// The filter, written the usual way.
    #[schema(required)]
    canonical: Option<String>,
    /// How many devices it fits now, among those that the caller sees.
    #[schema(required, minimum = 0)]
    devices: Option<i64>,
    /// What is wrong.
    #[schema(required)]
    error: Option<FilterErrorView>,
}

/// What is wrong with a filter.
#[derive(Debug, Serialize, ToSchema)]
struct FilterErrorView {
    /// What is wrong.
    message: String,
    /// Where it begins, in characters from the filter's beginning.
    #[schema(minimum = 0)]
    start: usize,
    /// Where it ends.
    #[schema(minimum = 0)]
    end: usize,
    /// What may have been meant.
    #[schema(required)]
    suggestion: Option<String>,
    /// All of it as text, with a mark under the place.
    text: String,
}

/// Checks a filter and counts the devices that it fits.
#[utoipa::path(post, path = "/devices/filter/check", operation_id = "check_filter", tag = "devices",
    request_body = CheckFilter, responses((status = 200, body = CheckedFilter)))]
async fn check(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<CheckFilter>,
) -> Result<Json<CheckedFilter>, Problem> {
    authorize(&caller, Action::Read, Resource::Listing)?;
    let checked = match Filter::parse(&body.filter) {
        Err(error) => {
            CheckedFilter { valid: false, canonical: None, devices: None, error: Some(view(error)) }
        }
        Ok(filter) => {
            let mut db = app.db.read().acquire().await?;
            let devices =
                store::count(&mut db, caller.fleets(), Some(&filter), &super::super::reading(&app)).await?;
            CheckedFilter {
                valid: true,
                canonical: Some(filter.to_string()),
                devices: Some(devices),
                error: None,
            }
        }
    };
    Ok(Json(checked))
}

fn view(error: FilterError) -> FilterErrorView {
    FilterErrorView {
        text: error.to_string(),
        message: error.message,
        start: error.place.start,
        end: error.place.end,
        suggestion: error.suggestion,
    }
}

/// The filter of a list's query.
pub(super) fn parse(filter: Option<&str>) -> Result<Option<Filter>, Problem> {
    filter
        .map(|text| Filter::parse(text).map_err(|error| Problem::unprocessable("filter", error.to_string())))
        .transpose()
}
