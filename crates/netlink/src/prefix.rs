//! Addresses with the length of their network, and hardware addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::error::{NetlinkError, Result};

/// An address and how many of its first bits name its network: `10.0.2.15/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The address with the length of its network, in bits.
    ///
    /// # Errors
    /// The address has fewer bits.
    pub fn new(address: IpAddr, length: u8) -> Result<Self> {
        if u32::from(length) > bits(address) {
            return Err(NetlinkError::Address(format!(
                "{address}/{length}: the address has {} bits",
                bits(address)
            )));
        }
        Ok(Self { address, length })
    }

    /// The address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The length of its network, in bits.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether an address is in this one's network.
    #[must_use]
    pub fn contains(self, other: IpAddr) -> bool {
        let same = |ours: u128, theirs: u128, bits: u32| {
            let shift = bits - u32::from(self.length);
            // A shift by all bits of the type is no shift at all.
            shift >= u128::BITS || ours >> shift == theirs >> shift
        };
        match (self.address, other) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                same(ours.to_bits().into(), theirs.to_bits().into(), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.to_bits(), theirs.to_bits(), 128),
            _ => false,
        }
    }

    /// The same network, with the bits after its length cleared: what a route's destination has to be.
    #[must_use]
    pub fn network(self) -> Self {
        let host_bits = bits(self.address) - u32::from(self.length);
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V4((address.to_bits() & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6((address.to_bits() & mask).into())
            }
        };
        Self { address, ..self }
    }
}

fn bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = NetlinkError;

    /// `ADDRESS/LENGTH`; an address alone is all of its network.
    fn from_str(text: &str) -> Result<Self> {
        let refused = || NetlinkError::Address(format!("{text:?} is no ADDRESS/LENGTH"));
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let length = match length {
            Some(length) => length.parse().map_err(|_| refused())?,
            None if address.is_ipv4() => 32,
            None => 128,
        };
        Self::new(address, length)
    }
}

/// The hardware address of an Ethernet interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = NetlinkError;

    /// Six pairs of hexadecimal digits with `:` or, as Windows has it, `-` between.
    fn from_str(text: &str) -> Result<Self> {
        let refused = || NetlinkError::Address(format!("{text:?} is no hardware address"));
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refused)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| refused())?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        assert!(prefix("10.0.2.15/24").contains("10.0.2.2".parse().unwrap()));
        assert!(!prefix("10.0.2.15/24").contains("10.0.3.2".parse().unwrap()));
        assert!(prefix("0.0.0.0/0").contains("8.8.8.8".parse().unwrap()));
        assert!(prefix("::/0").contains("fe80::1".parse().unwrap()));
        assert!(!prefix("::/0").contains("8.8.8.8".parse().unwrap()));
        assert!(prefix("fd00:1::5/64").contains("fd00:1::1".parse().unwrap()));
        assert!(!prefix("10.1.2.3").contains("10.1.2.4".parse().unwrap()));
    }

    #[test]
    fn a_network_has_no_bits_of_its_hosts() {
        assert_eq!(prefix("10.0.2.15/24").network().to_string(), "10.0.2.0/24");
        assert_eq!(prefix("10.0.2.15/0").network().to_string(), "0.0.0.0/0");
        assert_eq!(prefix("fd00:1::5/64").network().to_string(), "fd00:1::/64");
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for bad in [
            "",
            "/",
            "10.0.0.1/",
            "10.0.0.1/33",
            "fd00::1/129",
            "10.0.0/8",
            "a/b",
            "1.2.3.4/-1",
        ] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hardware_addresses_are_read_in_both_spellings() {
        let mac = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0xab]);
        assert_eq!("52-54-00-12-34-AB".parse::<MacAddress>().unwrap(), mac);
        assert_eq!(mac.to_string().parse::<MacAddress>().unwrap(), mac);
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:5",
            "52:54:00:12:34:56:78",
            "g2:54:00:12:34:56",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }
}
