//! Configurations in several files, and variables in them: what they come to, and where their
//! mistakes are.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use mantra_macros::req_test;

use super::*;

/// A folder of files, removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("underpass-include-{}-{number}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        for (name, text) in files {
            let path = folder.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn load(&self, name: &str) -> Loaded {
        load_draft(&self.0.join(name)).resolve()
    }

    /// What is wrong, with paths as they are in the folder.
    fn errors(&self, name: &str) -> String {
        let text = self.load(name).config.unwrap_err().to_string();
        text.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn listener(name: &str) -> String {
    format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n")
}

fn route(name: &str) -> String {
    format!(
        "[[route]]\nhost = \"{name}.test\"\nupstream = \"{name}\"\n\
         [[upstream]]\nname = \"{name}\"\nservers = [\"127.0.0.1:1\"]\n"
    )
}

const MAIN: &str = "include = [\"conf.d/*.toml\"]\nworkers = 2\n";

#[req_test("REQ-EDGE-008")]
#[test]
fn files_are_one_configuration_in_the_order_of_their_names() {
    let folder = Folder::new(&[
        ("main.toml", &(MAIN.to_owned() + &listener("web") + &route("first"))),
        ("conf.d/20-b.toml", &route("third")),
        ("conf.d/10-a.toml", &("drain_timeout = \"7s\"\n".to_owned() + &route("second"))),
        ("conf.d/.hidden.toml", "wrong"),
        ("conf.d/notes.txt", "wrong"),
        ("conf.d/folder.toml/x", "wrong"),
    ]);
    let Loaded { config, sources } = folder.load("main.toml");
    let config = config.unwrap();
    let names: Vec<_> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["first", "second", "third"]);
    assert_eq!((config.workers, config.drain_timeout.as_secs()), (2, 7));
    assert_eq!(sources.files().count(), 3);
    // What is in force stands in one file again.
    let effective = config.effective();
    assert!(!effective.contains("include"));
    assert_eq!(parse(&effective, "effective").unwrap().effective(), effective);
}

#[req_test("REQ-EDGE-008")]
#[test]
fn an_include_is_a_file_a_folder_or_a_pattern_relative_to_its_file() {
    let folder = Folder::new(&[
        (
            "main.toml",
            &("include = [\"a/one.toml\", \"b\", \"none/../c-*.toml\", \"d-?.toml\"]\n".to_owned()
                + &listener("web")),
        ),
        ("a/one.toml", "include = [\"more/two.toml\"]\n"),
        ("a/more/two.toml", &route("two")),
        ("b/three.toml", &route("three")),
        ("none/x", ""),
        // A pattern that nothing matches is no mistake: a folder may be empty yet.
        ("c-1.toml", &route("four")),
    ]);
    let config = folder.load("main.toml").config.unwrap();
    let names: Vec<_> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["two", "three", "four"]);
}

#[req_test("REQ-EDGE-008")]
#[test]
fn a_mistake_is_where_it_was_written() {
    let whole = listener("web") + &route("one");
    let folder = Folder::new(&[
        ("main.toml", &(MAIN.to_owned() + &whole)),
        ("conf.d/a.toml", "\n\n[[route]]\nhost = \"x.test\"\nupstream = \"onne\"\n"),
        ("conf.d/b.toml", "workers = 3\n[limits]\nhead_timeout = 5\n"),
        ("syntax.toml", "include = [\"broken.toml\"]\n"),
        ("broken.toml", "[[listener]]\nname = \n"),
    ]);
    assert_eq!(
        folder.errors("main.toml"),
        "conf.d/a.toml:5:12: unknown upstream `onne`; did you mean `one`? Valid: `one`\n\
         conf.d/b.toml:1:1: `workers` stands in two files: here and at main.toml:2:1; keep one of them\n\
         conf.d/b.toml:3:16: `5` is not a duration; add the unit, for example \"5s\" or \"5ms\""
    );
    let syntax = folder.errors("syntax.toml");
    assert!(syntax.starts_with("broken.toml:2:8: not valid TOML"), "{syntax}");
}

