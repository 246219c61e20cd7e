//! What is kept of an answer beside its bytes, and the form in which it is on the disk.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    policy::{Moment, Terms, Validators},
    store::{self, Stored},
};

/// What is found by a key, as far as it has one size. The rest is behind it: fields or names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// An answer.
    Answer(Kept),
    /// Several, and which of them it is depends on fields of the request: [`Varies::salt`].
    Varies(u64),
}

/// What is kept of an answer beside its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its status; 200 where it was fetched in parts.
    pub status: StatusCode,
    /// How it may be used.
    pub terms: Terms,
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status; 200 where it was fetched in parts.
    pub status: StatusCode,
    /// Its fields, without those that are for one connection.
    pub headers: HeaderMap,
    /// How it may be used.
    pub terms: Terms,
}

/// By what the variants of a target are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Varies {
    /// New whenever it is made anew: what was stored under another one is not found any more.
    pub salt: u64,
    /// The fields, in order.
    pub names: Vec<HeaderName>,
}

impl Answer {
    /// What tells its version.
    pub fn validators(&self) -> Validators {
        Validators::of(&self.headers)
    }

    /// The answer that is stored. Its fields are parts of a copy: peers of HTTP/2 are told of
    /// fields by their place in a table, and what is in such a table is there for as long as its
    /// connection (RFC 7541 section 2.3.2). `None`: only that there are variants.
    pub fn of(stored: &Stored<Meta>) -> Option<Self> {
        let Meta::Answer(Kept { status, terms }) = stored.meta else { return None };
        let all = Bytes::copy_from_slice(stored.more());
        // With room for what is added on the way.
        let mut fields = HeaderMap::with_capacity(fields(&all).count() + 4);
        for (name, value) in self::fields(&all) {
            let name = HeaderName::from_bytes(name).ok()?;
            fields.append(name, HeaderValue::from_maybe_shared(all.slice_ref(value)).ok()?);
        }
        Some(Self { status, headers: fields, terms })
    }

    /// The same in the form in which it is stored: what has one size, and what lies behind.
    pub fn to_store(&self) -> (Meta, Box<[u8]>) {
        let mut fields = Vec::with_capacity(512);
        for (name, value) in &self.headers {
            put(&mut fields, name.as_str().as_bytes());
            put(&mut fields, value.as_bytes());
        }
        (Meta::Answer(Kept { status: self.status, terms: self.terms }), fields.into())
    }
}

impl Varies {
    /// What the variants of a stored target are told apart by. `None`: it has none.
    pub fn of(stored: &Stored<Meta>) -> Option<Self> {
        let Meta::Varies(salt) = stored.meta else { return None };
        let names = list(stored.more()).map(|name| HeaderName::from_bytes(name).ok());
        Some(Self { salt, names: names.collect::<Option<_>>()? })
    }

    /// The same in the form in which it is stored.
    pub fn to_store(&self) -> (Meta, Box<[u8]>) {
        let mut names = Vec::new();
        self.names.iter().for_each(|name| put(&mut names, name.as_str().as_bytes()));
        (Meta::Varies(self.salt), names.into())
    }
}

/// The first byte of what is written: the form, and which of the two it is.
const ANSWER: u8 = 1;
const VARIES: u8 = 2;

