//! `manifold uninstall` after an end that was not orderly.

use libtest_mimic::Failed;
use nix::sys::signal::Signal;

use super::yard::{Yard, eventually};
use crate::certain::{keeper, supervisor};
use crate::host::{Host, check, contains};
use crate::support::{self, Leftovers};

/// Somebody else's rules, with a count and a set of their own.
const FOREIGN: &str = "
table ip other {
  set known { type ipv4_addr; elements = { 192.0.2.7, 192.0.2.9 } }
  chain input { type filter hook input priority 5; policy accept; ip saddr @known drop; }
}";

fn forwarding(yard: &Yard) -> Result<String, Failed> {
    yard.run("cat", &["/proc/sys/net/ipv4/ip_forward"])
}

pub(super) fn run() -> Result<(), Failed> {
    let before = Leftovers::count();
    let yard = Yard::new()?;
    yard.nft_script(FOREIGN)?;
    let rules = yard.nft("list ruleset")?;
    // A new namespace has it from the machine.
    yard.run("sh", &["-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"])?;
    check(
        forwarding(&yard)?.trim() == "0",
        "this host forwards nothing",
    )?;
    let mut host = Host::within(&yard.netns(), "[timings]\nstop_grace = 2\n")?;
    host.deploy_tiny("tiny")?;
    check(forwarding(&yard)?.trim() == "1", "dynos need forwarding")?;
    let state = host.dir.path().join("state");
    let uninstall = |more: &[&str]| {
        let netns = format!("--net={}", yard.netns().display());
        let output = std::process::Command::new("nsenter")
            .args([&netns, "--"])
            .arg(support::manifold())
            .arg("uninstall")
            .arg("--state")
            .arg(&state)
            .arg("--socket")
            .arg(host.dir.path().join("manifold.sock"))
            .arg("--config")
            .arg(host.dir.path().join("manifold.toml"))
            .args(more)
            .output();
        output.map(|output| {
            let text = [output.stdout, output.stderr].concat();
            (
                output.status.success(),
                String::from_utf8_lossy(&text).into_owned(),
            )
        })
    };

    let (is_done, said) = uninstall(&[])?;
    check(!is_done, "not while it runs")?;
    contains(&said, "stop manifold first")?;
    check(host.all_up("tiny", &["web.1"]), "and it goes on")?;

    let dyno = support::find_process(|env| env.contains(&"DYNO=web.1".to_owned()), &state);
    let dyno = dyno.ok_or("no process of web.1")?;
    let supervisor = supervisor(&host).ok_or("no supervisor")?;
    // The keeper first: it would start another supervisor.
    support::signal(keeper(&host), Signal::SIGKILL);
    support::signal(supervisor, Signal::SIGKILL);
    eventually("the supervisor is gone", || {
        !std::path::Path::new(&format!("/proc/{supervisor}")).exists()
    })?;
    contains(&yard.nft("list tables")?, "manifold_")?;

    let (is_done, said) = uninstall(&[])?;
    check(is_done, said.clone())?;
    contains(&said, "--purge removes them")?;
    check(state.join("manifold.db").exists(), "apps stay unless asked")?;
    let has_ended = !std::path::Path::new(&format!("/proc/{dyno}")).exists();
    check(has_ended, "no process of a dyno is left")?;
    check(
        yard.nft("list ruleset")? == rules,
        yard.nft("list ruleset")?,
    )?;
    check(forwarding(&yard)?.trim() == "0", "forwarding is as it was")?;
    check(!host.dir.path().join("manifold.sock").exists(), "no socket")?;
    Leftovers::none_since(&before)?;

    let (is_done, said) = uninstall(&["--purge"])?;
    check(is_done, said)?;
    check(!state.exists(), "the state is gone")?;
    check(
        host.dir.path().join("manifold.toml").exists(),
        "and nothing else",
    )?;
    let (is_done, said) = uninstall(&["--purge"])?;
    check(!is_done, "nothing is left to remove")?;
    contains(&said, "is no state directory of manifold")?;
    if let Some(mut process) = host.process.take() {
        process.wait()?;
    }
    Leftovers::none_since(&before)
}
