//! Access over HTTP: who am I, tokens, the audit log.

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::{Entry, Filter};
use super::caller::{Caller, Visible, authorize};
use super::role::{Action, Resource, Role, Scope};
use super::store::{self, NewToken, Token};
use crate::app::App;
use crate::http::{Json, Page, PageQuery, Path, Preconditions, Problem, Query, Tagged};
use crate::limits;
use crate::time::Timestamp;

/// The routes of this domain.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(me))
        .routes(routes!(create, list))
        .routes(routes!(get, revoke))
        .routes(routes!(audit_log))
}

/// The one who makes the request.
#[derive(Debug, Serialize, ToSchema)]
struct Me {
    /// `token:ID`, as in the audit log.
    principal: String,
    /// The token's name.
    name: String,
    /// What it may do.
    role: Role,
    /// The one fleet that it reaches, if it does not reach everything.
    #[schema(required)]
    fleet: Option<String>,
    /// The one model that it reaches, if it does not reach everything.
    #[schema(required)]
    model: Option<String>,
}

/// Says whose token the request carries.
#[utoipa::path(get, path = "/me", operation_id = "me", tag = "access", responses((status = 200, body = Me)))]
async fn me(caller: Caller) -> Json<Me> {
    let (fleet, model) = caller.scope.parts();
    Json(Me {
        fleet: fleet.map(str::to_owned),
        model: model.map(str::to_owned),
        principal: caller.principal.id,
        name: caller.principal.name,
        role: caller.role,
    })
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateToken {
    /// A name for people.
    #[schema(min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    name: String,
    /// What it may do.
    role: Role,
    /// The one fleet that it may reach; not together with `model`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    fleet: Option<String>,
    /// The one model that it may reach; not together with `fleet`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$")]
    model: Option<String>,
    /// When it stops working; never, if absent.
    expires: Option<Timestamp>,
}

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
struct TokenView {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// What it may do.
    role: Role,
    /// The one fleet that it reaches, if it does not reach everything.
    #[schema(required)]
    fleet: Option<String>,
    /// The one model that it reaches, if it does not reach everything.
    #[schema(required)]
    model: Option<String>,
    /// When it was made.
    created: Timestamp,
    /// The principal that made it.
    created_by: String,
    /// When it stops working.
    #[schema(required)]
    expires: Option<Timestamp>,
    /// When it was last used, to the minute.
    #[schema(required)]
    last_used: Option<Timestamp>,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        let (fleet, model) = token.scope.parts();
        TokenView {
            fleet: fleet.map(str::to_owned),
            model: model.map(str::to_owned),
            id: token.id,
            name: token.name,
            role: token.role,
            created: Timestamp(token.created_us),
            created_by: token.created_by,
            expires: token.expires_us.map(Timestamp),
            last_used: token.last_used_us.map(Timestamp),
        }
    }
}

/// A new token with its secret.
#[derive(Debug, Serialize, ToSchema)]
struct CreatedToken {
    /// The token itself: `dunlin_…`. It is shown here only; keep it.
    token: String,
    /// What is known about it.
    #[serde(flatten)]
    view: TokenView,
}

/// Makes an access token.
#[utoipa::path(post, path = "/tokens", operation_id = "create_token", tag = "access", request_body = CreateToken,
    responses((status = 201, body = CreatedToken, headers(("location" = String, description = "The token's path")))))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<CreateToken>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<CreatedToken>), Problem> {
    authorize(&caller, Action::ManageTokens, Resource::Installation)?;
    check_name("/name", &body.name)?;
    let scope = match (body.fleet, body.model) {
        (None, None) => Scope::Everything,
        (Some(fleet), None) => Scope::Fleet(fleet),
        (None, Some(model)) => Scope::Model(model),
        (Some(_), Some(_)) => {
            return Err(Problem::unprocessable("/model", "a token reaches one fleet or one model, not both"));
        }
    };
    if let (Some(id), _) | (_, Some(id)) = scope.parts() {
        let field = if scope.parts().0.is_some() { "/fleet" } else { "/model" };
        check_name(field, id)?;
    }
    if body.role == Role::Admin && scope != Scope::Everything {
        let detail =
            "an administrator reaches everything; take the role operator or ci for a fleet or a model";
        return Err(Problem::unprocessable("/role", detail));
    }
    let expires_us = body.expires.map(|expires| expires.0);
    if expires_us.is_some_and(|expires_us| expires_us <= app.clock.now_us()) {
        return Err(Problem::unprocessable("/expires", "the time is over already"));
    }
    let new = NewToken { name: body.name, role: body.role, scope, expires_us };
    let (token, secret) = store::create_token(&app, &caller, new).await?;
    let location = format!("/api/v1/tokens/{}", token.id);
    let created = CreatedToken { token: secret.reveal().to_owned(), view: token.into() };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(created)))
}

