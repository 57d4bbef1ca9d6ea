//! HTTP: what every endpoint shares.

mod etag;
mod extract;
mod metrics;
mod page;
mod problem;
mod router;

pub use etag::{ETag, Preconditions, Tagged};
pub use extract::{Json, Path, Query};
pub use metrics::Metrics;
pub use page::{Page, PageQuery};
pub use problem::Problem;
pub use router::router;
