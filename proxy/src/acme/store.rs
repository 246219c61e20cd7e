//! The storage folder: account, certificates, orders under way and failures, for one CA.
//!
//! A folder of its own for each directory URL, so that what a CA for trials gave is never shown
//! as the real one's. A certificate and its key are one file: whoever reads it has a pair that
//! belongs together. Files are replaced by a rename after fsync(2), so each is whole at every
//! moment, the one before or the one after; they are of mode 0600 in a folder of 0700. The storage
//! itself may be somebody's folder already, of which nothing is changed.
//!
//! An order is made under a lock (flock(2)), which the kernel gives back when its process ends
//! in whatever way.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    hash::Hasher as _,
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use siphasher::sip::SipHasher13;

use super::{Names, Settings};

/// What others than the owner may do with a file.
const OTHERS: u32 = 0o077;

/// The folder of one CA.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// Held while an order is made; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "open is what it has to be")] File);

/// An account, with what the CA was told.
#[derive(Serialize, Deserialize)]
pub(super) struct Account<T> {
    pub(super) contact: Vec<String>,
    /// Key and URL, as instant-acme has them.
    pub(super) credentials: T,
}

/// An order that a CA has begun.
#[derive(Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) url: String,
    /// The key that the certificate is to be for: PEM.
    pub(super) key: String,
}

/// What failed last, so that a process that begins anew does not begin to try anew.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Failed {
    /// In a row.
    pub(super) times: u32,
    /// Not before this, in Unix time.
    pub(super) retry_at: i64,
    /// Whether the CA has said so.
    pub(super) by_ca: bool,
    pub(super) what: String,
}

impl Store {
    /// The folder of the CA that settings name. Nothing is made or read.
    pub fn new(settings: &Settings) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(settings.directory.as_bytes());
        let host = settings.directory.strip_prefix("https://").unwrap_or_default();
        let host = host.split('/').next().unwrap_or_default();
        // A host may have a port, or be an address of version 6.
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '.' };
        let host: String = host.chars().map(plain).collect();
        let folder = settings.storage.join(format!("{host}-{:016x}", hasher.finish()));
        Self { folder }
    }

    /// The file with key and chain for these names, whether it is there or not.
    pub fn certificate(&self, names: &Names) -> PathBuf {
        self.folder.join(format!("{}.pem", names.id()))
    }

    /// Makes the folders where they are missing, for the owner alone, and takes what others may do
    /// with the CA's away. Nothing is changed of a storage that was there before.
    ///
    /// # Errors
    /// As mkdir(2) and chmod(2).
    pub fn prepare(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let mode = fs::metadata(&self.folder)?.permissions().mode();
        if mode & OTHERS != 0 {
            fs::set_permissions(&self.folder, Permissions::from_mode(mode & 0o700))?;
        }
        Ok(())
    }

    /// The lock; `None` if another process has it.
    ///
    /// # Errors
    /// As open(2) and flock(2).
    pub(super) fn lock(&self) -> io::Result<Option<Lock>> {
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.folder.join("lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn account<T: DeserializeOwned>(&self) -> io::Result<Option<Account<T>>> {
        self.get("account.json")
    }

    pub(super) fn put_account<T: Serialize>(&self, account: &Account<T>) -> io::Result<()> {
        self.put_json("account.json", account)
    }

    /// The CA does not know it any more; its key is kept beside those of others before, for
    /// whoever may want it.
    pub(super) fn retire_account(&self) -> io::Result<()> {
        let old = |number: u32| self.folder.join(format!("account.old.{number}.json"));
        let mut number = 1;
        while old(number).try_exists()? {
            number += 1;
        }
        fs::rename(self.folder.join("account.json"), old(number))?;
        self.sync()
    }

    pub(super) fn order(&self, names: &Names) -> io::Result<Option<Pending>> {
        self.get(&format!("{}.order.json", names.id()))
    }

    pub(super) fn put_order(&self, names: &Names, order: &Pending) -> io::Result<()> {
        self.put_json(&format!("{}.order.json", names.id()), order)
    }

    pub(super) fn drop_order(&self, names: &Names) -> io::Result<()> {
        self.remove(&format!("{}.order.json", names.id()))
    }

    pub(super) fn failed(&self, names: &Names) -> io::Result<Option<Failed>> {
        self.get(&format!("{}.failed.json", names.id()))
    }

    /// `None`: nothing any more.
    pub(super) fn put_failed(&self, names: &Names, failed: Option<&Failed>) -> io::Result<()> {
        let name = format!("{}.failed.json", names.id());
        match failed {
            Some(failed) => self.put_json(&name, failed),
            None => self.remove(&name),
        }
    }

    /// Key and chain, as they are.
    pub(super) fn read_certificate(&self, names: &Names) -> io::Result<Option<Vec<u8>>> {
        found(fs::read(self.certificate(names)))
    }

    /// Stores a key with its chain, in the place of those before.
    pub(super) fn put_certificate(&self, names: &Names, pem: &str) -> io::Result<()> {
        self.put(&format!("{}.pem", names.id()), pem.as_bytes())
    }

    fn get<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let path = self.folder.join(name);
        let Some(bytes) = found(fs::read(&path))? else { return Ok(None) };
        // serde's error may repeat what the file holds, which may be a key.
        let bad = |error: serde_json::Error| {
            let (path, line) = (path.display(), error.line());
            io::Error::other(format!("{path} is damaged at line {line}; remove it to begin anew"))
        };
        serde_json::from_slice(&bytes).map(Some).map_err(bad)
    }

    fn put_json<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        self.put(name, &serde_json::to_vec_pretty(value)?)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.folder.join(format!(".{name}.new"));
        // What a process left that was killed meanwhile may have another mode.
        self.remove_file(&new)?;
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.folder.join(name))?;
        self.sync()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.remove_file(&self.folder.join(name))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        found(fs::remove_file(path)).map(|_| ())
    }

    /// A rename is on the disk when the folder is.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

