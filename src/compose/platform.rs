//! The rooms above the driver, started in order and stopped in reverse. Needs no root: tests run
//! it over a fake machine.

use std::sync::Arc;
use std::time::Duration;

use super::{Doors, leftovers};
use crate::api::{Api, Parts, ServeError, Server, Upgrades};
use crate::certs::{Acme, Certs, CertsError};
use crate::logs::Hub;
use crate::metrics::Metrics;
use crate::release::{ReleaseError, Releases};
use crate::router::{Router, RouterError};
use crate::settings::Settings;
use crate::store::{Store, StoreError};
use crate::supervisor::Supervisor;

/// Builds and release phases get this long to be recorded after the last dyno is gone.
const FINISH: Duration = Duration::from_secs(30);

/// The router gets this long to stop when there is nothing left to route to.
const ABANDON: Duration = Duration::from_secs(1);

/// The platform did not start.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The state cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The API cannot be served.
    #[error(transparent)]
    Api(#[from] ServeError),
    /// The router's addresses cannot be taken.
    #[error(transparent)]
    Listen(#[from] RouterError),
    /// The certificates cannot be read.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// The router's threads cannot be started.
    #[error("cannot start the router")]
    Router(#[source] std::io::Error),
    /// The stored apps cannot be applied.
    #[error("cannot start the stored apps")]
    Apply(#[source] ReleaseError),
}

/// Store, releases, API and router over a driver.
#[derive(Debug)]
pub struct Platform {
    store: Store,
    supervisor: Supervisor,
    releases: Releases,
    api: Api,
    server: Server,
    router: Router,
    acme: Acme,
    metrics: Metrics,
}

impl Platform {
    /// Opens the store, applies every stored app, then serves. Who asks the API for an upgrade is
    /// heard on `upgrades`.
    ///
    /// # Errors
    /// See [`PlatformError`].
    pub async fn start(
        settings: Arc<Settings>,
        doors: Doors,
        hub: Hub,
        supervisor: Supervisor,
        upgrades: Upgrades,
    ) -> Result<Self, PlatformError> {
        let store = Store::open(&settings.paths().database())?;
        let releases = Releases::new(
            store.clone(),
            supervisor.clone(),
            hub.clone(),
            Arc::clone(&settings),
        );
        leftovers::remove(&store, &settings.paths()).await?;
        releases.start().await.map_err(PlatformError::Apply)?;
        supervisor.settle().await;
        let certs = Certs::open(store.clone(), &settings).await?;
        let router = Router::start(
            &doors.http,
            &supervisor,
            hub.clone(),
            &settings,
            certs.clone(),
        );
        let router = router.map_err(PlatformError::Router)?;
        let acme = Acme::start(certs.clone(), settings.acme.clone(), hub.clone());
        let metrics = Metrics::start(supervisor.clone(), hub.clone(), &settings.timings);
        let api = Api::new(Parts {
            store: store.clone(),
            supervisor: supervisor.clone(),
            hub,
            releases: releases.clone(),
            certs,
            settings: Arc::clone(&settings),
            upgrades,
        });
        let server = Server::start(&api, doors.api, &settings.socket, doors.remote);
        Ok(Self {
            store,
            supervisor,
            releases,
            api,
            server,
            router,
            acme,
            metrics,
        })
    }

    /// Every dyno is gone: frees the router's addresses for the next supervisor, which need not
    /// wait until this process is quite gone.
    pub async fn abandon(self) {
        self.router.close();
        if tokio::time::timeout(ABANDON, self.router.stop())
            .await
            .is_err()
        {
            tracing::warn!("the router did not stop in time");
        }
    }

    /// Makes way for the next supervisor: dynos go on, new connections wait, requests under way end,
    /// at most so long as at a stop. Builds and attached one-offs end with this process.
    pub async fn leave(self) {
        self.server.close();
        self.api.stop();
        self.acme.stop().await;
        self.supervisor.leave().await;
        self.metrics.stop().await;
        self.server.leave().await;
        // Last: nobody is served from here until the next one is there.
        self.router.stop().await;
        self.store.close().await;
    }

    /// Takes no new work, stops every dyno, records what that ends, closes the store.
    pub async fn stop(self) {
        self.server.close();
        self.router.close();
        self.api.stop();
        self.acme.stop().await;
        self.supervisor.shutdown().await;
        self.metrics.stop().await;
        let rest = async {
            self.api.finish().await;
            self.releases.finish().await;
        };
        if tokio::time::timeout(FINISH, rest).await.is_err() {
            tracing::warn!(
                "builds or release phases did not end; they count as failed at the next start"
            );
        }
        self.server.stop().await;
        self.router.stop().await;
        self.store.close().await;
    }
}
