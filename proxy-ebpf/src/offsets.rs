//! Where the fields that the programs read lie in the running kernel's structures.
//!
//! Read from the kernel's BTF when the programs are loaded; they become constants of the
//! programs (`.rodata`). A kernel without one of them has no kernel tier.

/// Byte offsets from the beginning of the structure in the name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `tcp_sock.write_seq`: sequence number behind the last byte written to the socket.
    pub tcp_write_seq: u32,
    /// `tcp_sock.copied_seq`: sequence number of the first byte not read from it.
    pub tcp_copied_seq: u32,
    /// `tcp_sock.rcv_nxt`: sequence number expected next from the peer.
    pub tcp_rcv_nxt: u32,
    /// `tcp_sock.snd_una`: first byte not acknowledged.
    pub tcp_snd_una: u32,
    /// `sock.__sk_common.skc_state`: state of the connection, one byte.
    pub sock_state: u32,
    /// `sock.sk_rcvbuf`: limit of the receive side, bytes of kernel memory.
    pub sock_rcvbuf: u32,
    /// `sock.sk_backlog.rmem_alloc` (`sk_rmem_alloc`): receive memory in use.
    pub sock_rmem_alloc: u32,
    /// `sock.sk_sndbuf`: limit of the send side.
    pub sock_sndbuf: u32,
    /// `sock.sk_wmem_queued`: send memory in use.
    pub sock_wmem_queued: u32,
    /// `sock.sk_rcvlowat`: bytes that the reader wants to be woken for (SO_RCVLOWAT).
    pub sock_rcvlowat: u32,
    /// `sock.sk_socket`.
    pub sock_socket: u32,
    /// `socket.file`.
    pub socket_file: u32,
    /// `file.f_flags`.
    pub file_flags: u32,
    /// `tcp_skb_cb.seq` within `sk_buff.cb`: sequence number of a segment's first byte.
    pub skb_seq: u32,
}

impl Offsets {
    /// Number of fields, each a `u32`.
    pub const COUNT: usize = 14;

    /// As the bytes of the global.
    pub fn to_words(&self) -> [u32; Self::COUNT] {
        [
            self.tcp_write_seq,
            self.tcp_copied_seq,
            self.tcp_rcv_nxt,
            self.tcp_snd_una,
            self.sock_state,
            self.sock_rcvbuf,
            self.sock_rmem_alloc,
            self.sock_sndbuf,
            self.sock_wmem_queued,
            self.sock_rcvlowat,
            self.sock_socket,
            self.socket_file,
            self.file_flags,
            self.skb_seq,
        ]
    }
}

const _: () = assert!(size_of::<Offsets>() == Offsets::COUNT * 4);
