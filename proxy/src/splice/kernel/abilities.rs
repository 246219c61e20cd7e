//! What the kernel tier was seen to do on this machine.

/// What of the programs may be used, each with the reason where not. Found by the probe,
/// once, before the first tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// From one local application to the other.
    pub(crate) bypass: Result<(), String>,
    /// From a local application out on our connection.
    pub(crate) half_bypass: Result<(), String>,
    /// From one of our sockets to the other.
    pub(crate) redirect: Result<(), String>,
}

/// While the probe is trying: everything.
pub(super) static UNTRIED: Abilities =
    Abilities { bypass: Ok(()), half_bypass: Ok(()), redirect: Ok(()) };
