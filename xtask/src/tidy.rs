//! `cargo xtask tidy`: the rules of the code base that no compiler checks.
//!
//! A rule that needs an exception names the file and the reason in its list here, so that
//! every exception is seen in review. An entry that is no longer needed fails too.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::{
    sources::{self, Source, code_lines},
    workspace::{root, say},
};

/// Longest file, in lines. Beyond it a file has two concepts.
const MAX_LINES: usize = 450;

/// Folders whose work is with the kernel or with memory itself, and test support. `SAFETY:` is
/// clippy's matter.
const UNSAFE_FOLDERS: [&str; 6] = [
    "proxy/src/splice/",
    "proxy/src/listener/",
    "proxy/src/cache/store/arena/",
    "proxy-ebpf/",
    "tests/support/",
    "benches/",
];

/// Other files that may hold `unsafe`, with the reason.
const UNSAFE_FILES: [(&str, &str); 9] = [
    ("proxy/src/lend.rs", "memory that is mapped, and taken out again"),
    ("proxy/src/lend/tests.rs", "memory that is mapped, and taken out again"),
    ("proxy/src/lend/window.rs", "files that are mapped"),
    ("proxy/src/lot.rs", "tokio's `AsyncFd` has no safe constructor"),
    ("proxy/src/magazine.rs", "an allocator"),
    ("proxy/src/magazine/tests.rs", "an allocator"),
    ("proxy/src/reclaim.rs", "malloc_trim(3) is C"),
    ("proxy/src/wire/socket.rs", "hyper's read cursor, filled in place, has no safe interface"),
    ("proxy/tests/no_buffering.rs", "an allocator that counts"),
];

/// Files that may name aya: the kernel tier, and the tests that look for what it leaves behind.
const AYA_FILES: [&str; 2] = ["proxy/src/splice/kernel/", "tests/kernel/"];

/// Files that may hold `Box<dyn …>`, with the reason: never on the path of a request.
const BOX_DYN_FILES: [(&str, &str); 1] = [(
    "proxy/src/acme/http.rs",
    "instant-acme takes its HTTP client so; a dozen requests an order",
)];

/// What no file may hold, in code.
const UNFINISHED: [&str; 3] = ["todo!(", "unimplemented!(", "dbg!("];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 4] = ["/home/", "/root/", "/Users/", "/work/"];

/// Files of prose and set-up, where such paths are looked for.
const PROSE: [&str; 6] = [".md", ".toml", ".yml", ".yaml", ".service", ".ci/run"];

/// Checks the whole workspace.
pub(crate) fn run() -> Result<()> {
    let rust = sources::read(&root(), &[".rs"])?;
    let prose = sources::read(&root(), &PROSE)?;
    let (mut faults, used) = check(&rust, &prose);
    for (file, _) in UNSAFE_FILES.iter().chain(&BOX_DYN_FILES) {
        if !used.contains(file) {
            faults.push(format!("{file}: its exception in tidy.rs is not needed"));
        }
    }
    for fault in &faults {
        say(format_args!("tidy: {fault}"));
    }
    if !faults.is_empty() {
        bail!("tidy: {} faults", faults.len());
    }
    say(format_args!("tidy: {} files are in order", rust.len() + prose.len()));
    Ok(())
}

/// The faults, and the exceptions that were made use of.
fn check(rust: &[Source], prose: &[Source]) -> (Vec<String>, BTreeSet<&'static str>) {
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for source in rust {
        check_rust(source, &mut faults, &mut used);
    }
    for source in prose {
        for (number, line) in source.text.lines().enumerate() {
            if MACHINE_PATHS.iter().any(|path| names_path(line, path)) {
                faults.push(format!("{}:{}: a path of one machine", source.path, number + 1));
            }
        }
    }
    (faults, used)
}

