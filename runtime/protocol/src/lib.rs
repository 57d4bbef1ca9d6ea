//! The messages and topics between devices and the control plane.
//!
//! | topic | QoS 1, sent by | message |
//! | --- | --- | --- |
//! | `d/{id}/up/report` | device | [`Envelope`] + [`Report`]: statistics of one window |
//! | `d/{id}/up/state` | device | [`Envelope`] + [`State`]: what the device runs |
//! | `d/{id}/up/event` | device | [`Envelope`] + [`Event`]: something happened |
//! | `d/{id}/up/label` | device | [`Envelope`] + [`Label`]: what would have been right |
//! | `d/{id}/up/csr` | device | [`CertificateRequest`] |
//! | `d/{id}/up/fetch` | device | [`Fetch`]: asks for a piece of an artifact or a root |
//! | `d/{id}/down/desired` | control plane, retained | [`Desired`]: what the device should run |
//! | `d/{id}/down/ack` | control plane | [`Ack`]: what is committed |
//! | `d/{id}/down/cert` | control plane | [`Certificate`] |
//! | `d/{id}/down/chunk` | control plane | [`Chunk`]: the piece |
//!
//! Everything is read in place and written into the caller's buffer: no allocation, no panic, no `unsafe`. The byte
//! layout stands in `PROTOCOL.md` beside this crate, every limit in [`limits`].
//!
//! # Exactly once
//! Messages may be lost, doubled, delayed and reordered; each counts exactly once all the same:
//!
//! - A device numbers its messages (`boot`, `seq`) and keeps each until the control plane's own [`Ack`] covers it.
//!   A broker's PUBACK only says that the broker has it.
//! - The control plane keeps a [`SequenceWindow`] per (device, boot), stored in the same transaction as the counts,
//!   and applies what that window calls [`Verdict::Fresh`].
//!
//! ```
//! use dunlin_protocol::{Ack, DeviceId, Envelope, Event, EventKind, SequenceWindow, UpKind, Verdict};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The device:
//! let event = Event { unix_s: 0, slot: "", kind: EventKind::Restarted, value: 0, detail: "" };
//! let (mut body, mut message) = ([0; 64], [0; 128]);
//! let len = event.encode(&mut body)?;
//! let envelope = Envelope { boot: 0x5eed, seq: 0, oldest: 0, age_s: 3 };
//! let len = envelope.encode(&body[..len], &mut message)?;
//! assert_eq!(DeviceId::new("pump-7")?.up(UpKind::Event), "d/pump-7/up/event");
//!
//! // The control plane, however often the message arrives:
//! let (envelope, body) = Envelope::decode(&message[..len])?;
//! assert_eq!(Event::decode(body)?.kind, EventKind::Restarted);
//! let mut window = SequenceWindow::default();
//! assert_eq!(window.apply(envelope.seq, envelope.oldest), Verdict::Fresh);
//! assert_eq!(window.apply(envelope.seq, envelope.oldest), Verdict::Duplicate);
//! let len = window.ack(envelope.boot).encode(&mut message)?;
//!
//! // The device again:
//! assert!(Ack::decode(&message[..len])?.covers(0));
//! # Ok(()) }
//! ```
//!
//! # Versions
//! The first byte of a message is [`limits::VERSION`]. Newer versions append fields to messages, envelopes, headers
//! and list items, and add sections and kinds; all of these state their length, so that this version skips what it
//! does not know, and fields that an older side left out have a stated default. The bytes of every released version
//! are kept in `released/` and read by the tests for ever.
#![no_std]

#[cfg(test)]
extern crate std;

mod certificate;
mod desired;
mod envelope;
mod error;
mod event;
mod fetch;
mod label;
pub mod limits;
mod list;
mod report;
mod sequence;
mod signed;
mod state;
mod topic;
mod wire;

pub use certificate::{Certificate, CertificateRequest};
pub use desired::{Desired, DesiredSlot};
pub use envelope::Envelope;
pub use error::{DecodeError, EncodeError};
pub use event::{Event, EventKind};
pub use fetch::{Chunk, Fetch, Object};
pub use label::{Label, LabelCount};
pub use list::{Item, List, Pair};
pub use report::{
    Bins, CountedSection, Counts, GaugeReading, LatencySection, MarkReading, NumericSection, Report,
    ReportEncoder, ReportHeader, Section,
};
pub use sequence::{Ack, SequenceWindow, Verdict};
pub use signed::{Name, PublicKey, Release, Role, RoleKeys, Root, Signable, Signature, Signed, write_signed};
pub use state::{SlotState, SlotStatus, State};
pub use topic::{DeviceId, DownKind, InvalidDeviceId, Topic, TopicString, UP_FILTER, UpKind};
