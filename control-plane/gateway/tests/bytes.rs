//! The endpoint against a client that speaks raw bytes: what a well-behaved library never sends.

mod support;

use dunlin_gateway::{CloseReason, Limits, Sent, Shutdown};
use std::time::{Duration, Instant};
use support::{Raw, SOON, Server, ack, connect, desired, packet, puback, publish, subscribe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const VERSIONS: [u8; 2] = [4, 5];

fn patient() -> Limits {
    Limits::default()
}

#[tokio::test]
async fn a_puback_waits_for_its_token_and_for_its_turn() {
    for version in VERSIONS {
        let mut server = Server::start(patient()).await;
        let mut raw = Raw::login(&server, version, "a").await;
        for id in [7, 8, 9] {
            raw.send(&publish(version, "d/a/up/report", 1, id, &id.to_be_bytes())).await;
        }
        let messages = [server.publish().await, server.publish().await, server.publish().await];
        assert!(messages.iter().all(|message| &*message.device == "a" && message.level == "report"));
        let [first, second, third] = messages;
        assert_eq!(&third.payload[..], &9u16.to_be_bytes());
        third.ack.done();
        raw.silent().await;
        first.ack.done();
        assert_eq!(raw.packet().await, puback(7));
        raw.silent().await;
        second.ack.done();
        assert_eq!(raw.packet().await, puback(8));
        assert_eq!(raw.packet().await, puback(9));
        server.until(|metrics| metrics.acknowledged == 3 && metrics.publishes == 3).await;
    }
}

#[tokio::test]
async fn a_dropped_token_ends_the_connection_without_a_puback() {
    for version in VERSIONS {
        let mut server = Server::start(patient()).await;
        let mut raw = Raw::login(&server, version, "a").await;
        raw.send(&publish(version, "d/a/up/report", 1, 1, b"x")).await;
        raw.send(&publish(version, "d/a/up/report", 1, 2, b"y")).await;
        let (first, second) = (server.publish().await, server.publish().await);
        // Refused after the first was committed: that one is still acknowledged.
        first.ack.done();
        drop(second);
        assert_eq!(raw.packet().await, puback(1));
        if version == 5 {
            assert_eq!(raw.packet().await, (0xe0, vec![0x89]), "DISCONNECT, server busy");
        }
        raw.closed().await;
        drop(raw);
        server.until_closed(CloseReason::Withheld).await;
        assert_eq!(server.gateway.metrics().acknowledged, 1);
    }
}

#[tokio::test]
async fn tokens_that_outlive_their_connection_do_nothing() {
    let mut server = Server::start(patient()).await;
    let mut raw = Raw::login(&server, 4, "a").await;
    raw.send(&publish(4, "d/a/up/report", 1, 1, b"x")).await;
    let message = server.publish().await;
    drop(raw);
    server.until(|metrics| metrics.connections == 0).await;
    message.ack.done();
    assert_eq!(server.gateway.metrics().acknowledged, 0);
}

#[tokio::test]
async fn a_foreign_topic_never_reaches_the_handler() {
    for topic in ["d/b/up/report", "d/a/down/ack", "d/a/up/report/x", "d/a/up/", "x", "$SYS/a"] {
        // MQTT 5 has a reason code; the connection goes on.
        let mut server = Server::start(patient()).await;
        let mut raw = Raw::login(&server, 5, "a").await;
        raw.send(&publish(5, "d/a/up/report", 1, 1, b"own")).await;
        raw.send(&publish(5, topic, 1, 2, b"foreign")).await;
        let own = server.publish().await;
        raw.silent().await;
        own.ack.done();
        assert_eq!(raw.packet().await, puback(1));
        assert_eq!(raw.packet().await, (0x40, vec![0, 2, 0x87]), "PUBACK, not authorized: {topic}");
        server.no_publish();

        // MQTT 3.1.1 has none: no PUBACK, the end. So it is for QoS 0, which has no PUBACK at all.
        for (version, qos) in [(4, 1), (4, 0), (5, 0)] {
            let mut raw = Raw::login(&server, version, "a").await;
            raw.send(&publish(version, topic, qos, 3, b"foreign")).await;
            if version == 5 {
                assert_eq!(raw.packet().await, (0xe0, vec![0x87]), "DISCONNECT, not authorized");
            }
            raw.closed().await;
        }
        server.no_publish();
        server.until(|metrics| metrics.closed(CloseReason::ForbiddenTopic) == 3).await;
        assert_eq!(server.gateway.metrics().publishes_refused, 4);
    }
}

#[tokio::test]
async fn a_stolen_client_id_is_refused_and_does_not_disturb_its_owner() {
    for (version, code) in [(4, 2), (5, 0x85)] {
        let mut server = Server::start(patient()).await;
        let mut owner = Raw::login(&server, version, "a").await;
        let mut thief = Raw::open(&server).await;
        thief.send(&connect(version, "a", "b", "secret", 60)).await;
        let (first, body) = thief.packet().await;
        assert_eq!((first, body[1]), (0x20, code));
        thief.closed().await;
        drop(thief);
        server.until_closed(CloseReason::IdentityMismatch).await;
        owner.send(&publish(version, "d/a/up/report", 1, 1, b"x")).await;
        server.publish().await.ack.done();
        assert_eq!(owner.packet().await, puback(1));
        assert_eq!(*server.handler.presence.lock().unwrap(), [("a".to_owned(), Ok(()))]);
    }
}

#[tokio::test]
async fn wrong_credentials_get_their_code() {
    let cases = [("wrong", 4, 4), ("wrong", 5, 0x86), ("banned", 4, 5), ("banned", 5, 0x8a)];
    let away = [("database away", 4, 3), ("database away", 5, 0x88)];
    let server = Server::start(patient()).await;
    for (password, version, code) in cases.into_iter().chain(away) {
        let mut raw = Raw::open(&server).await;
        raw.send(&connect(version, "a", "a", password, 60)).await;
        let (first, body) = raw.packet().await;
        assert_eq!((first, body[1]), (0x20, code), "{password}, version {version}");
        raw.closed().await;
    }
    // An empty client id cannot be an identity.
    let mut raw = Raw::open(&server).await;
    raw.send(&connect(5, "", "a", "secret", 60)).await;
    assert_eq!(raw.packet().await.1[1], 0x85);
    assert_eq!(server.gateway.connected(), 0);
}

#[tokio::test]
async fn the_same_device_takes_over_its_own_connection() {
    for version in VERSIONS {
        let mut server = Server::start(patient()).await;
        let mut old = Raw::login(&server, version, "a").await;
        old.send(&publish(version, "d/a/up/report", 1, 1, b"old")).await;
        let in_flight = server.publish().await;
        let mut new = Raw::login(&server, version, "a").await;
        if version == 5 {
            assert_eq!(old.packet().await, (0xe0, vec![0x8e]), "DISCONNECT, session taken over");
        }
        old.closed().await;
        drop(old);
        server.until_closed(CloseReason::TakenOver).await;
        // The old connection's token is nobody's; the new one is not touched by it.
        drop(in_flight);
        new.send(&publish(version, "d/a/up/report", 1, 1, b"new")).await;
        server.publish().await.ack.done();
        assert_eq!(new.packet().await, puback(1));
        assert_eq!(server.gateway.connected(), 1);
        drop(new);
        server.until(|metrics| metrics.devices == 0).await;
        let told = [("a".to_owned(), Ok(())), ("a".to_owned(), Err(CloseReason::Device))];
        assert_eq!(*server.handler.presence.lock().unwrap(), told, "one coming, one going");
    }
}

#[tokio::test]
async fn qos_2_is_refused() {
    let mut server = Server::start(patient()).await;
    let mut raw = Raw::open(&server).await;
    raw.send(&connect(5, "a", "a", "secret", 60)).await;
    let (_, connack) = raw.packet().await;
    assert!(connack.windows(2).any(|property| property == [0x24, 1]), "maximum QoS 1 in {connack:?}");
    raw.send(&publish(5, "d/a/up/report", 2, 1, b"x")).await;
    assert_eq!(raw.packet().await, (0xe0, vec![0x9b]), "DISCONNECT, QoS not supported");
    raw.closed().await;
    let mut raw = Raw::login(&server, 4, "a").await;
    raw.send(&publish(4, "d/a/up/report", 2, 1, b"x")).await;
    raw.closed().await;
    server.no_publish();
}

#[tokio::test]
async fn qos_0_reaches_the_handler_and_has_no_puback() {
    for version in VERSIONS {
        let mut server = Server::start(patient()).await;
        let mut raw = Raw::login(&server, version, "a").await;
        raw.send(&publish(version, "d/a/up/event", 0, 0, b"x")).await;
        let message = server.publish().await;
        assert_eq!(&message.payload[..], b"x");
        drop(message);
        raw.silent().await;
        assert_eq!(server.gateway.connected(), 1);
    }
}

#[tokio::test]
async fn garbage_ends_the_connection() {
    let garbage: [&[u8]; 12] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3],
        &[0; 64],
        &[0xff; 64],
        // A length that never ends.
        &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff],
        // A CONNECT of an unknown version, of a wrong protocol name, cut short, and with rubbish behind it.
        &[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 9, 2, 0, 60, 0, 0],
        &[0x10, 12, 0, 4, b'Q', b'M', b'T', b'T', 4, 2, 0, 60, 0, 0],
        &[0x10, 10, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60],
        &[0x10, 15, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'a', 1, 1],
        // Other packets before CONNECT.
        &[0xc0, 0],
        &[0x32, 8, 0, 1, b'a', 0, 1, 1, 1, 1],
        &[0x82, 6, 0, 1, 0, 1, b'#', 0],
    ];
    let mut server = Server::start(patient()).await;
    for bytes in garbage {
        let mut raw = Raw::open(&server).await;
        raw.send(bytes).await;
        let mut answer = Vec::new();
        let end = tokio::time::timeout(SOON, raw.0.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "still open after {bytes:?}");
        assert!(answer.is_empty() || answer[0] == 0x20 && answer[3] != 0, "{bytes:?}: {answer:?}");
    }
    // After the login too.
    for version in VERSIONS {
        let wrong: [&[u8]; 7] = [
            &connect(version, "a", "a", "secret", 60),
            &[0xf0 | version, 0],
            &[0x20, 2, 0, 0],
            &publish(version, "d/a/up/report", 1, 0, b"packet id 0"),
            &publish(version, "d/a/up/report", 3, 1, b"QoS 3"),
            // A PUBACK and a PUBREL for nothing.
            &[0x40, 2, 0, 9],
            &[0x62, 2, 0, 9],
        ];
        for bytes in wrong {
            let mut raw = Raw::login(&server, version, "a").await;
            raw.send(bytes).await;
            let mut answer = Vec::new();
            let end = tokio::time::timeout(SOON, raw.0.read_to_end(&mut answer)).await;
            assert!(end.is_ok(), "still open after {bytes:?}");
            assert!(answer.is_empty() || version == 5 && answer[0] == 0xe0, "{bytes:?}: {answer:?}");
        }
    }
    server.no_publish();
    server.until(|metrics| metrics.connections == 0 && metrics.devices == 0).await;
}

