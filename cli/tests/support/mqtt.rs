//! A raw MQTT 3.1.1 client that does what tests ask for, however wrong.

#![allow(dead_code, reason = "every test file uses another part")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// Bytes both ways, with and without TLS.
trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A connection.
pub(crate) struct Raw {
    stream: Box<dyn Stream>,
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

fn tcp(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Raw {
    /// Connects and says who it is; the server's return code, 0 for welcome.
    ///
    /// An error when the server ends the connection instead.
    pub(crate) fn connect(port: u16, client: &str, user: &str, password: &str) -> io::Result<(Self, u8)> {
        let stream = Box::new(tcp(port)?);
        Raw { stream }.login(0xc2, &[client, user, password])
    }

    /// [`Raw::connect`] over TLS to `localhost`: the certificate in `tls` says who it is.
    pub(crate) fn connect_tls(port: u16, client: &str, tls: &Arc<ClientConfig>) -> io::Result<(Self, u8)> {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        let stream = Box::new(StreamOwned::new(connection, tcp(port)?));
        Raw { stream }.login(0x02, &[client])
    }

    fn login(mut self, flags: u8, texts: &[&str]) -> io::Result<(Self, u8)> {
        let texts: Vec<u8> = texts.iter().flat_map(|&part| text(part)).collect();
        let body = [text("MQTT"), vec![4, flags, 0, 60], texts].concat();
        self.stream.write_all(&packet(0x10, &body))?;
        let answer = self.read()?;
        let code = answer.body.get(1).copied().filter(|_| answer.head == 0x20);
        Ok((self, code.ok_or(io::ErrorKind::InvalidData)?))
    }

    /// Subscribes at QoS 1; what the server grants, 0x80 for nothing.
    pub(crate) fn subscribe(&mut self, topic: &str) -> io::Result<u8> {
        self.stream.write_all(&packet(0x82, &[&[0, 1], &text(topic)[..], &[1]].concat()))?;
        loop {
            let packet = self.read()?;
            if packet.head == 0x90 {
                return packet.body.get(2).copied().ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
        }
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
