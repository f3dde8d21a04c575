//! Beside other firewalls, and after somebody flushed ours.

use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use super::prober::Prober;
use super::yard::{Canary, HOST, LAN, METADATA, WORLD, Yard, eventually};
use crate::attack::{As, Report};
use crate::host::{Host, PATIENCE, check, contains};

const SETTINGS: &str = "[network]\nresolvers = [\"10.9.0.1\"]\n[timings]\nstop_grace = 2\n";

/// Our table as nft prints it, its words sorted (the kernel keeps sets in no order), without what
/// packets count.
fn table(yard: &Yard) -> Option<String> {
    let tables = yard.nft("list tables").ok()?;
    let name = tables.lines().find(|l| l.contains("manifold_"))?;
    let name = name.strip_prefix("table inet ")?;
    let text = yard.nft(&format!("-s list table inet {name}")).ok()?;
    let (head, rest) = text.split_once("set connections {")?;
    let (_, tail) = rest.split_once("\n\t}")?;
    text.contains("chain outbound")
        .then(|| format!("{head}{tail}"))
}

/// The name of the test, as the attacks' rows have it.
pub(super) const FLUSHED: &str = "network::a_flushed_table_comes_back_and_nothing_was_open";

pub(super) fn flushed() -> Result<(), Failed> {
    let mut report = Report::new(FLUSHED);
    report.holds("N-14", As::User, restored);
    report.finish(&[As::User])
}

fn restored() -> Result<String, Failed> {
    let yard = Yard::new()?;
    let service = yard.in_host(Canary::tcp)?;
    let lan = yard.in_world(Canary::tcp)?;
    yard.nft_script("table ip other { chain c { ip saddr 192.0.2.7 drop; }; }")?;
    let other = yard.nft("list table ip other")?;
    let mut host = Host::within(&yard.netns(), SETTINGS)?;
    host.deploy_tiny("tiny")?;
    host.ok(&[
        "network:allow",
        &format!("{LAN}:{}", lan.port),
        "-a",
        "tiny",
    ])?;
    let mut prober = Prober::start(&host, "tiny")?;
    let allowed = format!("tcp {LAN} {}", lan.port);
    prober.until(&allowed, "SUCCEEDED")?;
    let whole = table(&yard).ok_or("no table")?;
    let name = whole.split(' ').find(|word| word.starts_with("manifold_"));
    let name = name.ok_or("no name")?.to_owned();
    let mut slowest = Duration::ZERO;
    for change in [
        "flush ruleset".to_owned(),
        format!("delete table inet {name}"),
        format!("flush chain inet {name} outbound"),
        format!("insert rule inet {name} host accept"),
        format!("flush set inet {name} sources"),
    ] {
        yard.nft(&change)?;
        let start = Instant::now();
        eventually(&change, || table(&yard).as_ref() == Some(&whole))?;
        slowest = slowest.max(start.elapsed());
        check(
            slowest < Duration::from_secs(20),
            format!("{change}: by the kernel's word, not by the look every 30 s"),
        )?;
        prober.expect(
            &format!("tcp {HOST} {}", service.port),
            "BLOCKED ECONNREFUSED",
        )?;
        prober.expect(&allowed, "SUCCEEDED")?;
    }
    // While it is being restored, too: nothing of somebody else's is taken for ours.
    for change in ["host accept", "outbound accept"].repeat(20) {
        // It is not there for a moment, whenever it is loaded anew.
        let _ = yard.nft(&format!("insert rule inet {name} {change}"));
    }
    eventually("whole after many changes", || {
        table(&yard).as_ref() == Some(&whole)
    })?;
    check(service.count() == 0, "nothing came through")?;
    contains(&host.story(), "it is restored")?;
    // What began while somebody held it open does not go on.
    let deadline = Instant::now() + PATIENCE;
    let hold = format!("hold {METADATA} {}", lan.port);
    while prober.ask(&hold)? != "SUCCEEDED" {
        check(Instant::now() < deadline, "never open at all")?;
        let _ = yard.nft(&format!("insert rule inet {name} outbound accept"));
    }
    eventually("whole after it was open", || {
        table(&yard).as_ref() == Some(&whole)
    })?;
    while !prober
        .ask(&format!("echo {METADATA}"))?
        .starts_with("BLOCKED")
    {
        check(Instant::now() < deadline, "it goes on")?;
    }
    prober.expect(&allowed, "SUCCEEDED")?;
    drop(prober);
    // What was not ours, we did not bring back; what is not ours, we do not take away.
    yard.nft_script("table ip other { chain c { ip saddr 192.0.2.7 drop; }; }")?;
    host.stop()?;
    let left = yard.nft("list tables")?;
    check(left.trim() == "table ip other", left)?;
    check(
        yard.nft("list table ip other")? == other,
        "the other is as it was",
    )?;
    Ok(format!(
        "flushed, deleted or changed in 5 ways: restored within {} ms, nothing came through after",
        slowest.as_millis()
    ))
}

