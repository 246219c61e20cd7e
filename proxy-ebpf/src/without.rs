//! What keeps tunnels right, by name, so that a test can take it away.
//!
//! Every test of a protection is played twice: with it, and without it, where the harm has to
//! be seen. Only the binary `underpass-without` takes anything away. To every other build
//! these are constants: the global is 0 when the programs are loaded, and the verifier
//! removes what hangs on it as dead code.

/// One protection: what it keeps, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Protection {
    /// What the probe found wrong is not used (`splice/probe/mechanisms.rs`).
    Probe,
    /// `up_msg` overtakes nothing that is on TCP's way.
    Order,
    /// `up_msg` gives a receiver no more than it may have unread, or than our socket takes.
    Bound,
    /// `up_msg` passes what it finds no receiver for.
    Target,
    /// An application is put under `up_pass` only when it has read everything (`IF_QUIET`).
    Quiet,
    /// Applications are put under `up_pass` at all: one queue for reads, and for FIONREAD.
    Pass,
    /// Sockets in blocking mode are not enrolled.
    Nonblocking,
    /// A socket that the kernel refuses is left out.
    Refusal,
    /// The entry of an application's socket is left until the application closes it.
    Entry,
    /// Applications' sockets hold `up_entry`, not the program that does the work.
    Stub,
    /// `up_skb` redirects nothing before what it passed has been written on.
    SkbOrder,
    /// `up_skb` keeps what is on its way within a budget.
    SkbBound,
    /// `up_skb` and `up_pass` keep segments without a byte from the kernel's worker.
    BareFin,
    /// A socket is put under `up_skb` only with an empty receive queue.
    Empty,
    /// What came before a socket was put under `up_skb` is offered to it (SO_RCVLOWAT).
    Nudge,
    /// Userspace writes only when what the kernel was given has been sent.
    Overtaking,
    /// The end is told only when what the kernel was given has been sent.
    Clear,
    /// An end that is not clean is a reset.
    Reset,
    /// What one side sent before its reset gets time to arrive.
    Linger,
    /// The end of one direction does not end the other.
    HalfClose,
    /// What had been read before the tunnel began goes first.
    Early,
    /// What the kernel moves counts as activity.
    Activity,
    /// `up_skb` and `up_pass` skip what has gone by them before.
    Overlap,
    /// Userspace writes to an application only when it has room beside what has bypassed TCP.
    Room,
    /// A sender to which bytes were given past TCP does not leave the programs.
    Given,
    /// One leaves them only when it has read everything.
    Unread,
    /// Nothing is given past TCP to an application that waits for more than a byte.
    LowWater,
    /// Local bypass of an inspected connection waits for its second message. No harm without
    /// it: so tests bring it about on every connection.
    Kept,
    /// What is old of a segment can be cut off: without it, as if the kernel had no memory.
    Cut,
    /// A stream that has lost bytes ends by a reset.
    Lost,
}

impl Protection {
    /// All of them, each at its own index.
    pub const ALL: [Protection; 30] = {
        use Protection::*;
        [
            Probe,
            Order,
            Bound,
            Target,
            Quiet,
            Pass,
            Nonblocking,
            Refusal,
            Entry,
            Stub,
            SkbOrder,
            SkbBound,
            BareFin,
            Empty,
            Nudge,
            Overtaking,
            Clear,
            Reset,
            Linger,
            HalfClose,
            Early,
            Activity,
            Overlap,
            Room,
            Given,
            Unread,
            LowWater,
            Kept,
            Cut,
            Lost,
        ]
    };

    /// Its bit in a mask.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Its name in the environment variable.
    pub const fn name(self) -> &'static str {
        match self {
            Protection::Probe => "probe",
            Protection::Order => "order",
            Protection::Bound => "bound",
            Protection::Target => "target",
            Protection::Quiet => "quiet",
            Protection::Pass => "pass",
            Protection::Nonblocking => "nonblocking",
            Protection::Refusal => "refusal",
            Protection::Entry => "entry",
            Protection::Stub => "stub",
            Protection::SkbOrder => "skb_order",
            Protection::SkbBound => "skb_bound",
            Protection::BareFin => "bare_fin",
            Protection::Empty => "empty",
            Protection::Nudge => "nudge",
            Protection::Overtaking => "overtaking",
            Protection::Clear => "clear",
            Protection::Reset => "reset",
            Protection::Linger => "linger",
            Protection::HalfClose => "half_close",
            Protection::Early => "early",
            Protection::Activity => "activity",
            Protection::Overlap => "overlap",
            Protection::Room => "room",
            Protection::Given => "given",
            Protection::Unread => "unread",
            Protection::LowWater => "low_water",
            Protection::Kept => "kept",
            Protection::Cut => "cut",
            Protection::Lost => "lost",
        }
    }
}

/// Environment variable of `underpass-without`: names with commas between them.
pub const VARIABLE: &str = "UNDERPASS_WITHOUT";
