//! The bus of an installation without a broker: devices connect to this process.

use super::{
    AckToken, BusError, Credential, DeviceAccess, DeviceBus, DeviceId, DownKind, Inbound, Login,
    LoginRefused, Outcome, UpKind,
};
use async_trait::async_trait;
use bytes::Bytes;
use dunlin_gateway::{BindError, CloseReason, Config, Gateway, Handler, Message, Metrics, Publish, Refusal};
use std::{
    net::SocketAddr,
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

/// Devices on the embedded MQTT endpoint. A message's PUBACK leaves when its token is completed, so a QoS 1 publish
/// that a device sees acknowledged is in the database.
///
/// The queue has no bound of its own: the gateway stops reading from devices when
/// [`dunlin_gateway::Limits::in_flight_bytes`] are waiting for their tokens.
pub struct EmbeddedBus {
    gateway: Gateway<Desk>,
    desk: Arc<Desk>,
    queue: AsyncMutex<mpsc::UnboundedReceiver<Inbound>>,
}

/// Where the gateway's questions and messages arrive.
struct Desk {
    access: Arc<dyn DeviceAccess>,
    /// Empty after the shutdown, so that the queue ends.
    queue: RwLock<Option<mpsc::UnboundedSender<Inbound>>>,
}

impl EmbeddedBus {
    /// Starts to listen; `access` says who may connect.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub async fn start(config: Config, access: Arc<dyn DeviceAccess>) -> Result<EmbeddedBus, BindError> {
        let (sender, queue) = mpsc::unbounded_channel();
        let desk = Arc::new(Desk { access, queue: RwLock::new(Some(sender)) });
        let gateway = Gateway::bind(config, desk.clone()).await?;
        Ok(EmbeddedBus { gateway, desk, queue: AsyncMutex::new(queue) })
    }

    /// Where devices connect, in the order of the configuration's listeners, with the ports that the system chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.gateway.addresses()
    }

    /// The endpoint's counters.
    pub fn metrics(&self) -> Metrics {
        self.gateway.metrics()
    }
}

impl Handler for Desk {
    async fn authenticate(&self, login: dunlin_gateway::Login) -> Result<Arc<str>, Refusal> {
        let serial = login.certificate.as_ref().map(|certificate| hex::encode(&certificate.serial));
        let credential = match (&login.certificate, &login.username, &login.password) {
            // TLS has verified it: a password beside it adds nothing.
            (Some(certificate), _, _) => {
                Credential::Certificate { common_name: &certificate.common_name, serial: serial.as_deref() }
            }
            (None, Some(username), Some(password)) => Credential::Password { username, password },
            _ => return Err(Refusal::BadCredential),
        };
        let login = Login { claimed: &login.client_id, credential, address: login.address.ip() };
        match self.access.authenticate(login).await {
            Ok(device) => Ok(device.shared()),
            Err(LoginRefused::BadCredential | LoginRefused::Revoked) => Err(Refusal::BadCredential),
            Err(LoginRefused::Blocked) => Err(Refusal::Banned),
            Err(LoginRefused::Unavailable) => Err(Refusal::Unavailable),
        }
    }

    fn publish(&self, message: Publish) {
        let token = message.ack;
        let Some(kind) = UpKind::from_level(&message.level) else {
            // From a device newer than this server. It would send it for ever if it were not acknowledged.
            tracing::debug!(device = %message.device, level = %message.level, "a message of an unknown kind");
            return token.done();
        };
        let ack = AckToken::new(move |outcome| match outcome {
            Outcome::Committed => token.done(),
            Outcome::Withheld => drop(token),
        });
        let device = DeviceId::from_shared(message.device);
        let message = Inbound { device, kind, payload: message.payload, ack };
        if let Some(queue) = &*self.queue.read().expect("not poisoned") {
            // Without a receiver the process is ending; the dropped token says so to the device.
            let _ = queue.send(message);
        }
    }

