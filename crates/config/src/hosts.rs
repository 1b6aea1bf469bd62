//! Hosts of an instance: names, addresses, and folders of Unix sockets.

use std::fmt;
use std::net::Ipv6Addr;

/// Where one server of an instance listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A name, an IPv4 address, an IPv6 address without brackets, or the absolute path of the
    /// folder of a Unix socket.
    pub host: String,
    /// The port; for a Unix socket, the number in the socket's name.
    pub port: u16,
}

impl HostPort {
    /// Whether this is a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }

    /// `host`, `host:port`, `[ipv6]`, `[ipv6]:port` or `/folder`; the error says what is wrong.
    pub(crate) fn parse(text: &str, default_port: u16) -> Result<Self, &'static str> {
        if text.contains("://") || text.contains('@') {
            return Err(
                "a host is not a URL: write the name or address only, such as pg1.example:5432",
            );
        }
        if text.starts_with('/') {
            if text.contains(['\0', ',']) {
                return Err("not the path of a folder");
            }
            return Ok(Self {
                host: text.to_owned(),
                port: default_port,
            });
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest
                .split_once(']')
                .ok_or("the closing bracket of an IPv6 address is missing")?;
            let address: Ipv6Addr = address.parse().map_err(|_| "not an IPv6 address")?;
            let port = match rest {
                "" => None,
                _ => Some(
                    rest.strip_prefix(':')
                        .ok_or("after ']' comes ':' and a port")?,
                ),
            };
            (address.to_string(), port)
        } else {
            let (host, port) = match text.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err("write IPv6 addresses in brackets, such as [::1] or [::1]:5432");
                }
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) {
                return Err(
                    "not a host: write a name, an IPv4 address, an IPv6 address in brackets, or the path of a socket's folder",
                );
            }
            (host.to_ascii_lowercase(), port)
        };
        let port = match port {
            None => default_port,
            Some(port) => {
                let plain = port.bytes().all(|b| b.is_ascii_digit());
                let port = port.parse().ok().filter(|&port: &u16| plain && port > 0);
                port.ok_or("the port is not a number from 1 to 65535")?
            }
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') && !self.is_unix() {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, shown) in [
            ("127.0.0.1", "127.0.0.1:5432"),
            ("PG1.example:6000", "pg1.example:6000"),
            ("[::1]", "[::1]:5432"),
            ("[0:0::1]:7", "[::1]:7"),
            ("/var/run/postgresql", "/var/run/postgresql:5432"),
        ] {
            let host = HostPort::parse(text, 5432).unwrap();
            assert_eq!(host.to_string(), shown);
            if !host.is_unix() {
                assert_eq!(HostPort::parse(shown, 1), Ok(host));
            }
        }
    }

    #[test]
    fn refusals() {
        for bad in [
            "",
            ":5432",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a b",
            "a,b",
            "::1",
            "[::1",
            "[::1]5",
            "[x]",
            "postgres://u:p@h/db",
            "u@h",
            "a/b",
            "größe",
        ] {
            assert!(HostPort::parse(bad, 5432).is_err(), "{bad}");
        }
    }
}
