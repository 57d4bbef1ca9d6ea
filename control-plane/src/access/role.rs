//! Roles, scopes, and the one table that says what they allow.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything but access and audit.
    Viewer,
    /// Runs the fleet: devices, fleets, enrolment keys; sees the audit log.
    Operator,
    /// Publishes models.
    Ci,
    /// Everything, tokens and keys included.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Operator, Role::Ci, Role::Admin];

    /// The role's name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Ci => "ci",
            Role::Admin => "admin",
        }
    }

    /// The role with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether the role may do it somewhere; the scope says where.
    pub fn allows(self, action: Action) -> bool {
        match action {
            Action::Read => true,
            Action::PublishModels => matches!(self, Role::Operator | Role::Ci | Role::Admin),
            Action::ManageDevices | Action::ManageFleets | Action::ManageClaims | Action::ReadAudit => {
                matches!(self, Role::Operator | Role::Admin)
            }
            Action::ManageTokens | Action::ManageTrust => self == Role::Admin,
        }
    }
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look at devices, fleets, models, statistics.
    Read,
    /// Change, block, delete devices; give them new credentials.
    ManageDevices,
    /// Create, change, delete fleets.
    ManageFleets,
    /// Create, see and revoke a fleet's enrolment keys.
    ManageClaims,
    /// Create models and upload versions.
    PublishModels,
    /// Look at the audit log.
    ReadAudit,
    /// Create, see and revoke access tokens.
    ManageTokens,
    /// Say which keys devices believe.
    ManageTrust,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 8] = [
        Action::Read,
        Action::ManageDevices,
        Action::ManageFleets,
        Action::ManageClaims,
        Action::PublishModels,
        Action::ReadAudit,
        Action::ManageTokens,
        Action::ManageTrust,
    ];

    /// The action in words, for error messages.
    pub fn name(self) -> &'static str {
        match self {
            Action::Read => "read",
            Action::ManageDevices => "manage devices",
            Action::ManageFleets => "manage fleets",
            Action::ManageClaims => "manage enrolment keys",
            Action::PublishModels => "publish models",
            Action::ReadAudit => "read the audit log",
            Action::ManageTokens => "manage tokens",
            Action::ManageTrust => "manage keys that devices believe",
        }
    }
}

/// What an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The whole installation, or something that belongs to no fleet and no model.
    Installation,
    /// A list whose entries the handler restricts to [`super::Caller::fleets`] and [`super::Caller::models`].
    Listing,
    /// A fleet, or something of it: a device, an enrolment key.
    Fleet(&'a str),
    /// A model, or something of it: a version.
    Model(&'a str),
    /// A model's doings in one fleet: statistics.
    ModelInFleet {
        /// The model.
        model: &'a str,
        /// The fleet.
        fleet: &'a str,
    },
}

/// The part of the installation that a token reaches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything.
    Everything,
    /// One fleet with its devices; models can be read, since every fleet may run them.
    Fleet(String),
    /// One model with its versions and statistics.
    Model(String),
}

impl Scope {
    /// The one fleet and the one model that the scope names.
    pub fn parts(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Scope::Everything => (None, None),
            Scope::Fleet(fleet) => (Some(fleet), None),
            Scope::Model(model) => (None, Some(model)),
        }
    }

    /// Whether the resource lies inside the scope for this action.
    pub fn holds(&self, action: Action, resource: Resource<'_>) -> bool {
        match (self, resource) {
            (Scope::Everything, _) | (_, Resource::Listing) => true,
            (Scope::Fleet(own), Resource::Fleet(fleet) | Resource::ModelInFleet { fleet, .. }) => {
                own == fleet
            }
            (Scope::Fleet(_), Resource::Model(_)) => action == Action::Read,
            (Scope::Model(own), Resource::Model(model) | Resource::ModelInFleet { model, .. }) => {
                own == model
            }
            (Scope::Model(_), Resource::Fleet(_)) | (_, Resource::Installation) => false,
        }
    }
}
