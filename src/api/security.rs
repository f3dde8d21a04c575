//! From a launch plan to what people read of it.

use super::types;
use crate::dyno::{
    APP_GID, APP_UID, AppStep, Attributes, IDS_PER_DYNO, LaunchPlan, Resource, SetUpStep,
};
use crate::keeper;
use crate::network::Facts;
use crate::supervisor::Sketch;

/// All of it, for an app and one of its process types.
pub(super) fn security(
    app: types::Named,
    process: &str,
    sketch: &Sketch,
    rules: Vec<types::NetworkRule>,
) -> types::Security {
    let plan = &sketch.plan;
    types::Security {
        app,
        process: process.to_owned(),
        size: sketch.size.name.clone(),
        namespaces: namespaces(plan),
        user: user(plan),
        capabilities: capabilities(plan),
        seccomp: seccomp(plan),
        mounts: plan.set_up.iter().flat_map(mounts).collect(),
        masked: paths(plan, |step| match step {
            SetUpStep::Mask(paths) => Some(paths),
            _ => None,
        }),
        read_only: paths(plan, |step| match step {
            SetUpStep::ReadOnly(paths) => Some(paths),
            _ => None,
        }),
        limits: limits(sketch),
        network: network(&sketch.network, rules),
    }
}

fn has(plan: &LaunchPlan, wanted: &AppStep) -> bool {
    plan.app.contains(wanted)
}

fn namespaces(plan: &LaunchPlan) -> Vec<types::Namespace> {
    let sets = |wanted: &SetUpStep| plan.set_up.contains(wanted);
    // Made by the clone itself: mnt, pid, ipc, uts; the others by a step each.
    let all = [
        ("user", "ids and privileges", has(plan, &AppStep::EnterUser)),
        ("mnt", "mounts", sets(&SetUpStep::PrivateMounts)),
        ("pid", "processes", true),
        (
            "net",
            "links, addresses, ports, firewall",
            sets(&SetUpStep::EnterNetwork),
        ),
        ("ipc", "System V and POSIX queues, shared memory", true),
        ("uts", "host name", true),
        (
            "cgroup",
            "view of its control group",
            sets(&SetUpStep::NewCgroupNamespace),
        ),
    ];
    let own = all.into_iter().filter(|(_, _, is_own)| *is_own);
    own.map(|(name, keeps_apart, _)| types::Namespace {
        name: name.to_owned(),
        keeps_apart: keeps_apart.to_owned(),
    })
    .collect()
}

fn user(plan: &LaunchPlan) -> types::SecurityUser {
    let ids = plan.app.iter().find_map(|step| match step {
        AppStep::Ids { uid, gid } => Some((*uid, *gid)),
        _ => None,
    });
    let (uid, gid) = ids.unwrap_or((APP_UID, APP_GID));
    types::SecurityUser {
        uid,
        gid,
        ids: IDS_PER_DYNO,
        host_first: plan.user.base,
    }
}

fn capabilities(plan: &LaunchPlan) -> types::Capabilities {
    let is_none = has(plan, &AppStep::BoundCapabilities) && has(plan, &AppStep::NoCapabilities);
    types::Capabilities {
        kept: if is_none {
            Vec::new()
        } else {
            vec!["all, inside its user namespace".to_owned()]
        },
        no_new_privileges: has(plan, &AppStep::NoNewPrivileges),
    }
}

fn seccomp(plan: &LaunchPlan) -> types::Seccomp {
    types::Seccomp {
        is_on: has(plan, &AppStep::Seccomp),
        default: "ENOSYS".to_owned(),
        allowed: keeper::allowed_calls(),
        checked: keeper::CHECKED
            .iter()
            .map(|(call, allows)| types::CheckedCall {
                call: (*call).to_owned(),
                allows: (*allows).to_owned(),
            })
            .collect(),
        denied: keeper::DENIED
            .iter()
            .map(|group| types::DeniedCalls {
                reason: group.reason.to_owned(),
                calls: group
                    .calls
                    .iter()
                    .map(|(name, _)| (*name).to_owned())
                    .collect(),
            })
            .collect(),
    }
}

fn mounts(step: &SetUpStep) -> Vec<types::Mount> {
    if !matches!(step, SetUpStep::Size(_)) {
        return mount(step).into_iter().collect();
    }
    let flags = ["ro", "nosuid", "nodev", "noexec"];
    let told = [
        ("/sys/fs/cgroup", "the limits of its size"),
        ("/proc/cgroups", "the controllers for them"),
    ];
    let told = told.map(|(target, what)| types::Mount {
        target: target.to_owned(),
        what: what.to_owned(),
        flags: flags.map(str::to_owned).into(),
    });
    told.into()
}

