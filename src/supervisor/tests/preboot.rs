//! Rolls without a gap, aborted rolls, and the drain before SIGTERM.

use std::collections::BTreeSet;

use super::*;
use crate::model::Feature;

impl Bench {
    /// As `apply`, with preboot.
    pub(super) async fn preboot(&self, version: u32, processes: &[(&str, &str, u32)]) {
        let mut spec = self.spec(version, processes);
        spec.features.insert(Feature::Preboot);
        self.supervisor.apply(spec).await.expect("applied");
    }

    /// Versions of the dynos that get requests now, one for each.
    fn routed(&self) -> Vec<u32> {
        routed(&self.supervisor.snapshot(), self.app)
    }

    /// Watches every snapshot until `run` is over; returns the fewest dynos that got requests, and
    /// whether two versions did at once.
    async fn watched(&self, run: impl Future<Output = ()>) -> (usize, bool) {
        let mut snapshots = self.supervisor.watch();
        let (mut fewest, mut is_mixed) = (usize::MAX, false);
        let mut look = |versions: Vec<u32>| {
            fewest = fewest.min(versions.len());
            is_mixed |= versions.iter().collect::<BTreeSet<_>>().len() > 1;
        };
        let watch = async {
            loop {
                look(routed(&snapshots.borrow_and_update(), self.app));
                snapshots.changed().await.expect("a driver");
            }
        };
        tokio::select! {
            biased;
            () = watch => {}
            () = run => {}
        }
        (fewest, is_mixed)
    }

    /// Waits until `count` dynos get requests, all of that version, and no old one is left.
    async fn until_routed(&self, version: u32, count: usize) {
        let mut snapshots = self.supervisor.watch();
        let wait = async {
            loop {
                let snapshot = snapshots.borrow_and_update().clone();
                let is_alone = snapshot.apps[&self.app].dynos.iter().all(|dyno| {
                    !dyno.is_stopping && dyno.part == Part::Server && dyno.name.process.is_web()
                });
                if routed(&snapshot, self.app) == vec![version; count] && is_alone {
                    return;
                }
                snapshots.changed().await.expect("a driver");
            }
        };
        let in_time = tokio::time::timeout(Duration::from_mins(1), wait).await;
        assert!(in_time.is_ok(), "{:?}: {:?}", self.routed(), self.states());
    }

    fn terms(&self) -> usize {
        let signals = self.signalled();
        assert!(
            signals
                .iter()
                .all(|(_, signal)| *signal == StopSignal::Term)
        );
        signals.len()
    }
}

fn routed(snapshot: &Snapshot, app: AppId) -> Vec<u32> {
    let dynos = snapshot.apps.get(&app).into_iter().flat_map(|a| &a.dynos);
    let routable = dynos.filter(|dyno| dyno.is_routable());
    routable.map(|dyno| dyno.release.1.0).collect()
}

#[tokio::test]
async fn all_new_dynos_take_over_in_one_step() {
    let bench = Bench::new();
    bench.preboot(1, &[("web", "serve", 3)]).await;
    bench.until_routed(1, 3).await;
    let roll = async {
        bench.preboot(2, &[("web", "serve", 3)]).await;
        bench.until_routed(2, 3).await;
    };
    assert_eq!(bench.watched(roll).await, (3, false));
    assert_eq!(bench.terms(), 3);
    let restart = async {
        let all = bench.supervisor.restart(bench.app, Selector::All);
        all.await.expect("restarted");
        let live = || bench.fake.lock().launched.len();
        while live() < 9 {
            tokio::task::yield_now().await;
        }
        bench.until_routed(2, 3).await;
    };
    assert_eq!(bench.watched(restart).await, (3, false));
    assert_eq!(bench.terms(), 3);
}

#[tokio::test]
async fn a_new_dyno_that_does_not_start_leaves_the_old_version_running() {
    let mut bench = Bench::new();
    bench.preboot(1, &[("web", "serve", 2)]).await;
    bench.until_routed(1, 2).await;
    bench.preboot(2, &[("web", "no launch", 2)]).await;
    bench
        .lines(&["api: Roll to v2 aborted: web.1 did not start; the dynos of v1 keep running. Deploy again, roll back, or try v2 again with `manifold ps:restart`"])
        .await;
    bench.until_routed(1, 2).await;
    assert_eq!(bench.terms(), 0);
    // Something else changes: the version that runs takes it, the bad one is not tried again.
    let scale = async {
        bench.preboot(2, &[("web", "no launch", 3)]).await;
        bench.until_routed(1, 3).await;
    };
    assert_eq!(bench.watched(scale).await, (2, false));
    // Asked to, it is; and a good release ends it.
    let again = bench.supervisor.restart(bench.app, Selector::All);
    again.await.expect("restarted");
    bench.lines(&["api: Roll to v2 aborted: web.1 did not start; the dynos of v1 keep running. Deploy again, roll back, or try v2 again with `manifold ps:restart`"]).await;
    bench.preboot(3, &[("web", "serve", 3)]).await;
    bench.until_routed(3, 3).await;
    assert_eq!(bench.terms(), 3);
}

