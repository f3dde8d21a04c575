//! The only room with `unsafe`: system calls that no kept crate wraps as we need them.
//!
//! One call per block, each under a `// SAFETY:` that names its conditions; owned file
//! descriptors in and out; errors are `io::Error` with the kernel's errno.

#![expect(unsafe_code, reason = "this room is where unsafe lives")]

mod background;
mod fault;
mod fd;
mod flags;
mod heap;
mod kmsg;
mod loop_device;
mod mount;
mod neutral;
mod overlay;
mod owner;
mod process;
mod replace;
mod terminal;
mod watch;

pub use background::{in_background, later};
pub use fault::{Fault, fault, passed};
pub use fd::{adopt, inheritable, move_to};
pub use flags::spread_out;
pub use heap::bound_heaps;
pub use kmsg::kernel_messages;
pub use loop_device::{LoopDevice, trim};
pub use mount::{
    FsContext, MountAttributes, TreeFlags, attach, mount_setattr, open_in_root,
    open_in_root_without_links, open_tree, open_tree_at,
};
pub use neutral::{
    default_timer_slack, erase_arguments, find_arguments, new_session_keyring, normal_priority,
    set_domain_name,
};
pub use overlay::is_opaque;
pub use owner::{
    APP_ID, give_to_app, installed_program, own_program, show_as_spare, show_own_name,
};
pub use process::{
    Clone3, Fork, bounding_drop, clear_ambient, close_all_but, close_from, close_on_exec_from,
    die_with_parent, exit_now, install_filter, keep_capabilities_across_ids, kill_everyone,
    no_new_privileges, not_dumpable, pidfd_open, pidfd_send_signal, reset_signals,
    set_capabilities_none, set_ids, set_securebits, swap_signal_mask, vfork, wait_signal,
};
pub use replace::replace_file;
pub use terminal::{make_controlling, open_slave, set_window_size, unlock, window_size};
pub use watch::watch;