/// `None` for what is not there.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of a test, gone with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("underpass-acme-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn store(&self) -> Store {
            Store { folder: self.0.join("ca") }
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names(name: &str) -> Names {
        Names::new(vec![name.to_owned()]).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_and_folders_are_the_owners_alone() {
        let scratch = Scratch::new("modes");
        let (store, names) = (scratch.store(), names("a.test"));
        store.prepare().unwrap();
        assert_eq!((mode(&scratch.0), mode(&store.folder)), (0o700, 0o700));
        // The storage may be a folder that others need: what is the CA's is ours alone.
        for folder in [&scratch.0, &store.folder] {
            fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
        store.prepare().unwrap();
        // Left by a process that was killed, with a mode of its own.
        let left = store.folder.join(format!(".{}.pem.new", names.id()));
        fs::write(&left, "half").unwrap();
        fs::set_permissions(&left, Permissions::from_mode(0o644)).unwrap();
        store.put_certificate(&names, "pem").unwrap();
        store.put_order(&names, &Pending { url: "u".into(), key: "k".into() }).unwrap();
        store.put_failed(&names, Some(&Failed::default())).unwrap();
        drop(store.lock().unwrap().unwrap());
        assert_eq!((mode(&scratch.0), mode(&store.folder)), (0o755, 0o700));
        let files: Vec<_> =
            fs::read_dir(&store.folder).unwrap().map(|f| f.unwrap().path()).collect();
        assert_eq!(files.len(), 4, "{files:?}");
        assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
        assert_eq!(store.read_certificate(&names).unwrap().unwrap(), b"pem");
        assert_eq!(store.order(&names).unwrap().unwrap().url, "u");
        store.drop_order(&names).unwrap();
        store.drop_order(&names).unwrap();
        assert!(store.order(&names).unwrap().is_none());
    }

    #[test]
    fn the_key_of_an_account_is_never_replaced() {
        let scratch = Scratch::new("accounts");
        let store = scratch.store();
        store.prepare().unwrap();
        for key in ["one", "two", "three"] {
            let contact = Vec::new();
            store.put_account(&Account { contact, credentials: key }).unwrap();
            store.retire_account().unwrap();
            assert!(store.account::<String>().unwrap().is_none());
        }
        store.retire_account().unwrap_err();
        for (number, key) in [(1, "one"), (2, "two"), (3, "three")] {
            let old = store.get::<Account<String>>(&format!("account.old.{number}.json"));
            assert_eq!(old.unwrap().unwrap().credentials, key);
        }
    }

    #[test]
    fn one_process_at_a_time_has_the_lock() {
        let scratch = Scratch::new("lock");
        let store = scratch.store();
        store.prepare().unwrap();
        let held = store.lock().unwrap().unwrap();
        assert!(store.lock().unwrap().is_none());
        drop(held);
        // A process that another test is just starting has it for a moment.
        let mut tries = (0..100).map(|_| std::thread::sleep(std::time::Duration::from_millis(10)));
        assert!(tries.any(|()| store.lock().unwrap().is_some()));
    }

    #[test]
    fn a_damaged_file_is_named_and_what_it_held_is_not() {
        let scratch = Scratch::new("damaged");
        let (store, names) = (scratch.store(), names("a.test"));
        store.prepare().unwrap();
        fs::write(store.folder.join(format!("{}.order.json", names.id())), "\"SECRET\"").unwrap();
        let error = store.order(&names).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("order.json") && !error.contains("SECRET"), "{error}");
    }

    #[test]
    fn each_ca_has_a_folder_of_its_own() {
        let store = |directory: &str| {
            let settings = super::super::tests::settings(directory);
            Store::new(&settings).folder
        };
        let one = store("https://ca.test:14000/dir");
        let name = one.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("ca.test.14000-"), "{name}");
        assert_ne!(one, store("https://ca.test:14000/other"));
        // Nothing of a URL leads out of the storage.
        let odd = store("https://../x");
        assert_eq!(odd.parent(), one.parent());
    }
}
