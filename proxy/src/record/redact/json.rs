//! Members of JSON, found in a stream of bytes and blanked in place.
//!
//! Not a parser: it follows strings, and what stands behind the colon of a name that is looked
//! for. So it works inside the events of a stream and in lines of JSON as well, wherever chunks
//! begin and end: its state goes on from chunk to chunk. A line feed is never inside a string of
//! JSON, and sets the state back, so that a stray quote in other text spoils one line at most.
//!
//! Every byte of a value becomes one byte, so lengths and chunk boundaries stay as they were: `*`
//! inside strings, `9` for digits. Objects and arrays are blanked through. What is JSON inside a
//! string of JSON, or spread over several events, is not seen.

/// Names longer than this are compared by nobody.
const LONGEST_NAME: usize = 256;

/// Where the scan is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scan {
    state: State,
    /// The bytes of the string that is being read, should it be a name.
    name: Vec<u8>,
    /// Inside a string, the byte before was a backslash.
    escaped: bool,
    /// How deep inside the value that is blanked.
    depth: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Outside of strings.
    Between,
    /// In a string that may be a name.
    Text,
    /// Behind a string that is a name, if a colon follows.
    Named,
    /// Behind the colon.
    Value,
    /// In a string that is blanked.
    BlankText,
    /// In a number or a word that is blanked.
    BlankWord,
    /// In an object or array that is blanked, outside of its strings.
    BlankInside,
}

impl Default for Scan {
    fn default() -> Self {
        Self { state: State::Between, name: Vec::new(), escaped: false, depth: 0 }
    }
}

impl Scan {
    /// Blanks what is to be blanked in the next bytes of the stream. `names` are lower case.
    pub(super) fn blank(&mut self, names: &[String], bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.step(names, *byte);
        }
    }

    fn step(&mut self, names: &[String], byte: u8) -> u8 {
        if byte == b'\n' {
            // JSON that is spread over lines goes on with its value in the next.
            match self.state {
                State::Text | State::BlankText => *self = Self::default(),
                State::BlankWord => self.ends(),
                _ => {}
            }
            return byte;
        }
        match self.state {
            State::Between => {
                if byte == b'"' {
                    self.text(State::Text);
                }
            }
            State::Text => {
                if self.closes(byte) {
                    let named = self.is_one_of(names);
                    self.state = if named { State::Named } else { State::Between };
                } else if self.name.len() <= LONGEST_NAME {
                    self.name.push(byte);
                }
            }
            State::Named => match byte {
                b':' => self.state = State::Value,
                b'"' => self.text(State::Text),
                _ if byte.is_ascii_whitespace() => {}
                _ => self.state = State::Between,
            },
            State::Value => match byte {
                _ if byte.is_ascii_whitespace() => {}
                b'"' => self.text(State::BlankText),
                b'{' | b'[' => {
                    self.depth = 1;
                    self.state = State::BlankInside;
                }
                b',' | b'}' | b']' => self.state = State::Between,
                _ => {
                    self.state = State::BlankWord;
                    return digit(byte);
                }
            },
            State::BlankText => {
                if !self.closes(byte) {
                    return b'*';
                }
                self.ends();
            }
            State::BlankWord => match byte {
                b',' | b'}' | b']' => {
                    self.ends();
                    self.leaves(byte);
                }
                _ if byte.is_ascii_whitespace() => self.ends(),
                _ => return digit(byte),
            },
            State::BlankInside => match byte {
                b'"' => self.text(State::BlankText),
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.leaves(byte),
                b',' | b':' => {}
                _ if byte.is_ascii_whitespace() => {}
                _ => {
                    self.state = State::BlankWord;
                    return digit(byte);
                }
            },
        }
        byte
    }

    fn text(&mut self, state: State) {
        self.state = state;
        self.name.clear();
        self.escaped = false;
    }

    /// Whether this byte is the quote that ends a string.
    fn closes(&mut self, byte: u8) -> bool {
        let escaped = std::mem::take(&mut self.escaped);
        self.escaped = !escaped && byte == b'\\';
        !escaped && byte == b'"'
    }

    /// A string or a word of what is blanked is over.
    fn ends(&mut self) {
        self.state = if self.depth > 0 { State::BlankInside } else { State::Between };
    }

    fn leaves(&mut self, byte: u8) {
        if self.depth > 0 && matches!(byte, b'}' | b']') {
            self.depth -= 1;
            self.ends();
        }
    }

    fn is_one_of(&self, names: &[String]) -> bool {
        if self.name.len() > LONGEST_NAME {
            return false;
        }
        if !self.name.contains(&b'\\') {
            return names.iter().any(|name| self.name.eq_ignore_ascii_case(name.as_bytes()));
        }
        let quoted = [b"\"", self.name.as_slice(), b"\""].concat();
        let plain: Result<String, _> = serde_json::from_slice(&quoted);
        plain.is_ok_and(|plain| names.iter().any(|name| plain.eq_ignore_ascii_case(name)))
    }
}

/// Numbers stay numbers; `true`, `false` and `null` stay as they are.
fn digit(byte: u8) -> u8 {
    if byte.is_ascii_digit() { b'9' } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blanked(text: &str, cut: usize) -> String {
        let names = ["password".to_owned(), "pin".to_owned()];
        let mut scan = Scan::default();
        let mut bytes = text.as_bytes().to_vec();
        bytes.chunks_mut(cut).for_each(|chunk| scan.blank(&names, chunk));
        String::from_utf8(bytes).unwrap()
    }

    /// Wherever chunks end, the same bytes are blanked.
    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn values_are_blanked_wherever_chunks_end() {
        for (text, wanted) in [
            (r#"{"password":"s3cret","a":"b"}"#, r#"{"password":"******","a":"b"}"#),
            (r#"{"PassWord" : "s3\"et","a":1}"#, r#"{"PassWord" : "******","a":1}"#),
            (r#"{"pass\u0077ord":"x"}"#, r#"{"pass\u0077ord":"*"}"#),
            (r#"{"pin":1234,"a":1234}"#, r#"{"pin":9999,"a":1234}"#),
            (r#"{"pin":-1.5e3}"#, r#"{"pin":-9.9e9}"#),
            (r#"{"pin":null,"b":[1]}"#, r#"{"pin":null,"b":[1]}"#),
            (
                r#"{"pin":{"a":["x",12,{"b":"yy"}]},"c":"z"}"#,
                r#"{"pin":{"*":["*",99,{"*":"**"}]},"c":"z"}"#,
            ),
            (r#"{"a":"password","b":"c"}"#, r#"{"a":"password","b":"c"}"#),
            (r#"["password","x"]"#, r#"["password","x"]"#),
            (r#"{"a":"\\","password":"x"}"#, r#"{"a":"\\","password":"*"}"#),
            ("don\"t\ndata: {\"pin\":\"1\"}\n\n", "don\"t\ndata: {\"pin\":\"*\"}\n\n"),
            ("{\"pin\":\n  \"12\"\n}", "{\"pin\":\n  \"**\"\n}"),
            ("{\"pin\":[\n  \"12\",\n  3\n], \"a\":3}", "{\"pin\":[\n  \"**\",\n  9\n], \"a\":3}"),
            ("{\"pin\":\"é\"}", "{\"pin\":\"**\"}"),
        ] {
            for cut in [1, 2, 3, 5, 7, text.len()] {
                assert_eq!(blanked(text, cut), wanted, "cut by {cut}");
            }
        }
    }
}
