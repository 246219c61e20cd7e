//! Question and answer of `up_hop`, which looks at one TCP connection of ours from both
//! ends and enrols the application's end.
//!
//! The program is run by `BPF_PROG_TEST_RUN` with a [`HopRequest`] in the place of a packet
//! and writes its [`HopReport`] over it. 14 bytes stand in front: what the kernel takes for
//! an Ethernet header.

/// Bytes in front of the request: the kernel insists on an Ethernet header.
pub const HEADER_BYTES: usize = 14;

/// Bytes of the packet: header, and the longer of the two.
pub const PACKET_BYTES: usize = HEADER_BYTES + 2 + size_of::<HopReport>();

/// Puts the application's end under `up_msg`.
pub const ENROLL_MSG: u32 = 1;
/// Puts it under `up_pass`.
pub const ENROLL_PASS: u32 = 2;
/// Does either only if the application has read everything that we have written. Without
/// that a segment that was read in part would be delivered again by `up_pass`.
pub const IF_QUIET: u32 = 4;

/// The own end was not found: not a connection of this network namespace, or closed.
pub const NO_OWN: u32 = 1;
/// The other end is not on this host (in this network namespace).
pub const NO_PEER: u32 = 2;
/// What was found does not go by the same sequence numbers: it is somebody else's.
pub const NOT_OURS: u32 = 3;
/// The application has not read everything yet.
pub const NOT_QUIET: u32 = 4;
/// The kernel would not have it in the sockhash; see [`HopReport::error`].
pub const REFUSED: u32 = 5;
/// The question was not understood.
pub const BAD_REQUEST: u32 = 6;
/// The other end is not a connection yet, but about to become one on this host.
pub const NOT_YET: u32 = 7;

/// Addresses and ports as in the packets from the peer to us, in network byte order.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct HopRequest {
    /// Source address (the peer's); IPv4 in the first word.
    pub peer_address: [u32; 4],
    /// Destination address (ours).
    pub own_address: [u32; 4],
    /// The peer's port.
    pub peer_port: u16,
    /// Our port.
    pub own_port: u16,
    /// 1 for IPv6 addresses.
    pub is_v6: u32,
    /// [`ENROLL_MSG`] and so on; 0 only looks.
    pub action: u32,
    /// Unused.
    pub reserved: u32,
    /// Key that the peer is enrolled by.
    pub key: u64,
}

/// One end, as it was when the program ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct End {
    /// Its address in the kernel, 0 if not found.
    pub address: u64,
    /// See [`Offsets`](crate::Offsets).
    pub write_seq: u32,
    /// See [`Offsets`](crate::Offsets).
    pub copied_seq: u32,
    /// See [`Offsets`](crate::Offsets).
    pub rcv_nxt: u32,
    /// See [`Offsets`](crate::Offsets).
    pub snd_una: u32,
}

/// What `up_hop` found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HopReport {
    /// Our end.
    pub own: End,
    /// The application's end.
    pub peer: End,
    /// `f_flags` of the application's descriptor: whether it has set O_NONBLOCK.
    pub peer_file_flags: u32,
    /// 0, or why not.
    pub status: u32,
    /// Errno of the sockhash for [`REFUSED`].
    pub error: i32,
    /// Whether the application has accepted the connection: before that nobody reads it.
    pub peer_accepted: u32,
    /// Bytes of memory that the application's receive side uses.
    pub peer_receive_memory: i32,
    /// And its limit (SO_RCVBUF, or what the kernel has made of it).
    pub peer_receive_limit: i32,
    /// Bytes that the application wants to be woken for (SO_RCVLOWAT).
    pub peer_receive_low_water: i32,
    /// Unused.
    pub reserved: u32,
}

const _: () = assert!(size_of::<HopReport>() == 80 && size_of::<HopRequest>() == 56);
