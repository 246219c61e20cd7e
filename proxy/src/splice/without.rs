//! Protections that are taken away: none, but in a build for tests.
//!
//! The feature `fault-injection`, which the binary `underpass-without` is built with, reads
//! them from the environment (see [`proxy_ebpf::without`]). In every other build the mask is
//! 0 when it is compiled, and so is whatever hangs on it.

use proxy_ebpf::Protection;

/// Whether a protection is taken away.
#[inline(always)]
pub(crate) fn without(protection: Protection) -> bool {
    mask() & protection.bit() != 0
}

/// Says at start what is gone: nobody shall take such a process for one to rely on.
pub(crate) fn say() {
    let gone = Protection::ALL.into_iter().filter(|protection| without(*protection));
    let names: Vec<_> = gone.map(Protection::name).collect();
    if !names.is_empty() {
        let names = names.join(", ");
        tracing::warn!("FAULT INJECTION, only for tests: this process runs without {names}");
    }
}

/// Bits of what is taken away, for the programs.
#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub(super) const fn mask() -> u32 {
    0
}

/// Bits of what is taken away, for the programs.
#[cfg(feature = "fault-injection")]
pub(super) fn mask() -> u32 {
    use proxy_ebpf::without::VARIABLE;
    static MASK: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *MASK.get_or_init(|| {
        let names = std::env::var(VARIABLE).unwrap_or_default();
        parse(&names).unwrap_or_else(|unknown| panic!("{VARIABLE}: there is no {unknown}"))
    })
}

#[cfg(any(feature = "fault-injection", test))]
fn parse(names: &str) -> Result<u32, &str> {
    names.split(',').filter(|name| !name.is_empty()).try_fold(0, |mask, name| {
        let found = Protection::ALL.into_iter().find(|protection| protection.name() == name);
        found.map(|protection| mask | protection.bit()).ok_or(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_make_a_mask_and_unknown_ones_are_refused() {
        assert_eq!(parse(""), Ok(0));
        let both = Protection::Order.bit() | Protection::Activity.bit();
        assert_eq!(parse("order,activity"), Ok(both));
        assert_eq!(parse("order,odrer"), Err("odrer"));
        for (at, protection) in Protection::ALL.into_iter().enumerate() {
            assert_eq!(protection.bit(), 1 << at, "{}", protection.name());
            assert_eq!(parse(protection.name()), Ok(protection.bit()));
        }
    }
}
