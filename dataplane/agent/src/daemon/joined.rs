//! Who this proxy became when it joined: its key, which never leaves this machine, and what the daemon issued for it.
//!
//! | file | what it is |
//! | --- | --- |
//! | `key.pem` | the key; made before the first question, so that the same question can be asked again |
//! | `chain.pem` | the certificate; its being there means that the proxy has joined |
//! | `key.next.pem` | the key of a renewal that is under way |
//! | `bundle.pem` | the roots of the mesh |
//! | `proxy` | the id that the daemon gave, the group |
//! | `daemons` | where daemons are, `host:port`, one a line |

use super::folder::Folder;
use crate::tell::tell;
use api::pb::Issued;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use wire::spiffe::Pattern;
use wire::tls::{Credential, Expect, Trust};

const KEY: &str = "key.pem";
const NEXT_KEY: &str = "key.next.pem";
const CHAIN: &str = "chain.pem";
const BUNDLE: &str = "bundle.pem";
const PROXY: &str = "proxy";
const DAEMONS: &str = "daemons";
/// Of each of these files, bytes.
const MOST_BYTES: u64 = 1 << 20;
/// Addresses of daemons that are kept.
const MOST_DAEMONS: usize = 64;
/// A host's name has 253 bytes at most (RFC 1035 section 2.3.4), a port five digits.
const LONGEST_PLACE: usize = 260;
/// The path of a daemon's identity.
pub(crate) const DAEMON_PATH: &str = "/ringwayd";

/// The proxy's place in the mesh.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    /// Certificate and key.
    pub(crate) credential: Credential,
    /// The certificate chain, PEM.
    pub(crate) chain: Vec<u8>,
    /// The key, PEM.
    pub(crate) key: Key,
    /// The roots of the mesh.
    pub(crate) trust: Trust,
    /// The SPIFFE ID.
    pub(crate) identity: String,
    /// What the daemon calls the proxy.
    pub(crate) proxy: String,
    /// Its group.
    pub(crate) group: String,
    /// Where daemons are.
    pub(crate) daemons: Vec<String>,
}

/// A private key, PEM; prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) Vec<u8>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// A key, and the request for a certificate of it.
#[derive(Debug)]
pub(crate) struct Asking {
    key: Key,
    /// PKCS #10, DER.
    pub(crate) csr: Vec<u8>,
    /// Where the key is until there is an answer.
    file: &'static str,
}

impl Asking {
    /// The request to join: with the key of an earlier one, if there was one, so that it is the same request.
    ///
    /// # Errors
    /// The key cannot be kept.
    pub(crate) fn to_join(folder: &Folder) -> Result<Asking, String> {
        let kept = folder.read(KEY, MOST_BYTES)?;
        let kept = kept.and_then(|pem| KeyPair::from_pem(std::str::from_utf8(&pem).ok()?).ok());
        match kept {
            Some(key) => Asking::with(&key, KEY),
            None => Asking::fresh(folder, KEY),
        }
    }

    /// The request for another certificate, with another key.
    ///
    /// # Errors
    /// The key cannot be kept.
    pub(crate) fn to_renew(folder: &Folder) -> Result<Asking, String> {
        Asking::fresh(folder, NEXT_KEY)
    }

    fn fresh(folder: &Folder, file: &'static str) -> Result<Asking, String> {
        // ECDSA on P-256.
        let key = KeyPair::generate().map_err(|error| format!("a key cannot be made: {error}"))?;
        let asking = Asking::with(&key, file)?;
        folder.write(file, &asking.key.0)?;
        Ok(asking)
    }

    fn with(key: &KeyPair, file: &'static str) -> Result<Asking, String> {
        let mut request = CertificateParams::default();
        request.distinguished_name = DistinguishedName::new();
        let csr = request.serialize_request(key).map_err(|error| format!("a request cannot be made: {error}"))?;
        Ok(Asking { key: Key(key.serialize_pem().into_bytes()), csr: csr.der().to_vec(), file })
    }

    /// Keeps the answer: from now on the proxy is who it says. What is not valid now takes the place of nothing.
    ///
    /// # Errors
    /// The answer is of no use, or it cannot be kept; everything is as it was then.
    pub(crate) fn answered(self, folder: &Folder, issued: Issued, now_s: u64) -> Result<Joined, String> {
        let Issued { chain, bundle, proxy, group, daemons, .. } = issued;
        let daemons = places(daemons);
        let joined = Joined::new(chain, self.key, &bundle, (proxy, group), daemons)?;
        joined.check_time(now_s)?;
        folder.write(BUNDLE, &bundle)?;
        folder.write(PROXY, format!("{}\n{}\n", joined.proxy, joined.group).as_bytes())?;
        keep_daemons(folder, &joined.daemons)?;
        folder.write(CHAIN, &joined.chain)?;
        if self.file != KEY {
            folder.rename(self.file, KEY)?;
        }
        Ok(joined)
    }
}

