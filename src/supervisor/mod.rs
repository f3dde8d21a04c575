//! WHEN a dyno lives: the one task that knows which dynos exist and in which state.
//!
//! Others send it commands through [`Supervisor`] and read the [`Snapshot`] it publishes.
//! It never forks, mounts or talks to the kernel itself: that is behind [`Machine`].
//!
//! States and their lines are a pure table (`lifecycle`), so is the wait after a crash
//! (`backoff`) and the difference between two formations (`formation`). `driver` carries effects
//! out and feeds results back. Dynos outlive a supervisor that crashed or made way for another
//! version: what it knew of each lies with the keeper (`heritage`), and the next one takes them in
//! (`adopt`). Overflow: commands wait for room, exits and launch results are
//! never dropped.

mod adopt;
mod backoff;
mod bounds;
mod command;
mod driver;
mod dyno;
mod effects;
mod formation;
mod groups;
mod heritage;
mod lacks;
mod lifecycle;
mod machine;
mod memory;
mod one_off;
mod openings;
mod preboot;
mod recover;
mod roll;
mod sketch;
mod snapshot;
mod trial;
mod upper;
mod usage;
#[cfg(debug_assertions)]
mod weaken;

#[cfg(test)]
mod tests;

pub use command::{
    Allowance, AppSpec, Attachment, CommandError, ReleaseSpec, RunKind, RunOrder, RunStarted,
    Selector, SlugSpec, Supervisor,
};
pub use effects::{LinuxMachine, MachineError, MachineEvents};
pub use heritage::{Adopted, Estate, Record};
pub use machine::{
    Backend, Bind, Exited, Failure, LaunchOrder, Launched, LaunchedStdio, Machine, StdioOrder,
    StopSignal, Task, WindowSize,
};
pub use memory::{R14, R15, running_line};
pub use recover::sweep;
pub use sketch::Sketch;
pub use snapshot::{AppView, DynoView, Part, Snapshot, Trial, app_view};
pub use usage::{DiskRoom, DynoUsage, Sample, Usages};
