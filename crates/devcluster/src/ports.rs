//! Free TCP ports on 127.0.0.1.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::error::{OrIo, Result};
use crate::secrets::random;

/// Below the ephemeral ranges of Linux (32768..) and macOS (49152..): a port from those can be
/// given to any outgoing connection while its instance is stopped, and a client that keeps trying
/// to reach a stopped instance there can even end up connected to itself.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Tries before we take whatever the system gives.
const TRIES: usize = 500;

/// Whether one could listen on the port now.
pub(crate) fn is_free(port: u16) -> bool {
    port != 0 && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A free port that is not in `taken`. Another process may still take it before it is used.
pub(crate) fn pick(taken: &[u16]) -> Result<u16> {
    for pair in random(TRIES * 2)?.chunks_exact(2) {
        let port = FIRST + u16::from_le_bytes([pair[0], pair[1]]) % COUNT;
        if !taken.contains(&port) && is_free(port) {
            return Ok(port);
        }
    }
    let any = Path::new("127.0.0.1:0");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_io("listen on", any)?;
    Ok(listener.local_addr().or_io("listen on", any)?.port())
}
