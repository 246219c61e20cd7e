//! Nothing of ours stays in the kernel, however the process ends.
//!
//! Compared by number, not by name: another Underpass may run on the same machine.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    os::fd::AsFd,
    process::{Command, Stdio},
};

use mantra_macros::req_test;
use underpass::splice::kernel::{Ids, Set};

use crate::machine::{any_loaded, connection, eventually, kernel, lacking, send};

/// Set for the process that holds programs until it is killed.
const HOLD: &str = "UNDERPASS_TEST_HOLD";

fn still_there(ids: &Ids) -> bool {
    any_loaded(&ids.programs, &ids.maps)
}

#[req_test("REQ-TUN-002")]
#[test]
fn dropped_programs_are_gone() {
    let Some(kernel) = kernel() else { return };
    let (mut near, mut far) = connection();
    let enrolled = kernel.enroll(Set::Passed, near.as_fd()).unwrap();
    let ids = kernel.ids().unwrap();
    assert_eq!(ids.programs.len(), 5, "up_entry, up_msg, up_skb, up_pass, up_hop");
    assert!(ids.maps.len() >= 4, "{ids:?}");
    assert!(still_there(&ids));

    drop(enrolled);
    drop(kernel);
    eventually("programs and maps are gone", || !still_there(&ids));
    send(&mut far, &mut near, 1000);
}

#[req_test("REQ-TUN-002")]
#[test]
fn programs_of_a_killed_process_are_gone() {
    if let Some(reason) = lacking() {
        underpass_tests::skip::say(&reason);
        return;
    }
    let mut holder = Command::new(env::current_exe().unwrap())
        .args(["--exact", "leftovers::holds_programs_until_killed", "--nocapture"])
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find_map(|line| {
        // The harness writes `test … ... ` before it, on the same line.
        line.split_once("holding ").map(|(_, ids)| ids.to_owned())
    });
    let ids = parse(&line.expect("the holder says what it holds"));
    assert!(still_there(&ids), "{ids:?}");

    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually("programs and maps of the killed process are gone", || !still_there(&ids));
}

/// Not a test by itself: what [`programs_of_a_killed_process_are_gone`] kills.
#[test]
fn holds_programs_until_killed() {
    if env::var_os(HOLD).is_none() {
        return;
    }
    let Some(kernel) = kernel() else { return };
    let (near, _far) = connection();
    let _enrolled = kernel.enroll(Set::Passed, near.as_fd()).unwrap();
    let ids = kernel.ids().unwrap();
    let join = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    println!("holding {} {}", join(&ids.programs), join(&ids.maps));
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

fn parse(line: &str) -> Ids {
    let numbers = |list: &str| list.split(',').map(|id| id.parse().unwrap()).collect();
    let (programs, maps) = line.trim().split_once(' ').unwrap();
    Ids { programs: numbers(programs), maps: numbers(maps) }
}
