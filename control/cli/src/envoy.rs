//! The folder of an Envoy that is a proxy of the mesh: who it is, and how it starts.
//!
//! | file | what it is |
//! | --- | --- |
//! | `envoy.yaml` | the bootstrap |
//! | `identity.yaml`, `trust.yaml` | the secrets in `current`, as an Envoy reads them; nothing in them changes |
//! | `current` | a link to the set in use; it is replaced as a whole, which an Envoy watches |
//! | `set.N` | key, certificate chain, roots |
//! | `next.pem` | the key of a question without an answer: asked again, it is the same question |
//! | `daemons` | where daemons are, `host:port`, one a line |

use crate::credential::{keep, request};
use crate::exit::Failure;
use api::pb;
use rcgen::KeyPair;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const KEY: &str = "key.pem";
const CHAIN: &str = "chain.pem";
const ROOTS: &str = "bundle.pem";
const CURRENT: &str = "current";
const NEXT: &str = "next.pem";
const DAEMONS: &str = "daemons";
const BOOTSTRAP: &str = "envoy.yaml";
const IDENTITY: &str = "identity.yaml";
const TRUST: &str = "trust.yaml";
const SET: &str = "set.";
/// Not a service's name: those have no `:`.
const DAEMON: &str = "ringway:daemon";

/// How an Envoy is to start.
pub(crate) struct Wish {
    /// Delta xDS, or state of the world.
    pub(crate) delta: bool,
    /// Where its admin pages are, HOST and port; nowhere if absent.
    pub(crate) admin: Option<(String, u16)>,
}

/// An Envoy's folder.
pub(crate) struct Folder(PathBuf);

/// Who the Envoy is now.
pub(crate) struct Identity {
    /// PEM.
    pub(crate) chain: Vec<u8>,
    /// PEM.
    pub(crate) key: Vec<u8>,
    /// PEM.
    pub(crate) roots: Vec<u8>,
    /// HOST:PORT.
    pub(crate) daemons: Vec<String>,
}

impl Folder {
    /// A folder for an Envoy that has not joined, made where it is missing.
    ///
    /// # Errors
    /// One has joined from there, or it cannot be made.
    pub(crate) fn new(path: &Path) -> Result<Folder, Failure> {
        keep(path, &[])?;
        let folder = Folder::at(path)?;
        if folder.0.join(CURRENT).exists() {
            let why =
                format!("{} is an Envoy's already; `ringwayctl envoy renew` renews its certificate", path.display());
            return Err(Failure::refused(why));
        }
        Ok(folder)
    }

    /// The folder of an Envoy that has joined.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn open(path: &Path) -> Result<(Folder, Identity), Failure> {
        let folder = Folder::at(path)?;
        let read = |name: &str| {
            fs::read(folder.0.join(name)).map_err(|error| {
                let why = "`ringwayctl envoy join --into DIR` makes an Envoy's folder";
                Failure::refused(format!("cannot read {}: {error}; {why}", folder.0.join(name).display()))
            })
        };
        let set = |name: &str| read(&format!("{CURRENT}/{name}"));
        let daemons = String::from_utf8_lossy(&read(DAEMONS)?).lines().map(str::to_owned).collect();
        let identity = Identity { chain: set(CHAIN)?, key: set(KEY)?, roots: set(ROOTS)?, daemons };
        Ok((folder, identity))
    }

    /// Absolute, as an Envoy is to find it wherever it starts.
    fn at(path: &Path) -> Result<Folder, Failure> {
        let cannot = |error| Failure::refused(format!("cannot open {}: {error}", path.display()));
        let folder = fs::canonicalize(path).map_err(cannot)?;
        let text = folder.to_str().is_some_and(|text| !text.contains(char::is_control));
        match text {
            true => Ok(Folder(folder)),
            false => Err(Failure::refused(format!("{}: an Envoy takes paths of text alone", path.display()))),
        }
    }

    /// The bootstrap.
    pub(crate) fn bootstrap(&self) -> PathBuf {
        self.0.join(BOOTSTRAP)
    }

    /// A key, and the request for a certificate of it; with the key of the last question if that had no answer.
    ///
    /// # Errors
    /// It cannot be made or kept.
    pub(crate) fn ask(&self) -> Result<Vec<u8>, Failure> {
        if let Ok(key) = fs::read(self.0.join(NEXT)) {
            return request(&key);
        }
        let key = KeyPair::generate().map_err(|error| Failure::refused(format!("cannot make a key: {error}")))?;
        let key = key.serialize_pem();
        keep(&self.0, &[(NEXT, key.as_bytes())])?;
        request(key.as_bytes())
    }

    /// Keeps the answer to a question, and lets the Envoy have it.
    ///
    /// # Errors
    /// It is of no use, or cannot be kept; then all is as it was.
    pub(crate) fn answered(&self, given: &pb::Issued) -> Result<(), Failure> {
        let cannot = |error| Failure::refused(format!("cannot write in {}: {error}", self.0.display()));
        let key = fs::read(self.0.join(NEXT)).map_err(cannot)?;
        let own = wire::tls::Credential::from_pem(&given.chain, &key);
        own.map_err(|why| Failure::refused(format!("the certificate that the daemon gave: {why}")))?;
        let daemons = given.daemons.iter().filter(|one| !one.contains(char::is_whitespace));
        let daemons: String = daemons.fold(String::new(), |all, one| all + one + "\n");
        let before = fs::read_link(self.0.join(CURRENT)).ok();
        let number =
            before.as_ref().and_then(|before| before.to_str()?.strip_prefix(SET)?.parse().ok()).unwrap_or(0_u64);
        let set = format!("{SET}{}", number + 1);
        keep(&self.0.join(&set), &[(KEY, &key), (CHAIN, &given.chain), (ROOTS, &given.bundle)])?;
        keep(&self.0, &[(DAEMONS, daemons.as_bytes())])?;
        // The Envoy reads all of it again when this has its name.
        let new = self.0.join("current.new");
        let _ = fs::remove_file(&new);
        symlink(&set, &new).and_then(|()| fs::rename(&new, self.0.join(CURRENT))).map_err(cannot)?;
        let _ = fs::remove_file(self.0.join(NEXT));
        // The last one may be being read; those before are nobody's.
        for old in fs::read_dir(&self.0).map_err(cannot)?.flatten() {
            let name = old.file_name();
            let is_old = name.to_str().is_some_and(|name| name.starts_with(SET) && *name != set);
            if is_old && before.as_ref().is_none_or(|before| before.as_os_str() != name) {
                let _ = fs::remove_dir_all(old.path());
            }
        }
        Ok(())
    }

    /// Writes how the Envoy starts.
    ///
    /// # Errors
    /// It cannot be written, or a daemon's address is none.
    pub(crate) fn describe(&self, given: &pb::Issued, wish: &Wish) -> Result<(), Failure> {
        let path = |name: &str| quoted(&self.0.join(name).to_string_lossy());
        let current = |name: &str| path(&format!("{CURRENT}/{name}"));
        let watched = format!("watched_directory: {{ path: {} }}", quoted(&self.0.to_string_lossy()));
        let secret = "resources:\n- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n";
        let identity = format!(
            "{secret}  name: {}\n  tls_certificate:\n    certificate_chain: {{ filename: {} }}\n    private_key: {{ filename: \
             {} }}\n    {watched}\n",
            api::xds::IDENTITY_SECRET,
            current(CHAIN),
            current(KEY)
        );
        let trust = format!(
            "{secret}  name: daemon\n  validation_context:\n    trusted_ca: {{ filename: {} }}\n    {watched}\n",
            current(ROOTS)
        );
        let bootstrap = bootstrap(given, wish, &path(IDENTITY), &path(TRUST))?;
        let files = [(IDENTITY, identity), (TRUST, trust), (BOOTSTRAP, bootstrap)];
        keep(&self.0, &files.each_ref().map(|(name, text)| (*name, text.as_bytes())))
    }
}

