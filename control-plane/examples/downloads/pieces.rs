//! A device's end of a download over MQTT.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dunlin_artifact::Digester;
use dunlin_protocol::limits::MAX_CHUNK;
use dunlin_protocol::{Chunk, Fetch, Object};
use rumqttc::{AsyncClient, Event, EventLoop, Packet, QoS};

use super::client::{Tally, pause};
use super::fleet::{Device, Order};

/// Bytes of a piece: as many as there may be.
const PIECE: usize = MAX_CHUNK;
/// Pieces that are asked for at once.
const OPEN: usize = 4;
/// What is not answered for so long is asked for again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fetches piece by piece until every byte is there; waits as long as the server says, and up to as long again.
pub(crate) async fn fetch(device: &Device, order: &Order, tally: &Tally) {
    let (client, mut events) = device.connect().await;
    let size = usize::try_from(order.size).expect("it fits");
    let mut digester = Digester::new();
    let offsets: Vec<u32> = (0..size).step_by(PIECE).map(|at| u32::try_from(at).expect("32 bits")).collect();
    for some in offsets.chunks(OPEN) {
        let mut pieces = BTreeMap::new();
        while pieces.len() < some.len() {
            let missing: Vec<u32> = some.iter().filter(|at| !pieces.contains_key(*at)).copied().collect();
            let round = ask(&client, &mut events, device, order, &missing, &mut pieces);
            match tokio::time::timeout(PATIENCE, round).await {
                Ok(0) => {}
                Ok(seconds) => {
                    tally.waits.fetch_add(1, Ordering::Relaxed);
                    pause(seconds).await;
                }
                Err(_) => {
                    tally.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        pieces.into_values().for_each(|piece| digester.update(&piece));
    }
    assert_eq!(digester.finish(), order.digest, "the digest is wrong");
}

/// Asks for these pieces and takes the answers; the seconds to wait, if some are refused.
async fn ask(
    client: &AsyncClient,
    events: &mut EventLoop,
    device: &Device,
    order: &Order,
    offsets: &[u32],
    pieces: &mut BTreeMap<u32, Vec<u8>>,
) -> u64 {
    for offset in offsets {
        let fetch = Fetch { object: Object::Artifact(order.digest), offset: *offset, len: PIECE as u32 };
        let mut message = [0; 64];
        let length = fetch.encode(&mut message).expect("it fits");
        let topic = format!("d/{}/up/fetch", device.id);
        client.publish(topic, QoS::AtMostOnce, false, &message[..length]).await.expect("a client");
    }
    let (mut open, mut wait_s) = (offsets.to_vec(), 0);
    while !open.is_empty() {
        let Event::Incoming(Packet::Publish(publish)) = events.poll().await.expect("a connection") else {
            continue;
        };
        if !publish.topic.ends_with("/down/chunk") {
            continue;
        }
        let chunk = Chunk::decode(&publish.payload).expect("a chunk");
        open.retain(|offset| *offset != chunk.offset);
        if chunk.retry_after_s > 0 {
            wait_s = wait_s.max(chunk.retry_after_s.into());
        } else {
            assert_eq!(u64::from(chunk.total), order.size, "it is assigned");
            pieces.insert(chunk.offset, chunk.bytes.to_vec());
        }
    }
    wait_s
}
