//! A device without std and without an allocator: what a product's firmware does around its model.
//!
//! - [`Device`] holds everything that is kept: the monitor of the model, closed windows, messages that are not
//!   acknowledged, and the protocol's state machine. All of it has a size known at compile time.
//! - [`run`] is the program: it connects, sends, waits for acknowledgements, connects again. It is one future, for
//!   any executor; nothing in it blocks, and the model runs meanwhile, with and without a network.
//! - [`Platform`] is what a board gives: time, randomness, a TCP or TLS stream.
//! - [`Application`] is the product: it runs the model and tells the monitor.
//!
//! On a board, `Platform::Stream` is a socket of embassy-net or a TLS session of embedded-tls; on the host it is a
//! `tokio::net::TcpStream` in an adapter (`src/host.rs`).
#![no_std]

#[cfg(feature = "host")]
extern crate std;

mod device;
#[cfg(feature = "host")]
pub mod host;
mod mqtt;
mod run;
mod select;

pub use device::{Counted, Device, Totals};
pub use run::{Application, Credentials, Platform, run};