#[req_test("REQ-EDGE-008")]
#[test]
fn what_cannot_be_included_is_told_where_it_is_asked_for() {
    let whole = listener("web") + &route("one");
    for (include, wanted) in [
        ("\"none.toml\"", "main.toml:1:12: `none.toml` cannot be read: No such file"),
        ("\"none/*.toml\"", "main.toml:1:12: the folder `none` cannot be read: No such file"),
        ("\"*/a.toml\"", "main.toml:1:12: `*/a.toml` has a pattern in a folder's name; write"),
        ("\"main.toml\"", "main.toml:1:12: `main.toml` includes itself; remove it"),
        ("\"m*.toml\"", "main.toml:1:12: `main.toml` includes itself; remove it"),
        ("\"a.toml\", \"a.toml\"", "main.toml:1:22: `a.toml` is included twice; remove it"),
        ("\"ring.toml\"", "ring.toml:1:12: `main.toml` includes itself; remove it"),
        ("5", "main.toml:1:12: a path in `include` is no string; write a list of paths"),
        ("\"${NOWHERE_AT_ALL}\"", "main.toml:1:12: the environment has no `NOWHERE_AT_ALL`; set"),
    ] {
        let folder = Folder::new(&[
            ("main.toml", &format!("include = [{include}]\n{whole}")),
            ("a.toml", ""),
            ("ring.toml", "include = [\"main.toml\"]\n"),
        ]);
        let said = folder.errors("main.toml");
        assert!(said.starts_with(wanted) && said.lines().count() == 1, "{include}: {said}");
    }
    let folder = Folder::new(&[("main.toml", &("include = \"a.toml\"\n".to_owned() + &whole))]);
    assert!(folder.errors("main.toml").starts_with("main.toml:1:11: `include` is no list; write"));
    // By another name it is the same file.
    let folder = Folder::new(&[("main.toml", "include = [\"link.toml\"]\n")]);
    std::os::unix::fs::symlink("main.toml", folder.0.join("link.toml")).unwrap();
    assert!(folder.errors("main.toml").starts_with("main.toml:1:12: `link.toml` includes itself"));
}

#[req_test("REQ-EDGE-008")]
#[test]
fn variables_are_put_into_strings_of_every_file() {
    let file = |name: &str, text: &str| include::File { name: name.into(), text: text.into() };
    let environment = |name: &str| match name {
        "PORT" => Some("8081".to_owned()),
        "SECRET" => Some("p$$w${PORT}".to_owned()),
        _ => None,
    };
    let files = [
        file("a", &listener("web").replace("127.0.0.1:0", "127.0.0.1:${PORT}")),
        file("b", &route("one").replace("127.0.0.1:1", "${BACKEND:-127.0.0.1}:${PORT}")),
        file(
            "c",
            "[[listener]]\nname = \"out\"\naddress = \"127.0.0.1:0\"\nprotocol = \"forward\"\n\
             forward = { users = [\"name:${SECRET}\"] }\n# ${IN_A_COMMENT}\n",
        ),
    ];
    let (draft, errors) = read::draft(&files, &environment);
    let config = draft.resolve(errors).unwrap();
    assert_eq!(config.listeners[0].address.port(), 8081);
    assert_eq!(config.upstreams[0].servers[0].address.to_string(), "127.0.0.1:8081");
    let Protocol::Forward(policy) = &config.listeners[1].protocol else { panic!("forward") };
    assert_eq!(policy.users, ["name:p$$w${PORT}"]);

    let wrong = [file("a", &(listener("web") + &route("one")).replace("127.0.0.1:1", "${NONE}"))];
    let (draft, errors) = read::draft(&wrong, &environment);
    let said = draft.resolve(errors).unwrap_err().to_string();
    let place = "a:9:12: the environment has no `NONE`; set it where the proxy is started";
    assert!(said.starts_with(place), "{said}");
}

#[test]
fn a_new_file_that_a_pattern_matches_is_a_change() {
    let folder = Folder::new(&[
        ("main.toml", &(MAIN.to_owned() + &listener("web") + &route("one"))),
        ("conf.d/a.toml", ""),
    ]);
    let sources = folder.load("main.toml").sources;
    assert!(!sources.have_changed());
    fs::write(folder.0.join("conf.d/b.txt"), "").unwrap();
    assert!(!sources.have_changed());
    fs::write(folder.0.join("conf.d/b.toml"), "").unwrap();
    assert!(sources.have_changed());
    let real = folder.0.canonicalize().unwrap();
    let watched = sources.folders();
    assert!(watched.contains(&real) && watched.contains(&real.join("conf.d")), "{watched:?}");
    assert!(watched.iter().all(|folder| Path::new(folder).is_dir()));
}
