//! Sets of addresses, as CIDR ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A set of addresses. An IPv4 address that comes mapped into IPv6 (as a socket on `[::]` gives it) is the IPv4 address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Networks {
    /// Of ranges: an address and how many of its leading bits count.
    ///
    /// # Errors
    /// When a range has more bits than its address.
    pub fn new(ranges: impl IntoIterator<Item = (IpAddr, u32)>) -> Result<Networks, String> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (address, bits) in ranges {
            match (address, address.to_canonical()) {
                (IpAddr::V6(_), IpAddr::V4(mapped)) if (96..=128).contains(&bits) => {
                    v4.push(masked4(mapped, bits - 96))
                }
                (IpAddr::V4(address), _) if bits <= 32 => v4.push(masked4(address, bits)),
                (IpAddr::V6(address), _) if bits <= 128 => v6.push(masked6(address, bits)),
                _ => return Err(format!("{address}/{bits} has too many bits")),
            }
        }
        Ok(Networks { v4: v4.into(), v6: v6.into() })
    }

    /// Whether the address is in the set.
    #[inline]
    pub fn allows(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let address = address.to_bits();
                self.v4.iter().any(|(network, mask)| address & mask == *network)
            }
            IpAddr::V6(address) => {
                let address = address.to_bits();
                self.v6.iter().any(|(network, mask)| address & mask == *network)
            }
        }
    }
}

fn masked4(address: Ipv4Addr, bits: u32) -> (u32, u32) {
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    (address.to_bits() & mask, mask)
}

fn masked6(address: Ipv6Addr, bits: u32) -> (u128, u128) {
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    (address.to_bits() & mask, mask)
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v4 = self.v4.iter().map(|(network, mask)| (IpAddr::V4((*network).into()), mask.count_ones()));
        let v6 = self.v6.iter().map(|(network, mask)| (IpAddr::V6((*network).into()), mask.count_ones()));
        for (number, (network, bits)) in v4.chain(v6).enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{network}/{bits}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(ranges: &[(&str, u32)]) -> Networks {
        Networks::new(ranges.iter().map(|(address, bits)| (address.parse().unwrap(), *bits))).unwrap()
    }

    #[test]
    fn leading_bits_decide() {
        let set = networks(&[("192.0.2.77", 24), ("10.0.0.1", 32), ("2001:db8::1", 32)]);
        for inside in ["192.0.2.0", "192.0.2.255", "10.0.0.1", "2001:db8:ffff::", "::ffff:10.0.0.1"] {
            assert!(set.allows(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["192.0.3.0", "10.0.0.0", "2001:db9::", "::10.0.0.1"] {
            assert!(!set.allows(outside.parse().unwrap()), "{outside}");
        }
        assert_eq!(set.to_string(), "192.0.2.0/24, 10.0.0.1/32, 2001:db8::/32");
    }

    #[test]
    fn no_bits_are_every_address_of_the_family() {
        let all = networks(&[("0.0.0.0", 0)]);
        assert!(all.allows("255.1.2.3".parse().unwrap()) && !all.allows("::1".parse().unwrap()));
        assert!(networks(&[("::", 0)]).allows("2001:db8::".parse().unwrap()));
        assert!(!Networks::default().allows("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn mapped_ranges_are_of_the_old_family() {
        assert_eq!(networks(&[("::ffff:10.0.0.0", 104)]).to_string(), "10.0.0.0/8");
        for (address, bits) in [("10.0.0.0", 33), ("::", 129)] {
            assert!(Networks::new([(address.parse().unwrap(), bits)]).is_err(), "{address}/{bits}");
        }
    }
}
