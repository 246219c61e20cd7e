//! Arguments to a command, and the allocator of the process.

use std::process::ExitCode;

use underpass::magazine::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    underpass::cli::main()
}
