//! Dynos that outlive their supervisor: what the first left, the second takes in.

use std::collections::BTreeSet;
use std::io::Write as _;

use super::*;

impl Fake {
    fn say(&self, name: &str, text: &str) {
        let state = self.lock();
        let live = state.live.values().find(|live| live.name == name);
        let output = live.expect("it lives").output.try_clone();
        let mut output = std::fs::File::from(output.expect("a copy"));
        output.write_all(text.as_bytes()).expect("written");
    }

    /// Ends a dyno while there is no supervisor to tell.
    fn die_alone(&self, name: &str) -> DynoId {
        let mut state = self.lock();
        let found = state.live.iter().find(|(_, live)| live.name == name);
        let id = *found.expect("it lives").0;
        state.live.remove(&id);
        id
    }

    fn launches(&self) -> usize {
        self.lock().launched.len()
    }

    fn mark_of(&self, name: &str) -> Option<Mark> {
        let state = self.lock();
        let mut kept = state.kept.values();
        kept.find(|(record, _, _)| record.name.to_string() == name)
            .map(|(_, mark, _)| *mark)
    }
}

impl Bench {
    /// Another supervisor over the same machine; `ended` tells how some ended meanwhile.
    fn succeed(self, ended: &[(DynoId, u8)]) -> Self {
        let adopted = {
            let state = self.fake.lock();
            let adopted = state.kept.iter().map(|(id, (record, mark, output))| {
                let status = ended.iter().find(|(dead, _)| dead == id);
                Adopted {
                    id: *id,
                    mark: *mark,
                    ended: status.map(|(_, status)| ExitStatus(*status)),
                    record: record.clone(),
                    backend: Backend::default(),
                    output: output.try_clone().expect("a copy"),
                }
            });
            adopted.collect()
        };
        let (sender, exits) = mpsc::unbounded_channel();
        self.fake.lock().exits = Some(sender);
        let machine = Arc::new(self.fake.clone());
        let (hub, timings) = (self.hub.clone(), Timings::default());
        let supervisor = Supervisor::start_with(machine, exits, hub, timings, adopted);
        Self { supervisor, ..self }
    }

    async fn leave(&self) {
        let in_time = tokio::time::timeout(PATIENCE, self.supervisor.leave());
        in_time.await.expect("it leaves");
    }

    fn ids(&self) -> BTreeMap<String, DynoId> {
        let snapshot = self.supervisor.snapshot();
        let dynos = snapshot.apps.get(&self.app).into_iter();
        let dynos = dynos.flat_map(|app| &app.dynos).filter(|d| !d.is_stopping);
        dynos.map(|dyno| (dyno.name.to_string(), dyno.id)).collect()
    }
}

const BOTH: &[(&str, &str, u32)] = &[("web", "serve", 1), ("worker", "work", 1)];

#[tokio::test]
async fn dynos_go_on_in_their_places_and_nobody_reads_that_anything_happened() {
    let bench = Bench::new();
    bench.apply(1, BOTH).await;
    bench.until(&[("web.1", Up), ("worker.1", Up)]).await;
    let before = bench.supervisor.snapshot().apps[&bench.app].dynos.clone();
    bench.leave().await;
    let refused = bench.supervisor.restart(bench.app, Selector::All).await;
    assert_eq!(refused, Err(CommandError::Stopping));
    let lines = bench.hub.history(bench.app, &Filter::default(), 100).len();
    bench.fake.say("worker.1", "while nobody reads\n");
    let mut bench = bench.succeed(&[]);
    bench.apply(1, BOTH).await;
    bench.supervisor.settle().await;
    bench.until(&[("web.1", Up), ("worker.1", Up)]).await;
    let after = bench.supervisor.snapshot().apps[&bench.app].dynos.clone();
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(
            (
                old.id,
                &old.command,
                &old.size,
                old.release,
                old.port,
                old.created
            ),
            (
                new.id,
                &new.command,
                &new.size,
                new.release,
                new.port,
                new.created
            )
        );
        assert!(new.is_routable() || new.port.is_none());
    }
    bench.lines(&["worker.1: while nobody reads"]).await;
    assert_eq!(
        bench.hub.history(bench.app, &Filter::default(), 100).len(),
        lines + 1
    );
    assert_eq!((bench.fake.launches(), bench.signalled().len()), (2, 0));
    // From here on they are like any other.
    bench.fake.die("worker.1", 3);
    bench
        .lines(&[
            "worker.1: Process exited with status 3",
            "worker.1: State changed from up to crashed",
            "worker.1: State changed from crashed to starting",
        ])
        .await;
    bench.until(&[("web.1", Up), ("worker.1", Up)]).await;
    bench.supervisor.shutdown().await;
    let state = bench.fake.lock();
    assert!(state.live.is_empty() && state.kept.is_empty());
    assert_eq!(state.torn_down, 3);
}

