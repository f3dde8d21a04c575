//! The system-call filter: an allow-list as data, compiled once to a balanced tree of BPF.
//!
//! Unknown numbers answer ENOSYS so that libc falls back; what is known and dangerous answers
//! EPERM; other ABIs (i386, x32) are killed or ENOSYS. Base: what container engines allow by
//! default to a process without capabilities, less what a dyno has no use for (new mount API,
//! keyrings, `io_uring`, bpf, ptrace, namespaces), and less asynchronous I/O (`io_setup`), of which
//! the host has one bound for all (`fs.aio-max-nr`). Source: seccomp(2), syscalls(2).

use libc::sock_filter;

/// Calls a dyno may make.
#[rustfmt::skip]
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read, libc::SYS_write, libc::SYS_open, libc::SYS_close, libc::SYS_stat,
    libc::SYS_fstat, libc::SYS_lstat, libc::SYS_poll, libc::SYS_lseek, libc::SYS_mmap,
    libc::SYS_mprotect, libc::SYS_munmap, libc::SYS_brk, libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_pread64, libc::SYS_pwrite64,
    libc::SYS_readv, libc::SYS_writev, libc::SYS_access, libc::SYS_pipe, libc::SYS_select,
    libc::SYS_sched_yield, libc::SYS_mremap, libc::SYS_msync, libc::SYS_mincore,
    libc::SYS_madvise, libc::SYS_shmget, libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_dup,
    libc::SYS_dup2, libc::SYS_pause, libc::SYS_nanosleep, libc::SYS_getitimer, libc::SYS_alarm,
    libc::SYS_setitimer, libc::SYS_getpid, libc::SYS_sendfile, libc::SYS_connect,
    libc::SYS_accept, libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_sendmsg,
    libc::SYS_recvmsg, libc::SYS_shutdown, libc::SYS_bind, libc::SYS_listen,
    libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_socketpair, libc::SYS_setsockopt,
    libc::SYS_getsockopt, libc::SYS_fork, libc::SYS_vfork, libc::SYS_execve, libc::SYS_exit,
    libc::SYS_wait4, libc::SYS_kill, libc::SYS_uname, libc::SYS_semget, libc::SYS_semop,
    libc::SYS_semctl, libc::SYS_shmdt, libc::SYS_msgget, libc::SYS_msgsnd, libc::SYS_msgrcv,
    libc::SYS_msgctl, libc::SYS_fcntl, libc::SYS_flock, libc::SYS_fsync, libc::SYS_fdatasync,
    libc::SYS_truncate, libc::SYS_ftruncate, libc::SYS_getdents, libc::SYS_getcwd,
    libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_rename, libc::SYS_mkdir, libc::SYS_rmdir,
    libc::SYS_creat, libc::SYS_link, libc::SYS_unlink, libc::SYS_symlink, libc::SYS_readlink,
    libc::SYS_chmod, libc::SYS_fchmod, libc::SYS_chown, libc::SYS_fchown, libc::SYS_lchown,
    libc::SYS_umask, libc::SYS_gettimeofday, libc::SYS_getrlimit, libc::SYS_getrusage,
    libc::SYS_sysinfo, libc::SYS_times, libc::SYS_getuid, libc::SYS_getgid, libc::SYS_setuid,
    libc::SYS_setgid, libc::SYS_geteuid, libc::SYS_getegid, libc::SYS_setpgid,
    libc::SYS_getppid, libc::SYS_getpgrp, libc::SYS_setsid, libc::SYS_setreuid,
    libc::SYS_setregid, libc::SYS_getgroups, libc::SYS_setgroups, libc::SYS_setresuid,
    libc::SYS_getresuid, libc::SYS_setresgid, libc::SYS_getresgid, libc::SYS_getpgid,
    libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_getsid, libc::SYS_capget,
    libc::SYS_capset, libc::SYS_rt_sigpending, libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigqueueinfo, libc::SYS_rt_sigsuspend, libc::SYS_sigaltstack, libc::SYS_utime,
    libc::SYS_mknod, libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_getpriority,
    libc::SYS_setpriority, libc::SYS_sched_setparam, libc::SYS_sched_getparam,
    libc::SYS_sched_setscheduler, libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min,
    libc::SYS_sched_rr_get_interval, libc::SYS_mlock, libc::SYS_munlock, libc::SYS_mlockall,
    libc::SYS_munlockall, libc::SYS_prctl, libc::SYS_arch_prctl,
    libc::SYS_sync, libc::SYS_gettid, libc::SYS_readahead, libc::SYS_setxattr,
    libc::SYS_lsetxattr, libc::SYS_fsetxattr, libc::SYS_getxattr, libc::SYS_lgetxattr,
    libc::SYS_fgetxattr, libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_flistxattr,
    libc::SYS_removexattr, libc::SYS_lremovexattr, libc::SYS_fremovexattr, libc::SYS_tkill,
    libc::SYS_time, libc::SYS_futex, libc::SYS_sched_setaffinity, libc::SYS_sched_getaffinity,
    libc::SYS_epoll_create, libc::SYS_remap_file_pages,
    libc::SYS_getdents64, libc::SYS_set_tid_address, libc::SYS_restart_syscall,
    libc::SYS_semtimedop, libc::SYS_fadvise64, libc::SYS_timer_create, libc::SYS_timer_settime,
    libc::SYS_timer_gettime, libc::SYS_timer_getoverrun, libc::SYS_timer_delete,
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep,
    libc::SYS_exit_group, libc::SYS_epoll_wait, libc::SYS_epoll_ctl, libc::SYS_tgkill,
    libc::SYS_utimes, libc::SYS_mq_open, libc::SYS_mq_unlink, libc::SYS_mq_timedsend,
    libc::SYS_mq_timedreceive, libc::SYS_mq_notify, libc::SYS_mq_getsetattr, libc::SYS_waitid,
    libc::SYS_ioprio_set, libc::SYS_ioprio_get, libc::SYS_inotify_init,
    libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch, libc::SYS_openat,
    libc::SYS_mkdirat, libc::SYS_mknodat, libc::SYS_fchownat, libc::SYS_futimesat,
    libc::SYS_newfstatat, libc::SYS_unlinkat, libc::SYS_renameat, libc::SYS_linkat,
    libc::SYS_symlinkat, libc::SYS_readlinkat, libc::SYS_fchmodat, libc::SYS_faccessat,
    libc::SYS_pselect6, libc::SYS_ppoll, libc::SYS_set_robust_list, libc::SYS_get_robust_list,
    libc::SYS_splice, libc::SYS_tee, libc::SYS_sync_file_range, libc::SYS_vmsplice,
    libc::SYS_utimensat, libc::SYS_epoll_pwait, libc::SYS_signalfd, libc::SYS_timerfd_create,
    libc::SYS_eventfd, libc::SYS_fallocate, libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime, libc::SYS_accept4, libc::SYS_signalfd4, libc::SYS_eventfd2,
    libc::SYS_epoll_create1, libc::SYS_dup3, libc::SYS_pipe2, libc::SYS_inotify_init1,
    libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_rt_tgsigqueueinfo, libc::SYS_recvmmsg,
    libc::SYS_syncfs, libc::SYS_sendmmsg, libc::SYS_getcpu,
    libc::SYS_sched_setattr, libc::SYS_sched_getattr, libc::SYS_renameat2, libc::SYS_getrandom,
    libc::SYS_memfd_create, libc::SYS_execveat, libc::SYS_membarrier, libc::SYS_mlock2,
    libc::SYS_copy_file_range, libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_pkey_mprotect,
    libc::SYS_pkey_alloc, libc::SYS_pkey_free, libc::SYS_statx, libc::SYS_rseq,
    libc::SYS_pidfd_send_signal, libc::SYS_pidfd_open, libc::SYS_close_range,
    libc::SYS_openat2, libc::SYS_faccessat2, libc::SYS_epoll_pwait2,
    libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self, libc::SYS_memfd_secret, libc::SYS_process_mrelease,
    libc::SYS_futex_waitv, libc::SYS_fchmodat2,
];

