//! The part `[proxies]` of the settings: what stands between the clients and the router.

use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

use super::SettingsError;

/// Load balancers whose word on where a request comes from is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// Their addresses. Default none: then `X-Forwarded-For` of any client is passed on with the
    /// client's address behind it, as the platform does, and nothing else is believed.
    pub trusted: Vec<Block>,
    /// Each of their connections begins with a PROXY header, version 1 or 2. Default no.
    pub protocol: bool,
}

/// Addresses with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    address: IpAddr,
    prefix: u8,
}

impl Block {
    /// True if the address is one of them.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

impl FromStr for Block {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let (longest, trailing_zeros) = match address {
            IpAddr::V4(address) => (32, address.to_bits().trailing_zeros()),
            IpAddr::V6(address) => (128, address.to_bits().trailing_zeros()),
        };
        let prefix = prefix.map_or(Ok(longest), str::parse).map_err(drop)?;
        if prefix > longest || u32::from(longest - prefix) > trailing_zeros {
            return Err(());
        }
        Ok(Self { address, prefix })
    }
}

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileProxies {
    trusted: Option<Vec<String>>,
    protocol: Option<bool>,
}

/// Lays what was written over the defaults.
pub(super) fn merge(file: FileProxies) -> Result<ProxySettings, SettingsError> {
    let block = |text: String| {
        text.parse().map_err(|()| SettingsError::Value {
            key: "proxies.trusted",
            value: text,
            reason: "write an address, or a block like 10.0.0.0/8 or fd00::/8 (no bit set behind the prefix)".to_owned(),
        })
    };
    let trusted = file.trusted.unwrap_or_default().into_iter().map(block);
    let settings = ProxySettings {
        trusted: trusted.collect::<Result<_, _>>()?,
        protocol: file.protocol.unwrap_or_default(),
    };
    if settings.protocol && settings.trusted.is_empty() {
        return Err(SettingsError::Value {
            key: "proxies.protocol",
            value: "true".to_owned(),
            reason: "name the proxies that send it in proxies.trusted: from anybody else it would be a way to lie".to_owned(),
        });
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<ProxySettings, SettingsError> {
        merge(toml::from_str(text).expect("TOML"))
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert_eq!(check("").expect("fine"), ProxySettings::default());
        for (text, key) in [
            ("trusted = [\"10.0.0.1/8\"]", "proxies.trusted"),
            ("trusted = [\"10.0.0.0/33\"]", "proxies.trusted"),
            ("trusted = [\"::/129\"]", "proxies.trusted"),
            ("trusted = [\"lb.example.com\"]", "proxies.trusted"),
            ("trusted = [\"0.0.0.0/-1\"]", "proxies.trusted"),
            ("protocol = true", "proxies.protocol"),
        ] {
            let error = check(text).expect_err(text).to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_block_has_the_addresses_of_its_prefix() {
        let check = |block: &str, inside: &[&str], outside: &[&str]| {
            let block: Block = block.parse().expect(block);
            let contains = |text: &&str| block.contains(text.parse().expect("an address"));
            assert!(inside.iter().all(contains), "{block:?}");
            assert!(!outside.iter().any(contains), "{block:?}");
        };
        check(
            "10.0.0.0/8",
            &["10.0.0.0", "10.255.1.2", "::ffff:10.1.1.1"],
            &["11.0.0.0", "9.255.255.255", "::a00:0"],
        );
        check("192.0.2.7", &["192.0.2.7"], &["192.0.2.6"]);
        check("0.0.0.0/0", &["255.255.255.255"], &["::1"]);
        check("fd00::/8", &["fd12::1"], &["fe80::1", "10.0.0.1"]);
        check("::1", &["::1"], &["::2"]);
    }
}
