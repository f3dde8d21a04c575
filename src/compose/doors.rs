//! The sockets we listen on, taken from the supervisor before or bound anew.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use tokio::net::{TcpListener, UnixListener};

use super::PlatformError;
use crate::api;
use crate::keeper;
use crate::router::Listeners;
use crate::settings::Settings;

/// Addresses that are taken before anything is launched: a taken one must not cost a dyno.
#[derive(Debug)]
pub struct Doors {
    pub(super) api: UnixListener,
    pub(super) remote: Vec<TcpListener>,
    pub(super) http: Listeners,
}

/// Sockets of the supervisor before, each with what it is. Whoever connects meanwhile waits in their
/// backlogs. What is not asked for is closed with this.
#[derive(Debug, Default)]
pub struct Kept(Vec<(String, OwnedFd)>);

impl Kept {
    /// Opens the parcel; one that cannot be read is as good as none.
    pub(super) fn read(parcel: Option<&OwnedFd>) -> Self {
        let Some(parcel) = parcel else {
            return Self::default();
        };
        let opened = keeper::look(parcel.as_fd()).and_then(|(bytes, fds)| {
            let labels: Vec<String> = serde_json::from_slice(&bytes)?;
            Ok((labels, fds))
        });
        match opened {
            Ok((labels, fds)) => Self(labels.into_iter().zip(fds).collect()),
            Err(error) => {
                tracing::warn!(%error, "the sockets of the supervisor before are not understood");
                Self::default()
            }
        }
    }

    /// What holds the block of the dynos' addresses.
    pub(super) fn block(&mut self) -> Option<(u8, OwnedFd)> {
        let found = self.0.iter().find_map(|(label, _)| {
            let index = label.strip_prefix("block ")?.parse().ok()?;
            Some((index, label.clone()))
        });
        let (index, label) = found?;
        Some((index, self.take(&label)?))
    }

    fn take(&mut self, label: &str) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(known, _)| known == label)?;
        Some(self.0.swap_remove(at).1)
    }

    fn tcp(&mut self, kind: &str, address: SocketAddr) -> Option<std::net::TcpListener> {
        self.take(&label(kind, &address)).map(Into::into)
    }
}

fn label(kind: &str, at: &dyn std::fmt::Display) -> String {
    format!("{kind} {at}")
}

impl Doors {
    /// Binds the API's socket and the router's addresses.
    ///
    /// # Errors
    /// See [`PlatformError`].
    pub async fn open(settings: &Settings) -> Result<Self, PlatformError> {
        Self::open_with(settings, Kept::default()).await
    }

    /// As [`Self::open`], but what was kept is taken over.
    ///
    /// # Errors
    /// See [`PlatformError`].
    pub async fn open_with(settings: &Settings, mut kept: Kept) -> Result<Self, PlatformError> {
        // The router's first: a socket file that answers nobody would be left behind.
        let http = Listeners::bind_with(&settings.http, &settings.https, |kind, address| {
            kept.tcp(kind, address)
        })?;
        let mut remote = Vec::new();
        for address in &settings.api {
            let listener = kept.tcp("api", *address).map(TcpListener::from_std);
            match listener {
                Some(Ok(listener)) => remote.push(listener),
                _ => remote.extend(api::bind_remote(&[*address]).await?),
            }
        }
        let path = &settings.socket;
        let listener = kept.take(&label("socket", &path.display()));
        let listener = listener
            .filter(|_| path.exists())
            .map(|fd| UnixListener::from_std(fd.into()));
        let api = match listener {
            Some(Ok(listener)) => listener,
            _ => api::bind(path).await?,
        };
        Ok(Self { api, remote, http })
    }

    /// All of them, for the next supervisor: bytes and descriptors of a parcel.
    pub(super) fn kept<'a>(
        &'a self,
        settings: &Settings,
        (index, block): (u8, BorrowedFd<'a>),
    ) -> (Vec<u8>, Vec<BorrowedFd<'a>>) {
        let http = settings.http.iter().zip(self.http.plain());
        let https = settings.https.iter().zip(self.http.tls());
        let remote = settings.api.iter().zip(&self.remote);
        let http = http.map(|(at, socket)| (label("http", at), socket.as_fd()));
        let https = https.map(|(at, socket)| (label("https", at), socket.as_fd()));
        let remote = remote.map(|(at, socket)| (label("api", at), socket.as_fd()));
        let own = [
            (label("block", &index), block),
            (
                label("socket", &settings.socket.display()),
                self.api.as_fd(),
            ),
        ];
        let (labels, fds): (Vec<String>, Vec<BorrowedFd<'_>>) = own
            .into_iter()
            .chain(http)
            .chain(https)
            .chain(remote)
            .unzip();
        (serde_json::to_vec(&labels).unwrap_or_default(), fds)
    }

    /// Where the API will listen, beside its socket.
    pub fn api(&self) -> Vec<SocketAddr> {
        let listeners = self.remote.iter();
        listeners.filter_map(|l| l.local_addr().ok()).collect()
    }

    /// Where the router will listen: a port 0 of the settings is a real one here.
    pub fn http(&self) -> Vec<SocketAddr> {
        self.http.addresses()
    }

    /// Where it will listen with TLS.
    pub fn https(&self) -> Vec<SocketAddr> {
        self.http.tls_addresses()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn who_connects_between_two_supervisors_waits_for_the_second() {
        let dir = tempfile::tempdir().expect("a directory");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = Settings {
            socket: dir.path().join("api.sock"),
            http: vec![any, any],
            api: vec![any],
            ..Settings::default()
        };
        let first = Doors::open(&settings).await.expect("opened");
        let (http, remote) = (first.http(), first.api());
        let null = std::fs::File::open("/dev/null").expect("opened");
        let (bytes, fds) = first.kept(&settings, (3, null.as_fd()));
        let parcel = keeper::pack(&bytes, &fds).expect("packed");
        drop(first);
        let mut clients: Vec<_> = [http[0], http[1], remote[0]]
            .into_iter()
            .map(|at| std::net::TcpStream::connect(at).expect("not refused"))
            .collect();
        let local = std::os::unix::net::UnixStream::connect(&settings.socket);
        local.expect("not refused");
        for client in &mut clients {
            client.write_all(b"GET").expect("taken");
        }
        let mut kept = Kept::read(Some(&parcel));
        assert_eq!(kept.block().map(|(index, _)| index), Some(3));
        let second = Doors::open_with(&settings, kept).await.expect("taken over");
        let mut same = second.http();
        same.sort();
        let mut before = http.clone();
        before.sort();
        assert_eq!((same, second.api()), (before, remote.clone()));
        second.remote[0]
            .accept()
            .await
            .expect("the one that waited");
        second.api.accept().await.expect("the one that waited");
        // Another address in the settings is another socket.
        let moved = Settings {
            api: Vec::new(),
            ..settings.clone()
        };
        drop(second);
        let third = Doors::open_with(&moved, Kept::read(Some(&parcel))).await;
        assert!(third.expect("opened").api().is_empty());
        drop(parcel);
        assert!(
            std::net::TcpStream::connect(remote[0]).is_err(),
            "closed with the last"
        );
    }
}