/// As Docker with iptables-nft leaves it: all forwarding is dropped but its own.
const DOCKER: &str = r#"
table ip filter {
  chain FORWARD { type filter hook forward priority filter; policy drop;
    counter jump DOCKER-USER
    oifname "docker0" ct state established,related counter accept
    iifname "docker0" oifname != "docker0" counter accept
  }
  chain DOCKER-USER { counter return; }
  chain INPUT { type filter hook input priority filter; policy accept; }
}
table ip nat {
  chain PREROUTING { type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local counter jump DOCKER
  }
  chain DOCKER { iifname != "docker0" tcp dport 8099 counter dnat to 10.9.0.1:8099; }
  chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept;
    ip saddr 172.17.0.0/16 oifname != "docker0" counter masquerade
  }
}
"#;

/// As firewalld leaves it: the last rule rejects.
const FIREWALLD: &str = r#"
table inet firewalld {
  chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    iifname "lo" accept
    reject with icmpx admin-prohibited
  }
  chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    iifname "lo" accept
    tcp dport 22 accept
    reject with icmpx admin-prohibited
  }
}
"#;

pub(super) fn foreign() -> Result<(), Failed> {
    let yard = Yard::new()?;
    let outside = yard.in_world(Canary::tcp)?;
    yard.nft_script(DOCKER)?;
    yard.nft_script(FIREWALLD)?;
    let before = [
        yard.nft("-s list table ip nat")?,
        yard.nft("-s list table inet firewalld")?,
    ];
    let mut host = Host::within(&yard.netns(), SETTINGS)?;
    host.deploy_tiny("tiny")?;
    check(
        host.all_up("tiny", &["web.1"]),
        "dynos and the router work whatever is forwarded",
    )?;
    let mut prober = Prober::start(&host, "tiny")?;
    let out = format!("tcp {WORLD} {}", outside.port);
    let got = prober.ask(&out)?;
    check(got.starts_with("BLOCKED"), format!("others drop it: {got}"))?;
    // The journal names both chains and what to do; what it says helps.
    host.eventually("both are told", || advice(&host).len() == 4)?;
    let kept = yard.nft("-s list table inet firewalld")?;
    check(kept == before[1], "we only tell")?;
    for command in advice(&host) {
        let words: Vec<&str> = command.split(' ').map(|w| w.trim_matches('"')).collect();
        let quoted: Vec<String> = words
            .iter()
            .map(|w| {
                if w.ends_with('*') {
                    format!("\"{w}\"")
                } else {
                    (*w).to_owned()
                }
            })
            .collect();
        let (program, rest) = quoted.split_first().ok_or("no command")?;
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        yard.run(program, &rest)?;
    }
    prober.expect(&out, "SUCCEEDED")?;
    // A port that Docker publishes on the host leads a dyno nowhere.
    let got = prober.ask(&format!("tcp {HOST} 8099"))?;
    check(got.starts_with("BLOCKED"), format!("published port: {got}"))?;
    drop(prober);
    host.stop()?;
    check(
        yard.nft("-s list table ip nat")? == before[0],
        "nat is as it was",
    )?;
    let tables = yard.nft("list tables")?;
    check(!tables.contains("manifold"), tables)
}

/// The commands that the journal tells.
fn advice(host: &Host) -> Vec<String> {
    let journal = std::fs::read_to_string(host.journal()).unwrap_or_default();
    let mut found: Vec<String> = journal
        .split('`')
        .filter(|part| part.starts_with("nft insert rule"))
        .map(|part| part.replace('\\', ""))
        .collect();
    found.dedup();
    found
}
