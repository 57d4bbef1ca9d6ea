//! Free ports.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// A TCP port of the loopback interface that was free a moment ago.
///
/// # Errors
/// When the operating system has none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
