//! TLS contexts: certificates, keys and bundles, whose files were read by somebody else, and secrets that came by name.
//! Nothing in them is ignored, as that could let somebody in.

use super::Work;
use super::rejection::Place;
use crate::{Certificate, CertificateKind};
use api::Resources;
use api::envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use api::envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use api::envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket, transport_socket};
use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::SessionTicketKeysType;
use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
    TlsCertificate, UpstreamTlsContext, secret,
};
use api::envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use api::envoy_types::pb::google::protobuf::BoolValue;
use api::xds;
use std::mem::take;
use std::sync::Arc;
use wire::spiffe::Pattern;
use wire::tls::{Client, ClientSettings, Clients, Credential, Expect, Server, ServerSettings, Trust};

/// The TLS server of a transport socket.
pub(super) fn server(work: &mut Work<'_>, place: &Place, socket: TransportSocket) -> Option<Server> {
    let before = work.rejections.len();
    let mut rest: DownstreamTlsContext = unpacked(work, place, socket, xds::DOWNSTREAM_TLS)?;
    let required = rest.require_client_certificate.take() == Some(BoolValue { value: true });
    let mut common = rest.common_tls_context.take().unwrap_or_default();
    let is_off =
        |keys: &mut SessionTicketKeysType| matches!(keys, SessionTicketKeysType::DisableStatelessSessionResumption(_));
    let off = rest.session_ticket_keys_type.take_if(is_off);
    work.refuse_rest(place, &rest);
    let place = place.field("common_tls_context");
    let certificates = certificates(work, &place, &mut common);
    let (trust, expect) = validation(work, &place, &mut common);
    let alpn = take(&mut common.alpn_protocols).into_iter().map(String::into_bytes).collect();
    work.refuse_rest(&place, &common);
    let clients = match (&trust, required) {
        (None, false) => Clients::None,
        (Some(_), false) => Clients::Optional,
        (_, true) => Clients::Required,
    };
    if work.rejections.len() > before {
        return None;
    }
    let no_tickets = off == Some(SessionTicketKeysType::DisableStatelessSessionResumption(true));
    let (tickets, clock) = (work.world.tickets.clone().filter(|_| !no_tickets), work.world.clock.clone());
    let server = Server::new(ServerSettings { certificates, clients, trust, expect, alpn, tickets, clock });
    server.map_err(|reason| work.refuse(&place, reason)).ok()
}

/// The TLS client of a transport socket. The previous plan's, where nothing has changed: it remembers sessions.
pub(super) fn client(work: &mut Work<'_>, place: &Place, socket: TransportSocket, service: &str) -> Option<Client> {
    let before = work.rejections.len();
    let mut rest: UpstreamTlsContext = unpacked(work, place, socket, xds::UPSTREAM_TLS)?;
    let sni = Some(take(&mut rest.sni)).filter(|sni| !sni.is_empty());
    let mut common = rest.common_tls_context.take().unwrap_or_default();
    work.refuse_rest(place, &rest);
    let place = place.field("common_tls_context");
    let certificate = certificates(work, &place, &mut common).into_iter().next();
    let (trust, expect) = validation(work, &place, &mut common);
    let alpn = take(&mut common.alpn_protocols).into_iter().map(String::into_bytes).collect();
    work.refuse_rest(&place, &common);
    let Some(trust) = trust.filter(|_| work.rejections.len() == before) else {
        if work.rejections.len() == before {
            work.refuse(&place.field("validation_context"), "must have trusted_ca: anybody could answer otherwise");
        }
        return None;
    };
    if expect.is_empty() {
        let why = "must not be empty: anybody with a certificate could answer otherwise";
        work.refuse(&place.field("validation_context.match_typed_subject_alt_names"), why);
        return None;
    }
    let clock = work.world.clock.clone();
    let made = Client::new(ClientSettings { trust, expect, sni, certificate, alpn, clock });
    let made = made.map_err(|reason| work.refuse(&place, reason)).ok()?;
    let before = work.previous.get(service).and_then(|service| service.tls.as_ref());
    Some(before.filter(|before| before.digest() == made.digest()).cloned().unwrap_or(made))
}

fn unpacked<M: api::prost::Message + Default>(
    work: &mut Work<'_>,
    place: &Place,
    socket: TransportSocket,
    wanted: &str,
) -> Option<M> {
    let Some(transport_socket::ConfigType::TypedConfig(config)) = socket.config_type else {
        work.refuse(place, "must have a typed_config");
        return None;
    };
    xds::decode(&config, wanted).map_err(|error| work.refuse(place, error)).ok()
}

