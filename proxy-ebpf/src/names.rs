//! Names of maps, programs and globals.
//!
//! All fit the kernel's 15 bytes and begin alike, so that what is left of us in a kernel
//! can be told from what belongs to others.

/// Map whose number of entries is the version of the ABI.
pub const ABI: &str = "UP_ABI";

/// Array of [`Lane`](crate::Lane)s, mapped into the proxy's memory.
pub const LANES: &str = "UP_LANES";

/// Hash of [`Route`](crate::Route)s by the address of the sending (`up_msg`) or receiving
/// (`up_skb`) socket.
pub const ROUTES: &str = "UP_ROUTES";

/// Hash of [`Input`](crate::Input)s by the address of the receiving socket.
pub const INPUTS: &str = "UP_INPUTS";

/// Sockhash under `up_msg`: sockets of applications.
pub const APPS: &str = "UP_APPS";

/// Sockhash under `up_pass`: sockets of applications whose whole input goes by the psock.
pub const PASSED: &str = "UP_PASSED";

/// Sockhash under no program: own sockets that others' bytes are sent out on.
pub const TARGETS: &str = "UP_TARGETS";

/// Sockhash under `up_skb`: own sockets whose input is sent on in the kernel.
pub const SOURCES: &str = "UP_SOURCES";

/// Program array through which `up_msg` is reached. The kernel empties one when nobody has it
/// open any more.
pub const PROGRAMS: &str = "UP_PROGRAMS";

/// `sk_msg` program that is attached: goes on to `up_msg`.
pub const ENTRY_PROGRAM: &str = "up_entry";

/// `sk_msg` program: local bypass.
pub const MSG_PROGRAM: &str = "up_msg";

/// `stream_verdict` program: redirects what an own socket receives.
pub const SKB_PROGRAM: &str = "up_skb";

/// `stream_verdict` program that passes everything.
pub const PASS_PROGRAM: &str = "up_pass";

/// `sched_cls` program, run on demand: looks at both ends of a connection of ours.
pub const HOP_PROGRAM: &str = "up_hop";

/// Global with the [`Offsets`](crate::Offsets) of the running kernel.
pub const OFFSETS: &str = "UP_OFFSETS";

/// Global with the bits of each [`Protection`](crate::Protection) that is taken away: none.
pub const WITHOUT: &str = "UP_WITHOUT";

/// Array of [`Seat`](crate::Seat)s, one for each worker, mapped into the proxy's memory.
pub const SEATS: &str = "UP_SEATS";

/// The listening sockets of one address, at the index of their seat.
pub const LISTENERS: &str = "UP_LISTENERS";

/// By number of a CPU: the index of the seat pinned to it, plus one; 0 where there is none.
pub const CPUS: &str = "UP_CPUS";

/// Per CPU, by [`Choice`](crate::seat::Choice): how often that was the outcome.
pub const CHOICES: &str = "UP_CHOICES";

/// `sk_reuseport` program: chooses the listening socket of a connection.
pub const STEER_PROGRAM: &str = "up_steer";

/// Global with the number of seats.
pub const WORKERS: &str = "UP_WORKERS";

/// Global with [`BY_CPU`](crate::seat::BY_CPU) or 0.
pub const STEER_MODE: &str = "UP_STEER_MODE";
