//! The forms of `trust`: whose certificates count, and for which trust domains.
//!
//! ```text
//! one file of roots            trusted_ca, crl
//! … and domains                SPIFFECertValidatorConfig: each domain with the file
//! several files; domains and   our own message in custom_validator_config, which an Envoy refuses: it has no form for several
//! a list                       files, and its validator of domains looks at no list
//! ```

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, SpiffeCertValidatorConfig, spiffe_cert_validator_config::TrustDomain,
    },
};

use super::{SPIFFE_VALIDATOR, TRUST, any, decode, is};

/// Whose certificates count. As a message of its own it carries what the other forms cannot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Trust {
    /// Certificates of those who are trusted, PEM; of all of them together.
    #[prost(message, repeated, tag = "1")]
    pub roots: Vec<DataSource>,
    /// The trust domains whose identities count; none: of any.
    #[prost(string, repeated, tag = "2")]
    pub domains: Vec<String>,
    /// Lists of revoked certificates, PEM.
    #[prost(message, optional, tag = "3")]
    pub crl: Option<DataSource>,
}

impl Trust {
    /// Of files.
    pub fn of_files(roots: &[String], domains: &[String], crl: Option<&str>) -> Trust {
        let file =
            |path: &str| DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..DataSource::default() };
        let roots = roots.iter().map(|root| file(root)).collect();
        Trust { roots, domains: domains.to_vec(), crl: crl.map(file) }
    }

    /// The form that it has in a validation context; nothing else stands in that.
    pub fn write(self) -> CertificateValidationContext {
        let mut context = CertificateValidationContext::default();
        let Trust { roots, domains, crl } = &self;
        let (name, packed) = match (&roots[..], &domains[..], crl) {
            ([root], [], _) => {
                (context.trusted_ca, context.crl) = (Some(root.clone()), self.crl);
                return context;
            }
            ([root], domains, None) => {
                let domain = |name: &String| TrustDomain {
                    name: name.clone(),
                    trust_bundle: Some(root.clone()),
                    ..TrustDomain::default()
                };
                let trust_domains = domains.iter().map(domain).collect();
                let config = SpiffeCertValidatorConfig { trust_domains, ..SpiffeCertValidatorConfig::default() };
                ("envoy.tls.cert_validator.spiffe", any(SPIFFE_VALIDATOR, &config))
            }
            _ => ("ringway.trust", any(TRUST, &self)),
        };
        context.custom_validator_config =
            Some(TypedExtensionConfig { name: name.to_owned(), typed_config: Some(packed) });
        context
    }

    /// Takes it out of a validation context; `None` where there is nothing of it.
    ///
    /// # Errors
    /// What cannot be kept: nothing of it is ignored.
    pub fn take(context: &mut CertificateValidationContext) -> Result<Option<Trust>, String> {
        let (root, crl) = (context.trusted_ca.take(), context.crl.take());
        let Some(validator) = context.custom_validator_config.take() else {
            return match (root, crl) {
                (None, None) => Ok(None),
                (None, Some(_)) => Err("crl needs trusted_ca".to_owned()),
                (Some(root), crl) => Ok(Some(Trust { roots: vec![root], domains: Vec::new(), crl })),
            };
        };
        if root.is_some() {
            return Err("custom_validator_config must not stand beside trusted_ca".to_owned());
        }
        let packed = validator.typed_config.unwrap_or_default();
        let trust = match is(&packed, TRUST) {
            true => decode::<Trust>(&packed, TRUST)?,
            false => of_domains(decode(&packed, SPIFFE_VALIDATOR)?)?,
        };
        match (trust.crl.is_some(), crl) {
            (true, Some(_)) => Err("crl stands there twice".to_owned()),
            (_, None) => Ok(Some(trust)),
            (false, crl) => Ok(Some(Trust { crl, ..trust })),
        }
    }
}