#[tokio::test]
async fn an_end_without_a_supervisor_is_told_with_its_status_and_once() {
    let bench = Bench::new();
    bench.apply(1, &[("worker", "work", 2)]).await;
    bench.until(&[("worker.1", Up), ("worker.2", Up)]).await;
    bench.leave().await;
    bench.fake.say("worker.1", "my last words");
    let dead = bench.fake.die_alone("worker.1");
    let mut bench = bench.succeed(&[(dead, 42)]);
    bench.apply(1, &[("worker", "work", 2)]).await;
    bench
        .lines(&[
            "worker.1: my last words",
            "worker.1: Process exited with status 42",
            "worker.1: State changed from up to crashed",
            "worker.1: State changed from crashed to starting",
            "worker.1: Starting process with command `work`",
            "worker.1: State changed from starting to up",
        ])
        .await;
    bench.until(&[("worker.1", Up), ("worker.2", Up)]).await;
    assert_eq!(bench.fake.launches(), 3);
    assert!(!bench.fake.lock().kept.contains_key(&dead));
    // The next supervisor hears nothing of it any more.
    bench.leave().await;
    let bench = bench.succeed(&[]);
    bench.apply(1, &[("worker", "work", 2)]).await;
    bench.until(&[("worker.1", Up), ("worker.2", Up)]).await;
    assert_eq!(bench.fake.launches(), 3);
}

#[tokio::test]
async fn an_end_before_its_app_is_known_is_not_lost() {
    let bench = Bench::new();
    bench.apply(1, &[("worker", "work", 1)]).await;
    bench.until(&[("worker.1", Up)]).await;
    bench.leave().await;
    let mut bench = bench.succeed(&[]);
    bench.fake.die("worker.1", 9);
    bench.apply(1, &[("worker", "work", 1)]).await;
    bench
        .lines(&[
            "worker.1: Process exited with status 9",
            "worker.1: State changed from crashed to starting",
        ])
        .await;
    bench.until(&[("worker.1", Up)]).await;
}

