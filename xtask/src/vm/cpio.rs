//! Initial file systems in the format that the kernel unpacks: cpio, "newc" (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive that grows by one entry at a time.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Adds an empty directory, and those above it.
    pub(super) fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || !self.directories.insert(path.to_owned()) {
            return;
        }
        self.parents(path);
        self.entry(path, DIRECTORY, &[]);
    }

    /// Adds a file that anybody may run, and the directories above it.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.parents(path);
        self.entry(path, FILE, content);
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.entry(path, LINK, target.as_bytes());
    }

    /// The whole.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        if let Some((parent, _)) = path.trim_matches('/').rsplit_once('/') {
            self.directory(parent);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let name = path.trim_matches('/');
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a file of less than 4 GiB");
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor,
        // rdevminor, namesize (with its NUL), check (always 0 in newc)
        let name_size = name.len() as u32 + 1;
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// To the next multiple of four.
    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_follow_the_format() {
        let mut archive = Archive::default();
        archive.file("/bin/a", b"xyz");
        archive.link("/bin/b", "a");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);

        // Read back as the kernel does.
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |index: usize| {
                let digits = &bytes[at + 6 + index * 8..][..8];
                usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = at + 110;
            let content = (name + name_size).next_multiple_of(4);
            let text = |range: &[u8]| String::from_utf8(range.to_vec()).unwrap();
            found.push((
                text(&bytes[name..name + name_size - 1]),
                mode as u32,
                text(&bytes[content..content + size]),
            ));
            at = (content + size).next_multiple_of(4);
        }
        let wanted = [
            ("bin", DIRECTORY, ""),
            ("bin/a", FILE, "xyz"),
            ("bin/b", LINK, "a"),
            ("TRAILER!!!", 0, ""),
        ];
        let wanted = wanted.map(|(name, mode, text)| (name.to_owned(), mode, text.to_owned()));
        assert_eq!(found, wanted);
    }
}
