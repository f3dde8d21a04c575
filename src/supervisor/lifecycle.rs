//! One dyno from its order to its end, as a table of (phase, input) → (phase, effects).
//!
//! Pure: the driver carries the effects out and feeds the results back as inputs. A dyno ends
//! exactly once ([`Effect::Settle`]), whatever the order of its inputs.

use std::time::Duration;

use super::StopSignal;
use crate::model::{Digest, DynoState, ExitStatus};
use crate::settings::Timings;

/// Between two SIGHUPs to a one-off whose client is gone. Source: contract, "observed".
const HUP_PAUSE: Duration = Duration::from_secs(5);

/// SIGHUPs before R16.
const HUPS: u8 = 3;

/// What a dyno is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Formation; must bind `$PORT`.
    Web,
    /// Formation, any other type.
    Worker,
    /// Runs once.
    OneOff,
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A one-off whose client did not come yet: nothing runs.
    Awaiting,
    /// The machine was asked.
    Launching {
        /// Stop it as soon as it runs.
        is_unwanted: bool,
    },
    /// Runs, did not bind its port yet.
    Booting,
    /// Runs.
    Up,
    /// Out of routing; its requests end before it is signalled.
    Draining(Stop),
    /// Was signalled by us.
    Stopping {
        /// SIGKILL was sent.
        is_killed: bool,
    },
    /// SIGKILL after R10 or R15: its end is a crash.
    TimedOut,
    /// Nothing runs any more.
    Ended,
}

/// Why a dyno is stopped: the first line differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Another takes its place.
    Restart,
    /// Another took its place already.
    Replaced,
    /// Scaled away, or its app is gone.
    Down,
    /// `ps:stop`, time to live, shutdown.
    Plain,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// The client of an attached one-off came.
    ClientCame,
    /// The command was exec'd.
    Launched,
    /// It was not.
    NotLaunched {
        /// Expected and actual, if the slug's bytes are not those of its name.
        checksum: Option<(Digest, Digest)>,
    },
    /// A connect to `$PORT` succeeded.
    Bound,
    /// It ended.
    Exited(ExitStatus),
    /// It is past a bound of its size, and these lines say so.
    Exceeded(Vec<String>),
    /// Somebody wants it stopped.
    Stop(Stop),
    /// It has no request in flight any more, or too long a one.
    Drained,
    /// A timer of [`Effect::Arm`] fired.
    Fired(Timer),
    /// The client of an attached one-off went.
    ClientGone,
}

/// Timers of one dyno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// R10.
    Boot,
    /// R12.
    Grace,
    /// R16.
    Hup,
}

/// What the driver must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// A line of `heroku[NAME]`.
    Log(String),
    /// Ask the machine.
    Launch,
    /// Look for the port.
    Probe,
    /// Let its requests end, and no new ones come: at most so long.
    Drain(Duration),
    /// To every process.
    Signal(StopSignal),
    /// Come back after so long.
    Arm(Timer, Duration),
    /// It is over.
    Settle(Outcome),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A formation dyno that nobody stopped.
    Crashed,
    /// As asked, or a one-off.
    Gone,
}

/// The part of a dyno that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) kind: Kind,
    pub(super) phase: Phase,
    /// As published.
    pub(super) state: DynoState,
    hups: u8,
}

impl Life {
    /// A dyno that was ordered; `is_awaiting` its client, or to be launched now.
    pub(super) fn new(kind: Kind, is_awaiting: bool) -> Self {
        let phase = if is_awaiting {
            Phase::Awaiting
        } else {
            Phase::Launching { is_unwanted: false }
        };
        Self {
            kind,
            phase,
            state: DynoState::Starting,
            hups: 0,
        }
    }

    /// True once it was told to stop, or ended.
    pub(super) fn is_stopping(self) -> bool {
        matches!(
            self.phase,
            Phase::Draining(_)
                | Phase::Stopping { .. }
                | Phase::Launching { is_unwanted: true }
                | Phase::Ended
        )
    }

