//! The one owner: takes commands and events, steps dynos, carries effects out, publishes.
//!
//! Flow: command or event → [`Driver::take`] → pure step → effects → one snapshot for all that was
//! waiting → answers. An answer is sent after the snapshot that shows what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::bounds::Handle;
use super::command::Command;
use super::dyno::Dyno;
use super::lifecycle::{Effect, Input, Outcome, Phase, Stop, Timer};
use super::preboot::Roll;
use super::{
    Adopted, AppSpec, AppView, Attachment, CommandError, Exited, Failure, Launched, LaunchedStdio,
    Machine, Snapshot, StopSignal, Supervisor,
};
use crate::keeper::Mark;
use crate::logs::Hub;
use crate::model::{AppId, DynoId, DynoName, ExitStatus, ReleaseId};
use crate::network;
use crate::settings::Timings;
use crate::traffic::AppTraffic;

/// Commands that may wait; more senders wait for room.
const COMMANDS: usize = 256;

/// Launches under way at once: more would only slow each other down.
const LAUNCHES: usize = 8;

/// Commands and events handled before a snapshot is published.
const BATCH: usize = 256;

/// The status of a dyno that was killed.
const KILLED: ExitStatus = ExitStatus(137);

/// Before the driver leaves its dynos to the next supervisor, launches under way get so long.
const LAST_LAUNCHES: Duration = Duration::from_secs(10);

/// After an exit, what the pipe still holds is read for so long before the exit is logged.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Between two connects to a port that is not bound yet: doubles from the first to the last.
const PROBE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// Longest single connect.
const PROBE_CONNECT: Duration = Duration::from_secs(5);

/// What the driver's own tasks report.
pub(super) enum Event {
    Launched(DynoId, Box<Result<Launched, Failure>>),
    Bound(DynoId),
    /// It has no request any more, or has had its time for them.
    Drained(DynoId),
    /// The machine's news.
    Exited(Exited),
    /// It was killed for its memory, and what there is to say about it.
    Exceeded(DynoId, Vec<String>),
    /// The same, after its last lines were read.
    Ended(DynoId, ExitStatus),
    ClientGone(DynoId),
    TornDown(DynoId),
    /// The slug of this release lies ready.
    Prepared(AppId, ReleaseId),
}

/// What a timer is for.
pub(super) enum Alarm {
    Dyno(DynoId, Timer),
    /// A crashed place tries again.
    Retry(AppId, DynoName),
    TimeToLive(DynoId),
    /// What is still being launched is left behind.
    Leave,
    /// A dyno without a port ran for a while.
    Steady(DynoId),
    /// A canary served for a while.
    Canary(AppId, ReleaseId),
}

/// One place of a formation.
#[derive(Default)]
pub(super) struct Place {
    /// Who holds it: runs, or crashed and waits.
    pub(super) dyno: Option<DynoId>,
    pub(super) backoff: Backoff,
}

pub(super) struct App {
    pub(super) spec: Arc<AppSpec>,
    /// What the formation runs: `spec`, or what was before it while its slug is unpacked.
    pub(super) applied: Arc<AppSpec>,
    pub(super) places: BTreeMap<DynoName, Place>,
    pub(super) traffic: Arc<AppTraffic>,
    /// New web dynos that start while the old ones serve.
    pub(super) roll: Option<Roll>,
    /// A release whose dynos did not start: the one before it runs.
    pub(super) failed: Option<ReleaseId>,
    /// The last release that was on trial, and how that stands.
    pub(super) trial: Option<(ReleaseId, super::Trial)>,
    /// Answered when the last dyno is gone.
    pub(super) forgetting: Vec<super::command::Reply<()>>,
}