/// Calls that answer EPERM rather than ENOSYS: programs know them and must be told "no".
#[rustfmt::skip]
const DENIED: &[libc::c_long] = &[
    libc::SYS_ptrace, libc::SYS_syslog, libc::SYS_mount, libc::SYS_umount2, libc::SYS_chroot,
    libc::SYS_pivot_root, libc::SYS_setns, libc::SYS_unshare, libc::SYS_bpf,
    libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_keyctl, libc::SYS_add_key,
    libc::SYS_request_key, libc::SYS_kexec_load, libc::SYS_kexec_file_load,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module,
    libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at, libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev, libc::SYS_kcmp, libc::SYS_pidfd_getfd, libc::SYS_swapon,
    libc::SYS_swapoff, libc::SYS_reboot, libc::SYS_quotactl, libc::SYS_acct,
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime,
    libc::SYS_adjtimex, libc::SYS_vhangup, libc::SYS_iopl, libc::SYS_ioperm,
    libc::SYS_move_pages, libc::SYS_migrate_pages, libc::SYS_mbind, libc::SYS_set_mempolicy,
    libc::SYS_get_mempolicy, libc::SYS_sethostname, libc::SYS_setdomainname,
    libc::SYS_fanotify_init, libc::SYS_lookup_dcookie, libc::SYS_modify_ldt,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig,
    libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_mount_setattr,
];

