//! HTTP: what every endpoint shares.

mod etag;
mod extract;
mod guard;
mod health;
pub mod idempotency;
mod metrics;
mod observe;
mod openapi;
mod page;
mod problem;
mod rate_limit;
mod request_id;
mod router;
mod sse;
mod state;
#[cfg(test)]
mod tests;

pub use etag::{ETag, Preconditions, Tagged};
pub(crate) use extract::octets;
pub use extract::{Json, Path, Query};
pub(crate) use guard::ClientAddress;
pub use metrics::Metrics;
pub use page::{Page, PageQuery};
pub use problem::Problem;
pub(crate) use rate_limit::RateLimit;
pub(crate) use request_id::RequestId;
pub use router::{openapi, router};
pub use state::HttpState;
