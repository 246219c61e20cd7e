//! A forward proxy that takes TLS apart, its authority, and clients that trust it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    Proxy, ProxyBuilder, Wire,
    proxy::{run, scratch},
    tls::{Secured, TlsClient},
    tls_origin::Signer,
};

/// The folder of an authority, removed with the value.
#[derive(Debug)]
pub struct LocalCa(PathBuf);

impl Default for LocalCa {
    /// One that may sign for anybody.
    fn default() -> Self {
        Self::of(&[])
    }
}

impl LocalCa {
    /// One that may sign for these hosts.
    pub fn of(hosts: &[&str]) -> Self {
        let path = scratch("ca");
        let folder = path.to_str().expect("UTF-8");
        let made = run(&[&["record", "ca", "init", "--dir", folder], hosts].concat());
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The certificate, for clients.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// The text of its key.
    pub fn key(&self) -> String {
        fs::read_to_string(self.0.join("ca.key")).expect("the key")
    }

    /// Mode bits of the folder, its certificate and its key.
    pub fn modes(&self) -> [u32; 3] {
        [self.0.clone(), self.certificate(), self.0.join("ca.key")]
            .map(|path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777)
    }

    /// A forward proxy that takes these hosts' TLS apart, and believes servers of `signer`.
    pub fn proxy(&self, hosts: &[&str], signer: &Signer) -> ProxyBuilder {
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let hosts = hosts.iter().flat_map(|host| ["--intercept".to_owned(), (*host).to_owned()]);
        Proxy::forward()
            .args(hosts)
            .args(["--intercept-ca".to_owned(), path(&self.0)])
            .args(["--intercept-server-ca".to_owned(), signer.ca()])
    }

    /// A client that trusts it.
    pub fn client(&self) -> TlsClient {
        TlsClient::trusting_pem(&fs::read_to_string(self.certificate()).expect("a certificate"))
    }
}

impl Drop for LocalCa {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Has CONNECT to `authority` granted.
pub async fn connect(proxy: &Proxy, authority: &str) -> Wire {
    let ask = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let mut wire = proxy.open(ask).await;
    assert_eq!(wire.read_head().await.status(), 200, "CONNECT {authority}");
    wire
}

/// The inside of it, where TLS is for the host of `authority`.
pub async fn inside(proxy: &Proxy, client: &TlsClient, authority: &str) -> Secured {
    let wire = connect(proxy, authority).await;
    let (host, _) = authority.rsplit_once(':').expect("a port");
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let begun = client.over(wire.into_stream(), host).await;
    begun.unwrap_or_else(|error| panic!("TLS for {authority}: {error}"))
}