/// Namespace flags a clone must not carry. Source: clone(2).
const NAMESPACES: u32 = 0x7E02_0000;

/// `socket` and its families that are allowed. Source: `address_families(7)`.
const FAMILIES: &[u32] = &[1, 2, 10];
const NETLINK: u32 = 16;

/// `ioctl` requests that inject input into terminals (low 32 bits decide).
const INJECTING: &[u32] = &[0x5412, 0x541C];

/// The limit of core files is 1 and stays: with any other one, 0 included, the host's core handler
/// would run for a dyno's crash. Setting it is a success without effect, as programs that turn
/// cores off expect. Source: core(5), "Piping core dumps to a program".
const CORE: u32 = 4;

/// `personality` values that are allowed; `0xffffffff` asks.
const PERSONALITIES: &[u32] = &[0, 0x0008, 0x0002_0000, 0x0002_0008, 0xFFFF_FFFF];

const RET_ALLOW: u32 = 0x7FFF_0000;
const RET_KILL: u32 = 0x8000_0000;
// SECCOMP_RET_ERRNO with ENOSYS (38), EPERM (1), EAFNOSUPPORT (97) in its low half.
const WITHOUT_EFFECT: u32 = 0x0005_0000;
const ENOSYS: u32 = 0x0005_0026;
const EPERM: u32 = 0x0005_0001;
const EAFNOSUPPORT: u32 = 0x0005_0061;
const ARCH_X86_64: u32 = 0xC000_003E;
const X32_BIT: u32 = 0x4000_0000;

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const fn argument(n: u32) -> u32 {
    16 + 8 * n
}

fn op(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// What a call number leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Return(u32),
    /// A little program of its own, ending in returns.
    Check(Vec<(u16, u32, u8, u8)>),
}

impl Verdict {
    fn code(&self) -> Vec<sock_filter> {
        match self {
            Self::Return(value) => vec![op(RETURN, *value)],
            Self::Check(steps) => steps
                .iter()
                .map(|&(code, k, jt, jf)| branch(code, k, jt, jf))
                .collect(),
        }
    }
}

