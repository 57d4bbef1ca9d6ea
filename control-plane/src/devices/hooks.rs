//! Questions of external brokers: may this client connect, may it use this topic? In EMQX's words (HTTP
//! authentication and authorization, 5.8 and later); `docs/brokers.md` has the broker's side.
//!
//! They are protected by a secret of their own (`broker.hook_secret`), sent as `Authorization: Bearer …`, and do not
//! count against the rate of an address: a broker that reconnects all its devices asks from one address.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::State;
use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::login::authenticate;
use crate::app::App;
use crate::bus::{Credential, LoginRefused};
use crate::http::{Json, Problem};

/// The hooks' paths begin with this; requests there are not counted as those of strangers.
pub(crate) const PREFIX: &str = "/internal/mqtt/";

/// The routes; outside of `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(authn)).routes(routes!(authz))
}

/// A client that connects to the broker.
#[derive(Debug, Deserialize, ToSchema)]
struct AuthnRequest {
    /// The MQTT client id.
    #[schema(max_length = 1024)]
    clientid: String,
    /// The user name.
    #[serde(default)]
    #[schema(max_length = 1024)]
    username: Option<String>,
    /// The password.
    #[serde(default)]
    #[schema(max_length = 1024)]
    password: Option<String>,
    /// The common name of the client's certificate, which the broker has verified.
    #[serde(default)]
    #[schema(max_length = 1024)]
    cert_common_name: Option<String>,
    /// Where the client connects from.
    #[serde(default)]
    #[schema(max_length = 1024)]
    peerhost: Option<String>,
}

/// Whether the client may connect, and what it may do.
#[derive(Debug, Serialize, ToSchema)]
struct AuthnAnswer {
    /// `allow`, `deny`, or `ignore` (it is not a device: ask elsewhere).
    result: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_superuser: Option<bool>,
    /// The device's topics, and no others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    acl: Vec<Rule>,
}

/// A broker's word for yes and no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Allow,
    Deny,
}

/// What a client may do with a topic.
#[derive(Debug, Serialize, ToSchema)]
struct Rule {
    permission: Verdict,
    /// `publish`, `subscribe` or `all`.
    action: &'static str,
    topic: String,
}

/// Decides for EMQX whether a client may connect (HTTP authentication).
#[utoipa::path(post, path = "/internal/mqtt/emqx/authn", operation_id = "emqx_authn", tag = "brokers",
    request_body = AuthnRequest, responses((status = 200, body = AuthnAnswer)))]
async fn authn(
    State(app): State<App>,
    headers: HeaderMap,
    Json(body): Json<AuthnRequest>,
) -> Result<Json<AuthnAnswer>, Problem> {
    check_secret(&app, &headers)?;
    let denied = || AuthnAnswer { result: Verdict::Deny, is_superuser: None, acl: Vec::new() };
    let certificate = body.cert_common_name.as_deref().filter(|name| !name.is_empty());
    let credential = match (certificate, &body.username, &body.password) {
        (Some(common_name), _, _) => Credential::Certificate { common_name, serial: None },
        (None, Some(username), Some(password)) => {
            Credential::Password { username, password: password.as_bytes() }
        }
        _ => return Ok(Json(denied())),
    };
    let address = body.peerhost.as_deref().and_then(|text| text.parse().ok());
    let answer = match authenticate(&app, credential, address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
        .await
    {
        // The client id must be the device's own: nobody ends another device's session by taking its client id.
        Ok(entry) if entry.id.as_str() == body.clientid => {
            let id = entry.id.as_str();
            let rule = |permission, action, topic| Rule { permission, action, topic };
            AuthnAnswer {
                result: Verdict::Allow,
                is_superuser: Some(false),
                acl: vec![
                    rule(Verdict::Allow, "publish", format!("d/{id}/up/#")),
                    rule(Verdict::Allow, "subscribe", format!("d/{id}/down/#")),
                    rule(Verdict::Deny, "all", "#".to_owned()),
                ],
            }
        }
        Ok(_) | Err(LoginRefused::BadCredential | LoginRefused::Revoked | LoginRefused::Blocked) => denied(),
        Err(LoginRefused::Unavailable) => {
            return Err(Problem::unavailable("the device cannot be looked up now"));
        }
    };
    Ok(Json(answer))
}

/// A client that uses a topic.
#[derive(Debug, Deserialize, ToSchema)]
struct AuthzRequest {
    /// The MQTT client id.
    #[schema(max_length = 1024)]
    clientid: String,
    /// `publish` or `subscribe`.
    #[schema(max_length = 32)]
    action: String,
    /// The topic, or the filter of a subscription.
    #[schema(max_length = 65535)]
    topic: String,
}

/// Whether the client may use the topic.
#[derive(Debug, Serialize, ToSchema)]
struct AuthzAnswer {
    result: Verdict,
}

/// Decides for EMQX whether a connected client may use a topic (HTTP authorization). Needed only for brokers that do
/// not heed the `acl` in the answer to the authentication (EMQX before 5.8).
#[utoipa::path(post, path = "/internal/mqtt/emqx/authz", operation_id = "emqx_authz", tag = "brokers",
    request_body = AuthzRequest, responses((status = 200, body = AuthzAnswer)))]