/// Notes the secrets by name. What they hold is looked at where a context names them.
pub(super) fn secrets<'a>(work: &mut Work<'a>, resources: &'a Resources) {
    for secret in &resources.secrets {
        if work.secrets.insert(&secret.name, secret).is_some() {
            work.refuse(&Place::new("secret", &secret.name), "stands twice");
        }
    }
}

/// What a secret holds, and its place: what is wrong inside it is the secret's fault, not its users'.
fn secret(work: &mut Work<'_>, place: &Place, config: SdsSecretConfig) -> Option<(Place, secret::Type)> {
    let source = config.sds_config.unwrap_or_default().config_source_specifier;
    let comes = match source {
        // Static, or by the stream that the rest came by.
        None | Some(ConfigSourceSpecifier::Ads(_)) => true,
        // A proxy's own key never travels: the agent knows it by this name, whatever the path.
        Some(ConfigSourceSpecifier::PathConfigSource(_)) => config.name == xds::IDENTITY_SECRET,
        Some(_) => false,
    };
    if !comes {
        work.refuse(&place.field("sds_config"), "must be ads; a path is for the proxy's own identity alone");
        return None;
    }
    match work.secrets.get(config.name.as_str()) {
        None => {
            work.refuse(place, format!("secret {} is not there yet", config.name));
            None
        }
        Some(found) => match &found.r#type {
            Some(held) => Some((Place::new("secret", &config.name), held.clone())),
            None => {
                work.refuse(&Place::new("secret", &config.name), "must hold something");
                None
            }
        },
    }
}

fn certificates(work: &mut Work<'_>, place: &Place, common: &mut CommonTlsContext) -> Vec<Credential> {
    let mut found = Vec::new();
    for (index, certificate) in take(&mut common.tls_certificates).into_iter().enumerate() {
        found.extend(self::certificate(work, &place.element("tls_certificates", index), certificate));
    }
    for (index, config) in take(&mut common.tls_certificate_sds_secret_configs).into_iter().enumerate() {
        let place = place.element("tls_certificate_sds_secret_configs", index);
        let name = config.name.clone();
        match secret(work, &place, config) {
            Some((held, secret::Type::TlsCertificate(certificate))) => {
                found.extend(self::certificate(work, &held.field("tls_certificate"), certificate));
            }
            Some(_) => work.refuse(&place, format!("secret {name} holds no tls_certificate")),
            None => {}
        }
    }
    found
}

fn certificate(work: &mut Work<'_>, place: &Place, mut rest: TlsCertificate) -> Option<Credential> {
    let chain = data(work, &place.field("certificate_chain"), rest.certificate_chain.take());
    let key = data(work, &place.field("private_key"), rest.private_key.take());
    work.refuse_rest(place, &rest);
    let ((name, chain), (key_name, key)) = (chain?, key?);
    let now_s = work.world.clock.now_s();
    let read = Credential::from_pem(&chain, &key);
    // One that ends while it is in force must not hold back what else changes: whoever connects judges it.
    let is_held = |read: &Credential| work.held.contains(&(&*name, read.not_after_s()));
    let read = read.and_then(|read| match read.check_time(now_s) {
        Err(reason) if !is_held(&read) => Err(reason.to_owned()),
        _ => Ok(read),
    });
    match read {
        Ok(credential) => {
            let subject = match credential.identity() {
                Ok(identity) => identity.as_str().into(),
                Err(_) => credential.names().join(",").into(),
            };
            let not_after_s = credential.not_after_s();
            work.certificates.push(Certificate { name, kind: CertificateKind::Own, subject, not_after_s });
            Some(credential)
        }
        Err(reason) => {
            let both = if name == key_name { name } else { format!("{name} with {key_name}").into() };
            work.refuse(place, format!("{both}: {reason}"));
            None
        }
    }
}

fn validation(work: &mut Work<'_>, place: &Place, common: &mut CommonTlsContext) -> (Option<Trust>, Vec<Expect>) {
    match common.validation_context_type.take() {
        None => (None, Vec::new()),
        Some(ValidationContextType::ValidationContext(mut context)) => {
            let place = place.field("validation_context");
            let trust = trust(work, &place, &mut context);
            (trust, names(work, &place, context))
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
            named(work, &place.field("validation_context_sds_secret_config"), config)
        }
        Some(ValidationContextType::CombinedValidationContext(mut combined)) => {
            let place = place.field("combined_validation_context");
            let own = combined.default_validation_context.take().unwrap_or_default();
            let config = combined.validation_context_sds_secret_config.take().unwrap_or_default();
            work.refuse_rest(&place, &combined);
            let mut expect = names(work, &place.field("default_validation_context"), own);
            let (trust, more) = named(work, &place.field("validation_context_sds_secret_config"), config);
            expect.extend(more);
            (trust, expect)
        }
        Some(_) => {
            work.refuse(place, "must have its validation_context itself, by SDS, or both combined");
            (None, Vec::new())
        }
    }
}

