//! Where the kernel path is not to be had, there is one line that says why.

use std::{
    env,
    io::ErrorKind,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Output},
};

use mantra_macros::req_test;
use proxy_ebpf::ABI_VERSION;
use underpass::splice::kernel::{self, Kernel};

use crate::machine::{Copied, eventually, lacking};

/// Set for the process that tries to load without privilege.
const TRY: &str = "UNDERPASS_TEST_TRY";

/// The user `nobody` of every distribution.
const NOBODY: u32 = 65534;

/// Runs a command as `nobody` where we may, else as who we are: then we are nobody enough,
/// unless capabilities came another way.
fn unprivileged(command: &mut Command) -> Output {
    if rustix::process::geteuid().is_root() {
        command.gid(NOBODY).uid(NOBODY);
    }
    command.current_dir("/");
    let mut started = None;
    // What another test was starting meanwhile has the copy open for writing for a moment, and what
    // is open so cannot be started.
    eventually("the copy to be startable", || match command.output() {
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => false,
        output => {
            started = Some(output.unwrap());
            true
        }
    });
    started.unwrap()
}

#[req_test("REQ-TUN-002")]
#[test]
fn without_privilege_the_reason_names_the_capabilities() {
    let test = Copied::of(&env::current_exe().unwrap());
    let mut command = test.command();
    command.args(["--exact", "unavailable::tries_to_load", "--nocapture"]).env(TRY, "1");
    let output = unprivileged(&mut command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let wanted = match kernel::embedded() {
        Ok(_) => "tried: needs CAP_BPF and CAP_NET_ADMIN",
        Err(reason) => reason,
    };
    assert!(text.contains(wanted), "{text}");
}

/// Not a test by itself: what
/// [`without_privilege_the_reason_names_the_capabilities`] runs.
#[test]
fn tries_to_load() {
    if env::var_os(TRY).is_some() {
        match Kernel::load() {
            Ok(kernel) => println!("tried: {kernel:?}"),
            Err(reason) => println!("tried: {reason}"),
        }
    }
}

#[req_test("REQ-TUN-002")]
#[test]
fn doctor_without_privilege_says_no_with_a_reason_and_ends_well() {
    let doctor = Copied::of(&proxy_binary());
    let output = unprivileged(doctor.command().args(["doctor", "--json"]));
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["mechanisms"].as_array().unwrap();
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    assert_eq!(row("bpf_load")["available"], false);
    assert!(!row("bpf_load")["reason"].as_str().unwrap().is_empty());
    assert_eq!(row("engine_pipe")["available"], true, "{report:#}");
    assert_eq!(row("engine_copy")["available"], true, "{report:#}");
}

#[test]
fn no_object_is_a_reason_too() {
    let reason = Kernel::load_object(Err("built without BPF programs")).unwrap_err();
    assert_eq!(reason.to_string(), "built without BPF programs");
}

#[test]
fn an_object_cut_short_is_refused() {
    let Ok(object) = kernel::embedded() else { return };
    let reason = Kernel::load_object(Ok(&object[..object.len() / 2])).unwrap_err();
    assert!(!reason.to_string().contains('\n'), "{reason}");
}

#[req_test("REQ-TUN-002")]
#[test]
fn an_object_of_another_version_is_refused() {
    if lacking().is_some() {
        return;
    }
    // The version is the number of entries of an array of u32: type, size of key, size of
    // value, entries, flags, id, pinning.
    let definition = |entries: u32| [2, 4, 4, entries, 0, 0, 0].map(u32::to_le_bytes).concat();
    let (ours, other) = (definition(ABI_VERSION), definition(ABI_VERSION + 1));
    let mut object = kernel::embedded().unwrap().to_vec();
    let places: Vec<usize> =
        (0..object.len() - ours.len()).filter(|at| object[*at..].starts_with(&ours)).collect();
    assert_eq!(places.len(), 1, "the map with the version is not where it was");
    object[places[0]..][..other.len()].copy_from_slice(&other);

    let reason = Kernel::load_object(Ok(&object)).unwrap_err().to_string();
    assert!(reason.contains(&format!("version {}", ABI_VERSION + 1)), "{reason}");
}

/// The proxy that `cargo xtask test` built, or the one that lies beside these tests.
fn proxy_binary() -> PathBuf {
    let beside = || env::current_exe().unwrap().ancestors().nth(2).unwrap().join("underpass");
    let binary = env::var_os("UNDERPASS_BIN").map_or_else(beside, PathBuf::from);
    assert!(binary.exists(), "{}: build it first (`cargo xtask test` does)", binary.display());
    binary
}
