//! Artifacts and roots over MQTT, given out as truthfully as the test wants.

use std::collections::BTreeMap;
use std::sync::Mutex;

use dunlin_protocol::{Chunk, Fetch, Object};

/// How pieces of artifacts are given; roots are given as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Good,
    /// One bit of the second piece is another.
    Tampered,
    /// The artifact has no end.
    Endless,
    /// Every piece has more bytes than were asked for.
    Longer,
    /// Every piece lacks its last byte.
    Shorter,
    /// There is no such artifact.
    Gone,
    /// Ask again in a second.
    Busy,
    /// Every piece twice, the second one before the first, and with each some that nobody asked for.
    Confused,
}

#[derive(Default)]
struct Inside {
    artifacts: BTreeMap<[u8; 32], Vec<u8>>,
    roots: BTreeMap<u32, Vec<u8>>,
    mood: Mood,
    asked: Vec<([u8; 32], u32)>,
    held: Vec<Vec<u8>>,
}

/// What a device can fetch.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<Inside>);

impl Shelf {
    pub(crate) fn put(&self, artifact: &[u8]) {
        let digest = artifact[48..80].try_into().unwrap();
        self.0.lock().unwrap().artifacts.insert(digest, artifact.to_vec());
    }

    pub(crate) fn put_root(&self, number: u32, root: Vec<u8>) {
        self.0.lock().unwrap().roots.insert(number, root);
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    /// Which bytes of an artifact were asked for, in order.
    pub(crate) fn asked(&self, digest: &[u8; 32]) -> Vec<u32> {
        let inside = self.0.lock().unwrap();
        inside.asked.iter().filter(|(asked, _)| asked == digest).map(|(_, offset)| *offset).collect()
    }

    /// The answers to a request.
    pub(crate) fn give(&self, fetch: &Fetch) -> Vec<Vec<u8>> {
        let mut inside = self.0.lock().unwrap();
        let Object::Artifact(digest) = fetch.object else {
            let Object::Root(number) = fetch.object else { return vec![] };
            let root = inside.roots.get(&number).cloned().unwrap_or_default();
            return vec![piece(fetch, &root, |_| {})];
        };
        inside.asked.push((digest, fetch.offset));
        let whole = inside.artifacts.get(&digest).cloned().unwrap_or_default();
        match inside.mood {
            Mood::Good => vec![piece(fetch, &whole, |_| {})],
            Mood::Tampered => {
                let mut whole = whole;
                whole[3000] ^= 4;
                vec![piece(fetch, &whole, |_| {})]
            }
            Mood::Endless => {
                let junk = vec![0x5a; fetch.len as usize];
                vec![piece(fetch, &whole, |chunk| (chunk.total, chunk.bytes) = (u32::MAX, &junk))]
            }
            Mood::Longer => {
                let fetch = Fetch { len: fetch.len + 1, ..*fetch };
                let mut whole = whole;
                let total = whole.len() as u32;
                whole.push(0);
                vec![piece(&fetch, &whole, |chunk| chunk.total = total)]
            }
            Mood::Shorter => {
                vec![piece(fetch, &whole, |chunk| chunk.bytes = &chunk.bytes[..chunk.bytes.len() - 1])]
            }
            Mood::Gone => vec![piece(fetch, &[], |_| {})],
            Mood::Busy => vec![piece(fetch, &[], |chunk| chunk.retry_after_s = 1)],
            Mood::Confused => {
                let good = piece(fetch, &whole, |_| {});
                let is_even = (fetch.offset / fetch.len.max(1)).is_multiple_of(2);
                let is_last = fetch.offset + fetch.len >= whole.len() as u32;
                inside.held.push(good.clone());
                if is_even && !is_last {
                    return vec![];
                }
                let junk = [0x5a; 100];
                let unasked = piece(fetch, &whole, |chunk| (chunk.offset, chunk.bytes) = (1_000_000, &junk));
                let other = piece(fetch, &whole, |chunk| {
                    (chunk.object, chunk.bytes) = (Object::Artifact([7; 32]), &junk);
                });
                let root =
                    piece(fetch, &whole, |chunk| (chunk.object, chunk.bytes) = (Object::Root(2), &junk));
                let mut answers = vec![unasked, good, other, root, b"nonsense".to_vec()];
                answers.append(&mut inside.held);
                answers
            }
        }
    }
}

/// The piece that was asked for; `change` makes it another.
fn piece<'a>(fetch: &Fetch, whole: &'a [u8], change: impl FnOnce(&mut Chunk<'a>)) -> Vec<u8> {
    let from = (fetch.offset as usize).min(whole.len());
    let to = (from + fetch.len as usize).min(whole.len());
    let mut chunk = Chunk {
        object: fetch.object,
        offset: fetch.offset,
        total: whole.len() as u32,
        retry_after_s: 0,
        bytes: &whole[from..to],
    };
    change(&mut chunk);
    let mut out = vec![0; 8192];
    let length = chunk.encode(&mut out).unwrap();
    out.truncate(length);
    out
}
