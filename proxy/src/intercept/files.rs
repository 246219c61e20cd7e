//! The folder of an authority: `ca.pem` for clients, `ca.key` for nobody else.
//!
//! Whoever has the key can be any host to every client that trusts the authority. So it lies in
//! a file that only its owner may read (0600), in a folder that only its owner may enter (0700),
//! and is refused where that is not so. Nothing here writes over a key unless it is told to.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, GeneralSubtree, IsCa, KeyPair,
    KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::authority::serial;

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";

/// Clocks of clients may be behind ours.
pub(super) const SKEW: Duration = Duration::from_secs(24 * 3600);

/// Days that an authority is good for, unless it is said: ten years, as those of mkcert,
/// mitmproxy and Caddy are. What it signs is good for a month.
pub const DAYS: u32 = 3650;

/// The certificate in a folder.
pub fn certificate(directory: &Path) -> PathBuf {
    directory.join(CERTIFICATE)
}

/// The key in a folder.
pub(super) fn key(directory: &Path) -> PathBuf {
    directory.join(KEY)
}

/// Whom an authority may sign for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Anybody.
    Any,
    /// These names with all below them, and these addresses (RFC 5280 section 4.2.1.10).
    Only(Vec<String>, Vec<IpAddr>),
}

/// Makes an authority in a folder, and the folder. `replace`: over one that is there.
///
/// # Errors
/// If there is one, or the folder is open to others, or cannot be written.
pub fn init(directory: &Path, scope: &Scope, days: u32, replace: bool) -> anyhow::Result<()> {
    let there = [certificate(directory), key(directory)].into_iter().find(|path| path.exists());
    if let Some(path) = there.filter(|_| !replace) {
        bail!(
            "{} is there already; clients that trust it would trust the new one no more \
             (--replace does it all the same)",
            path.display()
        );
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(directory).with_context(|| format!("making {}", directory.display()))?;
    check(directory, 0o077, "chmod 700")?;
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making a key")?;
    let made = parameters(scope, days)?.self_signed(&pair).context("making a certificate")?;
    // The key first: a certificate without one would be trusted for nothing.
    put(&key(directory), pair.serialize_pem().as_bytes(), replace)?;
    put(&certificate(directory), made.pem().as_bytes(), replace)
}

fn parameters(scope: &Scope, days: u32) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    // It signs hosts, and no other authority (RFC 5280 section 4.2.1.9).
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 24 * 3600)).into();
    let number = serial()?;
    // Two with one name would be taken for each other.
    let short: String =
        number.to_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::OrganizationName, "Underpass");
    params.distinguished_name.push(DnType::CommonName, format!("Underpass local CA {short}"));
    params.serial_number = Some(number);
    params.name_constraints = constraints(scope);
    Ok(params)
}

/// A kind of name that nothing is said of would be free (RFC 5280 section 4.2.1.10), so it is
/// taken away.
fn constraints(scope: &Scope) -> Option<NameConstraints> {
    let Scope::Only(names, addresses) = scope else { return None };
    let own = |address: &IpAddr| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, bits))
    };
    let permitted = names.iter().cloned().map(GeneralSubtree::DnsName);
    let mut excluded = Vec::new();
    if names.is_empty() {
        excluded.push(GeneralSubtree::DnsName(String::new()));
    }
    if addresses.is_empty() {
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])));
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])));
    }
    Some(NameConstraints {
        permitted_subtrees: permitted.chain(addresses.iter().map(own)).collect(),
        excluded_subtrees: excluded,
    })
}

/// Puts a whole file in its place, readable by its owner only.
fn put(path: &Path, content: &[u8], replace: bool) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .with_context(|| format!("writing {}", new.display()))?;
    file.write_all(content).and_then(|()| file.sync_all())?;
    let placed = match replace {
        true => fs::rename(&new, path),
        // Fails where another has been quicker.
        false => fs::hard_link(&new, path).and_then(|()| fs::remove_file(&new)),
    };
    placed.with_context(|| format!("writing {}", path.display()))
}

/// Refuses what others could read or change.
fn check(path: &Path, others: u32, cure: &str) -> anyhow::Result<()> {
    let mode = fs::metadata(path).with_context(|| path.display().to_string())?.permissions().mode();
    if mode & others != 0 {
        bail!("{} is open to others (mode {:o}); {cure} it", path.display(), mode & 0o7777);
    }
    Ok(())
}

/// The certificates and the key of a folder, PEM.
///
/// # Errors
/// If they are not there, or the key or its folder is open to others.
pub(super) fn read(directory: &Path) -> anyhow::Result<(Vec<CertificateDer<'static>>, String)> {
    let path = key(directory);
    let key = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "there is no {}; make one with `underpass record ca init --dir {}`",
            path.display(),
            directory.display()
        ),
        key => key.with_context(|| format!("reading {}", path.display()))?,
    };
    check(&path, 0o077, "chmod 600")?;
    check(directory, 0o022, "chmod 700")?;
    Ok((certificates(directory)?, key))
}

/// The certificates of a folder: the authority's own comes first.
///
/// # Errors
/// If there are none.
pub fn certificates(directory: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let path = certificate(directory);
    let pem = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => bail!("{} holds no certificate in PEM", path.display()),
    }
}

/// A certificate in PEM. Made of the certificate alone, so that nothing else of its file is in it.
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: Vec<_> = lines.collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
