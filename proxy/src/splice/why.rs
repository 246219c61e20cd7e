//! Why a direction is copied: what stands in the way of the other engines.

/// Why a direction is with `copy` that could have been elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// An HTTP/2 stream has no socket of its own.
    H2Downstream,
    /// Nor has one of the server.
    H2Upstream,
    /// What goes over the socket of one side or both are records of TLS.
    Tls,
    /// Likewise, and the kernel is not to have the keys.
    TlsOff,
    /// Or it takes none.
    TlsKernel,
    /// Or none of this version and cipher.
    TlsSuite,
    /// Or it did not take these.
    TlsRefused,
    /// What goes through is recorded.
    Recorded,
    /// EMFILE, or the worker's budget is spent; tried again later.
    NoPipe,
    /// splice(2) was refused.
    NoSplice,
    /// The peer has sent urgent data (TCP's URG), which splice(2) stops at.
    Urgent,
}

impl Why {
    /// Stable text for `/tunnels`.
    pub fn name(self) -> &'static str {
        match self {
            Why::H2Downstream => "h2 downstream",
            Why::H2Upstream => "h2 upstream",
            Why::Tls => "tls",
            Why::TlsOff => "tls, and ktls is off",
            Why::TlsKernel => "tls, and ktls does not work here, see doctor",
            Why::TlsSuite => "tls, and ktls does not work here for its cipher suite, see doctor",
            Why::TlsRefused => "tls, and ktls was refused by the kernel",
            Why::Recorded => "recorded",
            Why::NoPipe => "no pipe to be had",
            Why::NoSplice => "splice(2) refused",
            Why::Urgent => "urgent data",
        }
    }
}
