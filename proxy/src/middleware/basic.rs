//! Basic authentication (RFC 7617) against a list of users.
//!
//! A password is kept as it is, or as a bcrypt hash. bcrypt is slow by design, so it runs on a
//! thread of its own, never on a worker, a few at a time; who has been let in once is known
//! again by a keyed hash of the password.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use http::HeaderValue;
use tokio::sync::Semaphore;

use crate::authenticate::{self, same};

/// Passwords that are compared by bcrypt at once.
const AT_ONCE: usize = 2;

/// The users, shared by all workers.
#[derive(Debug)]
pub struct Users {
    users: Vec<User>,
    hashers: [RandomState; 2],
    slow: Semaphore,
}

#[derive(Debug)]
struct User {
    name: String,
    secret: Secret,
}

#[derive(Debug)]
enum Secret {
    Plain(String),
    Hashed {
        bcrypt: Arc<str>,
        /// Of the password that was found right.
        known: Mutex<Option<[u64; 2]>>,
    },
}

impl Users {
    /// `users`: `name:password` or `name:$2b$…` each.
    pub fn new(users: &[String]) -> Self {
        let users = users.iter().filter_map(|user| user.split_once(':')).map(|(name, secret)| {
            let secret = match is_hash(secret) {
                true => Secret::Hashed { bcrypt: secret.into(), known: Mutex::new(None) },
                false => Secret::Plain(secret.to_owned()),
            };
            User { name: name.to_owned(), secret }
        });
        Self {
            users: users.collect(),
            hashers: [RandomState::new(), RandomState::new()],
            slow: Semaphore::new(AT_ONCE),
        }
    }

    /// The name of the user whose credentials (the value of `Authorization`) these are.
    pub async fn find(&self, credentials: Option<&HeaderValue>) -> Option<&str> {
        let given = String::from_utf8(authenticate::basic(credentials?)?).ok()?;
        let (name, password) = given.split_once(':')?;
        // All are looked at, so that the time does not tell which of them there are.
        let mut found = None;
        for user in &self.users {
            if same(user.name.as_bytes(), name.as_bytes()) {
                found = Some(user);
            }
        }
        let user = found.or_else(|| self.users.iter().find(|user| user.is_slow()));
        let admitted = match &user?.secret {
            Secret::Plain(secret) => same(secret.as_bytes(), password.as_bytes()),
            Secret::Hashed { bcrypt, known } => self.verify(bcrypt, known, password).await,
        };
        found.filter(|_| admitted).map(|user| user.name.as_str())
    }

    async fn verify(
        &self,
        bcrypt: &Arc<str>,
        known: &Mutex<Option<[u64; 2]>>,
        password: &str,
    ) -> bool {
        let digest = self.hashers.each_ref().map(|hasher| hasher.hash_one(password));
        if *known.lock().unwrap_or_else(PoisonError::into_inner) == Some(digest) {
            return true;
        }
        let Ok(_turn) = self.slow.acquire().await else { return false };
        let (hash, password) = (Arc::clone(bcrypt), password.to_owned());
        let verified = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash));
        let right = matches!(verified.await, Ok(Ok(true)));
        if right {
            *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
        }
        right
    }
}

impl User {
    fn is_slow(&self) -> bool {
        matches!(self.secret, Secret::Hashed { .. })
    }
}

/// Whether a password is a bcrypt hash as `htpasswd -B` writes them.
pub fn is_hash(secret: &str) -> bool {
    ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| secret.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    fn given(text: &str) -> HeaderValue {
        HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(text))).unwrap()
    }

    #[tokio::test]
    async fn only_whole_credentials_are_admitted() {
        let hash = bcrypt::hash("open sesame", 4).unwrap();
        let users = Users::new(&["ada:s3cret:x".into(), format!("bob:{hash}")]);
        for (credentials, user) in [
            ("ada:s3cret:x", Some("ada")),
            ("bob:open sesame", Some("bob")),
            // Once more, as one who is known.
            ("bob:open sesame", Some("bob")),
            ("bob:open sesam", None),
            ("ada:open sesame", None),
            ("ada:s3cret", None),
            ("ada:", None),
            ("eve:open sesame", None),
            ("bob", None),
            ("", None),
        ] {
            assert_eq!(users.find(Some(&given(credentials))).await, user, "{credentials}");
        }
        let direct = format!("bob:{hash}");
        assert_eq!(users.find(Some(&given(&direct))).await, None, "the hash is no password");
        for wrong in ["Bearer x", "Basic !!", "Basic", ""] {
            let value = HeaderValue::from_str(wrong).unwrap();
            assert_eq!(users.find(Some(&value)).await, None, "{wrong}");
        }
        assert_eq!(users.find(None).await, None);
    }
}
