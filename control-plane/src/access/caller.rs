//! The one who makes a request, and the one place where it is decided whether they may.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::role::{Action, Resource, Role, Scope};
use crate::http::Problem;

/// The one who acts, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// `token:ID`, `device:ID`, `claim:ID` or `system`.
    pub id: String,
    /// The name that people gave it.
    pub name: String,
}

/// The one who makes a request. As an extractor it answers 401 to requests without a valid token.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// What they may do.
    pub role: Role,
    /// Where they may do it.
    pub scope: Scope,
    /// The request's id.
    pub request_id: Option<String>,
}

/// What of a kind of things a caller sees in lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visible<'a> {
    /// All of them.
    All,
    /// The one with this id.
    Only(&'a str),
    /// None of them.
    Nothing,
}

impl Caller {
    /// The program itself, or a device or an enrolment key that acts without a token, for the audit log.
    pub fn internal(id: impl Into<String>, name: impl Into<String>, request_id: Option<String>) -> Self {
        let principal = Principal { id: id.into(), name: name.into() };
        Caller { principal, role: Role::Viewer, scope: Scope::Everything, request_id }
    }

    /// Which fleets (and devices of them) the caller sees in lists.
    pub fn fleets(&self) -> Visible<'_> {
        match &self.scope {
            Scope::Everything => Visible::All,
            Scope::Fleet(fleet) => Visible::Only(fleet),
            Scope::Model(_) => Visible::Nothing,
        }
    }

    /// Which models the caller sees in lists.
    pub fn models(&self) -> Visible<'_> {
        match &self.scope {
            Scope::Everything | Scope::Fleet(_) => Visible::All,
            Scope::Model(model) => Visible::Only(model),
        }
    }
}

/// Decides whether the caller may do `action` to `resource`. Every handler asks here; nothing else decides.
///
/// # Errors
/// 403, naming the role or the scope that stands in the way.
pub fn authorize(caller: &Caller, action: Action, resource: Resource<'_>) -> Result<(), Problem> {
    if !caller.role.allows(action) {
        let (role, action) = (caller.role.name(), action.name());
        return Err(Problem::forbidden(format!("the role {role} may not {action}")));
    }
    if !caller.scope.holds(action, resource) {
        let scope = match &caller.scope {
            Scope::Everything => "everything".to_owned(),
            Scope::Fleet(fleet) => format!("the fleet {fleet:?}"),
            Scope::Model(model) => format!("the model {model:?}"),
        };
        let action = action.name();
        return Err(Problem::forbidden(format!("the token reaches {scope} only; it may not {action} here")));
    }
    Ok(())
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Put there by http::identify, which runs before every handler.
        parts.extensions.get::<Caller>().cloned().ok_or_else(|| {
            Problem::unauthorized("send the header Authorization: Bearer TOKEN with a valid access token")
        })
    }
}
