//! Failed tries to prove who one is, counted by address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;

/// Time over which tries are counted, seconds.
const WINDOW: u64 = 60;
/// Addresses that are counted at a time; more are not counted until some are forgotten.
const MAX_ADDRESSES: usize = 16_384;

/// Failed tries by address.
#[derive(Debug, Default)]
pub(super) struct Tries {
    counts: Mutex<HashMap<IpAddr, Count>>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    /// Unix time, seconds.
    since: u64,
    failed: u32,
}

impl Tries {
    /// When an address that has failed so often may try again; `None` when it may at once.
    pub(super) fn wait(&self, address: IpAddr, limit: u32, now: u64) -> Option<Duration> {
        let counts = self.counts.lock();
        let count = counts.get(&network(address))?;
        let passed = now.saturating_sub(count.since);
        (count.failed >= limit && passed < WINDOW).then(|| Duration::from_secs(WINDOW - passed))
    }

    /// Counts a failed try.
    pub(super) fn failed(&self, address: IpAddr, now: u64) {
        let mut counts = self.counts.lock();
        let address = network(address);
        if counts.len() >= MAX_ADDRESSES && !counts.contains_key(&address) {
            counts.retain(|_, count| now.saturating_sub(count.since) < WINDOW);
            if counts.len() >= MAX_ADDRESSES {
                return;
            }
        }
        let count = counts.entry(address).or_insert(Count { since: now, failed: 0 });
        if now.saturating_sub(count.since) >= WINDOW {
            *count = Count { since: now, failed: 0 };
        }
        count.failed = count.failed.saturating_add(1);
    }
}

/// What one client has to itself: an address of IPv4, 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_once_it_has_failed_too_often() {
        let tries = Tries::default();
        let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for at in [0, 1, 2] {
            assert_eq!(tries.wait(here, 3, at), None);
            tries.failed(here, at);
        }
        assert_eq!(tries.wait(here, 3, 10), Some(Duration::from_secs(50)));
        assert_eq!(tries.wait("::ffff:10.0.0.1".parse().unwrap(), 3, 10), Some(Duration::from_secs(50)));
        assert_eq!(
            (tries.wait(there, 3, 10), tries.wait(here, 4, 10), tries.wait(here, 3, 60)),
            (None, None, None)
        );
        tries.failed(here, 60);
        assert_eq!(tries.wait(here, 3, 60), None, "counted anew");
        let (one, other) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        tries.failed(one, 0);
        assert!(tries.wait(other, 1, 0).is_some(), "one network");
    }

    #[test]
    fn many_addresses_are_forgotten_and_never_more_than_so_many_are_kept() {
        let tries = Tries::default();
        let address = |at: u32| IpAddr::from(at.to_be_bytes());
        for at in 0..MAX_ADDRESSES as u32 + 10 {
            tries.failed(address(at), 0);
        }
        assert_eq!(tries.counts.lock().len(), MAX_ADDRESSES);
        tries.failed(address(u32::MAX), WINDOW);
        assert_eq!(tries.counts.lock().len(), 1);
    }
}
