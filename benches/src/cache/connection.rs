//! A kept connection to a cache: an answer is read to its end and is checked, and its bytes are
//! compared with those of the object where that is asked for.

use std::{net::SocketAddr, time::Instant};

use anyhow::{Context as _, ensure};
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::answer::{Expected, Told};
use crate::origin::object::Object;

const ROOM: usize = 128 * 1024;
/// Of a head.
const MOST: usize = 16 * 1024;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buf: Vec<u8>,
}

impl Connection {
    /// Opens one.
    ///
    /// # Errors
    /// If nobody listens.
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buf: Vec::with_capacity(ROOM) })
    }

    /// Sends a request and reads its answer: what the cache has said, and when its first byte
    /// came. `object`: whose bytes they are, from which place on.
    ///
    /// # Errors
    /// If it is not what it has to be.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
        expected: &Expected<'_>,
        object: Option<(Object, u64)>,
    ) -> anyhow::Result<(Told, Instant)> {
        self.stream.write_all(request).await?;
        self.buf.clear();
        self.read().await?;
        let first = Instant::now();
        let end = loop {
            if let Some(at) = memmem::find(&self.buf, b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(self.buf.len() < MOST, "an endless head");
            self.read().await?;
        };
        let told = expected.check(&self.buf[..end])?;
        let mut came = 0;
        let mut from = end;
        loop {
            let piece = &self.buf[from..];
            if let Some((object, start)) = object {
                ensure!(object.has(start + came, piece), "other bytes than the object's");
            }
            came += piece.len() as u64;
            if came >= expected.length {
                break;
            }
            self.buf.clear();
            from = 0;
            self.read().await.with_context(|| format!("{came} bytes of {}", expected.length))?;
        }
        ensure!(came == expected.length, "bytes behind the answer");
        Ok((told, first))
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        // No more than fits, so that it does not grow.
        self.buf.reserve(1);
        ensure!(self.stream.read_buf(&mut self.buf).await? > 0, "the connection ended");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::load::runtime;

    /// What comes of one exchange with a server that answers so.
    fn exchange(answer: Vec<u8>, object: &str) -> anyhow::Result<Told> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            // In two pieces, so that the head and the body come apart.
            let (head, rest) = answer.split_at(answer.len() / 3);
            let _ = stream.write_all(head).and_then(|()| stream.write_all(rest));
        });
        let object = Object::at(object).context("no object")?;
        let expected = Expected { status: 200, length: object.bytes, told: &[Told::Hit] };
        let told = runtime()?.block_on(async {
            let mut connection = Connection::open(address).await?;
            let request = b"GET / HTTP/1.1\r\n\r\n";
            connection.exchange(request, &expected, Some((object, 0))).await
        });
        server.join().unwrap();
        Ok(told?.0)
    }

    #[test]
    fn answers_are_compared_with_the_object() {
        const TARGET: &str = "/object/70000/0/a";
        let object = Object::at(TARGET).unwrap();
        let body = object.all();
        let with = |body: &[u8]| {
            [b"HTTP/1.1 200 OK\r\nX-Cache: HIT\r\nContent-Length: 70000\r\n\r\n", body].concat()
        };
        assert_eq!(exchange(with(&body), TARGET).unwrap(), Told::Hit);
        let error = |answer| exchange(answer, TARGET).unwrap_err().to_string();
        let mut other = body.clone();
        other[65_540] ^= 1;
        assert!(error(with(&other)).contains("other bytes"));
        assert!(error(with(&body[..69_999])).contains("69999 bytes of 70000"));
        assert!(error(with(&[&body[..], b"x"].concat())).contains("other bytes"));
    }
}
