//! Which tests run on other kernels, unless they are asked for by name.
//!
//! The programs themselves, and the law of tunnels for the engines that are made of them:
//! what an older kernel may do differently. Each tunnel starts a proxy, which loads and tries
//! the programs, for seconds on an emulated processor: all of tests/kernel would take hours.

/// Files and folders of tests/kernel, and tests over all engines.
const WHOLE: [&str; 11] = [
    "doctor::",
    // Nowhere else, where this machine's own kernel has no TLS.
    "ktls::",
    "leftovers::",
    "log::",
    "placement::",
    "sockets::",
    "steering::",
    "unavailable::",
    "the_engine_that_was_asked_for_moves_the_bytes::",
    "random_traffic::every_byte_is_where_it_belongs::bypass",
    "random_traffic::every_byte_is_where_it_belongs::kernel",
];

/// Engines that older kernels may have trouble with.
const ENGINES: [&str; 2] = ["kernel", "bypass"];

/// Articles of the law, for these [`ENGINES`] only.
const LAW: [&str; 11] = [
    "tunnel::bytes::messages_of_all_sizes_go_back_and_forth",
    "tunnel::bytes::bursts_and_pauses_keep_their_order",
    "tunnel::early::both_ends_send_while_the_engine_takes_over",
    "tunnel::early::the_last_early_byte_does_not_wait_for_a_next_one",
    "tunnel::ends::the_client_may_finish_first",
    "tunnel::ends::the_server_may_finish_first",
    "tunnel::ends::fin_comes_behind_megabytes_for_a_slow_server",
    "tunnel::ends::fin_comes_behind_megabytes_for_a_slow_client",
    "tunnel::killed::a_killed_proxy_leaves_nothing_in_the_kernel",
    "tunnel::memory::a_server_that_never_reads_stops_the_client",
    "tunnel::resets::a_reset_that_crosses_bytes_is_no_clean_end",
];

/// Filters for the test binary.
pub(super) fn tests() -> Vec<String> {
    let law = LAW.iter().flat_map(|test| ENGINES.map(|engine| format!("{test}::{engine}")));
    WHOLE.iter().map(|&part| part.to_owned()).chain(law).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::workspace::root;

    /// The test runner would say nothing of a name that it does not know.
    #[test]
    fn what_is_chosen_exists() {
        let folder = root().join("tests/kernel");
        let read = |file: &str| fs::read_to_string(folder.join(file)).expect(file);
        for part in WHOLE {
            let (name, _) = part.split_once("::").unwrap();
            let is_test = read("tunnel/seen.rs").contains(&format!("async fn {name}("));
            let files = [format!("{name}.rs"), format!("{name}/mod.rs")];
            assert!(is_test || files.iter().any(|file| folder.join(file).exists()), "{part}");
        }
        for test in LAW {
            let (file, name) = test.rsplit_once("::").unwrap();
            let text = read(&format!("{}.rs", file.replace("::", "/")));
            assert!(text.contains(&format!("async fn {name}(engine: Engine)")), "{test}");
        }
    }
}
