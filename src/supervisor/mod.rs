//! WHEN a dyno lives: the one task that knows which dynos exist and in which state.
//!
//! Others send it commands through [`Supervisor`] and read the [`Snapshot`] it publishes.
//! It never forks, mounts or talks to the kernel itself: that is behind [`Machine`].

mod command;
mod machine;
mod snapshot;

pub use command::{
    AppSpec, Attachment, CommandError, ReleaseSpec, RunKind, RunOrder, RunStarted, Selector,
    SlugSpec, Supervisor,
};
pub use machine::{
    Backend, Bind, Exited, Failure, LaunchOrder, Launched, LaunchedStdio, Machine, StdioOrder,
    StopSignal, Task, WindowSize,
};
pub use snapshot::{AppView, DynoView, Snapshot};
