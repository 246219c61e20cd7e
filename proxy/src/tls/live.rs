//! What handshakes go by: the files of a listener as they were when they were read last.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs::default_provider},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{
    ClientAuth, MinVersion, Settings,
    certificate::{self, About, Certificate, Part},
    choose::{Chooser, Shown},
    tickets,
};
use crate::config::{Sources, Wrong};

/// Certificates, keys and CAs, and what rustls makes of them. Never changes.
#[derive(Debug)]
pub struct Live {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    /// Its certificates.
    pub chooser: Arc<Chooser>,
    /// The files, for whoever waits for their next change.
    pub sources: Sources,
    /// Valid, but perhaps not meant.
    pub warnings: Vec<About<String>>,
}

/// Why files cannot be used, and which those were.
#[derive(Debug)]
pub struct Faults {
    /// What is wrong, all of it.
    pub wrong: Vec<About<Wrong>>,
    /// The files, wrong ones included.
    pub sources: Sources,
}

impl Live {
    /// Reads the files that settings name.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(settings: &Settings) -> Result<Self, Faults> {
        let (mut sources, mut wrong) = (Sources::default(), Vec::new());
        match load(settings, &mut sources, &mut wrong) {
            Some((config, chooser, warnings)) if wrong.is_empty() => {
                Ok(Self { config: Arc::new(config), chooser, sources, warnings })
            }
            _ => Err(Faults { wrong, sources }),
        }
    }
}

type Loaded = (ServerConfig, Arc<Chooser>, Vec<About<String>>);

fn load(
    settings: &Settings,
    sources: &mut Sources,
    faults: &mut Vec<About<Wrong>>,
) -> Option<Loaded> {
    let mut warnings = Vec::new();
    let files = settings.certificates.iter().enumerate();
    let certificates: Vec<_> = files
        .map(|(at, files)| match &files.ordered {
            None => Certificate::read(files, at, sources, faults, &mut warnings).map(Shown::There),
            Some(names) => {
                let path = &files.certificate;
                let (read, warning) = Certificate::read_ordered(path, names, sources);
                warnings.extend(warning.map(|warning| (Part::Certificate(at), warning)));
                Some(read.map_or_else(|| Shown::Awaited(names.clone()), Shown::There))
            }
        })
        .collect();
    let client_ca = settings.client_ca.as_deref().map(|path| {
        let bytes = certificate::read(path, sources)?;
        certificate::roots(path, &bytes)
    });
    let roots = match client_ca.transpose() {
        Ok(roots) => roots,
        Err(wrong) => {
            faults.push((Part::ClientCa, wrong));
            return None;
        }
    };
    let certificates = certificates.into_iter().collect::<Option<Vec<_>>>()?;
    let chooser = Arc::new(Chooser::new(certificates, settings.default));
    let provider = Arc::new(provider(settings));
    let mut whole = |error: &dyn std::error::Error| {
        let what = format!("TLS cannot be had like this: {error}");
        faults.push((Part::Whole, Wrong::new(what, "change the settings of this section")));
    };
    let verifier: Arc<dyn ClientCertVerifier> = match (settings.client_auth, roots) {
        (ClientAuth::Off, _) | (_, None) => WebPkiClientVerifier::no_client_auth(),
        (auth, Some(roots)) => {
            let roots = Arc::new(roots);
            let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
            let builder = match auth {
                ClientAuth::Request => builder.allow_unauthenticated(),
                _ => builder,
            };
            builder.build().map_err(|error| whole(&error)).ok()?
        }
    };
    let versions = match settings.min_version {
        MinVersion::Tls12 => &[&TLS13, &TLS12][..],
        MinVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let builder = builder.map_err(|error| whole(&error)).ok()?;
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(&chooser) as Arc<_>);
    config.alpn_protocols = settings.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    // State that is the client's to keep is the same for all workers; a store would need a lock.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // A tunnel's keys may become the kernel's (`splice/ktls/`).
    config.enable_secret_extraction = true;
    match settings.client_auth {
        ClientAuth::Off => {
            config.ticketer =
                tickets::of(&settings.listener).map_err(|error| whole(&error)).ok()?;
        }
        // rustls takes the client's certificate from the ticket, unverified, and puts it into the
        // next one: a certificate that has run out, or been revoked, would be good for ever.
        ClientAuth::Request | ClientAuth::Require => config.send_tls13_tickets = 0,
    }
    Some((config, chooser, warnings))
}

fn provider(settings: &Settings) -> CryptoProvider {
    let mut provider = default_provider();
    provider.cipher_suites.retain(|suite| settings.cipher_suites.contains(&suite.suite()));
    provider
}
