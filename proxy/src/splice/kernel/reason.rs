//! Why the kernel path is not to be had, in one line that says what would help.

use std::{error::Error as _, fmt, fs, io};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

/// Why the kernel path is not to be had, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable(pub(super) String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// One line for whatever went wrong: what the system said, and what would help.
pub(super) fn unavailable(error: impl Into<EbpfError>) -> Unavailable {
    let error = error.into();
    let reason = match os_error(&error) {
        Some(libc::EPERM | libc::EACCES) if !has_capabilities() => {
            "needs CAP_BPF and CAP_NET_ADMIN".to_owned()
        }
        // A program that reads the kernel's memory, or has a loop that is bounded by what it has
        // loaded, needs it since 5.8.
        Some(libc::EPERM | libc::EACCES) if !may_steer() => {
            "needs CAP_PERFMON beside CAP_BPF and CAP_NET_ADMIN".to_owned()
        }
        Some(libc::EPERM | libc::EACCES) if in_user_namespace() => {
            "needs CAP_BPF and CAP_NET_ADMIN of the host, not of a user namespace (a container)"
                .to_owned()
        }
        Some(libc::EPERM | libc::EACCES) => {
            "refused by the kernel though the capabilities are there: lockdown, a seccomp \
             filter, or RLIMIT_MEMLOCK before kernel 5.11"
                .to_owned()
        }
        Some(libc::ENOMEM) => "no memory for BPF: see RLIMIT_MEMLOCK".to_owned(),
        Some(libc::ENOSYS) => "this kernel is built without BPF".to_owned(),
        _ => {
            let text = chain(&error);
            text.lines().next().unwrap_or_default().to_owned()
        }
    };
    Unavailable(reason)
}

/// The system's error at the bottom, where there is one.
fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if code.is_some() {
            return code;
        }
        next = match error.downcast_ref::<ProgramError>() {
            Some(ProgramError::LoadError { io_error, .. }) => Some(io_error),
            _ => error.source(),
        };
    }
    None
}

fn chain(error: &EbpfError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    text
}

pub(super) fn into_io(error: MapError) -> io::Error {
    os_error(&error)
        .map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

/// Whether this process may load socket programs: CAP_BPF (or, before 5.8, CAP_SYS_ADMIN)
/// and CAP_NET_ADMIN are effective.
pub(crate) fn has_capabilities() -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    let effective = effective_capabilities();
    effective & NET_ADMIN != 0 && effective & (BPF | SYS_ADMIN) != 0
}

/// Whether this process may load the program that steers: CAP_BPF and CAP_PERFMON (or, before
/// 5.8, CAP_SYS_ADMIN, which still holds both) are effective.
pub(super) fn may_steer() -> bool {
    const PERFMON: u64 = 1 << 38;
    let effective = effective_capabilities();
    effective & SYS_ADMIN != 0 || effective & (BPF | PERFMON) == BPF | PERFMON
}

const SYS_ADMIN: u64 = 1 << 21;
const BPF: u64 = 1 << 39;

fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.unwrap_or_default()
}

/// Whether capabilities are those of a user namespace, which BPF does not honour: only the
/// first namespace maps every user to itself (user_namespaces(7)).
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && map.split_whitespace().ne(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_error_is_found_below_others() {
        let denied = || io::Error::from_raw_os_error(libc::EPERM);
        let error = MapError::CreateError { name: "UP_ABI".to_owned(), io_error: denied() };
        assert_eq!(os_error(&EbpfError::from(error)), Some(libc::EPERM));
    }
}
