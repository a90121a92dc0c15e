//! How many requests a client may make: who counts as one client, and what a request takes.

use crate::outside::Bucket;
use crate::policy::Asked;
use crate::siphash::SipHash;
use crate::{Decision, Plan};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

/// How many quotas may concern one request: those of its listener and of its route together.
pub const MOST_QUOTAS: usize = 4;

/// Which quota: an index into `Plan::quotas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaId(NonZeroU32);

/// What a quota's refusals are counted under. Unique within a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaKey {
    /// The listener's name.
    pub listener: Box<str>,
    /// The route's name; empty for the listener's own quotas.
    pub route: Box<str>,
    /// The quota's name.
    pub name: Box<str>,
}

/// One quota of a listener or a route.
#[derive(Debug)]
pub struct Quota {
    /// Under what it is counted, and carried over from plan to plan.
    pub key: QuotaKey,
    pub(crate) per: Per,
    pub(crate) settings: Settings,
    pub(crate) bucket: Arc<Bucket>,
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Per {
    /// Everybody's.
    All,
    /// Those of one SPIFFE ID; of all without one.
    Identity,
    /// Those of one IPv4 address, or of one /64 of IPv6 addresses, of which a single client has its choice.
    Source,
    /// Those with one value of this field; all without it.
    Header(Box<str>),
}

/// How much; equal settings keep their state in the next plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) requests: u32,
    pub(crate) per_ns: u64,
    pub(crate) burst: u32,
    pub(crate) clients: u32,
}

/// What a request takes of a quota: who it comes from, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// Of which quota.
    pub quota: QuotaId,
    /// Who counts as one client.
    pub client: u64,
}

/// A quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Which quota.
    pub quota: QuotaId,
    /// When the next request may be made, seconds from now, rounded up, at least 1.
    pub retry_after_s: u64,
    /// How many requests may be made at once.
    pub limit: u32,
    /// How many may be made now.
    pub remaining: u32,
    /// When all of them may be made again, seconds from now, rounded up.
    pub reset_s: u64,
}

impl QuotaId {
    /// Of an index.
    pub(crate) fn new(index: usize) -> QuotaId {
        QuotaId(NonZeroU32::MIN.saturating_add(index as u32))
    }

    /// The index into `Plan::quotas`.
    #[inline]
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Plan {
    /// Takes what a request costs of each quota that concerns it. To be called once for each decision that has a permit or no
    /// route, before anything else is done for the request.
    ///
    /// # Errors
    /// The first quota that is used up. What was taken of others stays taken.
    #[inline]
    pub fn take_quotas(&self, decision: &Decision, now_ns: u64) -> Result<(), Limited> {
        for QuotaUse { quota, client } in decision.quotas.iter().flatten() {
            let taken = self.quotas[quota.index()].bucket.take(*client, now_ns);
            if !taken.allowed {
                let seconds = |ns: u64| ns.div_ceil(1_000_000_000);
                return Err(Limited {
                    quota: *quota,
                    retry_after_s: seconds(taken.retry_after_ns).max(1),
                    limit: taken.limit,
                    remaining: taken.remaining,
                    reset_s: seconds(taken.reset_ns),
                });
            }
        }
        Ok(())
    }

    /// What a request takes of these quotas.
    pub(crate) fn uses(&self, quotas: &[QuotaId], asked: &mut Asked<'_>) -> [Option<QuotaUse>; MOST_QUOTAS] {
        let mut uses = [None; MOST_QUOTAS];
        for (place, quota) in uses.iter_mut().zip(quotas) {
            let client = self.quotas[quota.index()].per.client(asked, self.seed);
            *place = Some(QuotaUse { quota: *quota, client });
        }
        uses
    }
}

impl Per {
    /// Who a request counts for. Absent is not empty: the first byte tells them apart.
    fn client(&self, asked: &mut Asked<'_>, seed: [u64; 2]) -> u64 {
        let mut hash = SipHash::new(seed);
        match self {
            Per::All => return 0,
            Per::Identity => {
                if let Some(identity) = asked.request.peer.identity {
                    hash.write(b"i");
                    hash.write(identity.as_bytes());
                }
            }
            Per::Source => match asked.source() {
                Some(IpAddr::V4(address)) => {
                    hash.write(b"4");
                    hash.write(&address.octets());
                }
                Some(IpAddr::V6(address)) => {
                    hash.write(b"6");
                    hash.write(&address.octets()[..8]);
                }
                None => {}
            },
            Per::Header(name) => {
                let request = asked.request;
                let named = request
                    .fields
                    .iter()
                    .filter(|field| field.name.of(request.head).eq_ignore_ascii_case(name.as_bytes()));
                for field in named {
                    // No value holds a line feed.
                    hash.write(b"\n");
                    hash.write(field.value.of(request.head));
                }
            }
        }
        hash.finish()
    }
}
