//! HTTP/1 heads and bodies as they stood on the wire.
//!
//! Kept as sent: case, order and repetition of fields. The reader is as strict as the
//! proxy must be and written apart from it, so that it can judge what the proxy sends.

use crate::wire::{End, Wire, find, printable};

/// A request's or a response's head.
#[derive(Debug, Clone)]
pub struct Head {
    /// First line, without its end.
    pub start: String,
    /// Fields in order, names in the case they came in.
    pub fields: Vec<(String, String)>,
    /// Every byte of it.
    pub raw: Vec<u8>,
}

/// A whole message, body decoded.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its head.
    pub head: Head,
    /// Content, without chunked framing.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
    /// `None` if it ended as its framing says, else how it was cut.
    pub cut: Option<End>,
}

impl Head {
    /// Parses a head; fails on what no proxy may send.
    pub fn parse(raw: &[u8]) -> Self {
        let text = std::str::from_utf8(raw)
            .unwrap_or_else(|_| panic!("head is not text: {}", printable(raw)));
        let text = text.strip_suffix("\r\n\r\n").expect("a head ends with an empty line");
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(field).collect();
        Self { start, fields, raw: raw.to_vec() }
    }

    /// First value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, v)| v.as_str()).collect()
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Status of a response.
    pub fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("not a status line: {}", self.start))
    }

    /// Method of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// Target of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// How the body behind this request ends.
    pub fn request_body(&self) -> BodyReader {
        self.framing().unwrap_or(BodyReader::Length(0))
    }

    /// How the body behind this response to `method` ends (RFC 9112 6.3).
    pub fn response_body(&self, method: &str) -> BodyReader {
        let bodiless = matches!(self.status(), 100..=199 | 204 | 304);
        if method == "HEAD" || bodiless {
            return BodyReader::Length(0);
        }
        self.framing().unwrap_or(BodyReader::UntilClose)
    }

    fn framing(&self) -> Option<BodyReader> {
        let codings = self.all("transfer-encoding");
        let lengths = self.all("content-length");
        assert!(codings.len() + lengths.len() <= 1, "ambiguous framing: {}", printable(&self.raw));
        if let [coding] = codings[..] {
            assert_eq!(coding.to_ascii_lowercase(), "chunked");
            return Some(BodyReader::ChunkStart);
        }
        let length = *lengths.first()?;
        Some(BodyReader::Length(length.parse().expect("a Content-Length that is a number")))
    }
}

/// Where in a body reading stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyReader {
    /// So many bytes are left.
    Length(u64),
    /// Before a chunk-size line.
    ChunkStart,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// To the end of the connection.
    UntilClose,
    /// Read to its end.
    Done,
}

impl BodyReader {
    /// The next piece of content, `None` at the end; trailers are put into `trailers`.
    pub async fn next(
        &mut self,
        wire: &mut Wire,
        trailers: &mut Vec<(String, String)>,
    ) -> Result<Option<Vec<u8>>, End> {
        loop {
            match *self {
                BodyReader::Done | BodyReader::Length(0) => {
                    *self = BodyReader::Done;
                    return Ok(None);
                }
                BodyReader::Length(left) => {
                    let piece = piece(wire, left).await?;
                    *self = BodyReader::Length(left - piece.len() as u64);
                    return Ok(Some(piece));
                }
                BodyReader::UntilClose => match piece(wire, u64::MAX).await {
                    Ok(piece) => return Ok(Some(piece)),
                    Err(End::Reset) => return Err(End::Reset),
                    Err(End::Fin) => *self = BodyReader::Done,
                },
                BodyReader::ChunkStart => {
                    let line = line(wire).await?;
                    let digits = line.split(';').next().unwrap_or_default();
                    let size = u64::from_str_radix(digits, 16)
                        .unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
                    *self = match size {
                        0 => {
                            read_trailers(wire, trailers).await?;
                            BodyReader::Done
                        }
                        size => BodyReader::Chunk(size),
                    };
                }
                BodyReader::Chunk(left) => {
                    let piece = piece(wire, left).await?;
                    let left = left - piece.len() as u64;
                    *self = BodyReader::Chunk(left);
                    if left == 0 {
                        assert_eq!(line(wire).await?, "", "a chunk ends with CRLF");
                        *self = BodyReader::ChunkStart;
                    }
                    return Ok(Some(piece));
                }
            }
        }
    }

