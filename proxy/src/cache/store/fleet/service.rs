//! The service that a fleet shares, and the names under which it has things.
//!
//! Everything that touches it has a limit, and what it gives has a bound: nothing of it is trusted
//! to end. It is found by what it is, a folder, Redis or S3, through the crate `opendal`.
//!
//! A folder and S3 give what they have piece by piece, of which no more is taken than may be. Redis
//! gives a value at once, which is in memory before its length is known: 512 MiB by Redis' own bound,
//! under a name of ours that somebody else has written. To ask for no more than may be would take
//! three commands on two connections for each value (opendal 0.59: a range that ends behind it is an
//! error everywhere), where now it takes one.
//!
//! What is late is given up, and a connection with it. But a call of the system, which is what a
//! folder is asked by, cannot be: its thread is had by it until it returns, and a runtime has 512 of
//! them for everything. So a folder is not asked for more before something has ended of as much as
//! may be under way ([`Open::at_most`]), whether anybody still waits for that or not.
//!
//! Implements: REQ-CACHE-007

use std::{fmt, future::Future, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use opendal::{
    ErrorKind, HttpTransporter, OperationContext, Operator,
    services::{Fs, Redis as RedisBuilder, S3 as S3Builder},
};
use opendal_http_transport_reqwest::ReqwestTransport;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::{sync::Semaphore, time::timeout};

use super::OLDEST;
use crate::cache::store::key::Slot;

/// Version of what is written, in all names.
const VERSION: &str = "v1";

/// Connections to Redis: for as much as is read and written at a time, and one for purges.
const CONNECTIONS: usize = super::run::READS + super::write::MOST_WRITES + 1;

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Where what the fleet shares is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// A folder that all of them see, by its path.
    Folder(PathBuf),
    /// Redis.
    Redis(Redis),
    /// S3, or a service that speaks as it does.
    S3(S3),
}

/// How Redis is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// `redis://host:port`, or `rediss://…` for TLS.
    pub endpoint: String,
    /// Number of the database.
    pub database: i64,
    /// What all names begin with.
    pub prefix: String,
    /// Who asks; Redis has a name for those who do not say it.
    pub username: Option<String>,
    /// What proves it.
    pub password: Option<Secret>,
}

/// How S3 is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3 {
    /// The bucket.
    pub bucket: String,
    /// What all names begin with; may be empty.
    pub prefix: String,
    /// The region that requests are signed for.
    pub region: String,
    /// `https://host` of a service that is not Amazon's.
    pub endpoint: Option<String>,
    /// Name and secret of who asks. `None`: as Amazon's own tools find them.
    pub key: Option<(String, Secret)>,
}

/// Something that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Without anything that is secret.
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "file://{}", path.display()),
            Self::Redis(Redis { endpoint, database, .. }) => write!(f, "{endpoint}/{database}"),
            Self::S3(S3 { bucket, prefix, .. }) if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3(S3 { bucket, prefix, .. }) => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// Why something was not to be had or done.
#[derive(Debug)]
pub(super) enum Failed {
    /// The service says so, or nothing.
    Service(String),
    /// It is longer than anything that is written.
    TooLong,
}

/// A service that can be asked.
#[derive(Debug, Clone)]
pub(super) struct Open {
    operator: Operator,
    /// For each of what may be under way. `None`: what is given up is over.
    turns: Option<Arc<Semaphore>>,
}

impl Open {
    /// Connects to nothing yet, but for a folder, which is made if it is not there. One thing at a
    /// time is asked of that.
    ///
    /// # Errors
    /// What is wrong with it, in words for people.
    pub(super) fn new(service: &Service) -> Result<Self, String> {
        let operator = match service {
            Service::Folder(path) => {
                let root = path.to_string_lossy();
                let written = path.join(VERSION).join("written");
                Operator::new(
                    Fs::default().root(&root).atomic_write_dir(&written.to_string_lossy()),
                )
            }
            Service::Redis(redis) => {
                let mut builder = RedisBuilder::default()
                    .endpoint(&redis.endpoint)
                    .db(redis.database)
                    .root(&redis.prefix)
                    .default_ttl(OLDEST)
                    .connection_pool_max_size(CONNECTIONS)
                    .username(redis.username.as_deref().unwrap_or_default());
                if let Some(Secret(password)) = &redis.password {
                    builder = builder.password(password);
                }
                Operator::new(builder)
            }
            Service::S3(s3) => {
                let mut builder =
                    S3Builder::default().bucket(&s3.bucket).region(&s3.region).root(&s3.prefix);
                if let Some(endpoint) = &s3.endpoint {
                    builder = builder.endpoint(endpoint);
                }
                if let Some((name, Secret(secret))) = &s3.key {
                    builder = builder.access_key_id(name).secret_access_key(secret);
                    builder = builder.disable_config_load().disable_ec2_metadata();
                }
                let transport = HttpTransporter::new(ReqwestTransport::new(client()?));
                let context = OperationContext::new().with_http_transport(transport);
                Operator::new(builder).map(|operator| operator.with_context(context))
            }
        };
        let operator = operator.map_err(|error| error.to_string())?;
        let hangs = matches!(service, Service::Folder(_));
        Ok(Self { operator, turns: hangs.then(|| Arc::new(Semaphore::new(1))) })
    }

