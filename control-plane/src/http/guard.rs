//! What a request must pass before a handler sees it: shape, load, time, identity and rate.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

use super::problem::Problem;
use super::request_id::RequestId;
use crate::access::TokenSecret;
use crate::app::App;
use crate::limits;

/// Where a request comes from, for handlers that need it (an extension of the request).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// Refuses targets that no handler could use: too long, or with the character U+0000, which PostgreSQL cannot store.
pub(super) async fn shape(request: Request, next: Next) -> Result<Response, Problem> {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    if target.len() > limits::TARGET_BYTES {
        return Err(Problem::bad_request(format!(
            "the request's target is longer than {} bytes",
            limits::TARGET_BYTES
        )));
    }
    if target.contains("%00") {
        return Err(Problem::bad_request("the request's target must not contain the character U+0000"));
    }
    Ok(next.run(request).await)
}

/// Refuses requests while too many are under way, and gives up on those that take too long.
pub(super) async fn load(State(app): State<App>, request: Request, next: Next) -> Result<Response, Problem> {
    let Ok(_permit) = app.http.in_flight.try_acquire() else {
        return Err(Problem::unavailable("too many requests are under way"));
    };
    let is_upload =
        request.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == "application/octet-stream");
    let time = if is_upload { limits::UPLOAD_TIMEOUT } else { limits::REQUEST_TIMEOUT };
    tokio::time::timeout(time, next.run(request)).await.map_err(|_| Problem::timeout())
}

/// Finds out who makes the request, and whether they make too many.
pub(super) async fn identify(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let now_us = app.clock.now_us();
    let address = client_address(&app, &request);
    request.extensions_mut().insert(ClientAddress(address));
    let caller = match bearer(request.headers()) {
        Some(secret) => {
            if !app.access.knows(&secret, now_us) {
                // Guessed tokens must not reach the database faster than an address may send requests.
                app.http.stranger(address, now_us)?;
            }
            let caller = app.access.caller(&app.db, &secret, now_us).await?;
            Some(caller.ok_or_else(|| Problem::unauthorized("the token is unknown, expired or revoked"))?)
        }
        None => None,
    };
    match caller {
        Some(mut caller) => {
            app.http.tokens.take(caller.principal.id.clone(), now_us).map_err(Problem::too_many_requests)?;
            caller.request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
            request.extensions_mut().insert(caller);
        }
        // Health checks come often and cost nothing.
        None if matches!(request.uri().path(), "/healthz" | "/readyz") => {}
        // A broker that asks who may connect asks for many devices; these paths check a secret first of all.
        None if request.uri().path().starts_with(crate::devices::HOOKS) => {}
        // Many devices may share an address; their tickets say who they are, and wrong ones are counted.
        None if request.uri().path().starts_with(crate::models::ARTIFACTS) => {}
        None => app.http.stranger(address, now_us)?,
    }
    Ok(next.run(request).await)
}

/// The token of the header `Authorization: Bearer …`, if what is there can be one.
fn bearer(headers: &HeaderMap) -> Option<TokenSecret> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") { TokenSecret::parse(token.trim()) } else { None }
}

/// Where the request comes from: the connection's other end, or what a trusted proxy says.
fn client_address(app: &App, request: &Request) -> IpAddr {
    let said = app.config.http_client_address_header.as_deref().and_then(|name| {
        // The last address is the one that our own proxy saw; those before it anybody can make up.
        request.headers().get(name)?.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
    });
    let connected = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let address = said.or(connected).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    match address {
        // A client with IPv6 has a whole /64 of addresses.
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        },
        v4 => v4,
    }
}
