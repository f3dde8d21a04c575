//! The settings file.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Paths;

/// Everything `supervise` runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// State directory. Default `/var/lib/manifold`.
    pub state: PathBuf,
    /// The API's Unix socket. Default `/run/manifold/manifold.sock`.
    pub socket: PathBuf,
    /// The router's listening addresses. Default `127.0.0.1:8080`.
    pub http: Vec<SocketAddr>,
    /// Apps answer at `APP.DOMAIN`. Default `localhost`.
    pub domain: String,
    /// Stack of new apps. Default `host`.
    pub stack: crate::model::StackName,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read settings file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Settings {
    /// The layout of the state directory.
    pub fn paths(&self) -> Paths {
        Paths::new(&self.state)
    }

    /// `http://APP.DOMAIN[:PORT]/`: where the router answers for an app.
    pub fn web_url(&self, app: &crate::model::AppName) -> String {
        let port = self.http.first().map_or(80, SocketAddr::port);
        if port == 80 {
            format!("http://{app}.{}/", self.domain)
        } else {
            format!("http://{app}.{}:{port}/", self.domain)
        }
    }
}