/// Allows when a word of arguments equals one of `values`, else returns `otherwise`.
fn one_of(word: u32, values: &[u32], otherwise: u32) -> Vec<(u16, u32, u8, u8)> {
    let mut steps = vec![(LOAD, word, 0, 0)];
    for (at, value) in values.iter().enumerate() {
        let to_allow = u8::try_from(values.len() - at).expect("a short list");
        steps.push((JUMP_EQUAL, *value, to_allow, 0));
    }
    steps.push((RETURN, otherwise, 0, 0));
    steps.push((RETURN, RET_ALLOW, 0, 0));
    steps
}

fn verdicts() -> Vec<(u32, Verdict)> {
    let number = |n: libc::c_long| u32::try_from(n).expect("call numbers are small");
    let mut all: Vec<(u32, Verdict)> = Vec::new();
    all.extend(
        ALLOWED
            .iter()
            .map(|&n| (number(n), Verdict::Return(RET_ALLOW))),
    );
    all.extend(DENIED.iter().map(|&n| (number(n), Verdict::Return(EPERM))));
    let clone = vec![
        (LOAD, argument(0), 0, 0),
        (JUMP_SET, NAMESPACES, 0, 1),
        (RETURN, EPERM, 0, 0),
        (RETURN, RET_ALLOW, 0, 0),
    ];
    all.push((number(libc::SYS_clone), Verdict::Check(clone)));
    let mut inject = vec![(LOAD, argument(1), 0, 0)];
    inject.push((JUMP_EQUAL, INJECTING[0], 1, 0));
    inject.push((JUMP_EQUAL, INJECTING[1], 0, 1));
    inject.push((RETURN, EPERM, 0, 0));
    inject.push((RETURN, RET_ALLOW, 0, 0));
    all.push((number(libc::SYS_ioctl), Verdict::Check(inject)));
    let personality = one_of(argument(0), PERSONALITIES, EPERM);
    all.push((number(libc::SYS_personality), Verdict::Check(personality)));
    // Netlink only for routes (protocol 0): what libc's getifaddrs needs.
    let mut socket = vec![(LOAD, argument(0), 0, 0)];
    socket.push((JUMP_EQUAL, FAMILIES[0], 6, 0));
    socket.push((JUMP_EQUAL, FAMILIES[1], 5, 0));
    socket.push((JUMP_EQUAL, FAMILIES[2], 4, 0));
    socket.push((JUMP_EQUAL, NETLINK, 0, 2));
    socket.push((LOAD, argument(2), 0, 0));
    socket.push((JUMP_EQUAL, 0, 1, 0));
    socket.push((RETURN, EAFNOSUPPORT, 0, 0));
    socket.push((RETURN, RET_ALLOW, 0, 0));
    all.push((number(libc::SYS_socket), Verdict::Check(socket)));
    let setrlimit = vec![
        (LOAD, argument(0), 0, 0),
        (JUMP_EQUAL, CORE, 0, 1),
        (RETURN, WITHOUT_EFFECT, 0, 0),
        (RETURN, RET_ALLOW, 0, 0),
    ];
    all.push((number(libc::SYS_setrlimit), Verdict::Check(setrlimit)));
    // Asking (no new limit: both halves of the pointer are zero) is always allowed.
    let prlimit = vec![
        (LOAD, argument(1), 0, 0),
        (JUMP_EQUAL, CORE, 0, 5),
        (LOAD, argument(2), 0, 0),
        (JUMP_EQUAL, 0, 0, 2),
        (LOAD, argument(2) + 4, 0, 0),
        (JUMP_EQUAL, 0, 1, 0),
        (RETURN, WITHOUT_EFFECT, 0, 0),
        (RETURN, RET_ALLOW, 0, 0),
    ];
    all.push((number(libc::SYS_prlimit64), Verdict::Check(prlimit)));
    all.sort_by_key(|(n, _)| *n);
    all
}

