//! One message: who sent it, where it stands in its boot, and what it says.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_protocol::{DecodeError, Envelope, Event, Label, Report, State};

use super::SequenceKey;
use crate::bus::{DeviceId, UpKind};
use crate::telemetry::aggregate::{Aggregate, ReportError};

/// Devices that are expected to behave alike; statistics are kept for each cohort.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cohort {
    /// The cohort's name, `fleet/hardware`.
    pub key: Arc<str>,
    /// The fleet.
    pub fleet: Arc<str>,
}

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Who sent it; the bus has made sure.
    pub device: DeviceId,
    /// What it is.
    pub kind: UpKind,
    /// Its bytes.
    pub payload: Bytes,
    /// Where the device belongs; `None`: the device is unknown or blocked.
    pub cohort: Option<Cohort>,
    /// The database refused it in an earlier attempt: it must become a dead letter.
    pub refused: bool,
}

/// Why a message was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Nobody enrolled the device, or it is blocked.
    #[error("the device is unknown or blocked; enrol or unblock it")]
    UnknownDevice,
    /// The envelope cannot be read: the message has no place in any sequence.
    #[error("the envelope cannot be read: {0}")]
    Envelope(DecodeError),
    /// The body cannot be read.
    #[error("the body cannot be read: {0}")]
    Body(DecodeError),
    /// The report contradicts what any artifact can have.
    #[error("the report is impossible: {0}")]
    Report(#[from] ReportError),
    /// A text holds the character U+0000, which PostgreSQL cannot store.
    #[error("a text holds the character U+0000")]
    Text,
    /// A label names a class beyond the limit.
    #[error("the label names a class beyond {}", MAX_CLASS)]
    Label,
    /// The number contradicts the device's own window.
    #[error("the sequence number contradicts the device's window of outstanding messages")]
    Sequence,
    /// The device has too many boots. Its messages are neither applied nor acknowledged, so that it keeps them.
    #[error("the device was started too often: the boots of 90 days are remembered, and no further ones")]
    Boots,
    /// Messages of this kind are not for this part of the program.
    #[error("messages of this kind are not telemetry")]
    Kind,
    /// The database refuses to store it.
    #[error("the database refuses to store it; the server's log has the cause")]
    Refused,
}

/// The highest class that labels may name: a limit to the rows that one device can fill.
pub(crate) const MAX_CLASS: u32 = dunlin_artifact::limits::MAX_COUNTERS as u32;

impl Reason {
    /// The reason's word in tables, in the API and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Reason::UnknownDevice => "unknown_device",
            Reason::Envelope(_) => "envelope",
            Reason::Body(_) => "body",
            Reason::Report(_) => "report",
            Reason::Text => "text",
            Reason::Label => "label",
            Reason::Sequence => "sequence",
            Reason::Boots => "boots",
            Reason::Kind => "kind",
            Reason::Refused => "refused",
        }
    }
}

/// What a message says.
#[derive(Debug)]
pub enum Body<'a> {
    /// Statistics of a window.
    Report(Report<'a>),
    /// What the device runs.
    State(State<'a>),
    /// Something happened.
    Event(Event<'a>),
    /// What would have been right.
    Label(Label<'a>),
}

/// A message taken apart.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// As it came.
    pub received: &'a Received,
    /// Its place in its boot, if that can be read and the device is known.
    pub envelope: Option<Envelope>,
    /// What it says.
    pub body: Result<Body<'a>, Reason>,
}

impl Decoded<'_> {
    /// The boot that it belongs to, if that is known.
    pub fn boot(&self) -> Option<SequenceKey> {
        Some((self.received.device.clone(), self.envelope?.boot))
    }

    /// Takes the message's place in its boot away: it is not applied and not acknowledged.
    pub fn refuse(&mut self, reason: Reason) {
        self.envelope = None;
        self.body = Err(reason);
    }
}

/// Takes a message apart.
pub fn decode(received: &Received) -> Decoded<'_> {
    if received.cohort.is_none() {
        return Decoded { received, envelope: None, body: Err(Reason::UnknownDevice) };
    }
    if !received.kind.has_envelope() {
        return Decoded { received, envelope: None, body: Err(Reason::Kind) };
    }
    match Envelope::decode(&received.payload) {
        Ok((envelope, body)) => {
            let body = if received.refused { Err(Reason::Refused) } else { self::body(received.kind, body) };
            Decoded { received, envelope: Some(envelope), body }
        }
        Err(error) => Decoded { received, envelope: None, body: Err(Reason::Envelope(error)) },
    }
}

fn body(kind: UpKind, body: &[u8]) -> Result<Body<'_>, Reason> {
    match kind {
        UpKind::Report => {
            let report = Report::decode(body).map_err(Reason::Body)?;
            Aggregate::check(&report)?;
            texts([report.header().slot])?;
            Ok(Body::Report(report))
        }
        UpKind::State => {
            let state = State::decode(body).map_err(Reason::Body)?;
            texts([state.agent_version, state.hardware])?;
            for pair in state.attributes.iter() {
                texts([pair.key, pair.value])?;
            }
            for slot in state.slots.iter() {
                texts([slot.slot, slot.reason])?;
            }
            Ok(Body::State(state))
        }
        UpKind::Event => {
            let event = Event::decode(body).map_err(Reason::Body)?;
            texts([event.slot, event.detail])?;
            Ok(Body::Event(event))
        }
        UpKind::Label => {
            let label = Label::decode(body).map_err(Reason::Body)?;
            texts([label.slot])?;
            match label.entries.iter().all(|entry| entry.predicted < MAX_CLASS && entry.label < MAX_CLASS) {
                true => Ok(Body::Label(label)),
                false => Err(Reason::Label),
            }
        }
        UpKind::Csr | UpKind::Fetch => Err(Reason::Kind),
    }
}

fn texts<const N: usize>(texts: [&str; N]) -> Result<(), Reason> {
    if texts.iter().any(|text| text.contains('\0')) { Err(Reason::Text) } else { Ok(()) }
}