fn check_rust(source: &Source, faults: &mut Vec<String>, used: &mut BTreeSet<&'static str>) {
    let Source { path, text } = source;
    if !text.starts_with("//!") {
        faults.push(format!("{path}:1: does not begin with a `//!` that says what it is for"));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        faults.push(format!("{path}: {lines} lines, more than {MAX_LINES}: split it by concept"));
    }

    let unsafe_folder = UNSAFE_FOLDERS.iter().any(|folder| path.starts_with(folder));
    let unsafe_file = UNSAFE_FILES.iter().find(|(file, _)| file == path);
    let box_dyn_file = BOX_DYN_FILES.iter().find(|(file, _)| file == path);
    for (number, line) in code_lines(text).iter().enumerate() {
        let mut fault = |what: &str| faults.push(format!("{path}:{}: {what}", number + 1));
        if has_word(line, "unsafe") && !unsafe_folder {
            match unsafe_file {
                Some((file, _)) => _ = used.insert(file),
                None => fault("`unsafe` outside the folders that may hold it"),
            }
        }
        let names_aya = has_word(line, "aya") || has_word(line, "aya_log");
        if names_aya && !AYA_FILES.iter().any(|file| path.starts_with(file)) {
            fault("aya is named in splice/kernel/ only");
        }
        if line.contains("Box<dyn") && path.starts_with("proxy/src/") {
            match box_dyn_file {
                Some((file, _)) => _ = used.insert(file),
                None => fault("`Box<dyn …>` in the proxy"),
            }
        }
        for unfinished in UNFINISHED {
            if line.contains(unfinished) {
                fault(&format!("`{unfinished}…)` is unfinished work"));
            }
        }
    }
}

/// Whether `line` holds `word` between characters that no identifier has.
fn has_word(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(inside) && !line[at + word.len()..].starts_with(inside)
    })
}

/// Whether `line` holds an absolute path that begins so: `target/work/x` is none.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"._-/*}".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<String> {
        check(&[Source { path: path.to_owned(), text: text.to_owned() }], &[]).0
    }

    #[mantra_macros::req_test("REQ-CTRL-002")]
    #[test]
    fn the_workspace_is_in_order() {
        run().unwrap();
    }

    #[test]
    fn each_rule_finds_its_fault_and_nothing_else() {
        let long = "//! x\n".repeat(MAX_LINES + 1);
        let table: [(&str, &str, usize); 12] = [
            ("proxy/src/a.rs", "//! Fine.\nfn a() {}\n", 0),
            ("proxy/src/a.rs", "fn a() {}\n", 1),
            ("proxy/src/a.rs", &long, 1),
            ("proxy/src/a.rs", "//! x\nfn a() { unsafe { b() } }\n", 1),
            ("proxy/src/splice/a.rs", "//! x\nfn a() { unsafe { b() } }\n", 0),
            ("proxy/src/a.rs", "//! unsafe\n#![deny(unsafe_code)] // unsafe\n", 0),
            ("proxy/src/a.rs", "//! x\nuse aya::Ebpf;\n", 1),
            ("proxy/src/splice/kernel/load.rs", "//! x\nuse aya::Ebpf;\n", 0),
            ("proxy/src/a.rs", "//! x\ntype A = Box<dyn Fn()>;\n", 1),
            ("xtask/src/a.rs", "//! x\ntype A = Box<dyn Fn()>;\n", 0),
            ("proxy/src/a.rs", "//! x\nfn a() { todo!() }\n", 1),
            ("proxy/src/a.rs", "//! x\nconst A: &str = \"todo!()\";\n", 0),
        ];
        for (path, text, wanted) in table {
            let found = faults(path, text);
            assert_eq!(found.len(), wanted, "{path}: {text:?}: {found:?}");
        }
    }

    #[test]
    fn paths_of_one_machine_are_found_in_prose() {
        for (line, wanted) in [
            ("see /home/me/x", true),
            ("`/root/x`", true),
            ("target/work/x", false),
            ("$HOME/work/x", false),
            ("https://example.org/home/x", false),
        ] {
            assert_eq!(MACHINE_PATHS.iter().any(|path| names_path(line, path)), wanted, "{line}");
        }
    }
}