/// A validation context that is a secret.
fn named(work: &mut Work<'_>, place: &Place, config: SdsSecretConfig) -> (Option<Trust>, Vec<Expect>) {
    let name = config.name.clone();
    match secret(work, place, config) {
        Some((held, secret::Type::ValidationContext(mut context))) => {
            let held = held.field("validation_context");
            let trust = trust(work, &held, &mut context);
            (trust, names(work, &held, context))
        }
        Some(_) => {
            work.refuse(place, format!("secret {name} holds no validation_context"));
            (None, Vec::new())
        }
        None => (None, Vec::new()),
    }
}

/// Who is expected; nothing else may be left in the context.
fn names(work: &mut Work<'_>, place: &Place, mut rest: CertificateValidationContext) -> Vec<Expect> {
    let mut expect = Vec::new();
    for (index, matcher) in take(&mut rest.match_typed_subject_alt_names).into_iter().enumerate() {
        expect.extend(expected(work, &place.element("match_typed_subject_alt_names", index), matcher));
    }
    work.refuse_rest(place, &rest);
    expect
}

fn trust(work: &mut Work<'_>, place: &Place, rest: &mut CertificateValidationContext) -> Option<Trust> {
    let read = xds::Trust::take(rest).map_err(|reason| work.refuse(place, reason)).ok()?;
    let Some(xds::Trust { roots: sources, domains, crl }) = read else {
        work.refuse(&place.field("trusted_ca"), "must be given");
        return None;
    };
    let mut roots = Vec::new();
    for source in sources {
        roots.push(data(work, &place.field("trusted_ca"), Some(source))?);
    }
    let list = match crl {
        Some(source) => Some(data(work, &place.field("crl"), Some(source))?),
        None => None,
    };
    roots.sort();
    roots.dedup();
    if roots.is_empty() {
        work.refuse(&place.field("trusted_ca"), "must be given");
        return None;
    }
    let name: Box<str> = roots.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(",").into();
    let bundles: Vec<&[u8]> = roots.iter().map(|(_, bytes)| &bytes[..]).collect();
    let lists: Vec<&[u8]> = list.iter().map(|(_, bytes)| &bytes[..]).collect();
    match Trust::from_pem(&bundles, domains, &lists) {
        Ok(trust) => {
            if let Some(((name, _), ends_s)) = list.zip(trust.lists_end_s()) {
                revocations(work, &place.field("crl"), name, ends_s);
            }
            let not_after_s = trust.not_after_s();
            work.certificates.push(Certificate { name, kind: CertificateKind::Trust, subject: "".into(), not_after_s });
            Some(trust)
        }
        Err(reason) => {
            work.refuse(place, format!("{name}: {reason}"));
            None
        }
    }
}

/// A list that is out of date refuses everybody, so it is not taken; but one that ends while it is in force must not hold back
/// what else changes.
fn revocations(work: &mut Work<'_>, place: &Place, name: Box<str>, ends_s: u64) {
    if work.world.clock.now_s() >= ends_s && !work.held.contains(&(&*name, ends_s)) {
        work.refuse(
            place,
            format!("{name}: a list of revoked certificates is out of date: its next update is overdue"),
        );
    }
    let (kind, subject) = (CertificateKind::Revocations, "".into());
    work.certificates.push(Certificate { name, kind, subject, not_after_s: ends_s });
}

fn expected(work: &mut Work<'_>, place: &Place, matcher: SubjectAltNameMatcher) -> Option<Expect> {
    let pattern = matcher.matcher.filter(|matcher| !matcher.ignore_case).and_then(|matcher| matcher.match_pattern);
    let expect = match (SanType::try_from(matcher.san_type), pattern) {
        (Ok(SanType::Dns), Some(MatchPattern::Exact(name))) => Some(Expect::Name(name.into())),
        (Ok(SanType::Uri), Some(MatchPattern::Exact(id))) => Pattern::parse(&id).ok().map(Expect::Identity),
        (Ok(SanType::Uri), Some(MatchPattern::Prefix(prefix))) if prefix.ends_with('/') => {
            Pattern::parse(&format!("{prefix}**")).ok().map(Expect::Identity)
        }
        (Ok(SanType::Uri), Some(MatchPattern::SafeRegex(regex))) => pattern_of(&regex.regex).map(Expect::Identity),
        _ => None,
    };
    if expect.is_none() {
        work.refuse(
            place,
            "must be a DNS name (exact), or a SPIFFE ID: exact, a prefix that ends with /, or a pattern of segments",
        );
    }
    expect
}

