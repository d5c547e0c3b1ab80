//! Which addresses may be connected to: those of the public Internet, and networks that the
//! configuration lists.
//!
//! The tables follow the IANA registries of special-purpose addresses (RFC 6890 and what came
//! after). An IPv6 address that carries an IPv4 one is judged by that one where it is just another
//! way to write it, and refused where it is a tunnel.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// IPv4 networks that nobody on the public Internet has, and what they are.
const RESERVED_V4: [(Network, &str); 16] = [
    (v4([0, 0, 0, 0], 8), "this network"),
    (v4([10, 0, 0, 0], 8), "private"),
    (v4([100, 64, 0, 0], 10), "shared by a carrier"),
    (v4([127, 0, 0, 0], 8), "this machine"),
    (
        v4([169, 254, 0, 0], 16),
        "link-local, where clouds serve credentials",
    ),
    (v4([172, 16, 0, 0], 12), "private"),
    (v4([192, 0, 0, 0], 24), "for protocols"),
    (v4([192, 0, 2, 0], 24), "for documentation"),
    (v4([192, 88, 99, 0], 24), "a 6to4 relay"),
    (v4([192, 168, 0, 0], 16), "private"),
    (v4([198, 18, 0, 0], 15), "for benchmarks"),
    (v4([198, 51, 100, 0], 24), "for documentation"),
    (v4([203, 0, 113, 0], 24), "for documentation"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([255, 255, 255, 255], 32), "broadcast"),
    (v4([240, 0, 0, 0], 4), "reserved"),
];

/// The part of IPv6 that is given out at all.
const GLOBAL_V6: Network = v6(0x2000_0000_0000_0000, 3);

/// What is reserved within [`GLOBAL_V6`].
const RESERVED_V6: [(Network, &str); 5] = [
    (v6(0x2001_0000_0000_0000, 32), "a Teredo tunnel"),
    (v6(0x2001_0000_0000_0000, 23), "for protocols"),
    (v6(0x2001_0db8_0000_0000, 32), "for documentation"),
    (v6(0x2002_0000_0000_0000, 16), "a 6to4 tunnel"),
    (v6(0x3fff_0000_0000_0000, 20), "for documentation"),
];

/// Says why an address is none of the public Internet; `None` where it is one.
pub(super) fn reserved(address: IpAddr) -> Option<&'static str> {
    match carried(address) {
        IpAddr::V4(_) => named(&RESERVED_V4, carried(address)),
        IpAddr::V6(inner) if is_isatap(inner) => Some("an ISATAP tunnel"),
        IpAddr::V6(inner) if GLOBAL_V6.contains(inner.into()) => named(&RESERVED_V6, inner.into()),
        IpAddr::V6(inner) => Some(outside(inner)),
    }
}

fn named(table: &[(Network, &'static str)], address: IpAddr) -> Option<&'static str> {
    let found = table.iter().find(|(network, _)| network.contains(address));
    found.map(|(_, why)| *why)
}

/// Names what lies outside of what is given out.
fn outside(address: Ipv6Addr) -> &'static str {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => "this machine",
        [0, ..] => "no address of a machine",
        [first, ..] if first & 0xfe00 == 0xfc00 => "private",
        [first, ..] if first & 0xffc0 == 0xfe80 => "link-local",
        [first, ..] if first & 0xff00 == 0xff00 => "multicast",
        _ => "reserved",
    }
}

/// Returns the IPv4 address that an IPv6 address is only another way to write: mapped
/// (`::ffff:a.b.c.d`), or translated by the well-known prefix (`64:ff9b::a.b.c.d`, RFC 6052), which
/// is how an IPv6-only network reaches IPv4.
fn carried(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => address,
    }
}

/// An interface id `0:5efe` or `200:5efe` with an IPv4 address behind it (RFC 5214).
fn is_isatap(address: Ipv6Addr) -> bool {
    let [_, _, _, _, high, low, _, _] = address.segments();
    high & !0x0200 == 0 && low == 0x5efe
}

/// A range of addresses, written `10.0.0.0/8`, `fd00::/8`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: u128,
    mask: u128,
    is_v4: bool,
}

const fn v4(octets: [u8; 4], prefix: u32) -> Network {
    Network {
        first: u32::from_be_bytes(octets) as u128,
        mask: mask(prefix, 32),
        is_v4: true,
    }
}

/// `top` is the address's first 64 bits; the rest is zeros.
const fn v6(top: u64, prefix: u32) -> Network {
    Network {
        first: (top as u128) << 64,
        mask: mask(prefix, 128),
        is_v4: false,
    }
}

/// Returns `prefix` ones and then zeros, `width` bits in all.
const fn mask(prefix: u32, width: u32) -> u128 {
    if prefix == 0 {
        return 0;
    }
    (u128::MAX >> (128 - prefix)) << (width - prefix)
}

const fn bits(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(v4) => (v4.to_bits() as u128, true),
        IpAddr::V6(v6) => (v6.to_bits(), false),
    }
}

impl Network {
    /// Says whether an address is one of the network's, however it is written.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        [address, carried(address)].into_iter().any(|address| {
            let (bits, is_v4) = bits(address);
            is_v4 == self.is_v4 && bits & self.mask == self.first
        })
    }
}

/// A network that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadNetwork(String);

impl fmt::Display for BadNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.0;
        write!(
            f,
            "\"{text}\" is no network such as \"10.0.0.0/8\" or \"fd00::/8\" whose address ends in \
             zeros after its prefix"
        )
    }
}

impl std::error::Error for BadNetwork {}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let bad = || BadNetwork(text.chars().take(80).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let (first, is_v4) = bits(address);
        let width = if is_v4 { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse::<u8>().map_err(|_| bad())?.into(),
            None => width,
        };
        if prefix > width || first & !mask(prefix, width) != 0 {
            return Err(bad());
        }
        Ok(Self {
            first,
            mask: mask(prefix, width),
            is_v4,
        })
    }
}
