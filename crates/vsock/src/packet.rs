//! The packet header of the socket device and its constants (virtio 1.2 §5.10.6).

/// The host's context id: the only destination this device serves (virtio 1.2 §5.10.4).
pub(crate) const HOST_CID: u64 = 2;
/// Bytes of a header on the wire; no padding.
pub(crate) const HEADER_BYTES: usize = 44;
/// The largest payload one packet may carry, in bytes. Linux sends no larger one.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub(crate) const TYPE_STREAM: u16 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender will receive no more.
pub(crate) const SHUTDOWN_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender will send no more.
pub(crate) const SHUTDOWN_SEND: u32 = 2;

/// What a packet asks for (`enum virtio_vsock_op`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Op {
    /// Opens a connection.
    Request = 1,
    /// Accepts one.
    Response = 2,
    /// Refuses or ends one.
    Reset = 3,
    /// Closes one or both directions.
    Shutdown = 4,
    /// Carries bytes.
    Data = 5,
    /// Says how much room the sender has.
    CreditUpdate = 6,
    /// Asks how much room the receiver has.
    CreditRequest = 7,
}

impl Op {
    /// The operation of a number on the wire, if there is one.
    pub(crate) fn from_wire(op: u16) -> Option<Self> {
        [
            Self::Request,
            Self::Response,
            Self::Reset,
            Self::Shutdown,
            Self::Data,
            Self::CreditUpdate,
            Self::CreditRequest,
        ]
        .into_iter()
        .find(|known| *known as u16 == op)
    }
}

/// A packet's header, `struct virtio_vsock_hdr`, in the host's byte order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Who sends it.
    pub(crate) src_cid: u64,
    /// Who receives it.
    pub(crate) dst_cid: u64,
    /// The sender's port.
    pub(crate) src_port: u32,
    /// The receiver's port.
    pub(crate) dst_port: u32,
    /// Bytes of payload that follow.
    pub(crate) len: u32,
    /// Kind of socket: [`TYPE_STREAM`].
    pub(crate) kind: u16,
    /// The operation, see [`Op`].
    pub(crate) op: u16,
    /// Flags of the operation.
    pub(crate) flags: u32,
    /// Bytes of the sender's receive buffer.
    pub(crate) buf_alloc: u32,
    /// Bytes the sender has taken out of that buffer since the connection opened, modulo 2³².
    pub(crate) fwd_cnt: u32,
}

impl Header {
    /// The header in these bytes.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Self {
            src_cid: u64_at(0),
            dst_cid: u64_at(8),
            src_port: u32_at(16),
            dst_port: u32_at(20),
            len: u32_at(24),
            kind: u16_at(28),
            op: u16_at(30),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        }
    }

    /// The bytes of this header.
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The refusal of this packet: sent back to where it came from, with no state behind it.
    pub(crate) fn refusal(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: Op::Reset as u16,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_layout_of_the_specification() {
        let header = Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 0x0102_0304,
            dst_port: 0x4000_0000,
            len: 5,
            kind: TYPE_STREAM,
            op: Op::Data as u16,
            flags: SHUTDOWN_RECEIVE | SHUTDOWN_SEND,
            buf_alloc: 0x0004_0000,
            fwd_cnt: 0xffff_fffe,
        };
        let bytes = header.encode();
        #[rustfmt::skip]
        let expected = [
            3, 0, 0, 0, 0, 0, 0, 0,  2, 0, 0, 0, 0, 0, 0, 0,
            4, 3, 2, 1,  0, 0, 0, 0x40,  5, 0, 0, 0,  1, 0,  5, 0,
            3, 0, 0, 0,  0, 0, 4, 0,  0xfe, 0xff, 0xff, 0xff,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(Header::decode(&bytes), header);
    }

    #[test]
    fn only_the_seven_operations_are_known() {
        for op in 1..=7 {
            assert_eq!(Op::from_wire(op).map(|known| known as u16), Some(op));
        }
        for op in [0, 8, u16::MAX] {
            assert_eq!(Op::from_wire(op), None);
        }
    }
}
