//! Releases on trial: a canary first, all or nothing.

use super::*;
use crate::model::Feature;
use crate::supervisor::{Trial, app_view};

impl Bench {
    /// As `apply`, with preboot, on trial.
    async fn on_trial(&self, version: u32, processes: &[(&str, &str, u32)]) {
        let mut spec = self.spec(version, processes);
        spec.features.insert(Feature::Preboot);
        if let Some(release) = &mut spec.release {
            Arc::make_mut(release).is_trial = true;
        }
        self.supervisor.apply(spec).await.expect("applied");
    }

    /// How the trial of that release ended.
    async fn outcome(&self, version: u32) -> Trial {
        let mut snapshots = self.supervisor.watch();
        let wait = async {
            loop {
                let snapshot = snapshots.borrow_and_update().clone();
                let trial = app_view(&snapshot, self.app).and_then(|view| view.trial.clone());
                match trial {
                    Some((id, trial))
                        if id.0.as_u128() == u128::from(version) && trial != Trial::Running =>
                    {
                        return trial;
                    }
                    _ => snapshots.changed().await.expect("a driver"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("an end")
    }

    /// Release of each dyno that is not on its way out.
    fn versions(&self) -> BTreeMap<String, u32> {
        let snapshot = self.supervisor.snapshot();
        let dynos = snapshot
            .apps
            .get(&self.app)
            .into_iter()
            .flat_map(|a| &a.dynos);
        dynos
            .filter(|dyno| !dyno.is_stopping)
            .map(|dyno| (dyno.name.to_string(), dyno.release.1.0))
            .collect()
    }

    /// Commands launched since the last look.
    fn launches(&self) -> Vec<String> {
        let launched = std::mem::take(&mut self.fake.lock().launched);
        launched
            .iter()
            .map(|order| order.name.to_string())
            .collect()
    }

    async fn until_versions(&self, expected: &[(&str, u32)]) {
        let expected: BTreeMap<String, u32> = expected
            .iter()
            .map(|(name, version)| ((*name).to_owned(), *version))
            .collect();
        let mut snapshots = self.supervisor.watch();
        let wait = async {
            while self.versions() != expected {
                snapshots.changed().await.expect("a driver");
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        assert!(in_time, "{:?} did not become {expected:?}", self.versions());
    }
}

const ALL: [(&str, DynoState); 4] = [
    ("web.1", Up),
    ("web.2", Up),
    ("web.3", Up),
    ("worker.1", Up),
];

#[tokio::test]
async fn a_canary_goes_first_and_the_others_follow() {
    let bench = Bench::new();
    let processes = [("web", "serve", 3), ("worker", "work", 1)];
    bench.preboot(1, &processes).await;
    bench.until(&ALL).await;
    bench.launches();
    bench.on_trial(2, &processes).await;
    // While the canary is watched, nothing else is touched.
    bench
        .until_versions(&[("web.1", 2), ("web.2", 1), ("web.3", 1), ("worker.1", 1)])
        .await;
    assert_eq!(bench.launches(), ["web.1"]);
    let refused = bench.supervisor.restart(bench.app, Selector::All).await;
    assert_eq!(refused, Err(CommandError::OnTrial));
    assert_eq!(bench.outcome(2).await, Trial::Passed);
    bench
        .until_versions(&[("web.1", 2), ("web.2", 2), ("web.3", 2), ("worker.1", 2)])
        .await;
    assert_eq!(bench.launches(), ["web.2", "web.3", "worker.1"]);
    // It is current now, and nothing more happens.
    bench.preboot(2, &processes).await;
    assert_eq!(bench.launches(), Vec::<String>::new());
}

const SMALL: [(&str, &str, u32); 2] = [("web", "serve", 2), ("worker", "work", 1)];
const SMALL_UP: [(&str, DynoState); 3] = [("web.1", Up), ("web.2", Up), ("worker.1", Up)];

#[tokio::test]
async fn a_canary_that_does_not_start_leaves_everything() {
    let bench = Bench::new();
    bench.preboot(1, &SMALL).await;
    bench.until(&SMALL_UP).await;
    bench.launches();
    bench
        .on_trial(2, &[("web", "no launch", 2), ("worker", "work", 1)])
        .await;
    let outcome = bench.outcome(2).await;
    assert!(
        matches!(&outcome, Trial::Failed(why) if why.contains("web.1 did not stay up")),
        "{outcome:?}"
    );
    assert_eq!(bench.launches(), ["web.1"]);
    bench
        .until_versions(&[("web.1", 1), ("web.2", 1), ("worker.1", 1)])
        .await;
    assert_eq!(bench.signalled(), []);
}

#[tokio::test]
async fn a_worker_that_ends_takes_the_web_dynos_back() {
    let bench = Bench::new();
    bench.preboot(1, &SMALL).await;
    bench.until(&SMALL_UP).await;
    bench.on_trial(2, &SMALL).await;
    bench
        .until_versions(&[("web.1", 2), ("web.2", 2), ("worker.1", 2)])
        .await;
    bench.until(&SMALL_UP).await;
    bench.fake.die("worker.1", 1);
    let outcome = bench.outcome(2).await;
    assert!(
        matches!(&outcome, Trial::Failed(why) if why.contains("worker.1 did not stay up")),
        "{outcome:?}"
    );
    bench
        .until_versions(&[("web.1", 1), ("web.2", 1), ("worker.1", 1)])
        .await;
    // As whoever asked does then; nothing is left to do.
    bench.preboot(1, &SMALL).await;
    bench.until(&SMALL_UP).await;
}

#[tokio::test]
async fn an_app_without_dynos_passes_and_a_stop_ends_a_trial() {
    let bench = Bench::new();
    bench.preboot(1, &[("web", "serve", 0)]).await;
    bench.on_trial(2, &[("web", "serve", 0)]).await;
    assert_eq!(bench.outcome(2).await, Trial::Passed);
    bench.preboot(2, &[("web", "serve", 1)]).await;
    bench.until_versions(&[("web.1", 2)]).await;
    bench.until(&[("web.1", Up)]).await;
    bench.on_trial(3, &[("web", "silent", 1)]).await;
    bench.supervisor.shutdown().await;
    assert!(matches!(bench.outcome(3).await, Trial::Failed(_)));
}
