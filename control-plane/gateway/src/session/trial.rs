//! A session under a client, a handler and a network that do as they like: what must hold whatever they do.

use super::{Event, Session};
use crate::{Limits, Message};
use bytes::Bytes;
use std::sync::Arc;

/// Drives a session as the gateway does, and panics when it breaks a promise. The device is `a`.
pub struct Trial {
    session: Session,
    limits: Arc<Limits>,
    /// Publishes that the handler has not dealt with.
    waiting: Vec<u64>,
    /// Bytes that the output may hold so far.
    allowed: usize,
}

/// The most that any byte of input may add to the output: a PINGREQ of two bytes has an answer of two, a one-byte entry
/// of a SUBSCRIBE adds one byte, and the longest CONNACK has 40 bytes for a CONNECT of 13.
const OUTPUT_PER_BYTE: usize = 8;
/// The most that a message to the device has besides its topic and payload.
const MESSAGE_OVERHEAD: usize = 16;

impl Default for Trial {
    fn default() -> Trial {
        Trial::new()
    }
}

impl Trial {
    /// A connection on which nothing was sent.
    pub fn new() -> Trial {
        // Small, so that short inputs reach them.
        let limits = Limits {
            packet_bytes: 256,
            receive_maximum: 4,
            send_maximum: 3,
            subscriptions: 3,
            ..Limits::default()
        };
        let limits = Arc::new(limits);
        let session = Session::new(limits.clone());
        // A DISCONNECT may come without input.
        Trial { session, limits, waiting: Vec::new(), allowed: 64 }
    }

    /// Bytes from the client; those that the session does not want now are lost.
    pub fn feed(&mut self, mut input: &[u8]) {
        while !input.is_empty() && self.session.may_feed() {
            let before = input.len();
            let event = self.session.feed(&mut input);
            assert!(input.len() < before || matches!(event, Event::Close(_)), "no progress");
            self.allowed += OUTPUT_PER_BYTE * (before - input.len());
            match event {
                Event::Login(_) => self.session.accept(Arc::from("a")),
                Event::Publish(incoming) => {
                    assert!(self.session.is_open(), "a publish before the login");
                    assert!(!incoming.level.contains('/') && incoming.payload.len() < 256);
                    self.waiting.extend(incoming.number);
                }
                Event::Subscribed => {
                    let messages = self.session.retained(vec![self.message(0)]);
                    messages.iter().for_each(|message| self.send_now(message, true));
                }
                Event::Close(_) => assert!(!self.session.may_feed()),
                Event::More | Event::Handled => {}
            }
            self.check();
        }
    }

    /// The handler commits one of the publishes that it has.
    pub fn complete(&mut self, which: u8) {
        if !self.waiting.is_empty() {
            let number = self.waiting.remove(usize::from(which) % self.waiting.len());
            self.session.complete(number);
            self.session.acknowledge();
            self.check();
        }
    }

    /// A message to the device; `kind` says which.
    pub fn send(&mut self, kind: u8) {
        let message = self.message(kind);
        self.send_now(&message, false);
        self.check();
    }

    fn send_now(&mut self, message: &Message, on_subscribe: bool) {
        if self.session.may_send() {
            self.allowed += message.topic.len() + message.payload.len() + MESSAGE_OVERHEAD;
            self.session.send(message, on_subscribe);
        }
    }

    fn message(&self, kind: u8) -> Message {
        Message {
            topic: if kind.is_multiple_of(2) { "d/a/down/desired".into() } else { "d/a/down/ack".into() },
            payload: Bytes::from(vec![kind; usize::from(kind)]),
            at_least_once: kind & 2 == 0,
            retained: kind.is_multiple_of(2),
        }
    }

    /// Every bound holds.
    fn check(&self) {
        let (session, limits) = (&self.session, &self.limits);
        assert!(session.unacknowledged() <= usize::from(limits.receive_maximum), "too many in flight");
        assert!(session.filters.len() <= limits.subscriptions, "too many subscriptions");
        assert!(session.sending <= limits.send_maximum, "too many to the device");
        assert!(session.output.len() <= self.allowed, "{} bytes of output", session.output.len());
        assert!(session.is_open() || session.device().is_none() || !session.may_feed());
    }
}