/// The pattern of identities that was written as a regular expression of segments.
fn pattern_of(regex: &str) -> Option<Pattern> {
    let segments = regex.replace("[^/]+", "*").replace(".+", "**").replace('\\', "");
    Pattern::parse(&segments).ok()
}

/// The bytes of a source, with what they are called.
fn data(work: &mut Work<'_>, place: &Place, source: Option<DataSource>) -> Option<(Box<str>, Arc<[u8]>)> {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::Filename(path)) => match work.world.files.get(path.as_str()) {
            Some(Ok(bytes)) => Some((path.into(), bytes.clone())),
            Some(Err(reason)) => {
                work.refuse(place, format!("{path} {reason}"));
                None
            }
            None => {
                work.refuse(place, format!("{path} was not read"));
                None
            }
        },
        Some(Specifier::InlineBytes(bytes)) => Some((place.called(), bytes.into())),
        Some(Specifier::InlineString(text)) => Some((place.called(), text.into_bytes().into())),
        _ => {
            work.refuse(place, "must be given, as a filename or inline");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Plan, World, compile};
    use api::envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
    use api::mesh::{KeyPair, State};
    use wire::tls::Clock;

    const FILE: &str = "
listeners:
  web:
    address: 127.0.0.1:443
    protocol: http
    tls: { certificates: [ { certificate: a.pem, key: a.key } ] }
    routes: [ { respond: { status: 200 } } ]
