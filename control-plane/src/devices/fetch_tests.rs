//! Pieces of artifacts and roots, as a device without HTTP asks for them.

use dunlin_artifact::{Artifact, Digester};
use dunlin_protocol::{Chunk, Fetch, Object};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use serde_json::json;

use super::FetchError;
use crate::bus::DeviceId;
use crate::limits;
use crate::models::ArtifactBytes;
use crate::models::delivery_tests::assigned;
use crate::models::tests::{artifact, upload};
use crate::testing::TestApp;
use crate::trust::owner::NewRoot;

fn digest(bytes: &[u8]) -> [u8; 32] {
    ArtifactBytes::copy(bytes).parse().map(|artifact: Artifact<'_>| artifact.digest()).expect("an artifact")
}

/// What a device is answered: the object's length, the seconds to wait, the bytes.
async fn fetch(test: &TestApp, device: &str, object: Object, offset: u32, len: u32) -> (u32, u32, Vec<u8>) {
    let mut request = [0; 64];
    let length = Fetch { object, offset, len }.encode(&mut request).expect("encoded");
    let device = DeviceId::new(device).expect("an id");
    let answer = super::fetch(&test.app, &device, &request[..length]).await.expect("an answer");
    let chunk = Chunk::decode(&answer).expect("a chunk");
    assert_eq!((chunk.object, chunk.offset), (object, offset), "it says what it answers");
    (chunk.total, chunk.retry_after_s, chunk.bytes.to_vec())
}

const NOTHING: (u32, u32, Vec<u8>) = (0, 0, Vec::new());

#[tokio::test]
async fn a_device_puts_its_artifact_and_the_roots_together() {
    let (test, _) = assigned(&[]).await;
    let bytes = artifact("one", false);
    let total = u32::try_from(bytes.len()).unwrap();
    let object = Object::Artifact(digest(&bytes));
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        let at = u32::try_from(got.len()).unwrap();
        let (length, wait, piece) = fetch(&test, "d", object, at, 100).await;
        assert_eq!((length, wait), (total, 0));
        got.extend(piece);
    }
    assert_eq!(got, bytes);
    // Whatever numbers come.
    assert_eq!(
        fetch(&test, "d", object, total - 1, u32::MAX).await,
        (total, 0, bytes[bytes.len() - 1..].to_vec())
    );
    for (offset, len) in [(total, 1), (u32::MAX, u32::MAX), (0, 0)] {
        assert_eq!(fetch(&test, "d", object, offset, len).await, (total, 0, Vec::new()), "{offset} {len}");
    }
    let root = NewRoot::first(&test).signed(&[1]);
    let length = u32::try_from(root.len()).unwrap();
    assert_eq!(fetch(&test, "d", Object::Root(1), 0, 4096).await, (length, 0, root.clone()));
    assert_eq!(fetch(&test, "e", Object::Root(1), 10, 5).await, (length, 0, root[10..15].to_vec()));
    assert_eq!(fetch(&test, "d", Object::Root(1), u32::MAX, 5).await, (length, 0, Vec::new()));
    for number in [0, 2, u32::MAX] {
        assert_eq!(fetch(&test, "d", Object::Root(number), 0, 4096).await, NOTHING, "{number}");
    }
    let metrics = test.app.metrics.encode(&test.app);
    let line = format!("dunlin_artifact_sent_bytes_total{{transport=\"mqtt\"}} {}", total + 1);
    assert!(metrics.contains(&line), "{metrics}");
}

#[tokio::test]
async fn a_piece_is_never_longer_than_the_protocol_allows() {
    let (test, _) = assigned(&[]).await;
    // A device finds out whether it is an artifact when it has all of it.
    let long: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut digester = Digester::new();
    digester.update(&long);
    let digest = digester.finish();
    let assigned = format!("update device_desired set digest = '{}', size = 20000", hex::encode(digest));
    sqlx::query(sqlx::AssertSqlSafe(assigned)).execute(test.app.db.write()).await.expect("changed");
    let place = Path::from(format!("models/{}.dunlin", hex::encode(digest)));
    test.app.artifacts.put(&place, long.clone().into()).await.expect("put");
    let piece = fetch(&test, "d", Object::Artifact(digest), 4_000, u32::MAX).await;
    assert_eq!(piece, (20_000, 0, long[4_000..8_096].to_vec()));
}