#[tokio::test]
async fn a_newer_release_takes_over_a_roll_under_way() {
    let bench = Bench::new();
    bench.preboot(1, &[("web", "serve", 2)]).await;
    bench.until_routed(1, 2).await;
    let roll = async {
        // Never up.
        bench.preboot(2, &[("web", "idle", 2)]).await;
        while bench.fake.lock().live.len() < 4 {
            tokio::task::yield_now().await;
        }
        bench.preboot(3, &[("web", "serve", 2)]).await;
        bench.until_routed(3, 2).await;
    };
    assert_eq!(bench.watched(roll).await, (2, false));
    assert_eq!(bench.terms(), 4);
}

#[tokio::test]
async fn what_does_not_fit_into_memory_is_replaced_bit_by_bit() {
    let size = DynoSize::default().memory_bytes;
    // Room for one beside the old ones: nobody is missing. Room for none: one is, at a time.
    for (memory, fewest) in [(size * 2 - 1, 3), (0, 2)] {
        let bench = Bench::new();
        bench.preboot(1, &[("web", "serve", 3)]).await;
        bench.until_routed(1, 3).await;
        bench.fake.lock().memory = Some(memory);
        let roll = async {
            bench.preboot(2, &[("web", "serve", 3)]).await;
            bench.until_routed(2, 3).await;
        };
        assert_eq!(bench.watched(roll).await.0, fewest);
        assert_eq!(bench.terms(), 3);
        // And back again, when the new version does not start.
        bench.preboot(3, &[("web", "no launch", 3)]).await;
        bench.until_routed(2, 3).await;
    }
}

#[tokio::test]
async fn workers_follow_when_the_web_dynos_have_taken_over() {
    let mut bench = Bench::new();
    let formation = [("web", "serve", 1), ("worker", "work", 1)];
    bench.preboot(1, &formation).await;
    bench.until(&[("web.1", Up), ("worker.1", Up)]).await;
    bench.preboot(2, &formation).await;
    bench
        .lines(&[
            "web.1: Restarting",
            "web.1: Starting process with command `serve`",
            "web.1: State changed from starting to up",
            "worker.1: Restarting",
            "worker.1: Stopping all processes with SIGTERM",
            "web.1: Process exited with status 143",
        ])
        .await;
    let wait = async {
        let mut snapshots = bench.supervisor.watch();
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            let dynos = &snapshot.apps[&bench.app].dynos;
            if dynos.len() == 2 && dynos.iter().all(|d| d.release.1.0 == 2) {
                return;
            }
            snapshots.changed().await.expect("a driver");
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, wait).await;
    in_time.expect("both are of the new release");
}

#[tokio::test]
async fn sigterm_waits_for_the_requests_in_flight() {
    let bench = Bench::new();
    bench.preboot(1, &[("web", "serve", 2)]).await;
    bench.until_routed(1, 2).await;
    let snapshot = bench.supervisor.snapshot();
    let dynos = &snapshot.apps[&bench.app].dynos;
    let last = dynos.iter().find(|d| d.name.to_string() == "web.2");
    let traffic = Arc::clone(&last.expect("web.2").traffic);
    assert!(traffic.gate.enter());
    bench.preboot(1, &[("web", "serve", 1)]).await;
    assert_eq!(bench.routed(), [1]);
    assert!(!traffic.gate.enter(), "no new request");
    // A round trip through the driver: it had every chance to signal.
    bench.preboot(1, &[("web", "serve", 1)]).await;
    assert_eq!(bench.terms(), 0);
    traffic.gate.leave();
    bench.until_routed(1, 1).await;
    assert_eq!(bench.terms(), 1);
}

#[tokio::test]
async fn a_request_that_does_not_end_delays_sigterm_no_longer_than_the_grace() {
    let bench = Bench::with(Timings {
        stop_grace: Duration::from_millis(200),
        ..Timings::default()
    });
    bench.preboot(1, &[("web", "serve", 1)]).await;
    bench.until_routed(1, 1).await;
    let snapshot = bench.supervisor.snapshot();
    let traffic = Arc::clone(&snapshot.apps[&bench.app].dynos[0].traffic);
    assert!(traffic.gate.enter());
    let start = Instant::now();
    bench.preboot(1, &[("web", "serve", 0)]).await;
    bench.until_routed(1, 0).await;
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(bench.terms(), 1);
    traffic.gate.leave();
}