/// Lists the access tokens, the newest first. Revoked ones are in the audit log only.
#[utoipa::path(get, path = "/tokens", operation_id = "list_tokens", tag = "access", params(PageQuery),
    responses((status = 200, body = Page<TokenView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<TokenView>>, Problem> {
    authorize(&caller, Action::ManageTokens, Resource::Installation)?;
    let limit = page.limit()?;
    let tokens = store::list(&app.db, page.after()?, limit + 1).await?;
    Ok(Json(Page::new(tokens, limit, |token| token.id.clone()).map(TokenView::from)))
}

/// Shows an access token, without its secret.
#[utoipa::path(get, path = "/tokens/{id}", operation_id = "get_token", tag = "access",
    params(("id" = String, Path, min_length = 1, max_length = 64)),
    responses((status = 200, body = TokenView), (status = 304, description = "As the caller has it")))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    preconditions: Preconditions,
    Path(id): Path<String>,
) -> Result<Tagged<TokenView>, Problem> {
    authorize(&caller, Action::ManageTokens, Resource::Installation)?;
    let token = store::by_id(&app.db, &id).await?.ok_or_else(|| Problem::not_found("token", &id))?;
    let etag = token.etag();
    Ok(Tagged::get(&preconditions, etag, token.into()))
}

/// Revokes an access token: it stops working at once, in other server processes within five seconds.
#[utoipa::path(delete, path = "/tokens/{id}", operation_id = "revoke_token", tag = "access",
    params(("id" = String, Path, min_length = 1, max_length = 64)),
    responses((status = 204)))]
async fn revoke(
    State(app): State<App>,
    caller: Caller,
    preconditions: Preconditions,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    authorize(&caller, Action::ManageTokens, Resource::Installation)?;
    store::revoke_token(&app, &caller, &preconditions, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which entries of the audit log are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// The kind of resource: `token`, `fleet`, `device`, `claim`, `model`, ….
    #[param(max_length = 64)]
    kind: Option<String>,
    /// The resource's id; together with `kind`.
    #[param(max_length = 256)]
    id: Option<String>,
    /// Who made the change, as in `token:ID`.
    #[param(max_length = 128)]
    principal: Option<String>,
}

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
struct AuditView {
    /// The entry's id; ids grow with time.
    id: String,
    /// When.
    at: Timestamp,
    /// Who: `token:ID`, `device:ID`, `claim:ID` or `system`.
    principal: String,
    /// The name that the principal had then.
    principal_name: String,
    /// What was done, as in `device.block`.
    action: String,
    /// The kind of resource.
    kind: String,
    /// Its id.
    resource: String,
    /// The fleet it belongs to.
    #[schema(required)]
    fleet: Option<String>,
    /// The model it belongs to.
    #[schema(required)]
    model: Option<String>,
    /// The request's id, as in the logs.
    #[schema(required)]
    request_id: Option<String>,
    /// The resource before, without secrets; null when it was made.
    #[schema(required, value_type = Option<Object>)]
    before: Option<serde_json::Value>,
    /// The resource after, without secrets; null when it was deleted.
    #[schema(required, value_type = Option<Object>)]
    after: Option<serde_json::Value>,
}

impl From<Entry> for AuditView {
    fn from(entry: Entry) -> Self {
        AuditView {
            id: entry.id,
            at: Timestamp(entry.at_us),
            principal: entry.principal,
            principal_name: entry.principal_name,
            action: entry.action,
            kind: entry.kind,
            resource: entry.resource,
            fleet: entry.fleet,
            model: entry.model,
            request_id: entry.request_id,
            before: entry.before,
            after: entry.after,
        }
    }
}

/// Lists changes, the newest first. A token with a scope sees those of its fleet or model.
#[utoipa::path(get, path = "/audit", operation_id = "list_audit", tag = "access", params(PageQuery, AuditQuery),
    responses((status = 200, body = Page<AuditView>)))]
async fn audit_log(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<PageQuery>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditView>>, Problem> {
    authorize(&caller, Action::ReadAudit, Resource::Listing)?;
    if query.id.is_some() && query.kind.is_none() {
        return Err(Problem::unprocessable("kind", "a resource is named by kind and id together"));
    }
    let (fleet, model) = match (caller.fleets(), caller.models()) {
        (Visible::Only(fleet), _) => (Some(fleet.to_owned()), None),
        (_, Visible::Only(model)) => (None, Some(model.to_owned())),
        (Visible::All | Visible::Nothing, _) => (None, None),
    };
    let filter = Filter { kind: query.kind, id: query.id, principal: query.principal, fleet, model };
    let limit = page.limit()?;
    let entries = super::audit::list(&app.db, &filter, page.after()?, limit + 1).await?;
    Ok(Json(Page::new(entries, limit, |entry| entry.id.clone()).map(AuditView::from)))
}

/// Checks a name that people give: 1 to [`limits::NAME_CHARS`] characters, none of them a control character.
fn check_name(field: &str, name: &str) -> Result<(), Problem> {
    let chars = name.chars().count();
    if !(1..=limits::NAME_CHARS).contains(&chars) || name.chars().any(char::is_control) {
        let detail =
            format!("1 to {} characters are expected, without control characters", limits::NAME_CHARS);
        return Err(Problem::unprocessable(field, detail));
    }
    Ok(())
}
