//! One order, from its beginning to a certificate in the storage folder.
//!
//! It can be dropped at every await: what the CA has begun is on the disk before anything is
//! waited for, and is gone on with by whoever tries next (RFC 8555 section 7.4). Nothing that a
//! CA gives is stored before it has been looked at: it has to be for our key, for all names, and
//! good now.

use std::{io, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeStatus,
    ChallengeType, Error, ExternalAccountKey, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::task::spawn_blocking;

use super::{
    Answers, Challenge, Names, Settings, Store, TLS_PROTOCOL,
    answers::Presented,
    fault::{self, Fault},
    http::Client,
    schedule::{Class, Suggested},
    store::{self, Pending},
};
use crate::{tls::certificate::Certificate, upstream::tls::Connector};

/// How long the CA is waited for while it looks at names, and again while it signs.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.6)
    .timeout(Duration::from_secs(120));

/// Longest chain that is believed to be one.
const LONGEST_CHAIN: usize = 16;

/// What an order needs.
#[derive(Debug)]
pub(super) struct Office {
    pub(super) settings: Settings,
    pub(super) store: Store,
    pub(super) answers: Arc<Answers>,
}

/// An account, and what carries its requests.
pub(super) struct Opened {
    account: Account,
    client: Client,
}

impl Office {
    /// The account that is stored; or a new one, which is stored, where one `may` be made: under
    /// the lock.
    async fn account(&self, may: bool) -> Result<Opened, Fault> {
        let settings = &self.settings;
        let connector = Connector::new(&settings.material).map_err(Fault::unreachable)?;
        let client = Client::new(connector);
        let builder = || Account::builder_with_http(Box::new(client.clone()));
        let of = |step: &str, error| Fault::of(step, error, client.asked());
        let contact: Vec<String> =
            settings.contact.iter().map(|address| format!("mailto:{address}")).collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let stored = self.stored(|store| store.account::<AccountCredentials>()).await?;
        let account = match stored {
            Some(store::Account { contact: told, credentials }) => {
                let copy = copy(&credentials)?;
                let account = builder().from_credentials(credentials).await;
                let account = account.map_err(|error| of("the account", error))?;
                if told != settings.contact {
                    let done = account.update_contacts(&contact).await;
                    done.map_err(|error| of("the contacts of the account", error))?;
                    let (contact, credentials) = (settings.contact.clone(), copy);
                    let account = store::Account { contact, credentials };
                    self.stored(move |store| store.put_account(&account)).await?;
                }
                account
            }
            None if !may => return Err(Fault::unreachable("no account yet")),
            None => {
                let binding = settings
                    .binding
                    .as_ref()
                    .map(|binding| ExternalAccountKey::new(binding.key_id.clone(), &binding.key));
                let new = NewAccount {
                    contact: &contact,
                    // The configuration is not valid without.
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let directory = settings.directory.clone();
                let made = builder().create(&new, directory, binding.as_ref()).await;
                let (account, credentials) = made.map_err(|error| of("a new account", error))?;
                let stored = store::Account { contact: settings.contact.clone(), credentials };
                self.stored(move |store| store.put_account(&stored)).await?;
                account
            }
        };
        Ok(Opened { account, client })
    }

    /// Gets a certificate for these names and stores it. `replaced`: the one before.
    pub(super) async fn obtain(
        &self,
        names: &Names,
        replaced: Option<&CertificateDer<'_>>,
    ) -> Result<(), Fault> {
        let opened = self.account(true).await?;
        let (mut order, key) = self.begin(&opened, names, replaced).await?;
        let got = self.carry_out(&opened, &mut order, names, &key).await;
        let is_over = match &got {
            Ok(_) => true,
            // Nothing more comes of it.
            Err(fault) => fault.class != Class::Unreachable,
        };
        let pem = match got {
            Ok(chain) => Ok(format!("{}{chain}", key.serialize_pem())),
            Err(fault) => Err(fault),
        };
        if let Ok(pem) = &pem {
            let (names, pem) = (names.clone(), pem.clone());
            self.stored(move |store| store.put_certificate(&names, &pem)).await?;
        }
        if is_over {
            let names = names.clone();
            self.stored(move |store| store.drop_order(&names)).await?;
        }
        pem.map(|_| ())
    }

    /// When the CA would like this one to be renewed, and how long that holds.
    pub(super) async fn suggestion(
        &self,
        certificate: &CertificateDer<'_>,
    ) -> Result<(Suggested, Duration), Fault> {
        let id = CertificateIdentifier::try_from(certificate).map_err(Fault::refused)?;
        let Opened { account, client } = self.account(false).await?;
        let info = account.renewal_info(&id).await;
        let (info, again) =
            info.map_err(|error| Fault::of("renewal information", error, client.asked()))?;
        let (start, end) = (info.suggested_window.start, info.suggested_window.end);
        let (start, end) = (start.unix_timestamp(), end.unix_timestamp());
        Ok((Suggested { start, end }, again))
    }

    /// The order under way for these names, or a new one.
    async fn begin(
        &self,
        Opened { account, client }: &Opened,
        names: &Names,
        replaced: Option<&CertificateDer<'_>>,
    ) -> Result<(Order, KeyPair), Fault> {
        let of = |step: &str, error| Fault::of(step, error, client.asked());
        let wanted = names.clone();
        if let Some(Pending { url, key }) = self.stored(move |store| store.order(&wanted)).await? {
            match account.order(url).await {
                Ok(mut order) => {
                    let goes_on = order.state().status != OrderStatus::Invalid;
                    if let (true, Ok(key)) = (goes_on, KeyPair::from_pem(&key)) {
                        return Ok((order, key));
                    }
                }
                // The CA knows nothing of it any more.
                Err(Error::Api(problem)) if !is_limit(&problem) => {}
                Err(error) => return Err(of("the order under way", error)),
            }
        }
        let key = KeyPair::generate().map_err(|error| Fault::refused(error.to_string()))?;
        let identifiers: Vec<_> = names.iter().map(|name| Identifier::Dns(name.into())).collect();
        let plain = NewOrder::new(&identifiers);
        let order = match replaced.and_then(|der| CertificateIdentifier::try_from(der).ok()) {
            None => account.new_order(&plain).await,
            Some(id) => match account.new_order(&NewOrder::new(&identifiers).replaces(id)).await {
                // The CA does not know of RFC 9773, or that it was replaced already.
                Err(Error::Unsupported(_)) => account.new_order(&plain).await,
                Err(Error::Api(problem)) if !is_limit(&problem) => account.new_order(&plain).await,
                Err(Error::Other(error)) if error.to_string().starts_with("replaces") => {
                    account.new_order(&plain).await
                }
                done => done,
            },
        };
        let order = order.map_err(|error| of("a new order", error))?;
        let pending = Pending { url: order.url().to_owned(), key: key.serialize_pem() };
        let names = names.clone();
        self.stored(move |store| store.put_order(&names, &pending)).await?;
        Ok((order, key))
    }

    /// The chain that comes of an order: PEM.
    async fn carry_out(
        &self,
        Opened { client, .. }: &Opened,
        order: &mut Order,
        names: &Names,
        key: &KeyPair,
    ) -> Result<String, Fault> {
        let of = |step: &str, error| Fault::of(step, error, client.asked());
        if order.state().status == OrderStatus::Pending {
            // Answered until the CA has looked.
            let presented = self.present(client, order, names).await?;
            let ready = order.poll_ready(&PATIENCE).await;
            drop(presented);
            if order.state().status == OrderStatus::Invalid {
                return Err(why_invalid(order).await);
            }
            ready.map_err(|error| of("waiting for the CA to look", error))?;
        }
        if order.state().status == OrderStatus::Ready {
            let csr = request(names, key).map_err(|error| Fault::refused(error.to_string()))?;
            let done = order.finalize_csr(&csr).await;
            done.map_err(|error| of("asking for the certificate", error))?;
        }
        let got = order.poll_certificate(&PATIENCE).await;
        if order.state().status == OrderStatus::Invalid {
            return Err(why_invalid(order).await);
        }
        let chain = got.map_err(|error| of("waiting for the certificate", error))?;
        let chain = rewritten(&chain).map_err(Fault::refused)?;
        let whole = format!("{}{chain}", key.serialize_pem());
        let refused = |what: String| Fault::refused(format!("the CA's certificate: {what}"));
        let certificate = Certificate::ordered(names, whole.as_bytes()).map_err(refused)?;
        if certificate.not_after <= super::desk::now() {
            return Err(refused("it has expired already".to_owned()));
        }
        Ok(chain)
    }

    /// Answers what the CA is going to look at, and tells it to.
    async fn present(
        &self,
        client: &Client,
        order: &mut Order,
        names: &Names,
    ) -> Result<Vec<Presented>, Fault> {
        let of = |step: &str, error| Fault::of(step, error, client.asked());
        let (kind, called) = match self.settings.challenge {
            Challenge::Http => (ChallengeType::Http01, "http-01"),
            Challenge::Tls => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
        };
        let mut presented = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization =
                authorization.map_err(|error| of("what is to be proved", error))?;
            let name = authorization.identifier().to_string().to_ascii_lowercase();
            if !names.iter().any(|wanted| wanted == name) {
                let name = fault::tame(&name);
                return Err(Fault::refused(format!("the CA asks for `{name}`, which is not ours")));
            }
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => continue,
                status => return Err(Fault::refused(format!("{name}: the proof is {status:?}"))),
            }
            let challenge = authorization.challenge(kind.clone());
            let mut challenge = challenge.ok_or_else(|| {
                Fault::refused(format!("{name}: the CA does not offer {called} for it"))
            })?;
            let answer = challenge.key_authorization();
            presented.push(match self.settings.challenge {
                Challenge::Http => {
                    let token = &challenge.token;
                    // RFC 8555 section 8.3: nothing but base64url.
                    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
                    if token.is_empty() || !token.bytes().all(fits) {
                        return Err(Fault::refused(format!("{name}: the CA's token is none")));
                    }
                    self.answers.present_http(token, answer.as_str())
                }
                Challenge::Tls => {
                    let config = validation(&name, answer.digest().as_ref())
                        .map_err(|error| Fault::refused(format!("{name}: {error}")))?;
                    self.answers.present_tls(&name, Arc::new(config))
                }
            });
            if challenge.status == ChallengeStatus::Pending {
                let told = challenge.set_ready().await;
                told.map_err(|error| of(&format!("the proof of {name}"), error))?;
            }
        }
        Ok(presented)
    }

    /// Does what may wait for the disk.
    async fn stored<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Store) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let store = self.store.clone();
        let done = spawn_blocking(move || what(&store)).await;
        let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
        done.map_err(|error| Fault::storage(&error))
    }
}

