//! Why the filter says no: every denied call by name, grouped by what it would open.

use super::filter;

/// Calls that are denied for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Why, in a few words.
    pub reason: &'static str,
    /// Names and numbers.
    pub calls: &'static [(&'static str, i64)],
}

macro_rules! denied {
    ($($reason:literal: $($name:ident $number:ident),+;)+) => {
        &[$(Denied {
            reason: $reason,
            calls: &[$((stringify!($name), libc::$number)),+],
        }),+]
    };
}

/// Calls that answer EPERM.
#[rustfmt::skip]
pub const DENIED: &[Denied] = denied! {
    "changes mounts or the root": mount SYS_mount, umount2 SYS_umount2, chroot SYS_chroot,
        pivot_root SYS_pivot_root, open_tree SYS_open_tree, move_mount SYS_move_mount,
        fsopen SYS_fsopen, fsconfig SYS_fsconfig, fsmount SYS_fsmount, fspick SYS_fspick,
        mount_setattr SYS_mount_setattr;
    "makes or enters namespaces": setns SYS_setns, unshare SYS_unshare;
    "reads or controls other processes": ptrace SYS_ptrace,
        process_vm_readv SYS_process_vm_readv, process_vm_writev SYS_process_vm_writev,
        kcmp SYS_kcmp, pidfd_getfd SYS_pidfd_getfd;
    "runs code in the kernel": bpf SYS_bpf, kexec_load SYS_kexec_load,
        kexec_file_load SYS_kexec_file_load, init_module SYS_init_module,
        finit_module SYS_finit_module, delete_module SYS_delete_module;
    "much attacked and not needed": io_uring_setup SYS_io_uring_setup,
        io_uring_enter SYS_io_uring_enter, io_uring_register SYS_io_uring_register,
        userfaultfd SYS_userfaultfd, perf_event_open SYS_perf_event_open,
        modify_ldt SYS_modify_ldt;
    "keys are not kept apart by namespaces": keyctl SYS_keyctl, add_key SYS_add_key,
        request_key SYS_request_key;
    "opens files by number, around mounts": open_by_handle_at SYS_open_by_handle_at,
        name_to_handle_at SYS_name_to_handle_at, lookup_dcookie SYS_lookup_dcookie,
        fanotify_init SYS_fanotify_init;
    "sets the host's clock, names, disks or power": settimeofday SYS_settimeofday,
        clock_settime SYS_clock_settime, clock_adjtime SYS_clock_adjtime,
        adjtimex SYS_adjtimex, sethostname SYS_sethostname,
        setdomainname SYS_setdomainname, swapon SYS_swapon, swapoff SYS_swapoff,
        reboot SYS_reboot, quotactl SYS_quotactl, acct SYS_acct, vhangup SYS_vhangup;
    "touches hardware": iopl SYS_iopl, ioperm SYS_ioperm;
    "places memory on nodes": move_pages SYS_move_pages, migrate_pages SYS_migrate_pages,
        mbind SYS_mbind, set_mempolicy SYS_set_mempolicy, get_mempolicy SYS_get_mempolicy;
    "reads the kernel's log": syslog SYS_syslog;
};

/// Calls that are looked into, and what is let through of them.
pub const CHECKED: &[(&str, &str)] = &[
    ("clone", "processes and threads, no new namespaces"),
    (
        "clone3",
        "answers ENOSYS: libc falls back to clone, which can be checked",
    ),
    (
        "ioctl",
        "all but TIOCSTI and TIOCLINUX, which type into terminals",
    ),
    (
        "personality",
        "Linux itself; neither READ_IMPLIES_EXEC nor ADDR_NO_RANDOMIZE",
    ),
    (
        "prlimit64, setrlimit",
        "all but the limit of core files, which stays (success without effect)",
    ),
    (
        "socket",
        "UNIX, INET, INET6 and NETLINK for routes; others answer EAFNOSUPPORT",
    ),
];

/// How many calls are allowed without a look at their arguments.
pub fn allowed_calls() -> usize {
    filter::allowed_calls()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_denied_call_has_a_reason_and_no_other() {
        let mut named: Vec<i64> = DENIED
            .iter()
            .flat_map(|group| group.calls)
            .map(|(_, number)| *number)
            .collect();
        named.sort_unstable();
        let mut denied = filter::denied_calls().to_vec();
        denied.sort_unstable();
        assert_eq!(named, denied);
    }
}