async fn authz(
    State(app): State<App>,
    headers: HeaderMap,
    Json(body): Json<AuthzRequest>,
) -> Result<Json<AuthzAnswer>, Problem> {
    check_secret(&app, &headers)?;
    let known = app.devices.directory.get(&body.clientid).filter(|entry| !entry.blocked);
    let allowed = known.is_some_and(|entry| may_use(entry.id.as_str(), &body.action, &body.topic));
    Ok(Json(AuthzAnswer { result: if allowed { Verdict::Allow } else { Verdict::Deny } }))
}

/// The one rule of topics: a device publishes to `d/ID/up/…` and subscribes to `d/ID/down/…`.
fn may_use(id: &str, action: &str, topic: &str) -> bool {
    let direction = match action {
        "publish" => "up",
        "subscribe" => "down",
        _ => return false,
    };
    let Some(rest) = topic.strip_prefix("d/") else { return false };
    let Some(rest) = rest.strip_prefix(id) else { return false };
    let Some(rest) = rest.strip_prefix('/').and_then(|rest| rest.strip_prefix(direction)) else {
        return false;
    };
    let Some(level) = rest.strip_prefix('/') else { return false };
    // A topic to publish to has no wildcards.
    !level.is_empty() && (action == "subscribe" || !level.contains(['+', '#']))
}

fn check_secret(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(expected) = &app.config.broker_hook_secret else {
        return Err(Problem::forbidden(
            "the hooks are off: set broker.hook_secret, and the same in the broker",
        ));
    };
    let presented = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
        .unwrap_or_default();
    // Hashes have one length, so that the comparison tells nothing of the secret's.
    let fits: bool =
        super::secret::digest(presented).ct_eq(&super::secret::digest(expected.as_bytes())).into();
    if fits {
        return Ok(());
    }
    Err(Problem::unauthorized(
        "send the header Authorization: Bearer SECRET with the secret of broker.hook_secret",
    ))
}

#[cfg(test)]
mod tests {
    use super::may_use;

    #[test]
    fn a_device_reaches_its_own_topics_only() {
        assert!(may_use("a", "publish", "d/a/up/report"));
        assert!(may_use("a", "subscribe", "d/a/down/#"));
        assert!(may_use("a", "subscribe", "d/a/down/ack"));
        for (action, topic) in [
            ("publish", "d/a/down/ack"),
            ("publish", "d/b/up/report"),
            ("publish", "d/a/up"),
            ("publish", "d/a/up/"),
            ("publish", "d/a/up/#"),
            ("publish", "d/a/upper/x"),
            ("publish", "d/ab/up/report"),
            ("publish", "x/d/a/up/report"),
            ("subscribe", "d/+/down/#"),
            ("subscribe", "d/a/up/#"),
            ("subscribe", "#"),
            ("subscribe", "d/a/#"),
            ("subscribe", "$share/g/d/a/down/#"),
            ("all", "d/a/up/report"),
        ] {
            assert!(!may_use("a", action, topic), "{action} {topic}");
        }
    }
}
