//! The part `[acme]` of the settings.

use std::path::PathBuf;

use serde::Deserialize;

use super::SettingsError;

/// Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// How automatic certificates are got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeSettings {
    /// URL of the ACME server's directory. Default Let's Encrypt's.
    pub directory: String,
    /// Where the server may write to: `mailto:` URLs. Default none.
    pub contact: Vec<String>,
    /// PEM file of roots to trust beside the machine's own, for a private ACME server.
    pub root: Option<PathBuf>,
    /// Which proofs to offer, the first one first. Default both.
    pub challenges: Vec<AcmeChallenge>,
}

/// A proof that this machine serves a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum AcmeChallenge {
    /// A file over HTTP: the server looks at port 80.
    #[serde(rename = "http-01")]
    Http01,
    /// A certificate over TLS: the server looks at port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl Default for AcmeSettings {
    fn default() -> Self {
        Self {
            directory: DIRECTORY.to_owned(),
            contact: Vec::new(),
            root: None,
            challenges: vec![AcmeChallenge::Http01, AcmeChallenge::TlsAlpn01],
        }
    }
}

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileAcme {
    directory: Option<String>,
    contact: Option<Vec<String>>,
    root: Option<PathBuf>,
    challenges: Option<Vec<AcmeChallenge>>,
}

fn value(key: &'static str, value: impl Into<String>, reason: &str) -> SettingsError {
    SettingsError::Value {
        key,
        value: value.into(),
        reason: reason.to_owned(),
    }
}

/// Lays what was written over the defaults.
pub(super) fn merge(file: FileAcme) -> Result<AcmeSettings, SettingsError> {
    let default = AcmeSettings::default();
    let directory = file.directory.unwrap_or(default.directory);
    if !directory.starts_with("https://") {
        let reason = "give the https:// URL of an ACME server's directory";
        return Err(value("acme.directory", directory, reason));
    }
    let contact = file.contact.unwrap_or_default();
    if let Some(other) = contact.iter().find(|url| !url.starts_with("mailto:")) {
        let reason = "write it as a URL such as mailto:you@example.com";
        return Err(value("acme.contact", other.clone(), reason));
    }
    let challenges = file.challenges.unwrap_or(default.challenges);
    if challenges.is_empty() {
        let reason = "name at least one of \"http-01\" and \"tls-alpn-01\"";
        return Err(value("acme.challenges", "[]", reason));
    }
    Ok(AcmeSettings {
        directory,
        contact,
        root: file.root,
        challenges,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let check = |text: &str| merge(toml::from_str(text).expect("TOML"));
        assert_eq!(check("").expect("fine"), AcmeSettings::default());
        let both = check("challenges = [\"tls-alpn-01\"]").expect("fine");
        assert_eq!(both.challenges, [AcmeChallenge::TlsAlpn01]);
        for (text, key) in [
            ("directory = \"http://x/dir\"", "acme.directory"),
            ("contact = [\"you@example.com\"]", "acme.contact"),
            ("challenges = []", "acme.challenges"),
        ] {
            let error = check(text).expect_err(text).to_string();
            assert!(error.contains(key), "{error}");
        }
        assert!(toml::from_str::<FileAcme>("challenges = [\"dns-01\"]").is_err());
    }
}