    async fn retained(&self, device: &Arc<str>) -> Vec<Message> {
        let device = DeviceId::from_shared(device.clone());
        let desired = self.access.desired(&device).await;
        desired.map(|payload| message(&device, DownKind::Desired, payload)).into_iter().collect()
    }

    fn connected(&self, device: &Arc<str>) {
        self.access.presence(&DeviceId::from_shared(device.clone()), true);
    }

    fn disconnected(&self, device: &Arc<str>, reason: CloseReason) {
        tracing::debug!(%device, reason = reason.name(), "a device disconnected");
        self.access.presence(&DeviceId::from_shared(device.clone()), false);
    }
}

fn message(device: &DeviceId, kind: DownKind, payload: Bytes) -> Message {
    Message {
        topic: device.down(kind).into(),
        payload,
        at_least_once: at_least_once(kind),
        retained: kind.is_retained(),
    }
}

/// An [`DownKind::Ack`] repeats all that the one before said, and a device that misses one sends again and gets
/// another; a piece that is lost is asked for again: they are sent with QoS 0.
pub(super) fn at_least_once(kind: DownKind) -> bool {
    !matches!(kind, DownKind::Ack | DownKind::Chunk)
}

#[async_trait]
impl DeviceBus for EmbeddedBus {
    async fn next(&self, max: usize) -> Vec<Inbound> {
        let mut batch = Vec::new();
        self.queue.lock().await.recv_many(&mut batch, max).await;
        batch
    }

    async fn send(&self, device: &DeviceId, kind: DownKind, payload: Bytes) -> Result<(), BusError> {
        if self.desk.queue.read().expect("not poisoned").is_none() {
            return Err(BusError::Closed);
        }
        // A device that is not connected asks when it subscribes.
        self.gateway.send(device.as_str(), message(device, kind, payload));
        Ok(())
    }

    async fn kick(&self, device: &DeviceId) {
        self.gateway.kick(device.as_str());
    }

    fn connected(&self) -> usize {
        self.gateway.connected()
    }

    fn is_ready(&self) -> bool {
        true
    }

    async fn shutdown(&self, limit: Duration) {
        let done = self.gateway.shutdown(limit).await;
        if done.unfinished > 0 {
            tracing::warn!(
                connections = done.unfinished,
                "devices were disconnected before their last messages were committed; they send them again"
            );
        }
        self.desk.queue.write().expect("not poisoned").take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_gateway::Listener;
    use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
    use std::sync::Mutex;

    /// Knows one device, `a`, with a password.
    #[derive(Default)]
    struct OneDevice {
        presence: Mutex<Vec<bool>>,
        desired: Mutex<Option<Bytes>>,
    }

    #[async_trait]
    impl DeviceAccess for OneDevice {
        async fn authenticate(&self, login: Login<'_>) -> Result<DeviceId, LoginRefused> {
            match login.credential {
                Credential::Password { username: "a", password: b"secret" } => {
                    Ok(DeviceId::new("a").unwrap())
                }
                Credential::Password { username: "blocked", .. } => Err(LoginRefused::Blocked),
                _ => Err(LoginRefused::BadCredential),
            }
        }

        async fn desired(&self, _device: &DeviceId) -> Option<Bytes> {
            self.desired.lock().unwrap().clone()
        }

        fn presence(&self, device: &DeviceId, connected: bool) {
            assert_eq!(device.as_str(), "a");
            self.presence.lock().unwrap().push(connected);
        }
    }

    async fn start(access: &Arc<OneDevice>) -> EmbeddedBus {
        let listener = Listener { address: ([127, 0, 0, 1], 0).into(), tls: None };
        let config = Config { listeners: vec![listener], ..Config::default() };
        EmbeddedBus::start(config, access.clone()).await.unwrap()
    }

    fn client(bus: &EmbeddedBus, user: &str) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(user, "127.0.0.1", bus.addresses()[0].port());
        options.set_credentials(user, "secret");
        AsyncClient::new(options, 10)
    }

