//! The last generation that all cores worked with, as a file: what a proxy starts from when the daemon is away.
//!
//! ```text
//! "ringway generation 1\n" │ SHA-256 of what follows, 32 bytes │ DeltaDiscoveryResponse with all resources
//! ```
//! The message's `system_version_info` is the push, its `control_plane` the identity that all of it was meant for. A file that
//! is torn, was changed or belongs to somebody else is refused as a whole: half a configuration could let somebody in.

use super::offer::Offer;
use super::xds::{Incoming, Kind};
use api::envoy_types::pb::envoy::config::core::v3::ControlPlane;
use api::envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use api::prost::Message;
use crypto::digest::{SHA256, digest};

/// The file's name in the folder of state.
pub(crate) const FILE: &str = "generation";
/// A file of more than this is refused unread, bytes.
pub(crate) const MOST_BYTES: u64 = 512 << 20;

const MAGIC: &[u8] = b"ringway generation 1\n";
const CHECKSUM: usize = 32;

/// What a file had.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Kept {
    /// The push.
    pub(super) version: String,
    pub(super) offers: Vec<(Kind, Offer)>,
}

/// The bytes of a file.
pub(super) fn write<'a>(version: &str, identity: &str, offers: impl Iterator<Item = (Kind, &'a Offer)>) -> Vec<u8> {
    let resource = |offer: &Offer| Resource {
        name: offer.name.clone(),
        version: offer.version.clone(),
        resource: Some(offer.packed.clone()),
        ..Resource::default()
    };
    let message = DeltaDiscoveryResponse {
        system_version_info: version.to_owned(),
        control_plane: Some(ControlPlane { identifier: identity.to_owned() }),
        resources: offers.map(|(_, offer)| resource(offer)).collect(),
        ..DeltaDiscoveryResponse::default()
    };
    let content = message.encode_to_vec();
    [MAGIC, digest(&SHA256, &content).as_ref(), &content].concat()
}

/// Reads the bytes of a file that was written for this identity.
///
/// # Errors
/// Why it is refused.
pub(super) fn read(bytes: &[u8], identity: &str) -> Result<Kept, String> {
    let rest =
        bytes.strip_prefix(MAGIC).ok_or("does not begin as a generation does: it is torn, or of another version")?;
    let (checksum, content) = rest.split_at_checked(CHECKSUM).ok_or("is torn: it ends within its checksum")?;
    if digest(&SHA256, content).as_ref() != checksum {
        return Err("its checksum does not fit: it is torn or was changed".to_owned());
    }
    let message = DeltaDiscoveryResponse::decode(content).map_err(|error| format!("cannot be decoded: {error}"))?;
    let owner = message.control_plane.unwrap_or_default().identifier;
    if owner != identity {
        return Err(format!("belongs to {owner}, and this proxy is {identity}"));
    }
    let mut kept = Kept { version: message.system_version_info, offers: Vec::with_capacity(message.resources.len()) };
    for one in message.resources {
        let resource = one.resource.unwrap_or_default();
        let kind =
            Kind::of(&resource.type_url).ok_or_else(|| format!("has a {}, which is not known", resource.type_url))?;
        let incoming = Incoming { name: Some(one.name), version: one.version, resource };
        // Another version of this program may understand less, or more strictly.
        let offer = Offer::read(kind, incoming).map_err(|reasons| format!("is refused: {}", reasons[0]))?;
        kept.offers.push((kind, offer));
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "spiffe://shop/cart";

    fn offer(name: &str) -> Offer {
        let cluster =
            api::envoy_types::pb::envoy::config::cluster::v3::Cluster { name: name.into(), ..Default::default() };
        let resource = api::xds::any(api::xds::CLUSTER, &cluster);
        Offer::read(Kind::Cluster, Incoming { name: Some(name.into()), version: "c1".into(), resource }).unwrap()
    }

    fn file() -> Vec<u8> {
        let offers = [offer("a"), offer("b")];
        write("7", OWN, offers.iter().map(|offer| (Kind::Cluster, offer)))
    }

    #[test]
    fn what_was_written_is_read_again() {
        let kept = read(&file(), OWN).unwrap();
        assert_eq!(
            kept,
            Kept { version: "7".into(), offers: vec![(Kind::Cluster, offer("a")), (Kind::Cluster, offer("b"))] }
        );
        assert_eq!(read(&write("", OWN, std::iter::empty()), OWN), Ok(Kept::default()));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused() {
        let whole = file();
        for length in 0..whole.len() {
            let reason = read(&whole[..length], OWN).unwrap_err();
            assert!(reason.contains("torn"), "{length}: {reason}");
        }
    }

    #[test]
    fn a_file_with_any_bit_changed_is_refused() {
        let whole = file();
        for bit in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&changed, OWN).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn somebody_elses_file_is_refused() {
        let reason = read(&file(), "spiffe://shop/web").unwrap_err();
        assert_eq!(reason, "belongs to spiffe://shop/cart, and this proxy is spiffe://shop/web");
    }
}
