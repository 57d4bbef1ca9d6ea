//! Entries of the queue as bytes.
//!
//! ```text
//! waiting: version u8 = 1 | kind u8 | group length u8 | group | ( length u32 | body )*
//! message: version u8 = 1 | kind u8 | body
//! ```

use dunlin_protocol::UpKind;

use super::record::Key;
use crate::uplink::MessageKey;

const VERSION: u8 = 1;

/// Key space of the watermark.
const META: u8 = 1;
/// Key space of what waits for a sequence number.
const WAITING: u8 = 2;
/// Key space of numbered messages.
const MESSAGE: u8 = 3;

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Watermark,
    Waiting(u64),
    Message { boot: u64, seq: u64 },
}

impl Name {
    pub(super) fn of_message(MessageKey { boot, seq }: MessageKey) -> Self {
        Name::Message { boot, seq }
    }

    pub(super) fn key(self) -> Key {
        match self {
            Name::Watermark => Key { space: META, high: 0, low: 0 },
            Name::Waiting(id) => Key { space: WAITING, high: 0, low: id },
            Name::Message { boot, seq } => Key { space: MESSAGE, high: boot, low: seq },
        }
    }

    pub(super) fn of(key: &Key) -> Option<Self> {
        match key.space {
            META => Some(Name::Watermark),
            WAITING => Some(Name::Waiting(key.low)),
            MESSAGE => Some(Name::Message { boot: key.high, seq: key.low }),
            _ => None,
        }
    }
}

/// What the device has to say and has not numbered yet: a closed window, an event, labels, its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What kind of messages it becomes.
    pub kind: UpKind,
    /// Items of one kind and one group may be merged: slot and model. At most 255 bytes; the rest does not count.
    pub group: Vec<u8>,
    /// The bodies of the messages it becomes, which belong together.
    pub bodies: Vec<Vec<u8>>,
}

/// The kind's number in the file; it never changes.
fn code(kind: UpKind) -> u8 {
    match kind {
        UpKind::Report => 1,
        UpKind::State => 2,
        UpKind::Event => 3,
        UpKind::Label => 4,
        UpKind::Csr => 5,
        UpKind::Fetch => 6,
    }
}

fn kind(code: u8) -> Option<UpKind> {
    UpKind::ALL.into_iter().find(|kind| self::code(*kind) == code)
}

impl Item {
    pub(super) fn encode(&self) -> Vec<u8> {
        let group = self.group.get(..255).unwrap_or(&self.group);
        let mut bytes = vec![VERSION, code(self.kind), group.len() as u8];
        bytes.extend_from_slice(group);
        for body in &self.bodies {
            bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(body);
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[VERSION, code, group], rest) = bytes.split_first_chunk()? else { return None };
        let (group, mut rest) = rest.split_at_checked(usize::from(group))?;
        let mut bodies = Vec::new();
        while !rest.is_empty() {
            let (len, after) = rest.split_first_chunk()?;
            let (body, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
            bodies.push(body.to_vec());
            rest = after;
        }
        Some(Item { kind: kind(code)?, group: group.to_vec(), bodies })
    }
}

/// A numbered message.
pub(super) fn encode_message(kind: UpKind, body: &[u8]) -> Vec<u8> {
    [&[VERSION, code(kind)], body].concat()
}

/// Kind and body of a numbered message.
pub(super) fn decode_message(bytes: &[u8]) -> Option<(UpKind, &[u8])> {
    match bytes {
        [VERSION, code, body @ ..] => Some((kind(*code)?, body)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_survive_and_every_cut_is_harmless() {
        let item = Item {
            kind: UpKind::Label,
            group: b"kws".to_vec(),
            bodies: vec![vec![1, 2, 3], vec![], vec![9; 300]],
        };
        let bytes = item.encode();
        assert_eq!(Item::decode(&bytes), Some(item));
        for cut in 0..bytes.len() {
            let _ = Item::decode(&bytes[..cut]);
        }
        let message = encode_message(UpKind::Event, b"body");
        assert_eq!(decode_message(&message), Some((UpKind::Event, b"body".as_slice())));
        assert_eq!(decode_message(&message[..1]), None);
    }
}