    /// The same, of which so many things may be under way, whatever is asked by others.
    pub(super) fn at_most(&self, most: usize) -> Self {
        let turns = self.turns.as_ref().map(|_| Arc::new(Semaphore::new(most)));
        Self { operator: self.operator.clone(), turns }
    }

    /// What it has under this name, if it has it; no more than so many bytes.
    pub(super) async fn get(
        &self,
        name: &str,
        most: usize,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, Failed> {
        let (operator, name) = (self.operator.clone(), name.to_owned());
        let read = async move {
            let mut stream = operator.reader(&name).await?.into_stream(..).await?;
            let mut all = Vec::new();
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                if all.len() + piece.len() > most {
                    return Ok(None);
                }
                for bytes in piece {
                    all.extend_from_slice(&bytes);
                }
            }
            Ok(Some(all))
        };
        match self.ask(limit, read).await? {
            Ok(Some(all)) => Ok(Some(all)),
            Ok(None) => Err(Failed::TooLong),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(Failed::of(&error)),
        }
    }

    /// Has it keep this under the name.
    pub(super) async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        limit: Duration,
    ) -> Result<(), Failed> {
        let (operator, name) = (self.operator.clone(), name.to_owned());
        let write = async move { operator.write(&name, bytes).await };
        match self.ask(limit, write).await? {
            Ok(_) => Ok(()),
            Err(error) => Err(Failed::of(&error)),
        }
    }

    /// Has it forget what it has under the name.
    pub(super) async fn delete(&self, name: &str, limit: Duration) -> Result<(), Failed> {
        let (operator, name) = (self.operator.clone(), name.to_owned());
        let delete = async move { operator.delete(&name).await };
        match self.ask(limit, delete).await? {
            Ok(()) => Ok(()),
            Err(error) if is_absence(&error) => Ok(()),
            Err(error) => Err(Failed::of(&error)),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failed> {
        let done = async {
            let Some(turns) = &self.turns else { return Ok(work.await) };
            let turn = Arc::clone(turns).acquire_owned().await;
            // It goes on when nobody waits for it any more, and has its turn as long.
            let done = tokio::spawn(async move {
                let done = work.await;
                drop(turn);
                done
            });
            done.await.map_err(|error| Failed::Service(error.to_string()))
        };
        let late = |_| Failed::Service(format!("no answer in {} ms", limit.as_millis()));
        timeout(limit, done).await.map_err(late)?
    }
}

fn is_absence(error: &opendal::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

impl Failed {
    fn of(error: &opendal::Error) -> Self {
        Self::Service(error.to_string())
    }
}

/// The client of HTTP, with the roots and the cipher suites of our own connections.
fn client() -> Result<reqwest::Client, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(reqwest::redirect::Policy::none())
        // What the environment says of proxies holds for none of our connections.
        .no_proxy()
        .connect_timeout(CONNECT_LIMIT)
        .build();
    client.map_err(|error| error.to_string())
}

/// The name of a head or a block. Blocks of other sizes are other blocks: whoever has another
/// `block_bytes` shares nothing but purges.
pub(super) fn name(slot: &Slot, block_bytes: usize) -> String {
    let mut id = String::with_capacity(32);
    for byte in &slot.encode()[..16] {
        id.push(char::from(HEX[usize::from(byte >> 4)]));
        id.push(char::from(HEX[usize::from(byte & 15)]));
    }
    // In folders of which none has too many.
    let folder = &id[14..16];
    match slot.is_head() {
        true => format!("{VERSION}/{block_bytes}/h/{folder}/{id}"),
        false => format!("{VERSION}/{block_bytes}/b/{folder}/{id}-{}", slot.number()),
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The name of the purges, which are the same for all.
pub(super) fn purges() -> String {
    format!("{VERSION}/purges")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::store::{Key, ObjectId};

    #[test]
    fn names_tell_what_it_is() {
        let object = ObjectId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        let block = name(&Slot::block(object, 12), 65_536);
        assert_eq!(block, "v1/65536/b/00/7766554433221100ffeeddccbbaa9988-12");
        let head = name(&Slot::head(Key(object.0)), 65_536);
        assert_eq!(head, "v1/65536/h/00/7766554433221100ffeeddccbbaa9988");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let redis = Service::Redis(Redis {
            endpoint: "redis://h:1".into(),
            database: 2,
            prefix: "p".into(),
            username: None,
            password: Some(Secret::new("s3cret")),
        });
        assert_eq!(redis.to_string(), "redis://h:1/2");
        assert!(!format!("{redis:?}").contains("s3cret"));
    }
}