#[tokio::test]
async fn an_oversize_packet_is_refused_by_its_header() {
    let limits = Limits { packet_bytes: 1024, ..patient() };
    let mut server = Server::start(limits).await;
    for version in VERSIONS {
        let mut raw = Raw::login(&server, version, "a").await;
        let fits = publish(version, "d/a/up/report", 1, 1, &[7; 1000]);
        assert!(fits.len() <= 1024);
        raw.send(&fits).await;
        server.publish().await.ack.done();
        assert_eq!(raw.packet().await, puback(1));
        // Only the header of 256 MiB is sent; no byte of the body is waited for.
        raw.send(&[0x32, 0xff, 0xff, 0xff, 0x7f]).await;
        if version == 5 {
            assert_eq!(raw.packet().await, (0xe0, vec![0x95]), "DISCONNECT, packet too large");
        }
        raw.closed().await;
    }
    // The same before the login.
    let mut raw = Raw::open(&server).await;
    raw.send(&[0x10, 0xff, 0xff, 0xff, 0x7f]).await;
    raw.closed().await;
    drop(raw);
    server.until(|metrics| metrics.closed(CloseReason::PacketTooLarge) == 3).await;
}

#[tokio::test]
async fn a_slow_loris_is_cut_off() {
    let limits = Limits { login_timeout: Duration::from_millis(300), ..patient() };
    let server = Server::start(limits).await;
    let mut silent = Raw::open(&server).await;
    let mut dripping = Raw::open(&server).await;
    let from = Instant::now();
    for byte in connect(4, "a", "a", "secret", 60) {
        if dripping.0.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    silent.closed().await;
    assert!(from.elapsed() < SOON);
    server.until(|metrics| metrics.closed(CloseReason::LoginTimeout) == 2).await;
    assert_eq!(server.gateway.metrics().logins, 0);
}

#[tokio::test]
async fn a_login_that_takes_too_long_is_cut_off() {
    let limits = Limits { login_timeout: Duration::from_millis(200), ..patient() };
    let server = Server::start(limits).await;
    *server.handler.login_takes.lock().unwrap() = Duration::from_secs(60);
    let mut raw = Raw::open(&server).await;
    raw.send(&connect(5, "a", "a", "secret", 60)).await;
    raw.closed().await;
    drop(raw);
    server.until_closed(CloseReason::LoginTimeout).await;
}

#[tokio::test]
async fn packets_may_come_in_any_pieces_and_before_the_connack() {
    for version in VERSIONS {
        let mut server = Server::start(patient()).await;
        *server.handler.login_takes.lock().unwrap() = Duration::from_millis(50);
        let mut bytes = connect(version, "a", "a", "secret", 60);
        bytes.extend(publish(version, "d/a/up/report", 1, 1, b"early"));
        bytes.extend(publish(version, "d/a/up/report", 1, 2, &[9; 500]));
        let mut raw = Raw::open(&server).await;
        for piece in bytes.chunks(7) {
            raw.send(piece).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(raw.packet().await.0, 0x20);
        let (first, second) = (server.publish().await, server.publish().await);
        assert_eq!((&first.payload[..], second.payload.len()), (&b"early"[..], 500));
        first.ack.done();
        second.ack.done();
        assert_eq!(raw.packet().await, puback(1));
        assert_eq!(raw.packet().await, puback(2));
    }
}

#[tokio::test]
async fn silence_ends_the_connection_and_a_ping_keeps_it() {
    async fn check(version: u8) {
        let server = Server::start(patient()).await;
        let mut raw = Raw::open(&server).await;
        raw.send(&connect(version, "a", "a", "secret", 2)).await;
        assert_eq!(raw.packet().await.0, 0x20);
        let from = Instant::now();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            raw.send(&[0xc0, 0]).await;
            assert_eq!(raw.packet().await, (0xd0, vec![]), "PINGRESP");
        }
        if version == 5 {
            assert_eq!(raw.packet().await, (0xe0, vec![0x8d]), "DISCONNECT, keep alive timeout");
        }
        raw.closed().await;
        // Four seconds with pings, and one and a half keep-alives.
        assert!(from.elapsed() > Duration::from_millis(6_900), "{:?}", from.elapsed());
        drop(raw);
        server.until_closed(CloseReason::KeepAlive).await;
    }
    tokio::join!(check(4), check(5));
}

#[tokio::test]
async fn the_keep_alive_has_a_limit() {
    let limits = Limits { keep_alive_max: Duration::from_secs(1), ..patient() };
    for (version, asked) in [(4, 0), (4, 600), (5, 0), (5, 600)] {
        let server = Server::start(limits.clone()).await;
        let mut raw = Raw::open(&server).await;
        raw.send(&connect(version, "a", "a", "secret", asked)).await;
        let (_, connack) = raw.packet().await;
        if version == 5 {
            let server_keep_alive = [0x13, 0, 1];
            assert!(connack.windows(3).any(|property| property == server_keep_alive), "{connack:?}");
        }
        server.until_closed(CloseReason::KeepAlive).await;
    }
}

#[tokio::test]
async fn subscriptions_are_checked_and_get_the_retained_state() {
    for (version, forbidden) in [(4, 0x80), (5, 0x87)] {
        let server = Server::start(patient()).await;
        let states = [desired("a", "state of a"), desired("b", "state of b")];
        *server.handler.retained.lock().unwrap() = states.to_vec();
        let mut raw = Raw::login(&server, version, "a").await;
        for (id, filter) in [(1, "#"), (2, "d/b/down/#"), (3, "d/+/down/#"), (4, "d/a/up/#")] {
            raw.send(&subscribe(version, id, filter, 1)).await;
            let (first, body) = raw.packet().await;
            assert_eq!((first, body[1], *body.last().unwrap()), (0x90, id as u8, forbidden), "{filter}");
        }
        // Nothing has been subscribed to: nothing is delivered.
        assert_eq!(server.gateway.send("a", ack("a", "lost")), Sent::Queued);
        raw.silent().await;
        raw.send(&subscribe(version, 5, "d/a/down/#", 1)).await;
        assert_eq!(*raw.packet().await.1.last().unwrap(), 1, "granted");
        let (first, body) = raw.packet().await;
        assert_eq!(first, 0x33, "PUBLISH, QoS 1, RETAIN");
        assert!(body.ends_with(b"state of a"));
        raw.send(&[0x40, 2, body[18], body[19]]).await;
        // From now on messages come as they are sent, without the flag.
        server.gateway.send("a", desired("a", "newer"));
        let (first, body) = raw.packet().await;
        assert_eq!((first, body.ends_with(b"newer")), (0x32, true));
        raw.send(&[0x40, 2, body[18], body[19]]).await;
        assert_eq!(server.gateway.send("b", desired("b", "x")), Sent::NotConnected);
        server.until(|metrics| metrics.sent == 2 && metrics.subscriptions_refused == 4).await;
        // An unsubscribe ends it.
        let mut body = vec![0, 6];
        if version == 5 {
            body.push(0);
        }
        body.extend([0, 10]);
        body.extend(b"d/a/down/#");
        raw.send(&packet(0xa2, &body)).await;
        assert_eq!(raw.packet().await.0, 0xb0);
        server.gateway.send("a", desired("a", "unseen"));
        raw.silent().await;
    }
}

#[tokio::test]
async fn a_device_that_does_not_take_messages_gets_the_latest_state() {
    let limits = Limits { outbox_messages: 4, send_maximum: 2, ..patient() };
    let server = Server::start(limits).await;
    let mut raw = Raw::login(&server, 4, "a").await;
    raw.send(&subscribe(4, 1, "d/a/down/#", 1)).await;
    assert_eq!(raw.packet().await.0, 0x90);
    for index in 0..2 {
        server.gateway.send("a", ack("a", &index.to_string()));
        server.until(|metrics| metrics.sent > index).await;
    }
    // Two are in flight without a PUBACK: from now on messages wait.
    for generation in 0..100 {
        server.gateway.send("a", desired("a", &format!("generation {generation}")));
        server.gateway.send("a", ack("a", &format!("ack {generation}")));
    }
    let mut bodies = Vec::new();
    while bodies.len() < 6 {
        let (first, body) = raw.packet().await;
        assert_eq!(first, 0x32);
        let topic_end = 2 + usize::from(body[1]);
        bodies.push(String::from_utf8(body[topic_end + 2..].to_vec()).unwrap());
        raw.send(&[0x40, 2, body[topic_end], body[topic_end + 1]]).await;
    }
    assert_eq!(bodies, ["0", "1", "ack 97", "ack 98", "generation 99", "ack 99"]);
    raw.silent().await;
    assert_eq!(server.gateway.metrics().dropped, 196);
}

#[tokio::test]
async fn a_flood_is_not_read_faster_than_its_rate() {
    for version in VERSIONS {
        let limits = Limits { packets_per_second: 100.0, packet_burst: 10.0, ..patient() };
        let mut server = Server::start(limits).await;
        let mut raw = Raw::login(&server, version, "a").await;
        let from = Instant::now();
        let flood: Vec<u8> = (0..60).flat_map(|_| publish(version, "d/a/up/report", 0, 0, b"x")).collect();
        raw.send(&flood).await;
        for _ in 0..60 {
            server.publish().await.ack.done();
        }
        // 60 packets and the CONNECT, 10 at once: the last one is due after half a second.
        assert!(from.elapsed() > Duration::from_millis(450), "{:?}", from.elapsed());
        assert!(server.gateway.metrics().throttled > 0);
    }
}

#[tokio::test]
async fn bytes_have_a_rate_too() {
    let limits = Limits { bytes_per_second: 10_000.0, ..patient() };
    let mut server = Server::start(limits).await;
    let mut raw = Raw::login(&server, 4, "a").await;
    let from = Instant::now();
    let writing = tokio::spawn(async move {
        for _ in 0..10 {
            raw.send(&publish(4, "d/a/up/report", 0, 0, &[0; 5_000])).await;
        }
        raw
    });
    for _ in 0..10 {
        server.publish().await.ack.done();
    }
    // 50 kB, 40 kB of them at once.
    assert!(from.elapsed() > Duration::from_millis(300), "{:?}", from.elapsed());
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn what_is_in_flight_is_bounded() {
    // Room for four messages of 744 bytes and the estimate for each.
    let limits = Limits { in_flight_bytes: 4_000, packet_bytes: 2_000, ..patient() };
    let mut server = Server::start(limits).await;
    let mut flooding = Vec::new();
    for device in ["a", "b", "c", "d"] {
        let mut raw = Raw::login(&server, 5, device).await;
        for id in 1..=8 {
            raw.send(&publish(5, &format!("d/{device}/up/report"), 1, id, &[0; 744])).await;
        }
        flooding.push(raw);
    }
    server.until(|metrics| metrics.waited == 4).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(server.publish().await);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.no_publish();
    // As tokens end, others get their turn, until all have.
    for _ in 4..32 {
        held.remove(0).ack.done();
        held.push(server.publish().await);
    }
    held.into_iter().for_each(|message| message.ack.done());
    for mut raw in flooding {
        for id in 1..=8 {
            assert_eq!(raw.packet().await, puback(id));
        }
    }
    assert_eq!(server.gateway.metrics().acknowledged, 32);
}

#[tokio::test]
async fn a_client_has_no_more_in_flight_than_the_receive_maximum() {
    let limits = Limits { receive_maximum: 3, ..patient() };
    // An MQTT 3.1.1 client does not know of it: the rest is not read until there is room.
    let mut server = Server::start(limits.clone()).await;
    let mut raw = Raw::login(&server, 4, "a").await;
    for id in 1..=5 {
        raw.send(&publish(4, "d/a/up/report", 1, id, b"x")).await;
    }
    let mut held = vec![server.publish().await, server.publish().await, server.publish().await];
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.no_publish();
    held.remove(0).ack.done();
    assert_eq!(raw.packet().await, puback(1));
    held.push(server.publish().await);
    held.into_iter().for_each(|message| message.ack.done());
    server.publish().await.ack.done();
    for id in 2..=5 {
        assert_eq!(raw.packet().await, puback(id));
    }
    // An MQTT 5 client was told (MQTT 5, 3.3.4).
    let server = Server::start(limits).await;
    let mut raw = Raw::login(&server, 5, "a").await;
    for id in 1..=4 {
        raw.send(&publish(5, "d/a/up/report", 1, id, b"x")).await;
    }
    assert_eq!(raw.packet().await, (0xe0, vec![0x93]), "DISCONNECT, receive maximum exceeded");
}

#[tokio::test]
async fn there_are_no_more_connections_than_allowed() {
    let limits = Limits { connections: 2, ..patient() };
    let server = Server::start(limits).await;
    let first = Raw::login(&server, 4, "a").await;
    let _second = Raw::login(&server, 4, "b").await;
    let mut third = Raw::open(&server).await;
    third.closed().await;
    assert_eq!(server.gateway.metrics().closed(CloseReason::ConnectionLimit), 1);
    drop(first);
    server.until(|metrics| metrics.connections == 1).await;
    Raw::login(&server, 4, "c").await;
}

#[tokio::test]
async fn connections_from_one_address_have_a_rate() {
    let limits = Limits { connections_per_second: 0.1, connection_burst: 3.0, ..patient() };
    let server = Server::start(limits).await;
    for device in ["a", "b", "c"] {
        Raw::login(&server, 4, device).await;
    }
    Raw::open(&server).await.closed().await;
    assert_eq!(server.gateway.metrics().closed(CloseReason::ConnectionRate), 1);
}

#[tokio::test]
async fn a_kick_ends_the_connection() {
    let server = Server::start(patient()).await;
    let mut raw = Raw::login(&server, 5, "a").await;
    server.gateway.kick("nobody");
    server.gateway.kick("a");
    assert_eq!(raw.packet().await, (0xe0, vec![0x98]), "DISCONNECT, administrative action");
    raw.closed().await;
    drop(raw);
    server.until_closed(CloseReason::Kicked).await;
}

#[tokio::test]
async fn a_kick_reaches_a_login_that_is_being_checked() {
    for (version, code) in [(4, 3), (5, 0x88)] {
        let server = Server::start(patient()).await;
        *server.handler.login_takes.lock().unwrap() = Duration::from_secs(1);
        let mut raw = Raw::open(&server).await;
        raw.send(&connect(version, "a", "a", "secret", 60)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.gateway.kick("a");
        assert_eq!(raw.packet().await.1[1], code, "server unavailable");
        raw.closed().await;
        assert_eq!(*server.handler.presence.lock().unwrap(), []);
        // The next login finds what the kick was for.
        Raw::login(&server, version, "a").await;
    }
}

#[tokio::test]
async fn a_shutdown_drains() {
    let mut server = Server::start(patient()).await;
    let mut busy = Raw::login(&server, 5, "busy").await;
    let mut idle = Raw::login(&server, 4, "idle").await;
    let mut logging_in = Raw::open(&server).await;
    busy.send(&publish(5, "d/busy/up/report", 1, 1, b"x")).await;
    let message = server.publish().await;
    let port = server.port();
    let committing = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        message.ack.done();
    });
    let clients = tokio::spawn(async move {
        // Sent after the shutdown began: not read, and not acknowledged.
        tokio::time::sleep(Duration::from_millis(100)).await;
        busy.send(&publish(5, "d/busy/up/report", 1, 2, b"y")).await;
        assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err(), "accepts nothing");
        assert_eq!(busy.packet().await, puback(1));
        assert_eq!(busy.packet().await, (0xe0, vec![0x8b]), "DISCONNECT, server shutting down");
        busy.closed().await;
        idle.closed().await;
        logging_in.closed().await;
    });
    let from = Instant::now();
    let shutdown = server.gateway.shutdown(SOON).await;
    assert_eq!(shutdown, Shutdown { connections: 3, unfinished: 0 });
    assert!(from.elapsed() >= Duration::from_millis(250), "waited for the commit");
    committing.await.unwrap();
    clients.await.unwrap();
    server.no_publish();
    assert_eq!(server.gateway.metrics().connections, 0);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let mut server = Server::start(patient()).await;
    let mut raw = Raw::login(&server, 5, "a").await;
    raw.send(&publish(5, "d/a/up/report", 1, 1, b"x")).await;
    let message = server.publish().await;
    let client = tokio::spawn(async move {
        assert_eq!(raw.packet().await, (0xe0, vec![0x8b]), "DISCONNECT without a PUBACK");
        raw.closed().await;
    });
    let shutdown = server.gateway.shutdown(Duration::from_millis(200)).await;
    assert_eq!(shutdown, Shutdown { connections: 1, unfinished: 1 });
    client.await.unwrap();
    message.ack.done();
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let limits = Limits {
        write_timeout: Duration::from_millis(300),
        packets_per_second: 1e9,
        packet_burst: 1e9,
        bytes_per_second: 1e12,
        ..patient()
    };
    let server = Server::start(limits).await;
    let mut raw = Raw::login(&server, 4, "a").await;
    // PINGREQs without end, and no PINGRESP is read: first the socket's buffers fill, then the gateway reads no more.
    let pings = [0xc0, 0].repeat(4096);
    let writing = async { while raw.0.write_all(&pings).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(30), writing).await.expect("cut off");
    server.until_closed(CloseReason::SlowReader).await;
}
