//! The files that a configuration was read from, as they were when it was.
//!
//! Invariant: what is compared later is what was read then, so that a change in between is
//! never missed, whenever it is looked for.

use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Component, Path, PathBuf},
};

use super::include::matching;

/// Links that are followed on the way to one file, as the kernel does (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Files and what they held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    files: Vec<(PathBuf, Held)>,
    lists: Vec<List>,
}

/// The names in a folder that match a pattern; `None` if it could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List {
    folder: PathBuf,
    pattern: String,
    files: Option<Vec<PathBuf>>,
}

/// A file's bytes in short; `None` if it could not be read.
type Held = Option<(usize, u64)>;

impl Sources {
    /// Reads a file and remembers what it held.
    ///
    /// # Errors
    /// As read(2), or if it is no UTF-8. It is remembered all the same.
    pub(crate) fn read(&mut self, path: &Path) -> io::Result<String> {
        let bytes = self.read_bytes(path)?;
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The same for a file that need not be text.
    ///
    /// # Errors
    /// As read(2). It is remembered all the same.
    pub(crate) fn read_bytes(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let bytes = fs::read(path);
        let held = bytes.as_ref().ok().map(|bytes| in_short(bytes));
        self.files.push((path.to_owned(), held));
        bytes
    }

    /// Follows the files of others as well.
    pub(crate) fn extend(&mut self, others: &Self) {
        self.files.extend_from_slice(&others.files);
        self.lists.extend_from_slice(&others.lists);
    }

    /// Lists the files of a folder whose names match, sorted, and remembers which those were.
    ///
    /// # Errors
    /// As readdir(3). The folder is remembered all the same.
    pub(super) fn list(&mut self, folder: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let found = matching(folder, pattern);
        let files = found.as_ref().ok().cloned();
        self.lists.push(List { folder: folder.to_owned(), pattern: pattern.to_owned(), files });
        found
    }

    /// The files, in the order in which they were read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether any of them holds something else by now. Reads them.
    pub fn have_changed(&self) -> bool {
        let now = |path| fs::read(path).ok().map(|bytes| in_short(&bytes));
        self.files.iter().any(|(path, held)| now(path) != *held)
            || self
                .lists
                .iter()
                .any(|List { folder, pattern, files }| matching(folder, pattern).ok() != *files)
    }

    /// The folders in which something happens when one of them changes, be it written,
    /// replaced by a rename, or reached by a symbolic link that is replaced.
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        let mut folders = BTreeSet::new();
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        for (path, _) in &self.files {
            follow(&absolute(path), &mut folders, &mut { MOST_LINKS });
        }
        for List { folder, .. } in &self.lists {
            let listed = absolute(&Path::new(".").join(folder));
            let real = follow(&listed, &mut folders, &mut { MOST_LINKS });
            folders.insert(real);
        }
        folders
    }
}

fn in_short(bytes: &[u8]) -> (usize, u64) {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    (bytes.len(), hasher.finish())
}

/// Walks an absolute path as the kernel does, and notes where each link and the end lie.
/// Returns what the path leads to.
fn follow(path: &Path, folders: &mut BTreeSet<PathBuf>, links: &mut usize) -> PathBuf {
    let mut at = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = at.pop(),
            Component::CurDir => {}
            part => {
                let folder = at.clone();
                at.push(part);
                let Ok(target) = fs::read_link(&at) else { continue };
                folders.insert(folder.clone());
                if *links > 0 {
                    *links -= 1;
                    at = follow(&folder.join(target), folders, links);
                }
            }
        }
    }
    folders.extend(at.parent().map(Path::to_owned));
    at
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("underpass-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        // The folder for such may be a link itself.
        folder.canonicalize().unwrap()
    }

    #[test]
    fn a_change_is_another_content_whatever_brought_it() {
        let folder = scratch("sources");
        let path = folder.join("a.toml");
        fs::write(&path, "one").unwrap();
        let mut sources = Sources::default();
        assert_eq!(sources.read(&path).unwrap(), "one");
        assert!(!sources.have_changed());
        // The same content in another file is none.
        fs::write(folder.join("b"), "one").unwrap();
        fs::rename(folder.join("b"), &path).unwrap();
        assert!(!sources.have_changed());
        fs::write(&path, "two").unwrap();
        assert!(sources.have_changed());
        fs::remove_file(&path).unwrap();
        assert!(sources.have_changed());
        let mut gone = Sources::default();
        gone.read(&path).unwrap_err();
        assert!(!gone.have_changed());
        fs::write(&path, "three").unwrap();
        assert!(gone.have_changed());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn every_folder_that_a_link_leads_through_is_seen() {
        let folder = scratch("links");
        // As Kubernetes lays out a ConfigMap.
        fs::create_dir(folder.join("..2026")).unwrap();
        fs::write(folder.join("..2026/a.toml"), "x").unwrap();
        symlink("..2026", folder.join("..data")).unwrap();
        symlink("..data/a.toml", folder.join("a.toml")).unwrap();
        // And a release that is chosen by a link to its folder.
        fs::create_dir_all(folder.join("other/r1")).unwrap();
        symlink(folder.join("a.toml"), folder.join("other/r1/a.toml")).unwrap();
        symlink("r1", folder.join("other/current")).unwrap();
        let mut sources = Sources::default();
        sources.read(&folder.join("other/current/a.toml")).unwrap();
        let expected = ["other", "other/r1", "", "..2026"].map(|part| match part {
            "" => folder.clone(),
            part => folder.join(part),
        });
        assert_eq!(sources.folders(), BTreeSet::from(expected));
        // A ring ends.
        symlink("ring", folder.join("ring")).unwrap();
        let mut ring = Sources::default();
        ring.read(&folder.join("ring")).unwrap_err();
        assert!(ring.folders().contains(&folder));
        fs::remove_dir_all(folder).unwrap();
    }
}
