//! Random bytes on real connections: the endpoint must go on serving others, and forget the connections.
//! (The protocol state alone gets many more of them, in the unit tests of `session`.)

mod support;

use dunlin_gateway::Limits;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use std::time::Duration;
use support::{Raw, Server, connect, puback, publish};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn random_bytes_disturb_nobody() {
    let limits = Limits { login_timeout: Duration::from_millis(500), ..Limits::default() };
    let mut server = Server::start(limits).await;
    let mut witness = Raw::login(&server, 4, "witness").await;
    let mut runner = TestRunner::deterministic();
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 1..2000);
    for round in 0..300u16 {
        let mut raw = Raw::open(&server).await;
        let device = format!("device-{round}");
        let noise = bytes.new_tree(&mut runner).unwrap().current();
        let version = [4, 5][usize::from(round % 2)];
        if round % 3 > 0 {
            raw.send(&connect(version, &device, &device, "secret", 1)).await;
        }
        if round % 3 > 1 {
            // A good header with noise behind it.
            let topic = format!("d/{device}/up/report");
            let good = publish(version, &topic, 1, 1, &noise);
            let _ = raw.0.write_all(&good[..good.len() / 2]).await;
        }
        // The connection may be closed already.
        let _ = raw.0.write_all(&noise).await;
    }
    // What random bytes happened to publish is committed; it does not matter.
    while let Ok(message) = server.publishes.try_recv() {
        message.ack.done();
    }
    witness.send(&publish(4, "d/witness/up/report", 1, 1, b"here")).await;
    loop {
        let message = server.publish().await;
        let found = &*message.device == "witness";
        message.ack.done();
        if found {
            break;
        }
    }
    assert_eq!(witness.packet().await, puback(1));
    server.until(|metrics| metrics.connections == 1).await;
    assert_eq!(server.gateway.connected(), 1);
}
