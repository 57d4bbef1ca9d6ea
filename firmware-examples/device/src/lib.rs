//! A device without std and without an allocator: what a product's firmware does around its models.
//!
//! - [`Device`] holds everything that is kept: closed windows, messages that are not acknowledged, whom it believes and
//!   what its slot holds, the protocol's state machines. All of it has a size known at compile time.
//! - [`run`] is the program: it connects, sends, waits for acknowledgements, connects again; it fetches the models that
//!   the control plane assigns, checks them, tries them and goes back if they are bad. It is one future, for any
//!   executor; nothing in it waits for the network, and a model runs meanwhile.
//! - [`Platform`] is what a board gives: time, randomness, a TCP or TLS stream.
//! - [`Models`] are the model that is built in, two [`Bank`]s of flash for those that are fetched, and one arena.
//! - [`Application`] is the product: it runs a model and tells the monitor.
//!
//! On a board, `Platform::Stream` is a socket of embassy-net or a TLS session of embedded-tls; on the host it is a
//! `tokio::net::TcpStream` in an adapter (`src/host/`).
#![no_std]

#[cfg(feature = "host")]
extern crate std;

mod belief;
mod device;
#[cfg(feature = "host")]
pub mod host;
mod mqtt;
mod product;
mod program;
mod run;
mod select;
mod store;
mod transfer;
mod update;

pub use device::{Counted, Device, Settings, StartError, Totals};
pub use product::{Application, Bank, Credentials, Models, Platform};
pub use run::run;
