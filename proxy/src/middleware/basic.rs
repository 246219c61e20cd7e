//! Basic authentication (RFC 7617) against a list of users.
//!
//! A password is kept as it is, or as a bcrypt hash. bcrypt is slow by design, so it runs on a
//! thread of its own, never on a worker, a few at a time; who has been let in once is known
//! again by a keyed hash of the password. Only so many wait for their turn that whoever sends
//! wrong passwords cannot have the others wait for long: more are turned away.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use http::HeaderValue;
use tokio::sync::Semaphore;

use crate::authenticate::{self, same};

/// Passwords that are compared by bcrypt at once.
const AT_ONCE: usize = 2;

/// Passwords that wait for that, or for what came of it.
const MOST: usize = AT_ONCE + 32;

/// Too many passwords wait to be looked at for this one to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// The users, shared by all workers.
#[derive(Debug)]
pub struct Users {
    users: Vec<User>,
    hashers: [RandomState; 2],
    /// [`AT_ONCE`]
    slow: Arc<Semaphore>,
    /// [`MOST`]
    places: Semaphore,
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
            slow: Arc::new(Semaphore::new(AT_ONCE)),
            places: Semaphore::new(MOST),
        }
    }

    /// The name of the user whose credentials (the value of `Authorization`) these are.
    ///
    /// # Errors
    /// If too many others are to be looked at before.
    pub async fn find(&self, credentials: Option<&HeaderValue>) -> Result<Option<&str>, Busy> {
        let given = credentials.and_then(authenticate::basic);
        let given = given.and_then(|given| String::from_utf8(given).ok());
        let Some((name, password)) = given.as_deref().and_then(|given| given.split_once(':'))
        else {
            return Ok(None);
        };
        // All are looked at, so that the time does not tell which of them there are.
        let mut found = None;
        for user in &self.users {
            if same(user.name.as_bytes(), name.as_bytes()) {
                found = Some(user);
            }
        }
        let user = found.or_else(|| self.users.iter().find(|user| user.is_slow()));
        let admitted = match user.map(|user| &user.secret) {
            None => false,
            Some(Secret::Plain(secret)) => same(secret.as_bytes(), password.as_bytes()),
            Some(Secret::Hashed { bcrypt, known }) => self.verify(bcrypt, known, password).await?,
        };
        Ok(found.filter(|_| admitted).map(|user| user.name.as_str()))
    }

    async fn verify(
        &self,
        bcrypt: &Arc<str>,
        known: &Mutex<Option<[u64; 2]>>,
        password: &str,
    ) -> Result<bool, Busy> {
        let digest = self.hashers.each_ref().map(|hasher| hasher.hash_one(password));
        let is_known = || *known.lock().unwrap_or_else(PoisonError::into_inner) == Some(digest);
        if is_known() {
            return Ok(true);
        }
        let _place = self.places.try_acquire().map_err(|_| Busy)?;
        let Ok(turn) = Arc::clone(&self.slow).acquire_owned().await else { return Ok(false) };
        // A browser asks for many things at once.
        if is_known() {
            return Ok(true);
        }
        let (hash, password) = (Arc::clone(bcrypt), password.to_owned());
        let verified = tokio::task::spawn_blocking(move || {
            // Who leaves does not stop the thread, whose turn it is until the end.
            (bcrypt::verify(password, &hash), turn)
        });
        let Ok((right, _turn)) = verified.await else { return Ok(false) };
        let right = matches!(right, Ok(true));
        if right {
            *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
        }
        Ok(right)
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
    use std::{future::Future as _, task::Poll};

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
            assert_eq!(users.find(Some(&given(credentials))).await, Ok(user), "{credentials}");
        }
        let direct = format!("bob:{hash}");
        assert_eq!(users.find(Some(&given(&direct))).await, Ok(None), "the hash is no password");
        for wrong in ["Bearer x", "Basic !!", "Basic", ""] {
            let value = HeaderValue::from_str(wrong).unwrap();
            assert_eq!(users.find(Some(&value)).await, Ok(None), "{wrong}");
        }
        assert_eq!(users.find(None).await, Ok(None));
    }

    #[tokio::test]
    async fn no_more_than_so_many_wait_for_their_turn() {
        let hash = bcrypt::hash("open sesame", 10).unwrap();
        let users = Users::new(&["ada:s3cret".into(), format!("bob:{hash}")]);
        assert_eq!(users.find(Some(&given("bob:open sesame"))).await, Ok(Some("bob")));
        let wrong = given("bob:open sesam");
        let mut waiting: Vec<_> = (0..MOST).map(|_| Box::pin(users.find(Some(&wrong)))).collect();
        for find in &mut waiting {
            let polled = std::future::poll_fn(|cx| Poll::Ready(find.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
        }
        assert_eq!(users.find(Some(&wrong)).await, Err(Busy));
        assert_eq!(users.find(Some(&given("eve:open sesam"))).await, Err(Busy));
        // Whose password is known, or kept as it is, does not wait.
        assert_eq!(users.find(Some(&given("bob:open sesame"))).await, Ok(Some("bob")));
        assert_eq!(users.find(Some(&given("ada:s3cret"))).await, Ok(Some("ada")));
        // Whoever leaves gives back the place.
        drop(waiting.split_off(1));
        assert_eq!(users.find(Some(&wrong)).await, Ok(None));
        assert_eq!(waiting.remove(0).await, Ok(None));
    }
}