/// Domains that all have the same roots. One of other roots than another's could be vouched for by those of the other, as
/// there is one set of roots. A domain without a name is any; a domain that stands there twice has both bundles.
fn of_domains(mut config: SpiffeCertValidatorConfig) -> Result<Trust, String> {
    // In the order in which they stand there.
    let mut names: Vec<String> = Vec::new();
    let mut bundles: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut roots: Vec<DataSource> = Vec::new();
    for domain in std::mem::take(&mut config.trust_domains) {
        let TrustDomain { name, trust_bundle: Some(bundle), workload_trust_domain } = domain else {
            return Err(format!("trust domain {:?} must have a trust_bundle", domain.name));
        };
        if !workload_trust_domain.is_empty() {
            return Err("workload_trust_domain is not supported".to_owned());
        }
        if !bundles.contains_key(&name) {
            names.push(name.clone());
        }
        bundles.entry(name).or_default().insert(prost::Message::encode_to_vec(&bundle));
        if !roots.contains(&bundle) {
            roots.push(bundle);
        }
    }
    if config != SpiffeCertValidatorConfig::default() {
        return Err("of SPIFFECertValidatorConfig nothing but trust_domains is supported".to_owned());
    }
    if roots.is_empty() {
        return Err("trust_domains must not be empty".to_owned());
    }
    let mut all = bundles.values();
    let first = all.next();
    if all.any(|other| Some(other) != first) {
        return Err("trust domains with different bundles are not supported: one could vouch for the other".to_owned());
    }
    // Any domain, and some: that is any.
    let domains = if bundles.contains_key("") { Vec::new() } else { names };
    Ok(Trust { roots, domains, crl: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(roots: &[&str], domains: &[&str], crl: Option<&str>) -> Trust {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Trust::of_files(&owned(roots), &owned(domains), crl)
    }

    fn form(trust: &Trust) -> String {
        let context = trust.clone().write();
        context.custom_validator_config.map_or("trusted_ca".to_owned(), |config| config.name)
    }

    #[test]
    fn each_form_is_read_as_it_was_written() {
        for (trust, wanted) in [
            (files(&["a"], &[], None), "trusted_ca"),
            (files(&["a"], &[], Some("list")), "trusted_ca"),
            (files(&["a"], &["shop", "bank"], None), "envoy.tls.cert_validator.spiffe"),
            (files(&["a"], &["shop"], Some("list")), "ringway.trust"),
            (files(&["a", "b"], &[], None), "ringway.trust"),
            (files(&["a", "b"], &["shop"], Some("list")), "ringway.trust"),
        ] {
            assert_eq!(form(&trust), wanted);
            let mut context = trust.clone().write();
            assert_eq!(Trust::take(&mut context), Ok(Some(trust)));
            assert_eq!(context, CertificateValidationContext::default(), "nothing is left");
        }
        assert_eq!(Trust::take(&mut CertificateValidationContext::default()), Ok(None));
    }

    fn spiffe(domains: &[(&str, &str)]) -> CertificateValidationContext {
        let domain = |(name, file): &(&str, &str)| TrustDomain {
            name: (*name).to_owned(),
            trust_bundle: files(&[file], &[], None).roots.pop(),
            ..TrustDomain::default()
        };
        let trust_domains = domains.iter().map(domain).collect();
        let config = SpiffeCertValidatorConfig { trust_domains, ..SpiffeCertValidatorConfig::default() };
        let (name, typed_config) = (String::new(), Some(any(SPIFFE_VALIDATOR, &config)));
        let custom_validator_config = Some(TypedExtensionConfig { name, typed_config });
        CertificateValidationContext { custom_validator_config, ..CertificateValidationContext::default() }
    }

    #[test]
    fn what_was_written_before_is_read_too() {
        let read = |domains: &[(&str, &str)]| Trust::take(&mut spiffe(domains)).map(Option::unwrap);
        assert_eq!(read(&[("", "a"), ("", "b")]), Ok(files(&["a", "b"], &[], None)));
        let both = [("shop", "a"), ("shop", "b"), ("bank", "a"), ("bank", "b")];
        assert_eq!(read(&both), Ok(files(&["a", "b"], &["shop", "bank"], None)));
    }

    #[test]
    fn one_domain_does_not_vouch_for_another() {
        for domains in [&[("shop", "a"), ("bank", "b")][..], &[("shop", "a"), ("shop", "b"), ("bank", "a")], &[]] {
            assert!(Trust::take(&mut spiffe(domains)).is_err(), "{domains:?}");
        }
        let mut beside = spiffe(&[("shop", "a")]);
        beside.trusted_ca = files(&["b"], &[], None).roots.pop();
        assert!(Trust::take(&mut beside).is_err());
        let mut listed = spiffe(&[("shop", "a")]);
        listed.crl = files(&["list"], &[], None).roots.pop();
        assert_eq!(Trust::take(&mut listed), Ok(Some(files(&["a"], &["shop"], Some("list")))));
        let mut alone =
            CertificateValidationContext { crl: files(&["x"], &[], None).roots.pop(), ..Default::default() };
        assert!(Trust::take(&mut alone).is_err());
    }
}
