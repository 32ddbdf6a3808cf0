//! What counts as one address, wherever something is counted by address.

use std::net::{IpAddr, Ipv6Addr};

/// Of version 6 the network of 64 bits, of which whoever has one address has all. Loopback is itself.
pub(crate) fn counted_as(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_version_6_is_one_address_and_a_mapped_one_is_of_version_4() {
        let of = |text: &str| counted_as(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::9"), of("2001:db8:1:3::9"));
        assert_eq!(of("::ffff:10.0.0.1"), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(of("::1"), IpAddr::from(Ipv6Addr::LOCALHOST));
    }
}
