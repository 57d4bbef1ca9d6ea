//! The few MQTT 3.1.1 packets that a device needs. Source: OASIS MQTT 3.1.1, chapter 3.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of a packet at most.
const MAX_PACKET: usize = 64 << 10;

/// What a broker sends, as far as it matters here.
pub(super) enum Packet {
    /// The answer to CONNECT; 0 means welcome.
    Connected(u8),
    /// The answer to SUBSCRIBE; whether it was granted.
    Subscribed(bool),
    /// A message at QoS 1 (with its number) or 0.
    Message { topic: String, id: Option<u16>, payload: Vec<u8> },
    /// Anything else.
    Other,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn packet(out: &mut Vec<u8>, head: u8, body_len: usize) {
    out.push(head);
    let mut rest = body_len;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// CONNECT with a clean session.
pub(super) fn connect(device: &str, password: &str, keep_alive_s: u16) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[4, 0xc2]);
    body.extend_from_slice(&keep_alive_s.to_be_bytes());
    [device, device, password].into_iter().for_each(|part| text(&mut body, part));
    let mut out = Vec::new();
    packet(&mut out, 0x10, body.len());
    out.extend_from_slice(&body);
    out
}

/// SUBSCRIBE at QoS 1.
pub(super) fn subscribe(filter: &str) -> Vec<u8> {
    let mut out = Vec::new();
    packet(&mut out, 0x82, 2 + 2 + filter.len() + 1);
    out.extend_from_slice(&1_u16.to_be_bytes());
    text(&mut out, filter);
    out.push(1);
    out
}

/// PUBLISH at QoS 1.
pub(super) fn publish(out: &mut Vec<u8>, topic: &str, id: u16, payload: &[u8]) {
    packet(out, 0x32, 2 + topic.len() + 2 + payload.len());
    text(out, topic);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

/// PUBACK.
pub(super) fn acknowledge(out: &mut Vec<u8>, id: u16) {
    packet(out, 0x40, 2);
    out.extend_from_slice(&id.to_be_bytes());
}

/// Reads the next packet.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Packet> {
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "the broker sends no MQTT");
    let head = stream.read_u8().await?;
    let (mut len, mut shift) = (0_usize, 0);
    loop {
        let byte = stream.read_u8().await?;
        len |= usize::from(byte & 127) << shift;
        shift += 7;
        if byte < 128 {
            break;
        }
        if shift > 21 {
            return Err(strange());
        }
    }
    if len > MAX_PACKET {
        return Err(strange());
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    let number = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    Ok(match head >> 4 {
        2 => Packet::Connected(*body.get(1).ok_or_else(strange)?),
        9 => Packet::Subscribed(body.get(2).is_some_and(|code| *code < 0x80)),
        3 => {
            let end = 2 + usize::from(number(0).ok_or_else(strange)?);
            let topic = String::from_utf8_lossy(body.get(2..end).ok_or_else(strange)?).into_owned();
            let has_id = head & 0b110 != 0;
            let id = if has_id { Some(number(end).ok_or_else(strange)?) } else { None };
            let start = if has_id { end + 2 } else { end };
            Packet::Message { topic, id, payload: body.get(start..).ok_or_else(strange)?.to_vec() }
        }
        _ => Packet::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_written_as_the_standard_says() {
        assert_eq!(connect("d", "p", 60), b"\x10\x13\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01d\x00\x01d\x00\x01p");
        assert_eq!(subscribe("a/#"), b"\x82\x08\x00\x01\x00\x03a/#\x01");
        let mut out = Vec::new();
        publish(&mut out, "t", 7, &[0; 200]);
        assert_eq!(out[..8], *b"\x32\xcd\x01\x00\x01t\x00\x07");
        assert_eq!(out.len(), 3 + 205);
    }

    #[tokio::test]
    async fn messages_are_read() {
        let mut bytes: &[u8] =
            b"\x20\x02\x00\x05\x90\x03\x00\x01\x80\x32\x07\x00\x01t\x00\x07xy\x30\x04\x00\x01tz";
        assert!(matches!(read(&mut bytes).await, Ok(Packet::Connected(5))));
        assert!(matches!(read(&mut bytes).await, Ok(Packet::Subscribed(false))));
        let first = read(&mut bytes).await.expect("a packet");
        assert!(matches!(first, Packet::Message { id: Some(7), ref payload, .. } if payload == b"xy"));
        let second = read(&mut bytes).await.expect("a packet");
        assert!(
            matches!(second, Packet::Message { id: None, ref payload, ref topic } if payload == b"z" && topic == "t")
        );
        assert!(read(&mut bytes).await.is_err());
    }
}
