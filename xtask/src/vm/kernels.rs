//! Kernels that the matrix knows: where each comes from, and what it is excused from.
//!
//! Invariant: a skip, or a mechanism that `doctor` does not find, has an entry here for the
//! kernel that it happens on, with the reason. Everything else fails.

/// A kernel of the matrix.
#[derive(Debug)]
pub(super) struct Kernel {
    /// What it is called on the command line: the release begins with it.
    pub(super) name: &'static str,
    /// Suite of Debian's archive that has it.
    pub(super) suite: &'static str,
    /// What it may lack.
    pub(super) excused: &'static [Excuse],
}

/// Something that a kernel may lack.
#[derive(Debug)]
pub(super) struct Excuse {
    /// A row of `doctor`, or what stands between `skipped: ` and the reason.
    pub(super) what: &'static str,
    /// Part of the reason that is given for it.
    pub(super) because: &'static str,
}

/// splice(2) looks at TCP's queue, and not at what a program has put beside it.
const SPLICE: Excuse =
    excuse("splice_read", "splice(2) from an enrolled socket does not see what waits there");

/// A read takes from one of both.
const ONE_QUEUE: Excuse = excuse("bypass_one_queue", "a short read for the last");

/// Likewise FIONREAD, before the kernel change that `splice/hop.rs` names.
const FIONREAD: Excuse = excuse("fionread", "FIONREAD says 0");

/// What a skipped half of local bypass is called by the tests.
const APPLICATIONS: &str = "local bypass between two applications";

/// Oldest first.
pub(super) const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "5.10",
        suite: "bullseye",
        excused: &[
            // CONFIG_TLS is not set.
            excuse("ktls", "no module `tls`"),
            SPLICE,
            FIONREAD,
            ONE_QUEUE,
            // A message in the receiver's queue is charged to nobody.
            excuse("bypass_slow_reader", "does not charge redirected bytes"),
            excuse("local_bypass", "does not charge redirected bytes"),
            // Where the target is not writable, sk_psock_skb_redirect frees what it was given.
            excuse("skb_slow_reader", "bytes were sent and did not arrive"),
            excuse("engine_kernel", "bytes were sent and did not arrive"),
            excuse("engine kernel", "bytes were sent and did not arrive"),
            excuse("engine bypass", "bytes were sent and did not arrive"),
        ],
    },
    Kernel {
        name: "6.1",
        suite: "bookworm",
        excused: &[
            SPLICE,
            FIONREAD,
            ONE_QUEUE,
            excuse("local_bypass", "FIONREAD says 0"),
            excuse(APPLICATIONS, "FIONREAD says 0"),
        ],
    },
    Kernel { name: "6.12", suite: "trixie", excused: &[SPLICE] },
    // Whatever is newest.
    Kernel { name: "7", suite: "sid", excused: &[SPLICE] },
];

const fn excuse(what: &'static str, because: &'static str) -> Excuse {
    Excuse { what, because }
}

impl Kernel {
    /// The one with this name.
    pub(super) fn named(name: &str) -> Option<&'static Kernel> {
        KERNELS.iter().find(|kernel| kernel.name == name.trim_end_matches(".x"))
    }

    /// Whether a booted kernel's release is one of these.
    pub(super) fn is(&self, release: &str) -> bool {
        let rest = release.strip_prefix(self.name);
        rest.is_some_and(|rest| rest.starts_with(['.', '-']))
    }

    /// Whether it may lack this for this reason.
    pub(super) fn may_lack(&self, what: &str, reason: &str) -> bool {
        self.excused.iter().any(|excuse| excuse.what == what && reason.contains(excuse.because))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_belongs_to_one_kernel() {
        for (release, name) in [
            ("5.10.0-32-cloud-amd64", "5.10"),
            ("6.1.0-50-cloud-amd64", "6.1"),
            ("6.12.107+deb13-cloud-amd64", "6.12"),
            ("7.2.13+deb14-cloud-amd64", "7"),
        ] {
            let found: Vec<_> = KERNELS.iter().filter(|kernel| kernel.is(release)).collect();
            assert_eq!(found.len(), 1, "{release}");
            assert_eq!(found[0].name, name);
        }
        assert!(Kernel::named("7.x").is_some() && Kernel::named("6").is_none());
    }

    #[test]
    fn an_excuse_is_for_one_thing_and_one_reason() {
        let old = &KERNELS[0];
        assert!(old.may_lack("ktls", "the kernel has no module `tls` loaded"));
        assert!(!old.may_lack("ktls", "timed out"));
        assert!(!old.may_lack("engine_copy", "the kernel has no module `tls` loaded"));
    }
}
