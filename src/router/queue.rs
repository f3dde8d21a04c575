//! One app's requests before they have a dyno: at once, or first come, first served.
//!
//! A request that gets a dyno holds a [`Seat`]; its end is counted out whatever becomes of it. A
//! request that must wait stands in one line per app, whatever it waits for: a dyno that starts
//! (H20 at the hold limit), one that has room (H12 at the request limit), one that accepts
//! connections again (H99 at the hold limit). Overflow: H11. One short lock per app is held for
//! the choice; leaving takes none while nobody waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep_until};

use super::affinity::Mark;
use super::failure::Failure;
use super::headers::Crowd;
use super::policy::{self, Health, Rule};
use super::table::{self, DynoRoute, Mode};
use crate::model::RoutingPolicy;
use crate::settings::Timings;
use crate::traffic::AppTraffic;

/// Requests of one app at once, waiting ones included, per web dyno (H11).
/// Source: Dev Center, "Heroku Error Codes", H11.
const BACKLOG_PER_DYNO: usize = 200;

/// The same with the global queue. Source: Dev Center, "HTTP Routing on Bamboo", backlog.
const BACKLOG_PER_DYNO_BAMBOO: usize = 50;

/// What a new table says about an app.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) mode: Mode,
    pub(super) rule: Rule,
    /// Those that may get requests.
    pub(super) dynos: Vec<Arc<DynoRoute>>,
    /// Web dynos in any state: they bound the backlog.
    pub(super) dyno_count: usize,
}

/// One app's line; shared by all generations of the table.
#[derive(Debug)]
pub(super) struct Queue {
    line: Mutex<Line>,
    /// How many wait; written under the lock, looked at without it.
    depth: AtomicUsize,
    traffic: Arc<AppTraffic>,
}

#[derive(Debug)]
struct Line {
    state: State,
    waiting: VecDeque<Ticket>,
    tickets: u64,
    /// Round-robin's next.
    turn: usize,
    /// Since when there is a dyno at all.
    ready: Instant,
}

/// A place in the line.
#[derive(Debug)]
struct Ticket {
    number: u64,
    since: Instant,
    /// The dyno it belongs to.
    mark: Option<Mark>,
    answer: oneshot::Sender<Result<Seat, Failure>>,
}

/// A dyno that serves one request. Dropped when the request is over.
#[derive(Debug)]
pub(super) struct Seat {
    queue: Arc<Queue>,
    pub(super) dyno: Arc<DynoRoute>,
    pub(super) waited: Duration,
    /// Told to the dyno by the global queue.
    pub(super) crowd: Option<Crowd>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.dyno.leave();
        // The count above, then this look; a request that joins the line does both the other way
        // round. So one of the two sees the other, and nobody waits beside a free dyno.
        if self.queue.depth.load(Ordering::SeqCst) > 0 {
            self.queue.serve();
        }
    }
}

/// A seat, or a place in the line.
#[derive(Debug)]
pub(super) enum Entered {
    Seat(Seat),
    Waiting(Waiting),
}

