//! The embedded MQTT endpoint for devices.
//!
//! Not a broker: devices talk to the control plane and to nobody else. There is no routing, no queue on disk and no
//! session; what there is instead is an acknowledgement that means something. A QoS 1 PUBLISH is handed to the
//! [`Handler`] with an [`AckToken`], and its PUBACK leaves when the token is completed, which the handler does after
//! its commit. A dropped token closes the connection without a PUBACK, and the device sends the message again.
//!
//! ```text
//! device ──PUBLISH──▶ topic check ──▶ Handler::publish(message, token)
//!        ◀──PUBACK─── in order  ◀──── token.done()                      after COMMIT
//!        ◀──PUBLISH── bounded outbox ◀ Gateway::send
//! ```
//!
//! ## What a client can rely on
//!
//! - MQTT 3.1.1 and 5 on the same port, over TCP or TLS; with mutual TLS the certificate's common name is the identity,
//!   and the handler learns its serial number too, so that it can refuse one that was revoked or replaced.
//! - The client id must be the authenticated device id. A client that proves to be `a` and calls itself `b` is refused
//!   before it can disturb `b`; `a` connecting again takes over its own old connection.
//! - It may publish to `d/{id}/up/{anything}` (one level) with QoS 0 or 1, and subscribe to `d/{id}/down/#` or
//!   anything below `d/{id}/down/`. A forbidden publish gets the reason code *not authorized* in MQTT 5 and ends the
//!   connection in MQTT 3.1.1, which has no way to say it; it is never acknowledged as if it had worked. A forbidden
//!   subscription gets its failure code.
//! - QoS 2 is refused: CONNACK announces maximum QoS 1 (MQTT 5), a QoS 2 PUBLISH ends the connection.
//! - Up to *receive maximum* publishes may be in flight; their PUBACKs come in the order of the publishes.
//! - The session ends with the connection: `session present` is always 0, subscriptions are made anew after every
//!   CONNECT, and messages that were in flight to the device are not sent again. Retained messages are asked from
//!   [`Handler::retained`] at each SUBSCRIBE.
//! - A will is accepted and ignored, and so is the RETAIN flag of a publish: the handler is told of every disconnect
//!   anyway. Topic aliases, subscription identifiers, shared subscriptions and enhanced authentication are not
//!   supported, and CONNACK says so.
//! - The keep-alive is enforced: silence for one and a half times its length ends the connection. Keep-alives of 0 or
//!   above [`Limits::keep_alive_max`] become that limit (*server keep alive* in MQTT 5; MQTT 3.1.1 lets a server drop
//!   an idle client at any time).
//!
//! ## Bounds
//!
//! Every buffer has one, see [`Limits`]. A client that publishes too fast is not read from until its rate is met; a
//! flood by many waits for a share of [`Limits::in_flight_bytes`]; a client that does not read gets the latest
//! retained message and loses acknowledgements, never the memory of the server.

mod ack;
mod config;
mod connection;
mod handler;
mod link;
mod metrics;
mod outbox;
mod rate;
mod registry;
mod server;
mod session;
pub mod tls;
mod topic;

pub use ack::{AckToken, InOrder};
pub use config::{Config, Limits, Listener};
pub use handler::{Certificate, Handler, Login, Publish, Refusal};
pub use metrics::{CloseReason, Metrics};
pub use outbox::Message;
pub use server::{BindError, Gateway, Sent, Shutdown};

/// For the fuzz target only.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use session::Trial;