#[tokio::test]
async fn places_that_do_not_fit_any_more_are_reconciled() {
    let bench = Bench::new();
    bench
        .apply(1, &[("web", "serve", 2), ("worker", "work", 2)])
        .await;
    let all = [
        ("web.1", Up),
        ("web.2", Up),
        ("worker.1", Up),
        ("worker.2", Up),
    ];
    bench.until(&all).await;
    let before = bench.ids();
    bench.leave().await;
    let mut bench = bench.succeed(&[]);
    // Another release, one worker less, another type.
    bench
        .apply(
            2,
            &[
                ("web", "serve", 2),
                ("worker", "work", 1),
                ("clock", "work", 1),
            ],
        )
        .await;
    bench
        .lines(&["worker.2: State changed from up to down"])
        .await;
    let all = [
        ("clock.1", Up),
        ("web.1", Up),
        ("web.2", Up),
        ("worker.1", Up),
    ];
    let is_new = |bench: &Bench| {
        bench
            .ids()
            .values()
            .all(|id| !before.values().any(|b| b == id))
    };
    let mut snapshots = bench.supervisor.watch();
    let wait = async {
        while !is_new(&bench) {
            snapshots.changed().await.expect("a driver");
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("all are new");
    bench.until(&all).await;
    let snapshot = bench.supervisor.snapshot();
    let dynos = snapshot.apps[&bench.app].dynos.iter();
    let mut current = dynos.filter(|dyno| !dyno.is_stopping);
    assert!(current.all(|dyno| dyno.release.1 == ReleaseVersion(2)));
}

#[tokio::test(start_paused = true)]
async fn who_was_being_stopped_or_started_is_stopped_or_started_on() {
    let bench = Bench::new();
    bench
        .apply(1, &[("web", "idle", 1), ("worker", "stubborn", 1)])
        .await;
    bench.until(&[("web.1", Starting), ("worker.1", Up)]).await;
    bench
        .apply(1, &[("web", "idle", 1), ("worker", "stubborn", 0)])
        .await;
    bench.until(&[("web.1", Starting)]).await;
    assert_eq!(bench.fake.mark_of("worker.1"), Some(Mark::Leaving));
    assert_eq!(bench.fake.mark_of("web.1"), Some(Mark::Started));
    bench.leave().await;
    let mut bench = bench.succeed(&[]);
    bench
        .apply(1, &[("web", "idle", 1), ("worker", "stubborn", 0)])
        .await;
    bench.until(&[("web.1", Starting)]).await;
    bench
        .lines(&[
            "worker.1: Error R12 (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM",
            "worker.1: Process exited with status 137",
            "web.1: Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch",
            "web.1: Process exited with status 137",
        ])
        .await;
}

#[tokio::test]
async fn of_two_with_one_name_the_one_that_is_up_has_the_place() {
    let bench = Bench::new();
    bench.apply(1, &[("web", "serve", 1)]).await;
    bench.until(&[("web.1", Up)]).await;
    let serving = bench.ids()["web.1"];
    bench.leave().await;
    {
        // A successor that has not come up, as in the middle of a roll.
        let mut state = bench.fake.lock();
        let (record, _, output) = &state.kept[&serving];
        let mut record = record.clone();
        record.created = Timestamp::now();
        let kept = (record, Mark::Started, output.try_clone().expect("a copy"));
        let young = DynoId::new();
        state.kept.insert(young, kept);
        let flags = nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK;
        let live = Live {
            name: "successor".to_owned(),
            command: "idle".to_owned(),
            _port: None,
            output: nix::unistd::pipe2(flags).expect("a pipe").1,
        };
        state.live.insert(young, live);
    }
    let bench = bench.succeed(&[]);
    bench.apply(1, &[("web", "serve", 1)]).await;
    bench.until(&[("web.1", Up)]).await;
    assert_eq!(bench.ids()["web.1"], serving);
    assert_eq!(
        bench.signalled(),
        [("successor".to_owned(), StopSignal::Term)]
    );
}

#[tokio::test]
async fn detached_one_offs_go_on_and_others_are_not_kept() {
    let bench = Bench::new();
    bench.apply(1, &[("web", "serve", 0)]).await;
    let order = run_order(bench.app, RunKind::Detached { release: None });
    let detached = bench.supervisor.run(order, "me").await.expect("started");
    let name = detached.dyno.name.to_string();
    bench.until(&[(&name, Up)]).await;
    let release = bench.spec(1, &[("web", "serve", 0)]).release;
    let phase = run_order(bench.app, RunKind::Detached { release });
    let phase = bench.supervisor.run(phase, "me").await.expect("started");
    let phase_name = phase.dyno.name.to_string();
    bench.until(&[(&name, Up), (&phase_name, Up)]).await;
    assert_eq!(bench.fake.mark_of(&phase_name), None);
    bench.leave().await;
    bench.fake.die_alone(&phase_name);
    let mut bench = bench.succeed(&[]);
    bench.apply(1, &[("web", "serve", 0)]).await;
    bench.supervisor.settle().await;
    bench.until(&[(&name, Up)]).await;
    bench.fake.die(&name, 0);
    bench
        .lines(&[
            &format!("{name}: Process exited with status 0"),
            &format!("{name}: State changed from up to complete"),
        ])
        .await;
    bench.until(&[]).await;
}

#[tokio::test]
async fn what_belongs_to_no_app_any_more_is_stopped() {
    let bench = Bench::new();
    bench.apply(1, BOTH).await;
    bench.until(&[("web.1", Up), ("worker.1", Up)]).await;
    bench.leave().await;
    let mut bench = bench.succeed(&[]);
    bench.supervisor.settle().await;
    // In whichever order they end.
    let mut ends = BTreeSet::new();
    while ends.len() < 2 {
        let line = tokio::time::timeout(PATIENCE, bench.tail.next()).await;
        let line = line.expect("they end").expect("a line");
        if line.message == b"Process exited with status 143"[..] {
            ends.insert(line.process.clone());
        }
    }
    bench.supervisor.shutdown().await;
    let state = bench.fake.lock();
    assert!(state.live.is_empty() && state.kept.is_empty());
}

#[tokio::test]
async fn a_launch_under_way_is_finished_before_the_driver_leaves() {
    let bench = Bench::new();
    bench.apply(1, &[("worker", "work", 30)]).await;
    bench.leave().await;
    let launched = bench.fake.launches();
    assert_eq!(
        bench.fake.lock().kept.len(),
        launched,
        "none is half launched"
    );
    let bench = bench.succeed(&[]);
    bench.apply(1, &[("worker", "work", 30)]).await;
    let names: Vec<String> = (1..=30).map(|n| format!("worker.{n}")).collect();
    let expected: Vec<_> = names.iter().map(|name| (name.as_str(), Up)).collect();
    bench.until(&expected).await;
    assert_eq!(bench.fake.launches(), 30);
    assert!(bench.signalled().is_empty());
}