pub(super) struct Driver {
    pub(super) machine: Arc<dyn Machine>,
    pub(super) hub: Hub,
    pub(super) timings: Timings,
    pub(super) apps: BTreeMap<AppId, App>,
    pub(super) dynos: BTreeMap<DynoId, Dyno>,
    pub(super) alarms: BTreeMap<(Instant, u64), Alarm>,
    pub(super) alarm_count: u64,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) answers: Vec<Box<dyn FnOnce() + Send>>,
    /// Sent after the next snapshot: a dyno is out of routing before it is told to stop.
    signals: Vec<(DynoId, StopSignal)>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    launches: Arc<Semaphore>,
    pub(super) stopping: Option<Vec<oneshot::Sender<()>>>,
    /// Dynos of the supervisor before whose app was not applied yet.
    pub(super) adopted: Vec<Adopted>,
    /// Answered when nothing is being launched any more and all is left to the next supervisor.
    pub(super) leaving: Option<oneshot::Sender<()>>,
    /// It has waited long enough for that.
    is_late: bool,
    /// Until then outputs are read.
    pub(super) reading: CancellationToken,
    touched: BTreeSet<AppId>,
}

impl Supervisor {
    /// Starts the driver over a machine whose exits arrive on `exits`.
    pub fn start(
        machine: Arc<dyn Machine>,
        exits: mpsc::UnboundedReceiver<Exited>,
        hub: Hub,
        timings: Timings,
    ) -> Self {
        Self::start_with(machine, exits, hub, timings, Vec::new())
    }

    /// As [`Self::start`], with dynos of the supervisor before.
    pub fn start_with(
        machine: Arc<dyn Machine>,
        mut exits: mpsc::UnboundedReceiver<Exited>,
        hub: Hub,
        timings: Timings,
        adopted: Vec<Adopted>,
    ) -> Self {
        let (commands, orders) = mpsc::channel(COMMANDS);
        let (events, news) = mpsc::unbounded_channel();
        let (snapshots, receiver) = watch::channel(Arc::default());
        let handle = Handle(Arc::clone(&machine));
        let driver = Driver {
            machine,
            hub,
            timings,
            apps: BTreeMap::new(),
            dynos: BTreeMap::new(),
            alarms: BTreeMap::new(),
            alarm_count: 0,
            events: events.clone(),
            answers: Vec::new(),
            signals: Vec::new(),
            snapshots,
            launches: Arc::new(Semaphore::new(LAUNCHES)),
            stopping: None,
            adopted,
            leaving: None,
            is_late: false,
            reading: CancellationToken::new(),
            touched: BTreeSet::new(),
        };
        tokio::spawn(async move {
            while let Some(exited) = exits.recv().await {
                if events.send(Event::Exited(exited)).is_err() {
                    break;
                }
            }
        });
        let driver = tokio::spawn(driver.run(orders, news));
        tokio::spawn(async move {
            // Nobody else may go on with a state that nobody owns.
            if driver.await.is_err_and(|error| error.is_panic()) {
                tracing::error!("the driver panicked; aborting");
                std::process::abort();
            }
        });
        Self {
            commands,
            snapshots: receiver,
            machine: handle,
            usages: Arc::default(),
        }
    }
}