impl Queue {
    pub(super) fn new(state: State, traffic: Arc<AppTraffic>) -> Self {
        Self {
            line: Mutex::new(Line {
                state,
                waiting: VecDeque::new(),
                tickets: 0,
                turn: 0,
                ready: Instant::now(),
            }),
            depth: AtomicUsize::new(0),
            traffic,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_depth(&self, line: &Line) {
        let depth = line.waiting.len();
        self.depth.store(depth, Ordering::SeqCst);
        self.traffic.waiting.store(depth, Ordering::Relaxed);
    }

    /// A request comes. `since`: when it came; `is_again`: it had a seat, and its dyno refused it,
    /// so it goes to the front and past the bound; `mark`: the dyno it belongs to, if that still
    /// takes requests.
    ///
    /// # Errors
    /// Nothing to wait for, or H11.
    pub(super) fn enter(
        self: &Arc<Self>,
        since: Instant,
        is_again: bool,
        mark: Option<Mark>,
    ) -> Result<Entered, Failure> {
        let mut line = self.lock();
        if let Some(failure) = line.state.mode.failure() {
            return Err(failure);
        }
        if !is_again && line.is_full() {
            return Err(Failure::BACKLOG);
        }
        if (is_again || !line.has_rival(mark))
            && let Some(seat) = line.seat(self, is_again.then_some(since), mark)
        {
            return Ok(Entered::Seat(seat));
        }
        let (answer, receiver) = oneshot::channel();
        line.tickets += 1;
        let number = line.tickets;
        let ticket = Ticket {
            number,
            since,
            mark,
            answer,
        };
        if is_again {
            line.waiting.push_front(ticket);
        } else {
            line.waiting.push_back(ticket);
        }
        self.set_depth(&line);
        drop(line);
        let waiting = Waiting {
            queue: Arc::clone(self),
            number,
            since,
            receiver,
            is_answered: false,
        };
        // See `Seat::drop`: a dyno may have become free just before we stood in line.
        self.serve();
        Ok(Entered::Waiting(waiting))
    }

    /// Gives free dynos to those who wait, the longest waiting first.
    fn serve(self: &Arc<Self>) {
        loop {
            let mut line = self.lock();
            let Some((ticket, seat)) = line.next(self) else {
                return;
            };
            self.set_depth(&line);
            drop(line);
            // Outside of the lock: a request that left this very moment gives its seat back.
            drop(ticket.answer.send(Ok(seat)));
        }
    }

    /// Takes the news of a table.
    pub(super) fn update(self: &Arc<Self>, state: State) {
        let mut line = self.lock();
        if line.state.dynos.is_empty() && !state.dynos.is_empty() {
            line.ready = Instant::now();
        }
        line.turn %= state.dynos.len().max(1);
        line.state = state;
        let refused = match line.state.mode.failure() {
            None => None,
            Some(failure) => Some((failure, std::mem::take(&mut line.waiting))),
        };
        self.set_depth(&line);
        drop(line);
        match refused {
            None => self.serve(),
            Some((failure, tickets)) => {
                for ticket in tickets {
                    // One that left is answered by nobody.
                    let _ = ticket.answer.send(Err(failure));
                }
            }
        }
    }

    /// The app is gone.
    pub(super) fn close(self: &Arc<Self>) {
        self.update(State {
            mode: Mode::NoWeb,
            rule: Rule::default(),
            dynos: Vec::new(),
            dyno_count: 0,
        });
    }

    /// True if every dyno is closed to requests, and there is one.
    pub(super) fn is_shut(&self) -> bool {
        table::are_closed(&self.lock().state.dynos)
    }

    /// How many dynos may get requests.
    pub(super) fn dyno_count(&self) -> usize {
        self.lock().state.dynos.len()
    }

    /// True while this dyno may get requests.
    pub(super) fn has(&self, dyno: &DynoRoute) -> bool {
        !dyno.is_leaving() && self.lock().state.dynos.iter().any(|d| d.id == dyno.id)
    }
}

impl Line {
    fn is_full(&self) -> bool {
        let per_dyno = match self.state.rule.policy {
            RoutingPolicy::GlobalQueue => BACKLOG_PER_DYNO_BAMBOO,
            _ => BACKLOG_PER_DYNO,
        };
        let most = per_dyno * self.state.dyno_count.max(1);
        let in_flight = self.state.dynos.iter().map(|d| d.in_flight() as usize);
        self.waiting.len() + in_flight.sum::<usize>() >= most
    }

    /// The place of the dyno with this mark, if it takes requests: it may be at its limit.
    fn place(&self, mark: Option<Mark>) -> Option<usize> {
        let mark = mark?;
        let is_it = |dyno: &Arc<DynoRoute>| dyno.mark == mark;
        let place = self.state.dynos.iter().position(is_it)?;
        (self.state.dynos[place].load().health != Health::Closed).then_some(place)
    }

    /// True if somebody waits who would take what a request with this mark takes.
    fn has_rival(&self, mark: Option<Mark>) -> bool {
        let own = self.place(mark);
        let mut others = self.waiting.iter().map(|ticket| self.place(ticket.mark));
        others.any(|place| place.is_none() || place == own)
    }

    /// The first in the line who can be seated, and the seat.
    fn next(&mut self, queue: &Arc<Queue>) -> Option<(Ticket, Seat)> {
        for at in 0..self.waiting.len() {
            let (since, mark) = (self.waiting[at].since, self.waiting[at].mark);
            if let Some(seat) = self.seat(queue, Some(since), mark) {
                return Some((self.waiting.remove(at)?, seat));
            }
            // Who waits for one dyno is in nobody's way; who would take any means that none is free.
            self.place(mark)?;
        }
        None
    }

    /// Chooses a dyno and counts the request in. `since`: when it came, if it waited.
    fn seat(
        &mut self,
        queue: &Arc<Queue>,
        since: Option<Instant>,
        mark: Option<Mark>,
    ) -> Option<Seat> {
        loop {
            let place = self.place(mark);
            let dynos = &self.state.dynos;
            let rule = self.state.rule;
            let index = if let Some(place) = place {
                policy::has_room(rule, dynos[place].load()).then_some(place)?
            } else {
                let loads = dynos.iter().map(|dyno| dyno.load());
                let draw = |count| rand::random_range(0..count);
                policy::choose(rule, loads, &mut self.turn, draw)?
            };
            let dyno = &dynos[index];
            // A dyno that leaves this very moment is closed at the next look.
            if !dyno.enter() {
                continue;
            }
            let is_bamboo = self.state.rule.policy == RoutingPolicy::GlobalQueue;
            return Some(Seat {
                queue: Arc::clone(queue),
                dyno: Arc::clone(dyno),
                waited: since.map(|at| at.elapsed()).unwrap_or_default(),
                crowd: is_bamboo.then(|| Crowd {
                    dynos_in_use: dynos.iter().filter(|d| d.in_flight() > 0).count(),
                    // The one that is seated stands in the line until it is taken out.
                    depth: self.waiting.len().saturating_sub(1),
                }),
            });
        }
    }
}

/// A request in the line. Dropped when its client leaves: then it is in the line no more.
#[derive(Debug)]
pub(super) struct Waiting {
    queue: Arc<Queue>,
    number: u64,
    since: Instant,
    receiver: oneshot::Receiver<Result<Seat, Failure>>,
    is_answered: bool,
}

/// When to look again, and what it is if nothing has changed by then.
struct Outlook {
    deadline: Instant,
    failure: Failure,
    /// The first dyno that takes requests again without anybody saying so.
    reopens: Option<Instant>,
}

impl Waiting {
    /// Waits for a seat.
    ///
    /// # Errors
    /// Nothing to wait for any more, or H12, H20, H99 in time.
    pub(super) async fn end(mut self, timings: Timings) -> Result<Seat, Failure> {
        loop {
            let outlook = self.outlook(timings);
            let is_late = Instant::now() >= outlook.deadline;
            let reopens = outlook.reopens.unwrap_or(outlook.deadline);
            tokio::select! {
                biased;
                answer = &mut self.receiver => {
                    self.is_answered = true;
                    // Every ticket that leaves the line is answered.
                    return answer.unwrap_or(Err(Failure::PLATFORM));
                }
                // A seat that has just been given counts, however late.
                () = std::future::ready(()), if is_late => return Err(outlook.failure),
                () = sleep_until(reopens.min(outlook.deadline)) => self.queue.serve(),
            }
        }
    }

    fn outlook(&self, timings: Timings) -> Outlook {
        let line = self.queue.lock();
        let hold = self.since + timings.hold_timeout;
        let dynos = &line.state.dynos;
        let (deadline, failure) = if dynos.is_empty() {
            (hold, Failure::BOOT_TIMEOUT)
        } else if table::are_closed(dynos) {
            (hold, Failure::PLATFORM)
        } else {
            // Who waited for a boot has not waited for a busy dyno yet.
            let busy = self.since.max(line.ready) + timings.request_timeout;
            (busy.min(hold), Failure::TIMEOUT)
        };
        Outlook {
            deadline,
            failure,
            reopens: dynos.iter().filter_map(|dyno| dyno.reopens()).min(),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let mut line = self.queue.lock();
        let at = line.waiting.iter().position(|t| t.number == self.number);
        if let Some(at) = at {
            line.waiting.remove(at);
            self.queue.set_depth(&line);
        }
        // A seat that was sent meanwhile is dropped with the receiver, after the lock.
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::model::DynoId;
    use crate::supervisor::Backend;

    fn dyno() -> Arc<DynoRoute> {
        let (backend, traffic) = (Backend::default(), Arc::default());
        let route = DynoRoute::new(DynoId::new(), "web.1".to_owned(), 1, backend, traffic);
        Arc::new(route)
    }

    fn state(policy: RoutingPolicy, limit: u32, dynos: &[Arc<DynoRoute>]) -> State {
        State {
            mode: if dynos.is_empty() {
                Mode::Wait
            } else {
                Mode::Ready
            },
            rule: Rule {
                policy,
                limit: NonZeroU32::new(limit),
            },
            dynos: dynos.to_vec(),
            dyno_count: dynos.len(),
        }
    }

    fn queue(policy: RoutingPolicy, limit: u32, dynos: &[Arc<DynoRoute>]) -> Arc<Queue> {
        Arc::new(Queue::new(state(policy, limit, dynos), Arc::default()))
    }

    #[track_caller]
    fn seat(queue: &Arc<Queue>) -> Seat {
        match queue.enter(Instant::now(), false, None).expect("let in") {
            Entered::Seat(seat) => seat,
            Entered::Waiting(_) => panic!("it must wait"),
        }
    }

    #[track_caller]
    fn waiting(queue: &Arc<Queue>) -> Waiting {
        match queue.enter(Instant::now(), false, None).expect("let in") {
            Entered::Waiting(waiting) => waiting,
            Entered::Seat(seat) => panic!("it got {seat:?}"),
        }
    }

    const LEAST: RoutingPolicy = RoutingPolicy::LeastInFlight;

    fn with_mark(queue: &Arc<Queue>, dyno: &DynoRoute) -> Entered {
        let entered = queue.enter(Instant::now(), false, Some(dyno.mark));
        entered.expect("let in")
    }

    #[tokio::test]
    async fn who_belongs_to_a_dyno_waits_for_that_and_for_no_other() {
        let (own, other) = (dyno(), dyno());
        let queue = queue(LEAST, 1, &[Arc::clone(&own), Arc::clone(&other)]);
        let Entered::Seat(first) = with_mark(&queue, &own) else {
            panic!("its dyno is free");
        };
        assert_eq!(first.dyno.id, own.id);
        let Entered::Waiting(next) = with_mark(&queue, &own) else {
            panic!("its dyno is busy");
        };
        // It is in nobody's way meanwhile.
        let stranger = seat(&queue);
        assert_eq!(stranger.dyno.id, other.id);
        let anyone = waiting(&queue);
        drop(first);
        let next = next.end(Timings::default()).await.expect("a seat");
        assert_eq!(next.dyno.id, own.id);
        drop(stranger);
        let anyone = anyone.end(Timings::default()).await.expect("a seat");
        assert_eq!(anyone.dyno.id, other.id);
        // A dyno that is gone, or refuses connections, is replaced.
        let Entered::Waiting(left) = with_mark(&queue, &own) else {
            panic!("its dyno is busy");
        };
        queue.update(state(LEAST, 1, &[Arc::clone(&other)]));
        drop(anyone);
        let left = left.end(Timings::default()).await.expect("a seat");
        assert_eq!(left.dyno.id, other.id);
        drop(left);
        queue.update(state(LEAST, 1, &[Arc::clone(&own), Arc::clone(&other)]));
        drop(next);
        own.quarantine(true);
        let Entered::Seat(moved) = with_mark(&queue, &own) else {
            panic!("another dyno is free");
        };
        assert_eq!(moved.dyno.id, other.id);
    }

    #[tokio::test]
    async fn who_came_first_is_served_first_and_the_depth_is_exact() {
        let queue = queue(LEAST, 1, &[dyno(), dyno()]);
        let (first, second) = (seat(&queue), seat(&queue));
        assert_ne!(first.dyno.id, second.dyno.id);
        let mut line = VecDeque::from([waiting(&queue), waiting(&queue), waiting(&queue)]);
        assert_eq!(queue.traffic.waiting(), 3);
        let mut freed = first;
        while let Some(next) = line.pop_front() {
            let id = freed.dyno.id;
            drop(freed);
            freed = next.end(Timings::default()).await.expect("a seat");
            assert_eq!(freed.dyno.id, id);
            assert_eq!(queue.traffic.waiting(), line.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_line_is_in_nobodys_way() {
        let queue = queue(LEAST, 1, &[dyno()]);
        let first = seat(&queue);
        let (gone, stays) = (waiting(&queue), waiting(&queue));
        drop(gone);
        assert_eq!(queue.traffic.waiting(), 1);
        tokio::time::advance(Duration::from_millis(70)).await;
        drop(first);
        let next = stays.end(Timings::default()).await.expect("a seat");
        assert_eq!(next.waited, Duration::from_millis(70));
        // A seat that was given to one who leaves at that moment is not lost.
        let last = waiting(&queue);
        drop(next);
        assert_eq!(queue.traffic.waiting(), 0);
        drop(last);
        drop(seat(&queue));
    }

    #[tokio::test(start_paused = true)]
    async fn every_wait_ends_with_the_code_of_its_reason() {
        let timings = Timings::default();
        let one = dyno();
        let busy = queue(LEAST, 1, &[Arc::clone(&one)]);
        let held = seat(&busy);
        let start = Instant::now();
        let ended = waiting(&busy).end(timings).await;
        assert_eq!(ended.expect_err("no seat"), Failure::TIMEOUT);
        assert_eq!(start.elapsed().as_secs(), 30);
        drop(held);
        one.quarantine(true);
        // It is over long before the limit, and nobody has to say so.
        let start = Instant::now();
        drop(waiting(&busy).end(timings).await.expect("a seat"));
        assert_eq!(start.elapsed().as_secs(), 5);
        let empty = queue(LEAST, 1, &[]);
        let start = Instant::now();
        let ended = waiting(&empty).end(timings).await;
        assert_eq!(ended.expect_err("no seat"), Failure::BOOT_TIMEOUT);
        assert_eq!(start.elapsed().as_secs(), 75);
        let wait = waiting(&empty);
        empty.close();
        assert_eq!(wait.end(timings).await.expect_err("gone"), Failure::NO_WEB);
        let refused = empty.enter(Instant::now(), false, None);
        assert_eq!(refused.expect_err("closed"), Failure::NO_WEB);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dyno_that_comes_up_serves_the_line() {
        let queue = queue(LEAST, 2, &[]);
        let line = [waiting(&queue), waiting(&queue), waiting(&queue)];
        queue.update(state(LEAST, 2, &[dyno()]));
        assert_eq!(queue.traffic.waiting(), 1);
        let mut seats = Vec::new();
        for wait in line {
            seats.push(wait.end(Timings::default()).await);
            seats.truncate(1);
        }
        assert!(seats.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn a_dyno_that_leaves_gets_nobody_and_is_empty_in_the_end() {
        let (old, new) = (dyno(), dyno());
        let queue = queue(LEAST, 0, &[Arc::clone(&old)]);
        let held = seat(&queue);
        old.traffic.gate.close();
        let wait = waiting(&queue);
        queue.update(state(LEAST, 0, &[Arc::clone(&new)]));
        let next = wait.end(Timings::default()).await.expect("a seat");
        assert_eq!(next.dyno.id, new.id);
        assert_eq!(old.in_flight(), 1);
        drop(held);
        old.traffic.gate.emptied().await;
    }

    #[tokio::test]
    async fn the_backlog_is_bounded_by_policy() {
        for (policy, limit, most) in [
            (RoutingPolicy::GlobalQueue, 1, 50),
            (LEAST, 1, 200),
            (LEAST, 0, 200),
            (RoutingPolicy::Random, 0, 200),
        ] {
            let queue = queue(policy, limit, &[dyno()]);
            let all: Vec<_> = (0..most)
                .map(|_| queue.enter(Instant::now(), false, None).expect("let in"))
                .collect();
            let refused = queue.enter(Instant::now(), false, None);
            assert_eq!(refused.expect_err("full"), Failure::BACKLOG, "{policy}");
            // A request whose dyno refused it was let in before.
            assert!(queue.enter(Instant::now(), true, None).is_ok());
            drop(all);
            drop(seat(&queue));
        }
    }

    #[tokio::test]
    async fn a_refused_request_goes_to_the_front_and_its_dyno_gets_nobody() {
        let (bad, good) = (dyno(), dyno());
        let queue = queue(LEAST, 1, &[Arc::clone(&bad), Arc::clone(&good)]);
        let seats = [seat(&queue), seat(&queue)];
        let behind = waiting(&queue);
        bad.quarantine(true);
        let again = queue.enter(Instant::now(), true, None).expect("let in");
        let Entered::Waiting(again) = again else {
            panic!("nobody has room");
        };
        drop(seats);
        let next = again.end(Timings::default()).await.expect("a seat");
        assert_eq!(next.dyno.id, good.id);
        assert_eq!(queue.traffic.waiting(), 1);
        drop(next);
        let last = behind.end(Timings::default()).await.expect("a seat");
        assert_eq!(last.dyno.id, good.id);
    }

    #[tokio::test]
    async fn the_global_queue_tells_its_crowd() {
        let queue = queue(RoutingPolicy::GlobalQueue, 1, &[dyno(), dyno()]);
        let crowd = |dynos_in_use, depth| {
            Some(Crowd {
                dynos_in_use,
                depth,
            })
        };
        let first = seat(&queue);
        assert_eq!(first.crowd, crowd(1, 0));
        let _second = seat(&queue);
        let (third, _fourth) = (waiting(&queue), waiting(&queue));
        drop(first);
        let third = third.end(Timings::default()).await.expect("a seat");
        assert_eq!(third.crowd, crowd(2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_strained_dyno_rests_while_another_has_room() {
        let (tired, fresh) = (dyno(), dyno());
        let queue = queue(LEAST, 0, &[Arc::clone(&tired), Arc::clone(&fresh)]);
        tired.strain(Duration::from_secs(3));
        let seats: Vec<_> = (0..10).map(|_| seat(&queue)).collect();
        assert!(seats.iter().all(|seat| seat.dyno.id == fresh.id));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(seat(&queue).dyno.id, tired.id);
    }

    #[test]
    fn two_threads_neither_lose_a_seat_nor_share_one() {
        let queue = queue(LEAST, 1, &[dyno(), dyno(), dyno()]);
        let timings = Timings::default();
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let local = tokio::task::LocalSet::new();
            let one = |n: usize, queue: Arc<Queue>| async move {
                for round in 0..200 {
                    match queue.enter(Instant::now(), false, None).expect("let in") {
                        Entered::Seat(seat) => {
                            assert_eq!(seat.dyno.in_flight(), 1);
                            tokio::task::yield_now().await;
                        }
                        // Some leave.
                        Entered::Waiting(_) if (n + round).is_multiple_of(7) => {}
                        Entered::Waiting(waiting) => {
                            let seat = waiting.end(timings).await.expect("a seat");
                            assert_eq!(seat.dyno.in_flight(), 1);
                            tokio::task::yield_now().await;
                        }
                    }
                }
            };
            local.block_on(&runtime, async {
                let tasks: Vec<_> = (0..8)
                    .map(|n| tokio::task::spawn_local(one(n, Arc::clone(&queue))))
                    .collect();
                for task in tasks {
                    task.await.expect("no panic");
                }
            });
        };
        std::thread::scope(|scope| {
            scope.spawn(work);
            scope.spawn(work);
        });
        assert_eq!(queue.traffic.waiting(), 0);
        assert!(queue.lock().state.dynos.iter().all(|d| d.in_flight() == 0));
    }
}