    /// Polls until the endpoint sends such a packet.
    async fn until(events: &mut EventLoop, wanted: impl Fn(&Packet) -> bool) -> Packet {
        let found = async {
            loop {
                if let Event::Incoming(packet) = events.poll().await.unwrap()
                    && wanted(&packet)
                {
                    return packet;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), found).await.expect("such a packet")
    }

    #[tokio::test]
    async fn a_device_and_the_control_plane_exchange_messages() {
        let access = Arc::<OneDevice>::default();
        *access.desired.lock().unwrap() = Some(Bytes::from_static(b"generation 1"));
        let bus = start(&access).await;
        let device = DeviceId::new("a").unwrap();
        let (client, mut events) = client(&bus, "a");
        client.subscribe("d/a/down/#", QoS::AtLeastOnce).await.unwrap();
        let is_publish = |packet: &Packet| matches!(packet, Packet::Publish(_));
        let Packet::Publish(desired) = until(&mut events, is_publish).await else { unreachable!() };
        assert_eq!((&*desired.topic, &desired.payload[..]), ("d/a/down/desired", &b"generation 1"[..]));

        client.publish("d/a/up/report", QoS::AtLeastOnce, false, "body").await.unwrap();
        client.publish("d/a/up/from-the-future", QoS::AtLeastOnce, false, "body").await.unwrap();
        let polling = tokio::spawn(async move {
            let is_puback = |packet: &Packet| matches!(packet, Packet::PubAck(_));
            until(&mut events, is_puback).await;
            until(&mut events, is_puback).await;
            let Packet::Publish(ack) = until(&mut events, is_publish).await else { unreachable!() };
            (ack, events)
        });
        let mut batch = bus.next(10).await;
        assert_eq!(batch.len(), 1);
        let message = batch.remove(0);
        assert_eq!(
            (&message.device, message.kind, &message.payload[..]),
            (&device, UpKind::Report, &b"body"[..])
        );
        message.ack.done();
        bus.send(&device, DownKind::Ack, Bytes::from_static(b"committed")).await.unwrap();
        let (ack, events) = polling.await.unwrap();
        assert_eq!(
            (&*ack.topic, &ack.payload[..], ack.qos),
            ("d/a/down/ack", &b"committed"[..], QoS::AtMostOnce)
        );
        assert_eq!(bus.connected(), 1);
        // Somebody who is not there is no error.
        bus.send(&DeviceId::new("b").unwrap(), DownKind::Desired, Bytes::new()).await.unwrap();

        let polling = tokio::spawn(async move {
            let mut events = events;
            while events.poll().await.is_ok() {}
        });
        bus.shutdown(Duration::from_secs(5)).await;
        polling.await.unwrap();
        assert!(bus.next(10).await.is_empty());
        assert!(matches!(bus.send(&device, DownKind::Ack, Bytes::new()).await, Err(BusError::Closed)));
        assert_eq!(*access.presence.lock().unwrap(), [true, false]);
    }

    #[tokio::test]
    async fn strangers_stay_out() {
        let bus = start(&Arc::default()).await;
        for (user, refusal) in [("blocked", "NotAuthorized"), ("unknown", "BadUserNamePassword")] {
            let (_client, mut events) = client(&bus, user);
            let error = events.poll().await.unwrap_err().to_string();
            assert!(error.contains(refusal), "{error}");
        }
        assert_eq!(bus.metrics().closed(CloseReason::Banned), 1);
        assert_eq!(bus.connected(), 0);
    }

    #[tokio::test]
    async fn a_kicked_device_is_gone() {
        let access = Arc::<OneDevice>::default();
        let bus = start(&access).await;
        let (_client, mut events) = client(&bus, "a");
        until(&mut events, |packet| matches!(packet, Packet::ConnAck(_))).await;
        bus.kick(&DeviceId::new("a").unwrap()).await;
        assert!(events.poll().await.is_err());
    }
}
