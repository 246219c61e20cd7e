//! Tests that cannot run here say so, past the capture of their output.

use std::{
    collections::BTreeSet,
    io::Write,
    sync::{Mutex, PoisonError},
};

/// Says what is skipped and why, once per process: many tests skip for one reason.
pub fn say(what: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned()) {
        // `eprintln!` would be shown by a failure only.
        let _ = writeln!(std::io::stderr(), "skipped: {what}");
    }
}
