/* The floor under a launch: the system calls that an isolated process costs, and nothing else.
 *
 * Same namespaces, overlay over id-mapped layers, cgroup with limits, file systems, user
 * namespace, filter and reaping PID 1 as a dyno, from a small parent; no plan, no protocol, no
 * masks, no names, no logs. Network and user namespace are made ahead, as in manifold's pool.
 * Prints one line of microseconds per launch: decided to exec of the command, then to its end.
 *
 *   floor COUNT DIR LOWER CGROUP-DIR...      (one directory: v2; several: one per v1 controller)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(call) ((call) < 0 ? (die(#call), -1) : 0)
#define CLONE_TREE (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)

int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static int checked(int fd, const char *what) {
    if (fd < 0) die(what);
    return fd;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void put(const char *dir, const char *file, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return; /* this controller has no such file */
    if (write(fd, text, strlen(text)) < 0) die(path);
    close(fd);
}

/* A balanced tree over the numbers 0..FILTERED, each with a verdict of its own. */
enum { FILTERED = 448 };
static struct sock_filter filter[4096];
static unsigned short filter_length;

static void tree(unsigned from, unsigned to) {
    if (to - from == 1) {
        struct sock_filter verdict = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        filter[filter_length++] = verdict;
        return;
    }
    unsigned middle = (from + to) / 2;
    unsigned short at = filter_length++;
    tree(from, middle);
    unsigned jump = (unsigned)(filter_length - at - 1);
    if (jump > 255) { /* out of reach of a conditional: hop over an unconditional one */
        memmove(&filter[at + 2], &filter[at + 1], jump * sizeof *filter);
        filter_length++;
        struct sock_filter test = BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, middle, 0, 1);
        struct sock_filter hop = BPF_JUMP(BPF_JMP | BPF_JA, jump, 0, 0);
        filter[at] = test;
        filter[at + 1] = hop;
    } else {
        struct sock_filter test = BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, middle, (uint8_t)jump, 0);
        filter[at] = test;
    }
    tree(middle, to);
}

static void compile(void) {
    struct sock_filter load = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    filter[filter_length++] = load;
    tree(0, FILTERED);
}

/* A user namespace that maps 0..65536, kept by a descriptor. */
static int user_namespace(void) {
    int go[2];
    CHECK(pipe(go));
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        CHECK(unshare(CLONE_NEWUSER));
        CHECK(write(go[1], "r", 1));
        pause();
        _exit((int)read(go[0], &byte, 1));
    }
    char byte, dir[64], path[96];
    CHECK(read(go[0], &byte, 1));
    snprintf(dir, sizeof dir, "/proc/%d", pid);
    put(dir, "uid_map", "0 200000 65536");
    put(dir, "gid_map", "0 200000 65536");
    snprintf(path, sizeof path, "%s/ns/user", dir);
    int fd = checked(open(path, O_RDONLY | O_CLOEXEC), path);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(go[0]);
    close(go[1]);
    return fd;
}

static int network_namespace(void) {
    int home = checked(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), "netns");
    CHECK(unshare(CLONE_NEWNET));
    int fd = checked(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), "netns");
    CHECK(setns(home, CLONE_NEWNET));
    close(home);
    return fd;
}

static void set(int fs, const char *key, const char *value) {
    CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0));
}

static int made(int fs, unsigned flags) {
    CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    return checked((int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, flags), "fsmount");
}

static int fs(const char *kind) {
    return checked((int)syscall(SYS_fsopen, kind, FSOPEN_CLOEXEC), kind);
}

static void attach(int tree, int dir, const char *path) {
    CHECK(syscall(SYS_move_mount, tree, "", dir, path, MOVE_MOUNT_F_EMPTY_PATH));
}

static int mapped(const char *path, int user) {
    int tree = checked((int)syscall(SYS_open_tree, AT_FDCWD, path, CLONE_TREE), path);
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    if (user >= 0) {
        attr.attr_set |= MOUNT_ATTR_IDMAP;
        attr.userns_fd = (uint64_t)user;
    }
    CHECK(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof attr));
    return tree;
}

static void root(const char *lower, const char *writable, int user) {
    CHECK(mount(NULL, "/", NULL, 0x44000 /* MS_REC | MS_PRIVATE */, NULL));
    attach(mapped(lower, user), AT_FDCWD, "lower");
    attach(checked((int)syscall(SYS_open_tree, AT_FDCWD, writable, CLONE_TREE), writable), AT_FDCWD, "up");
    int overlay = fs("overlay");
    set(overlay, "lowerdir", "lower");
    set(overlay, "upperdir", "up/upper");
    set(overlay, "workdir", "up/work");
    CHECK(syscall(SYS_fsconfig, overlay, FSCONFIG_SET_FLAG, "volatile", NULL, 0));
    attach(made(overlay, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV), AT_FDCWD, "root");
    int top = checked(open("root", O_PATH | O_DIRECTORY | O_CLOEXEC), "root");
    attach(mapped("/usr", user), top, "usr");
    const unsigned inert = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    attach(made(fs("proc"), inert), top, "proc");
    attach(made(fs("sysfs"), inert | MOUNT_ATTR_RDONLY), top, "sys");
    attach(checked((int)syscall(SYS_open_tree, AT_FDCWD, "dev", CLONE_TREE), "dev"), top, "dev");
    int pts = fs("devpts");
    set(pts, "ptmxmode", "0666");
    attach(made(pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC), top, "dev/pts");
    int shm = fs("tmpfs");
    set(shm, "size", "67108864");
    attach(made(shm, inert), top, "dev/shm");
    attach(made(fs("mqueue"), inert), top, "dev/mqueue");
    CHECK(fchdir(top));
    CHECK(syscall(SYS_pivot_root, ".", "."));
    CHECK(umount2(".", 2 /* MNT_DETACH */));
    CHECK(chdir("/"));
}

