//! From what apps are allowed to the holes in the wall: a pure function of the snapshot, and the
//! task that follows it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Allowance, AppView, LinuxMachine, Snapshot};
use crate::network::Opening;

/// The openings that the running dynos need. Builds get none: what they run is not released.
fn openings(snapshot: &Snapshot) -> Vec<Opening> {
    let mut found = Vec::new();
    for view in snapshot.apps.values() {
        if view.spec.allowed.is_empty() {
            continue;
        }
        let dynos = view.dynos.iter().filter(|dyno| !dyno.is_build);
        let from: std::collections::BTreeSet<_> =
            dynos.filter_map(|dyno| dyno.backend.address).collect();
        if from.is_empty() {
            continue;
        }
        found.extend(view.spec.allowed.iter().map(|allowance| match allowance {
            Allowance::Host(to) => Opening::Host {
                from: from.clone(),
                to: *to,
            },
            Allowance::App { app, at } => Opening::App {
                from: from.clone(),
                at: *at,
                to: snapshot.apps.get(app).map(web_dynos).unwrap_or_default(),
            },
        }));
    }
    found
}

fn web_dynos(view: &Arc<AppView>) -> Vec<(Ipv4Addr, u16)> {
    let dynos = view.dynos.iter().filter(|dyno| dyno.is_routable());
    dynos
        .filter_map(|dyno| Some((dyno.backend.address?, dyno.port?)))
        .collect()
}

impl LinuxMachine {
    /// Keeps the firewall's openings what the snapshots say, until the driver ends.
    pub fn follow(&self, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
        let machine = self.clone();
        tokio::spawn(async move {
            loop {
                let wanted = openings(&snapshots.borrow_and_update());
                machine.set_openings(wanted);
                if snapshots.changed().await.is_err() {
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::super::{AppSpec, Backend, DynoView};
    use super::*;
    use crate::model::{AppId, DynoId, DynoName, DynoSize, DynoState, ReleaseId, ReleaseVersion};

    fn dyno(name: &str, address: u8, state: DynoState) -> DynoView {
        let name: DynoName = name.parse().expect("a dyno");
        DynoView {
            id: DynoId::new(),
            port: (name.process.as_str() == "web").then_some(5000),
            name,
            state,
            since: Timestamp::now(),
            created: Timestamp::now(),
            command: String::new(),
            size: DynoSize::default(),
            release: (ReleaseId::new(), ReleaseVersion(3)),
            is_stopping: false,
            part: super::super::snapshot::Part::Server,
            traffic: Arc::default(),
            is_build: false,
            backend: Backend {
                netns: None,
                address: Some(Ipv4Addr::new(172, 16, 0, address)),
            },
        }
    }

    fn app(name: &str, allowed: Vec<Allowance>, dynos: Vec<DynoView>) -> (AppId, Arc<AppView>) {
        let id = AppId::new();
        let spec = AppSpec {
            id,
            name: name.parse().expect("a name"),
            maintenance: false,
            hostnames: Vec::new(),
            features: std::collections::BTreeSet::new(),
            release: None,
            formation: BTreeMap::new(),
            routing: crate::model::Routing::default(),
            allowed,
        };
        let spec = Arc::new(spec);
        let view = AppView {
            spec,
            dynos: dynos.into_iter().map(Arc::new).collect(),
            traffic: Arc::default(),
            trial: None,
        };
        (id, Arc::new(view))
    }

    #[test]
    fn openings_name_the_living_dynos_of_both_sides() {
        let (back_id, back) = app(
            "back",
            Vec::new(),
            vec![
                dyno("web.1", 10, DynoState::Up),
                dyno("web.2", 14, DynoState::Starting),
                dyno("worker.1", 18, DynoState::Up),
            ],
        );
        let at = Ipv4Addr::new(198, 18, 0, 1);
        let database = "10.0.0.5:5432".parse().expect("a port");
        let mut build = dyno("build.1", 22, DynoState::Up);
        build.is_build = true;
        let (front_id, front) = app(
            "front",
            vec![
                Allowance::App { app: back_id, at },
                Allowance::Host(database),
                Allowance::App {
                    app: AppId::new(),
                    at,
                },
            ],
            vec![
                dyno("web.1", 2, DynoState::Up),
                dyno("run.1234", 6, DynoState::Up),
                build,
            ],
        );
        let idle = app("idle", vec![Allowance::Host(database)], Vec::new());
        let snapshot = Snapshot {
            apps: BTreeMap::from([(back_id, back), (front_id, front), idle]),
        };
        let from: std::collections::BTreeSet<_> =
            [2, 6].map(|n| Ipv4Addr::new(172, 16, 0, n)).into();
        let expected = [
            Opening::App {
                from: from.clone(),
                at,
                to: vec![(Ipv4Addr::new(172, 16, 0, 10), 5000)],
            },
            Opening::Host {
                from: from.clone(),
                to: database,
            },
            Opening::App {
                from,
                at,
                to: Vec::new(),
            },
        ];
        assert_eq!(openings(&snapshot), expected);
    }
}
