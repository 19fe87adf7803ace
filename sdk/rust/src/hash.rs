//! Hashes of addresses, as LVS has them.

use core::net::IpAddr;

use wvs_abi::Request;

/// An address as one word: an IPv4 address as it is, an IPv6 address as the exclusive or of its
/// four words.
#[inline]
#[must_use]
pub fn fold(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let folded = bits ^ (bits >> 64);
            // The other half of what was folded is cut off.
            #[expect(clippy::cast_possible_truncation, reason = "the lowest word is meant")]
            let word = (folded ^ (folded >> 32)) as u32;
            word
        }
    }
}

/// One of 256 buckets for a word: multiplicative hashing, by 2^32 over the square of the golden
/// ratio, of which the top octet is taken.
#[inline]
#[must_use]
pub fn bucket(word: u32) -> u8 {
    let [.., top] = word.wrapping_mul(0x61C8_8647).to_le_bytes();
    top
}

/// A client as one word: its address, [folded](fold), and with `has_port` the port of TCP or UDP
/// added to it, so that connections of one client spread.
#[inline]
#[must_use]
pub fn client(request: &Request, has_port: bool) -> u32 {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let port = match request.protocol {
        TCP | UDP if has_port => request.client_port,
        _ => 0,
    };
    fold(request.client()).wrapping_add(port.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_of_tcp_and_udp_moves_a_client_as_in_lvs() {
        let mut request = Request { family: 4, ..Request::default() };
        request.client_address[..4].copy_from_slice(&[10, 0, 0, 1]);
        for (client_port, expected) in [(1, 137), (1024, 73), (40_000, 203)] {
            for protocol in [6, 17] {
                let request = Request { client_port, protocol, ..request };
                assert_eq!(bucket(client(&request, true)), expected, "{client_port}");
                assert_eq!(bucket(client(&request, false)), 39);
            }
            let echo = Request { client_port, protocol: 1, ..request };
            assert_eq!(bucket(client(&echo, true)), 39, "an echo request has no port");
        }
    }

    #[test]
    fn addresses_have_the_buckets_they_have_in_lvs() {
        let vectors = [
            ("192.0.2.1", 50),
            ("192.0.2.2", 148),
            ("10.0.0.1", 39),
            ("10.0.0.2", 137),
            ("198.51.100.7", 171),
        ];
        for (address, expected) in vectors {
            assert_eq!(bucket(fold(address.parse().unwrap())), expected, "{address}");
        }
    }

    #[test]
    fn ipv6_address_counts_as_the_xor_of_its_words() {
        // 0a00_0001 in each of the words alone, then 0a00_0001 ^ 0a00_0002 ^ 0a00_0002.
        for address in ["a00:1::", "0:0:a00:1::", "::a00:1:0:0", "::a00:1", "::a00:2:a00:2:a00:1"] {
            assert_eq!(fold(address.parse().unwrap()), 0x0A00_0001, "{address}");
        }
    }
}