/// Flags of the kernel's own file systems: `keeper::steps` sets them so, and a kernel test holds
/// this to what a dyno's mountinfo says.
fn mount(step: &SetUpStep) -> Option<types::Mount> {
    let (target, what, flags) = match step {
        SetUpStep::Overlay { lowers, .. } => (
            "/".to_owned(),
            format!(
                "overlay: {} read-only layers, an empty writable one on top",
                lowers.len()
            ),
            "rw nosuid nodev",
        ),
        SetUpStep::Bind {
            source,
            target,
            attributes,
            ..
        } => {
            let what = format!("{} of the host", source.display());
            let flags = attribute_flags(*attributes);
            return Some(types::Mount {
                target: target.display().to_string(),
                what,
                flags,
            });
        }
        SetUpStep::Proc => kernel(
            "/proc",
            "proc of its own processes",
            "rw nosuid nodev noexec",
        ),
        SetUpStep::Sys => kernel("/sys", "sysfs of its own network", "ro nosuid nodev noexec"),
        SetUpStep::Devices => kernel(
            "/dev",
            "null, zero, full, random, urandom, tty",
            "ro nosuid noexec",
        ),
        SetUpStep::Terminals => kernel("/dev/pts", "terminals of its own", "rw nosuid noexec"),
        SetUpStep::SharedMemory { bytes } => (
            "/dev/shm".to_owned(),
            format!("memory, {} MiB", bytes >> 20),
            "rw nosuid nodev noexec",
        ),
        SetUpStep::MessageQueues => kernel(
            "/dev/mqueue",
            "message queues of its own",
            "rw nosuid nodev noexec",
        ),
        _ => return None,
    };
    Some(types::Mount {
        target,
        what,
        flags: flags.split(' ').map(str::to_owned).collect(),
    })
}

fn kernel(target: &str, what: &str, flags: &'static str) -> (String, String, &'static str) {
    (target.to_owned(), what.to_owned(), flags)
}

fn attribute_flags(attributes: Attributes) -> Vec<String> {
    let all = [
        (attributes.read_only, "ro"),
        (!attributes.read_only, "rw"),
        (attributes.no_suid, "nosuid"),
        (attributes.no_dev, "nodev"),
        (attributes.no_exec, "noexec"),
    ];
    let set = all.into_iter().filter(|(is_set, _)| *is_set);
    set.map(|(_, name)| name.to_owned()).collect()
}

fn paths(
    plan: &LaunchPlan,
    of: impl Fn(&SetUpStep) -> Option<&Vec<std::path::PathBuf>>,
) -> Vec<String> {
    let all = plan.set_up.iter().filter_map(of).flatten();
    all.map(|path| path.display().to_string()).collect()
}

fn limits(sketch: &Sketch) -> Vec<types::Limit> {
    let size = &sketch.size;
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let mut all = vec![
        (
            "memory",
            format!("{}, killed at twice that", mib(size.memory_bytes)),
        ),
        ("cpu", format!("{} shares", size.cpu_shares)),
    ];
    if let Some(percent) = size.cpu_percent {
        all.push(("cpu time", format!("{percent} % of one CPU")));
    }
    all.push(("processes and threads", size.tasks_max.to_string()));
    all.push((
        "writable files",
        format!("{}, {} files", mib(size.disk.bytes), size.disk.inodes),
    ));
    for step in &sketch.plan.app {
        if let AppStep::Limit {
            resource,
            soft,
            hard,
        } = step
        {
            let number = |value: &u64| match *value {
                u64::MAX => "unlimited".to_owned(),
                value => value.to_string(),
            };
            let value = if soft == hard {
                number(soft)
            } else {
                format!("{}, up to {} on its own demand", number(soft), number(hard))
            };
            all.push((resource_name(*resource), value));
        }
    }
    all.into_iter()
        .map(|(name, value)| types::Limit {
            name: name.to_owned(),
            value,
        })
        .collect()
}

/// Those of getrlimit(2), in words.
fn resource_name(resource: Resource) -> &'static str {
    match resource {
        Resource::Nofile => "open files of a process",
        Resource::Nproc => "processes of its user",
        Resource::Core => "core file bytes",
        Resource::Cpu => "cpu seconds of a process",
        Resource::Fsize => "bytes of a file",
        Resource::Data => "bytes of data",
        Resource::Stack => "bytes of the stack",
        Resource::Rss => "bytes resident",
        Resource::Memlock => "bytes locked in memory",
        Resource::As => "bytes of address space",
        Resource::Locks => "file locks",
        Resource::Sigpending => "queued signals",
        Resource::Msgqueue => "bytes in message queues",
        Resource::Nice => "ceiling of nice (20 - nice)",
        Resource::Rtprio => "ceiling of real-time priority",
        Resource::Rttime => "microseconds of real-time",
    }
}

fn network(facts: &Facts, rules: Vec<types::NetworkRule>) -> types::SecurityNetwork {
    let mut reaches = vec!["the outside world over IPv4, from the host's address".to_owned()];
    reaches.extend(
        facts
            .resolvers
            .iter()
            .map(|r| format!("the resolver {r}, port 53")),
    );
    reaches.extend(facts.allowed.iter().map(|net| format!("{net} (settings)")));
    reaches.extend(rules.iter().map(|rule| match rule.kind.as_str() {
        "app" => format!(
            "{} at http://{}/ (network:allow)",
            rule.target, rule.address
        ),
        _ => format!("{} (network:allow)", rule.target),
    }));
    let mut closed = vec![
        "this host: no address of it, loopback included".to_owned(),
        "other dynos, of the same app too".to_owned(),
        "IPv6 beyond ::1".to_owned(),
    ];
    closed.extend(facts.dropped.iter().map(|net| format!("{net}, silently")));
    closed.extend(facts.refused.iter().cloned());
    types::SecurityNetwork {
        reaches,
        does_not_reach: closed,
        resolvers: facts.resolvers.clone(),
        connections_max: facts.connections_max,
        rules,
        table: facts.table.clone(),
    }
}
