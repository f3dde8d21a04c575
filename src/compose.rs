//! The one place that knows all rooms: picks the role, starts the rooms in order and stops them
//! in reverse.

use std::process::ExitCode;

/// Entry point of every role.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
