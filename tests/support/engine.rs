//! Which engines this machine has, found by asking the proxy for them.
//!
//! Invariant: a skip states its reason, and the reason is the proxy's own. Where `doctor`
//! says that there is a kernel engine and the proxy refuses it all the same, that is a
//! failure.

use std::{
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    clock::BOUND,
    matrix::Engine,
    proxy::{binary, run},
    skip,
};

/// Whether tests with this engine can run here; if not, says so.
pub fn ready(engine: Engine) -> bool {
    match engine_available(engine) {
        Ok(()) => true,
        Err(reason) => {
            skip::say(&format!("engine {engine}: {reason}"));
            false
        }
    }
}

/// Whether the proxy serves with this engine, or the reason that it gives for not doing so.
/// Tried once per process.
pub fn engine_available(engine: Engine) -> Result<(), String> {
    static KERNEL: OnceLock<Result<(), String>> = OnceLock::new();
    static BYPASS: OnceLock<Result<(), String>> = OnceLock::new();
    match engine {
        Engine::Copy | Engine::Pipe | Engine::Auto => Ok(()),
        Engine::Kernel => KERNEL.get_or_init(|| start(Engine::Kernel).map_err(justified)).clone(),
        Engine::Bypass => {
            engine_available(Engine::Kernel)?;
            BYPASS.get_or_init(|| start(Engine::Bypass)).clone()
        }
    }
}

/// Whether two applications on this host can be joined past the proxy; if not, says so. What
/// else [`Engine::Bypass`] is made of may work all the same: it is a wish of the operator's,
/// for which the proxy starts without.
pub fn joins_applications() -> bool {
    static JOINS: OnceLock<Result<(), String>> = OnceLock::new();
    let joins = JOINS.get_or_init(|| doctor_says("local_bypass"));
    if let Err(reason) = joins {
        skip::say(&format!("local bypass between two applications: {reason}"));
    }
    joins.is_ok()
}

/// Whether the kernel takes over sessions of TLS, as `doctor` finds; if not, the reason.
pub fn ktls() -> Result<(), String> {
    static KTLS: OnceLock<Result<(), String>> = OnceLock::new();
    KTLS.get_or_init(|| doctor_says("ktls")).clone()
}

/// The same for a test that needs it: says so.
pub fn has_ktls() -> bool {
    if let Err(reason) = ktls() {
        skip::say(&format!("ktls: {reason}"));
    }
    ktls().is_ok()
}

/// A refusal that `doctor` agrees with.
fn justified(reason: String) -> String {
    let row = doctor_says("engine_kernel");
    assert!(row.is_err(), "doctor has a kernel engine, the proxy not: {reason}");
    reason
}

/// Whether `doctor` finds a mechanism, or its reason why not.
fn doctor_says(mechanism: &str) -> Result<(), String> {
    let report: serde_json::Value =
        serde_json::from_slice(&run(&["doctor", "--json"]).stdout).expect("doctor's report");
    let rows = report["mechanisms"].as_array().expect("mechanisms");
    let row = rows.iter().find(|row| row["name"] == mechanism).expect(mechanism);
    match row["available"] == true {
        true => Ok(()),
        false => Err(row["reason"].as_str().unwrap_or_default().to_owned()),
    }
}

/// Starts a proxy that is told to end as soon as it is ready.
fn start(engine: Engine) -> Result<(), String> {
    let mut command = Command::new(binary());
    command.args(["forward", "--listen", "127.0.0.1:0", "--admin", "off", "--workers", "1"]);
    command.args(engine.args()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start underpass");
    let begin = Instant::now();
    // A listener accepts by itself before the line is read: the line alone means success.
    let ready = std::thread::scope(|scope| {
        let mut stdout = child.stdout.take().expect("stdout");
        let line = scope.spawn(move || {
            let mut first = [0; 9];
            std::io::Read::read_exact(&mut stdout, &mut first).is_ok() && &first == b"listening"
        });
        while !line.is_finished() {
            if begin.elapsed() > BOUND {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        line.join().expect("read stdout")
    });
    if ready {
        end(&child);
    }
    let output = child.wait_with_output().expect("wait");
    assert!(begin.elapsed() < BOUND, "neither ready nor refused within {BOUND:?}");
    if ready {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.starts_with("underpass:") || line.contains("error:"));
    Err(line.unwrap_or("it ended without a word").to_owned())
}

fn end(child: &Child) {
    let pid = Pid::from_raw(child.id() as i32).expect("pid");
    let _ = kill_process(pid, Signal::TERM);
}
