//! What TCP connections carry: octets that follow from the client's initial sequence number, so that
//! either end can tell whether what it gets belongs to this connection and is where it belongs.

/// Tells the client's octets from the server's.
pub(crate) const FROM_CLIENT: u32 = 0;
/// See [`FROM_CLIENT`].
pub(crate) const FROM_SERVER: u32 = 0x5a5a_a5a5;

/// Octets `from` to `from + length` of a stream.
pub(crate) fn octets(key: u32, from: u32, length: u32) -> Vec<u8> {
    let octet =
        |at: u32| (key ^ at.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b).to_be_bytes()[0];
    (from..from + length).map(octet).collect()
}

/// Checks octets that arrived.
pub(crate) fn verify(key: u32, from: u32, found: &[u8]) {
    let expected = octets(key, from, u32::try_from(found.len()).unwrap());
    assert_eq!(found, expected, "the stream's octets from {from} on");
}

/// Octets that a server says after the client's last word, more than it was told.
pub(crate) const fn extra(isn: u32) -> u32 {
    isn % 60
}
