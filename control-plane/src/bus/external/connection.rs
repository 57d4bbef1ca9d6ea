//! Connections to the broker, one after another.
//!
//! Every connection has a client of its own, so that nothing of the last one (an acknowledgement of a packet id that now
//! means another message, a publish of an old desired state) leaks into the next.

use super::{ExternalConfig, SESSION_EXPIRY, Shared, Stop, backoff, outbound::WINDOW};
use crate::bus::{AckToken, DeviceId, Inbound, Outcome, embedded::at_least_once};
use bytes::Bytes;
use dunlin_gateway::InOrder;
use dunlin_protocol::Topic;
use rumqttc::v5::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError,
    mqttbytes::{
        QoS,
        v5::{DisconnectReasonCode, Packet, PubAckReason, Publish, SubscribeReasonCode},
    },
};
use rumqttc::{Outgoing as Written, TlsConfiguration, Transport};
use std::{
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::sync::{
    Notify,
    mpsc::{self, error::TrySendError},
    watch,
};

/// A connection that has lasted this long counts as a good one: the wait before the next begins anew.
const GOOD: Duration = Duration::from_secs(10);
/// How long connecting may take, in seconds.
const CONNECT_TIMEOUT_S: u64 = 10;
/// A dead connection is noticed after two of these.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Why a connection ended.
enum End {
    /// The bus is stopped.
    Stopped,
    /// A token was dropped: the broker is to deliver again.
    Withheld,
    /// The broker does not let us subscribe.
    Refused(SubscribeReasonCode),
    Failed(Box<ConnectionError>),
}

/// Connects until the bus is stopped.
pub(super) async fn run(
    config: ExternalConfig,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Inbound>,
    mut stop: watch::Receiver<Stop>,
) {
    let mut failures = 0;
    while *stop.borrow_and_update() == Stop::Running {
        let from = tokio::time::Instant::now();
        let end = Connection::open(&config, &shared, &queue).run(&mut stop).await;
        shared.subscribed.store(false, Relaxed);
        shared.outbound.lock().expect("not poisoned").disconnected();
        if from.elapsed() > GOOD {
            failures = 0;
        }
        failures += 1;
        let mut random = [0; 4];
        // Without randomness the wait is its shortest.
        let _ = getrandom::fill(&mut random);
        let wait = backoff::wait(failures, u32::from_ne_bytes(random));
        match end {
            End::Stopped => return,
            End::Withheld => {
                tracing::warn!(?wait, "messages could not be committed; the broker delivers them again")
            }
            End::Refused(code) => tracing::error!(
                ?code,
                ?wait,
                filter = config.filter(),
                "the broker refuses the subscription: its access rules must let the control plane read d/+/up/# and \
                 write d/+/down/#"
            ),
            End::Failed(error) if is_taken_over(&error) => tracing::error!(
                client_id = config.client_id,
                ?wait,
                "another process uses this client id: each needs a data folder of its own"
            ),
            End::Failed(error) => {
                tracing::warn!(broker = config.host, port = config.port, %error, ?wait, "no connection to the broker")
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.changed() => {}
        }
    }
}

fn is_taken_over(error: &ConnectionError) -> bool {
    let ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) = error else {
        return false;
    };
    *reason_code == DisconnectReasonCode::SessionTakenOver
}

/// The messages of one connection that wait for their acknowledgement.
struct Acks {
    order: Mutex<InOrder<Publish>>,
    client: AsyncClient,
    /// A token was dropped.
    withheld: Notify,
    /// A token has ended.
    ended: Notify,
}

impl Acks {
    fn token(self: &Arc<Acks>, publish: &Publish) -> AckToken {
        // Only the packet id is needed for the PUBACK.
        let number =
            self.lock().push(Publish { topic: Bytes::new(), payload: Bytes::new(), ..publish.clone() });
        let acks = self.clone();
        AckToken::new(move |outcome| acks.finish(number, outcome))
    }

    fn finish(&self, number: u64, outcome: Outcome) {
        match outcome {
            Outcome::Withheld => self.withheld.notify_one(),
            Outcome::Committed => {
                let mut order = self.lock();
                order.complete(number);
                while let Some(publish) = order.pop() {
                    // The channel has room for every message that can be out; if it is closed, the connection is gone
                    // and the broker delivers again.
                    let _ = self.client.try_ack(&publish);
                }
                drop(order);
                self.ended.notify_one();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, InOrder<Publish>> {
        self.order.lock().expect("not poisoned")
    }
}

struct Connection<'a> {
    config: &'a ExternalConfig,
    shared: &'a Shared,
    queue: &'a mpsc::Sender<Inbound>,
    client: AsyncClient,
    events: EventLoop,
    acks: Arc<Acks>,
    /// What found no room in the queue. Nothing more is read until it has found some.
    stalled: Option<Inbound>,
    draining: bool,
    /// The broker sends nothing new any more.
    unsubscribed: bool,
}

impl<'a> Connection<'a> {
    fn open(
        config: &'a ExternalConfig,
        shared: &'a Shared,
        queue: &'a mpsc::Sender<Inbound>,
    ) -> Connection<'a> {
        let mut options = MqttOptions::new(&config.client_id, &config.host, config.port);
        options
            .set_clean_start(false)
            .set_session_expiry_interval(Some(SESSION_EXPIRY.as_secs() as u32))
            .set_receive_maximum(Some(config.receive_maximum))
            .set_max_packet_size(Some(config.packet_bytes))
            .set_outgoing_inflight_upper_limit(WINDOW as u16)
            .set_connection_timeout(CONNECT_TIMEOUT_S)
            .set_keep_alive(KEEP_ALIVE)
            .set_manual_acks(true);
        if let Some((user, password)) = &config.credentials {
            options.set_credentials(user, password);
        }
        if let Some(tls) = &config.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.0.clone())));
        }
        // Room for an acknowledgement of every message in this process (waiting, and being committed), every publish
        // of the window, and requests.
        let capacity = config.queue() + usize::from(config.receive_maximum) + WINDOW + 8;
        let (client, events) = AsyncClient::new(options, capacity);
        let acks = Arc::new(Acks {
            order: Mutex::default(),
            client: client.clone(),
            withheld: Notify::new(),
            ended: Notify::new(),
        });
        Connection {
            config,
            shared,
            queue,
            client,
            events,
            acks,
            stalled: None,
            draining: false,
            unsubscribed: false,
        }
    }

    async fn run(mut self, stop: &mut watch::Receiver<Stop>) -> End {
        let acks = self.acks.clone();
        loop {
            tokio::select! {
                room = self.queue.reserve(), if self.stalled.is_some() => {
                    if let (Ok(room), Some(message)) = (room, self.stalled.take()) {
                        room.send(message);
                    }
                }
                event = self.events.poll(), if self.stalled.is_none() => match event {
                    Ok(event) => {
                        if let Some(end) = self.handle(event) {
                            return end;
                        }
                    }
                    // The answer to our own DISCONNECT.
                    Err(_) if self.draining && self.is_drained() => return End::Stopped,
                    Err(error) => return End::Failed(Box::new(error)),
                },
                () = acks.withheld.notified() => return End::Withheld,
                () = acks.ended.notified(), if self.draining => {}
                () = self.shared.something_to_send.notified() => {}
                _ = stop.changed() => {
                    let stop = *stop.borrow_and_update();
                    if stop == Stop::Now || !self.shared.subscribed.load(Relaxed) {
                        return End::Stopped;
                    }
                    self.drain();
                }
            }
            self.publish();
            if self.draining && self.is_drained() {
                // The queue has room; without a connection there is nobody to tell.
                let _ = self.client.try_disconnect();
                self.flush().await;
                return End::Stopped;
            }
        }
    }

    fn handle(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                // Also when the broker has kept the session: it costs nothing and cannot be wrong.
                let _ = self.client.try_subscribe(self.config.filter(), QoS::AtLeastOnce);
            }
            Event::Incoming(Packet::SubAck(answer)) => {
                let refused =
                    answer.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
                if let Some(code) = refused {
                    return Some(End::Refused(*code));
                }
                tracing::info!(broker = self.config.host, port = self.config.port, "connected to the broker");
                self.shared.subscribed.store(true, Relaxed);
            }
            Event::Incoming(Packet::UnsubAck(_)) => self.unsubscribed = true,
            Event::Incoming(Packet::Publish(publish)) => self.receive(publish),
            Event::Incoming(Packet::PubAck(answer)) => {
                let outgoing = self.shared.outbound.lock().expect("not poisoned").acknowledged(answer.pkid);
                let delivered =
                    matches!(answer.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
                if let Some(outgoing) = outgoing
                    && !delivered
                {
                    tracing::error!(
                        device = %outgoing.device, reason = ?answer.reason,
                        "the broker refuses a message to a device: its access rules must let the control plane write \
                         d/+/down/#"
                    );
                }
            }
            Event::Outgoing(Written::Publish(packet_id)) => {
                self.shared.outbound.lock().expect("not poisoned").published(packet_id);
            }
            _ => {}
        }
        None
    }

    fn receive(&mut self, publish: Publish) {
        let at_least_once = publish.qos == QoS::AtLeastOnce;
        let ack = if at_least_once { self.acks.token(&publish) } else { AckToken::none() };
        let topic = std::str::from_utf8(&publish.topic).ok();
        let Some(Topic::Up { device, kind }) = topic.and_then(Topic::parse) else {
            // From a newer device, or by somebody whom the broker's rules should not let. It would come for ever.
            tracing::debug!(topic = ?publish.topic, "a message of an unknown kind");
            return ack.done();
        };
        let Ok(device) = DeviceId::new(device.as_str()) else { return ack.done() };
        let message = Inbound { device, kind, payload: publish.payload, ack };
        match self.queue.try_send(message) {
            Ok(()) => {}
            // Under load Mosquitto 2.0.11 has more out than the receive maximum: it has to wait.
            Err(TrySendError::Full(message)) => self.stalled = Some(message),
            Err(TrySendError::Closed(message)) => drop(message),
        }
    }

    /// Gives the client what waits, as far as the window allows.
    fn publish(&mut self) {
        if !self.shared.subscribed.load(Relaxed) {
            return;
        }
        let mut outbound = self.shared.outbound.lock().expect("not poisoned");
        while let Some(outgoing) = outbound.submit() {
            let qos = if at_least_once(outgoing.kind) { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            let topic = outgoing.device.down(outgoing.kind);
            // The channel has room for the window.
            let _ = self.client.try_publish(topic, qos, outgoing.kind.is_retained(), outgoing.payload);
        }
    }

    /// Asks the broker to give new messages to others.
    fn drain(&mut self) {
        if !self.draining {
            self.draining = true;
            // The queue has room for it.
            let _ = self.client.try_unsubscribe(self.config.filter());
        }
    }

    /// Nothing new comes, everything that came is acknowledged, and the desired states are with the broker.
    fn is_drained(&self) -> bool {
        let owes = self.shared.outbound.lock().expect("not poisoned").owes_desired();
        self.unsubscribed && self.acks.lock().is_empty() && !owes
    }

    /// Writes what the client has, up to the DISCONNECT.
    async fn flush(&mut self) {
        let written = async {
            while let Ok(event) = self.events.poll().await {
                if event == Event::Outgoing(Written::Disconnect) {
                    return;
                }
            }
        };
        // A broker that does not take it sees the connection closed instead.
        let _ = tokio::time::timeout(Duration::from_secs(2), written).await;
    }
}
