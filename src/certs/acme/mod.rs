//! Automatic certificates: one per custom domain, got and renewed in time.
//!
//! One task looks at all domains whose app has them switched on, a few orders at a time. An
//! attempt that fails is told in the app's log and repeated later and later (`schedule`); the
//! other challenge is tried then, if the settings allow both.

mod http;
mod order;
mod schedule;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use instant_acme::Account;
use jiff::Timestamp;
use rand::RngExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::http::Https;
use self::order::OrderError;
use super::manage::CertsError;
use super::{Certificate, Certs, Kind};
use crate::logs::Hub;
use crate::model::{AppId, Hostname};
use crate::settings::AcmeSettings;
use crate::store::AutoRecord;

/// Orders under way at once.
const AT_ONCE: usize = 4;

/// Longest pause between two looks at the domains.
const LOOK: Duration = Duration::from_hours(1);

/// An order may take so long in all.
const ORDER_DEADLINE: Duration = Duration::from_mins(5);

/// The task.
#[derive(Debug)]
pub struct Acme {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Acme {
    /// Starts it.
    pub fn start(certs: Certs, settings: AcmeSettings, hub: Hub) -> Self {
        let stop = CancellationToken::new();
        let worker = Arc::new(Worker {
            certs,
            settings,
            hub,
            account: tokio::sync::Mutex::default(),
        });
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                tokio::select! {
                    () = worker.run() => {}
                    () = stop.cancelled() => {}
                }
            }
        });
        Self { task, stop }
    }

    /// Ends it; an order under way is left to the server.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "automatic certificates ended badly");
        }
    }
}

struct Worker {
    certs: Certs,
    settings: AcmeSettings,
    hub: Hub,
    /// Made when it is first needed.
    account: tokio::sync::Mutex<Option<Account>>,
}

impl Worker {
    async fn run(&self) {
        loop {
            let pause = match self.round().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "automatic certificates were not looked at");
                    LOOK
                }
            };
            // News only shortens the pause.
            let _ = tokio::time::timeout(pause, self.certs.news()).await;
        }
    }

    /// Does what is due; returns how long there is nothing to do.
    async fn round(&self) -> Result<Duration, CertsError> {
        let domains = self.certs.store().auto_domains().await?;
        let all = self.certs.all().await?;
        let automatic = all.into_iter().map(|(one, _)| one);
        let automatic: Vec<Certificate> =
            automatic.filter(|c| c.record.hostname.is_some()).collect();
        self.remove_unwanted(&domains, &automatic).await?;
        let now = Timestamp::now();
        let due = domains
            .into_iter()
            .filter(|domain| is_due(domain, &automatic, now));
        let work = due.map(|domain| {
            let old = automatic
                .iter()
                .find(|c| is_of(c, domain.app, &domain.hostname));
            self.attempt(domain, old)
        });
        futures_util::stream::iter(work)
            .for_each_concurrent(AT_ONCE, |attempt| attempt)
            .await;
        let domains = self.certs.store().auto_domains().await?;
        let now = Timestamp::now();
        let waits = domains
            .iter()
            .filter_map(|domain| domain.next)
            .map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default());
        let pause = waits.min().unwrap_or(LOOK);
        Ok(pause.clamp(Duration::from_secs(1), LOOK))
    }

    /// Certificates of domains that were removed or are no longer automatic.
    async fn remove_unwanted(
        &self,
        domains: &[AutoRecord],
        certificates: &[Certificate],
    ) -> Result<(), CertsError> {
        let wanted: HashSet<_> = domains.iter().map(|d| (d.app, &d.hostname)).collect();
        for one in certificates {
            let hostname = one.record.hostname.as_ref();
            if hostname.is_some_and(|name| !wanted.contains(&(one.record.app, name))) {
                self.certs.remove(&one.record).await?;
            }
        }
        Ok(())
    }

    /// One attempt, told and recorded.
    async fn attempt(&self, domain: AutoRecord, old: Option<&Certificate>) {
        let result = if domain.hostname.wildcard_base().is_some() {
            Err("a wildcard has no automatic certificate (it would need DNS-01): give one with `manifold certs:add`".to_owned())
        } else {
            let work = tokio::time::timeout(ORDER_DEADLINE, self.obtain(&domain, old)).await;
            match work {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err("the ACME server took too long".to_owned()),
            }
        };
        let chance = rand::rng().random::<f64>();
        let mut state = AutoRecord {
            attempts: 0,
            next: None,
            reason: None,
            ..domain
        };
        let line = match result {
            Ok(new) => {
                let facts = &new.facts;
                state.next = Some(schedule::renewal(facts.starts, facts.expires, chance));
                let expires = facts.expires;
                format!(
                    "Certificate for {} issued, valid until {expires}",
                    state.hostname
                )
            }
            Err(reason) => {
                state.attempts = domain.attempts.saturating_add(1);
                let next = schedule::retry(state.attempts, Timestamp::now(), chance);
                state.next = Some(next);
                let line = format!("Certificate for {} failed: {reason}", state.hostname);
                state.reason = Some(reason);
                line
            }
        };
        self.hub.api(state.app, line);
        if let Err(error) = self.certs.store().set_auto_domain(state).await {
            tracing::error!(%error, "an automatic certificate was not recorded");
        }
    }

    async fn obtain(
        &self,
        domain: &AutoRecord,
        old: Option<&Certificate>,
    ) -> Result<Certificate, ObtainError> {
        let account = self.account().await?;
        let mut kinds = self.settings.challenges.clone();
        // Each failure begins with the next kind.
        let turn = usize::try_from(domain.attempts).unwrap_or_default() % kinds.len().max(1);
        kinds.rotate_left(turn);
        let name = domain.hostname.as_str();
        let (chain, key) = order::order(&self.certs, &account, name, &kinds).await?;
        let names = [name.to_owned()];
        let new = if let Some(old) = old {
            self.certs.update(&old.record, &names, &chain, &key).await
        } else {
            let kind = Kind::Automatic(domain.hostname.clone());
            self.certs.add(domain.app, &names, &chain, &key, kind).await
        };
        Ok(new?)
    }

    async fn account(&self) -> Result<Account, OrderError> {
        let mut account = self.account.lock().await;
        if let Some(account) = &*account {
            return Ok(account.clone());
        }
        let fail = |source| OrderError::Account {
            path: self.settings.root.clone().unwrap_or_default(),
            source,
        };
        let https = Https::new(self.settings.root.as_deref()).map_err(fail)?;
        let new = order::account(&self.certs, &self.settings, &https).await?;
        *account = Some(new.clone());
        Ok(new)
    }
}

#[derive(Debug, thiserror::Error)]
enum ObtainError {
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Certs(#[from] CertsError),
}

fn is_of(one: &Certificate, app: AppId, hostname: &Hostname) -> bool {
    one.record.app == app && one.record.hostname.as_ref() == Some(hostname)
}

/// True if it has no certificate and may be tried, or its certificate is to be renewed.
fn is_due(domain: &AutoRecord, certificates: &[Certificate], now: Timestamp) -> bool {
    let is_time = domain.next.is_none_or(|next| next <= now);
    let mut mine = certificates
        .iter()
        .filter(|one| is_of(one, domain.app, &domain.hostname));
    // A file that was lost is made anew at once, unless attempts fail.
    is_time || (domain.attempts == 0 && mine.next().is_none())
}
