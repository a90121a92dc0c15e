//! What a handshake costs most, by graviola where the CPU allows it: X25519 (RFC 7748), the group that every end offers first,
//! in half of ring's time, and signatures with P-256. All else is ring's (dataplane/decisions/0015-graviola.md).

use rustls::NamedGroup;
use rustls::crypto::{CryptoProvider, ring};

/// ring's algorithms, and graviola's in place of two of them; X25519 first, as it is the cheapest group.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.kx_groups.retain(|group| group.name() != NamedGroup::X25519);
    provider.kx_groups.insert(0, ring::kx_group::X25519);
    #[cfg(target_arch = "x86_64")]
    if x86_64::runs_here() {
        provider.kx_groups[0] = &x86_64::X25519;
        provider.key_provider = &x86_64::Keys;
    }
    provider
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use graviola::hashing::Sha256;
    use graviola::key_agreement::x25519::{PrivateKey, PublicKey};
    use graviola::signing::ecdsa;
    use rustls::crypto::{ActiveKeyExchange, GetRandomFailed, KeyProvider, SharedSecret, SupportedKxGroup, ring};
    use rustls::sign::{Signer, SigningKey};
    use rustls::{Error, NamedGroup, PeerMisbehaved, SignatureAlgorithm, SignatureScheme};
    use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
    use std::arch::is_x86_feature_detected as has;
    use std::fmt;
    use std::sync::Arc;

    /// What graviola asserts at each call, and what its code for these curves is written with.
    pub(super) fn runs_here() -> bool {
        has!("aes") && has!("pclmulqdq") && has!("bmi1") && has!("bmi2") && has!("adx") && has!("avx") && has!("avx2")
    }

    #[derive(Debug)]
    pub(super) struct X25519;

    struct Begun {
        key: PrivateKey,
        public: [u8; 32],
    }

    impl SupportedKxGroup for X25519 {
        fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
            let key = PrivateKey::new_random().map_err(|_| GetRandomFailed)?;
            let public = key.public_key().as_bytes();
            Ok(Box::new(Begun { key, public }))
        }

        fn name(&self) -> NamedGroup {
            NamedGroup::X25519
        }
    }

    impl ActiveKeyExchange for Begun {
        /// A share of another length is refused, and one that makes the secret zero (RFC 8446, section 7.4.2).
        fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
            let share = PublicKey::try_from_slice(share).ok();
            let secret = share.and_then(|share| self.key.diffie_hellman(&share).ok());
            let secret = secret.ok_or(PeerMisbehaved::InvalidKeyShare)?;
            Ok(SharedSecret::from(&secret.0[..]))
        }

        fn pub_key(&self) -> &[u8] {
            &self.public
        }

        fn group(&self) -> NamedGroup {
            NamedGroup::X25519
        }
    }

    #[derive(Debug)]
    pub(super) struct Keys;

    impl KeyProvider for Keys {
        /// Takes what ring takes.
        fn load_private_key(&self, der: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
            let known = ring::sign::any_supported_type(&der)?;
            let quick = match &der {
                PrivateKeyDer::Pkcs8(der) => ecdsa::SigningKey::from_pkcs8_der(der.secret_pkcs8_der()),
                PrivateKeyDer::Sec1(der) => ecdsa::SigningKey::from_sec1_der(der.secret_sec1_der()),
                _ => return Ok(known),
            };
            // Keys of other kinds stay ring's.
            Ok(quick.map_or(known.clone(), |key| Arc::new(P256 { key: Arc::new(key), known })))
        }
    }

    struct P256 {
        key: Arc<ecdsa::SigningKey<ecdsa::P256>>,
        /// The same key, as ring has read it.
        known: Arc<dyn SigningKey>,
    }

    impl SigningKey for P256 {
        fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
            let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
            offered.contains(&scheme).then(|| Box::new(Signing(self.key.clone())) as Box<dyn Signer>)
        }

        fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
            self.known.public_key()
        }

        fn algorithm(&self) -> SignatureAlgorithm {
            SignatureAlgorithm::ECDSA
        }
    }

    impl fmt::Debug for P256 {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("P256")
        }
    }

    struct Signing(Arc<ecdsa::SigningKey<ecdsa::P256>>);

    impl Signer for Signing {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
            /// Two integers of 33 bytes, with their types and lengths.
            const MOST: usize = 72;
            let mut room = [0; MOST];
            let signature = self.0.sign_asn1::<Sha256>(&[message], &mut room);
            signature.map(<[u8]>::to_vec).map_err(|_| GetRandomFailed.into())
        }

        fn scheme(&self) -> SignatureScheme {
            SignatureScheme::ECDSA_NISTP256_SHA256
        }
    }

    impl fmt::Debug for Signing {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Signing")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use rcgen::{KeyPair, PublicKeyData};
    use rustls::crypto::{ActiveKeyExchange, SupportedKxGroup};
    use rustls::{Error, PeerMisbehaved, SignatureScheme};
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    fn x25519() -> &'static dyn SupportedKxGroup {
        provider().kx_groups[0]
    }

    fn other() -> Box<dyn ActiveKeyExchange> {
        ring::kx_group::X25519.start().unwrap()
    }

    #[test]
    fn both_ends_have_one_secret_whoever_makes_it() {
        for _ in 0..200 {
            let (own, peer) = (x25519().start().unwrap(), other());
            let (own_share, peer_share) = (own.pub_key().to_vec(), peer.pub_key().to_vec());
            let (own, peer) = (own.complete(&peer_share).unwrap(), peer.complete(&own_share).unwrap());
            assert_eq!(own.secret_bytes(), peer.secret_bytes());
        }
        let shares: std::collections::BTreeSet<Vec<u8>> =
            (0..200).map(|_| x25519().start().unwrap().pub_key().to_vec()).collect();
        assert_eq!(shares.len(), 200, "a key came twice");
    }

    /// RFC 7748, section 6.1: points of small order, and the same with the bit set that is to be ignored.
    #[test]
    fn a_share_that_takes_part_in_nothing_is_refused() {
        let small = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        let mut shares: Vec<Vec<u8>> = small.into_iter().map(hex).collect();
        for share in shares.clone() {
            shares.push(share.iter().copied().take(31).chain([share[31] | 0x80]).collect());
        }
        shares.extend([Vec::new(), vec![9; 31], vec![9; 33]]);
        for share in shares {
            let refused = x25519().start().unwrap().complete(&share).err();
            assert_eq!(refused, Some(Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare)), "{share:x?}");
        }
    }

    /// RFC 7748, section 5.2: its two vectors, the second with the bit set that is to be ignored, and its thousand rounds.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_vectors_of_the_rfc_come_out() {
        use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
        if !x86_64::runs_here() {
            eprintln!("skipped: this CPU lacks what graviola needs");
            return;
        }
        let product = |scalar: &[u8], point: &[u8]| {
            let key = StaticPrivateKey::try_from_slice(scalar).unwrap();
            key.diffie_hellman(&PublicKey::try_from_slice(point).unwrap()).unwrap().0.to_vec()
        };
        let vectors = [
            [
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ],
            [
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ],
        ];
        for [scalar, point, expected] in vectors {
            assert_eq!(product(&hex(scalar), &hex(point)), hex(expected));
        }
        let base = hex("0900000000000000000000000000000000000000000000000000000000000000");
        let (mut scalar, mut point) = (base.clone(), base);
        for _ in 0..1000 {
            let next = product(&scalar, &point);
            point = std::mem::replace(&mut scalar, next);
        }
        assert_eq!(scalar, hex("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
    }

    #[test]
    fn signatures_with_p256_are_such_as_ring_verifies() {
        let pair = KeyPair::generate().unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.serialize_pem().as_bytes()).unwrap();
        let key = provider().key_provider.load_private_key(key).unwrap();
        let public = key.public_key().unwrap();
        assert_eq!(public.as_ref(), pair.subject_public_key_info());
        let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.der_bytes());
        assert!(key.choose_scheme(&[SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ED25519]).is_none());
        let signer = key.choose_scheme(&[SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for length in 0..300 {
            let message = vec![7; length % 150];
            let signature = signer.sign(&message).unwrap();
            assert_eq!(verifier.verify(&message, &signature), Ok(()));
            assert!(verifier.verify(&[0], &signature).is_err());
            assert!(seen.insert(signature), "a nonce came twice");
        }
    }

    #[test]
    fn keys_of_other_kinds_and_bad_ones_are_rings() {
        let load = |pem: &str| {
            provider().key_provider.load_private_key(PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap())
        };
        for (kind, scheme) in [
            (&rcgen::PKCS_ECDSA_P384_SHA384, SignatureScheme::ECDSA_NISTP384_SHA384),
            (&rcgen::PKCS_ED25519, SignatureScheme::ED25519),
        ] {
            let key = load(&KeyPair::generate_for(kind).unwrap().serialize_pem()).unwrap();
            assert!(key.choose_scheme(&[scheme]).is_some());
        }
        let bad = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        assert!(load(bad).is_err());
    }
}