/// As YAML reads it: JSON is YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn bootstrap(given: &pb::Issued, wish: &Wish, identity: &str, trust: &str) -> Result<String, Failure> {
    let mut endpoints = String::new();
    for one in &given.daemons {
        let split = one.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let (host, port) = split.ok_or_else(|| Failure::refused(format!("the daemon's address {one} is none")))?;
        let _ = writeln!(endpoints, "        - endpoint: {{ address: {} }}", address(host, port));
    }
    let admin = wish.admin.as_ref().map(|(host, port)| format!("admin: {{ address: {} }}\n", address(host, *port)));
    let (id, group, daemon) = (quoted(&given.proxy), quoted(&given.group), quoted(DAEMON));
    let protocol = if wish.delta { "DELTA_GRPC" } else { "GRPC" };
    Ok(format!(
        r#"# An Envoy as a proxy of a Ringway mesh, made by `ringwayctl envoy join`. Start it with
#   envoy -c envoy.yaml --reject-unknown-dynamic-fields
# and run `ringwayctl envoy renew` on this folder every hour: its certificate lives a day.
node:
  id: {id}
  cluster: {group}
  metadata: {{ {metadata}: {{ identity: {identity} }} }}
{admin}dynamic_resources:
  ads_config:
    api_type: {protocol}
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [ {{ envoy_grpc: {{ cluster_name: {daemon} }} }} ]
  cds_config: {{ ads: {{}}, resource_api_version: V3 }}
  lds_config: {{ ads: {{}}, resource_api_version: V3 }}
static_resources:
  clusters:
  - name: {daemon}
    type: STRICT_DNS
    connect_timeout: 5s
    load_assignment:
      cluster_name: {daemon}
      endpoints:
      - lb_endpoints:
{endpoints}    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options: {{ connection_keepalive: {{ interval: 20s, timeout: 10s }} }}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          alpn_protocols: [h2]
          tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
          tls_certificate_sds_secret_configs:
          - name: {secret}
            sds_config: {{ path_config_source: {{ path: {identity} }}, resource_api_version: V3 }}
          combined_validation_context:
            default_validation_context:
              match_typed_subject_alt_names:
              - {{ san_type: URI, matcher: {{ safe_regex: {{ regex: "spiffe://[^/]+/ringwayd" }} }} }}
            validation_context_sds_secret_config:
              name: daemon
              sds_config: {{ path_config_source: {{ path: {trust} }}, resource_api_version: V3 }}
"#,
        metadata = api::xds::METADATA,
        secret = api::xds::IDENTITY_SECRET,
        admin = admin.unwrap_or_default(),
    ))
}

fn address(host: &str, port: u16) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    format!("{{ socket_address: {{ address: {}, port_value: {port} }} }}", quoted(host))
}