    /// Takes one input; returns what to do about it. Inputs that come too late change nothing.
    pub(super) fn step(&mut self, input: &Input, timings: &Timings) -> Vec<Effect> {
        let mut effects = Vec::new();
        match (self.phase, input) {
            (Phase::Awaiting, Input::ClientCame) => {
                self.phase = Phase::Launching { is_unwanted: false };
                effects.push(Effect::Launch);
            }
            (Phase::Awaiting, Input::Stop(_) | Input::ClientGone) => {
                effects.push(log(
                    "Error R13 (Attach error) -> Failed to attach to process",
                ));
                self.end(DynoState::Complete, Outcome::Gone, &mut effects);
            }
            (Phase::Launching { is_unwanted: true }, Input::Launched) => {
                self.terminate(timings, &mut effects);
            }
            (Phase::Launching { .. }, Input::Launched) if self.kind == Kind::Web => {
                self.phase = Phase::Booting;
                effects.push(Effect::Probe);
                effects.push(Effect::Arm(Timer::Boot, timings.boot_timeout));
            }
            (Phase::Launching { .. }, Input::Launched) | (Phase::Booting, Input::Bound) => {
                self.phase = Phase::Up;
                self.change(DynoState::Up, &mut effects);
            }
            (Phase::Launching { is_unwanted }, Input::NotLaunched { checksum }) => {
                effects.push(log(not_launched(*checksum)));
                if is_unwanted {
                    self.over(&mut effects);
                } else {
                    self.crash(&mut effects);
                }
            }
            (Phase::Booting, Input::Fired(Timer::Boot)) => {
                self.phase = Phase::TimedOut;
                let seconds = timings.boot_timeout.as_secs();
                effects.push(log(format!(
                    "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within {seconds} seconds of launch"
                )));
                effects.push(log("Stopping process with SIGKILL"));
                effects.push(Effect::Signal(StopSignal::Kill));
            }
            (Phase::Booting | Phase::Up, Input::Exceeded(lines)) => {
                self.phase = Phase::TimedOut;
                effects.extend(lines.iter().map(log));
                effects.push(log("Stopping process with SIGKILL"));
                effects.push(Effect::Signal(StopSignal::Kill));
            }
            (Phase::Draining(_), Input::Exceeded(lines)) => {
                self.phase = Phase::Stopping { is_killed: true };
                effects.extend(lines.iter().map(log));
                effects.push(log("Stopping process with SIGKILL"));
                effects.push(Effect::Signal(StopSignal::Kill));
                effects.push(Effect::Arm(Timer::Grace, timings.stop_grace));
            }
            (Phase::Booting | Phase::Up | Phase::TimedOut, Input::Exited(status)) => {
                effects.push(log(format!("Process exited with status {status}")));
                self.crash(&mut effects);
            }
            (Phase::Draining(_) | Phase::Stopping { .. }, Input::Exited(status)) => {
                effects.push(log(format!("Process exited with status {status}")));
                self.over(&mut effects);
            }
            (Phase::Launching { is_unwanted: false }, Input::Stop(stop)) => {
                self.announce(*stop, &mut effects);
                self.announce_signal(*stop, &mut effects);
                self.phase = Phase::Launching { is_unwanted: true };
            }
            (Phase::Launching { .. }, Input::ClientGone) => {
                self.phase = Phase::Launching { is_unwanted: true };
            }
            (Phase::Up, Input::Stop(stop)) if self.kind == Kind::Web => {
                self.announce(*stop, &mut effects);
                self.phase = Phase::Draining(*stop);
                // As long as requests have that are under way at SIGTERM.
                effects.push(Effect::Drain(timings.stop_grace));
            }
            (Phase::Draining(stop), Input::Drained) => {
                self.announce_signal(stop, &mut effects);
                self.terminate(timings, &mut effects);
            }
            (Phase::Booting | Phase::Up | Phase::TimedOut, Input::Stop(stop)) => {
                self.announce(*stop, &mut effects);
                self.announce_signal(*stop, &mut effects);
                self.terminate(timings, &mut effects);
            }
            (Phase::Stopping { is_killed }, Input::Fired(Timer::Grace)) => {
                if !is_killed {
                    let seconds = timings.stop_grace.as_secs();
                    effects.push(log(format!(
                        "Error R12 (Exit timeout) -> At least one process failed to exit within {seconds} seconds of SIGTERM"
                    )));
                    effects.push(log("Stopping remaining processes with SIGKILL"));
                    self.phase = Phase::Stopping { is_killed: true };
                }
                effects.push(Effect::Signal(StopSignal::Kill));
                effects.push(Effect::Arm(Timer::Grace, timings.stop_grace));
            }
            (Phase::Up, Input::ClientGone | Input::Fired(Timer::Hup)) => self.hang_up(&mut effects),
            _ => {}
        }
        effects
    }

