//! Ingest without a database: from messages to what must be written, and what may be said once it is.
//!
//! [`plan`] takes the messages of a batch, the sequence windows of their devices and the open [`Parts`] of this
//! process, and says everything that one transaction has to write ([`Plan`]). Nothing is changed before the commit:
//! [`Ingest::commit`] takes the plan over, dropping the plan undoes it. There is no clock, no SQL and no MQTT in here.

mod decode;
mod generations;
mod letters;
mod parts;
mod plan;
mod sequences;
mod window_time;

pub use decode::{Body, Cohort, Decoded, Reason, Received, decode};
pub use generations::Generations;
pub use letters::{DeadLetter, Letters};
pub use parts::{Part, PartKey, Parts};
pub use plan::{Counters, EventRow, Ingest, LabelKey, LiveSums, Moment, Plan, StateRow, plan};
pub use sequences::{Sequence, SequenceKey};
pub use window_time::{Horizon, window_end};
