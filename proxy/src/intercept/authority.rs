//! Who signs for the hosts that are intercepted, and what has been signed.
//!
//! A certificate is for one name or address exactly, never for `*`, and is made when a client
//! first connects to that host. All share one key, which is new in each process and is written
//! nowhere. What has been made is kept for the next connection, [`MOST_KEPT`] hosts at most: a
//! wildcard in the configuration leaves it to clients how many there are.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SerialNumber,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::NoServerSessionStorage,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    figures::{self, Told},
    files::{self, SKEW},
};

/// Hosts whose certificates are kept, some kilobytes each. For one more, the one that has not
/// been asked for longest goes.
pub const MOST_KEPT: usize = 1024;

/// For how long a certificate is good. It is made anew after half of it.
const GOOD_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest common name (RFC 5280 appendix A.1, ub-common-name).
const MOST_COMMON_NAME: usize = 64;

/// An authority, and what it has signed.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    chain: Vec<CertificateDer<'static>>,
    /// The last moment that it is good for.
    until: SystemTime,
    key: KeyPair,
    kept: Mutex<Kept>,
    /// Hosts that somebody refused a certificate of.
    pub refused: Told,
    /// Hosts that were asked for another name than they were connected to.
    pub misnamed: Told,
    /// Hosts that are not spoken TLS to.
    pub plain: Told,
    /// Hosts that are spoken to in what begins as TLS and is none.
    pub broken: Told,
    /// Hosts that were connected to, and then asked nothing.
    pub unasked: Told,
}

/// Names only: what it holds is a key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        figures::keep(-(self.kept() as i64));
    }
}

#[derive(Default)]
struct Kept {
    hosts: HashMap<String, Host>,
    /// Counts what is asked for.
    asked: u64,
}

struct Host {
    /// Without HTTP/2, and with.
    configs: [Arc<ServerConfig>; 2],
    anew: SystemTime,
    asked: u64,
}

impl Authority {
    /// The one in this folder.
    ///
    /// # Errors
    /// What is wrong with its files, in words for people; never what they hold.
    pub fn load(directory: &Path) -> anyhow::Result<Self> {
        let (chain, key) = files::read(directory)?;
        // The parser's words are about the key.
        let Ok(pair) = KeyPair::from_pem(&key) else {
            bail!("{} holds no key that can be used", files::key(directory).display());
        };
        let path = files::certificate(directory);
        let shown = path.display();
        let own = &chain[0];
        let (_, parsed) =
            X509Certificate::from_der(own).with_context(|| format!("{shown} is no certificate"))?;
        if !parsed.is_ca() {
            bail!("{shown} is no certificate of an authority (CA:TRUE)");
        }
        if parsed.public_key().raw != pair.subject_public_key_info() {
            bail!("the key beside {shown} does not belong to it");
        }
        let until = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(until);
        if until <= SystemTime::now() {
            bail!("{shown} has expired; make another with `underpass record ca init --replace`");
        }
        let issuer = Issuer::from_ca_cert_der(own, pair)
            .with_context(|| format!("{shown} cannot be used"))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making a key")?;
        Ok(Self {
            issuer,
            chain,
            until,
            key,
            kept: Mutex::default(),
            refused: Told::default(),
            misnamed: Told::default(),
            plain: Told::default(),
            broken: Told::default(),
            unasked: Told::default(),
        })
    }

    /// What a client is shown that connects to this host, in lower case.
    ///
    /// # Errors
    /// If no certificate can be for it.
    pub fn config(&self, host: &str, http2: bool) -> anyhow::Result<Arc<ServerConfig>> {
        let now = SystemTime::now();
        {
            let mut kept = self.lock();
            kept.asked += 1;
            let asked = kept.asked;
            if let Some(known) = kept.hosts.get_mut(host).filter(|known| known.anew > now) {
                known.asked = asked;
                return Ok(Arc::clone(&known.configs[usize::from(http2)]));
            }
        }
        let configs = self.make(host, now)?;
        let config = Arc::clone(&configs[usize::from(http2)]);
        let mut kept = self.lock();
        if kept.hosts.len() >= MOST_KEPT && !kept.hosts.contains_key(host) {
            let oldest = kept.hosts.iter().min_by_key(|(_, known)| known.asked);
            if let Some(oldest) = oldest.map(|(host, _)| host.clone()) {
                kept.hosts.remove(&oldest);
                figures::keep(-1);
            }
        }
        let asked = kept.asked;
        let new = Host { configs, anew: now + GOOD_FOR / 2, asked };
        if kept.hosts.insert(host.to_owned(), new).is_none() {
            figures::keep(1);
        }
        Ok(config)
    }

    /// How many hosts' certificates are kept.
    fn kept(&self) -> usize {
        self.lock().hosts.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Whole after every step.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, host: &str, now: SystemTime) -> anyhow::Result<[Arc<ServerConfig>; 2]> {
        let mut params = CertificateParams::default();
        let name = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if host.contains('*') => bail!("`{host}` is no host"),
            Err(_) => SanType::DnsName(host.try_into().context("no name of a host")?),
        };
        params.subject_alt_names = vec![name];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - SKEW).into();
        params.not_after = (now + GOOD_FOR).min(self.until).into();
        params.serial_number = Some(serial()?);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Underpass");
        if host.len() <= MOST_COMMON_NAME {
            params.distinguished_name.push(DnType::CommonName, host);
        }
        let made = params.signed_by(&self.key, &self.issuer).context("signing")?;
        figures::made();
        let mut chain = vec![made.der().clone()];
        chain.extend(self.chain.iter().cloned());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
        // A session that goes on would be shown no certificate, and no host is worth a store.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        // A tunnel's keys may become the kernel's (`splice/ktls/`).
        config.enable_secret_extraction = true;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut with_http2 = config.clone();
        with_http2.alpn_protocols.insert(0, b"h2".to_vec());
        Ok([Arc::new(config), Arc::new(with_http2)])
    }
}

/// A number that no other certificate of the authority has (RFC 5280 section 4.1.2.2): clients
/// refuse two with the same one.
pub(super) fn serial() -> anyhow::Result<SerialNumber> {
    let mut bytes = [0; 16];
    let random = aws_lc_rs::default_provider().secure_random;
    if random.fill(&mut bytes).is_err() {
        bail!("the system has no random numbers");
    }
    // Positive, and as long as it is.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
