//! The devices: made over HTTP, told over MQTT what to fetch.

use std::time::Duration;

use dunlin_protocol::Desired;
use reqwest::{Client, Method};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

use super::client::pause;
use super::owner::{MODEL, Owner};
use super::server::Served;

/// Devices that log in at once.
const AT_ONCE: usize = 50;

/// Devices that should run the same model.
pub(crate) struct Fleet {
    pub(crate) devices: Vec<Device>,
}

/// A device and its log-in.
pub(crate) struct Device {
    pub(crate) id: String,
    password: String,
    port: u16,
}

/// What a device is told to fetch.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) url: String,
    pub(crate) digest: [u8; 32],
    pub(crate) size: u64,
}

impl Fleet {
    pub(crate) async fn create(served: &Served, count: usize, artifact: &[u8]) -> Fleet {
        // The HTTP client wants to know whose cryptography to use, even without TLS.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let api = Api { client: Client::new(), served };
        let (owner, octets) = (Owner::new(), "application/octet-stream");
        let trust = api.ask(Method::GET, "trust", octets, Vec::new()).await;
        api.ask(Method::POST, "trust/roots", octets, owner.root(digest(&trust["director"]))).await;
        api.ask_json(Method::POST, "models", json!({ "name": MODEL })).await;
        let version =
            api.ask(Method::POST, &format!("models/{MODEL}/versions"), octets, artifact.to_vec()).await;
        let release = owner.release(digest(&version["digest"]), artifact.len());
        api.ask(Method::PUT, &format!("models/{MODEL}/versions/1/release"), octets, release).await;
        api.ask_json(Method::POST, "fleets", json!({ "id": "a" })).await;
        let mut devices = Vec::new();
        for number in 0..count {
            let id = format!("device-{number}");
            let device = json!({ "id": id, "fleet": "a", "hardware": "pi" });
            let made = api.ask_json(Method::POST, "devices", device).await;
            let slot = json!({ "model": MODEL, "version": 1 });
            api.ask_json(Method::PUT, &format!("devices/{id}/slots/main"), slot).await;
            let password = made["password"].as_str().expect("a password").to_owned();
            let port =
                made["mqtt"]["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
            devices.push(Device { id, password, port });
        }
        Fleet { devices }
    }

    /// What their desired states say.
    pub(crate) async fn orders(&self) -> Vec<Order> {
        let mut orders = Vec::new();
        for some in self.devices.chunks(AT_ONCE) {
            orders.extend(futures_util::future::join_all(some.iter().map(Device::order)).await);
        }
        orders
    }
}

impl Device {
    /// Logs in and subscribes; again and again, since an endpoint takes so many connections a second from an address.
    pub(crate) async fn connect(&self) -> (AsyncClient, EventLoop) {
        loop {
            let mut options = MqttOptions::new(&self.id, "127.0.0.1", self.port);
            options.set_credentials(&self.id, &self.password);
            let (client, mut events) = AsyncClient::new(options, 10);
            client.subscribe(format!("d/{}/down/#", self.id), QoS::AtLeastOnce).await.expect("a client");
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::SubAck(_))) => return (client, events),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            pause(1).await;
        }
    }

    /// Reads the desired state.
    async fn order(&self) -> Order {
        // The client's end ends the event loop.
        let (_client, mut events) = self.connect().await;
        let told = async {
            loop {
                if let Event::Incoming(Packet::Publish(message)) = events.poll().await.expect("a connection")
                {
                    return message.payload;
                }
            }
        };
        let message = tokio::time::timeout(Duration::from_secs(60), told).await.expect("a desired state");
        let desired = Desired::decode(&message).expect("a desired state");
        let slot = desired.slots.iter().next().expect("a slot");
        Order { url: slot.url.to_owned(), digest: slot.model, size: slot.size.into() }
    }
}

/// The API, as the administrator.
struct Api<'a> {
    client: Client,
    served: &'a Served,
}

impl Api<'_> {
    async fn ask(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Value {
        let url = format!("http://{}/api/v1/{path}", self.served.address);
        let request = self.client.request(method, url).bearer_auth(&self.served.token);
        let request = request.header("content-type", kind).header("if-match", "*").body(body);
        let answer = request.send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("a text"));
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    async fn ask_json(&self, method: Method, path: &str, body: Value) -> Value {
        self.ask(method, path, "application/json", body.to_string().into_bytes()).await
    }
}

/// 32 bytes in hex.
fn digest(value: &Value) -> [u8; 32] {
    let bytes = hex::decode(value.as_str().expect("a text")).expect("hex");
    bytes.try_into().expect("32 bytes")
}