/// Whether a refusal says nothing of what was asked.
fn is_limit(problem: &instant_acme::Problem) -> bool {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let general = [":rateLimited", ":accountDoesNotExist", ":serverInternal"];
    general.iter().any(|end| kind.ends_with(end)) || problem.status.is_some_and(|code| code >= 500)
}

/// instant-acme's credentials are read back from what they are written as.
fn copy(credentials: &AccountCredentials) -> Result<AccountCredentials, Fault> {
    let copied = serde_json::to_value(credentials).and_then(serde_json::from_value);
    copied.map_err(|_| Fault::refused("the stored account cannot be copied"))
}

/// What the CA has found, name by name.
async fn why_invalid(order: &mut Order) -> Fault {
    let mut found = Vec::new();
    if let Some(problem) = &order.state().error {
        found.push(fault::of(problem));
    }
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        let problems = authorization.challenges.iter().filter_map(|one| one.error.as_ref());
        found.extend(
            problems.map(|problem| format!("{}: {}", fault::tame(&name), fault::of(problem))),
        );
    }
    if found.is_empty() {
        found.push("the CA has given the order up and does not say why".to_owned());
    }
    Fault::refused(found.join("; "))
}

fn request(names: &Names, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().map(str::to_owned).collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// The chain alone, whatever else the CA has sent (RFC 8555 section 11.4).
fn rewritten(pem: &str) -> Result<String, String> {
    let mut out = String::new();
    for (count, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let certificate = certificate.map_err(|_| "it is not PEM".to_owned())?;
        if count == LONGEST_CHAIN {
            return Err(format!("a chain of more than {LONGEST_CHAIN}"));
        }
        out += "-----BEGIN CERTIFICATE-----\n";
        let text = STANDARD.encode(&certificate);
        for line in text.as_bytes().chunks(64) {
            out.extend(line.iter().map(|byte| char::from(*byte)));
            out.push('\n');
        }
        out += "-----END CERTIFICATE-----\n";
    }
    if out.is_empty() { Err("there is none".to_owned()) } else { Ok(out) }
}

/// What a CA is shown that speaks TLS-ALPN-01: a certificate that says the digest, and nothing
/// is spoken inside (RFC 8737 section 3).
fn validation(name: &str, digest: &[u8]) -> anyhow::Result<ServerConfig> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let shown = CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key)?);
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .with_no_client_auth()
        // Looked at by nobody here: to webpki a critical extension that it does not know is wrong.
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = vec![TLS_PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}