/// Runs of neighbouring numbers with the same verdict: what the tree's leaves are.
fn ranges() -> Vec<(u32, Verdict)> {
    let mut starts: Vec<(u32, Verdict)> = Vec::new();
    let mut next = 0;
    let mut push = |from: u32, verdict: Verdict| {
        if starts.last().is_none_or(|(_, last)| *last != verdict) {
            starts.push((from, verdict));
        }
    };
    for (number, verdict) in verdicts() {
        if number > next {
            push(next, Verdict::Return(ENOSYS));
        }
        push(number, verdict);
        next = number + 1;
    }
    push(next, Verdict::Return(ENOSYS));
    starts
}

fn tree(leaves: &[(u32, Verdict)]) -> Vec<sock_filter> {
    if let [(_, verdict)] = leaves {
        return verdict.code();
    }
    let (low, high) = leaves.split_at(leaves.len() / 2);
    let (left, right) = (tree(low), tree(high));
    let mut code = Vec::with_capacity(left.len() + right.len() + 2);
    // At or above the pivot: skip the left half (by a long jump, halves outgrow 255).
    code.push(branch(JUMP_GREATER_EQUAL, high[0].0, 0, 1));
    code.push(op(
        JUMP,
        u32::try_from(left.len()).expect("a short program"),
    ));
    code.extend(left);
    code.extend(right);
    code
}

/// How many calls are allowed as they are.
pub(super) fn allowed_calls() -> usize {
    ALLOWED.len()
}

/// The calls that answer EPERM, for the test that holds their reasons to them.
#[cfg(test)]
pub(super) fn denied_calls() -> &'static [libc::c_long] {
    DENIED
}

