//! Who may do what: tokens, roles, scopes, and the log of what was done.

mod api;
pub mod audit;
mod caller;
mod role;
mod secret;
mod store;
#[cfg(test)]
mod tests;

pub use api::router;
pub use audit::{Subject, audit};
pub use caller::{Caller, Principal, Visible, authorize};
pub use role::{Action, Resource, Role, Scope};
pub use secret::{TOKEN_PREFIX, TokenSecret};
pub use store::{Access, NewToken, Token, administrator_token, create_token};
