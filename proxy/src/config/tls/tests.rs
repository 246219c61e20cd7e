//! What is wrong with `[listener.tls]` and the files it names, and what is told of it.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::super::{Config, parse};

/// Files of a test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("underpass-tls-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// `NAME.pem` and `NAME.key`.
    fn pair(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([format!("{name}.test")]).unwrap();
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        self.write(&format!("{name}.pem"), certificate.pem());
        self.write(&format!("{name}.key"), key.serialize_pem());
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A file whose listener has these keys; `@` stands for the folder.
    fn parse(&self, listener: &str, tls: &str) -> Result<Config, String> {
        let tls = tls.replace('@', &self.0.display().to_string());
        let text = format!(
            "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{listener}\n\
             [listener.tls]\n{tls}\n\
             [[route]]\nlistener = \"web\"\nupstream = \"one\"\n\
             [[upstream]]\nname = \"one\"\nservers = [\"127.0.0.1:1\"]\n"
        );
        parse(&text, "f.toml")
            .map_err(|errors| errors.to_string().replace(&format!("{}/", self.0.display()), ""))
    }

    fn wrong(&self, listener: &str, tls: &str) -> String {
        self.parse(listener, tls).map(|_| ()).unwrap_err()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SITE: &str = "certificates = [{ cert = \"@/site.pem\", key = \"@/site.key\" }]\n";

#[test]
fn what_is_wrong_with_files_is_told() {
    let folder = Folder::new("files");
    folder.pair("site", |_| {});
    folder.pair("other", |_| {});
    folder.write("not.pem", "hello");
    folder.write("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    folder.write("der.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    folder.write("secret.key", encrypted);
    // As it comes about in the variables of an environment.
    let key = fs::read_to_string(folder.0.join("site.key")).unwrap();
    folder.write("escaped.key", key.replace('\n', "\\n"));
    folder.write("spaced.key", key.replace('\n', " "));
    for (files, expected) in [
        ("cert = \"@/site.pem\", key = \"@/escaped.key\"", "escaped.key is not valid PEM: a"),
        ("cert = \"@/site.pem\", key = \"@/spaced.key\"", "spaced.key is not valid PEM: a"),
        ("cert = \"@/gone.pem\", key = \"@/site.key\"", "there is no file gone.pem"),
        ("cert = \"@/site.pem\", key = \"@/gone.key\"", "there is no file gone.key"),
        ("cert = \"@\", key = \"@/site.key\"", "cannot be read: Is a directory"),
        ("cert = \"@/not.pem\", key = \"@/site.key\"", "not.pem is not PEM"),
        ("cert = \"@/site.key\", key = \"@/site.key\"", "site.key holds no certificate"),
        ("cert = \"@/site.pem\", key = \"@/site.pem\"", "site.pem holds no private key"),
        ("cert = \"@/cut.pem\", key = \"@/site.key\"", "cut.pem is not valid PEM"),
        ("cert = \"@/der.pem\", key = \"@/site.key\"", "the first certificate in"),
        ("cert = \"@/site.pem\", key = \"@/secret.key\"", "is encrypted; decrypt it: openssl pkey"),
        (
            "cert = \"@/site.pem\", key = \"@/other.key\"",
            "the key in other.key does not belong to the first certificate in site.pem",
        ),
        (
            "cert = \"@/site.pem\", key = \"@/site.key\", ocsp = \"@/site.pem\"",
            "site.pem is no OCSP response in DER",
        ),
        ("cert = \"@/site.pem\"", "one of `certificates` has no `key`"),
        ("cert = \"@/site.pem\", kye = \"@/site.key\"", "unknown key `kye`"),
    ] {
        let wrong = folder.wrong("", &format!("certificates = [{{ {files} }}]"));
        assert!(wrong.contains(expected), "{files}: {wrong}");
        // Not as text, and not as a list of its bytes.
        assert!(wrong.len() < 300, "{files}: {wrong}");
        assert!(wrong.starts_with("f.toml:6:"), "{files}: {wrong}");
        assert_eq!(wrong.lines().count(), 1, "{files}: {wrong}");
    }
}

#[test]
fn what_is_wrong_with_settings_is_told() {
    let folder = Folder::new("settings");
    folder.pair("site", |_| {});
    let ca = "client_ca = \"@/site.pem\"";
    for (listener, keys, expected) in [
        ("", "min_version = \"1.1\"", "unknown value `1.1`; did you mean `1.2`?"),
        ("", "min_version = 1.2", "write \"1.2\" or \"1.3\""),
        (
            "",
            "cipher_suites = [\"TLS_AES_256_GCM_SHA348\"]",
            "unknown cipher suite `TLS_AES_256_GCM_SHA348`; did you mean `TLS_AES_256_GCM_SHA384`?",
        ),
        ("", "cipher_suites = []", "no cipher suite at all"),
        (
            "",
            "min_version = \"1.3\"\ncipher_suites = [\"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384\"]",
            "none of these is one of TLS 1.3",
        ),
        ("", "alpn = [\"h3\"]", "unknown value `h3`; did you mean `h2`?"),
        ("protocol = \"tcp\"", "alpn = [\"\"]", "a protocol of no length"),
        ("", "client_auth = \"require\"", "add `client_ca = "),
        ("", "client_auth = \"requier\"", "did you mean `require`?"),
        ("", &format!("client_auth = \"off\"\n{ca}"), "a `client_ca` where clients are not asked"),
        ("", "client_ca = \"@/gone.pem\"", "there is no file gone.pem"),
        ("", "client_ca = \"@/site.key\"", "site.key holds no certificate"),
        ("", "client_subject_header = \"x-subject\"", "that no client is asked for"),
        ("", &format!("{ca}\nclient_subject_header = \"a b\""), "`a b` is not a field name"),
        ("", &format!("{ca}\nclient_subject_header = \"Host\""), "has a meaning of its own"),
        (
            "protocol = \"tcp\"",
            &format!("{ca}\nclient_subject_header = \"x-subject\""),
            "a field for requests on a tcp listener",
        ),
        ("", "handshake_timeout = 10", "add the unit"),
        ("", "max_handshakes = 0", "max_handshakes"),
        ("", "certificate = 1", "did you mean `certificates`?"),
    ] {
        let wrong = folder.wrong(listener, &format!("{SITE}{keys}"));
        assert!(wrong.contains(expected), "{keys}: {wrong}");
    }
    for (tls, expected) in [
        ("", "[listener.tls] has no `certificates`"),
        ("certificates = []", "[listener.tls] has no `certificates`"),
        ("certificates = \"@/site.pem\"", "`certificates` is a string"),
        (
            "certificates = [{ cert = \"@/site.pem\", key = \"@/site.key\", default = true }, \
             { cert = \"@/site.pem\", key = \"@/site.key\", default = true }]",
            "a second default certificate",
        ),
    ] {
        let wrong = folder.wrong("", tls);
        assert!(wrong.contains(expected), "{tls}: {wrong}");
    }
}

#[test]
fn what_is_perhaps_not_meant_is_warned_of() {
    let folder = Folder::new("warnings");
    folder.pair("site", |params| {
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 2, 3);
    });
    folder.pair("later", |params| {
        params.not_before = date_time_ymd(2999, 1, 2);
        params.not_after = date_time_ymd(3000, 1, 1);
    });
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(folder.0.join("later.key"), open).unwrap();
    let later = "{ cert = \"@/later.pem\", key = \"@/later.key\" }]";
    let config = folder.parse("", &SITE.replace("}]", &format!("}}, {later}"))).unwrap();
    let all = config.warnings.join("\n");
    for expected in [
        "site.pem has expired on 2020-02-03",
        "later.pem is not valid before 2999-01-02",
        "later.key can be read by everybody",
    ] {
        assert!(all.contains(expected), "{all}");
    }
    assert_eq!(config.warnings.len(), 3, "{all}");
    assert!(config.warnings.iter().all(|warning| warning.starts_with("f.toml:6:")), "{all}");
}

#[test]
fn what_is_in_force_is_a_file_that_means_the_same_and_holds_no_key() {
    let folder = Folder::new("effective");
    folder.pair("site", |_| {});
    folder.pair("other", |_| {});
    let keys = "certificates = [{ cert = \"@/site.pem\", key = \"@/site.key\" }, \
         { cert = \"@/other.pem\", key = \"@/other.key\", default = true }]\n\
         min_version = \"1.3\"\ncipher_suites = [\"TLS_AES_128_GCM_SHA256\"]\nalpn = [\"http/1.1\"]\n\
         client_auth = \"request\"\nclient_ca = \"@/site.pem\"\n\
         client_subject_header = \"X-Subject\"\nhandshake_timeout = \"3s\"\nmax_handshakes = 7";
    for keys in [keys, SITE] {
        let config = folder.parse("", keys).unwrap();
        let settings = |config: &Config| config.listeners[0].tls.clone().unwrap().settings.clone();
        let effective = config.effective();
        let again = parse(&effective, "again.toml").unwrap();
        assert_eq!(settings(&config), settings(&again));
        assert!(!effective.contains("PRIVATE KEY") && effective.contains("site.key"));
        assert!(!format!("{config:?}").contains("PrivateKey"), "{config:?}");
    }
}

/// Whoever names a CA means it.
#[test]
fn clients_are_asked_where_a_ca_is_named() {
    let folder = Folder::new("ca");
    folder.pair("site", |_| {});
    let config = folder.parse("", &format!("{SITE}client_ca = \"@/site.pem\"")).unwrap();
    let tls = config.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.settings.client_auth, crate::tls::ClientAuth::Require);
    let config = folder.parse("protocol = \"tcp\"", SITE).unwrap();
    assert!(config.listeners[0].tls.as_ref().unwrap().settings.alpn.is_empty());
}