    /// Reads exactly these bytes of content, in however many pieces, and not one more
    /// (within one chunk).
    pub async fn expect(&mut self, wire: &mut Wire, content: &str) {
        let mut got = Vec::new();
        let mut trailers = Vec::new();
        while got.len() < content.len() {
            match self.next(wire, &mut trailers).await {
                Ok(Some(piece)) => got.extend(piece),
                other => panic!("{other:?} after {}, wanted {content:?}", printable(&got)),
            }
        }
        assert_eq!(printable(&got), printable(content.as_bytes()));
    }

    /// Reads to the end and gives content, trailers, and how it was cut if it was.
    pub async fn rest(&mut self, wire: &mut Wire) -> (Vec<u8>, Vec<(String, String)>, Option<End>) {
        let (mut content, mut trailers) = (Vec::new(), Vec::new());
        loop {
            match self.next(wire, &mut trailers).await {
                Ok(Some(piece)) => content.extend(piece),
                Ok(None) => return (content, trailers, None),
                Err(end) => return (content, trailers, Some(end)),
            }
        }
    }

    /// Reads to a proper end, fails if cut.
    pub async fn finish(&mut self, wire: &mut Wire) -> Vec<u8> {
        let (content, _, cut) = self.rest(wire).await;
        assert_eq!(cut, None, "body cut after {}", printable(&content));
        content
    }
}

impl Wire {
    /// Reads a head.
    pub async fn read_head(&mut self) -> Head {
        Head::parse(&self.read_until("\r\n\r\n").await)
    }

    /// Reads a head, or gives how the connection ended before its first byte.
    pub async fn next_head(&mut self) -> Result<Head, End> {
        if self.buffer().is_empty() {
            self.fill("a head").await?;
        }
        Ok(self.read_head().await)
    }

    /// Reads a whole request.
    pub async fn read_request(&mut self) -> Message {
        let head = self.read_head().await;
        let mut reader = head.request_body();
        let (body, trailers, cut) = reader.rest(self).await;
        Message { head, body, trailers, cut }
    }

    /// Reads a whole final response to a request with `method`; interim ones fail.
    pub async fn read_response_to(&mut self, method: &str) -> Message {
        let head = self.read_head().await;
        assert!(head.status() >= 200, "interim response: {}", head.start);
        let mut reader = head.response_body(method);
        let (body, trailers, cut) = reader.rest(self).await;
        Message { head, body, trailers, cut }
    }

    /// Reads a whole final response to a GET or the like.
    pub async fn read_response(&mut self) -> Message {
        self.read_response_to("GET").await
    }

    /// Reads a response and fails unless it has this status.
    pub async fn expect_status(&mut self, status: u16) -> Message {
        let response = self.read_response().await;
        assert_eq!(response.head.status(), status, "{}", printable(&response.head.raw));
        response
    }
}

impl Message {
    /// Content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Status of a response.
    pub fn status(&self) -> u16 {
        self.head.status()
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) =
        line.split_once(':').unwrap_or_else(|| panic!("not a field line: {line:?}"));
    (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
}

async fn line(wire: &mut Wire) -> Result<String, End> {
    loop {
        if let Some(at) = find(wire.buffer(), b"\r\n") {
            let line = wire.buffer().split_to(at + 2);
            return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
        }
        wire.fill("a line of the chunked coding").await?;
    }
}

async fn piece(wire: &mut Wire, most: u64) -> Result<Vec<u8>, End> {
    if wire.buffer().is_empty() {
        wire.fill("more of a body").await?;
    }
    let take = (wire.buffer().len() as u64).min(most) as usize;
    Ok(wire.buffer().split_to(take).to_vec())
}

async fn read_trailers(wire: &mut Wire, trailers: &mut Vec<(String, String)>) -> Result<(), End> {
    loop {
        let line = line(wire).await?;
        if line.is_empty() {
            return Ok(());
        }
        trailers.push(field(&line));
    }
}