/// Where daemons are, as far as a daemon may say so.
pub(super) fn places(mut told: Vec<String>) -> Vec<String> {
    told.retain(|one| !one.is_empty() && one.len() <= LONGEST_PLACE && !one.contains(char::is_whitespace));
    told.truncate(MOST_DAEMONS);
    told
}

/// Keeps where daemons are.
///
/// # Errors
/// It could not be written; what was there before still is.
pub(super) fn keep_daemons(folder: &Folder, daemons: &[String]) -> Result<(), String> {
    folder.write(DAEMONS, daemons.join("\n").as_bytes())
}

impl Joined {
    fn new(
        chain: Vec<u8>,
        key: Key,
        bundle: &[u8],
        (proxy, group): (String, String),
        daemons: Vec<String>,
    ) -> Result<Joined, String> {
        let credential = Credential::from_pem(&chain, &key.0).map_err(|reason| format!("the certificate: {reason}"))?;
        let identity = credential.identity().map_err(|reason| format!("the certificate: {reason}"))?;
        let (identity, domain) = (identity.as_str().to_owned(), identity.trust_domain().to_owned());
        let trust = Trust::from_pem(&[bundle], vec![domain], &[]).map_err(|reason| format!("the bundle {reason}"))?;
        if proxy.contains(char::is_control) || group.contains(char::is_control) {
            return Err("the proxy's id or group has control characters".to_owned());
        }
        Ok(Joined { credential, chain, key, trust, identity, proxy, group, daemons })
    }

    /// Reads what was kept; None: the proxy has not joined yet.
    ///
    /// # Errors
    /// What is there does not fit together.
    pub(crate) fn read(folder: &Folder) -> Result<Option<Joined>, String> {
        let Some(chain) = folder.read(CHAIN, MOST_BYTES)? else { return Ok(None) };
        let text = |file: &str| -> Result<String, String> {
            Ok(String::from_utf8_lossy(&folder.read(file, MOST_BYTES)?.unwrap_or_default()).into_owned())
        };
        let bundle = folder.read(BUNDLE, MOST_BYTES)?.unwrap_or_default();
        let about = text(PROXY)?;
        let mut about = about.lines().map(str::to_owned);
        let about = (about.next().unwrap_or_default(), about.next().unwrap_or_default());
        let daemons: Vec<String> = text(DAEMONS)?.lines().map(str::to_owned).collect();
        let with = |key: Option<Vec<u8>>| {
            let key = Key(key.ok_or("the key is not there")?);
            Joined::new(chain.clone(), key, &bundle, about.clone(), daemons.clone())
        };
        // A renewal that was cut off between its certificate and its key.
        if let Ok(joined) = with(folder.read(NEXT_KEY, MOST_BYTES)?) {
            // A disk that takes nothing has all that is needed; it is tried again at the next start.
            if let Err(reason) = folder.rename(NEXT_KEY, KEY) {
                tell(reason);
            }
            return Ok(Some(joined));
        }
        folder.remove(NEXT_KEY);
        with(folder.read(KEY, MOST_BYTES)?).map(Some).map_err(|reason| format!("{}: {reason}", folder.name(CHAIN)))
    }

    /// Whether the certificate may be shown.
    pub(crate) fn is_valid(&self, now_s: u64) -> bool {
        self.credential.check_time(now_s).is_ok()
    }

    /// As [`Joined::is_valid`], of one that was issued just now.
    fn check_time(&self, now_s: u64) -> Result<(), String> {
        let (from_s, to_s) = (self.credential.not_before_s(), self.credential.not_after_s());
        let when = match () {
            () if now_s < from_s => format!("begins in {} s", from_s - now_s),
            () if now_s > to_s => format!("ended {} s ago", now_s - to_s),
            () => return Ok(()),
        };
        Err(format!("what was issued {when} by this machine's clock; set this one or the daemon's right"))
    }