/// The compiled filter.
pub fn compile() -> Vec<sock_filter> {
    let mut code = vec![
        op(LOAD, OFFSET_ARCH),
        branch(JUMP_EQUAL, ARCH_X86_64, 1, 0),
        op(RETURN, RET_KILL),
        op(LOAD, OFFSET_NUMBER),
        branch(JUMP_GREATER_EQUAL, X32_BIT, 0, 1),
        op(RETURN, ENOSYS),
    ];
    code.extend(tree(&ranges()));
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets the compiled program on one call, as the kernel would.
    fn run(code: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut words = vec![number, arch, 0, 0];
        for value in arguments {
            words.push(u32::try_from(value & 0xFFFF_FFFF).expect("masked"));
            words.push(u32::try_from(value >> 32).expect("shifted"));
        }
        let (mut at, mut a) = (0, 0);
        loop {
            let step = &code[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
            match step.code {
                LOAD => a = words[step.k as usize / 4],
                JUMP => at += step.k as usize,
                JUMP_EQUAL => at += jump(a == step.k),
                JUMP_GREATER_EQUAL => at += jump(a >= step.k),
                JUMP_SET => at += jump(a & step.k != 0),
                RETURN => return step.k,
                other => panic!("unknown instruction {other}"),
            }
        }
    }

    fn verdict(number: libc::c_long, arguments: [u64; 6]) -> u32 {
        run(
            &compile(),
            ARCH_X86_64,
            u32::try_from(number).expect("small"),
            arguments,
        )
    }

    #[test]
    fn every_number_meets_its_list_and_no_other() {
        let code = compile();
        for number in 0..600_u32 {
            let listed = |list: &[libc::c_long]| list.contains(&libc::c_long::from(number));
            let checked = [
                libc::SYS_clone,
                libc::SYS_ioctl,
                libc::SYS_personality,
                libc::SYS_socket,
                libc::SYS_setrlimit,
                libc::SYS_prlimit64,
            ];
            if checked.contains(&libc::c_long::from(number)) {
                continue;
            }
            let expected = if listed(ALLOWED) {
                RET_ALLOW
            } else if listed(DENIED) {
                EPERM
            } else {
                ENOSYS
            };
            assert_eq!(
                run(&code, ARCH_X86_64, number, [0; 6]),
                expected,
                "call {number}"
            );
        }
    }

    #[test]
    fn clone_may_make_threads_but_no_namespaces() {
        assert_eq!(
            verdict(libc::SYS_clone, [0x003D_0F00, 0, 0, 0, 0, 0]),
            RET_ALLOW
        );
        for flag in [
            0x0002_0000_u64,
            0x0200_0000,
            0x0400_0000,
            0x0800_0000,
            0x1000_0000,
            0x2000_0000,
            0x4000_0000,
        ] {
            assert_eq!(
                verdict(libc::SYS_clone, [flag + 17, 0, 0, 0, 0, 0]),
                EPERM,
                "{flag:x}"
            );
        }
        assert_eq!(verdict(libc::SYS_clone3, [0; 6]), ENOSYS);
    }

    #[test]
    fn the_limit_of_core_files_cannot_be_changed() {
        for pointer in [0x10_u64, 1 << 32] {
            let set = [0, u64::from(CORE), pointer, 0, 0, 0];
            assert_eq!(verdict(libc::SYS_prlimit64, set), WITHOUT_EFFECT);
        }
        let ask = [0, u64::from(CORE), 0, 0x10, 0, 0];
        assert_eq!(verdict(libc::SYS_prlimit64, ask), RET_ALLOW);
        assert_eq!(
            verdict(libc::SYS_prlimit64, [0, 7, 0x10, 0, 0, 0]),
            RET_ALLOW
        );
        assert_eq!(
            verdict(libc::SYS_setrlimit, [u64::from(CORE), 0x10, 0, 0, 0, 0]),
            WITHOUT_EFFECT
        );
        assert_eq!(
            verdict(libc::SYS_setrlimit, [7, 0x10, 0, 0, 0, 0]),
            RET_ALLOW
        );
    }

    /// The table that a dyno is asked about, number by number, by the attack tests.
    #[test]
    fn every_number_answers_as_the_checked_in_table_says() {
        let code = compile();
        for line in include_str!("../../tests/kernel/attack/syscalls.txt").lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [number, name, answer] = words.as_slice() else {
                continue;
            };
            let expected = match *answer {
                "allow" => RET_ALLOW,
                "EPERM" => EPERM,
                "ENOSYS" => ENOSYS,
                _ => continue,
            };
            let Ok(number) = number.parse() else { continue };
            let seen = run(&code, ARCH_X86_64, number, [0; 6]);
            assert_eq!(seen, expected, "call {number}, {name}");
        }
    }

    #[test]
    fn only_four_socket_families_exist() {
        for family in 0..50_u64 {
            let expected = if [1, 2, 10, 16].contains(&family) {
                RET_ALLOW
            } else {
                EAFNOSUPPORT
            };
            assert_eq!(
                verdict(libc::SYS_socket, [family, 1, 0, 0, 0, 0]),
                expected,
                "{family}"
            );
        }
        assert_eq!(
            verdict(libc::SYS_socket, [16, 3, 9, 0, 0, 0]),
            EAFNOSUPPORT,
            "audit"
        );
    }

    #[test]
    fn terminal_injection_is_refused_whatever_the_high_bits() {
        for request in [0x5412_u64, 0x5412 | 1 << 32, 0x541C] {
            assert_eq!(verdict(libc::SYS_ioctl, [0, request, 0, 0, 0, 0]), EPERM);
        }
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x5413, 0, 0, 0, 0]), RET_ALLOW);
    }

    #[test]
    fn other_abis_do_not_get_through() {
        let code = compile();
        assert_eq!(run(&code, 0x4000_0003, 1, [0; 6]), RET_KILL, "i386");
        assert_eq!(run(&code, ARCH_X86_64, X32_BIT | 1, [0; 6]), ENOSYS, "x32");
    }
}
