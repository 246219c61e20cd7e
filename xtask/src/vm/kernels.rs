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

/// Oldest first.
pub(super) const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "5.10",
        suite: "bullseye",
        excused: &[
            // CONFIG_TLS is not set.
            Excuse { what: "ktls", because: "no module `tls`" },
        ],
    },
    Kernel { name: "6.1", suite: "bookworm", excused: &[] },
    Kernel { name: "6.12", suite: "trixie", excused: &[] },
    // Whatever is newest.
    Kernel { name: "7", suite: "sid", excused: &[] },
];

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
