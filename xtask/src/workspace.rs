//! Where things are, and how other programs are called.
//!
//! Invariant: no path is fixed but relative to the workspace, and every failing call is
//! reported with the command line that failed.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::{Context, Result, bail};

/// Root of the workspace.
pub(crate) fn root() -> PathBuf {
    // At run time where cargo says so: the tree may have moved since it was compiled.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().expect("xtask lies in the workspace").to_owned()
}

/// What BPF builds leave behind always lies here, whatever `CARGO_TARGET_DIR` says, because
/// build scripts look for it here.
pub(crate) fn bpf_dir(name: &str) -> PathBuf {
    root().join("target").join(name)
}

/// What cargo knows of the workspace.
pub(crate) fn metadata() -> Result<serde_json::Value> {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    Ok(serde_json::from_str(&metadata)?)
}

/// Where cargo puts the binaries of a profile.
pub(crate) fn binary(profile: &str, name: &str) -> Result<PathBuf> {
    let metadata = metadata()?;
    let target = metadata["target_directory"].as_str().context("cargo metadata: no target")?;
    Ok(Path::new(target).join(profile).join(name))
}

/// What rustc builds for unless it is told otherwise.
pub(crate) fn host() -> Result<String> {
    let version = output(Command::new("rustc").current_dir(root()).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

/// The cargo that runs us, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Of the call that runs us; a package built by the call below must not see them.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end; a failure is an error.
pub(crate) fn call(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}`: {status}", Line(command));
    }
    Ok(())
}

/// Runs a command to its end and passes on how it ended.
pub(crate) fn exit(command: &mut Command) -> Result<ExitCode> {
    let status = status(command)?;
    Ok(status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code.clamp(0, 255) as u8)))
}

/// Runs a command and returns what it wrote to its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("`{}`", Line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.trim().lines().last().unwrap_or_default().to_owned();
        bail!("`{}`: {}: {last}", Line(command), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("`{}`", Line(command)))
}

/// A line that says what goes on, apart from what the called programs say.
pub(crate) fn say(what: impl fmt::Display) {
    eprintln!("xtask: {what}");
}

/// A command line for people.
struct Line<'a>(&'a Command);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = Path::new(self.0.get_program());
        write!(f, "{}", program.file_name().unwrap_or_default().display())?;
        for arg in self.0.get_args() {
            write!(f, " {}", arg.display())?;
        }
        Ok(())
    }
}
