//! A raw MQTT 3.1.1 client that does what tests ask for, however wrong.

#![allow(dead_code, reason = "every test file uses another part")]

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A connection.
pub(crate) struct Raw {
    stream: TcpStream,
}

/// A packet from the server: its first byte, and what follows the length.
pub(crate) struct Packet {
    pub(crate) head: u8,
    pub(crate) body: Vec<u8>,
}

/// A text with its length before it.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![head];
    let mut rest = body.len();
    loop {
        let low = (rest % 128) as u8;
        rest /= 128;
        packet.push(if rest > 0 { low | 128 } else { low });
        if rest == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

impl Raw {
    /// Connects and says who it is; the server's return code, 0 for welcome.
    ///
    /// An error when the server ends the connection instead.
    pub(crate) fn connect(port: u16, client: &str, user: &str, password: &str) -> io::Result<(Self, u8)> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        let mut raw = Raw { stream };
        let body = [text("MQTT"), vec![4, 0xc2, 0, 60], text(client), text(user), text(password)].concat();
        raw.stream.write_all(&packet(0x10, &body))?;
        let answer = raw.read()?;
        let code = answer.body.get(1).copied().filter(|_| answer.head == 0x20);
        Ok((raw, code.ok_or(io::ErrorKind::InvalidData)?))
    }

    /// Publishes at QoS 1 without waiting.
    pub(crate) fn publish(&mut self, id: u16, topic: &str, payload: &[u8]) -> io::Result<()> {
        let body = [&text(topic)[..], &id.to_be_bytes(), payload].concat();
        self.stream.write_all(&packet(0x32, &body))
    }

    /// Reads until so many publications are acknowledged. Messages to the client are acknowledged and dropped.
    pub(crate) fn acknowledged(&mut self, mut count: usize) -> io::Result<()> {
        while count > 0 {
            let packet = self.read()?;
            if packet.head & 0xf0 == 0x40 {
                count -= 1;
            }
        }
        Ok(())
    }

    /// The next packet; an error at the end of the connection.
    pub(crate) fn read(&mut self) -> io::Result<Packet> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        let head = byte[0];
        let (mut len, mut shift) = (0_usize, 0);
        loop {
            self.stream.read_exact(&mut byte)?;
            len |= usize::from(byte[0] & 127) << shift;
            shift += 7;
            if byte[0] < 128 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        Ok(Packet { head, body })
    }
}
