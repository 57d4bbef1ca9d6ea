//! The no_std MQTT client, as far as the device needs it.

use core::num::NonZero;

use dunlin_agent::uplink::DownCause;
use dunlin_protocol::limits::{MAX_ROOT, MAX_TOPIC};
use dunlin_protocol::{Ack, DeviceId, DownKind, UpKind};
use embedded_io_async::{Read, Write};
use heapless::Vec;
use rust_mqtt::Bytes;
use rust_mqtt::buffer::BumpBuffer;
use rust_mqtt::client::event::Event;
use rust_mqtt::client::options::{
    ConnectOptions, DisconnectOptions, PublicationOptions, SubscriptionOptions, TopicReference,
};
use rust_mqtt::client::{Client, MqttError};
use rust_mqtt::config::KeepAlive;
use rust_mqtt::header::FixedHeader;
use rust_mqtt::types::{MqttBinary, MqttString, ReasonCode, TopicFilter, TopicName};

use crate::transfer;

/// Messages without a PUBACK.
pub(crate) const IN_FLIGHT: u8 = 4;
/// Seconds between signs of life.
pub(crate) const KEEP_ALIVE_S: u16 = 60;
/// Bytes for what is received, and the longest packet that the server may send: a piece of an artifact, or a desired
/// state with its release and signatures.
pub(crate) const RECEIVED: usize = 4096;

/// Longest desired state. One slot with its release, all signed once, takes about 1 KB.
const DESIRED: usize = 3072;
/// What a piece takes besides its bytes.
const CHUNK_HEAD: usize = 64;

// A topic and the packet's own head come with it.
const _: () = assert!(transfer::CHUNK + CHUNK_HEAD + MAX_TOPIC + 16 <= RECEIVED);
const _: () = assert!(DESIRED + MAX_TOPIC + 16 <= RECEIVED && MAX_ROOT <= transfer::CHUNK);

type Inner<'c, S> = Client<'c, 'c, S, BumpBuffer<'c>, 1, 4, { IN_FLIGHT as usize }, 0, 0, 0, 1>;

/// Messages from the server that are kept while they are worked on.
#[derive(Default)]
pub(crate) struct Messages {
    /// The desired state that came last.
    pub(crate) desired: Vec<u8, DESIRED>,
    /// The piece of an artifact or a root that came last.
    pub(crate) chunk: Vec<u8, { transfer::CHUNK + CHUNK_HEAD }>,
}

/// Something from the server, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Subscribed,
    Ack(Ack),
    /// A desired state, whose bytes were copied.
    Desired,
    /// A piece of an artifact or of a root, whose bytes were copied.
    Chunk,
    /// A PUBACK: there is room for another message.
    Room,
    /// The server refused the subscription.
    Refused,
    /// Nothing that matters here.
    Nothing,
}

/// One connection.
pub(crate) struct Connection<'c, S: Read + Write> {
    client: Inner<'c, S>,
}

/// Why a message was not handed over.
pub(crate) enum NotSent {
    /// Later.
    Full,
    /// The connection is gone.
    Down,
}

impl<'c, S: Read + Write> Connection<'c, S> {
    pub(crate) fn new(buffer: &'c mut BumpBuffer<'c>) -> Self {
        Connection { client: Client::new(buffer) }
    }

    /// Logs in. Every connection begins a new session: what is not acknowledged is sent again anyway, by its owner.
    pub(crate) async fn connect(
        &mut self,
        stream: S,
        device: &str,
        password: Option<&str>,
    ) -> Result<(), DownCause> {
        let id = MqttString::from_str(device).map_err(|_| DownCause::Refused)?;
        let mut options = ConnectOptions::new().clean_start().user_name(id.as_borrowed());
        options = options.maximum_packet_size(const { NonZero::new(RECEIVED as u32).unwrap() });
        options = options.keep_alive(KeepAlive::Seconds(const { NonZero::new(KEEP_ALIVE_S).unwrap() }));
        if let Some(password) = password {
            let password = MqttBinary::from_slice(password.as_bytes()).map_err(|_| DownCause::Refused)?;
            options = options.password(password);
        }
        let refused = |reason: &ReasonCode| {
            matches!(
                reason,
                ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized | ReasonCode::Banned
            )
        };
        let connected = match self.client.connect(stream, &options, Some(id.as_borrowed())).await {
            Ok(_) => Ok(()),
            Err(MqttError::Disconnect { reason, .. }) if refused(&reason) => Err(DownCause::Refused),
            Err(_) => Err(DownCause::Network),
        };
        self.forget();
        connected
    }