services: {}
";
    /// 2030-01-01 and a day later.
    const END_S: u64 = 1_893_456_000;
    const DAY_S: u64 = 86_400;

    /// A world at this time, with a certificate that ends on the first of January of a year.
    fn world(now_s: u64, year: i32) -> World {
        let mut parameters = rcgen::CertificateParams::new(vec!["shop.example.com".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let mut world = World { clock: Clock::new(now_s), ..World::default() };
        for (name, text) in [("a.pem", certificate.pem()), ("a.key", key.serialize_pem())] {
            world.files.insert(name.into(), Ok(text.into_bytes().into()));
        }
        world
    }

    fn plan(previous: Option<&Plan>, world: &World) -> Result<Plan, String> {
        let resources = api::translate(&api::load(FILE, "r.yaml").unwrap());
        compile(&resources, previous, 1, world).map_err(|found| found[0].to_string())
    }

    const MESH: &str = "
trust-domain: shop
groups:
  edge:
    listeners:
      web:
        address: 127.0.0.1:443
        tls: { certificates: [ { secret: shop } ], clients: optional, expect: 'spiffe://shop/**' }
        routes: [ { to: cart } ]
services:
  cart: { endpoints: [127.0.0.1:1], tls: { expect: 'spiffe://shop/cart' } }
";

    /// The resources of the one group, all secrets there.
    fn mesh() -> (Resources, World) {
        let world = world(END_S - DAY_S, 2030);
        let file = |name: &str| world.files[name].clone().unwrap().to_vec();
        let pair = KeyPair { chain: file("a.pem"), key: file("a.key") };
        let mut state = State { trust: file("a.pem"), ..State::default() };
        state.secrets.insert(("edge".to_owned(), "shop".to_owned()), pair.clone());
        let mesh = api::mesh::load(MESH, "mesh.yaml").unwrap();
        let mut resources = mesh.resources(&mesh.groups[0], &state);
        resources.secrets.push(api::mesh::identity(&pair));
        (resources, world)
    }

    fn refused(change: impl FnOnce(&mut Resources)) -> Vec<String> {
        let (mut resources, world) = mesh();
        change(&mut resources);
        let found = compile(&resources, None, 1, &world).expect_err("refused");
        found.iter().map(ToString::to_string).collect()
    }

    fn secret<'r>(resources: &'r mut Resources, name: &str) -> &'r mut Secret {
        resources.secrets.iter_mut().find(|secret| secret.name == name).unwrap()
    }

    #[test]
    fn secrets_are_found_by_name() {
        let (resources, world) = mesh();
        let plan = compile(&resources, None, 1, &world).unwrap();
        let held: Vec<_> = plan.certificates().map(|held| (held.kind, &*held.name)).collect();
        let (own, trust) = (CertificateKind::Own, CertificateKind::Trust);
        assert_eq!(held, [(own, "identity"), (own, "secret/shop"), (trust, "mesh-trust")]);
        assert!(matches!(plan.listeners[0].transport, crate::Transport::Tls(_)));
        assert!(plan.services[0].tls.is_some());
    }

    #[test]
    fn a_secret_that_is_missing_is_the_fault_of_who_names_it() {
        const SERVER: &str = "listener/web: filter_chains[0].transport_socket.common_tls_context";
        const CLIENT: &str = "cluster/cart: transport_socket.common_tls_context";
        const TRUST: &str = "combined_validation_context.validation_context_sds_secret_config";
        let without = |name: &str| refused(|resources| resources.secrets.retain(|secret| secret.name != name));
        let certificate = "tls_certificate_sds_secret_configs[0]";
        assert_eq!(without("secret/shop"), [format!("{SERVER}.{certificate}: secret secret/shop is not there yet")]);
        assert_eq!(without("identity"), [format!("{CLIENT}.{certificate}: secret identity is not there yet")]);
        let missing = "secret mesh-trust is not there yet";
        assert_eq!(
            without("mesh-trust"),
            [format!("{CLIENT}.{TRUST}: {missing}"), format!("{SERVER}.{TRUST}: {missing}")]
        );
    }

    #[test]
    fn a_secret_that_is_bad_is_at_fault_itself() {
        let pair = |chain: &[u8]| KeyPair { chain: chain.to_vec(), key: b"no key".to_vec() };
        let found = refused(|all| *secret(all, "secret/shop") = api::mesh::certificate("shop", &pair(b"no PEM")));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("secret/secret/shop: tls_certificate: secret/shop: "), "{found:?}");
        let found = refused(|all| *secret(all, "mesh-trust") = api::mesh::trust("shop", b"no PEM"));
        assert!(found.iter().all(|line| line.starts_with("secret/mesh-trust: validation_context: ")), "{found:?}");
        let found = refused(|all| secret(all, "identity").r#type = None);
        assert_eq!(found, ["secret/identity: must hold something"]);
        // What somebody else put in its place is not taken for it.
        let found = refused(|all| {
            let trust = secret(all, "mesh-trust").r#type.clone();
            secret(all, "identity").r#type = trust;
        });
        assert!(found[0].ends_with("[0]: secret identity holds no tls_certificate"), "{found:?}");
        let found = refused(|all| {
            let identity = secret(all, "identity").r#type.clone();
            secret(all, "mesh-trust").r#type = identity;
        });
        assert!(found[0].ends_with("secret mesh-trust holds no validation_context"), "{found:?}");
        let found = refused(|all| {
            let again = secret(all, "identity").clone();
            all.secrets.push(again);
        });
        assert_eq!(found, ["secret/identity: stands twice"]);
    }

    #[test]
    fn a_secret_comes_by_ads_and_the_own_identity_from_the_agent() {
        let renamed = |from: &str, to: &str| {
            let change = |socket: &mut TransportSocket| {
                let Some(transport_socket::ConfigType::TypedConfig(config)) = &mut socket.config_type else { panic!() };
                let mut context: UpstreamTlsContext = xds::decode(config, xds::UPSTREAM_TLS).unwrap();
                for certificate in &mut context.common_tls_context.as_mut().unwrap().tls_certificate_sds_secret_configs
                {
                    assert_eq!(certificate.name, from);
                    certificate.name = to.to_owned();
                }
                *config = xds::any(xds::UPSTREAM_TLS, &context);
            };
            refused(|all| change(all.clusters[0].transport_socket.as_mut().unwrap()))
        };
        let found = renamed("identity", "secret/shop");
        assert!(
            found[0].ends_with("sds_config: must be ads; a path is for the proxy's own identity alone"),
            "{found:?}"
        );
    }

    #[test]
    fn a_certificate_that_ends_while_it_is_in_force_holds_nothing_back() {
        let mut world = world(END_S - DAY_S, 2030);
        let first = plan(None, &world).unwrap();
        assert_eq!(first.certificates().map(|held| held.not_after_s).collect::<Vec<_>>(), [END_S]);
        world.clock = Clock::new(END_S + DAY_S);
        let reason = plan(None, &world).unwrap_err();
        assert!(reason.ends_with("a.pem with a.key: the certificate has expired"), "{reason}");
        let second = plan(Some(&first), &world).unwrap();
        assert!(plan(Some(&second), &world).is_ok(), "for as long as it is in force");
        let other = self::world(END_S + DAY_S, 2029);
        assert!(plan(Some(&second), &other).unwrap_err().ends_with("expired"), "another one is judged");
    }
}