impl Driver {
    async fn run(
        mut self,
        mut orders: mpsc::Receiver<Command>,
        mut news: mpsc::UnboundedReceiver<Event>,
    ) {
        loop {
            let alarm = self.alarms.first_key_value().map(|((at, _), _)| *at);
            let timer = async {
                match alarm {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(event) = news.recv() => self.event(event),
                Some(order) = orders.recv() => self.command(order),
                () = timer => {}
            }
            for _ in 0..BATCH {
                if let Ok(event) = news.try_recv() {
                    self.event(event);
                } else if let Ok(order) = orders.try_recv() {
                    self.command(order);
                } else {
                    break;
                }
            }
            self.ring();
            self.forgotten();
            self.publish();
            if let Some(waiting) = self.stopping.take() {
                if self.dynos.is_empty() {
                    for done in waiting {
                        let _ = done.send(());
                    }
                    return;
                }
                self.stopping = Some(waiting);
            }
            let is_launching = |dyno: &Dyno| matches!(dyno.life.phase, Phase::Launching { .. });
            if let Some(done) = self.leaving.take() {
                if self.is_late || !self.dynos.values().any(is_launching) {
                    self.stop_pumps().await;
                    // Who asked may be gone.
                    let _ = done.send(());
                    return;
                }
                self.leaving = Some(done);
            }
        }
    }

    fn command(&mut self, command: Command) {
        let is_ending = self.stopping.is_some() || self.leaving.is_some();
        if is_ending && !matches!(command, Command::Shutdown(_) | Command::Resize(..)) {
            // Dropping the reply says so.
            return;
        }
        match command {
            Command::Apply(spec, reply) => {
                self.apply(spec);
                self.answer(reply, Ok(()));
            }
            Command::Restart(app, which, reply) => {
                let result = self.restart(app, &which);
                self.answer(reply, result);
            }
            Command::Stop(app, which, reply) => {
                let result = self.stop(app, &which);
                self.answer(reply, result);
            }
            Command::Run(order, user, reply) => self.run_one_off(order, &user, reply),
            Command::Attach(dyno, reply) => self.attach(dyno, reply),
            Command::Resize(dyno, size) => {
                if self.dynos.contains_key(&dyno) {
                    self.machine.resize(dyno, size);
                }
            }
            Command::Forget(app, reply) => self.forget(app, reply),
            Command::Exceed(dyno, lines) => self.step(dyno, &Input::Exceeded(lines)),
            Command::Sketch(app, process, reply) => self.sketch(app, process, reply),
            Command::Settle => self.settle_adopted(),
            Command::Leave(done) => {
                self.leaving = Some(done);
                self.arm(LAST_LAUNCHES, Alarm::Leave);
            }
            Command::Shutdown(done) => {
                self.stopping.get_or_insert_default().push(done);
                self.settle_adopted();
                let ids: Vec<DynoId> = self.dynos.keys().copied().collect();
                for id in ids {
                    self.step(id, &Input::Stop(Stop::Down));
                }
                // Crashed places have no process to wait for.
                for app in self.apps.keys().copied().collect::<Vec<_>>() {
                    self.clear(app);
                }
            }
        }
    }

    /// Sends an answer after the next snapshot.
    pub(super) fn answer<T: Send + 'static>(
        &mut self,
        reply: super::command::Reply<T>,
        result: Result<T, CommandError>,
    ) {
        later(&mut self.answers, reply, result);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Launched(id, result) => self.launched(id, *result),
            Event::Bound(id) => {
                self.step(id, &Input::Bound);
                self.successor_up(id);
            }
            Event::Drained(id) => self.step(id, &Input::Drained),
            Event::Exited(exited) => self.exited(exited),
            Event::Exceeded(id, lines) => self.step(id, &Input::Exceeded(lines)),
            Event::Ended(id, status) => {
                if let Some(dyno) = self.dynos.get_mut(&id) {
                    dyno.status = Some(status);
                }
                self.step(id, &Input::Exited(status));
            }
            Event::ClientGone(id) => self.step(id, &Input::ClientGone),
            Event::TornDown(id) => {
                if let Some(dyno) = self.dynos.remove(&id) {
                    self.touched.insert(dyno.app);
                    self.predecessor_gone(dyno.app, id);
                }
            }
            Event::Prepared(app, release) => self.prepared(app, release),
        }
    }

    fn launched(&mut self, id: DynoId, result: Result<Launched, Failure>) {
        let Some(dyno) = self.dynos.get_mut(&id) else {
            return;
        };
        let launched = match result {
            Ok(launched) => launched,
            Err(failure) => {
                tracing::error!(dyno = %dyno.name, id = %id, %failure, "dyno not launched");
                let refused = CommandError::Launch(failure.to_string());
                let checksum = failure.checksum;
                dyno.failure = Some(Arc::new(failure));
                let (attaching, starting) = (dyno.attaching.take(), dyno.starting.take());
                if let Some(reply) = attaching {
                    self.answer(reply, Err(refused.clone()));
                }
                if let Some(reply) = starting {
                    self.answer(reply, Err(refused));
                }
                self.step(id, &Input::NotLaunched { checksum });
                return;
            }
        };
        let took_us = u64::try_from(launched.took.as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(dyno = %dyno.name, id = %id, pid = launched.pid, took_us, "dyno launched");
        dyno.backend = launched.backend;
        if let Some(reply) = dyno.attaching.take() {
            let (connection, gone) = oneshot::channel::<()>();
            let (sender, exit) = oneshot::channel();
            dyno.exits.push(sender);
            let attachment = Attachment {
                stdio: launched.stdio,
                exit,
                connection,
            };
            let events = self.events.clone();
            tokio::spawn(async move {
                // Resolves when the sender is dropped.
                let _ = gone.await;
                let _ = events.send(Event::ClientGone(id));
            });
            later(&mut self.answers, reply, Ok(attachment));
        } else if let Some(reply) = dyno.starting.take() {
            let started = dyno.begun(Some(launched.stdio));
            later(&mut self.answers, reply, Ok(started));
        } else if let LaunchedStdio::Logged(output) = launched.stdio {
            if dyno.is_kept {
                let mark = if dyno.life.is_stopping() {
                    Mark::Leaving
                } else {
                    Mark::Started
                };
                self.machine.keep(id, &dyno.record(), mark, output.as_fd());
            }
            dyno.pump(&self.hub, output, &self.reading);
        }
        let early = dyno.early_exit.take();
        if let Some(after) = dyno.time_to_live {
            self.arm(after, Alarm::TimeToLive(id));
        }
        self.step(id, &Input::Launched);
        self.successor_launched(id);
        if let Some(status) = early {
            self.read_out(id, status);
        }
    }

    pub(super) fn exited(&mut self, exited: Exited) {
        let Some(dyno) = self.dynos.get_mut(&exited.id) else {
            let mut adopted = self.adopted.iter_mut();
            match adopted.find(|adopted| adopted.id == exited.id) {
                Some(adopted) => adopted.ended = Some(exited.status),
                // Its launch was given up.
                None => self.machine.forget(exited.id),
            }
            return;
        };
        if matches!(dyno.life.phase, Phase::Launching { .. }) {
            dyno.early_exit = Some(exited.status);
        } else {
            self.read_out(exited.id, exited.status);
        }
    }

    /// Waits for the last lines, so that they stand before the exit; a kill by the kernel for
    /// memory stands between.
    fn read_out(&mut self, id: DynoId, status: ExitStatus) {
        let pump = self.dynos.get_mut(&id).and_then(|dyno| dyno.pump.take());
        let events = self.events.clone();
        let is_starved = self.machine.glance(id).is_some_and(|g| g.oom_kills > 0);
        let is_killed = status == KILLED && is_starved;
        if let (true, Some(dyno)) = (is_starved, self.dynos.get(&id)) {
            dyno.starve();
        }
        if pump.is_none() && !is_killed {
            let _ = events.send(Event::Ended(id, status));
            return;
        }
        let machine = Arc::clone(&self.machine);
        tokio::spawn(async move {
            if let Some(mut pump) = pump {
                // Every process is dead: only what the pipe holds is still to come.
                if tokio::time::timeout(LAST_LINES, &mut pump).await.is_err() {
                    pump.abort();
                }
            }
            if is_killed {
                let lines = machine.autopsy(id).await;
                let _ = events.send(Event::Exceeded(id, lines));
            }
            let _ = events.send(Event::Ended(id, status));
        });
    }

    /// One input of one dyno.
    pub(super) fn step(&mut self, id: DynoId, input: &Input) {
        let Some(dyno) = self.dynos.get_mut(&id) else {
            return;
        };
        let before = dyno.life;
        if matches!(input, Input::Exceeded(_)) {
            dyno.starve();
        }
        let effects = dyno.life.step(input, &self.timings);
        if dyno.life.state != before.state {
            dyno.since = Timestamp::now();
        }
        if dyno.is_kept && dyno.life.phase != before.phase {
            match dyno.life.phase {
                Phase::Up => self.machine.mark(id, Mark::Up),
                Phase::Draining(_) | Phase::Stopping { .. } if !before.is_stopping() => {
                    self.machine.mark(id, Mark::Leaving);
                }
                _ => {}
            }
        }
        let app = dyno.app;
        self.touched.insert(app);
        for effect in effects {
            self.carry_out(id, effect);
        }
    }

    pub(super) fn carry_out(&mut self, id: DynoId, effect: Effect) {
        let Some(dyno) = self.dynos.get_mut(&id) else {
            return;
        };
        match effect {
            Effect::Log(text) => {
                if !dyno.is_build {
                    let name = dyno.name.to_string();
                    self.hub.platform(dyno.app, &name, text);
                }
            }
            Effect::Launch => self.launch(id),
            Effect::Probe => {
                if let Some(port) = dyno.port {
                    let task = probe(id, dyno.backend.clone(), port, self.events.clone());
                    let deadline = self.timings.boot_timeout;
                    tokio::spawn(tokio::time::timeout(deadline, task));
                }
            }
            Effect::Drain(limit) => {
                let (traffic, events) = (Arc::clone(&dyno.traffic), self.events.clone());
                // At once, before any table hears of it: who is counted in now was let in before.
                traffic.gate.close();
                if traffic.gate.in_flight() == 0 {
                    return self.step(id, &Input::Drained);
                }
                tokio::spawn(async move {
                    // At the limit SIGTERM comes all the same: the app may still finish them.
                    let _ = tokio::time::timeout(limit, traffic.gate.emptied()).await;
                    let _ = events.send(Event::Drained(id));
                });
            }
            Effect::Signal(signal) => self.signals.push((id, signal)),
            Effect::Arm(timer, after) => self.arm(after, Alarm::Dyno(id, timer)),
            Effect::Settle(outcome) => self.settle(id, outcome),
        }
    }

    /// Asks the machine; the answer comes back as an event.
    pub(super) fn launch(&mut self, id: DynoId) {
        let Some(dyno) = self.dynos.get_mut(&id) else {
            return;
        };
        dyno.launched_at = std::time::Instant::now();
        if !dyno.is_build {
            let line = format!("Starting process with command `{}`", dyno.shown);
            self.hub.platform(dyno.app, &dyno.name.to_string(), line);
        }
        let (machine, order) = (Arc::clone(&self.machine), dyno.ordered());
        let (events, launches) = (self.events.clone(), Arc::clone(&self.launches));
        tokio::spawn(async move {
            // The semaphore is never closed.
            let _place = launches.acquire().await;
            let result = machine.launch(order).await;
            let _ = events.send(Event::Launched(id, Box::new(result)));
        });
    }

    fn settle(&mut self, id: DynoId, outcome: Outcome) {
        let Some(dyno) = self.dynos.get_mut(&id) else {
            return;
        };
        let (app, name) = (dyno.app, dyno.name.clone());
        let lived = dyno.launched_at.elapsed();
        self.machine.forget(id);
        // A refused connection is no fault of anybody's then.
        dyno.traffic.gate.close();
        if let Some(reply) = dyno.attaching.take() {
            let gone = CommandError::UnknownDyno(name.to_string());
            self.answer(reply, Err(gone));
        }
        let place = self
            .apps
            .get_mut(&app)
            .and_then(|a| a.places.get_mut(&name));
        let place = place.filter(|place| place.dyno == Some(id));
        match (outcome, place) {
            (Outcome::Crashed, Some(place)) if self.stopping.is_none() => {
                let wait = place.backoff.crashed(lived);
                self.free(id);
                self.arm(wait, Alarm::Retry(app, name));
            }
            _ => self.tear_down(id),
        }
        if outcome == Outcome::Crashed {
            self.successor_failed(app, id);
        }
    }

    /// Frees what a crashed dyno held, keeping its entry for `ps`.
    fn free(&mut self, id: DynoId) {
        let machine = Arc::clone(&self.machine);
        tokio::spawn(async move { machine.teardown(id).await });
    }

    /// Frees and forgets.
    pub(super) fn tear_down(&mut self, id: DynoId) {
        if let Some(dyno) = self.dynos.get_mut(&id) {
            dyno.tell_end();
        }
        let (machine, events) = (Arc::clone(&self.machine), self.events.clone());
        tokio::spawn(async move {
            machine.teardown(id).await;
            let _ = events.send(Event::TornDown(id));
        });
    }

    pub(super) fn arm(&mut self, after: Duration, alarm: Alarm) {
        self.alarm_count += 1;
        let key = (Instant::now() + after, self.alarm_count);
        self.alarms.insert(key, alarm);
    }

    /// Takes every alarm that is due. Alarms of dynos that went on are ignored by their phase.
    fn ring(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.alarms.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let alarm = entry.remove();
            // What is due now is the next supervisor's to do.
            if self.leaving.is_some() && !matches!(alarm, Alarm::Leave) {
                continue;
            }
            match alarm {
                Alarm::Leave => self.is_late = true,
                Alarm::Dyno(id, timer) => self.step(id, &Input::Fired(timer)),
                Alarm::TimeToLive(id) => self.step(id, &Input::Stop(Stop::Plain)),
                Alarm::Retry(app, name) => self.retry(app, &name),
                Alarm::Steady(id) => self.successor_up(id),
                Alarm::Canary(app, release) => self.canary_stayed(app, release),
            }
        }
    }

    pub(super) fn touch(&mut self, app: AppId) {
        self.touched.insert(app);
    }

    /// Rebuilds the views of the apps that changed; the others are shared with the last snapshot.
    fn publish(&mut self) {
        if !self.touched.is_empty() {
            let mut snapshot = Snapshot::clone(&self.snapshots.borrow());
            let touched = std::mem::take(&mut self.touched);
            let mut dynos: BTreeMap<AppId, Vec<_>> = BTreeMap::new();
            for dyno in self.dynos.values_mut().filter(|d| touched.contains(&d.app)) {
                let is_over = dyno.life.phase == Phase::Ended
                    && dyno.life.state != crate::model::DynoState::Crashed;
                if !is_over {
                    dynos.entry(dyno.app).or_default().push(dyno.view());
                }
            }
            for id in touched {
                let mut views = dynos.remove(&id).unwrap_or_default();
                views.sort_by(|a, b| (&a.name, a.created).cmp(&(&b.name, b.created)));
                match self.apps.get(&id) {
                    Some(app) => {
                        let view = AppView {
                            spec: Arc::clone(&app.spec),
                            dynos: views,
                            traffic: Arc::clone(&app.traffic),
                            trial: app.trial.clone(),
                        };
                        snapshot.apps.insert(id, Arc::new(view));
                    }
                    None => {
                        snapshot.apps.remove(&id);
                    }
                }
            }
            self.snapshots.send_replace(Arc::new(snapshot));
        }
        for (id, signal) in self.signals.drain(..) {
            self.machine.signal(id, signal);
        }
        for answer in self.answers.drain(..) {
            answer();
        }
    }
}

fn later<T: Send + 'static>(
    answers: &mut Vec<Box<dyn FnOnce() + Send>>,
    reply: super::command::Reply<T>,
    result: Result<T, CommandError>,
) {
    answers.push(Box::new(move || {
        // The caller stopped waiting: what was asked for is done all the same.
        let _ = reply.send(result);
    }));
}

/// Connects until it is bound; the driver's deadline ends it.
async fn probe(
    id: DynoId,
    backend: super::Backend,
    port: u16,
    events: mpsc::UnboundedSender<Event>,
) {
    use std::os::fd::AsFd as _;
    let mut pause = PROBE.0;
    loop {
        let netns = backend.netns.as_ref().map(|fd| fd.as_fd());
        if network::connect(netns, port, PROBE_CONNECT).await.is_ok() {
            let _ = events.send(Event::Bound(id));
            return;
        }
        // Nothing announces that a socket listens.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PROBE.1);
    }
}
