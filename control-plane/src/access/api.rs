//! Access over HTTP.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::{Caller, authorize};
use super::role::{Action, Resource, Role, Scope};
use super::store::NewToken;
use crate::app::App;
use crate::http::{Json, Problem};

/// The routes of this domain.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create))
}

/// A token to be made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateToken {
    /// A name for people.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// What it may do.
    role: Role,
}

/// A new token with its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct CreatedToken {
    /// Its id.
    id: String,
    /// The token itself; it is shown here only.
    token: String,
}

/// Makes an access token.
#[utoipa::path(post, path = "/tokens", tag = "access", request_body = CreateToken,
    responses((status = 201, body = CreatedToken)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<CreateToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
    authorize(&caller, Action::ManageTokens, Resource::Installation)?;
    let new = NewToken { name: body.name, role: body.role, scope: Scope::Everything, expires_us: None };
    let (token, secret) = super::create_token(&app, &caller, new).await?;
    Ok((StatusCode::CREATED, Json(CreatedToken { id: token.id, token: secret.reveal().to_owned() })))
}