impl store::Meta for Meta {
    fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Answer(Kept { status, terms }) => {
                to.push(ANSWER);
                to.extend_from_slice(&status.as_u16().to_le_bytes());
                let Terms {
                    received, age_ms, lifetime_ms, while_revalidate_ms, if_error_ms, ..
                } = *terms;
                let numbers = [received.0, age_ms, lifetime_ms, while_revalidate_ms, if_error_ms];
                numbers.iter().for_each(|number| to.extend_from_slice(&number.to_le_bytes()));
                let Terms { no_cache, must_revalidate, .. } = *terms;
                to.push(u8::from(no_cache) | u8::from(must_revalidate) << 1);
            }
            Self::Varies(salt) => {
                to.push(VARIES);
                to.extend_from_slice(&salt.to_le_bytes());
            }
        }
    }

    fn decode(from: &[u8]) -> Option<(Self, &[u8])> {
        let (kind, mut rest) = from.split_first()?;
        let is_name = |name: &[u8]| HeaderName::from_bytes(name).is_ok();
        match *kind {
            ANSWER => {
                let status = u16::from_le_bytes(take(&mut rest)?);
                let mut number = || Some(u64::from_le_bytes(take(&mut rest)?));
                let mut terms = Terms {
                    received: Moment(number()?),
                    age_ms: number()?,
                    lifetime_ms: number()?,
                    while_revalidate_ms: number()?,
                    if_error_ms: number()?,
                    no_cache: false,
                    must_revalidate: false,
                };
                let [flags] = take(&mut rest)?;
                terms.no_cache = flags & 1 != 0;
                terms.must_revalidate = flags & 2 != 0;
                let is_value = |value: &[u8]| HeaderValue::from_bytes(value).is_ok();
                let mut read = fields(rest);
                let all = read.all(|(name, value)| is_name(name) && is_value(value));
                let status = StatusCode::from_u16(status).ok()?;
                let whole = list(rest).map(|part| part.len() + 4).sum::<usize>() == rest.len();
                (all && whole && list(rest).count().is_multiple_of(2))
                    .then_some((Self::Answer(Kept { status, terms }), rest))
            }
            VARIES => {
                let salt = u64::from_le_bytes(take(&mut rest)?);
                let whole = list(rest).map(|name| name.len() + 4).sum::<usize>() == rest.len();
                (whole && list(rest).all(is_name)).then_some((Self::Varies(salt), rest))
            }
            _ => None,
        }
    }

    /// By a range request, which only the same version answers.
    fn is_mendable(&self, more: &[u8]) -> bool {
        let Self::Answer(_) = self else { return false };
        let mut validators = HeaderMap::new();
        for (name, value) in fields(more) {
            // All that tells a version, and when.
            let name = [header::ETAG, header::LAST_MODIFIED, header::DATE]
                .into_iter()
                .find(|known| known.as_str().as_bytes() == name);
            if let Some((name, value)) = name.zip(HeaderValue::from_bytes(value).ok()) {
                validators.append(name, value);
            }
        }
        Validators::of(&validators).strong().is_some()
    }
}

/// Names and values, one after the other, each behind its length.
fn fields(from: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut all = list(from);
    std::iter::from_fn(move || Some((all.next()?, all.next()?)))
}

fn list(mut from: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || get(&mut from))
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    to.extend_from_slice(bytes);
}

fn get<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(take(from)?) as usize;
    let (bytes, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(bytes)
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = from.split_at_checked(N)?;
    *from = rest;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::store::Meta as _;

    /// As it comes back from a store.
    fn again((meta, more): (Meta, Box<[u8]>)) -> Stored<Meta> {
        let mut bytes = Vec::new();
        meta.encode(&mut bytes);
        bytes.extend_from_slice(&more);
        for length in 0..bytes.len() {
            // Whatever is cut off, nothing panics.
            let _ = Meta::decode(&bytes[..length]);
        }
        let (read, rest) = Meta::decode(&bytes).expect("what was written");
        assert_eq!((read, rest), (meta, &more[..]));
        let options =
            store::Options { memory_bytes: 1 << 20, block_bytes: 4096, disk: None, fleet: None };
        let head = store::Head {
            text: "text".into(),
            tags: Box::default(),
            length: None,
            keep_until: 0,
            meta,
            more,
            body: None,
        };
        store::Store::new(&options).fill().commit(store::Key::of("text"), head).expect("room")
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut headers = HeaderMap::new();
        headers.append("a", "1".parse().unwrap());
        headers.append("a", HeaderValue::from_bytes(b"\xff").unwrap());
        headers.append("empty", "".parse().unwrap());
        let terms = Terms {
            received: Moment(1),
            age_ms: 2,
            lifetime_ms: 3,
            while_revalidate_ms: 4,
            if_error_ms: 5,
            no_cache: false,
            must_revalidate: true,
        };
        let answer = Answer { status: StatusCode::NOT_FOUND, headers, terms };
        let stored = again(answer.to_store());
        let read = Answer::of(&stored).unwrap();
        assert_eq!((read.status, read.terms), (answer.status, terms));
        assert_eq!(read.headers, answer.headers);
        assert_eq!(Varies::of(&stored), None);
        let varies = Varies { salt: 7, names: vec!["accept".parse().unwrap()] };
        let stored = again(varies.to_store());
        assert_eq!(Varies::of(&stored).unwrap(), varies);
        assert!(Answer::of(&stored).is_none());
        assert!(Meta::decode(&[]).is_none() && Meta::decode(&[9, 9]).is_none());
    }
}