    fn change(&mut self, to: DynoState, effects: &mut Vec<Effect>) {
        if self.state != to {
            effects.push(log(format!("State changed from {} to {to}", self.state)));
            self.state = to;
        }
    }

    fn end(&mut self, state: DynoState, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.phase = Phase::Ended;
        self.change(state, effects);
        effects.push(Effect::Settle(outcome));
    }

    /// Ended by itself.
    fn crash(&mut self, effects: &mut Vec<Effect>) {
        if self.kind == Kind::OneOff {
            self.over(effects);
        } else {
            self.end(DynoState::Crashed, Outcome::Crashed, effects);
        }
    }

    /// Ended as asked; a one-off ends no other way.
    fn over(&mut self, effects: &mut Vec<Effect>) {
        let state = if self.kind == Kind::OneOff {
            DynoState::Complete
        } else {
            // Its lines of state are its successor's by now.
            self.state
        };
        self.end(state, Outcome::Gone, effects);
    }

    /// The lines of the decision.
    fn announce(&mut self, stop: Stop, effects: &mut Vec<Effect>) {
        if self.kind != Kind::OneOff {
            match stop {
                Stop::Restart => {
                    effects.push(log("Restarting"));
                    self.change(DynoState::Starting, effects);
                }
                Stop::Down => self.change(DynoState::Down, effects),
                // Its lines of state are its successor's by now.
                Stop::Replaced | Stop::Plain => {}
            }
        }
    }

    /// The lines of the signal.
    fn announce_signal(&mut self, stop: Stop, effects: &mut Vec<Effect>) {
        effects.push(log("Stopping all processes with SIGTERM"));
        if stop == Stop::Plain && self.kind != Kind::OneOff {
            self.change(DynoState::Starting, effects);
        }
    }

    fn terminate(&mut self, timings: &Timings, effects: &mut Vec<Effect>) {
        self.phase = Phase::Stopping { is_killed: false };
        effects.push(Effect::Signal(StopSignal::Term));
        effects.push(Effect::Arm(Timer::Grace, timings.stop_grace));
    }

    fn hang_up(&mut self, effects: &mut Vec<Effect>) {
        if self.hups < HUPS {
            self.hups += 1;
            effects.push(log(
                "Client connection closed. Sending SIGHUP to all processes",
            ));
            effects.push(Effect::Signal(StopSignal::Hup));
            effects.push(Effect::Arm(Timer::Hup, HUP_PAUSE));
        } else if self.hups == HUPS {
            self.hups += 1;
            effects.push(log(
                "Error R16 (Detached) -> An attached process is not responding to SIGHUP after its external connection was closed.",
            ));
        }
    }
}

fn log(text: impl Into<String>) -> Effect {
    Effect::Log(text.into())
}

