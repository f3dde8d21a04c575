//! Where an app may be let out to: another app, or one port of one address.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{AppName, NameError};

/// First of the addresses at which apps answer other apps. 198.18.0.0/15 is set aside for
/// benchmarks and routed nowhere. Source: RFC 2544, RFC 6890.
const APP_ADDRESSES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// How many there are: a /15 without its first and last address.
pub const APP_ADDRESSES_MAX: u32 = (1 << 17) - 2;

/// Where one cloud speaks to its machines, as others do at link-local addresses.
/// Source: Microsoft Learn, "What is IP address 168.63.129.16?".
const CLOUD: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// The port of those addresses.
pub const APP_ADDRESS_PORT: u16 = 80;

/// The address of app number `number`, counted from 0, below [`APP_ADDRESSES_MAX`].
pub fn app_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(APP_ADDRESSES) + 1 + number % APP_ADDRESSES_MAX)
}

/// Of an opened port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = NetworkTargetError;

    fn from_str(text: &str) -> Result<Self, NetworkTargetError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(NetworkTargetError::Protocol(text.to_owned())),
        }
    }
}

/// One port of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The address.
    pub address: Ipv4Addr,
    /// The port, never 0.
    pub port: u16,
    /// Which of the two port spaces.
    pub protocol: Protocol,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, self.port)?;
        match self.protocol {
            Protocol::Tcp => Ok(()),
            Protocol::Udp => f.write_str("/udp"),
        }
    }
}

/// A block of IPv4 addresses, `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    address: Ipv4Addr,
    prefix: u8,
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Net {
    /// True for an address of the block.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let host_bits = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        u32::from(address) & !host_bits == u32::from(self.address)
    }
}

/// A text that is no block of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no block of IPv4 addresses: write it like 10.0.0.0/8 (no bit set behind the prefix)"
)]
pub struct NetError(String);

impl FromStr for Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let error = || NetError(text.to_owned());
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        let behind = match prefix {
            0..=31 => u32::MAX >> prefix,
            32 => 0,
            _ => return Err(error()),
        };
        if u32::from(address) & behind != 0 {
            return Err(error());
        }
        Ok(Self { address, prefix })
    }
}

/// What `network:allow` is given: `APP`, or `ADDRESS:PORT` with `/udp` if it is not TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkTarget {
    /// The web dynos of an app.
    App(AppName),
    /// A port.
    Host(HostPort),
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkTargetError {
    /// Neither an app name nor `ADDRESS:PORT`.
    #[error("`{0}` is no app name and no ADDRESS:PORT: {1}")]
    App(String, NameError),
    /// The part before the colon is no IPv4 address.
    #[error(
        "`{0}` is no IPv4 address: rules hold addresses, since what a name stands for may change; write it like 10.0.0.5:5432"
    )]
    Address(String),
    /// The part after the colon is no port.
    #[error("`{0}` is no port: give a number from 1 to 65535")]
    Port(String),
    /// The part after the slash.
    #[error("`{0}` is no protocol: write tcp or udp")]
    Protocol(String),
    /// An address at which the host's own loopback services listen.
    #[error(
        "{0} is a loopback address, which every dyno has its own of: let the service listen on an address of this host (see `ip address`) and allow that one"
    )]
    Loopback(Ipv4Addr),
    /// An address that stays closed.
    #[error("{0} stays closed for every dyno ({1})")]
    Closed(Ipv4Addr, &'static str),
}

impl FromStr for HostPort {
    type Err = NetworkTargetError;

    fn from_str(text: &str) -> Result<Self, NetworkTargetError> {
        let (place, protocol) = match text.rsplit_once('/') {
            Some((place, protocol)) => (place, protocol.parse()?),
            None => (text, Protocol::Tcp),
        };
        let (host, port) = place.rsplit_once(':').unwrap_or((place, ""));
        let address: Ipv4Addr = host
            .parse()
            .map_err(|_| NetworkTargetError::Address(host.to_owned()))?;
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = match port.parse::<u16>() {
            Ok(number) if number != 0 && digits => number,
            _ => return Err(NetworkTargetError::Port(port.to_owned())),
        };
        match closed(address) {
            _ if address.is_loopback() => Err(NetworkTargetError::Loopback(address)),
            Some(why) => Err(NetworkTargetError::Closed(address, why)),
            None => Ok(Self {
                address,
                port,
                protocol,
            }),
        }
    }
}