static void app(int user, int log) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    struct sock_fprog program = {filter_length, filter};
    char *argv[] = {"/bin/true", NULL}, *env[] = {"PATH=/usr/bin:/bin", NULL};
    CHECK(setsid());
    dup2(log, 1);
    dup2(log, 2);
    CHECK(setns(user, CLONE_NEWUSER));
    CHECK(syscall(SYS_setgroups, 0, NULL));
    CHECK(syscall(SYS_setresgid, 1000, 1000, 1000));
    CHECK(syscall(SYS_setresuid, 1000, 1000, 1000));
    CHECK(syscall(SYS_capset, &head, none));
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
    execve(argv[0], argv, env);
    die("exec");
}

static void launch(const char *dir, const char *lower, char **groups, int count, int user, int net) {
    char path[512], group[8][512];
    int tasks[8], log[2], told[2];
    double start = now();
    for (int at = 0; at < count; at++) {
        snprintf(group[at], sizeof group[at], "%s/floor", groups[at]);
        CHECK(mkdir(group[at], 0700));
        put(group[at], count == 1 ? "memory.max" : "memory.limit_in_bytes", "1073741824");
        put(group[at], "pids.max", "256");
        snprintf(path, sizeof path, "%s/tasks", group[at]);
        tasks[at] = count == 1 ? checked(open(group[at], O_RDONLY | O_DIRECTORY | O_CLOEXEC), group[at])
                               : checked(open(path, O_WRONLY | O_CLOEXEC), path);
    }
    const char *parts[] = {"", "/upper", "/work"};
    for (int at = 0; at < 3; at++) {
        snprintf(path, sizeof path, "%s/writable%s", dir, parts[at]);
        CHECK(mkdir(path, 0755));
    }
    snprintf(path, sizeof path, "%s/writable/upper", dir);
    CHECK(chown(path, 200000, 200000));
    CHECK(pipe2(log, O_CLOEXEC));
    CHECK(pipe2(told, O_CLOEXEC));
    struct clone_args args = {0};
    args.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC;
    args.exit_signal = SIGCHLD;
    if (count == 1) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)tasks[0];
    }
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) die("clone3");
    if (pid == 0) {
        for (int at = 0; count > 1 && at < count; at++) CHECK(write(tasks[at], "0", 1));
        CHECK(setns(net, CLONE_NEWNET));
        CHECK(unshare(CLONE_NEWCGROUP));
        snprintf(path, sizeof path, "%s/writable", dir);
        root(lower, path, user);
        pid_t inner = fork();
        if (inner == 0) app(user, log[1]);
        syscall(SYS_close_range, 3, ~0U, 0);
        int status;
        waitpid(inner, &status, 0);
        _exit(WEXITSTATUS(status));
    }
    close(told[1]);
    close(log[1]);
    char byte;
    if (read(told[0], &byte, 1) != 0) die("exec");
    double ran = now();
    int status;
    waitpid(pid, &status, 0);
    if (status != 0) die("the command");
    for (int at = 0; at < count; at++) {
        close(tasks[at]);
        while (rmdir(group[at]) < 0 && errno == EBUSY) sched_yield();
    }
    snprintf(path, sizeof path, "rm -rf %s/writable", dir);
    double end = now();
    if (system(path) != 0) die(path);
    close(told[0]);
    close(log[0]);
    printf("%.1f %.1f\n", ran - start, end - start);
}

static void template(void) {
    const char *dirs[] = {"lower", "up", "root", "dev"};
    for (int at = 0; at < 4; at++) CHECK(mkdir(dirs[at], 0755));
    CHECK(mount("dev", "dev", "tmpfs", 0, "mode=755"));
    CHECK(mkdir("dev/pts", 0755));
    CHECK(mkdir("dev/shm", 0755));
    CHECK(mkdir("dev/mqueue", 0755));
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    const char *dir = argv[2];
    compile();
    CHECK(unshare(CLONE_NEWNS));
    CHECK(mount(NULL, "/", NULL, 0x44000, NULL));
    CHECK(chdir(dir));
    CHECK(mount("floor", dir, "tmpfs", 0, "mode=755"));
    CHECK(chdir(dir));
    template();
    /* The writable layer lies on the real file system, beside the scratch. */
    char writable[512];
    snprintf(writable, sizeof writable, "%s-writable", dir);
    int user = user_namespace();
    for (int at = atoi(argv[1]); at > 0; at--) {
        int net = network_namespace();
        launch(writable, argv[3], argv + 4, argc - 4, user, net);
        close(net);
    }
    return 0;
}