    pub(crate) async fn subscribe(&mut self, device: &str) -> Result<(), DownCause> {
        let id = DeviceId::new(device).map_err(|_| DownCause::Refused)?;
        let filter = id.down_filter();
        let filter = MqttString::from_str(filter.as_str()).ok().and_then(TopicFilter::new);
        let filter = filter.ok_or(DownCause::Refused)?;
        let options = SubscriptionOptions::new().at_least_once();
        self.client.subscribe(filter, &options).await.map(drop).map_err(|_| DownCause::Network)
    }

    pub(crate) async fn publish(
        &mut self,
        device: &str,
        kind: UpKind,
        message: &[u8],
    ) -> Result<(), NotSent> {
        let id = DeviceId::new(device).map_err(|_| NotSent::Down)?;
        let topic = id.up(kind);
        let name = MqttString::from_str(topic.as_str()).ok().and_then(TopicName::new).ok_or(NotSent::Down)?;
        let options = PublicationOptions::new(TopicReference::Name(name)).at_least_once();
        match self.client.publish(&options, Bytes::from(message)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_recoverable() => Err(NotSent::Full),
            Err(_) => Err(NotSent::Down),
        }
    }

    /// Says goodbye.
    pub(crate) async fn close(&mut self) {
        // The connection ends in either case.
        let _ = self.client.disconnect(&DisconnectOptions::new()).await;
    }

    pub(crate) async fn ping(&mut self) -> Result<(), DownCause> {
        self.client.ping().await.map_err(|_| DownCause::Network)
    }

    /// Waits for the head of a packet. May be dropped and called again.
    pub(crate) async fn header(&mut self) -> Result<FixedHeader, DownCause> {
        self.client.poll_header().await.map_err(|_| DownCause::Network)
    }

    /// Reads the rest of a packet. What has to be kept of it is copied into the place that suits it.
    pub(crate) async fn body(
        &mut self,
        header: FixedHeader,
        messages: &mut Messages,
    ) -> Result<Received, DownCause> {
        let received = match self.client.poll_body(header).await {
            Ok(Event::Publish(publish)) => {
                let topic = publish.topic.name().map_or("", |name| name.as_ref().as_str());
                decode(topic, publish.message.as_bytes(), messages)
            }
            Ok(Event::Suback(suback)) if suback.reason_code.is_erroneous() => Received::Refused,
            Ok(Event::Suback(_)) => Received::Subscribed,
            Ok(Event::PublishAcknowledged(_) | Event::PublishRejected(_) | Event::PublishAborted(_)) => {
                Received::Room
            }
            Ok(_) => Received::Nothing,
            Err(error) if error.is_recoverable() => Received::Nothing,
            Err(_) => return Err(DownCause::Network),
        };
        self.forget();
        Ok(received)
    }

    /// Gives the memory of received packets back.
    fn forget(&mut self) {
        // SAFETY: what the client hands out of this memory are events, errors and connection information. They are
        // private to this type's methods, which decode them into values without borrows and have dropped them
        // before they call this one.
        #[allow(unsafe_code)]
        unsafe {
            self.client.buffer_mut().reset();
        }
    }
}

fn decode(topic: &str, message: &[u8], messages: &mut Messages) -> Received {
    let kind = DownKind::ALL.into_iter().find(|kind| topic.rsplit('/').next() == Some(kind.as_str()));
    match kind {
        Some(DownKind::Ack) => Ack::decode(message).map_or(Received::Nothing, Received::Ack),
        Some(DownKind::Desired) if copy(message, &mut messages.desired) => Received::Desired,
        Some(DownKind::Chunk) if copy(message, &mut messages.chunk) => Received::Chunk,
        // This device logs in with a password; a TLS stack brings its own certificate. What is longer than its place is
        // not meant for a device like this.
        Some(DownKind::Desired | DownKind::Chunk | DownKind::Cert) | None => Received::Nothing,
    }
}

/// Whether there was room.
fn copy<const N: usize>(message: &[u8], place: &mut Vec<u8, N>) -> bool {
    place.clear();
    place.extend_from_slice(message).is_ok()
}