/// Addresses that no setting opens, and why.
fn closed(address: Ipv4Addr) -> Option<&'static str> {
    let virtual_net = u32::from(address) & 0xFFFE_0000 == u32::from(APP_ADDRESSES);
    match address {
        _ if address == CLOUD => Some("a cloud's own service for its machines"),
        _ if address.is_link_local() => Some("link-local: the metadata service of clouds"),
        _ if address.is_multicast() || address.octets()[0] >= 240 => {
            Some("multicast, broadcast or reserved")
        }
        _ if address.octets()[0] == 0 => Some("it names no host"),
        _ if virtual_net => Some("an address of an app: allow the app by its name"),
        _ => None,
    }
}

impl FromStr for NetworkTarget {
    type Err = NetworkTargetError;

    fn from_str(text: &str) -> Result<Self, NetworkTargetError> {
        if text.contains([':', '/', '.']) {
            return text.parse().map(Self::Host);
        }
        text.parse()
            .map(Self::App)
            .map_err(|error| NetworkTargetError::App(text.to_owned(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_apps_or_ports_and_junk_is_refused() {
        for good in ["shop", "10.0.0.5:5432", "192.168.1.1:53/udp"] {
            let target: NetworkTarget = good.parse().expect(good);
            let shown = match target {
                NetworkTarget::App(name) => name.to_string(),
                NetworkTarget::Host(place) => place.to_string(),
            };
            assert_eq!(shown, good);
        }
        let check = |text: &str, needle: &str| {
            let error = text.parse::<NetworkTarget>().expect_err(text).to_string();
            assert!(error.contains(needle), "{text}: {error}");
        };
        check("127.0.0.1:5432", "loopback");
        check("169.254.169.254:80", "metadata");
        check("168.63.129.16:80", "a cloud's own");
        check("198.18.0.1:80", "by its name");
        check("224.0.0.1:1", "multicast");
        check("255.255.255.255:1", "broadcast");
        check("0.0.0.0:1", "no host");
        check("db.example.com:5432", "no IPv4 address");
        check("10.0.0.5", "no port");
        check("10.0.0.5:0", "no port");
        check("10.0.0.5:+5", "no port");
        check("10.0.0.5:65536", "no port");
        check("10.0.0.5:1/sctp", "no protocol");
        check("10.0.0.5:1; drop", "no port");
        check("[::1]:80", "no IPv4 address");
        check("../x", "no protocol");
        check("a;id", "no app name");
        check("", "no app name");
    }

    #[test]
    fn blocks_are_aligned() {
        for (text, expected) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("10.0.0.1/8", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/", None),
            ("fd00::/8", None),
        ] {
            let got = text.parse::<Net>().ok().map(|net| net.to_string());
            assert_eq!(got.as_deref(), expected, "{text}");
        }
        let holds = |net: &str, address: [u8; 4]| {
            let net: Net = net.parse().expect("a block");
            net.contains(address.into())
        };
        assert!(holds("10.0.0.0/8", [10, 255, 0, 1]) && !holds("10.0.0.0/8", [11, 0, 0, 0]));
        assert!(holds("192.0.2.7", [192, 0, 2, 7]) && !holds("192.0.2.7", [192, 0, 2, 6]));
        assert!(holds("0.0.0.0/0", [255, 1, 2, 3]));
    }

    #[test]
    fn app_addresses_stay_in_their_range() {
        assert_eq!(app_address(0), Ipv4Addr::new(198, 18, 0, 1));
        assert_eq!(
            app_address(APP_ADDRESSES_MAX - 1),
            Ipv4Addr::new(198, 19, 255, 254)
        );
    }
}
