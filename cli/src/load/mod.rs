//! Devices without models, many in one process, for measuring a control plane.

mod device;
mod packet;
mod process;
mod server;

pub(crate) use device::{Broker, Credentials, idle, publish};
pub(crate) use process::Usage;
pub(crate) use server::Served;
