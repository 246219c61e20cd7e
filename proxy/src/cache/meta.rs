//! What is kept of an answer beside its bytes, and the form in which it is on the disk.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{
    policy::{Moment, Terms, Validators},
    store::{self, allocated},
};

/// What is found by a key.
#[derive(Debug, Clone)]
pub enum Meta {
    /// An answer.
    Answer(Answer),
    /// Several, and which of them it is depends on fields of the request.
    Varies(Varies),
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
}

/// The first byte of what is written: the form, and which of the two it is.
const ANSWER: u8 = 1;
const VARIES: u8 = 2;

impl store::Meta for Meta {
    fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Answer(answer) => {
                to.push(ANSWER);
                to.extend_from_slice(&answer.status.as_u16().to_le_bytes());
                let Terms {
                    received, age_ms, lifetime_ms, while_revalidate_ms, if_error_ms, ..
                } = answer.terms;
                let numbers = [received.0, age_ms, lifetime_ms, while_revalidate_ms, if_error_ms];
                numbers.iter().for_each(|number| to.extend_from_slice(&number.to_le_bytes()));
                let Terms { no_cache, must_revalidate, .. } = answer.terms;
                to.push(u8::from(no_cache) | u8::from(must_revalidate) << 1);
                for (name, value) in &answer.headers {
                    put(to, name.as_str().as_bytes());
                    put(to, value.as_bytes());
                }
            }
            Self::Varies(varies) => {
                to.push(VARIES);
                to.extend_from_slice(&varies.salt.to_le_bytes());
                varies.names.iter().for_each(|name| put(to, name.as_str().as_bytes()));
            }
        }
    }

    fn decode(from: &[u8]) -> Option<Self> {
        let (kind, mut rest) = from.split_first()?;
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
                let mut headers = HeaderMap::new();
                while !rest.is_empty() {
                    let name = HeaderName::from_bytes(get(&mut rest)?).ok()?;
                    headers.append(name, HeaderValue::from_bytes(get(&mut rest)?).ok()?);
                }
                let status = StatusCode::from_u16(status).ok()?;
                Some(Self::Answer(Answer { status, headers, terms }))
            }
            VARIES => {
                let salt = u64::from_le_bytes(take(&mut rest)?);
                let mut names = Vec::new();
                while !rest.is_empty() {
                    names.push(HeaderName::from_bytes(get(&mut rest)?).ok()?);
                }
                Some(Self::Varies(Varies { salt, names }))
            }
            _ => None,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Answer(Answer { headers, .. }) => {
                // `HeaderMap`: a table of 4 bytes a place, and an entry of the hash, name,
                // value and links for each.
                let entry = size_of::<HeaderName>() + size_of::<HeaderValue>() + 32;
                let held: usize =
                    headers.iter().map(|(_, value)| allocated(value.len()) + 48).sum();
                allocated(headers.capacity().next_power_of_two() * 4)
                    + allocated(headers.capacity() * entry)
                    + held
            }
            Self::Varies(Varies { names, .. }) => {
                allocated(names.capacity() * size_of::<HeaderName>()) + names.len() * 48
            }
        }
    }
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

    fn again(meta: &Meta) -> Option<Meta> {
        let mut bytes = Vec::new();
        meta.encode(&mut bytes);
        for length in 0..bytes.len() {
            // Whatever is cut off, nothing panics.
            let _ = Meta::decode(&bytes[..length]);
        }
        Meta::decode(&bytes)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut headers = HeaderMap::new();
        headers.append("a", "1".parse().unwrap());
        headers.append("a", HeaderValue::from_bytes(b"\xff").unwrap());
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
        let Some(Meta::Answer(read)) = again(&Meta::Answer(answer.clone())) else { panic!() };
        assert_eq!((read.status, read.terms), (answer.status, terms));
        assert_eq!(read.headers, answer.headers);
        let varies = Varies { salt: 7, names: vec!["accept".parse().unwrap()] };
        let Some(Meta::Varies(read)) = again(&Meta::Varies(varies.clone())) else { panic!() };
        assert_eq!(read, varies);
        assert!(Meta::decode(&[]).is_none() && Meta::decode(&[9, 9]).is_none());
    }
}