fn not_launched(checksum: Option<(Digest, Digest)>) -> String {
    match checksum {
        // The word that is missing is missing in the original too.
        Some((expected, actual)) => format!(
            "Error R17 (Checksum error) -> Checksum does match expected value. Expected: SHA256:{expected} Actual: SHA256:{actual}"
        ),
        None => {
            "Error R99 (Platform error) -> Failed to launch the dyno within 10 seconds".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs inputs through a dyno and checks every line it logs.
    #[track_caller]
    fn check(kind: Kind, is_awaiting: bool, inputs: &[Input], expected: &[&str]) -> Life {
        let mut life = Life::new(kind, is_awaiting);
        let effects = inputs
            .iter()
            .flat_map(|input| life.step(input, &Timings::default()));
        let lines: Vec<String> = effects
            .filter_map(|effect| match effect {
                Effect::Log(text) => Some(text),
                _ => None,
            })
            .collect();
        assert_eq!(lines, expected);
        life
    }

    fn exited(status: u8) -> Input {
        Input::Exited(ExitStatus(status))
    }

    #[test]
    fn a_web_dyno_is_up_when_it_bound_its_port() {
        let life = check(Kind::Web, false, &[Input::Launched], &[]);
        assert_eq!(life.state, DynoState::Starting);
        check(
            Kind::Web,
            false,
            &[Input::Launched, Input::Bound],
            &["State changed from starting to up"],
        );
        let life = check(
            Kind::Worker,
            false,
            &[Input::Launched],
            &["State changed from starting to up"],
        );
        assert_eq!(life.state, DynoState::Up);
    }

    #[test]
    fn a_web_dyno_that_does_not_bind_crashes_with_r10() {
        check(
            Kind::Web,
            false,
            &[
                Input::Launched,
                Input::Fired(Timer::Boot),
                Input::Bound,
                exited(137),
            ],
            &[
                "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch",
                "Stopping process with SIGKILL",
                "Process exited with status 137",
                "State changed from starting to crashed",
            ],
        );
    }

    #[test]
    fn who_is_past_a_bound_is_killed_once_and_crashes() {
        let over = Input::Exceeded(vec!["Error R15 (Memory quota vastly exceeded)".to_owned()]);
        check(
            Kind::Web,
            false,
            &[
                Input::Launched,
                Input::Bound,
                over.clone(),
                over,
                exited(137),
            ],
            &[
                "State changed from starting to up",
                "Error R15 (Memory quota vastly exceeded)",
                "Stopping process with SIGKILL",
                "Process exited with status 137",
                "State changed from up to crashed",
            ],
        );
    }

    #[test]
    fn any_status_is_a_crash_when_nobody_asked() {
        for status in [0, 1, 137] {
            let expected = format!("Process exited with status {status}");
            let lines = [
                "State changed from starting to up",
                expected.as_str(),
                "State changed from up to crashed",
            ];
            check(
                Kind::Worker,
                false,
                &[Input::Launched, exited(status)],
                &lines,
            );
        }
    }

    #[test]
    fn restart_and_scale_down_say_what_they_are() {
        let up = [Input::Launched, Input::Bound];
        let stopped = |stop| [Input::Stop(stop), Input::Drained, exited(143)];
        let restart = [up.as_slice(), &stopped(Stop::Restart)].concat();
        check(
            Kind::Web,
            false,
            &restart,
            &[
                "State changed from starting to up",
                "Restarting",
                "State changed from up to starting",
                "Stopping all processes with SIGTERM",
                "Process exited with status 143",
            ],
        );
        let down = [up.as_slice(), &stopped(Stop::Down)].concat();
        check(
            Kind::Web,
            false,
            &down,
            &[
                "State changed from starting to up",
                "State changed from up to down",
                "Stopping all processes with SIGTERM",
                "Process exited with status 143",
            ],
        );
    }

    #[test]
    fn a_web_dyno_is_signalled_once_and_not_before_its_requests_ended() {
        let mut life = Life::new(Kind::Web, false);
        let mut step = |input: Input| life.step(&input, &Timings::default());
        step(Input::Launched);
        step(Input::Bound);
        let effects = step(Input::Stop(Stop::Restart));
        let drain = Effect::Drain(Timings::default().stop_grace);
        assert_eq!(effects.last(), Some(&drain));
        let term = Effect::Signal(StopSignal::Term);
        assert!(!effects.contains(&term));
        assert!(step(Input::Stop(Stop::Down)).is_empty());
        assert!(step(Input::Drained).contains(&term));
        assert!(step(Input::Drained).is_empty());
        assert!(step(Input::Stop(Stop::Down)).is_empty());
    }

    #[test]
    fn a_replaced_dyno_leaves_without_lines_of_state() {
        check(
            Kind::Web,
            false,
            &[
                Input::Launched,
                Input::Bound,
                Input::Stop(Stop::Replaced),
                Input::Drained,
                exited(143),
            ],
            &[
                "State changed from starting to up",
                "Stopping all processes with SIGTERM",
                "Process exited with status 143",
            ],
        );
    }

    #[test]
    fn who_ignores_sigterm_gets_r12_once() {
        let grace = Input::Fired(Timer::Grace);
        check(
            Kind::Worker,
            false,
            &[
                Input::Launched,
                Input::Stop(Stop::Down),
                grace.clone(),
                grace,
                exited(137),
            ],
            &[
                "State changed from starting to up",
                "State changed from up to down",
                "Stopping all processes with SIGTERM",
                "Error R12 (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM",
                "Stopping remaining processes with SIGKILL",
                "Process exited with status 137",
            ],
        );
    }

    #[test]
    fn a_stop_during_the_launch_waits_for_the_launch() {
        let mut life = Life::new(Kind::Worker, false);
        life.step(&Input::Stop(Stop::Down), &Timings::default());
        assert!(life.is_stopping());
        let effects = life.step(&Input::Launched, &Timings::default());
        assert_eq!(effects[0], Effect::Signal(StopSignal::Term));
    }

    #[test]
    fn one_offs_complete_whatever_their_status() {
        check(
            Kind::OneOff,
            true,
            &[Input::ClientCame, Input::Launched, exited(7)],
            &[
                "State changed from starting to up",
                "Process exited with status 7",
                "State changed from up to complete",
            ],
        );
        check(
            Kind::OneOff,
            true,
            &[Input::Stop(Stop::Plain)],
            &[
                "Error R13 (Attach error) -> Failed to attach to process",
                "State changed from starting to complete",
            ],
        );
    }

    #[test]
    fn a_client_that_is_gone_means_three_sighups_then_r16() {
        let hup = Input::Fired(Timer::Hup);
        let gone = "Client connection closed. Sending SIGHUP to all processes";
        check(
            Kind::OneOff,
            false,
            &[
                Input::Launched,
                Input::ClientGone,
                hup.clone(),
                hup.clone(),
                hup.clone(),
                hup,
            ],
            &[
                "State changed from starting to up",
                gone,
                gone,
                gone,
                "Error R16 (Detached) -> An attached process is not responding to SIGHUP after its external connection was closed.",
            ],
        );
    }

    #[test]
    fn a_changed_slug_is_r17_and_any_other_failure_r99() {
        let checksum = Some((Digest([0xab; 32]), Digest([0xcd; 32])));
        let life = check(
            Kind::Web,
            false,
            &[Input::NotLaunched { checksum: None }],
            &[
                "Error R99 (Platform error) -> Failed to launch the dyno within 10 seconds",
                "State changed from starting to crashed",
            ],
        );
        assert_eq!(life.phase, Phase::Ended);
        let mut life = Life::new(Kind::Web, false);
        let effects = life.step(&Input::NotLaunched { checksum }, &Timings::default());
        assert!(matches!(&effects[0], Effect::Log(text) if text.starts_with("Error R17")));
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            Just(Input::ClientCame),
            Just(Input::Launched),
            Just(Input::NotLaunched { checksum: None }),
            Just(Input::Bound),
            any::<u8>().prop_map(exited),
            Just(Input::Exceeded(vec!["too much".to_owned()])),
            prop_oneof![
                Just(Stop::Restart),
                Just(Stop::Replaced),
                Just(Stop::Down),
                Just(Stop::Plain)
            ]
            .prop_map(Input::Stop),
            Just(Input::Drained),
            prop_oneof![Just(Timer::Boot), Just(Timer::Grace), Just(Timer::Hup)]
                .prop_map(Input::Fired),
            Just(Input::ClientGone),
        ]
    }

    proptest! {
        #[test]
        fn every_sequence_ends_once_and_nothing_happens_after_the_end(
            kind in prop_oneof![Just(Kind::Web), Just(Kind::Worker), Just(Kind::OneOff)],
            is_awaiting: bool,
            inputs in proptest::collection::vec(input(), 0..30),
        ) {
            let is_awaiting = is_awaiting && kind == Kind::OneOff;
            let mut life = Life::new(kind, is_awaiting);
            let mut settled = 0;
            let mut take = |life: &mut Life, input: &Input| {
                let was_over = life.phase == Phase::Ended;
                let effects = life.step(input, &Timings::default());
                if was_over {
                    assert!(effects.is_empty(), "{input:?} after the end: {effects:?}");
                }
                settled += effects.iter().filter(|e| matches!(e, Effect::Settle(_))).count();
            };
            for input in &inputs {
                take(&mut life, input);
            }
            // Whatever came before: a stop, then the machine's answers, end it.
            take(&mut life, &Input::Stop(Stop::Down));
            take(&mut life, &Input::Launched);
            take(&mut life, &Input::Drained);
            take(&mut life, &exited(143));
            prop_assert_eq!(life.phase, Phase::Ended);
            prop_assert_eq!(settled, 1);
        }
    }
}