    /// When another certificate is due: after half its life, and up to a twentieth of it later, so that not all proxies of one
    /// moment ask at once. Seconds since 1970.
    pub(crate) fn renew_at_s(&self, random: u64) -> u64 {
        let (from, to) = (self.credential.not_before_s(), self.credential.not_after_s());
        let life = to.saturating_sub(from);
        from + life / 2 + random % (life / 20 + 1)
    }

    /// How long before its end it should have been renewed long since, seconds.
    pub(crate) fn overdue_s(&self) -> u64 {
        let (from, to) = (self.credential.not_before_s(), self.credential.not_after_s());
        to.saturating_sub(from) / 4
    }

    /// Whom this proxy takes for its daemon: by the mesh's roots, and by identity.
    pub(crate) fn expected_daemon(&self) -> Vec<Expect> {
        let domain = self.credential.identity().map(|identity| identity.trust_domain().to_owned()).unwrap_or_default();
        Pattern::parse(&format!("spiffe://{domain}{DAEMON_PATH}")).map(Expect::Identity).into_iter().collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateSigningRequestParams, DnType, IsCa, Issuer, SanType, date_time_ymd};

    /// Issues what is asked for.
    pub(in super::super) struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pub(in super::super) root: String,
    }

    impl Authority {
        pub(in super::super) fn new() -> Authority {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "root");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let root = params.self_signed(&key).unwrap().pem();
            Authority { issuer: Issuer::new(params, key), root }
        }

        /// For this identity, until the first of January of a year.
        pub(in super::super) fn issue(&self, csr: &[u8], identity: &str, until: i32) -> Issued {
            let mut request = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
            request.params.subject_alt_names = vec![SanType::URI(identity.try_into().unwrap())];
            (request.params.not_before, request.params.not_after) =
                (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
            Issued {
                chain: request.signed_by(&self.issuer).unwrap().pem().into_bytes(),
                bundle: self.root.clone().into_bytes(),
                proxy: "p1".into(),
                group: "cart".into(),
                daemons: vec!["10.0.0.1:9443".into(), "bad one".into()],
                ..Issued::default()
            }
        }
    }

    pub(in super::super) const CART: &str = "spiffe://shop/cart";

    /// In 2021.
    const NOW_S: u64 = 1_610_000_000;

    fn folder() -> (tempfile::TempDir, Folder) {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::open(&directory.path().join("state")).unwrap();
        (directory, folder)
    }

    fn csr_key(csr: &[u8]) -> Vec<u8> {
        use rcgen::PublicKeyData;
        CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap().public_key.der_bytes().to_vec()
    }

    #[test]
    fn a_request_that_was_not_answered_is_asked_again_with_the_same_key() {
        let (_directory, folder) = folder();
        assert!(Joined::read(&folder).unwrap().is_none());
        let (first, second) = (Asking::to_join(&folder).unwrap(), Asking::to_join(&folder).unwrap());
        assert_eq!(csr_key(&first.csr), csr_key(&second.csr));
        assert!(Joined::read(&folder).unwrap().is_none(), "a key alone is no joining");
    }

    #[test]
    fn what_was_issued_is_kept_and_read_again() {
        let (_directory, folder) = folder();
        let authority = Authority::new();
        let asking = Asking::to_join(&folder).unwrap();
        let issued = authority.issue(&asking.csr, CART, 2100);
        asking.answered(&folder, issued, NOW_S).unwrap();
        let joined = Joined::read(&folder).unwrap().unwrap();
        assert_eq!((&*joined.identity, &*joined.proxy, &*joined.group), (CART, "p1", "cart"));
        assert_eq!(joined.daemons, ["10.0.0.1:9443"]);
        let Some(Expect::Identity(daemon)) = joined.expected_daemon().pop() else { panic!() };
        assert_eq!(daemon.as_str(), "spiffe://shop/ringwayd");
        assert!(!format!("{joined:?}").contains("PRIVATE"));
    }

    #[test]
    fn an_answer_that_does_not_fit_changes_nothing() {
        let (_directory, folder) = folder();
        let authority = Authority::new();
        let issued = authority.issue(&Asking::to_join(&folder).unwrap().csr, CART, 2100);
        let other = Asking::to_renew(&folder).unwrap();
        let reason = other.answered(&folder, issued.clone(), NOW_S).unwrap_err();
        assert!(reason.contains("the key does not belong to the certificate"), "{reason}");
        let no_roots = Issued { bundle: Vec::new(), ..issued.clone() };
        let reason = Asking::to_join(&folder).unwrap().answered(&folder, no_roots, NOW_S).unwrap_err();
        assert!(reason.starts_with("the bundle has no certificate"), "{reason}");
        let half = Issued { chain: issued.chain[..200].to_vec(), ..issued };
        assert!(Asking::to_join(&folder).unwrap().answered(&folder, half, NOW_S).is_err());
        assert!(Joined::read(&folder).unwrap().is_none());
    }

    /// A daemon whose clock is wrong takes no good certificate from anybody.
    #[test]
    fn what_is_not_valid_now_takes_the_place_of_nothing() {
        let (_directory, folder) = folder();
        let authority = Authority::new();
        let asking = Asking::to_join(&folder).unwrap();
        let issued = authority.issue(&asking.csr, CART, 2100);
        let first = asking.answered(&folder, issued, NOW_S).unwrap();
        let before_s = first.credential.not_before_s() - 7;
        for (until, now_s, why) in [
            (2100, before_s, "what was issued begins in 7 s by this machine's clock"),
            (2021, NOW_S, "what was issued ended 540800 s ago by this machine's clock"),
        ] {
            let asking = Asking::to_renew(&folder).unwrap();
            let issued = authority.issue(&asking.csr, CART, until);
            let reason = asking.answered(&folder, issued, now_s).unwrap_err();
            assert!(reason.starts_with(why), "{reason}");
            assert_eq!(Joined::read(&folder).unwrap().unwrap().chain, first.chain);
        }
    }

    /// Every state that a crash can leave is one certificate with its own key.
    #[test]
    fn a_renewal_may_be_cut_off_anywhere() {
        let (directory, folder) = folder();
        let state = directory.path().join("state");
        let authority = Authority::new();
        let asking = Asking::to_join(&folder).unwrap();
        let issued = authority.issue(&asking.csr, CART, 2100);
        asking.answered(&folder, issued, NOW_S).unwrap();
        let first = Joined::read(&folder).unwrap().unwrap();
        // Asked, and not answered.
        let asking = Asking::to_renew(&folder).unwrap();
        let issued = authority.issue(&asking.csr, CART, 2101);
        assert_eq!(Joined::read(&folder).unwrap().unwrap().chain, first.chain);
        assert!(!state.join(NEXT_KEY).exists());
        // Answered, the certificate kept, its key not yet in place.
        folder.write(NEXT_KEY, &asking.key.0).unwrap();
        folder.write(CHAIN, &issued.chain).unwrap();
        // Where it cannot be put there, the proxy is who it is all the same.
        std::fs::remove_file(state.join(KEY)).unwrap();
        std::fs::create_dir_all(state.join(KEY).join("in the way")).unwrap();
        assert_eq!(Joined::read(&folder).unwrap().unwrap().key, asking.key);
        std::fs::remove_dir_all(state.join(KEY)).unwrap();
        let joined = Joined::read(&folder).unwrap().unwrap();
        assert_eq!((&joined.chain, &joined.key), (&issued.chain, &asking.key));
        assert_eq!(std::fs::read(state.join(KEY)).unwrap(), asking.key.0);
        // And a whole one.
        let asking = Asking::to_renew(&folder).unwrap();
        let issued = authority.issue(&asking.csr, CART, 2102);
        asking.answered(&folder, issued.clone(), NOW_S).unwrap();
        assert_eq!(Joined::read(&folder).unwrap().unwrap().chain, issued.chain);
        // A key of somebody else.
        folder.write(KEY, &first.key.0).unwrap();
        assert!(Joined::read(&folder).unwrap_err().ends_with("the key does not belong to the certificate"));
    }

    #[test]
    fn a_certificate_is_renewed_after_half_its_life() {
        let (_directory, folder) = folder();
        let asking = Asking::to_join(&folder).unwrap();
        let issued = Authority::new().issue(&asking.csr, CART, 2022);
        let joined = asking.answered(&folder, issued, NOW_S).unwrap();
        let (begin, end) = (joined.credential.not_before_s(), joined.credential.not_after_s());
        let half = begin + (end - begin) / 2;
        assert_eq!(joined.renew_at_s(0), half);
        for random in [1, 77, u64::MAX] {
            let at = joined.renew_at_s(random);
            assert!(at >= half && at <= half + (end - begin) / 20, "{random}");
        }
        assert_eq!(joined.overdue_s(), (end - begin) / 4);
        assert!(joined.is_valid(half) && !joined.is_valid(end + 1) && !joined.is_valid(begin - 1));
    }
}