#[tokio::test]
async fn nothing_but_what_is_assigned_can_be_read() {
    let (test, _) = assigned(&[]).await;
    let object = Object::Artifact(digest(&artifact("one", false)));
    upload(&test, "kws", &test.admin, artifact("two", false)).await.expect(201);
    let other = Object::Artifact(digest(&artifact("two", false)));
    assert_eq!(fetch(&test, "d", other, 0, 100).await, NOTHING, "another version");
    assert_eq!(fetch(&test, "e", object, 0, 100).await, NOTHING, "another device's");
    assert_eq!(fetch(&test, "d", Object::Artifact([0; 32]), 0, 100).await, NOTHING);
    test.delete("/api/v1/devices/d/slots/main").await.expect(200);
    assert_eq!(fetch(&test, "d", object, 0, 100).await, NOTHING, "assigned no longer");

    let mut request = [0; 64];
    let length = Fetch { object, offset: 0, len: 1 }.encode(&mut request).expect("encoded");
    test.post("/api/v1/devices/d/block", json!({})).await.expect(200);
    for stranger in ["d", "nobody"] {
        let answer = super::fetch(&test.app, &DeviceId::new(stranger).unwrap(), &request[..length]).await;
        assert_eq!(answer, Err(FetchError::Device), "{stranger}");
    }
    let answer = super::fetch(&test.app, &DeviceId::new("e").unwrap(), &request[..length - 1]).await;
    assert!(matches!(answer, Err(FetchError::Message(_))), "{answer:?}");
}

#[tokio::test]
async fn a_device_is_told_how_long_to_wait() {
    let (test, _) = assigned(&[]).await;
    let object = Object::Artifact(digest(&artifact("one", false)));
    let wait = async |device: &str| fetch(&test, device, object, 0, 100).await.1;
    let begin =
        |device: &str| test.app.models.begin_piece(device, test.app.clock.now_us()).expect("a permit");
    // Its own pieces under way.
    let own: Vec<_> = (0..limits::DEVICE_PIECES).map(|_| begin("d")).collect();
    assert_eq!((wait("d").await, wait("e").await), (1, 0));
    drop(own);
    assert_eq!(wait("d").await, 0);
    // Its own rate: it asked five times, and was heard.
    for _ in 0..limits::DEVICE_PIECES_BURST as usize - limits::DEVICE_PIECES - 1 {
        assert_eq!(wait("d").await, 0);
    }
    assert_eq!((wait("d").await, wait("e").await), (1, 0));
    test.clock.advance_s(10);
    assert_eq!(wait("d").await, 0);
    // All pieces under way.
    let all: Vec<_> = (0..limits::PIECES).map(|n| begin(&format!("device-{n}"))).collect();
    assert_eq!(wait("d").await, 1);
    drop(all);
    assert_eq!(wait("d").await, 0);
    // The rate of all.
    let refused = (0..=limits::PIECES_BURST)
        .find_map(|n| test.app.models.begin_piece(&format!("device-{n}"), test.app.clock.now_us()).err());
    assert_eq!(refused.map(|problem| (problem.status, problem.retry_after_s)), Some((429, Some(1))));
    assert_eq!(wait("d").await, 1);
    test.clock.advance_s(1);
    assert_eq!(wait("d").await, 0);
    // What is damaged or gone is not asked for every second.
    let name = format!("models/{}.dunlin", hex::encode(digest(&artifact("one", false))));
    let mut damaged = artifact("one", false);
    *damaged.last_mut().expect("bytes") ^= 1;
    for other in [damaged, vec![0; 5]] {
        test.app.artifacts.put(&Path::from(name.as_str()), other.into()).await.expect("put");
        assert_eq!(wait("d").await, 60);
    }
    test.app.artifacts.delete(&Path::from(name)).await.expect("deleted");
    assert_eq!(wait("d").await, 60);
    let metrics = test.app.metrics.encode(&test.app);
    assert!(metrics.contains("dunlin_artifact_waits_total{transport=\"mqtt\"} 5"), "{metrics}");
}
