//! A device without HTTP that fetches its model.

use std::collections::BTreeMap;
use std::time::Duration;

use dunlin_protocol::{Chunk, Fetch, Object};
use dunlin_test_servers::Mosquitto;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

use super::{Options, Server, config};
use crate::models::tests::artifact;

/// Bytes of a piece: small, so that there are many.
const PIECE: u32 = 64;
/// Longest wait for something that should happen, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests that are open at once.
const OPEN: usize = 4;

/// Asks the API as administrator.
async fn ask(server: &Server, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Value {
    let token = server.admin_token().expect("the first start").reveal();
    let url = format!("http://{}/api/v1/{path}", server.http_address());
    let request = reqwest::Client::new()
        .request(method.parse().expect("a method"), url)
        .bearer_auth(token)
        .header("content-type", kind)
        .header("if-match", "*")
        .body(body);
    let answer = request.send().await.expect("an answer");
    let (status, text) = (answer.status(), answer.text().await.expect("a text"));
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).expect("JSON")
}

async fn ask_json(server: &Server, method: &str, path: &str, body: Value) -> Value {
    ask(server, method, path, "application/json", body.to_string().into_bytes()).await
}

/// Polls until there is such a packet.
async fn until<T>(events: &mut EventLoop, wanted: impl Fn(&Packet) -> Option<T>) -> T {
    let found = async {
        loop {
            let event = events.poll().await.expect("the connection stays");
            if let Event::Incoming(packet) = event
                && let Some(found) = wanted(&packet)
            {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("such a packet")
}

/// The next chunk: its object, offset and total, the seconds to wait, its bytes.
async fn chunk(events: &mut EventLoop) -> (Object, u32, u32, u32, Vec<u8>) {
    until(events, |packet| {
        let Packet::Publish(publish) = packet else { return None };
        if publish.topic != "d/pump-1/down/chunk" {
            return None;
        }
        assert!(!publish.retain && publish.qos == QoS::AtMostOnce);
        let chunk = Chunk::decode(&publish.payload).expect("a chunk");
        Some((chunk.object, chunk.offset, chunk.total, chunk.retry_after_s, chunk.bytes.to_vec()))
    })
    .await
}

async fn fetch(client: &AsyncClient, object: Object, offset: u32) {
    let mut message = [0; 64];
    let length = Fetch { object, offset, len: PIECE }.encode(&mut message).expect("encoded");
    let body = message[..length].to_vec();
    client.publish("d/pump-1/up/fetch", QoS::AtMostOnce, false, body).await.expect("the client runs");
}

#[tokio::test]
async fn at_the_embedded_endpoint() {
    a_device_fetches_its_model(&[]).await;
}

#[tokio::test]
#[ignore = "needs Mosquitto"]
async fn through_a_broker() {
    let broker = Mosquitto::start("").expect("a broker");
    let url = format!("mqtt://127.0.0.1:{}", broker.port());
    a_device_fetches_its_model(&[("broker-url", &url)]).await;
}

async fn a_device_fetches_its_model(settings: &[(&str, &str)]) {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(config(folder.path(), settings), Options::default()).await.expect("started");
    let ready = async {
        while !server.app().bus().expect("a bus").is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("the broker is there");
    ask_json(&server, "POST", "fleets", json!({ "id": "a" })).await;
    let device = json!({ "id": "pump-1", "fleet": "a", "hardware": "m4" });
    let device = ask_json(&server, "POST", "devices", device).await;
    ask_json(&server, "POST", "models", json!({ "name": "kws" })).await;
    let octets = "application/octet-stream";
    let bytes = artifact("one", false);
    let version = ask(&server, "POST", "models/kws/versions", octets, bytes.clone()).await;
    let body = json!({ "model": "kws", "version": 1 });
    ask_json(&server, "PUT", "devices/pump-1/slots/main", body).await;

    let port = u16::try_from(device["mqtt"]["port"].as_u64().expect("a port")).expect("a port");
    let mut options = MqttOptions::new("pump-1", "127.0.0.1", port);
    options.set_credentials("pump-1", device["password"].as_str().expect("a password"));
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe("d/pump-1/down/#", QoS::AtLeastOnce).await.expect("the client runs");
    until(&mut events, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;

    // What nobody can read is acknowledged, or it would come again for ever.
    client.publish("d/pump-1/up/fetch", QoS::AtLeastOnce, false, "?").await.expect("the client runs");
    until(&mut events, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    let nobodys = Object::Artifact([1; 32]);
    fetch(&client, nobodys, 0).await;
    assert_eq!(chunk(&mut events).await, (nobodys, 0, 0, 0, Vec::new()));

    let digest = hex::decode(version["digest"].as_str().expect("a digest")).expect("hex");
    let object = Object::Artifact(digest.try_into().expect("32 bytes"));
    let total = u32::try_from(bytes.len()).expect("small");
    let mut wanted = (0..total).step_by(PIECE as usize);
    for offset in wanted.by_ref().take(OPEN) {
        fetch(&client, object, offset).await;
    }
    let mut pieces = BTreeMap::new();
    while pieces.values().map(Vec::len).sum::<usize>() < bytes.len() {
        let (what, offset, length, wait, piece) = chunk(&mut events).await;
        assert_eq!((what, length, wait), (object, total, 0));
        pieces.insert(offset, piece);
        if let Some(offset) = wanted.next() {
            fetch(&client, object, offset).await;
        }
    }
    assert_eq!(pieces.into_values().flatten().collect::<Vec<_>>(), bytes);
    server.stop().await;
}
