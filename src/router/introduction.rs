//! What a load balancer says of a connection before its first byte: the PROXY protocol, versions 1
//! and 2, from trusted proxies only. Source: "The PROXY protocol", `HAProxy` 2.9.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The header comes with the connection's first bytes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest line of version 1, its end included. Source: section 2.1.
const LINE_MAX: usize = 107;

/// Of version 2. Source: section 2.2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header of version 2 that is read: addresses and what may follow them.
const HEADER_MAX: usize = 4096;

/// The header's two ends of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    /// The port it came to.
    pub(super) port: u16,
}

/// What a connection's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    /// A whole header of so many bytes. Without ends the proxy speaks for itself (a health check),
    /// or does not know.
    Whole(Option<Ends>, usize),
    /// Its beginning.
    Part,
    /// Something else.
    Bad,
}

/// Reads the header, and not a byte more.
///
/// # Errors
/// None came, or not in time.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<Ends>> {
    match timeout(PATIENCE, read_on(stream)).await {
        Ok(ends) => ends,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn read_on(stream: &mut TcpStream) -> io::Result<Option<Ends>> {
    let mut held = Vec::new();
    let mut chunk = [0; 256];
    loop {
        let count = stream.peek(&mut chunk).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = held.len();
        held.extend_from_slice(&chunk[..count]);
        let (ends, taken) = match header(&held) {
            Header::Whole(ends, length) => (Some(ends), length - before),
            Header::Part => (None, count),
            Header::Bad => return Err(io::ErrorKind::InvalidData.into()),
        };
        stream.read_exact(&mut chunk[..taken]).await?;
        if let Some(ends) = ends {
            return Ok(ends);
        }
    }
}

fn header(bytes: &[u8]) -> Header {
    let looked = bytes.len().min(SIGNATURE.len());
    if bytes[..looked] == SIGNATURE[..looked] {
        return binary(bytes);
    }
    let line = &bytes[..bytes.len().min(LINE_MAX)];
    let start = b"PROXY ";
    let looked = line.len().min(start.len());
    if line[..looked] != start[..looked] {
        return Header::Bad;
    }
    match line.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => match text(&line[..end]) {
            Ok(ends) => Header::Whole(ends, end + 2),
            Err(Malformed) => Header::Bad,
        },
        None if line.len() == LINE_MAX => Header::Bad,
        None => Header::Part,
    }
}

struct Malformed;

/// A line of version 1.
fn text(line: &[u8]) -> Result<Option<Ends>, Malformed> {
    let line = str::from_utf8(line).map_err(|_| Malformed)?;
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next().ok_or(Malformed);
    let family = word()?;
    if family == "UNKNOWN" {
        // What follows is to be ignored.
        return Ok(None);
    }
    let mut address = || word()?.parse::<IpAddr>().map_err(|_| Malformed);
    let (client, server) = (address()?, address()?);
    let (own, port) = (port(word()?)?, port(word()?)?);
    let is_right = match family {
        "TCP4" => client.is_ipv4() && server.is_ipv4(),
        "TCP6" => client.is_ipv6() && server.is_ipv6(),
        _ => false,
    };
    if !is_right || word().is_ok() {
        return Err(Malformed);
    }
    let client = SocketAddr::new(client, own);
    Ok(Some(Ends { client, port }))
}

/// Digits only, no zero in front.
fn port(word: &str) -> Result<u16, Malformed> {
    let is_plain =
        word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    let port = word.parse().ok().filter(|_| is_plain);
    port.ok_or(Malformed)
}

/// A header of version 2, whose signature is right as far as it is here.
fn binary(bytes: &[u8]) -> Header {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return Header::Part;
    };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > HEADER_MAX - head.len() {
        return Header::Bad;
    }
    let is_local = match head[12] {
        0x20 => true,
        0x21 => false,
        _ => return Header::Bad,
    };
    let Some(rest) = rest.get(..length) else {
        return Header::Part;
    };
    let ends = match head[13] {
        _ if is_local => Ok(None),
        0x11 => rest.first_chunk::<12>().ok_or(Malformed).map(|a| {
            let client = IpAddr::from([a[0], a[1], a[2], a[3]]);
            Some((client, [a[8], a[9]], [a[10], a[11]]))
        }),
        0x21 => rest.first_chunk::<36>().ok_or(Malformed).map(|a| {
            let mut client = [0; 16];
            client.copy_from_slice(&a[..16]);
            let client = IpAddr::from(client).to_canonical();
            Some((client, [a[32], a[33]], [a[34], a[35]]))
        }),
        // Unspecified, datagrams, Unix sockets: addresses that say nothing to us.
        _ => Ok(None),
    };
    match ends {
        Ok(ends) => {
            let ends = ends.map(|(client, own, port)| Ends {
                client: SocketAddr::new(client, u16::from_be_bytes(own)),
                port: u16::from_be_bytes(port),
            });
            Header::Whole(ends, head.len() + length)
        }
        Err(Malformed) => Header::Bad,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(client: &str, port: u16) -> Ends {
        let client = client.parse().expect("an address");
        let client = SocketAddr::new(client, 50_000);
        Ends { client, port }
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn both_versions_tell_the_client() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0xc3, 0x50, 1, 0xbb];
        let mut v6 = [0; 36];
        (v6[0], v6[15], v6[34], v6[35]) = (0xfd, 1, 0, 80);
        (v6[32], v6[33]) = (0xc3, 0x50);
        let with_more = [&v4[..], &[4, 0, 1, 9]].concat();
        for (bytes, wanted) in [
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 50000 443\r\n".to_vec(),
                Some(ends("192.0.2.1", 443)),
            ),
            (
                b"PROXY TCP6 fd00::1 fd00::2 50000 80\r\n".to_vec(),
                Some(ends("fd00::1", 80)),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN fd00::1 what ever\r\n".to_vec(), None),
            (binary(0x21, 0x11, &v4), Some(ends("192.0.2.1", 443))),
            (binary(0x21, 0x11, &with_more), Some(ends("192.0.2.1", 443))),
            (binary(0x21, 0x21, &v6), Some(ends("fd00::1", 80))),
            (binary(0x20, 0x11, &v4), None),
            (binary(0x20, 0, &[]), None),
            (binary(0x21, 0, &[1, 2, 3]), None),
        ] {
            let length = bytes.len();
            let behind = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(header(&behind), Header::Whole(wanted, length), "{bytes:?}");
            for end in 0..length {
                assert_eq!(header(&bytes[..end]), Header::Part, "{end} of {bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 50000\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 50000 443 \r\n".to_vec(),
            b"PROXY TCP4  192.0.2.1 10.0.0.1 50000 443\r\n".to_vec(),
            b"PROXY TCP4 fd00::1 fd00::2 50000 443\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.1 10.0.0.1 50000 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 50000 65536\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 50000 0443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 +5 443\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 10.0.0.1 5 443\r\n".to_vec(),
            [b"PROXY UNKNOWN ", &[b'x'; 100][..]].concat(),
            binary(0x22, 0x11, &[0; 12]),
            binary(0x11, 0x11, &[0; 12]),
            binary(0x21, 0x11, &[0; 11]),
            binary(0x21, 0x21, &[0; 35]),
            binary(0x21, 0x11, &[0; 5000]),
        ] {
            assert_eq!(header(&bytes), Header::Bad, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_take_more_than_there_is(
            start in prop_oneof![Just(&b""[..]), Just(&b"PROXY "[..]), Just(&SIGNATURE[..])],
            rest in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let bytes = [start, &rest].concat();
            if let Header::Whole(_, length) = header(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
