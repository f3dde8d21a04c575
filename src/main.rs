//! The `manifold` program: one binary that is CLI, supervisor, keeper and unpacker.

use std::process::ExitCode;

fn main() -> ExitCode {
    manifold::compose::main()
}
