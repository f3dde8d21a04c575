//! Deploys and new releases while the supervisor, what it started, or dynos are killed at random
//! moments: in the end every dyno runs one release with its config, and nothing else is left.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::certain::{Dice, api, children, cycles, firsts, groups, groups_per_dyno, supervisor};
use crate::host::{Host, check, copy_app};
use crate::support::{self, Leftovers};

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![Trial::test(
        "rolls::a_deploy_ends_well_whatever_is_killed",
        killed,
    )]
}

const APP: &str = "shop";

/// `web.1`, `web.2`, `worker.1`.
const DYNOS: usize = 3;

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Supervisor,
    /// A process that the supervisor started: an unpacker, a packer, git.
    Helper,
    /// PID 1 of a dyno; also of a build.
    First,
    /// What a dyno runs.
    Process,
}

impl Victim {
    fn any(dice: &mut Dice) -> Self {
        [Self::Supervisor, Self::Helper, Self::First, Self::Process][dice.index(4)]
    }

    /// Its pid, if there is such a process now.
    fn find(self, host: &Host, dice: &mut Dice) -> Option<u32> {
        let mut one_of = |all: Vec<u32>| (!all.is_empty()).then(|| all[dice.index(all.len())]);
        match self {
            Self::Supervisor => supervisor(host),
            Self::Helper => one_of(children(supervisor(host)?)),
            Self::First => one_of(firsts(host)),
            Self::Process => one_of(firsts(host)).and_then(|first| one_of(children(first))),
        }
    }
}

fn killed() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::with("[timings]\nstop_grace = 2\n")?;
    let source = tempfile::tempdir()?;
    copy_app("tiny", source.path())?;
    host.ok(&["create", APP, "--no-remote"])?;
    let folder = source.path().display().to_string();
    host.ok(&["deploy", &folder, "-a", APP])?;
    host.ok(&["ps:scale", "web=2", "worker=1", "-a", APP])?;
    host.eventually("all are up", || settled(&host))?;
    let mut dice = Dice::new();
    let (mut hit, mut given_up) = (0, 0);
    let rounds = (cycles() / 15).max(4);
    for round in 0..rounds {
        let is_deploy = round % 3 == 2;
        let mut order = if is_deploy {
            std::fs::write(source.path().join("note"), round.to_string())?;
            begin(&host, &["deploy", &folder, "-a", APP])?
        } else {
            let value = format!("ROUND={round}");
            begin(&host, &["config:set", &value, "-a", APP])?
        };
        // From before the release to after the last old dyno's end.
        let span = if is_deploy { 4_000 } else { 2_500 } * u64::from(support::patience());
        std::thread::park_timeout(Duration::from_millis(dice.roll(span)));
        let victim = Victim::any(&mut dice);
        if let Some(pid) = victim.find(&host, &mut dice) {
            support::signal(pid, Signal::SIGKILL);
            hit += 1;
        }
        // It fails when the supervisor it talks to dies; it does not hang.
        order.wait()?;
        host.eventually(
            &format!("all are up after {victim:?} of round {round}"),
            || settled(&host),
        )?;
        if !is_current(&host)? {
            // A version whose dyno was killed at its start is given up: the old one runs on.
            given_up += 1;
            host.ok(&["ps:restart", "-a", APP])?;
            host.eventually("the new one after a restart", || {
                settled(&host) && is_current(&host).unwrap_or(false)
            })?;
        }
        serves(&host)?;
    }
    eprintln!("{rounds} rolls, {hit} kills, {given_up} given up and restarted by hand");
    check(hit > 0, "nothing was killed")?;
    host.ok(&["ps:scale", "web=0", "worker=0", "-a", APP])?;
    host.eventually("nothing runs", || {
        firsts(&host).is_empty() && groups(&host).is_empty()
    })?;
    host.stop()?;
    Leftovers::none_since(&before)
}

fn begin(host: &Host, words: &[&str]) -> Result<Child, Failed> {
    let mut command = host.command(words);
    command.current_dir(host.dir.path());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command.stderr(Stdio::null()).spawn()?)
}

/// The dynos that were asked for are up, and there are exactly their processes and groups: no
/// build, no old dyno.
fn settled(host: &Host) -> bool {
    let states = host.states(APP);
    states.len() == DYNOS
        && states.iter().all(|(_, state)| state == "up")
        && firsts(host).len() == DYNOS
        && groups(host).len() == DYNOS * groups_per_dyno()
        && releases(host).is_ok_and(|all| all.len() == 1)
}

fn get(host: &Host, path: &str) -> Result<Value, Failed> {
    let answer = api(&host.socket(), "GET", path, "")?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(serde_json::from_str(body)?)
}

/// Versions that dynos run.
fn releases(host: &Host) -> Result<BTreeSet<u64>, Failed> {
    let dynos = get(host, &format!("/apps/{APP}/dynos"))?;
    let dynos = dynos.as_array().cloned().unwrap_or_default();
    let version = |dyno: &Value| dyno["release"]["version"].as_u64();
    Ok(dynos.iter().filter_map(version).collect())
}

/// They run the newest release that did not fail.
fn is_current(host: &Host) -> Result<bool, Failed> {
    let all = get(host, &format!("/apps/{APP}/releases"))?;
    let all = all.as_array().cloned().unwrap_or_default();
    let good = all
        .iter()
        .filter(|release| release["status"] == "succeeded");
    let newest = good.filter_map(|release| release["version"].as_u64()).max();
    Ok(newest
        .is_some_and(|newest| releases(host).is_ok_and(|seen| seen == BTreeSet::from([newest]))))
}

/// Each web dyno answers, with the config vars that the API tells.
fn serves(host: &Host) -> Result<(), Failed> {
    let vars = get(host, &format!("/apps/{APP}/config-vars"))?;
    let round = vars["ROUND"].as_str().map(|round| format!("ROUND={round}"));
    let seen = RefCell::new(BTreeSet::new());
    host.eventually("both answer with the config of now", || {
        let answer = host.get(&format!("{APP}.localhost"), "/env");
        let text = answer.filter(|(status, _)| *status == 200);
        let text = text.map(|(_, text)| text).unwrap_or_default();
        let has = |wanted: &str| text.lines().any(|line| line == wanted);
        if round.as_ref().is_none_or(|round| has(round)) {
            let names = ["DYNO=web.1", "DYNO=web.2"];
            seen.borrow_mut()
                .extend(names.into_iter().filter(|name| has(name)));
        }
        seen.borrow().len() == 2
    })
}
