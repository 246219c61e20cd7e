//! `underpass` for tests: leaves out the protections that `UNDERPASS_WITHOUT` names, so that a
//! test shows the harm that each of them keeps away. Never built unless asked for by name and
//! feature.

use std::process::ExitCode;

use underpass::magazine::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    underpass::cli::main()
}
