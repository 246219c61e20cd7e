//! Arguments to a command, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    underpass::cli::main()
}
